//! Rules about the connection manager that a plugin runs in.

use super::signals;
use crate::cli::setup::{Manager, Surroundings, Written};
use crate::config::{Config, Path, PeerAddress, Problem, RewriteScheme, Severity, SignalForm};

/// What a configuration and the connection managers around it, as far as they are known, say together: each thing once.
pub(super) fn rules(config: &Config, around: &[Surroundings], problems: &mut Vec<Problem>) {
    let mut found: Vec<Problem> = Vec::new();
    for one in around {
        if reads_addresses(config) {
            against_manager(config, one, &mut found);
        }
        scheme_of_envoy(config, &one.manager, &mut found);
        scheme_of_routes(config, &one.manager, &mut found);
        scheme_of_upstreams(config, &one.manager, &mut found);
        overwritten_signals(config, Some(one), &mut found);
    }
    if around.is_empty() {
        overwritten_signals(config, None, &mut found);
    }
    for problem in found {
        let is_known = |known: &Problem| {
            known.message == problem.message && known.path.parts() == problem.path.parts()
        };
        if !problems.iter().any(is_known) {
            problems.push(problem);
        }
    }
}

/// Settings by which Envoy writes the scheme itself, which the filter undoes.
fn scheme_of_envoy(config: &Config, manager: &Manager, problems: &mut Vec<Problem>) {
    let Some(setting) = manager.writes_scheme else {
        return;
    };
    if config.trusted_load_balancers.is_empty() {
        return; // Such a configuration leaves the scheme alone.
    }
    problems.push(Problem {
        severity: Severity::Warning,
        path: Path::root().field("trustedLoadBalancers"),
        message: format!(
            "this connection manager has {setting}: the filter runs later and overwrites the scheme that it writes"
        ),
        help: Some(format!("keep one of them: take {setting} out, or leave the rules out")),
    });
}

/// Routes that change the header when Envoy sends a request on, which is after every filter.
fn scheme_of_routes(config: &Config, manager: &Manager, problems: &mut Vec<Problem>) {
    if !manager.routes_change_scheme || config.trusted_load_balancers.is_empty() {
        return;
    }
    problems.push(Problem {
        severity: Severity::Warning,
        path: Path::root().field("trustedLoadBalancers"),
        message: "a route of this connection manager changes x-forwarded-proto itself, after this filter: services are told the same of every client"
            .to_owned(),
        help: Some("take the header out of request_headers_to_add and request_headers_to_remove".to_owned()),
    });
}

/// An upstream that is sent https over HTTP/2 without TLS may refuse it. On HTTP/1 nobody sees `:scheme`.
fn scheme_of_upstreams(config: &Config, manager: &Manager, problems: &mut Vec<Problem>) {
    let Some(cluster) = &manager.plain_http2 else {
        return;
    };
    if manager.match_upstream
        || config.rewrite_scheme == RewriteScheme::Never
        || config.trusted_load_balancers.is_empty()
    {
        return;
    }
    problems.push(Problem {
        severity: Severity::Warning,
        path: Path::root().field("rewriteScheme"),
        message: format!(
            "the cluster {cluster} is sent HTTP/2 without TLS, where servers may refuse the :scheme https of a trusted peer's request"
        ),
        help: Some(
            "write scheme_header_transformation: {match_upstream: true} into the connection manager, or rewriteScheme: never"
                .to_owned(),
        ),
    });
}

/// Whether any rule looks at the peer's address, so that it matters which one that is.
fn reads_addresses(config: &Config) -> bool {
    config
        .trusted_load_balancers
        .iter()
        .any(|rule| !rule.matches.ip_blocks.is_empty() || !rule.matches.not_ip_blocks.is_empty())
}

