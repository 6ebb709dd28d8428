//! A Kubernetes resource, as the set-up is made of them.

use std::ops::Range;
use std::rc::Rc;

use crate::cli::files::{Field, Located, Source};

/// A Kubernetes resource.
pub(in crate::cli) struct Resource {
    pub(in crate::cli) source: Rc<Source>,
    pub(in crate::cli) kind: String,
    pub(in crate::cli) document: Located,
    /// Whether it holds a plugin of ours.
    pub(in crate::cli) is_ours: bool,
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
    pub(in crate::cli) fn take(
        source: &Rc<Source>,
        document: &Located,
        kind: &str,
    ) -> Option<Self> {
        KINDS.contains(&kind).then(|| Self {
            source: Rc::clone(source),
            kind: kind.to_owned(),
            document: document.clone(),
            is_ours: false,
        })
    }

    pub(in crate::cli) fn name(&self) -> &str {
        self.text(&["metadata", "name"]).unwrap_or_default()
    }

    /// The namespace, as kubectl without `-n` has it.
    pub(in crate::cli) fn namespace(&self) -> &str {
        self.text(&["metadata", "namespace"]).unwrap_or("default")
    }

    /// `Kind namespace/name`, for people.
    pub(in crate::cli) fn title(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace(), self.name())
    }

    pub(in crate::cli) fn at(&self, path: &[&str]) -> Option<&Located> {
        self.document.at(path)
    }

    pub(in crate::cli) fn text(&self, path: &[&str]) -> Option<&str> {
        self.at(path).and_then(Located::text)
    }

    pub(in crate::cli) fn items(&self, path: &[&str]) -> &[Located] {
        self.at(path).map(Located::items).unwrap_or_default()
    }

    /// The place of the field at the end of a path, or of the last one before it that is there.
    pub(in crate::cli) fn place(&self, path: &[&str]) -> Range<usize> {
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
