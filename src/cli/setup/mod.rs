//! The set-up around the plugins: the resources that decide whether, where and how well they work, and who applies to
//! whom by Istio's and Envoy Gateway's own rules.

mod manager;
mod patches;
mod ports;
mod reach;
mod resource;
mod route_headers;
mod set;
mod surroundings;
mod workload;

use std::cell::OnceCell;
use std::collections::HashMap;

pub(super) use manager::{Manager, Written, filter_state, has_proxy_protocol};
pub(super) use reach::{GATEWAY_API_OWNER, GATEWAY_LABEL, Reach, gateways};
pub(super) use resource::Resource;
pub(super) use route_headers::{added, changed, is_itself, is_scheme, named};
use set::Set;
use surroundings::Shapers;
pub(super) use surroundings::Surroundings;
use workload::Workload;

/// Everything that was given, with its workloads. What many plugins ask for is found out once.
pub(super) struct Setup<'r> {
    pub(super) resources: &'r [Resource],
    kinds: HashMap<&'r str, Vec<&'r Resource>>,
    names: HashMap<(&'r str, &'r str), Vec<&'r Resource>>,
    /// Istio's root namespace, whose resources are for the whole mesh.
    root: String,
    workloads: Vec<Workload<'r>>,
    /// Which of the workloads are in a namespace.
    of_namespace: HashMap<&'r str, Vec<usize>>,
    shapers: OnceCell<Shapers<'r>>,
    server_ports: OnceCell<Vec<u16>>,
}

impl<'r> Setup<'r> {
    pub(super) fn new(resources: &'r [Resource]) -> Self {
        let mut kinds: HashMap<&str, Vec<&Resource>> = HashMap::new();
        let mut names: HashMap<(&str, &str), Vec<&Resource>> = HashMap::new();
        for resource in resources {
            let kind = resource.kind.as_str();
            kinds.entry(kind).or_default().push(resource);
            names
                .entry((kind, resource.name()))
                .or_default()
                .push(resource);
        }
        let root = resources.iter().find_map(workload::root_namespace);
        let workloads: Vec<Workload<'_>> = resources.iter().flat_map(workload::of).collect();
        let mut of_namespace: HashMap<&str, Vec<usize>> = HashMap::new();
        for (place, workload) in workloads.iter().enumerate() {
            of_namespace
                .entry(workload.namespace)
                .or_default()
                .push(place);
        }
        Self {
            resources,
            kinds,
            names,
            root: root.unwrap_or_else(|| "istio-system".to_owned()),
            workloads,
            of_namespace,
            shapers: OnceCell::new(),
            server_ports: OnceCell::new(),
        }
    }

    /// The resources of a kind, in the order in which they were given.
    pub(super) fn of_kind(&self, kind: &str) -> impl Iterator<Item = &'r Resource> + use<'r, '_> {
        self.kinds.get(kind).into_iter().flatten().copied()
    }

    /// The resources of a kind that have a name, in any namespace.
    pub(super) fn named<'a>(
        &'a self,
        kind: &'a str,
        name: &'a str,
    ) -> impl Iterator<Item = &'r Resource> + use<'r, 'a> {
        self.names.get(&(kind, name)).into_iter().flatten().copied()
    }

    /// Whom a resource of Istio's is for.
    pub(super) fn reach<'a>(&self, resource: &'a Resource) -> Reach<'a> {
        let mut reach = Reach::of(resource, &self.root);
        let mut taken = Set::default();
        for namespace in reach.namespaces() {
            match namespace {
                Some(namespace) => {
                    for place in self.of_namespace.get(namespace).into_iter().flatten() {
                        self.take(*place, &reach, &mut taken);
                    }
                }
                None => {
                    for place in 0..self.workloads.len() {
                        self.take(place, &reach, &mut taken);
                    }
                }
            }
        }
        reach.workloads = taken;
        reach
    }

    fn take(&self, place: usize, reach: &Reach<'_>, taken: &mut Set) {
        if let Some(workload) = self.workloads.get(place)
            && reach.takes(workload.namespace, &workload.labels)
        {
            taken.insert(place);
        }
    }

    /// The workloads that a resource is for.
    fn workloads_of<'a>(
        &'a self,
        reach: &'a Reach<'_>,
    ) -> impl Iterator<Item = (usize, &'a Workload<'r>)> {
        let places = reach.workloads.places();
        places.filter_map(|place| Some((place, self.workloads.get(place)?)))
    }

    /// Whether two resources are for the same workload: one that is among the files, or any, by their selectors.
    #[allow(clippy::unused_self)] // The reaches are of this set-up.
    pub(super) fn share_a_workload(&self, one: &Reach<'_>, other: &Reach<'_>) -> bool {
        one.overlaps(other) || one.workloads.meets(&other.workloads)
    }

    /// How often a selector is held against a workload, at most, to know whom everything of Istio's is for.
    pub(super) fn selections(&self) -> usize {
        let kinds = [
            "WasmPlugin",
            "TrafficExtension",
            "EnvoyFilter",
            "ProxyConfig",
            "AuthorizationPolicy",
            "Service",
        ];
        let of_all = kinds.iter().flat_map(|kind| self.of_kind(kind));
        let gateways = self
            .of_kind("Gateway")
            .filter(|one| one.is_istios_gateway());
        of_all
            .chain(gateways)
            .map(|resource| {
                let reach = Reach::of(resource, &self.root);
                let of_namespace = |namespace| match namespace {
                    Some(namespace) => self.of_namespace.get(namespace).map_or(0, Vec::len),
                    None => self.workloads.len(),
                };
                reach.namespaces().map(of_namespace).sum::<usize>()
            })
            .fold(0, usize::saturating_add)
    }
}
