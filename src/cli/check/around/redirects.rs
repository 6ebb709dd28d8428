//! Redirects to https that loop behind a load balancer that ends TLS.

use std::collections::{HashMap, HashSet};

use super::routes::{Behind, istios, route_asks, rule_asks};
use crate::cli::files::Located;
use crate::cli::report::{Diagnostic, codes};
use crate::cli::setup::{Resource, Setup};

/// Routes that answer every request with a redirect to https, in front of which the load balancer has ended TLS.
pub(super) fn findings(behind: &[Behind<'_>], setup: &Setup<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let hosts = Hosts::new(setup);
    for Behind { route, .. } in behind {
        let (loops, cure) = if route.kind == "VirtualService" {
            (in_virtual_service(route, &hosts), OF_ISTIO)
        } else {
            (in_gateway_api(route, setup), OF_THE_GATEWAY_API)
        };
        found.extend(loops.into_iter().map(|redirect| {
            Diagnostic::error(
                &codes::REDIRECT_LOOPS,
                &route.source,
                redirect.start(),
                format!(
                    "{} answers every request with a redirect to https, which comes back through the load balancer as the \
                     same request: it loops, whatever the filter writes",
                    route.title()
                ),
                cure,
            )
        }));
    }
    found
}

const OF_THE_GATEWAY_API: &str = "redirect what came as http alone: matches: [{headers: [{name: x-forwarded-proto, value: http}]}], and give \
     other requests a rule with backendRefs";

const OF_ISTIO: &str = "redirect what came as http alone: match: [{headers: {x-forwarded-proto: {exact: http}}}], or write \
     tls: {httpsRedirect: true} into the Gateway's server";

fn in_gateway_api<'r>(route: &'r Resource, setup: &Setup<'_>) -> Vec<&'r Located> {
    let rules = route.items(&["spec", "rules"]);
    // A rule with a header match goes before one without.
    let others_ask = rules
        .iter()
        .any(|rule| rule_asks(rule) && redirect(rule).is_none());
    if others_ask || has_other_listeners(route, setup) {
        return Vec::new();
    }
    let every = rules.iter().filter(|rule| !rule_asks(rule));
    every.filter_map(redirect).collect()
}

/// The filter of a rule that redirects to the same address by https.
fn redirect(rule: &Located) -> Option<&Located> {
    let filters = rule.get("filters").map(Located::items).unwrap_or_default();
    filters.iter().find(|filter| {
        let redirect = filter.get("requestRedirect");
        let field = |name: &str| redirect.and_then(|redirect| redirect.get(name));
        field("scheme").and_then(Located::text) == Some("https")
            && ["hostname", "path"]
                .iter()
                .all(|name| field(name).is_none())
            && is_usual(field("port"))
    })
}

/// Whether a redirect to https with this port leads back to where the browser was.
fn is_usual(port: Option<&Located>) -> bool {
    port.and_then(Located::number)
        .is_none_or(|port| (port - 443.0).abs() < 0.5)
}

/// Whether a route is only for some of a Gateway's listeners: the load balancer may send what came as https to another.
fn has_other_listeners(route: &Resource, setup: &Setup<'_>) -> bool {
    let parents = route.items(&["spec", "parentRefs"]);
    !parents.is_empty()
        && parents.iter().all(|parent| {
            let text = |name: &str| parent.get(name).and_then(Located::text);
            let namespace = text("namespace").unwrap_or_else(|| route.namespace());
            text("sectionName").is_some()
                && setup
                    .named("Gateway", text("name").unwrap_or_default())
                    .any(|gateway| {
                        gateway.namespace() == namespace
                            && gateway.items(&["spec", "listeners"]).len() > 1
                    })
        })
}

fn in_virtual_service<'r>(service: &'r Resource, hosts: &Hosts<'_>) -> Vec<&'r Located> {
    let mut found = Vec::new();
    for route in service.items(&["spec", "http"]) {
        let redirect = route.field("redirect");
        if route_asks(route) {
            if redirect.is_none() {
                // Envoy takes the first route that matches: those behind this one get what came as something else.
                break;
            }
            continue;
        }
        let field = |name: &str| redirect.and_then(|redirect| redirect.value.get(name));
        if let Some(scheme) = field("scheme")
            && scheme.text() == Some("https")
            && ["authority", "uri"]
                .iter()
                .all(|name| field(name).is_none())
            && is_usual(field("port"))
        {
            found.push(scheme);
        }
    }
    if !found.is_empty() && hosts.have_other_gateways(service) {
        return Vec::new();
    }
    found
}

/// The Gateways of each host of `VirtualService`s.
struct Hosts<'r>(HashMap<&'r str, HashSet<String>>);

impl<'r> Hosts<'r> {
    fn new(setup: &Setup<'r>) -> Self {
        let mut all: HashMap<&str, HashSet<String>> = HashMap::new();
        for service in setup.of_kind("VirtualService") {
            let hosts = service.items(&["spec", "hosts"]).iter();
            for host in hosts.filter_map(Located::text) {
                all.entry(host).or_default().extend(istios(service));
            }
        }
        Self(all)
    }

    /// Whether another `VirtualService` has the same hosts on another Gateway: that may be the one for what came as https.
    fn have_other_gateways(&self, service: &Resource) -> bool {
        let own: HashSet<String> = istios(service).into_iter().collect();
        let hosts = service.items(&["spec", "hosts"]).iter();
        let mut gateways = hosts.filter_map(|host| self.0.get(host.text()?));
        gateways.any(|gateways| !gateways.is_subset(&own))
    }
}
