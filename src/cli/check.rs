//! `trusted-lb check`: what is wrong with configurations, before a gateway sees them.

use std::fmt::Write as _;
use std::rc::Rc;

use super::find::{self, Contents, ExplicitPolicy, Found, Manager};
use super::report::Diagnostic;
use super::source::{Located, Source};
use super::yaml;
use crate::config::{
    self, Config, PathPattern, PeerAddress, Policy, Problem, Retries, Route, Severity, SignalForm,
    Timeout, covers,
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
    for unusable in all.unusable {
        checked.diagnostics.push(Diagnostic {
            severity: Severity::Error,
            path: String::new(),
            message: unusable.message,
            help: Some(unusable.help.to_owned()),
            suggestion: None,
            source: unusable.source,
            place: unusable.place,
        });
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
            overwritten_signals(config, found.manager, &mut problems);
            spoofable_signals(config, &mut problems);
            missing_variables(found, &mut problems);
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

fn nothing_found(source: &Rc<Source>) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        path: String::new(),
        message: "there is no configuration of trusted-lb in this file".to_owned(),
        help: Some(
            "give a plugin configuration, a WasmPlugin, TrafficExtension or EnvoyFilter, or an Envoy bootstrap"
                .to_owned(),
        ),
        suggestion: None,
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
        (PeerAddress::Header(_), None) => Severity::Warning,
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

/// Signals that their own load balancer doesn't overwrite.
fn spoofable_signals(config: &Config, problems: &mut Vec<Problem>) {
    for (path, signal) in signals(config) {
        if signal.name.as_str() == "fastly-ssl" {
            problems.push(Problem {
                severity: Severity::Warning,
                path,
                message: "Fastly passes a client's own fastly-ssl on, so that every client of Fastly's can say https"
                    .to_owned(),
                help: Some(
                    "let VCL set a header of your own from fastly_info.edge.is_tls, as in examples/load-balancers/fastly"
                        .to_owned(),
                ),
            });
        }
    }
}

/// Variables that the configuration reads and that the VM beside it isn't given: the gateway would refuse it.
fn missing_variables(found: &Found, problems: &mut Vec<Problem>) {
    let Some(environment) = &found.environment else {
        return;
    };
    let mut read = Vec::new();
    variables(&found.document, "", &mut read);
    for (name, path) in read {
        if environment.iter().any(|known| known == name) {
            continue;
        }
        problems.push(Problem {
            severity: Severity::Error,
            path,
            message: format!(
                "the Wasm VM here gets no environment variable {name}, so the gateway would refuse the configuration"
            ),
            help: Some(format!(
                "in a WasmPlugin write vmConfig: {{env: [{{name: {name}, valueFrom: HOST}}]}}, in an Envoy \
                 configuration vm_config: {{environment_variables: {{host_env_keys: [{name}]}}}}"
            )),
        });
    }
}

/// The variables that `fromEnv` names, with their places.
fn variables<'l>(located: &'l Located, path: &str, read: &mut Vec<(&'l str, String)>) {
    for field in located.fields() {
        let path = match path {
            "" => field.name.clone(),
            path => format!("{path}.{}", field.name),
        };
        if field.name == "fromEnv" {
            read.extend(field.value.text().map(|name| (name, path.clone())));
            for (index, item) in field.value.items().iter().enumerate() {
                read.extend(item.text().map(|name| (name, format!("{path}[{index}]"))));
            }
        } else {
            variables(&field.value, &path, read);
        }
    }
    for (index, item) in located.items().iter().enumerate() {
        variables(item, &format!("{path}[{index}]"), read);
    }
}

/// Every signal, with its place.
fn signals(config: &Config) -> impl Iterator<Item = (String, &config::Signal)> {
    let of_rules = config
        .trusted_load_balancers
        .iter()
        .enumerate()
        .map(|(index, rule)| {
            (
                format!("trustedLoadBalancers[{index}]"),
                &rule.forwarded_proto,
            )
        });
    let of_routes = config
        .routes
        .iter()
        .enumerate()
        .filter_map(|(index, route)| {
            Some((format!("routes[{index}]"), route.forwarded_proto.as_ref()?))
        });
    of_rules.chain(of_routes).flat_map(|(path, proto)| {
        let place =
            move |(position, signal)| (format!("{path}.forwardedProto.from[{position}]"), signal);
        proto.from.iter().enumerate().map(place)
    })
}

/// VirtualServices whose own timeout or retries the defaults override.
fn overridden(config: &Config, policies: &[ExplicitPolicy], checked: &mut Checked) {
    let overridden: Vec<(&ExplicitPolicy, bool, bool)> = policies
        .iter()
        .map(|policy| {
            let mut routes = config.routes.iter();
            let route = routes.find(|route| covers::route(&route.matches, &policy.requests));
            let timeout = policy.timeout && sets_timeout(route, &config.defaults);
            let retries = policy.retries && sets_retries(route, &config.defaults);
            (policy, timeout, retries)
        })
        .collect();
    for &(policy, timeout, retries) in &overridden {
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
        let entry = suggested_route(policy, &overridden);
        let warning = Diagnostic {
            severity: Severity::Warning,
            path: String::new(),
            message: format!(
                "the plugin's defaults override the {what} of VirtualService {name}{of_route}"
            ),
            help: Some(
                "a routes entry in the plugin configuration leaves it alone; see below".to_owned(),
            ),
            suggestion: Some(entry.clone()),
            source: Rc::clone(&policy.source),
            place: policy.place.clone(),
        };
        // Several configurations, of several gateways, may override the same.
        if !checked.diagnostics.contains(&warning) {
            checked.diagnostics.push(warning);
            if !checked.suggested_routes.contains(&entry) {
                checked.suggested_routes.push(entry);
            }
        }
    }
}

/// The `routes` entry that leaves a VirtualService's route alone: by hosts and paths, since behind httpsRedirect Envoy
/// doesn't name the VirtualService, and by its name where its match can't be said so.
fn suggested_route(
    policy: &ExplicitPolicy,
    overridden: &[(&ExplicitPolicy, bool, bool)],
) -> String {
    let service = &policy.virtual_service;
    let request = &policy.requests.request;
    let by_name = request.hosts.is_empty();
    let mut name = service.replace('/', "-");
    if !by_name {
        let route = policy
            .route
            .clone()
            .unwrap_or_else(|| policy.index.to_string());
        let _ = write!(name, "-{route}");
    }
    // An entry by the VirtualService's name holds for all of its routes.
    let concerned = || {
        overridden.iter().filter(|(other, ..)| {
            std::ptr::eq(*other, policy) || by_name && other.virtual_service == *service
        })
    };
    let timeout = concerned().any(|(_, timeout, _)| *timeout);
    let retries = concerned().any(|(.., retries)| *retries);
    let mut entry = format!("- name: {name}\n");
    if by_name {
        let _ = writeln!(entry, "  match: {{virtualServices: [{service}]}}");
    } else {
        let list = |items: Vec<String>| items.join(", ");
        let hosts = list(
            request
                .hosts
                .iter()
                .map(|host| yaml::text(&host.to_string()))
                .collect(),
        );
        let paths = list(
            request
                .paths
                .iter()
                .map(|path| match path {
                    PathPattern::Exact(path) => format!("{{exact: {}}}", yaml::text(path)),
                    PathPattern::Prefix(path) => format!("{{prefix: {}}}", yaml::text(path)),
                    PathPattern::Suffix(path) => format!("{{suffix: {}}}", yaml::text(path)),
                })
                .collect(),
        );
        let _ = match paths.as_str() {
            "" => writeln!(entry, "  match: {{hosts: [{hosts}]}}"),
            paths => writeln!(entry, "  match: {{hosts: [{hosts}], paths: [{paths}]}}"),
        };
    }
    if timeout {
        entry.push_str("  timeout: inherit\n");
    }
    if retries {
        entry.push_str("  retries: inherit\n");
    }
    entry
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
