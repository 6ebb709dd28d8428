//! The gateway's Pod and Service as objects of the API server. Nothing runs them: istiod looks them up for Gateways of the
//! Gateway API and for HTTP/3, which it offers if a Service has a UDP port.

use serde_json::{Value, json};

use crate::gateway::{LABELS, POD};
use crate::lab::Lab;
use crate::manifest::NAMESPACE;

const NAME: &str = "gateway-1";

/// The gateway's Pod, with the gateway's labels.
#[must_use]
pub fn pod() -> Value {
    let labels: serde_json::Map<String, Value> = LABELS
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
        "spec": {"containers": [{"name": "istio-proxy", "image": "proxy"}], "nodeName": "node"},
    })
}

/// A Service in front of that Pod.
#[must_use]
pub fn service(name: &str, ports: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"istio": "ingressgateway"}, "ports": ports},
    })
}

/// Says that the Pod runs at the gateway's address, which a kubelet would say. The Pod has to be applied before.
///
/// # Panics
/// If the API server refuses it.
pub fn set_running(lab: &Lab) {
    let status = json!({"status": {
        "phase": "Running", "podIP": POD, "podIPs": [{"ip": POD}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    lab.cluster.run(&[
        "patch",
        "pod",
        NAME,
        "-n",
        NAMESPACE,
        "--subresource=status",
        "--type=merge",
        "-p",
        &status.to_string(),
    ]);
}
