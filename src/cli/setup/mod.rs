//! The set-up around the plugins: every resource that decides whether, where and how well they work.

use std::ops::Range;
use std::rc::Rc;

use super::files::{Field, Located, Source};

/// A Kubernetes resource.
pub(super) struct Resource {
    pub(super) source: Rc<Source>,
    pub(super) kind: String,
    pub(super) document: Located,
    /// Whether it holds a plugin of ours.
    pub(super) is_ours: bool,
}

/// Kinds that are looked at. Others say nothing about a gateway.
const KINDS: &[&str] = &[
    // Plugins and what stands beside them.
    "WasmPlugin",
    "TrafficExtension",
    "EnvoyFilter",
    "EnvoyExtensionPolicy",
    "EnvoyPatchPolicy",
    "AuthorizationPolicy",
    "RequestAuthentication",
    "SecurityPolicy",
    // Gateways and routes.
    "Gateway",
    "GatewayClass",
    "VirtualService",
    "HTTPRoute",
    "GRPCRoute",
    "BackendTrafficPolicy",
    "ClientTrafficPolicy",
    "EnvoyProxy",
    // Workloads and the mesh.
    "Deployment",
    "DaemonSet",
    "StatefulSet",
    "Pod",
    "Service",
    "ProxyConfig",
    "IstioOperator",
    "Istio",
    "ConfigMap",
    "DestinationRule",
];

impl Resource {
    /// Takes a resource, unless its kind says nothing.
    pub(super) fn take(source: &Rc<Source>, document: &Located, kind: &str) -> Option<Self> {
        KINDS.contains(&kind).then(|| Self {
            source: Rc::clone(source),
            kind: kind.to_owned(),
            document: document.clone(),
            is_ours: false,
        })
    }

    pub(super) fn name(&self) -> &str {
        self.text(&["metadata", "name"]).unwrap_or_default()
    }

    /// The namespace, as kubectl without `-n` has it.
    pub(super) fn namespace(&self) -> &str {
        self.text(&["metadata", "namespace"]).unwrap_or("default")
    }

    /// `Kind namespace/name`, for people.
    pub(super) fn title(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace(), self.name())
    }

    pub(super) fn at(&self, path: &[&str]) -> Option<&Located> {
        self.document.at(path)
    }

    pub(super) fn text(&self, path: &[&str]) -> Option<&str> {
        self.at(path).and_then(Located::text)
    }

    pub(super) fn items(&self, path: &[&str]) -> &[Located] {
        self.at(path).map(Located::items).unwrap_or_default()
    }

    /// The place of the field at the end of a path, or of the last one before it that is there.
    pub(super) fn place(&self, path: &[&str]) -> Range<usize> {
        let mut place = self.document.start();
        let mut here = &self.document;
        for name in path {
            let Some(Field {
                name_span, value, ..
            }) = here.field(name)
            else {
                break;
            };
            place = name_span.clone();
            here = value;
        }
        place
    }
}
