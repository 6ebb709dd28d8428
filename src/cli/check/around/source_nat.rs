//! Services that put a node's address in the place of the load balancer's.

use super::Placed;
use crate::cli::files::Located;
use crate::cli::report::{Diagnostic, codes};
use crate::cli::setup::{GATEWAY_API_OWNER, Resource, Setup, gateways};

/// Services in front of plugins that have rules by address.
pub(super) fn findings(placed: &[Placed<'_>], setup: &Setup<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for service in setup
        .of_kind("Service")
        .filter(|service| hides_peers(service))
    {
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
    is_outside && text("externalTrafficPolicy") == Some("Cluster") && !sends_to_pods(service)
}

/// Whether an annotation says that the load balancer sends to the pods themselves.
fn sends_to_pods(service: &Resource) -> bool {
    let annotation = |name: &str| service.text(&["metadata", "annotations", name]);
    annotation("service.beta.kubernetes.io/aws-load-balancer-nlb-target-type") == Some("ip")
        || annotation("service.beta.kubernetes.io/aws-load-balancer-type") == Some("nlb-ip")
        || annotation("cloud.google.com/neg").is_some()
}

/// The Gateway of Envoy Gateway's whose Service this is, as `namespace/name`.
fn owner(service: &Resource) -> Option<String> {
    let label = |name: &str| {
        let path = ["metadata", "labels", &format!("{GATEWAY_API_OWNER}{name}")];
        service.text(&path).map(str::to_owned)
    };
    Some(format!("{}/{}", label("namespace")?, label("name")?))
}
