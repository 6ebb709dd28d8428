//! `trusted-lb check`: what is wrong with configurations, before a gateway sees them.

use std::rc::Rc;

use super::find::{self, Contents, ExplicitPolicy, Found, Manager};
use super::report::Diagnostic;
use super::source::Source;
use crate::config::{
    self, Config, PeerAddress, Policy, Problem, Retries, Route, Severity, Timeout,
};

/// What came of checking some files.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) diagnostics: Vec<Diagnostic>,
    /// How many configurations were found.
    pub(super) configurations: usize,
    /// `routes` entries that leave VirtualServices' own timeouts and retries alone.
    pub(super) suggested_routes: Vec<String>,
}

/// Checks every configuration in these texts.
pub(super) fn sources(sources: Vec<Source>) -> Checked {
    let mut checked = Checked::default();
    let mut all = Contents::default();
    let mut last = None;
    for source in sources {
        let source = Rc::new(source);
        match find::in_source(&source) {
            Ok(contents) => {
                all.extend(contents);
                last = Some(source);
            }
            Err((source, error)) => checked.diagnostics.push(Diagnostic::syntax(source, error)),
        }
    }
    let configurations = all.take_configurations();
    for (source, holder, place) in all.without {
        checked
            .diagnostics
            .push(no_configuration(&source, &holder, place));
    }
    // Among many manifests most have none. Not one in all of them is a mistake.
    if let Some(source) = last
        && configurations.is_empty()
        && checked.diagnostics.is_empty()
    {
        checked.diagnostics.push(nothing_found(&source));
    }
    for found in &configurations {
        checked.configurations += 1;
        let mut problems = Vec::new();
        let loaded = config::load_document(&found.document.node());
        problems.extend(loaded.problems);
        if let Some(config) = &loaded.config {
            if let Some(manager) = found.manager {
                against_manager(config, manager, &mut problems);
            }
            overridden(config, &all.policies, &mut checked);
        }
        checked
            .diagnostics
            .extend(problems.iter().map(|problem| located(problem, found)));
    }
    checked
}

/// A problem at its place.
pub(super) fn located(problem: &Problem, found: &Found) -> Diagnostic {
    Diagnostic::new(problem, &found.source, found.document.place(&problem.path))
}

fn no_configuration(
    source: &Rc<Source>,
    holder: &str,
    place: std::ops::Range<usize>,
) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        path: String::new(),
        message: format!("{holder} has no configuration, which trusted-lb refuses"),
        help: Some("write pluginConfig, with trustedLoadBalancers or defaults in it".to_owned()),
        source: Rc::clone(source),
        place,
    }
}

fn nothing_found(source: &Rc<Source>) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        path: String::new(),
        message: "there is no configuration of trusted-lb in this file".to_owned(),
        help: Some(
            "give a plugin configuration, a WasmPlugin, TrafficExtension or EnvoyFilter, or an Envoy bootstrap"
                .to_owned(),
        ),
        source: Rc::clone(source),
        place: 0..0,
    }
}

/// Which `peerAddress` tells the truth depends on the connection manager.
fn against_manager(config: &Config, manager: Manager, problems: &mut Vec<Problem>) {
    let mut say = |severity, message: &str, help: &str| {
        problems.push(Problem {
            severity,
            path: "peerAddress".to_owned(),
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
        PeerAddress::Header(_) => {}
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

/// VirtualServices whose own timeout or retries the defaults override.
fn overridden(config: &Config, policies: &[ExplicitPolicy], checked: &mut Checked) {
    for policy in policies {
        let route = config.routes.iter().find(|route| {
            route
                .matches
                .virtual_services
                .contains(&policy.virtual_service)
        });
        let timeout = policy.timeout && sets_timeout(route, &config.defaults);
        let retries = policy.retries && sets_retries(route, &config.defaults);
        let what = match (timeout, retries) {
            (true, true) => "timeout and retries",
            (true, false) => "timeout",
            (false, true) => "retries",
            (false, false) => continue,
        };
        let name = &policy.virtual_service;
        let of_route = policy
            .route
            .as_ref()
            .map(|route| format!(" in route {route}"))
            .unwrap_or_default();
        let warning = Diagnostic {
            severity: Severity::Warning,
            path: String::new(),
            message: format!(
                "the plugin's defaults override the {what} of VirtualService {name}{of_route}"
            ),
            help: Some(
                "a routes entry in the plugin configuration leaves it alone; see below".to_owned(),
            ),
            source: Rc::clone(&policy.source),
            place: policy.place.clone(),
        };
        // Several configurations, of several gateways, may override the same.
        if !checked.diagnostics.contains(&warning) {
            checked.diagnostics.push(warning);
        }
        let mut entry = format!(
            "- name: {}\n  match: {{virtualServices: [{name}]}}\n",
            name.replace('/', "-")
        );
        if timeout {
            entry.push_str("  timeout: inherit\n");
        }
        if retries {
            entry.push_str("  retries: inherit\n");
        }
        if !checked.suggested_routes.contains(&entry) {
            checked.suggested_routes.push(entry);
        }
    }
}

fn sets_timeout(route: Option<&Route>, defaults: &Policy) -> bool {
    let timeout = route
        .and_then(|route| route.policy.timeout)
        .or(defaults.timeout);
    matches!(timeout, Some(Timeout::After(_)))
}

fn sets_retries(route: Option<&Route>, defaults: &Policy) -> bool {
    let retries = route
        .and_then(|route| route.policy.retries.as_ref())
        .or(defaults.retries.as_ref());
    matches!(retries, Some(Retries::Set(_)))
}
