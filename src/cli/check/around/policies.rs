//! Envoy Gateway's policies beside the one that holds the plugin.

use crate::cli::files::Located;
use crate::cli::report::{Diagnostic, codes};
use crate::cli::setup::{Resource, Setup, gateways};

/// A policy of Envoy Gateway's that lets requests pass without the filter, where Envoy keeps a client's own scheme.
pub(super) fn fail_open(holder: &Resource, setup: &Setup<'_>) -> Option<Diagnostic> {
    if holder.kind != "EnvoyExtensionPolicy" {
        return None;
    }
    let open = holder.items(&["spec", "wasm"]).iter().find_map(|wasm| {
        let field = wasm.field("failOpen")?;
        (field.value.boolean() == Some(true)).then_some(field)
    })?;
    let (policy, manager) = setup.client_traffic_policy(holder)?;
    (!manager.use_remote_address).then(|| {
        Diagnostic::error(
            &codes::OPEN_WITHOUT_FILTER,
            &holder.source,
            open.name_span.clone(),
            format!(
                "with failOpen requests pass without the filter, and {} sets clientIPDetection, under which Envoy keeps \
                 anybody's x-forwarded-proto",
                policy.title()
            ),
            "leave failOpen out",
        )
    })
}

/// Policies that stand in for the one that holds the plugin: on a route of its Gateway, or on the same Gateway.
pub(super) fn replaced(holder: &Resource, setup: &Setup<'_>) -> Vec<Diagnostic> {
    let own = gateways(holder, "targetRefs");
    if holder.kind != "EnvoyExtensionPolicy" || own.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for policy in setup
        .of_kind("EnvoyExtensionPolicy")
        .filter(|other| !other.is_ours)
    {
        let is_merged = policy.at(&["spec", "mergeType"]).is_some();
        for target in policy
            .items(&["spec", "targetRefs"])
            .iter()
            .chain(policy.at(&["spec", "targetRef"]))
        {
            let text = |name: &str| target.get(name).and_then(Located::text);
            let Some(name) = text("name") else { continue };
            let (message, help) = match text("kind") {
                Some("Gateway")
                    if text("sectionName").is_none()
                        && own.contains(&format!("{}/{name}", policy.namespace())) =>
                {
                    (
                        format!(
                            "{} is for the same Gateway as {}: Envoy Gateway takes the older one and leaves the other out",
                            policy.title(),
                            holder.title()
                        ),
                        "put both into one EnvoyExtensionPolicy",
                    )
                }
                Some("Gateway")
                    if own.contains(&format!("{}/{name}", policy.namespace())) && !is_merged =>
                {
                    (
                        format!(
                            "{} is for a listener of the same Gateway, where it replaces {}: the filter isn't there",
                            policy.title(),
                            holder.title()
                        ),
                        "write the plugin into this policy too",
                    )
                }
                Some(kind @ ("HTTPRoute" | "GRPCRoute"))
                    if !is_merged && is_route_of(kind, name, policy.namespace(), &own, setup) =>
                {
                    (
                        format!(
                            "{} is for a route of the same Gateway, where it replaces {}: requests of {kind} {name} pass without the filter",
                            policy.title(),
                            holder.title()
                        ),
                        "write mergeType: StrategicMerge here, or the plugin into this policy too",
                    )
                }
                _ => continue,
            };
            found.push(Diagnostic::error(
                &codes::REPLACED_BY_POLICY,
                &policy.source,
                target.start(),
                message,
                help,
            ));
            break;
        }
    }
    found
}

/// Whether a route is one of these Gateways'.
fn is_route_of(kind: &str, name: &str, namespace: &str, own: &[String], setup: &Setup<'_>) -> bool {
    setup.named(kind, name).any(|route| {
        route.namespace() == namespace
            && gateways(route, "parentRefs")
                .iter()
                .any(|gateway| own.contains(gateway))
    })
}

/// `OpenID` Connect that builds its own address from the scheme: Envoy Gateway runs it before Wasm.
pub(super) fn oidc(holder: &Resource, setup: &Setup<'_>) -> Vec<Diagnostic> {
    if holder.kind != "EnvoyExtensionPolicy" {
        return Vec::new();
    }
    let own = gateways(holder, "targetRefs");
    // An order of the filters that somebody chose is taken to be right.
    let is_ordered = setup
        .of_kind("EnvoyProxy")
        .any(|proxy| !proxy.items(&["spec", "filterOrder"]).is_empty());
    if is_ordered {
        return Vec::new();
    }
    let mut found = Vec::new();
    for policy in setup.of_kind("SecurityPolicy") {
        let Some(oidc) = policy.at(&["spec", "oidc"]) else {
            continue;
        };
        let targets = policy
            .items(&["spec", "targetRefs"])
            .iter()
            .chain(policy.at(&["spec", "targetRef"]));
        let is_meant = gateways(policy, "targetRefs")
            .iter()
            .any(|name| own.contains(name))
            || targets.into_iter().any(|target| {
                let text =
                    |name: &str| target.get(name).and_then(Located::text).unwrap_or_default();
                is_route_of(text("kind"), text("name"), policy.namespace(), &own, setup)
            });
        let url = oidc.get("redirectURL").and_then(Located::text);
        if is_meant && url.is_none_or(|url| url.to_ascii_lowercase().contains("x-forwarded-proto"))
        {
            found.push(Diagnostic::warning(
                &codes::SEES_UNCORRECTED_SCHEME,
                &policy.source,
                policy.place(&["spec", "oidc", "redirectURL"]),
                format!(
                    "{} builds redirectURL from x-forwarded-proto, and Envoy Gateway runs OpenID Connect before Wasm: it \
                     says http",
                    policy.title()
                ),
                "write redirectURL: https://HOST/oauth2/callback, or let filterOrder of the EnvoyProxy put envoy.filters.http.wasm \
                 before envoy.filters.http.oauth2",
            ));
        }
    }
    found
}
