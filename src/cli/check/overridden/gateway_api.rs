//! Timeouts and retries of the Gateway API's routes, and of Envoy Gateway's policies on them.

use std::collections::HashMap;
use std::rc::Rc;

use super::own::{OwnPolicy, Reach, Wants, WrittenHosts, escape_into_names, exclude_hosts, header};
use crate::cli::files::{Located, Source};
use crate::cli::setup::Resource;
use crate::config::{HeaderValueMatch, HostPattern, PathPattern, RequestMatch, RouteMatch};

/// An entry of a rule's `matches`, as it competes with all others of its hosts.
struct Entry {
    route: usize,
    rule: usize,
    request: RequestMatch,
    /// Whether `request` holds for exactly the same requests, not for more.
    is_exact: bool,
    /// How the Gateway API orders entries that hold for the same request: the greatest wins.
    rank: (bool, usize, bool, usize),
}

/// A route and what is in it.
struct Route<'r> {
    resource: &'r Resource,
    hosts: Vec<HostPattern>,
    /// The Gateways that it is attached to, as `namespace/name`.
    gateways: Vec<String>,
    rules: Vec<Wants>,
}

/// Reads every route and policy among the resources.
pub(super) fn read(resources: &[Resource], policies: &mut Vec<OwnPolicy>) {
    let routes: Vec<Route> = resources
        .iter()
        .filter(|resource| matches!(resource.kind.as_str(), "HTTPRoute" | "GRPCRoute"))
        .map(route)
        .collect();
    let mut written: HashMap<&str, WrittenHosts> = HashMap::new();
    for route in &routes {
        let hosts: Vec<String> = route.hosts.iter().map(ToString::to_string).collect();
        for gateway in &route.gateways {
            let of_gateway = written.entry(gateway).or_default();
            of_gateway.add(hosts.iter().map(String::as_str));
        }
    }
    let mut entries = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        let rules = route.resource.items(&["spec", "rules"]);
        for (rule, located) in rules.iter().enumerate() {
            let matches = located
                .get("matches")
                .map(Located::items)
                .unwrap_or_default();
            if matches.is_empty() {
                entries.push(entry(None, index, rule));
            }
            entries.extend(matches.iter().map(|one| entry(Some(one), index, rule)));
        }
    }
    // Only entries of the same host compete.
    let mut by_host: HashMap<String, Vec<usize>> = HashMap::new();
    let mut of_rule: HashMap<(usize, usize), Vec<usize>> = HashMap::new();
    for (position, entry) in entries.iter().enumerate() {
        of_rule
            .entry((entry.route, entry.rule))
            .or_default()
            .push(position);
        for host in routes
            .get(entry.route)
            .into_iter()
            .flat_map(|route| &route.hosts)
        {
            by_host.entry(host.to_string()).or_default().push(position);
        }
    }
    let all = All {
        routes: &routes,
        entries: &entries,
        by_host,
        of_rule,
        written,
    };
    for (index, route) in routes.iter().enumerate() {
        for (rule, want) in route.rules.iter().enumerate() {
            if let Some(place) = want.place.clone().filter(|_| !want.is_answered) {
                let whose = Whose {
                    holder: route.resource.title(),
                    rule_name: rule_name(route.resource, rule),
                    entry_name: entry_name(route.resource, rule),
                    source: &route.resource.source,
                    place,
                    whole_route: false,
                };
                all.policy(index, rule, want, whose, policies);
            }
        }
    }
    for resource in resources {
        if resource.kind == "BackendTrafficPolicy" {
            backend_traffic_policy(resource, &all, policies);
        }
    }
}

/// Whom a finding is about.
struct Whose<'w> {
    holder: String,
    rule_name: Option<String>,
    entry_name: String,
    source: &'w Rc<Source>,
    place: std::ops::Range<usize>,
    /// Whether every rule of the route is meant.
    whole_route: bool,
}

/// Entries of one host that are compared with one another. Beyond them nothing is suggested.
const MOST_OF_A_HOST: usize = 500;

struct All<'r> {
    routes: &'r [Route<'r>],
    entries: &'r [Entry],
    by_host: HashMap<String, Vec<usize>>,
    of_rule: HashMap<(usize, usize), Vec<usize>>,
    written: HashMap<&'r str, WrittenHosts>,
}