/// Which `peerAddress` tells the truth depends on the connection manager.
fn against_manager(config: &Config, around: &Surroundings, problems: &mut Vec<Problem>) {
    let manager = &around.manager;
    let mut say = |severity, message: &str, help: &str| {
        problems.push(Problem {
            severity,
            path: Path::root().field("peerAddress"),
            message: message.to_owned(),
            help: Some(help.to_owned()),
        });
    };
    let with_filter = "write peerAddress: filterState, with the network filter of envoyfilter/direct-peer.yaml (Envoy Gateway: examples/envoy-gateway)";
    match &config.peer_address {
        PeerAddress::Header(_) if !manager.early_header_mutation && around.whole => say(
            Severity::Warning,
            "this connection manager has no early_header_mutation_extensions, so nothing writes the helper header",
            "add the mutation of envoyfilter/preserve-lb-proto.yaml",
        ),
        PeerAddress::Header(_) => {}
        PeerAddress::FilterState(key) => {
            if let Some((severity, message)) = written(key, around) {
                say(
                    severity,
                    &message,
                    "add the network filter of envoyfilter/direct-peer.yaml (Envoy Gateway: examples/envoy-gateway); trusted-lb render writes it too",
                );
            }
        }
        _ if manager.proxy_protocol => say(
            Severity::Error,
            "behind the PROXY protocol this setting sees the address that the PROXY header claims",
            with_filter,
        ),
        PeerAddress::ForwardedFor if manager.detection_appends => {}
        PeerAddress::ForwardedFor if !manager.use_remote_address => say(
            Severity::Error,
            "without use_remote_address the right-most x-forwarded-for entry is whatever the client wrote",
            "turn use_remote_address on, or write peerAddress: filterState, with the network filter of envoyfilter/direct-peer.yaml",
        ),
        PeerAddress::ForwardedFor if manager.skip_xff_append => say(
            Severity::Error,
            "with skip_xff_append the right-most x-forwarded-for entry is whatever the client wrote",
            "write peerAddress: source",
        ),
        PeerAddress::Auto | PeerAddress::Source
            if manager.original_ip_detection || !manager.use_remote_address =>
        {
            say(
                Severity::Warning,
                "this connection manager takes source.address from a header, so nobody is trusted by address",
                with_filter,
            );
        }
        PeerAddress::Auto | PeerAddress::Source if manager.xff_num_trusted_hops > 0 => say(
            Severity::Warning,
            "with xff_num_trusted_hops no request that carries the load balancer's x-forwarded-for is trusted by address",
            "write peerAddress: forwardedFor, or filterState with the network filter of envoyfilter/direct-peer.yaml",
        ),
        PeerAddress::Auto if manager.skip_xff_append => say(
            Severity::Warning,
            "with skip_xff_append there is no x-forwarded-for entry to compare with, so nobody is trusted by address",
            "write peerAddress: source",
        ),
        _ => {}
    }
}

/// What is wrong with a key of the filter state.
fn written(key: &str, around: &Surroundings) -> Option<(Severity, String)> {
    let missing = if around.certain {
        Severity::Error
    } else {
        Severity::Warning
    };
    let states = &around.manager.filter_state;
    let Some((_, value)) = states.iter().rfind(|(known, _)| known == key) else {
        return around.whole.then(|| {
            (
                missing,
                format!("no network filter here writes the direct peer under {key}, so nobody is trusted by address"),
            )
        });
    };
    match value {
        Written::Client if around.manager.proxy_protocol => Some((
            Severity::Error,
            format!("what is written under {key} is the address that a PROXY header claims"),
        )),
        Written::DirectPeer | Written::Client => None,
        Written::Other => Some((
            missing,
            format!(
                "what is written under {key} isn't the direct peer's address as text, so nobody is trusted by address"
            ),
        )),
    }
}

/// Without trusted hops Envoy overwrites x-forwarded-proto, whatever `peerAddress` says. (Under `auto` and `source`,
/// where there are none, the configuration itself is refused.)
fn overwritten_signals(
    config: &Config,
    around: Option<&Surroundings>,
    problems: &mut Vec<Problem>,
) {
    // Around a plugin of Istio's the mesh may say more than the files do.
    let certain = around.is_some_and(|around| around.certain);
    if around.is_some_and(|around| {
        around.manager.xff_num_trusted_hops > 0 || !around.manager.use_remote_address
    }) {
        return;
    }
    let severity = match &config.peer_address {
        PeerAddress::Auto | PeerAddress::Source => return,
        _ if certain => Severity::Error,
        // It is for trusted hops in any case.
        PeerAddress::ForwardedFor => return,
        PeerAddress::Header(_) | PeerAddress::FilterState(_) => Severity::Warning,
    };
    for (path, signal) in signals(config) {
        if signal.name.as_str() == "x-forwarded-proto" && signal.form != SignalForm::Helper {
            problems.push(Problem {
                severity,
                path,
                message: "without trusted hops (numTrustedProxies) Envoy has overwritten x-forwarded-proto before \
                          this filter sees it"
                    .to_owned(),
                help: Some(
                    "read the copy that the early header mutation makes: header:x-lb-proto"
                        .to_owned(),
                ),
            });
        }
    }
}
