//! A filter chain for each load balancer, chosen by the direct peer's address: for a standalone Envoy.
//!
//! Who is trusted is settled before a request comes, so that little is asked about it. The chain for everybody else trusts no
//! hop, and overwrites an HTTP/2 peer's `:scheme`.

use ipnet::IpNet;
use serde_json::json;

use super::connection::nets;
use super::expression;
use super::filter_chain::{
    Chain, FORWARDED_PORT, FORWARDED_PROTO, SourceChain, connection_manager, formatted, refuses,
};
use super::filters::{self, Existing, write};
use super::lines::Lines;
use super::options::Options;
use super::refusal::Refusals;
use super::{policy, removal};
use crate::config::{
    Config, DefaultScheme, LoadBalancerMatch, RewriteScheme, Scheme, TrustedLoadBalancer,
};

/// The chains, or nothing if the configuration can't be said so.
pub(super) fn plan(
    config: &Config,
    options: Options,
    refusals: &mut Refusals,
) -> Option<Vec<SourceChain>> {
    if !fits(config, options) {
        return None;
    }
    let rules = config.trusted_load_balancers.iter().enumerate();
    let mut chains: Vec<SourceChain> = rules
        .map(|(index, rule)| SourceChain {
            name: rule.name.clone(),
            networks: nets(&rule.matches.ip_blocks),
            chain: trusted(config, rule, index, options, refusals),
        })
        .collect();
    chains.push(SourceChain {
        name: "everybody-else".to_owned(),
        networks: Vec::new(),
        chain: untrusted(config, options, refusals),
    });
    Some(chains)
}

/// Whether no address is in two rules.
fn disjoint(rules: &[TrustedLoadBalancer]) -> bool {
    let of_rule = |rule: &TrustedLoadBalancer| IpNet::aggregate(&nets(&rule.matches.ip_blocks));
    let mut all: Vec<IpNet> = rules.iter().flat_map(of_rule).collect();
    // A network stands right in front of those within it.
    all.sort_unstable();
    all.iter()
        .zip(all.iter().skip(1))
        .all(|(one, next)| !one.contains(next))
}

/// Whether every rule is about addresses alone, none of which is in two rules.
fn fits(config: &Config, options: Options) -> bool {
    let rules = &config.trusted_load_balancers;
    let by_address = |rule: &TrustedLoadBalancer| {
        let only = LoadBalancerMatch {
            ip_blocks: rule.matches.ip_blocks.clone(),
            ..LoadBalancerMatch::default()
        };
        !only.ip_blocks.is_empty() && rule.matches == only
    };
    let constant = rules
        .iter()
        .all(|rule| rule.forwarded_proto.from.is_empty());
    let asks_nothing = config
        .routes
        .iter()
        .all(|route| route.forwarded_proto.is_none());
    rules.iter().all(by_address)
        && disjoint(rules)
        && asks_nothing
        && !removal::overrides_ask_for_family(config)
        && match config.rewrite_scheme {
            RewriteScheme::Auto if constant => true,
            RewriteScheme::Auto => !config.forwarded_port && options.version.minor >= 38,
            RewriteScheme::Always => constant,
            RewriteScheme::Never => false,
        }
}

fn trusted(
    config: &Config,
    rule: &TrustedLoadBalancer,
    index: usize,
    options: Options,
    refusals: &mut Refusals,
) -> Chain {
    let mut chain = Chain::default();
    let mut early = Vec::new();
    let proto = &rule.forwarded_proto;
    let scheme = match proto.default {
        DefaultScheme::Scheme(scheme) => scheme,
        DefaultScheme::Connection => options.connection(),
    };
    if proto.from.is_empty() {
        early.push(write(FORWARDED_PROTO, scheme.as_str(), Existing::Overwrite));
    } else {
        let mut lines = Lines::default();
        let place = format!("trustedLoadBalancers[{index}].forwardedProto");
        let told = expression::signals(proto, &place, &mut lines, refusals);
        early.extend(lines.copies());
        let format = formatted(&told, refusals);
        early.push(write(FORWARDED_PROTO, &format, Existing::Overwrite));
        early.extend(lines.removals());
    }
    if config.forwarded_port {
        let port = scheme.default_port();
        early.push(write(FORWARDED_PORT, port, Existing::Overwrite));
    }
    if config.rewrite_scheme == RewriteScheme::Always {
        overwrite_scheme(&mut chain, scheme);
    }
    early.extend(removal::from_everybody(config, options));
    connection_manager(config, 1, &mut chain);
    chain.manager.insert(
        "early_header_mutation_extensions".to_owned(),
        json!([filters::early_mutation(&early)]),
    );
    chain.http_filters.extend(policy::filter(config, refusals));
    chain
}

fn untrusted(config: &Config, options: Options, refusals: &mut Refusals) -> Chain {
    let mut chain = Chain::default();
    // Envoy itself overwrites x-forwarded-proto with the connection's scheme if it trusts no hop.
    connection_manager(config, 0, &mut chain);
    if refuses(config) {
        chain.http_filters.push(filters::deny("trusted-lb.refused"));
        return chain;
    }
    let scheme = options.connection();
    overwrite_scheme(&mut chain, scheme);
    let mut early = Vec::new();
    if config.forwarded_port {
        let port = scheme.default_port();
        early.push(write(FORWARDED_PORT, port, Existing::Overwrite));
    }
    early.extend(removal::from_everybody(config, options));
    early.extend(removal::from_strangers(config));
    chain.manager.insert(
        "early_header_mutation_extensions".to_owned(),
        json!([filters::early_mutation(&early)]),
    );
    chain.http_filters.extend(policy::filter(config, refusals));
    chain
}

/// On every protocol.
fn overwrite_scheme(chain: &mut Chain, scheme: Scheme) {
    chain.manager.insert(
        "scheme_header_transformation".to_owned(),
        json!({"scheme_to_overwrite": scheme.as_str()}),
    );
}
