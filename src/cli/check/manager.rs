//! Rules about the connection manager that a plugin runs in.

use super::signals;
use crate::cli::plugins::Manager;
use crate::config::{Config, Path, PeerAddress, Problem, Severity, SignalForm};

/// What a configuration and the connection manager around it, if it is known, say together.
pub(super) fn rules(config: &Config, manager: Option<Manager>, problems: &mut Vec<Problem>) {
    if let Some(manager) = manager
        && reads_addresses(config)
    {
        against_manager(config, manager, problems);
    }
    overwritten_signals(config, manager, problems);
}

/// Whether any rule looks at the peer's address, so that it matters which one that is.
fn reads_addresses(config: &Config) -> bool {
    config
        .trusted_load_balancers
        .iter()
        .any(|rule| !rule.matches.ip_blocks.is_empty() || !rule.matches.not_ip_blocks.is_empty())
}

/// Which `peerAddress` tells the truth depends on the connection manager.
fn against_manager(config: &Config, manager: Manager, problems: &mut Vec<Problem>) {
    let mut say = |severity, message: &str, help: &str| {
        problems.push(Problem {
            severity,
            path: Path::root().field("peerAddress"),
            message: message.to_owned(),
            help: Some(help.to_owned()),
        });
    };
    let with_helper = "write peerAddress: header:x-lb-peer with an early header mutation";
    match &config.peer_address {
        PeerAddress::Header(_) if !manager.early_header_mutation => say(
            Severity::Warning,
            "this connection manager has no early_header_mutation_extensions, so nothing writes the helper header",
            "add the mutation of envoyfilter/preserve-lb-proto.yaml",
        ),
        // The filter state is right in every set-up.
        PeerAddress::Header(_) | PeerAddress::FilterState(_) => {}
        _ if manager.proxy_protocol => say(
            Severity::Error,
            "behind the PROXY protocol this setting sees the address that the PROXY header claims",
            with_helper,
        ),
        PeerAddress::ForwardedFor if !manager.use_remote_address => say(
            Severity::Error,
            "without use_remote_address the right-most x-forwarded-for entry is whatever the client wrote",
            "turn use_remote_address on, or write peerAddress: header:x-lb-peer with an early header mutation",
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
                with_helper,
            );
        }
        PeerAddress::Auto | PeerAddress::Source if manager.xff_num_trusted_hops > 0 => say(
            Severity::Warning,
            "with xff_num_trusted_hops no request that carries the load balancer's x-forwarded-for is trusted by address",
            "write peerAddress: forwardedFor",
        ),
        PeerAddress::Auto if manager.skip_xff_append => say(
            Severity::Warning,
            "with skip_xff_append there is no x-forwarded-for entry to compare with, so nobody is trusted by address",
            "write peerAddress: source",
        ),
        _ => {}
    }
}

/// Without trusted hops Envoy overwrites x-forwarded-proto, whatever `peerAddress` says. (Under `auto` and `source`,
/// where there are none, the configuration itself is refused.)
fn overwritten_signals(config: &Config, manager: Option<Manager>, problems: &mut Vec<Problem>) {
    let severity = match (&config.peer_address, manager) {
        // forwardedFor is for trusted hops in any case.
        (PeerAddress::Auto | PeerAddress::Source, _) | (PeerAddress::ForwardedFor, None) => return,
        (_, Some(manager)) if manager.xff_num_trusted_hops > 0 || !manager.use_remote_address => {
            return;
        }
        (_, Some(_)) => Severity::Error,
        (PeerAddress::Header(_) | PeerAddress::FilterState(_), None) => Severity::Warning,
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
