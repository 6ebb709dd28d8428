//! Routes and other filters that write x-forwarded-proto themselves: what they write stands for every client.

use super::Placed;
use super::routes::{self, Behind, route_asks, rule_asks};
use crate::cli::files::Located;
use crate::cli::report::{Diagnostic, codes};
use crate::cli::setup::{Resource, Setup, added, changed, is_itself, is_scheme, named};

/// Everything behind a plugin that writes or removes its header.
pub(super) fn findings<'r>(plugins: &[Placed<'r>], setup: &Setup<'r>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for Behind { route, holder } in routes::behind(plugins, setup) {
        let mut places = Vec::new();
        if route.kind == "VirtualService" {
            for rule in route.items(&["spec", "http"]) {
                of_virtual_service(rule, &mut places);
            }
        } else {
            for rule in route.items(&["spec", "rules"]) {
                of_gateway_api(rule, &mut places);
            }
        }
        found.extend(places.into_iter().map(|place| said(route, place, holder)));
    }
    found.extend(patches(plugins, setup));
    found
}

fn said(writer: &Resource, place: &Located, holder: &Resource) -> Diagnostic {
    Diagnostic::warning(
        &codes::SCHEME_WRITTEN_ELSEWHERE,
        &writer.source,
        place.start(),
        format!(
            "{} changes x-forwarded-proto itself, and {} is on the same gateway: services are told the same of every client",
            writer.title(),
            holder.title()
        ),
        "take it out: the plugin writes what is true of each request",
    )
}

/// What a route of a `VirtualService` does to the header, for all its destinations or for one.
fn of_virtual_service<'l>(route: &'l Located, places: &mut Vec<&'l Located>) {
    if route_asks(route) {
        return; // It takes what came in one way only.
    }
    let destinations = route.get("route").map(Located::items).unwrap_or_default();
    for headers in std::iter::once(route)
        .chain(destinations)
        .filter_map(|one| one.at(&["headers", "request"]))
    {
        let written = ["set", "add"].iter().filter_map(|name| headers.get(name));
        let written = written.flat_map(Located::fields);
        places.extend(
            written
                .filter(|field| is_scheme(&field.name) && !is_itself(&field.value))
                .map(|field| &field.value),
        );
        places.extend(headers.get("remove").and_then(named));
    }
}

/// What a rule of an `HTTPRoute` or `GRPCRoute` does to the header, for all its backends or for one.
fn of_gateway_api<'l>(rule: &'l Located, places: &mut Vec<&'l Located>) {
    if rule_asks(rule) {
        return;
    }
    let backends = rule
        .get("backendRefs")
        .map(Located::items)
        .unwrap_or_default();
    let filters = std::iter::once(rule)
        .chain(backends)
        .filter_map(|one| one.get("filters"))
        .flat_map(Located::items);
    for modifier in filters.filter_map(|filter| filter.get("requestHeaderModifier")) {
        let written = ["set", "add"].iter().filter_map(|name| modifier.get(name));
        let names = written
            .flat_map(Located::items)
            .filter_map(|header| header.get("name"));
        places.extend(names.filter(|name| name.text().is_some_and(is_scheme)));
        places.extend(modifier.get("remove").and_then(named));
    }
}

/// Patches on the same workloads: of routes, and of filters that mutate headers.
fn patches(plugins: &[Placed<'_>], setup: &Setup<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for filter in setup.of_kind("EnvoyFilter") {
        let mut places = Vec::new();
        for patch in filter.items(&["spec", "configPatches"]) {
            let text = |path: &[&str]| patch.at(path).and_then(Located::text);
            let context = text(&["match", "context"]).unwrap_or("ANY");
            if context.starts_with("SIDECAR") || text(&["patch", "operation"]) == Some("REMOVE") {
                continue;
            }
            let value = patch.at(&["patch", "value"]);
            places.extend(match text(&["applyTo"]) {
                Some("ROUTE_CONFIGURATION" | "VIRTUAL_HOST" | "HTTP_ROUTE") => {
                    value.and_then(changed)
                }
                Some("HTTP_FILTER") => value.and_then(mutated),
                _ => None,
            });
        }
        if places.is_empty() {
            continue;
        }
        let reach = setup.reach(filter);
        let holder = plugins
            .iter()
            .filter(|plugin| plugin.holder.kind != "EnvoyExtensionPolicy")
            .find(|plugin| setup.share_a_workload(&plugin.reach, &reach));
        if let Some(Placed { holder, .. }) = holder {
            found.extend(places.into_iter().map(|place| said(filter, place, holder)));
        }
    }
    found
}

/// Where a filter that mutates headers first writes or removes this one.
fn mutated(filter: &Located) -> Option<&Located> {
    let (kind, message) = filter.proto("typed_config")?.any()?;
    if kind != "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation" {
        return None;
    }
    let mutations = message.proto_at(&["mutations", "request_mutations"])?;
    mutations.items().iter().find_map(|mutation| {
        let removed = mutation.get("remove");
        let removed = removed.filter(|name| name.text().is_some_and(is_scheme));
        removed.or_else(|| added(mutation.get("append")?))
    })
}