impl All<'_> {
    /// What leaves one rule's own timeout or retries alone.
    fn policy(
        &self,
        index: usize,
        rule: usize,
        want: &Wants,
        whose: Whose<'_>,
        policies: &mut Vec<OwnPolicy>,
    ) {
        let Some(route) = self.routes.get(index) else {
            return;
        };
        let own = self.of_rule.get(&(index, rule));
        let mut suggested = Vec::new();
        let mut covered = Vec::new();
        for entry in own
            .into_iter()
            .flatten()
            .filter_map(|at| self.entries.get(*at))
        {
            let (request, is_exact) = self.requests(route, entry, want, whose.whole_route);
            let requests = RouteMatch {
                request,
                ..RouteMatch::default()
            };
            if is_exact {
                suggested.push(requests.clone());
            }
            covered.push(requests);
        }
        if suggested.len() < covered.len() {
            suggested.clear();
        }
        policies.push(OwnPolicy {
            holder: whose.holder,
            route: whose.rule_name,
            entry_name: whose.entry_name,
            suggested,
            reach: Reach::Exact,
            all: None,
            otherwise: "no routes entry can say which requests are meant: take the timeout or retries out of defaults and \
                        write them where routes need them",
            covered,
            gateways: Some(route.gateways.clone()),
            timeout: want.timeout,
            retries: want.retries,
            source: Rc::clone(whose.source),
            place: whose.place,
        });
    }

    /// The requests that an entry gets, and whether they are said exactly.
    fn requests(
        &self,
        route: &Route,
        entry: &Entry,
        want: &Wants,
        whole_route: bool,
    ) -> (RequestMatch, bool) {
        let mut request = entry.request.clone();
        let mut is_exact = entry.is_exact;
        request.hosts.clone_from(&route.hosts);
        for gateway in &route.gateways {
            if let Some(others) = self.written.get(gateway.as_str()) {
                is_exact &= exclude_hosts(&mut request, others, &route.hosts);
            }
        }
        for host in &route.hosts {
            let rivals = self.by_host.get(&host.to_string());
            for (count, at) in rivals.into_iter().flatten().enumerate() {
                if count >= MOST_OF_A_HOST {
                    is_exact = false;
                    break;
                }
                let Some(rival) = self.entries.get(*at) else {
                    continue;
                };
                let Some(theirs) = self.routes.get(rival.route) else {
                    continue;
                };
                let meets = theirs
                    .gateways
                    .iter()
                    .any(|name| route.gateways.contains(name));
                let is_meant = whole_route && rival.route == entry.route;
                let has = is_meant
                    || theirs
                        .rules
                        .get(rival.rule)
                        .is_some_and(|other| other.is_answered || other.has(want));
                if meets && !has && rival.rank > entry.rank {
                    is_exact &= exclude(&mut request, rival, route.hosts.len() == 1);
                }
            }
        }
        escape_into_names(&mut request);
        (request, is_exact)
    }
}

/// Takes what a more specific entry takes out of another's requests. Whether that can be said.
fn exclude(request: &mut RequestMatch, rival: &Entry, is_same_hosts: bool) -> bool {
    let own = request.paths.first();
    let theirs = rival.request.paths.first();
    let apart = match (own, theirs) {
        (Some(own), Some(theirs)) => !meets(own, theirs),
        _ => false,
    };
    if apart {
        return true;
    }
    let RequestMatch {
        methods, headers, ..
    } = &rival.request;
    if !is_same_hosts || !rival.is_exact {
        return false;
    }
    let is_same_path = own == theirs || theirs.is_none();
    match (methods.as_slice(), headers.as_slice()) {
        ([], []) => match theirs {
            Some(path) => {
                if !request.not_paths.contains(path) {
                    request.not_paths.push(path.clone());
                }
                true
            }
            None => false,
        },
        ([method], []) if is_same_path => {
            request.not_methods.push(method.clone());
            true
        }
        ([], [header]) if is_same_path => {
            request.not_headers.push(header.clone());
            true
        }
        _ => false,
    }
}

