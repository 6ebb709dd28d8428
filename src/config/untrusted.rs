//! What becomes of requests from peers that no rule trusts.

use super::declare::{Distinct, object, words};
use super::headers::{HeaderName, RemovedHeader};

object! {
    /// Requests from peers that no rule trusts.
    pub struct Untrusted = "Untrusted", "untrusted", "{forwardedProto: connection}";
    derive Default;

    /// What `x-forwarded-proto` becomes: what the connection is (TLS or not), `http`, or what is there already. `keep`
    /// hands the scheme to anybody if Envoy keeps x-forwarded-proto too.
    forwarded_proto: UntrustedProto = optional "forwardedProto": UntrustedProto, "connection", "http";
    /// Headers that nobody but a trusted load balancer may send; their underscore variants (`x_forwarded_ssl`) go with
    /// them. A list replaces the default one. The variants of x-forwarded-proto are removed from every request, trusted
    /// or not.
    remove_headers: Option<Vec<HeaderName>> = optional "removeHeaders": Distinct<RemovedHeader>, "see below",
        "[x-forwarded-ssl, x-real-scheme]";
}

words! {
    /// What is written to x-forwarded-proto for an untrusted peer.
    pub enum UntrustedProto;

    /// What the connection to the gateway is.
    Connection = "connection";
    /// `http`.
    Http = "http";
    /// Nothing: what is there stays.
    Keep = "keep";
}

/// The headers that an untrusted peer can't send unless the configuration says otherwise: each makes some
/// framework believe in https.
pub const DEFAULT_REMOVED_HEADERS: &[&str] = &[
    "x-forwarded-ssl",
    "x-forwarded-scheme",
    "x-forwarded-protocol",
    "x-url-scheme",
    "front-end-https",
    "forwarded",
];

impl Untrusted {
    /// The headers that are removed from an untrusted peer's request.
    #[must_use]
    pub fn removed_headers(&self) -> Vec<&str> {
        match &self.remove_headers {
            Some(names) => names.iter().map(HeaderName::as_str).collect(),
            None => DEFAULT_REMOVED_HEADERS.to_vec(),
        }
    }
}
