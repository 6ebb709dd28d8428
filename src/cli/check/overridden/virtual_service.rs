//! Timeouts and retries that routes of `VirtualService`s have themselves.

use std::collections::HashMap;

use super::own::{
    OwnPolicy, Reach, Wants, WrittenHosts, escape_into_names, exclude_hosts, headers_of,
};
use crate::cli::files::Located;
use crate::cli::setup::Resource;
use crate::config::{HostPattern, NamePattern, PathPattern, RequestMatch, RouteMatch};

/// Reads every `VirtualService` among the resources.
pub(super) fn read(resources: &[Resource], policies: &mut Vec<OwnPolicy>) {
    let services: Vec<&Resource> = resources
        .iter()
        .filter(|resource| resource.kind == "VirtualService")
        .collect();
    // Hosts of other VirtualServices of the same gateways: where they are narrower, Envoy takes them first.
    let mut written: HashMap<&str, WrittenHosts> = HashMap::new();
    for service in &services {
        let hosts = service.items(&["spec", "hosts"]);
        for gateway in gateways(service) {
            let of_gateway = written.entry(gateway).or_default();
            of_gateway.add(hosts.iter().filter_map(Located::text));
        }
    }
    for service in services {
        one(service, &written, policies);
    }
}

/// The gateways that a `VirtualService` names. Those without are for the mesh.
fn gateways(service: &Resource) -> Vec<&str> {
    let named = service.items(&["spec", "gateways"]);
    if named.is_empty() {
        return vec!["mesh"];
    }
    named.iter().filter_map(Located::text).collect()
}

/// One entry of a route's `match`.
#[derive(Clone, Default)]
struct Entry {
    request: RequestMatch,
    /// Whether `request` holds for exactly the same requests, not for more.
    is_exact: bool,
    /// Whether nothing but the path is asked for.
    is_path_only: bool,
}

fn one(service: &Resource, written: &HashMap<&str, WrittenHosts>, policies: &mut Vec<OwnPolicy>) {
    let name = format!("{}/{}", service.namespace(), service.name());
    let hosts = service.items(&["spec", "hosts"]);
    let hosts: Option<Vec<HostPattern>> = hosts.iter().map(host).collect();
    let routes = service.items(&["spec", "http"]);
    let wants: Vec<Wants> = routes.iter().map(wants).collect();
    let entries: Vec<Vec<Entry>> = routes.iter().map(entries).collect();
    for (index, (route, want)) in routes.iter().zip(&wants).enumerate() {
        let Some(place) = want.place.clone() else {
            continue;
        };
        let route_name = route.get("name").and_then(Located::text);
        let own = entries.get(index).map(Vec::as_slice).unwrap_or_default();
        let mut said = Vec::new();
        let mut covered = Vec::new();
        // Whether everything that earlier routes take could be taken out.
        let mut is_apart = true;
        for entry in joined(own) {
            let mut request = entry.request.clone();
            let mut is_exact = entry.is_exact;
            match &hosts {
                Some(hosts) if !hosts.is_empty() => {
                    request.hosts.clone_from(hosts);
                    for gateway in gateways(service) {
                        if let Some(others) = written.get(gateway) {
                            is_exact &= exclude_hosts(&mut request, others, hosts);
                        }
                    }
                }
                _ => is_exact = false,
            }
            // Envoy takes the first route that matches: what an earlier one takes isn't this one's.
            for (earlier, theirs) in wants.iter().zip(&entries).take(index) {
                if earlier.is_answered || earlier.has(want) {
                    continue;
                }
                is_apart &= theirs.iter().all(|other| exclude(&mut request, other));
            }
            escape_into_names(&mut request);
            let requests = RouteMatch {
                virtual_services: vec![name.clone()],
                request,
                ..RouteMatch::default()
            };
            if is_exact {
                said.push(RouteMatch {
                    virtual_services: Vec::new(),
                    ..requests.clone()
                });
            }
            covered.push(RouteMatch {
                routes: named(route, route_name),
                ..requests
            });
        }
        let is_said = said.len() == covered.len();
        let named = by_name(&name, route, route_name, &wants, want);
        let any = |has: fn(&Wants) -> bool| wants.iter().any(has);
        let (suggested, reach, all) = match (is_said, is_apart, named) {
            (true, true, _) => (said, Reach::Exact, None),
            (_, _, Some(named)) => (vec![named], Reach::Named, None),
            (true, false, None) => (said, Reach::Wider, None),
            (false, _, None) => {
                let all = (any(|other| other.timeout), any(|other| other.retries));
                (vec![whole(&name)], Reach::Wider, Some(all))
            }
        };
        policies.push(OwnPolicy {
            holder: format!("VirtualService {name}"),
            route: route_name.map(|route| format!("route {route}")),
            entry_name: format!(
                "{}-{}",
                name.replace('/', "-"),
                route_name.map_or_else(|| index.to_string(), str::to_owned)
            ),
            suggested,
            reach,
            all,
            otherwise: "",
            covered,
            gateways: None,
            timeout: want.timeout,
            retries: want.retries,
            source: std::rc::Rc::clone(&service.source),
            place,
        });
    }
}

/// What names the requests of a route whose match can't be said, if nothing else goes by that name.
fn by_name(
    service: &str,
    route: &Located,
    route_name: Option<&str>,
    all: &[Wants],
    want: &Wants,
) -> Option<RouteMatch> {
    let is_whole = all.iter().all(|other| other.is_answered || other.has(want));
    if !is_whole && route_name.is_none() {
        return None;
    }
    Some(RouteMatch {
        routes: if is_whole {
            Vec::new()
        } else {
            named(route, route_name)
        },
        ..whole(service)
    })
}

