//! Routes whose own timeout or retries the plugin's defaults override.

mod gateway_api;
mod own;
mod virtual_service;

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::rc::Rc;

use own::{OwnPolicy, Reach};

use crate::cli::files::Located;
use crate::cli::report::{Diagnostic, codes};
use crate::cli::setup::Resource;
use crate::cli::yaml;
use crate::config::{
    Config, HeaderMatch, HeaderValueMatch, PathPattern, Policy, Retries, Route, RouteMatch,
    Severity, Timeout, covers,
};

/// What was found, each once: several configurations, of several gateways, may override the same.
#[derive(Default)]
pub(super) struct Found {
    pub(super) diagnostics: Vec<Diagnostic>,
    /// `routes` entries that leave those routes alone.
    pub(super) routes: Vec<String>,
    /// Every route with a timeout or retries of its own.
    policies: Vec<OwnPolicy>,
    /// File, place, route and what is overridden there.
    known: HashSet<(usize, usize, String, &'static str)>,
    /// The texts behind the names of suggested entries.
    suggested: HashMap<String, String>,
}

/// Comparisons of our routes with others' routes, so that thousands of both are checked in no time.
const MOST_COMPARED: usize = 10_000_000;

impl Found {
    pub(super) fn new(resources: &[Resource]) -> Self {
        let mut found = Self::default();
        virtual_service::read(resources, &mut found.policies);
        gateway_api::read(resources, &mut found.policies);
        found
    }

    /// Looks for what one configuration overrides. `holder` is the resource that it stands in.
    pub(super) fn of(&mut self, config: &Config, holder: Option<&Resource>) {
        let gateways = holder.and_then(targets);
        let policies = std::mem::take(&mut self.policies);
        let most = (MOST_COMPARED / policies.len().max(1)).max(1_000);
        for policy in &policies {
            if let (Some(plugin), Some(route)) = (&gateways, &policy.gateways)
                && !route.iter().any(|name| plugin.contains(name))
            {
                continue;
            }
            let (mut timeout, mut retries) = (false, false);
            for requests in &policy.covered {
                let mut routes = config.routes.iter().take(most);
                let route = routes.find(|route| covers::route(&route.matches, requests));
                timeout |= policy.timeout && sets_timeout(route, &config.defaults);
                retries |= policy.retries && sets_retries(route, &config.defaults);
            }
            let what = match (timeout, retries) {
                (true, true) => "timeout and retries",
                (true, false) => "timeout",
                (false, true) => "retries",
                (false, false) => continue,
            };
            let file = Rc::as_ptr(&policy.source) as usize;
            let route = policy.route.clone().unwrap_or_default();
            if !self.known.insert((file, policy.place.start, route, what)) {
                continue;
            }
            let all = policy.all.unwrap_or_default();
            timeout |= all.0 && sets_timeout(None, &config.defaults);
            retries |= all.1 && sets_retries(None, &config.defaults);
            let entries = self.suggest(policy, timeout, retries);
            self.diagnostics.push(warning(policy, what, &entries));
        }
        self.policies = policies;
    }

