//! Whom a resource is for.

use std::collections::BTreeSet;

use super::Resource;
use super::set::Set;
use crate::cli::files::Located;

/// Istio and other controllers give this label to the pods of a Gateway that they deploy.
pub(in crate::cli) const GATEWAY_LABEL: &str = "gateway.networking.k8s.io/gateway-name";

/// Envoy Gateway gives these labels, with `namespace` or `name` behind them, to what it makes for a Gateway.
pub(in crate::cli) const GATEWAY_API_OWNER: &str = "gateway.envoyproxy.io/owning-gateway-";

/// The Gateways that a resource points to, as `namespace/name`.
pub(in crate::cli) fn gateways(resource: &Resource, field: &str) -> Vec<String> {
    let one = resource.at(&["spec", "targetRef"]);
    resource
        .items(&["spec", field])
        .iter()
        .chain(one)
        .filter_map(|target| {
            let text = |name: &str| target.get(name).and_then(Located::text);
            let namespace = text("namespace").unwrap_or_else(|| resource.namespace());
            matches!(text("kind"), None | Some("Gateway"))
                .then_some(format!("{namespace}/{}", text("name")?))
        })
        .collect()
}

/// The workloads that a resource of Istio's is for.
#[derive(Debug, Default)]
pub(in crate::cli) struct Reach<'r> {
    scopes: Vec<Scope<'r>>,
    /// Which of the set-up's workloads these are.
    pub(super) workloads: Set,
}

/// Workloads with these labels.
#[derive(Debug)]
struct Scope<'r> {
    /// `None` is the whole mesh.
    namespace: Option<&'r str>,
    labels: Vec<(&'r str, &'r str)>,
}

/// The fields of an object of texts.
pub(super) fn labels(object: Option<&Located>) -> Vec<(&str, &str)> {
    object
        .into_iter()
        .flat_map(Located::fields)
        .filter_map(|field| Some((field.name.as_str(), field.value.text()?)))
        .collect()
}

impl<'r> Reach<'r> {
    pub(super) fn of(resource: &'r Resource, root: &str) -> Self {
        let own = resource.namespace();
        let target = resource.at(&["spec", "targetRef"]);
        let targets = resource.items(&["spec", "targetRefs"]);
        if target.is_some() || !targets.is_empty() {
            let gateway = |target: &'r Located| {
                let is_gateway = target.get("kind").and_then(Located::text) == Some("Gateway");
                let name = target.get("name").and_then(Located::text)?;
                is_gateway.then_some(Scope {
                    namespace: Some(own),
                    labels: vec![(GATEWAY_LABEL, name)],
                })
            };
            return Self {
                scopes: targets.iter().chain(target).filter_map(gateway).collect(),
                workloads: Set::default(),
            };
        }
        // The selector of a Gateway of Istio's is for pods of any namespace.
        let is_gateway = resource.is_istios_gateway();
        if is_gateway || resource.kind == "Service" {
            let selector = resource.at(&["spec", "selector"]);
            let scope = selector.map(|selector| Scope {
                namespace: (!is_gateway).then_some(own),
                labels: labels(Some(selector)),
            });
            return Self {
                scopes: scope.into_iter().collect(),
                workloads: Set::default(),
            };
        }
        let selector = resource
            .at(&["spec", "selector", "matchLabels"])
            .or_else(|| resource.at(&["spec", "workloadSelector", "labels"]));
        Self {
            scopes: vec![Scope {
                namespace: (own != root).then_some(own),
                labels: labels(selector),
            }],
            workloads: Set::default(),
        }
    }

    pub(in crate::cli) fn takes(&self, namespace: &str, labels: &[(&str, &str)]) -> bool {
        self.scopes.iter().any(|scope| {
            scope.namespace.is_none_or(|own| own == namespace)
                && scope.labels.iter().all(|label| labels.contains(label))
        })
    }

    /// The namespaces of the workloads, `None` for all.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = Option<&'r str>> {
        let namespaces: BTreeSet<Option<&str>> =
            self.scopes.iter().map(|scope| scope.namespace).collect();
        namespaces.into_iter()
    }

    /// Whether every workload of one is a workload of the other.
    pub(super) fn overlaps(&self, other: &Reach<'_>) -> bool {
        self.scopes.iter().any(|one| {
            other.scopes.iter().any(|other| {
                let same_namespace = match (one.namespace, other.namespace) {
                    (Some(one), Some(other)) => one == other,
                    _ => true,
                };
                let within = |inner: &Scope<'_>, outer: &Scope<'_>| {
                    outer
                        .labels
                        .iter()
                        .all(|label| inner.labels.contains(label))
                };
                same_namespace && (within(one, other) || within(other, one))
            })
        })
    }
}
