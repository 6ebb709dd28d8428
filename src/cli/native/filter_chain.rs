//! A filter chain as the native forms fill it, and what they write alike.

use serde_json::{Map, Value, json};

use super::policy;
use super::refusal::Refusals;
use crate::config::{Config, UntrustedAction};

pub(super) const FORWARDED_PROTO: &str = "x-forwarded-proto";
pub(super) const FORWARDED_PORT: &str = "x-forwarded-port";
/// Longer expressions are refused: Envoy evaluates them for every connection or request.
const LONGEST_EXPRESSION: usize = 64 * 1024;

/// What has to be done in a filter chain.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// In front of the connection manager.
    pub(super) network_filters: Vec<Value>,
    /// Fields of the connection manager.
    pub(super) manager: Map<String, Value>,
    /// In front of the other HTTP filters, in this order.
    pub(super) http_filters: Vec<Value>,
}

/// A filter chain for some peers.
#[derive(Debug)]
pub(super) struct SourceChain {
    pub(super) name: String,
    /// The peers' networks; nothing for everybody else.
    pub(super) networks: Vec<ipnet::IpNet>,
    pub(super) chain: Chain,
}

/// Whether untrusted requests are answered by Envoy itself.
pub(super) fn refuses(config: &Config) -> bool {
    config
        .untrusted
        .as_ref()
        .is_some_and(|untrusted| untrusted.action == UntrustedAction::Refuse)
}

/// What the connection manager has to be told.
pub(super) fn connection_manager(config: &Config, hops: u8, chain: &mut Chain) {
    let fields = &mut chain.manager;
    fields.insert("use_remote_address".to_owned(), json!(true));
    // Envoy keeps x-forwarded-proto, and derives :scheme from it, only if it trusts a hop.
    fields.insert("xff_num_trusted_hops".to_owned(), json!(hops));
    if policy::wants_no_internal_client(config) {
        // An empty list would mean Envoy's own.
        let nobody = json!({"address_prefix": "255.255.255.255", "prefix_len": 32});
        fields.insert(
            "internal_address_config".to_owned(),
            json!({"cidr_ranges": [nobody]}),
        );
    }
}

/// An expression as Envoy's formatter takes it.
pub(super) fn formatted(expression: &str, refusals: &mut Refusals) -> String {
    if expression.len() > LONGEST_EXPRESSION {
        refusals.refuse(
            "trustedLoadBalancers",
            "rules and overrides together make an expression of more than 64 KB",
            "use fewer blocks, rules or overrides with forwardedProto, or keep the module",
        );
    }
    format!("%CEL({expression})%")
}
