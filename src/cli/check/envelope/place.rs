//! Where a WasmPlugin or `TrafficExtension` takes effect: workloads, listeners, place among the filters, module.

use crate::cli::files::Located;
use crate::cli::report::{Code, Diagnostic, codes};
use crate::cli::setup::{Resource, Setup};
use crate::config::Severity;

pub(super) fn check(resource: &Resource, setup: &Setup<'_>, found: &mut Vec<Diagnostic>) {
    let spec = match resource.kind.as_str() {
        "WasmPlugin" | "TrafficExtension" => resource.at(&["spec"]),
        _ => None,
    };
    let Some(spec) = spec else { return };
    let mut rules = Rules { resource, found };
    rules.namespace();
    rules.mode(spec);
    rules.phase(spec);
    rules.module(spec);
    rules.selection(spec);
    rules.targets(spec, setup);
}

struct Rules<'r> {
    resource: &'r Resource,
    found: &'r mut Vec<Diagnostic>,
}

impl Rules<'_> {
    fn add(
        &mut self,
        severity: Severity,
        code: &'static Code,
        place: &[&str],
        message: String,
        help: &str,
    ) {
        let place = self.resource.place(place);
        let mut finding = Diagnostic::error(code, &self.resource.source, place, message, help);
        finding.severity = severity;
        self.found.push(finding);
    }

    fn warn(&mut self, code: &'static Code, place: &[&str], message: &str, help: &str) {
        self.add(Severity::Warning, code, place, message.to_owned(), help);
    }

    fn namespace(&mut self) {
        if self.resource.text(&["metadata", "namespace"]).is_none() {
            self.warn(
                &codes::NO_NAMESPACE,
                &["metadata", "name"],
                "there is no namespace here: the plugin goes to wherever kubectl points, and reaches the workloads of that \
                 namespace alone",
                "write metadata.namespace: the gateway's own",
            );
        }
    }

    /// To Istio a gateway's listeners are those of a client.
    fn mode(&mut self, spec: &Located) {
        let traffic = spec.get("match").map(Located::items).unwrap_or_default();
        let mode = |entry: &Located| entry.get("mode").and_then(Located::text).map(str::to_owned);
        if !traffic.is_empty()
            && traffic
                .iter()
                .all(|entry| mode(entry).as_deref() == Some("SERVER"))
        {
            self.warn(
                &codes::NEVER_ON_A_GATEWAY,
                &["spec", "match"],
                "mode SERVER never holds on a gateway, whose listeners are CLIENT to Istio: the plugin isn't loaded there",
                "write mode: CLIENT, or leave mode out",
            );
        }
    }

    fn phase(&mut self, spec: &Located) {
        let phase = spec.get("phase").and_then(Located::text);
        if matches!(phase, None | Some("UNSPECIFIED_PHASE")) {
            self.warn(
                &codes::BEHIND_AUTHORIZATION,
                &["spec", "phase"],
                "without a phase the plugin stands just before the router, behind authentication and authorization, which \
                 see the uncorrected scheme",
                "write phase: AUTHN",
            );
        }
    }

    /// A module that changes under the same name is loaded at any time, unseen.
    fn module(&mut self, spec: &Located) {
        let (at, wasm): (&[&str], Option<&Located>) = if self.resource.kind == "TrafficExtension" {
            (&["spec", "wasm", "url"], spec.get("wasm"))
        } else {
            (&["spec", "url"], Some(spec))
        };
        let text = |name: &str| wasm.and_then(|wasm| wasm.get(name)).and_then(Located::text);
        let Some(url) = text("url") else { return };
        let is_image = url.starts_with("oci://") || !url.contains("://");
        let last = url.rsplit('/').next().unwrap_or(url);
        let has_digest = url.contains("@sha256:") || text("sha256").is_some();
        if is_image && !has_digest && (!last.contains(':') || last.ends_with(":latest")) {
            self.warn(
                &codes::MODULE_CAN_CHANGE,
                at,
                "this tag names another module after every push, and each gateway loads it when it happens to start",
                "name a version, or write sha256: the digest of the image's manifest",
            );
        }
    }

    fn selection(&mut self, spec: &Located) {
        let labels = spec
            .at(&["selector", "matchLabels"])
            .is_some_and(|labels| labels.fields().next().is_some());
        let wrong_field = spec
            .get("selector")
            .is_some_and(|selector| !labels && selector.fields().next().is_some());
        if !labels
            && !wrong_field
            && spec.get("targetRefs").is_none()
            && spec.get("targetRef").is_none()
        {
            self.warn(
                &codes::EVERY_WORKLOAD,
                &["spec"],
                "without selector and targetRefs the plugin is loaded into every proxy of the namespace, of the whole mesh \
                 if that is Istio's own",
                "write selector: {matchLabels: …} with a label of the gateway's pods",
            );
        }
    }

    /// What `targetRefs` point to.
    fn targets(&mut self, spec: &Located, setup: &Setup<'_>) {
        let list = spec
            .get("targetRefs")
            .map(Located::items)
            .unwrap_or_default();
        for target in list.iter().chain(spec.get("targetRef")) {
            let text = |name: &str| target.get(name).and_then(Located::text);
            let kind = text("kind").unwrap_or_default();
            let name = text("name").unwrap_or_default();
            if kind.is_empty() || name.is_empty() {
                continue; // The schema says so.
            }
            if !matches!(
                kind,
                "Gateway" | "GatewayClass" | "Service" | "ServiceEntry"
            ) {
                self.add(
                    Severity::Error,
                    &codes::TARGET_NEVER_HOLDS,
                    &["spec", "targetRefs"],
                    format!("a {kind} is nothing that a plugin can be attached to, so it is never loaded"),
                    "write kind: Gateway with group: gateway.networking.k8s.io, or a selector in place of targetRefs",
                );
                continue;
            }
            let group = text("group").unwrap_or_default();
            if kind == "Gateway" && group != "gateway.networking.k8s.io" {
                self.add(
                    Severity::Error,
                    &codes::TARGET_NEVER_HOLDS,
                    &["spec", "targetRefs"],
                    format!("a Gateway of the group {group:?} is nothing that targetRefs can point to"),
                    "write group: gateway.networking.k8s.io; for Istio's own Gateway write a selector",
                );
                continue;
            }
            if kind == "Gateway" {
                self.gateway(name, setup);
            }
        }
    }

    fn gateway(&mut self, name: &str, setup: &Setup<'_>) {
        let namespace = self.resource.namespace().to_owned();
        let gateways = || {
            setup.named("Gateway", name).filter(|other| {
                other
                    .text(&["apiVersion"])
                    .is_some_and(|version| version.starts_with("gateway.networking.k8s.io/"))
            })
        };
        let Some(gateway) = gateways().find(|gateway| gateway.namespace() == namespace) else {
            if let Some(elsewhere) = gateways().next() {
                self.add(
                    Severity::Error,
                    &codes::TARGET_NEVER_HOLDS,
                    &["spec", "targetRefs"],
                    format!(
                        "the Gateway {name} is in the namespace {}, and targetRefs reach only their own namespace, {namespace}",
                        elsewhere.namespace()
                    ),
                    "put the plugin into the Gateway's namespace",
                );
            }
            return;
        };
        // Istio finds the pods of a target by this label, which it gives to those that it deploys itself.
        let label = "gateway.networking.k8s.io/gateway-name";
        let is_labelled = |resource: &Resource| {
            [
                &["metadata", "labels"][..],
                &["spec", "template", "metadata", "labels"],
            ]
            .iter()
            .any(|path| {
                let labels = resource.at(path);
                labels
                    .and_then(|labels| labels.get(label))
                    .and_then(Located::text)
                    == Some(name)
            })
        };
        let is_manual = !gateway.items(&["spec", "addresses"]).is_empty();
        if is_manual
            && !["Deployment", "DaemonSet", "Pod"]
                .iter()
                .flat_map(|kind| setup.of_kind(kind))
                .any(|other| other.namespace() == namespace && is_labelled(other))
        {
            self.add(
                Severity::Error,
                &codes::TARGET_NEVER_HOLDS,
                &["spec", "targetRefs"],
                format!(
                    "{} has spec.addresses: Istio doesn't deploy it, so that its pods lack the label by which targetRefs \
                     finds them, and nothing is loaded",
                    gateway.title()
                ),
                "write a selector with a label of the gateway's pods in place of targetRefs",
            );
        }
    }
}