/// Whether two paths may hold for one request.
fn meets(one: &PathPattern, two: &PathPattern) -> bool {
    let below = |path: &str, prefix: &str| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
    };
    match (one, two) {
        (PathPattern::Exact(one), PathPattern::Exact(two)) => one == two,
        (PathPattern::Exact(path), PathPattern::Prefix(prefix))
        | (PathPattern::Prefix(prefix), PathPattern::Exact(path)) => below(path, prefix),
        (PathPattern::Prefix(one), PathPattern::Prefix(two)) => below(one, two) || below(two, one),
        _ => true,
    }
}

fn route(resource: &Resource) -> Route<'_> {
    let named = resource.items(&["spec", "hostnames"]);
    let mut hosts: Vec<HostPattern> = named
        .iter()
        .filter_map(Located::text)
        .map(|host| {
            let host = host.to_ascii_lowercase();
            match host.strip_prefix('*') {
                Some(suffix) if suffix.starts_with('.') => HostPattern::Suffix(suffix.to_owned()),
                Some(_) => HostPattern::Any,
                None => HostPattern::Exact(host),
            }
        })
        .collect();
    if hosts.is_empty() {
        hosts.push(HostPattern::Any);
    }
    let gateways = resource
        .items(&["spec", "parentRefs"])
        .iter()
        .filter_map(|parent| {
            let text = |name: &str| parent.get(name).and_then(Located::text);
            let namespace = text("namespace").unwrap_or_else(|| resource.namespace());
            matches!(text("kind"), None | Some("Gateway"))
                .then(|| format!("{namespace}/{}", text("name").unwrap_or_default()))
        })
        .collect();
    Route {
        resource,
        hosts,
        gateways,
        rules: resource
            .items(&["spec", "rules"])
            .iter()
            .map(wants)
            .collect(),
    }
}

fn wants(rule: &Located) -> Wants {
    let filters = rule.get("filters").map(Located::items).unwrap_or_default();
    let is_redirect = filters
        .iter()
        .any(|filter| filter.get("type").and_then(Located::text) == Some("RequestRedirect"));
    let timeouts = rule.field("timeouts");
    let retry = rule.field("retry");
    Wants {
        timeout: timeouts.is_some(),
        retries: retry.is_some(),
        is_answered: is_redirect,
        place: timeouts.or(retry).map(|field| field.name_span.clone()),
    }
}

/// An entry under `matches`; a rule without one holds for every path.
fn entry(matches: Option<&Located>, route: usize, rule: usize) -> Entry {
    let mut request = RequestMatch::default();
    let mut is_exact = true;
    let at = |path: &[&str]| matches.and_then(|matches| matches.at(path));
    let text = |path: &[&str]| at(path).and_then(Located::text);
    let mut path_rank = (false, 1);
    match (text(&["path", "type"]), text(&["path", "value"])) {
        (Some("Exact"), Some(path)) => {
            path_rank = (true, path.len());
            request.paths = vec![PathPattern::Exact(path.to_owned())];
        }
        (None | Some("PathPrefix"), Some(path)) => {
            path_rank = (false, path.len());
            // A slash at the end says nothing to the Gateway API.
            let path = path.trim_end_matches('/');
            if !path.is_empty() {
                request.paths = vec![PathPattern::Prefix(path.to_owned())];
            }
        }
        (None, None) => {}
        _ => is_exact = false,
    }
    // gRPC's service and method are the path.
    match (text(&["method", "service"]), text(&["method", "method"])) {
        (None, None) => {}
        _ if matches!(text(&["method", "type"]), Some("RegularExpression")) => is_exact = false,
        (Some(service), None) => {
            path_rank = (false, service.len() + 2);
            request.paths = vec![PathPattern::Prefix(format!("/{service}/"))];
        }
        (Some(service), Some(method)) => {
            path_rank = (true, service.len() + method.len() + 2);
            request.paths = vec![PathPattern::Exact(format!("/{service}/{method}"))];
        }
        (None, Some(method)) => {
            path_rank = (false, method.len());
            request.paths = vec![PathPattern::Suffix(format!("/{method}"))];
        }
    }
    if let Some(method) = text(&["method"]) {
        request.methods = vec![method.to_owned()];
    }
    let headers = at(&["headers"]).map(Located::items).unwrap_or_default();
    for one in headers {
        let text = |name: &str| one.get(name).and_then(Located::text);
        let said = match (text("type"), text("name"), text("value")) {
            (None | Some("Exact"), Some(name), Some(value)) => {
                header(name, HeaderValueMatch::Exact(value.to_owned()))
            }
            _ => None,
        };
        match said {
            Some(said) => request.headers.push(said),
            None => is_exact = false,
        }
    }
    let parameters = at(&["queryParams"]).map(Located::items).unwrap_or_default();
    is_exact &= parameters.is_empty();
    Entry {
        route,
        rule,
        is_exact,
        rank: (
            path_rank.0,
            path_rank.1,
            !request.methods.is_empty(),
            headers.len() + parameters.len(),
        ),
        request,
    }
}