    /// The `routes` entries that leave a route alone, under names of their own.
    fn suggest(&mut self, policy: &OwnPolicy, timeout: bool, retries: bool) -> Vec<String> {
        let several = policy.suggested.len() > 1;
        let mut entries = Vec::new();
        for (index, matches) in policy.suggested.iter().enumerate() {
            let mut name = policy.entry_name.clone();
            if several {
                let _ = write!(name, "-{index}");
            }
            let mut text = format!("  match: {{{}}}\n", said(matches));
            if timeout {
                text.push_str("  timeout: inherit\n");
            }
            if retries {
                text.push_str("  retries: inherit\n");
            }
            while self
                .suggested
                .get(&name)
                .is_some_and(|other| *other != text)
            {
                name.push_str("-too");
            }
            let entry = format!("- name: {}\n{text}", yaml::text(&name));
            if self.suggested.insert(name, text).is_none() {
                self.routes.push(entry.clone());
            }
            entries.push(entry);
        }
        entries
    }
}

/// The Gateways that a plugin is attached to, as `namespace/name`, if it is attached to nothing else.
fn targets(holder: &Resource) -> Option<Vec<String>> {
    let targets = holder.items(&["spec", "targetRefs"]);
    let one = holder.at(&["spec", "targetRef"]);
    let mut gateways = Vec::new();
    for target in targets.iter().chain(one) {
        let text = |name: &str| target.get(name).and_then(Located::text);
        if text("kind") != Some("Gateway") {
            return None;
        }
        gateways.push(format!("{}/{}", holder.namespace(), text("name")?));
    }
    (!gateways.is_empty()).then_some(gateways)
}

fn warning(policy: &OwnPolicy, what: &str, entries: &[String]) -> Diagnostic {
    let of_route = policy
        .route
        .as_ref()
        .map(|route| format!(" in {route}"))
        .unwrap_or_default();
    let help = match policy.reach {
        _ if entries.is_empty() => policy.otherwise,
        Reach::Exact => "a routes entry in the plugin configuration leaves it alone; see below",
        Reach::Named => {
            "a routes entry in the plugin configuration leaves it alone; see below. It goes by Envoy's names, which behind \
             httpsRedirect are unknown"
        }
        Reach::Wider => {
            "a routes entry in the plugin configuration leaves it alone, and others of the VirtualService too; see below. \
             Give the route a name (http[].name), and check names it alone"
        }
    };
    Diagnostic {
        code: &codes::OVERRIDDEN_BY_DEFAULTS,
        severity: Severity::Warning,
        path: String::new(),
        message: format!(
            "the plugin's defaults override the {what} of {}{of_route}",
            policy.holder
        ),
        help: Some(help.to_owned()),
        suggestion: (!entries.is_empty()).then(|| entries.concat()),
        source: Rc::clone(&policy.source),
        place: policy.place.clone(),
    }
}

/// Texts as YAML has them.
fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items
        .iter()
        .map(|item| yaml::text(&item.to_string()))
        .collect()
}

/// The fields of a match, as YAML.
fn said(matches: &RouteMatch) -> String {
    let mut fields = Vec::new();
    let mut add = |name: &str, items: Vec<String>| {
        if !items.is_empty() {
            fields.push(format!("{name}: [{}]", items.join(", ")));
        }
    };
    let request = &matches.request;
    add("hosts", texts(&request.hosts));
    add("notHosts", texts(&request.not_hosts));
    add("paths", request.paths.iter().map(path).collect());
    add("notPaths", request.not_paths.iter().map(path).collect());
    add("methods", texts(&request.methods));
    add("notMethods", texts(&request.not_methods));
    add("headers", request.headers.iter().map(header).collect());
    add(
        "notHeaders",
        request.not_headers.iter().map(header).collect(),
    );
    add("routes", texts(&matches.routes));
    add("virtualServices", texts(&matches.virtual_services));
    fields.join(", ")
}

fn path(path: &PathPattern) -> String {
    let (kind, text) = match path {
        PathPattern::Exact(text) => ("exact", text),
        PathPattern::Prefix(text) => ("prefix", text),
        PathPattern::StartsWith(text) => ("startsWith", text),
        PathPattern::Suffix(text) => ("suffix", text),
    };
    format!("{{{kind}: {}}}", yaml::text(text))
}

fn header(header: &HeaderMatch) -> String {
    let value = match &header.value {
        HeaderValueMatch::Exact(text) => format!("exact: {}", yaml::text(text)),
        HeaderValueMatch::Prefix(text) => format!("prefix: {}", yaml::text(text)),
        HeaderValueMatch::Suffix(text) => format!("suffix: {}", yaml::text(text)),
        HeaderValueMatch::Present(is) => format!("present: {is}"),
        HeaderValueMatch::FromEnv(_) => String::new(), // No resource has it.
    };
    format!("{{name: {}, {value}}}", yaml::text(header.name.as_str()))
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
