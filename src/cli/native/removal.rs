//! Which headers go, from everybody or from untrusted peers, as patterns of names.

use serde_json::Value;

use super::filter_chain::{FORWARDED_PORT, FORWARDED_PROTO};
use super::filters::remove_matching;
use super::options::Options;
use super::policy::{self, STREAM_DURATION};
use super::refusal::Refusals;
use super::variants::patterns;
use crate::config::{Config, HeaderMatch, PeerAddress, RequestMatch, SignalForm};

/// Helper headers, and the variants of what is written, whoever sent them.
pub(super) fn from_everybody(config: &Config, options: Options) -> Vec<Value> {
    let taken_from_anybody = options.version.minor < 40;
    let exact: &[&str] = if taken_from_anybody && policy::wants_no_internal_client(config) {
        &[STREAM_DURATION]
    } else {
        &[]
    };
    mutations(&patterns(&helpers(config), &written(config), exact))
}

/// The headers that only a trusted load balancer may send, and their variants.
pub(super) fn from_strangers(config: &Config) -> Vec<Value> {
    // Whatever requestHeaders says: no filter in front has to have written it.
    mutations(&patterns(&family(config), &[], &[STREAM_DURATION]))
}

fn mutations(patterns: &[String]) -> Vec<Value> {
    patterns
        .iter()
        .map(|pattern| remove_matching(pattern))
        .collect()
}

fn family(config: &Config) -> Vec<String> {
    let names = config.removed_headers().into_iter();
    names.map(str::to_owned).collect()
}

fn helpers(config: &Config) -> Vec<String> {
    let mut helpers = Vec::new();
    if let PeerAddress::Header(name) = &config.peer_address {
        helpers.push(name.as_str().to_owned());
    }
    let of_signals = config
        .signals()
        .filter(|signal| signal.form == SignalForm::Helper);
    helpers.extend(of_signals.map(|signal| signal.name.as_str().to_owned()));
    helpers
}

fn written(config: &Config) -> Vec<&'static str> {
    let mut written = vec![FORWARDED_PROTO];
    if config.forwarded_port {
        written.push(FORWARDED_PORT);
    }
    written
}

/// A condition on a header that goes before it can be asked for.
pub(super) fn refuse_what_is_read(config: &Config, refusals: &mut Refusals) {
    if !config.judges_schemes() {
        return;
    }
    let gone = |name: &str| {
        helpers(config)
            .iter()
            .any(|known| is_variant(known, name) || known == name)
            || written(config).iter().any(|known| is_variant(known, name))
    };
    let of_rules = config.trusted_load_balancers.iter().enumerate();
    let of_rules = of_rules.map(|(index, rule)| {
        (
            format!("trustedLoadBalancers[{index}].match"),
            &rule.matches.request,
        )
    });
    let of_routes = config.routes.iter().enumerate();
    let of_routes =
        of_routes.map(|(index, route)| (format!("routes[{index}].match"), &route.matches.request));
    for (place, request) in of_rules.chain(of_routes) {
        for header in conditions(request) {
            let name = header.name.as_str();
            if gone(name) {
                refusals.refuse(
                    &place,
                    &format!("{name} is removed from every request before it could be asked for"),
                    "match on another header",
                );
            }
            if name == FORWARDED_PROTO || name == FORWARDED_PORT && config.forwarded_port {
                refusals.refuse(
                    &place,
                    &format!("{name} is written before it could be asked for"),
                    "match on another header, or name it in from",
                );
            }
        }
    }
}

/// Whether an override asks for a header that untrusted peers lose.
pub(super) fn overrides_ask_for_family(config: &Config) -> bool {
    let family = family(config);
    let mut routes = config.routes.iter();
    routes.any(|route| {
        conditions(&route.matches.request).any(|header| {
            let name = header.name.as_str();
            family
                .iter()
                .any(|known| known == name || is_variant(known, name))
        })
    })
}

fn conditions(request: &RequestMatch) -> impl Iterator<Item = &HeaderMatch> {
    request.headers.iter().chain(&request.not_headers)
}

/// Whether a name differs from a known one only in characters that aren't letters or digits.
fn is_variant(known: &str, name: &str) -> bool {
    let alike = |(one, other): (u8, u8)| {
        one == other || !(one.is_ascii_alphanumeric() || other.is_ascii_alphanumeric())
    };
    known != name && known.len() == name.len() && known.bytes().zip(name.bytes()).all(alike)
}