fn rule_name(resource: &Resource, rule: usize) -> Option<String> {
    let rules = resource.items(&["spec", "rules"]);
    let name = rules.get(rule)?.get("name").and_then(Located::text);
    match name {
        Some(name) => Some(format!("rule {name}")),
        None if rules.len() > 1 => Some(format!("rules[{rule}]")),
        None => None,
    }
}

fn entry_name(resource: &Resource, rule: usize) -> String {
    format!("{}-{}-{rule}", resource.namespace(), resource.name())
}

/// Envoy Gateway's policy on routes or on a whole Gateway.
fn backend_traffic_policy(resource: &Resource, all: &All<'_>, policies: &mut Vec<OwnPolicy>) {
    let spec = resource.at(&["spec"]);
    let field = |path: &[&str], name: &str| {
        let object = if path.is_empty() {
            spec
        } else {
            spec.and_then(|spec| spec.at(path))
        };
        object.and_then(|object| object.field(name))
    };
    let timeout = field(&["timeout", "http"], "requestTimeout");
    let retry = field(&[], "retry");
    let Some(place) = timeout.or(retry).map(|field| field.name_span.clone()) else {
        return;
    };
    let want = Wants {
        timeout: timeout.is_some(),
        retries: retry.is_some(),
        is_answered: false,
        place: Some(place.clone()),
    };
    let list = resource.items(&["spec", "targetRefs"]);
    for target in list.iter().chain(resource.at(&["spec", "targetRef"])) {
        let text = |name: &str| target.get(name).and_then(Located::text);
        let (Some(kind), Some(name)) = (text("kind"), text("name")) else {
            continue;
        };
        if kind == "Gateway" {
            policies.push(OwnPolicy {
                holder: resource.title(),
                route: Some(format!("Gateway {name}")),
                entry_name: String::new(),
                suggested: Vec::new(),
                reach: Reach::Exact,
            all: None,
                otherwise: "both are for the whole Gateway, of which only the plugin's takes effect: leave one of them out",
                covered: vec![RouteMatch {
                    request: RequestMatch {
                        paths: vec![PathPattern::Prefix("/".to_owned())],
                        ..RequestMatch::default()
                    },
                    ..RouteMatch::default()
                }],
                gateways: Some(vec![format!("{}/{name}", resource.namespace())]),
                timeout: want.timeout,
                retries: want.retries,
                source: Rc::clone(&resource.source),
                place: place.clone(),
            });
            continue;
        }
        let section = text("sectionName");
        for (index, route) in all.routes.iter().enumerate() {
            let route_resource = route.resource;
            if route_resource.kind != kind
                || route_resource.name() != name
                || route_resource.namespace() != resource.namespace()
            {
                continue;
            }
            for (rule, own) in route.rules.iter().enumerate() {
                let rules = route_resource.items(&["spec", "rules"]);
                let rule_called = rules
                    .get(rule)
                    .and_then(|rule| rule.get("name"))
                    .and_then(Located::text);
                if own.is_answered || section.is_some() && section != rule_called {
                    continue;
                }
                let said = rule_name(route_resource, rule)
                    .map_or_else(String::new, |rule| format!(", {rule}"));
                let whose = Whose {
                    holder: resource.title(),
                    rule_name: Some(format!("{}{said}", route_resource.title())),
                    entry_name: entry_name(route_resource, rule),
                    source: &resource.source,
                    place: place.clone(),
                    whole_route: section.is_none(),
                };
                all.policy(index, rule, &want, whose, policies);
            }
        }
    }
}
