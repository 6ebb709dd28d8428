//! The connection managers that a plugin runs in, as pods, mesh, patches and policies set them.

use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, HashSet};

use super::set::Set;
use super::workload::Workload;
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

impl<'r> Setup<'r> {
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
        let shapers = self.shapers.get_or_init(|| Shapers::new(self));
        let reach = self.reach(holder);
        let near = shapers.overlapping(&reach);
        let mut found: Vec<Surroundings> = Vec::new();
        let mut seen = HashSet::new();
        for (place, workload) in self.workloads_of(&reach) {
            let shape = Shape {
                annotated: workload.is_annotated().then_some(place),
                shapers: near.or(shapers.of_workload(place)),
            };
            if !seen.insert(shape.clone()) {
                continue;
            }
            let surroundings = Surroundings {
                manager: shapers.manager(shape, workload),
                whole: true,
                certain: false,
            };
            if !found.contains(&surroundings) {
                found.push(surroundings);
            }
        }
        if found.is_empty() {
            let mut manager = shapers.mesh.clone().unwrap_or(Manager::USUAL);
            let is_patched = shapers.apply(&near, &mut manager);
            // A filter by hand has the other filters that it needs beside it.
            let by_hand = form == Form::EnvoyFilter && holder.kind == "EnvoyFilter";
            if shapers.mesh.is_some() || is_patched || by_hand {
                found.push(Surroundings {
                    manager,
                    whole: by_hand,
                    certain: false,
                });
            }
        }
        found
    }

    fn of_envoy_gateway(&self, holder: &Resource) -> Option<Surroundings> {
        let own = gateways(holder, "targetRefs");
        let is_for_it = |policy: &&Resource| {
            gateways(policy, "targetRefs")
                .iter()
                .any(|name| own.contains(name))
        };
        let policy = self.client_traffic_policy(holder);
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

    /// The policy on the Gateway that takes the client's address from somewhere else, and what the manager is like then.
    pub(in crate::cli) fn client_traffic_policy(
        &self,
        holder: &Resource,
    ) -> Option<(&'r Resource, Manager)> {
        let own = gateways(holder, "targetRefs");
        self.of_kind("ClientTrafficPolicy")
            .filter(|policy| {
                gateways(policy, "targetRefs")
                    .iter()
                    .any(|name| own.contains(name))
            })
            .find_map(|policy| {
                let is_there =
                    |path: &[&str]| policy.at(path).is_some_and(|field| !field.is_null());
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
                        detection_appends: is_there(&[
                            "spec",
                            "clientIPDetection",
                            "xForwardedFor",
                        ]),
                        proxy_protocol: claims,
                        early_header_mutation: mutates,
                        ..Manager::USUAL
                    },
                ))
            })
    }
}

/// The resources of Istio's that change connection managers, and whom each is for.
pub(super) struct Shapers<'r> {
    /// In the order in which they were given.
    all: Vec<(&'r Resource, Reach<'r>)>,
    /// What the mesh configuration says, if there is one.
    mesh: Option<Manager>,
    /// Which of them are for each of the workloads.
    of_workloads: Vec<OnceCell<Set>>,
    /// What they make of a connection manager.
    known: RefCell<HashMap<Shape, Manager>>,
}

/// What a workload's connection manager is made by.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Shape {
    /// The workload, if its own annotation has a part in it.
    annotated: Option<usize>,
    shapers: Set,
}

impl<'r> Shapers<'r> {
    fn new(setup: &Setup<'r>) -> Self {
        let is_one =
            |resource: &&Resource| matches!(resource.kind.as_str(), "EnvoyFilter" | "ProxyConfig");
        let all = setup.resources.iter().filter(is_one);
        let mut mesh = None;
        for topology in setup.resources.iter().filter_map(workload::of_all) {
            workload::apply(&topology, mesh.get_or_insert(Manager::USUAL));
        }
        Self {
            all: all
                .map(|resource| (resource, setup.reach(resource)))
                .collect(),
            mesh,
            of_workloads: vec![OnceCell::new(); setup.workloads.len()],
            known: RefCell::default(),
        }
    }

