//! The pods of gateways, and what they and the mesh say of their connection managers.

use std::cell::OnceCell;
use std::rc::Rc;

use super::ports::Served;
use super::reach::{GATEWAY_LABEL, labels};
use super::{Manager, Resource};
use crate::cli::files::{Located, Source};

/// Pods with the same labels.
pub(super) struct Workload<'r> {
    pub(super) namespace: &'r str,
    pub(super) labels: Vec<(&'r str, &'r str)>,
    /// `gatewayTopology` of their annotation `proxy.istio.io/config`.
    topology: Option<Located>,
    /// Names of the containers' ports.
    ports: Vec<(&'r str, u16)>,
    /// What its Services tell, once somebody asks.
    pub(super) served: OnceCell<Option<Served>>,
}

/// The annotation with a proxy's own configuration.
const ANNOTATION: &str = "proxy.istio.io/config";

/// The workloads of a resource.
pub(super) fn of(resource: &Resource) -> Vec<Workload<'_>> {
    let pods = |path: &[&str], spec: &[&str]| {
        let metadata = resource.at(path);
        Workload {
            namespace: resource.namespace(),
            labels: labels(metadata.and_then(|metadata| metadata.get("labels"))),
            topology: topology_of(resource, metadata.and_then(|at| at.get("annotations"))),
            ports: ports(resource.at(spec)),
            served: OnceCell::new(),
        }
    };
    match resource.kind.as_str() {
        "Deployment" | "DaemonSet" | "StatefulSet" => vec![pods(
            &["spec", "template", "metadata"],
            &["spec", "template", "spec"],
        )],
        "Pod" => vec![pods(&["metadata"], &["spec"])],
        "Gateway" => of_gateway(resource).into_iter().collect(),
        "IstioOperator" => resource
            .items(&["spec", "components", "ingressGateways"])
            .iter()
            .map(|gateway| of_operator(resource, gateway))
            .collect(),
        _ => Vec::new(),
    }
}

/// The pods that Istio deploys for a Gateway of the Gateway API.
fn of_gateway(gateway: &Resource) -> Option<Workload<'_>> {
    let is_istios = gateway
        .text(&["spec", "gatewayClassName"])
        .is_some_and(|class| class.starts_with("istio"));
    if !is_istios || !gateway.items(&["spec", "addresses"]).is_empty() {
        return None;
    }
    let own = gateway
        .at(&["spec", "infrastructure"])
        .or_else(|| gateway.at(&["metadata"]));
    let mut all = labels(own.and_then(|own| own.get("labels")));
    all.push((GATEWAY_LABEL, gateway.name()));
    Some(Workload {
        namespace: gateway.namespace(),
        labels: all,
        topology: topology_of(gateway, own.and_then(|own| own.get("annotations"))),
        ports: Vec::new(),
        served: OnceCell::new(),
    })
}

/// A gateway that istioctl or the operator installs.
fn of_operator<'r>(resource: &'r Resource, gateway: &'r Located) -> Workload<'r> {
    let mut all = labels(gateway.get("label"));
    for label in [("app", "istio-ingressgateway"), ("istio", "ingressgateway")] {
        if !all.iter().any(|(name, _)| *name == label.0) {
            all.push(label);
        }
    }
    let namespace = gateway.get("namespace").and_then(Located::text);
    Workload {
        namespace: namespace.unwrap_or("istio-system"),
        labels: all,
        topology: topology_of(resource, gateway.at(&["k8s", "podAnnotations"])),
        ports: Vec::new(),
        served: OnceCell::new(),
    }
}

fn topology_of(resource: &Resource, annotations: Option<&Located>) -> Option<Located> {
    let text = annotations?.get(ANNOTATION)?;
    within(&resource.source, text, "gatewayTopology")
}

/// A field of the document in a text.
fn within(source: &Rc<Source>, text: &Located, field: &str) -> Option<Located> {
    let documents = source.documents_within(text).ok()?;
    documents.first()?.get(field).cloned()
}

fn ports(spec: Option<&Located>) -> Vec<(&str, u16)> {
    let containers = spec.and_then(|spec| spec.get("containers"));
    containers
        .map(Located::items)
        .unwrap_or_default()
        .iter()
        .flat_map(|container| {
            container
                .get("ports")
                .map(Located::items)
                .unwrap_or_default()
        })
        .filter_map(|port| {
            Some((
                port.get("name")?.text()?,
                as_port(port.get("containerPort")?)?,
            ))
        })
        .collect()
}

/// A port's number.
pub(super) fn as_port(located: &Located) -> Option<u16> {
    located.number()?.to_string().parse().ok()
}

impl Workload<'_> {
    /// Whether the pods' annotation says anything.
    pub(super) fn is_annotated(&self) -> bool {
        self.topology.is_some()
    }

    /// Sets what the pods' annotation says.
    pub(super) fn annotate(&self, manager: &mut Manager) {
        if let Some(topology) = &self.topology {
            apply(topology, manager);
        }
    }

    /// Whether a Service sends requests to these pods.
    pub(super) fn is_behind(&self, service: &Resource) -> bool {
        if service.namespace() != self.namespace {
            return false;
        }
        let selector = labels(service.at(&["spec", "selector"]));
        !selector.is_empty() && selector.iter().all(|label| self.labels.contains(label))
    }

    /// The container's port of that name.
    pub(super) fn port(&self, name: &str) -> Option<u16> {
        let mut ports = self.ports.iter();
        ports
            .find(|(known, _)| *known == name)
            .map(|(_, port)| *port)
    }
}

/// Sets what a `gatewayTopology` says.
pub(super) fn apply(topology: &Located, manager: &mut Manager) {
    manager.proxy_protocol |= topology.get("proxyProtocol").is_some();
    let hops = topology
        .get("numTrustedProxies")
        .and_then(Located::proto_number);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // Saturates; hops are few.
    if let Some(hops) = hops {
        manager.xff_num_trusted_hops = hops as u32;
    }
}

/// The field of a mesh configuration in a resource that carries one.
fn of_mesh(resource: &Resource, path: &[&str]) -> Option<Located> {
    match resource.kind.as_str() {
        "IstioOperator" => resource.at(&["spec", "meshConfig"])?.at(path).cloned(),
        "Istio" => resource
            .at(&["spec", "values", "meshConfig"])?
            .at(path)
            .cloned(),
        "ConfigMap" if resource.name() == "istio" || resource.name().starts_with("istio-") => {
            let text = resource.at(&["data", "mesh"])?;
            let documents = resource.source.documents_within(text).ok()?;
            documents.first()?.at(path).cloned()
        }
        _ => None,
    }
}

/// The `gatewayTopology` of a mesh configuration.
pub(super) fn of_all(resource: &Resource) -> Option<Located> {
    of_mesh(resource, &["defaultConfig", "gatewayTopology"])
}

/// Istio's root namespace, if a mesh configuration names it.
pub(super) fn root_namespace(resource: &Resource) -> Option<String> {
    of_mesh(resource, &["rootNamespace"])?
        .text()
        .map(str::to_owned)
}