/// All of a `VirtualService`'s requests.
fn whole(service: &str) -> RouteMatch {
    RouteMatch {
        virtual_services: vec![service.to_owned()],
        ..RouteMatch::default()
    }
}

/// Envoy's names of a route: Istio adds the names of its matches behind a dot.
fn named(route: &Located, name: Option<&str>) -> Vec<NamePattern> {
    let Some(name) = name else { return Vec::new() };
    let matches = route.get("match").map(Located::items).unwrap_or_default();
    let mut names = vec![NamePattern::Exact(name.to_owned())];
    if matches.iter().any(|entry| entry.get("name").is_some()) {
        names.push(NamePattern::Prefix(format!("{name}.")));
    }
    names
}

fn wants(route: &Located) -> Wants {
    let field = |name: &str| route.field(name);
    let (timeout, retries) = (field("timeout"), field("retries"));
    Wants {
        timeout: timeout.is_some(),
        retries: retries.is_some(),
        is_answered: field("redirect").is_some() || field("directResponse").is_some(),
        place: timeout.or(retries).map(|field| field.name_span.clone()),
    }
}

/// A host of a `VirtualService`, if clients of a gateway write it: no short name.
fn host(located: &Located) -> Option<HostPattern> {
    let host = located.text()?.to_ascii_lowercase();
    match host.strip_prefix('*') {
        Some("") => Some(HostPattern::Any),
        Some(suffix) if suffix.starts_with('.') => Some(HostPattern::Suffix(suffix.to_owned())),
        None if host.contains('.') => Some(HostPattern::Exact(host)),
        _ => None,
    }
}

/// The entries of a route's `match`; a route without one holds for every request.
fn entries(route: &Located) -> Vec<Entry> {
    let matches = route.get("match").map(Located::items).unwrap_or_default();
    if matches.is_empty() {
        return vec![Entry {
            is_exact: true,
            is_path_only: true,
            ..Entry::default()
        }];
    }
    matches.iter().map(entry).collect()
}

/// Entries that ask for the path alone, as one.
fn joined(entries: &[Entry]) -> Vec<Entry> {
    let is_simple =
        |entry: &Entry| entry.is_exact && entry.is_path_only && !entry.request.paths.is_empty();
    if entries.len() < 2 || !entries.iter().all(is_simple) {
        return entries.to_vec();
    }
    let mut one = Entry {
        is_exact: true,
        is_path_only: true,
        ..Entry::default()
    };
    one.request.paths = entries
        .iter()
        .flat_map(|entry| entry.request.paths.iter().cloned())
        .collect();
    vec![one]
}

fn entry(matches: &Located) -> Entry {
    let mut entry = Entry {
        is_exact: true,
        is_path_only: true,
        ..Entry::default()
    };
    for field in matches.fields() {
        let value = &field.value;
        let text = |kind: &str| value.get(kind).and_then(Located::text);
        let is_said = match field.name.as_str() {
            // Ports and gateways are the plugin's own, as far as can be told.
            "name" => continue,
            "uri" => match (text("exact"), text("prefix")) {
                (Some(exact), None) => {
                    entry.request.paths = vec![PathPattern::Exact(exact.to_owned())];
                    true
                }
                // Istio's prefix is a prefix of the text: /pay holds for /payments as well.
                (None, Some("/")) => true,
                (None, Some(prefix)) => {
                    entry.request.paths = vec![PathPattern::StartsWith(prefix.to_owned())];
                    true
                }
                _ => false,
            },
            "method" => match text("exact") {
                Some(method) => {
                    entry.request.methods = vec![method.to_owned()];
                    entry.is_path_only = false;
                    true
                }
                None => false,
            },
            "headers" => headers_of(value).is_some_and(|headers| {
                entry.request.headers = headers;
                entry.is_path_only = false;
                true
            }),
            "withoutHeaders" => headers_of(value).is_some_and(|headers| {
                entry.request.not_headers = headers;
                entry.is_path_only = false;
                true
            }),
            "ignoreUriCase" => value.boolean() == Some(false),
            _ => false,
        };
        if !is_said {
            entry.is_exact = false;
            entry.is_path_only = false;
        }
    }
    // Without case nothing can be said of a path.
    if matches.get("ignoreUriCase").and_then(Located::boolean) == Some(true) {
        entry.request.paths = Vec::new();
    }
    entry
}

/// Takes what an earlier route takes out of a later one's requests. Whether that can be said.
fn exclude(request: &mut RequestMatch, other: &Entry) -> bool {
    let text = |path: &PathPattern| match path {
        PathPattern::Exact(text) | PathPattern::StartsWith(text) => Some(text.clone()),
        PathPattern::Prefix(_) | PathPattern::Suffix(_) => None,
    };
    let meets = |one: &PathPattern, two: &PathPattern| match (text(one), text(two)) {
        (Some(one), Some(two)) => one.starts_with(&two) || two.starts_with(&one),
        _ => true,
    };
    let theirs = &other.request.paths;
    let is_apart = !theirs.is_empty()
        && !request.paths.is_empty()
        && request
            .paths
            .iter()
            .all(|own| theirs.iter().all(|other| !meets(own, other)));
    if is_apart {
        return true;
    }
    if !other.is_exact || !other.is_path_only || theirs.is_empty() {
        return false;
    }
    for path in theirs {
        if !request.not_paths.contains(path) {
            request.not_paths.push(path.clone());
        }
    }
    true
}
