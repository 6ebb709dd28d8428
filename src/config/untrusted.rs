//! What becomes of requests from peers that no rule trusts.

use super::declare::{Distinct, Rule, Set, object, whole, words};
use super::headers::{HeaderName, RemovedHeader};
use super::read::Fields;
use super::trust::LoadBalancerMatch;

object! {
    /// Requests from peers that no rule trusts.
    pub struct Untrusted = "Untrusted", "untrusted", "{forwardedProto: connection}";
    derive Default;
    check refusal;

    /// What `x-forwarded-proto` becomes: what the connection is (TLS or not), `http`, or what is there already. `keep`
    /// hands the scheme to anybody if Envoy keeps x-forwarded-proto too.
    forwarded_proto: UntrustedProto = optional "forwardedProto": UntrustedProto, "connection", "http";
    /// Whether requests from peers that no rule trusts are served, or refused by the filter itself. In shadow mode it only
    /// counts them.
    action: UntrustedAction = optional "action": UntrustedAction, "serve", "refuse";
    /// The status of the answer, with `action: refuse`.
    status: Option<u16> = optional "status": RefusalStatus, "403", "421";
    /// Requests that are served all the same, untrusted as they are: probes of the gateway, for example. With
    /// `action: refuse` only.
    except: Vec<Exception> = optional "except": Set<Exception>, "[]", "[{paths: [{exact: /healthz}]}]";
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

words! {
    /// What becomes of a request from an untrusted peer.
    pub enum UntrustedAction;

    /// It is served.
    Serve = "serve";
    /// The filter answers it.
    Refuse = "refuse";
}

whole! {
    /// A status that refuses.
    RefusalStatus: u16 = "a status of an error", 400, 599;
}

object! {
    /// Every condition given must hold; within a list one entry. The conditions are those of a rule of trust.
    pub struct Exception = "Exception", "untrusted.except[]", "{paths: [{exact: /healthz}]}", Rule::AtLeastOne {
        message: "an empty match would hold for everybody",
        help: "write for example paths: [{exact: /healthz}], or leave action: refuse out",
    };

    /// The conditions.
    matches: LoadBalancerMatch = shared;
}

/// The status of a refusal that names none.
const FORBIDDEN: u16 = 403;

impl Untrusted {
    /// The status with which requests are refused, if they are.
    #[must_use]
    pub fn refusal(&self) -> Option<u16> {
        let status = self.status.unwrap_or(FORBIDDEN);
        (self.action == UntrustedAction::Refuse).then_some(status)
    }
}

/// What is about refusing says nothing if everybody is served.
fn refusal(untrusted: &Untrusted, fields: &Fields<'_>) {
    for name in ["status", "except"] {
        if untrusted.action == UntrustedAction::Serve
            && fields.has(name)
            && (fields.is_whole("action") || !fields.has("action"))
        {
            fields.error_at(
                name,
                &"everybody is served here, so that this says nothing",
                &"write action: refuse, or take it out",
            );
        }
    }
}
