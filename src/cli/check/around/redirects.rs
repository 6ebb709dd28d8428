//! Redirects of the Gateway API that loop behind a load balancer that ends TLS.

use std::collections::HashSet;

use crate::cli::files::Located;
use crate::cli::report::{Diagnostic, codes};
use crate::cli::setup::{Resource, Setup, gateways};
use crate::config::Config;

/// Routes that answer every request with a redirect to https, in front of which the load balancer has ended TLS.
pub(super) fn redirects(plugins: &[(&Config, &Resource)], setup: &Setup<'_>) -> Vec<Diagnostic> {
    let reached: Vec<Vec<String>> = plugins
        .iter()
        .filter(|(config, _)| !config.trusted_load_balancers.is_empty())
        .map(|(_, holder)| gateways(holder, "targetRefs"))
        .collect();
    let mut found = Vec::new();
    if reached.is_empty() {
        return found;
    }
    // A plugin without targetRefs may be that of any gateway.
    let of_any = reached.iter().any(Vec::is_empty);
    let reached: HashSet<&String> = reached.iter().flatten().collect();
    let is_ours = |route: &[String]| of_any || route.iter().any(|name| reached.contains(name));
    for route in setup.of_kind("HTTPRoute") {
        if !is_ours(&gateways(route, "parentRefs")) || ends_tls_elsewhere(route, setup) {
            continue;
        }
        for rule in route.items(&["spec", "rules"]) {
            let Some(filter) = loops(rule) else { continue };
            found.push(Diagnostic::error(
                &codes::REDIRECT_LOOPS,
                &route.source,
                filter.start(),
                format!(
                    "{} answers every request with a redirect to https, which comes back through the load balancer as the \
                     same request: it loops, whatever the filter writes",
                    route.title()
                ),
                "redirect what came as http alone: matches: [{headers: [{name: x-forwarded-proto, value: http}]}], and give \
                 other requests a rule with backendRefs",
            ));
        }
    }
    found
}

/// The filter of a rule that redirects to the same host's https, without asking how the request came.
fn loops(rule: &Located) -> Option<&Located> {
    let matches = rule.get("matches").map(Located::items).unwrap_or_default();
    let asks = |entry: &Located| {
        let headers = entry.get("headers").map(Located::items).unwrap_or_default();
        headers.iter().any(|header| {
            let name = header.get("name").and_then(Located::text);
            name.is_some_and(|name| name.eq_ignore_ascii_case("x-forwarded-proto"))
        })
    };
    if !matches.is_empty() && matches.iter().all(asks) {
        return None;
    }
    let filters = rule.get("filters").map(Located::items).unwrap_or_default();
    filters.iter().find(|filter| {
        let redirect = filter.get("requestRedirect");
        let text = |name: &str| redirect.and_then(|redirect| redirect.get(name)?.text());
        text("scheme") == Some("https") && text("hostname").is_none()
    })
}

/// Whether a route is only for a Gateway's plain listener, beside which the same Gateway ends TLS itself.
fn ends_tls_elsewhere(route: &Resource, setup: &Setup<'_>) -> bool {
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
                            && gateway
                                .items(&["spec", "listeners"])
                                .iter()
                                .any(|listener| {
                                    listener.get("protocol").and_then(Located::text)
                                        == Some("HTTPS")
                                })
                    })
        })
}
