//! The connection managers that a plugin runs in, as pods, mesh, patches and policies set them.

use super::{Manager, Reach, Resource, Setup, gateways, patches, workload};
use crate::cli::files::Located;
use crate::cli::plugins::{Form, Plugin};

/// A connection manager, and how much of it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Surroundings {
    pub(in crate::cli) manager: Manager,
    /// Whether what isn't there is missing, and not only in a file that wasn't given.
    pub(in crate::cli) whole: bool,
    /// Whether they are Envoy's own configuration.
    pub(in crate::cli) certain: bool,
}

impl Setup<'_> {
    /// The connection managers around a plugin. None if nothing is said of any.
    pub(in crate::cli) fn surroundings(&self, plugin: &Plugin) -> Vec<Surroundings> {
        if let Some(manager) = &plugin.manager {
            return vec![Surroundings {
                manager: manager.clone(),
                whole: true,
                certain: true,
            }];
        }
        let Some(holder) = plugin.resource.and_then(|index| self.resources.get(index)) else {
            return Vec::new();
        };
        match plugin.form {
            Form::Alone => Vec::new(),
            Form::EnvoyExtensionPolicy => self.of_envoy_gateway(holder).into_iter().collect(),
            Form::WasmPlugin | Form::TrafficExtension | Form::EnvoyFilter => {
                self.of_istio(plugin.form, holder)
            }
        }
    }

    fn of_istio(&self, form: Form, holder: &Resource) -> Vec<Surroundings> {
        let reach = self.reach(holder);
        let mut manager = Manager::USUAL;
        let mut is_known = false;
        for topology in self.resources.iter().filter_map(workload::of_all) {
            workload::apply(&topology, &mut manager);
            is_known = true;
        }
        let mut found: Vec<Surroundings> = Vec::new();
        for workload in self
            .workloads
            .iter()
            .filter(|workload| workload.is_taken_by(&reach))
        {
            let mut manager = manager.clone();
            workload.annotate(&mut manager);
            self.patch(&mut manager, |filter| {
                workload.is_taken_by(filter) || filter.overlaps(&reach)
            });
            let surroundings = Surroundings {
                manager,
                whole: true,
                certain: false,
            };
            if !found.contains(&surroundings) {
                found.push(surroundings);
            }
        }
        if found.is_empty() {
            is_known |= self.patch(&mut manager, |filter| filter.overlaps(&reach));
            // A filter by hand has the other filters that it needs beside it.
            let by_hand = form == Form::EnvoyFilter && holder.kind == "EnvoyFilter";
            if is_known || by_hand {
                found.push(Surroundings {
                    manager,
                    whole: by_hand,
                    certain: false,
                });
            }
        }
        found
    }

    /// Applies the `EnvoyFilter`s for the same workload, and what is written into a `ProxyConfig`.
    fn patch(&self, manager: &mut Manager, is_meant: impl Fn(&Reach<'_>) -> bool) -> bool {
        let mut changed = false;
        for other in self.resources {
            match other.kind.as_str() {
                "EnvoyFilter" if is_meant(&self.reach(other)) => {
                    changed |= patches::istio(other, manager);
                }
                "ProxyConfig" if is_meant(&self.reach(other)) => {
                    if let Some(topology) = other.at(&["spec", "gatewayTopology"]) {
                        workload::apply(topology, manager);
                        changed = true;
                    }
                }
                _ => {}
            }
        }
        changed
    }

    fn of_envoy_gateway(&self, holder: &Resource) -> Option<Surroundings> {
        let own = gateways(holder, "targetRefs");
        let is_for_it = |policy: &&Resource| {
            gateways(policy, "targetRefs")
                .iter()
                .any(|name| own.contains(name))
        };
        let policy = client_traffic_policy(holder, self.resources);
        let whole = self
            .of_kind("Gateway")
            .any(|gateway| own.contains(&format!("{}/{}", gateway.namespace(), gateway.name())));
        let mut patched = false;
        let mut manager = policy.map_or(Manager::USUAL, |(_, manager)| manager);
        for patch in self.of_kind("EnvoyPatchPolicy").filter(is_for_it) {
            patches::envoy_gateway(patch, &mut manager);
            patched = true;
        }
        (manager != Manager::USUAL || whole || patched).then_some(Surroundings {
            manager,
            whole,
            certain: false,
        })
    }

    /// The ports on which the plugin's workloads listen, as their Services and Istio's Gateways tell. None if that
    /// can't be told: a workload without a Service, or no workload.
    pub(in crate::cli) fn container_ports(&self, holder: &Resource) -> Option<Vec<u16>> {
        let reach = self.reach(holder);
        let mut ports = Vec::new();
        let mut served = Vec::new();
        for workload in self
            .workloads
            .iter()
            .filter(|workload| workload.is_taken_by(&reach))
        {
            let mut services = 0;
            for service in self
                .of_kind("Service")
                .filter(|service| workload.is_behind(service))
            {
                services += 1;
                for port in service.items(&["spec", "ports"]) {
                    served.extend(port.get("port").and_then(workload::as_port));
                    let target = port.get("targetPort").or_else(|| port.get("port"))?;
                    let number = match target.text() {
                        Some(name) => workload.port(name).or_else(|| name.parse().ok()),
                        None => workload::as_port(target),
                    };
                    ports.push(number?);
                }
            }
            if services == 0 {
                return None;
            }
        }
        // A server whose port no Service has listens on its own.
        for gateway in self.of_kind("Gateway") {
            for server in gateway.items(&["spec", "servers"]) {
                let port = server.at(&["port", "number"]).and_then(workload::as_port);
                ports.extend(port.filter(|port| !served.contains(port)));
            }
        }
        (!served.is_empty()).then_some(ports)
    }
}

/// The policy on the Gateway that takes the client's address from somewhere else, and what the manager is like then.
pub(in crate::cli) fn client_traffic_policy<'r>(
    holder: &Resource,
    all: &'r [Resource],
) -> Option<(&'r Resource, Manager)> {
    let own = gateways(holder, "targetRefs");
    all.iter()
        .filter(|policy| policy.kind == "ClientTrafficPolicy")
        .filter(|policy| {
            gateways(policy, "targetRefs")
                .iter()
                .any(|name| own.contains(name))
        })
        .find_map(|policy| {
            let is_there = |path: &[&str]| policy.at(path).is_some_and(|field| !field.is_null());
            let detects = is_there(&["spec", "clientIPDetection"]);
            let claims = is_there(&["spec", "proxyProtocol"])
                || policy
                    .at(&["spec", "enableProxyProtocol"])
                    .and_then(Located::boolean)
                    == Some(true);
            let mutates = is_there(&["spec", "headers", "earlyRequestHeaders"]);
            (detects || claims || mutates).then_some((
                policy,
                Manager {
                    use_remote_address: !detects,
                    detection_appends: is_there(&["spec", "clientIPDetection", "xForwardedFor"]),
                    proxy_protocol: claims,
                    early_header_mutation: mutates,
                    ..Manager::USUAL
                },
            ))
        })
}
