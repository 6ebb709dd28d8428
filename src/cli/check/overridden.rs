//! VirtualServices whose own timeout or retries the plugin's defaults override.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::rc::Rc;

use crate::cli::plugins::ExplicitPolicy;
use crate::cli::report::{Diagnostic, codes};
use crate::cli::yaml;
use crate::config::{Config, PathPattern, Policy, Retries, Route, Severity, Timeout, covers};

/// What was found, each once: several configurations, of several gateways, may override the same.
#[derive(Default)]
pub(super) struct Found {
    pub(super) diagnostics: Vec<Diagnostic>,
    /// `routes` entries that leave those VirtualServices alone.
    pub(super) routes: Vec<String>,
    /// File, place and what is overridden there.
    known: HashSet<(usize, usize, &'static str)>,
    suggested: HashSet<String>,
}

/// Comparisons of routes with VirtualServices, so that thousands of both are checked in no time.
const MOST_COMPARED: usize = 10_000_000;

impl Found {
    /// Looks for what one configuration overrides.
    pub(super) fn of(&mut self, config: &Config, policies: &[ExplicitPolicy]) {
        let most = (MOST_COMPARED / policies.len().max(1)).max(1_000);
        let overridden = |policy: &ExplicitPolicy| {
            let mut routes = config.routes.iter().take(most);
            let route = routes.find(|route| covers::route(&route.matches, &policy.requests));
            let timeout = policy.timeout && sets_timeout(route, &config.defaults);
            let retries = policy.retries && sets_retries(route, &config.defaults);
            (timeout, retries)
        };
        let all: Vec<_> = policies
            .iter()
            .map(|policy| (policy, overridden(policy)))
            .collect();
        // An entry by the VirtualService's name holds for all of its routes.
        let mut of_services: HashMap<&str, (bool, bool)> = HashMap::new();
        for (policy, (timeout, retries)) in &all {
            let of_service = of_services
                .entry(policy.virtual_service.as_str())
                .or_default();
            of_service.0 |= timeout;
            of_service.1 |= retries;
        }
        for (policy, own) in all {
            let what = match own {
                (true, true) => "timeout and retries",
                (true, false) => "timeout",
                (false, true) => "retries",
                (false, false) => continue,
            };
            let file = Rc::as_ptr(&policy.source) as usize;
            if !self.known.insert((file, policy.place.start, what)) {
                continue;
            }
            let (timeout, retries) = if is_by_name(policy) {
                let of_service = of_services.get(policy.virtual_service.as_str());
                of_service.copied().unwrap_or(own)
            } else {
                own
            };
            let entry = suggested_route(policy, timeout, retries);
            self.diagnostics.push(warning(policy, what, entry.clone()));
            if self.suggested.insert(entry.clone()) {
                self.routes.push(entry);
            }
        }
    }
}

fn warning(policy: &ExplicitPolicy, what: &str, entry: String) -> Diagnostic {
    let name = &policy.virtual_service;
    let of_route = policy
        .route
        .as_ref()
        .map(|route| format!(" in route {route}"))
        .unwrap_or_default();
    Diagnostic {
        code: &codes::OVERRIDDEN_BY_DEFAULTS,
        severity: Severity::Warning,
        path: String::new(),
        message: format!(
            "the plugin's defaults override the {what} of VirtualService {name}{of_route}"
        ),
        help: Some(
            "a routes entry in the plugin configuration leaves it alone; see below".to_owned(),
        ),
        suggestion: Some(entry),
        source: Rc::clone(&policy.source),
        place: policy.place.clone(),
    }
}

/// Whether only the VirtualService's name tells which requests are meant.
fn is_by_name(policy: &ExplicitPolicy) -> bool {
    policy.requests.request.hosts.is_empty()
}

/// The `routes` entry that leaves a VirtualService's route alone: by hosts and paths, since behind httpsRedirect Envoy
/// doesn't name the VirtualService, and by its name where its match can't be said so.
fn suggested_route(policy: &ExplicitPolicy, timeout: bool, retries: bool) -> String {
    let service = &policy.virtual_service;
    let request = &policy.requests.request;
    let by_name = is_by_name(policy);
    let mut name = service.replace('/', "-");
    if !by_name {
        let route = policy
            .route
            .clone()
            .unwrap_or_else(|| policy.index.to_string());
        let _ = write!(name, "-{route}");
    }
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
