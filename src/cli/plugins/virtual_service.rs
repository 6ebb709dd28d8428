//! Timeouts and retries that `VirtualService` routes have themselves.

use std::rc::Rc;

use crate::cli::files::{Located, Source};
use crate::config::{HostPattern, PathPattern, RouteMatch};

/// A VirtualService's route that has a timeout or retries of its own.
pub(in crate::cli) struct ExplicitPolicy {
    /// `namespace/name`.
    pub(in crate::cli) virtual_service: String,
    /// Which of its routes, from 0.
    pub(in crate::cli) index: usize,
    /// The requests that it holds for. Without hosts if they can't be said as a match of ours.
    pub(in crate::cli) requests: RouteMatch,
    /// The route's name, if it has one.
    pub(in crate::cli) route: Option<String>,
    pub(in crate::cli) timeout: bool,
    pub(in crate::cli) retries: bool,
    pub(in crate::cli) source: Rc<Source>,
    pub(in crate::cli) place: std::ops::Range<usize>,
}

pub(super) fn read(
    source: &Rc<Source>,
    document: &Located,
    name: &str,
    policies: &mut Vec<ExplicitPolicy>,
) {
    let items = |path: &[&str]| document.at(path).map(Located::items).unwrap_or_default();
    let hosts: Option<Vec<HostPattern>> = items(&["spec", "hosts"]).iter().map(host).collect();
    for (index, route) in items(&["spec", "http"]).iter().enumerate() {
        let field = |name: &str| route.field(name);
        let (timeout, retries) = (field("timeout"), field("retries"));
        let Some(first) = timeout.or(retries) else {
            continue;
        };
        let matches = route.get("match").map(Located::items).unwrap_or_default();
        let paths: Option<Vec<PathPattern>> = matches.iter().map(path).collect();
        let mut requests = RouteMatch {
            virtual_services: vec![name.to_owned()],
            ..RouteMatch::default()
        };
        if let (Some(hosts), Some(paths)) = (&hosts, paths)
            && !hosts.is_empty()
        {
            requests.request.hosts.clone_from(hosts);
            requests.request.paths = paths;
        }
        policies.push(ExplicitPolicy {
            virtual_service: name.to_owned(),
            index,
            requests,
            route: route.get("name").and_then(Located::text).map(str::to_owned),
            timeout: timeout.is_some(),
            retries: retries.is_some(),
            source: Rc::clone(source),
            place: first.name_span.clone(),
        });
    }
}

/// A host of a VirtualService, where it is one that clients of a gateway write: no short name, and not every host.
fn host(located: &Located) -> Option<HostPattern> {
    let host = located.text()?.to_ascii_lowercase();
    match host.strip_prefix('*') {
        Some(suffix) if suffix.len() > 1 && suffix.starts_with('.') => {
            Some(HostPattern::Suffix(suffix.to_owned()))
        }
        None if host.contains('.') => Some(HostPattern::Exact(host)),
        _ => None,
    }
}

/// The path of a VirtualService's match, where nothing else is in it.
fn path(matches: &Located) -> Option<PathPattern> {
    if matches
        .fields()
        .any(|field| !matches!(field.name.as_str(), "uri" | "name"))
    {
        return None;
    }
    let text = |kind: &str| matches.at(&["uri", kind]).and_then(Located::text);
    match (text("exact"), text("prefix")) {
        (Some(exact), None) => Some(PathPattern::Exact(exact.to_owned())),
        (None, Some(prefix)) => Some(PathPattern::Prefix(prefix.to_owned())),
        _ => None,
    }
}
