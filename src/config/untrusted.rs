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
    /// More headers that nobody but a trusted load balancer may send. The [built-in list](#headers-that-only-a-proxy-may-write)
    /// and the headers that any `from` names are removed without being listed here. The variants of a name, such as
    /// `x_forwarded_ssl` and `x.forwarded.ssl`, go with it. Those of x-forwarded-proto are removed from every request,
    /// trusted or not.
    remove_headers: Vec<HeaderName> = optional "removeHeaders": Distinct<RemovedHeader>, "[]", "[x-real-scheme]";
    /// Headers that stay although they are in the built-in list or in a `from`. Whatever reads them believes any client.
    keep_headers: Vec<HeaderName> = optional "keepHeaders": Distinct<RemovedHeader>, "[]", "[x-real-ip]";
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