    /// Those whose selectors and this one hold for the same workloads, whatever workloads there are.
    fn overlapping(&self, reach: &Reach<'_>) -> Set {
        self.those(|other| other.overlaps(reach))
    }

    /// Those that are for a workload.
    fn of_workload(&self, place: usize) -> &Set {
        static NONE: Set = Set::EMPTY;
        let cell = self.of_workloads.get(place);
        cell.map_or(&NONE, |cell| {
            cell.get_or_init(|| self.those(|other| other.workloads.has(place)))
        })
    }

    fn those(&self, is_meant: impl Fn(&Reach<'r>) -> bool) -> Set {
        let mut those = Set::default();
        for (place, (_, reach)) in self.all.iter().enumerate() {
            if is_meant(reach) {
                those.insert(place);
            }
        }
        those
    }

    /// The connection manager that mesh, annotation and resources make.
    fn manager(&self, shape: Shape, workload: &Workload<'_>) -> Manager {
        if let Some(known) = self.known.borrow().get(&shape) {
            return known.clone();
        }
        let mut manager = self.mesh.clone().unwrap_or(Manager::USUAL);
        workload.annotate(&mut manager);
        self.apply(&shape.shapers, &mut manager);
        self.known.borrow_mut().insert(shape, manager.clone());
        manager
    }

    /// Applies the `EnvoyFilter`s, and what is written into a `ProxyConfig`. Whether that said anything.
    fn apply(&self, shapers: &Set, manager: &mut Manager) -> bool {
        let mut changed = false;
        for (resource, _) in shapers.places().filter_map(|place| self.all.get(place)) {
            if resource.kind == "EnvoyFilter" {
                changed |= patches::istio(resource, manager);
            } else if let Some(topology) = resource.at(&["spec", "gatewayTopology"]) {
                workload::apply(topology, manager);
                changed = true;
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::cli::files::Source;
    use crate::cli::plugins;

    /// A plugin, a pod and a filter of a gateway.
    const ONE: &str = "
kind: WasmPlugin
apiVersion: extensions.istio.io/v1alpha1
metadata: {name: trusted-lb-INDEX, namespace: edge}
spec:
  selector: {matchLabels: {istio: gateway}}
  pluginConfig: {trustedLoadBalancers: []}
---
kind: Pod
apiVersion: v1
metadata: {name: pod-INDEX, namespace: edge, labels: {istio: gateway, pod: pod-INDEX}}
---
kind: EnvoyFilter
apiVersion: networking.istio.io/v1alpha3
metadata: {name: filter-INDEX, namespace: edge}
spec:
  workloadSelector: {labels: {istio: gateway}}
  configPatches:
  - applyTo: NETWORK_FILTER
    patch:
      operation: MERGE
      value:
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          xff_num_trusted_hops: INDEX
---
";

    /// So many of each.
    fn gateway(number: usize) -> String {
        (0..number)
            .map(|index| ONE.replace("INDEX", &index.to_string()))
            .collect()
    }

    #[test]
    fn what_plugins_and_pods_have_in_common_is_worked_out_once() {
        let source = Rc::new(Source::new("gateway.yaml", gateway(20)));
        let mut contents = plugins::in_source(&source).expect("it is YAML");
        let plugins = contents.take_plugins();
        let setup = Setup::new(&contents.resources);
        for plugin in &plugins {
            let surroundings = setup.surroundings(plugin);
            let hops: Vec<u32> = surroundings
                .iter()
                .map(|around| around.manager.xff_num_trusted_hops)
                .collect();
            assert_eq!(hops, [19], "the last filter wins, in every pod");
        }
        assert_eq!(plugins.len(), 20);
        let shapers = setup.shapers.get().expect("somebody asked");
        assert_eq!(shapers.known.borrow().len(), 1);
    }

    #[test]
    fn selectors_are_held_against_the_workloads_of_their_namespace_alone() {
        let elsewhere = gateway(20).replace("namespace: edge", "namespace: other");
        let source = Rc::new(Source::new("gateway.yaml", gateway(10) + &elsewhere));
        let contents = plugins::in_source(&source).expect("it is YAML");
        let setup = Setup::new(&contents.resources);
        // Plugins and filters times pods.
        assert_eq!(setup.selections(), 20 * 10 + 40 * 20);
    }
}
