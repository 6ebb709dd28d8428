//! How a signal's value tells the scheme.

/// How a signal's value reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SignalForm {
    /// `http` or `https`, also `ws` and `wss`, in any case; of a list the right-most.
    Scheme,
    /// A port; which ports mean https and which http.
    Port {
        /// Ports that mean https.
        https: Vec<u16>,
        /// Ports that mean http.
        http: Vec<u16>,
    },
    /// Cloudflare's JSON: `{"scheme":"https"}`.
    CfVisitor,
    /// `on` or `off`.
    OnOff,
    /// Present means https.
    Present,
    /// RFC 7239; the right-most element's `proto`.
    Forwarded,
    /// Exactly these values.
    Values {
        /// Values that mean https.
        https: Vec<String>,
        /// Values that mean http.
        http: Vec<String>,
    },
    /// A copy of x-forwarded-proto made by the gateway's own early header mutation: `TOKEN VALUE`.
    Helper,
}
