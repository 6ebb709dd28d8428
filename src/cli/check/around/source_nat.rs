//! Services that put a node's address in the place of the load balancer's.

use std::collections::HashSet;

use super::Placed;
use crate::cli::files::Located;
use crate::cli::report::{Diagnostic, codes};
use crate::cli::setup::{GATEWAY_API_OWNER, Resource, Setup, gateways};

/// Services in front of plugins that have rules by address.
pub(super) fn findings(placed: &[Placed<'_>], setup: &Setup<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let to_pods = Targets::new(setup);
    let hides = |service: &&Resource| hides_peers(service) && !to_pods.has(service);
    for service in setup.of_kind("Service").filter(hides) {
        let reach = setup.reach(service);
        let plugin = placed.iter().find(|plugin| match owner(service) {
            Some(gateway) => gateways(plugin.holder, "targetRefs").contains(&gateway),
            None => {
                plugin.holder.kind != "EnvoyExtensionPolicy"
                    && setup.share_a_workload(&reach, &plugin.reach)
            }
        });
        if let Some(Placed { holder, .. }) = plugin {
            found.push(said(
                service,
                &["spec", "externalTrafficPolicy"],
                &service.title(),
                holder,
            ));
        }
    }
    for proxy in setup.of_kind("EnvoyProxy") {
        let path = [
            "spec",
            "provider",
            "kubernetes",
            "envoyService",
            "externalTrafficPolicy",
        ];
        let mut plugins = placed.iter().map(|plugin| plugin.holder);
        if proxy.text(&path) == Some("Cluster")
            && let Some(holder) = plugins.find(|holder| holder.kind == "EnvoyExtensionPolicy")
        {
            let service = format!("the Service of {}", proxy.title());
            found.push(said(proxy, &path, &service, holder));
        }
    }
    found
}

fn said(resource: &Resource, path: &[&str], service: &str, holder: &Resource) -> Diagnostic {
    Diagnostic::warning(
        &codes::SOURCE_NAT,
        &resource.source,
        resource.at(path).map_or(0..0, Located::start),
        format!(
            "through node ports {service} shows a node's address in place of the load balancer's: ipBlocks of {} don't hold for \
             it, or hold for everybody",
            holder.title()
        ),
        "write externalTrafficPolicy: Local, or let the load balancer send to the pods themselves; docs/source-nat.md has what else works",
    )
}

/// Whether connections come through node ports, from a node's address. Only if the Service says so itself: kubectl prints
/// the default.
fn hides_peers(service: &Resource) -> bool {
    let text = |name: &str| service.text(&["spec", name]);
    let is_outside = matches!(text("type"), Some("LoadBalancer" | "NodePort"));
    is_outside && text("externalTrafficPolicy") == Some("Cluster")
}

/// The Services whose load balancer sends to the pods themselves, as an Ingress or a `TargetGroupBinding` of AWS's
/// controller says, by namespace and name.
struct Targets<'r>(HashSet<(&'r str, &'r str)>);

impl<'r> Targets<'r> {
    fn new(setup: &Setup<'r>) -> Self {
        let mut all = HashSet::new();
        let of_type = [
            "metadata",
            "annotations",
            "alb.ingress.kubernetes.io/target-type",
        ];
        let is_ip = |ingress: &&Resource| ingress.text(&of_type) == Some("ip");
        for ingress in setup.of_kind("Ingress").filter(is_ip) {
            let rules = ingress.items(&["spec", "rules"]).iter();
            let paths = rules.filter_map(|rule| rule.at(&["http", "paths"]));
            let backends = paths
                .flat_map(Located::items)
                .filter_map(|path| path.get("backend"))
                .chain(ingress.at(&["spec", "defaultBackend"]));
            let names = backends.filter_map(|backend| backend.at(&["service", "name"])?.text());
            all.extend(names.map(|name| (ingress.namespace(), name)));
        }
        let is_ip = |binding: &&Resource| binding.text(&["spec", "targetType"]) == Some("ip");
        for binding in setup.of_kind("TargetGroupBinding").filter(is_ip) {
            let name = binding.text(&["spec", "serviceRef", "name"]);
            all.extend(name.map(|name| (binding.namespace(), name)));
        }
        Self(all)
    }

    fn has(&self, service: &Resource) -> bool {
        let annotation = |name: &str| service.text(&["metadata", "annotations", name]);
        self.0.contains(&(service.namespace(), service.name()))
            || annotation("service.beta.kubernetes.io/aws-load-balancer-nlb-target-type")
                == Some("ip")
            || annotation("service.beta.kubernetes.io/aws-load-balancer-type") == Some("nlb-ip")
            || annotation("cloud.google.com/neg").is_some()
    }
}

/// The Gateway of Envoy Gateway's whose Service this is, as `namespace/name`.
fn owner(service: &Resource) -> Option<String> {
    let label = |name: &str| {
        let path = ["metadata", "labels", &format!("{GATEWAY_API_OWNER}{name}")];
        service.text(&path).map(str::to_owned)
    };
    Some(format!("{}/{}", label("namespace")?, label("name")?))
}
