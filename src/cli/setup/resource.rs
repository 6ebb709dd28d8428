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
    "Ingress",
    "TargetGroupBinding",
    "ProxyConfig",
    "IstioOperator",
    "Istio",
    "ConfigMap",
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

    /// Whether this is a Gateway of Istio's own API, not of the Gateway API.
    pub(in crate::cli) fn is_istios_gateway(&self) -> bool {
        self.kind == "Gateway" && self.at(&["spec", "servers"]).is_some()
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::KINDS;
    use crate::cli::files::{Located, Source};

    const PAGE: &str = include_str!("../../../docs/check-a-cluster.md");

    /// Read from files only.
    const OF_FILES: &[&str] = &["Pod", "IstioOperator", "Istio"];

    /// What kubectl calls resources of a kind.
    fn plural(kind: &str) -> String {
        let lower = kind.to_lowercase();
        if let Some(stem) = lower.strip_suffix('y').filter(|stem| !stem.ends_with('a')) {
            return format!("{stem}ies");
        }
        if lower.ends_with("ss") {
            return format!("{lower}es");
        }
        format!("{lower}s")
    }

    /// The block of a language that has this in it.
    fn block(language: &str, with: &str) -> &'static str {
        PAGE.split(&format!("```{language}\n"))
            .skip(1)
            .filter_map(|rest| rest.split("```").next())
            .find(|block| block.contains(with))
            .unwrap_or_default()
    }

    #[test]
    fn the_document_and_its_role_name_the_kinds_that_are_read_and_no_others() {
        let needed: BTreeSet<String> = KINDS
            .iter()
            .filter(|kind| !OF_FILES.contains(kind))
            .map(|kind| plural(kind))
            .collect();
        let role = Source::new("role", block("yaml", "kind: ClusterRole"));
        let role = role.documents().unwrap_or_default();
        let rules = role.first().and_then(|role| role.get("rules"));
        let rules = rules.map(Located::items).unwrap_or_default();
        let allowed: BTreeSet<String> = rules
            .iter()
            .flat_map(|rule| {
                rule.get("resources")
                    .map(Located::items)
                    .unwrap_or_default()
            })
            .filter_map(|name| name.text().map(str::to_owned))
            .collect();
        assert_eq!(allowed, needed);
        for rule in rules {
            let verbs = rule.get("verbs").map(Located::items).unwrap_or_default();
            assert!(
                verbs
                    .iter()
                    .all(|verb| matches!(verb.text(), Some("get" | "list")))
            );
        }
        let command = block("sh", "for kind in");
        let words = command
            .split_whitespace()
            .filter_map(|word| word.split('.').next());
        let read: BTreeSet<String> = words
            .filter(|word| needed.contains(*word))
            .map(str::to_owned)
            .collect();
        assert_eq!(read, needed);
        // Each of the groups is in both.
        for rule in rules {
            for group in rule
                .get("apiGroups")
                .map(Located::items)
                .unwrap_or_default()
            {
                let group = group.text().unwrap_or_default();
                assert!(command.contains(group), "{group}");
            }
        }
        for kind in KINDS {
            assert!(PAGE.contains(kind), "{kind}");
        }
    }
}
