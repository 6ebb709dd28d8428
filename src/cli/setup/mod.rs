//! The set-up around the plugins: the resources that decide whether, where and how well they work, and who applies to
//! whom by Istio's and Envoy Gateway's own rules.

mod manager;
mod patches;
mod reach;
mod resource;
mod surroundings;
mod workload;

pub(super) use manager::{Manager, Written, filter_state, has_proxy_protocol};
pub(super) use reach::{GATEWAY_LABEL, Reach, gateways};
pub(super) use resource::Resource;
pub(super) use surroundings::{Surroundings, client_traffic_policy};
use workload::Workload;

/// Everything that was given, with its workloads.
pub(super) struct Setup<'r> {
    pub(super) resources: &'r [Resource],
    /// Istio's root namespace, whose resources are for the whole mesh.
    root: String,
    workloads: Vec<Workload<'r>>,
}

impl<'r> Setup<'r> {
    pub(super) fn new(resources: &'r [Resource]) -> Self {
        let named = resources.iter().find_map(workload::root_namespace);
        Self {
            resources,
            root: named.unwrap_or_else(|| "istio-system".to_owned()),
            workloads: resources.iter().flat_map(workload::of).collect(),
        }
    }

    pub(super) fn of_kind(&self, kind: &str) -> impl Iterator<Item = &'r Resource> {
        self.resources
            .iter()
            .filter(move |resource| resource.kind == kind)
    }

    /// Whom a resource of Istio's is for.
    pub(super) fn reach<'a>(&'a self, resource: &'a Resource) -> Reach<'a> {
        Reach::of(resource, &self.root)
    }

    /// Whether two resources are for the same workload: one that is among the files, or any, by their selectors.
    pub(super) fn share_a_workload(&self, one: &Reach<'_>, other: &Reach<'_>) -> bool {
        one.overlaps(other)
            || self
                .workloads
                .iter()
                .any(|workload| workload.is_taken_by(one) && workload.is_taken_by(other))
    }
}
