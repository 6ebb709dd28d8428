//! The routes behind the plugins, and what their matches ask for.

use std::collections::{HashMap, HashSet};

use super::Placed;
use crate::cli::files::Located;
use crate::cli::setup::{Reach, Resource, Setup, gateways, is_scheme};

/// A route of a gateway on which a plugin runs.
pub(super) struct Behind<'r> {
    pub(super) route: &'r Resource,
    /// The first of the plugins.
    pub(super) holder: &'r Resource,
}

/// The routes behind plugins, in the order in which the routes were given.
pub(super) fn behind<'r>(placed: &[Placed<'r>], setup: &Setup<'r>) -> Vec<Behind<'r>> {
    let plugins = Plugins::new(placed, setup);
    let mut found: Vec<Behind<'r>> = Vec::new();
    for route in setup.resources {
        let holder = match route.kind.as_str() {
            "HTTPRoute" | "GRPCRoute" => plugins.of_gateway_api(&gateways(route, "parentRefs")),
            "VirtualService" => plugins.of_istio(&istios(route)),
            _ => None,
        };
        found.extend(holder.map(|holder| Behind { route, holder }));
    }
    let delegated = delegated(&found, setup);
    found.extend(delegated);
    found
}

/// The Gateways of Istio's that a `VirtualService` is bound to, as `namespace/name`. Without any it is for sidecars.
pub(super) fn istios(service: &Resource) -> Vec<String> {
    let names = service.items(&["spec", "gateways"]).iter();
    names
        .filter_map(Located::text)
        .filter(|name| *name != "mesh")
        .map(|name| match name.split_once('/') {
            None => format!("{}/{name}", service.namespace()),
            Some((".", name)) => format!("{}/{name}", service.namespace()),
            Some(_) => name.to_owned(),
        })
        .collect()
}

/// The `VirtualService`s to which others delegate, each once.
fn delegated<'r>(behind: &[Behind<'r>], setup: &Setup<'r>) -> Vec<Behind<'r>> {
    let mut known = HashSet::new();
    let mut found = Vec::new();
    for Behind {
        route: root,
        holder,
    } in behind
    {
        for rule in root.items(&["spec", "http"]) {
            let text = |name: &str| rule.at(&["delegate", name]).and_then(Located::text);
            let Some(name) = text("name") else { continue };
            let namespace = text("namespace").unwrap_or_else(|| root.namespace());
            if !known.insert((namespace, name)) {
                continue;
            }
            let services = setup.named("VirtualService", name);
            let services = services.filter(|service| service.namespace() == namespace);
            found.extend(services.map(|route| Behind { route, holder }));
        }
    }
    found
}

/// The plugins, by the Gateways that they are for.
struct Plugins<'r> {
    /// By Gateways of the Gateway API.
    by_target: HashMap<String, &'r Resource>,
    /// By Gateways of Istio's that are among the files.
    by_selector: HashMap<String, Option<&'r Resource>>,
    /// A plugin that says by labels whom it is for: that may be the pods of any Gateway that isn't among the files.
    of_any: Option<&'r Resource>,
}

impl<'r> Plugins<'r> {
    fn new(placed: &[Placed<'r>], setup: &Setup<'r>) -> Self {
        let mut by_target = HashMap::new();
        let mut of_any = None;
        for Placed { holder, .. } in placed {
            let targets = gateways(holder, "targetRefs");
            if targets.is_empty() && of_any.is_none() {
                of_any = Some(*holder);
            }
            for target in targets {
                by_target.entry(target).or_insert(*holder);
            }
        }
        let istios = setup
            .of_kind("Gateway")
            .filter(|gateway| gateway.is_istios_gateway());
        let by_selector = istios.map(|gateway| {
            let name = format!("{}/{}", gateway.namespace(), gateway.name());
            (name, on(&setup.reach(gateway), placed, setup))
        });
        Self {
            by_selector: by_selector.collect(),
            by_target,
            of_any,
        }
    }

    fn of_gateway_api(&self, parents: &[String]) -> Option<&'r Resource> {
        let named = parents.iter().find_map(|name| self.by_target.get(name));
        named.copied().or(self.of_any)
    }

    fn of_istio(&self, gateways: &[String]) -> Option<&'r Resource> {
        gateways
            .iter()
            .find_map(|name| match self.by_selector.get(name) {
                Some(holder) => *holder,
                None => self.of_any,
            })
    }
}

/// The first plugin that runs on a Gateway's pods.
fn on<'r>(gateway: &Reach<'_>, placed: &[Placed<'r>], setup: &Setup<'_>) -> Option<&'r Resource> {
    let mut istios = placed
        .iter()
        .filter(|plugin| plugin.holder.kind != "EnvoyExtensionPolicy");
    istios
        .find(|plugin| setup.share_a_workload(gateway, &plugin.reach))
        .map(|plugin| plugin.holder)
}

/// Whether every request that a rule of the Gateway API takes is asked how it came.
pub(super) fn rule_asks(rule: &Located) -> bool {
    let matches = rule.get("matches").map(Located::items).unwrap_or_default();
    let asks = |entry: &Located| {
        let headers = entry.get("headers").map(Located::items).unwrap_or_default();
        headers.iter().any(|header| {
            let name = header.get("name").and_then(Located::text);
            name.is_some_and(is_scheme)
        })
    };
    !matches.is_empty() && matches.iter().all(asks)
}

/// Whether every request that a route of a `VirtualService` takes is asked how it came.
pub(super) fn route_asks(route: &Located) -> bool {
    let matches = route.get("match").map(Located::items).unwrap_or_default();
    let asks = |entry: &Located| {
        let of_headers = |list: &str| {
            let headers = entry.get(list);
            headers.is_some_and(|headers| headers.fields().any(|field| is_scheme(&field.name)))
        };
        // A port or a gateway may be the one to which the load balancer sends what came as https.
        ["scheme", "port", "gateways"]
            .iter()
            .any(|name| entry.get(name).is_some())
            || of_headers("headers")
            || of_headers("withoutHeaders")
    };
    !matches.is_empty() && matches.iter().all(asks)
}
