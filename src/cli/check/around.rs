//! What stands around a plugin and decides whether it protects: redirects, the pods' and the mesh's settings, Envoy
//! Gateway's policies, other plugins of ours.

use std::collections::HashMap;
use std::rc::Rc;

use crate::cli::files::Located;
use crate::cli::plugins::{Form, Manager, Plugin};
use crate::cli::report::{Diagnostic, codes};
use crate::cli::setup::Resource;
use crate::config::{Config, Path, Severity};

/// The Gateways that a resource points to, as `namespace/name`.
fn gateways(resource: &Resource, field: &str) -> Vec<String> {
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

/// The labels that a plugin's selector asks for, in order.
fn selector(resource: &Resource) -> Vec<(&str, &str)> {
    let labels = resource.at(&["spec", "selector", "matchLabels"]);
    let mut labels: Vec<(&str, &str)> = labels
        .into_iter()
        .flat_map(Located::fields)
        .filter_map(|field| Some((field.name.as_str(), field.value.text()?)))
        .collect();
    labels.sort_unstable();
    labels
}

/// Routes that answer every request with a redirect to https, in front of which the load balancer has ended TLS.
pub(super) fn redirects(plugins: &[(&Config, &Resource)], all: &[Resource]) -> Vec<Diagnostic> {
    let reached: Vec<Vec<String>> = plugins
        .iter()
        .filter(|(config, _)| !config.trusted_load_balancers.is_empty())
        .map(|(_, holder)| gateways(holder, "targetRefs"))
        .collect();
    let mut found = Vec::new();
    if reached.is_empty() {
        return found;
    }
    // A plugin without targetRefs may be that of any gateway.
    let is_ours = |route: &[String]| {
        reached.iter().any(|targets| {
            targets.is_empty() || targets.iter().any(|target| route.contains(target))
        })
    };
    for route in all.iter().filter(|resource| resource.kind == "HTTPRoute") {
        if !is_ours(&gateways(route, "parentRefs")) || ends_tls_elsewhere(route, all) {
            continue;
        }
        for rule in route.items(&["spec", "rules"]) {
            let Some(filter) = loops(rule) else { continue };
            found.push(Diagnostic::error(
                &codes::REDIRECT_LOOPS,
                &route.source,
                filter.start(),
                format!(
                    "{} answers every request with a redirect to https, which comes back through the load balancer as the \
                     same request: it loops, whatever the filter writes",
                    route.title()
                ),
                "redirect what came as http alone: matches: [{headers: [{name: x-forwarded-proto, value: http}]}], and give \
                 other requests a rule with backendRefs",
            ));
        }
    }
    found
}

/// The filter of a rule that redirects to the same host's https, without asking how the request came.
fn loops(rule: &Located) -> Option<&Located> {
    let matches = rule.get("matches").map(Located::items).unwrap_or_default();
    let asks = |entry: &Located| {
        let headers = entry.get("headers").map(Located::items).unwrap_or_default();
        headers.iter().any(|header| {
            let name = header.get("name").and_then(Located::text);
            name.is_some_and(|name| name.eq_ignore_ascii_case("x-forwarded-proto"))
        })
    };
    if !matches.is_empty() && matches.iter().all(asks) {
        return None;
    }
    let filters = rule.get("filters").map(Located::items).unwrap_or_default();
    filters.iter().find(|filter| {
        let redirect = filter.get("requestRedirect");
        let text = |name: &str| redirect.and_then(|redirect| redirect.get(name)?.text());
        text("scheme") == Some("https") && text("hostname").is_none()
    })
}

/// Whether a route is only for a Gateway's plain listener, beside which the same Gateway ends TLS itself.
fn ends_tls_elsewhere(route: &Resource, all: &[Resource]) -> bool {
    let parents = route.items(&["spec", "parentRefs"]);
    !parents.is_empty()
        && parents.iter().all(|parent| {
            let text = |name: &str| parent.get(name).and_then(Located::text);
            let namespace = text("namespace").unwrap_or_else(|| route.namespace());
            text("sectionName").is_some()
                && all.iter().any(|gateway| {
                    gateway.kind == "Gateway"
                        && Some(gateway.name()) == text("name")
                        && gateway.namespace() == namespace
                        && gateway
                            .items(&["spec", "listeners"])
                            .iter()
                            .any(|listener| {
                                listener.get("protocol").and_then(Located::text) == Some("HTTPS")
                            })
                })
        })
}

/// The connection manager that a plugin runs in, as pods, mesh and policies set it. `None` if none of them says anything.
pub(super) fn manager(plugin: &Plugin, holder: &Resource, all: &[Resource]) -> Option<Manager> {
    if plugin.form == Form::EnvoyExtensionPolicy {
        return client_traffic_policy(holder, all).map(|(_, manager)| manager);
    }
    let labels = selector(holder);
    let mut manager: Option<Manager> = None;
    for resource in all {
        let topologies = match resource.kind.as_str() {
            "IstioOperator" => at(resource, &["spec", "meshConfig", "defaultConfig"]),
            "Istio" => at(resource, &["spec", "values", "meshConfig", "defaultConfig"]),
            "ConfigMap" if resource.name().starts_with("istio") => {
                within(resource, resource.at(&["data", "mesh"]), &["defaultConfig"])
            }
            "Deployment" | "DaemonSet" | "StatefulSet" => {
                pods(resource, &["spec", "template", "metadata"], holder, &labels)
            }
            "Pod" => pods(resource, &["metadata"], holder, &labels),
            _ => Vec::new(),
        };
        for topology in topologies {
            let manager = manager.get_or_insert(Manager::USUAL);
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
    }
    manager
}

fn at(resource: &Resource, path: &[&str]) -> Vec<Located> {
    let topology = resource
        .at(path)
        .and_then(|config| config.get("gatewayTopology"));
    topology.cloned().into_iter().collect()
}

/// The topology in a text.
fn within(resource: &Resource, text: Option<&Located>, path: &[&str]) -> Vec<Located> {
    let documents = text.and_then(|text| resource.source.documents_within(text).ok());
    documents
        .unwrap_or_default()
        .iter()
        .filter_map(|document| document.at(path)?.get("gatewayTopology").cloned())
        .collect()
}

/// The topology that pods are annotated with, if a plugin's selector takes them.
fn pods(
    resource: &Resource,
    metadata: &[&str],
    holder: &Resource,
    labels: &[(&str, &str)],
) -> Vec<Located> {
    let Some(metadata) = resource.at(metadata) else {
        return Vec::new();
    };
    let has = |(name, value): &(&str, &str)| {
        let label = metadata.at(&["labels", name]);
        label.and_then(Located::text) == Some(*value)
    };
    if labels.is_empty() || resource.namespace() != holder.namespace() || !labels.iter().all(has) {
        return Vec::new();
    }
    let text = metadata.at(&["annotations", "proxy.istio.io/config"]);
    within(resource, text, &[])
}

/// The policy on the Gateway that takes the client's address from somewhere else, and what the manager is like then.
fn client_traffic_policy<'r>(
    holder: &Resource,
    all: &'r [Resource],
) -> Option<(&'r Resource, Manager)> {
    let own = gateways(holder, "targetRefs");
    all.iter()
        .filter(|policy| policy.kind == "ClientTrafficPolicy")
        .filter(|policy| {
            gateways(policy, "targetRefs")
                .iter()
                .any(|name| own.contains(name))
        })
        .find_map(|policy| {
            let detects = policy.at(&["spec", "clientIPDetection"]).is_some();
            let claims = policy.at(&["spec", "proxyProtocol"]).is_some()
                || policy
                    .at(&["spec", "enableProxyProtocol"])
                    .and_then(Located::boolean)
                    == Some(true);
            (detects || claims).then_some((
                policy,
                Manager {
                    use_remote_address: !detects,
                    proxy_protocol: claims,
                    ..Manager::USUAL
                },
            ))
        })
}

/// A policy of Envoy Gateway's that lets requests pass without the filter, where Envoy keeps a client's own scheme.
pub(super) fn fail_open(holder: &Resource, all: &[Resource]) -> Option<Diagnostic> {
    if holder.kind != "EnvoyExtensionPolicy" {
        return None;
    }
    let open = holder.items(&["spec", "wasm"]).iter().find_map(|wasm| {
        let field = wasm.field("failOpen")?;
        (field.value.boolean() == Some(true)).then_some(field)
    })?;
    let (policy, manager) = client_traffic_policy(holder, all)?;
    (!manager.use_remote_address).then(|| {
        Diagnostic::error(
            &codes::OPEN_WITHOUT_FILTER,
            &holder.source,
            open.name_span.clone(),
            format!(
                "with failOpen requests pass without the filter, and {} sets clientIPDetection, under which Envoy keeps \
                 anybody's x-forwarded-proto",
                policy.title()
            ),
            "leave failOpen out",
        )
    })
}

/// Plugins of ours that run on the same workload, of which the last one wins.
pub(super) fn several<'r>(holders: impl Iterator<Item = &'r Resource>) -> Vec<Diagnostic> {
    let mut known: HashMap<String, &Resource> = HashMap::new();
    let mut found = Vec::new();
    for holder in holders {
        let mut keys = gateways(holder, "targetRefs");
        let labels = selector(holder);
        if !labels.is_empty() {
            keys.push(format!("{} {labels:?}", holder.namespace()));
        }
        for key in keys {
            let first = *known.entry(key).or_insert(holder);
            if first.title() == holder.title() {
                continue; // The same resource, written again.
            }
            let mut finding = Diagnostic::error(
                &codes::SEVERAL_PLUGINS,
                &holder.source,
                holder.place(&["metadata", "name"]),
                format!(
                    "{} is for the same workload as {}: both run, and the later one overwrites what the other wrote",
                    holder.title(),
                    first.title()
                ),
                "put everything into one configuration, or set phase and priority so that the one with the rules is last",
            );
            finding.severity = Severity::Warning;
            found.push(finding);
            break;
        }
    }
    found
}

/// Ports of rules that no listener of the plugin's Gateways has. A Gateway that isn't among the files may have any.
fn ports(config: &Config, plugin: &Plugin, holder: &Resource, all: &[Resource]) -> Vec<Diagnostic> {
    let own = gateways(holder, "targetRefs");
    let known = |name: &String| {
        all.iter().find(|gateway| {
            gateway.kind == "Gateway"
                && format!("{}/{}", gateway.namespace(), gateway.name()) == *name
        })
    };
    let found: Option<Vec<&Resource>> = own.iter().map(known).collect();
    let Some(gateways) = found.filter(|gateways| !gateways.is_empty()) else {
        return Vec::new();
    };
    // Envoy Gateway's containers can't listen on privileged ports.
    let shift = |port: u16| match plugin.form {
        Form::EnvoyExtensionPolicy if port < 1024 => port + 10_000,
        _ => port,
    };
    let mut there: Vec<u16> = gateways
        .iter()
        .flat_map(|gateway| gateway.items(&["spec", "listeners"]))
        .filter_map(|listener| listener.get("port")?.number()?.to_string().parse().ok())
        .map(shift)
        .collect();
    there.sort_unstable();
    there.dedup();
    let mut diagnostics = Vec::new();
    for (index, rule) in config.trusted_load_balancers.iter().enumerate() {
        let list = Path::root().field("trustedLoadBalancers").item(index);
        let list = list.field("match").field("ports");
        for (position, port) in rule.matches.ports.iter().enumerate() {
            if there.contains(port) || there.is_empty() {
                continue;
            }
            let shifted = shift(*port);
            let help = if there.contains(&shifted) {
                format!("write {shifted}: Envoy Gateway adds 10000 to ports below 1024")
            } else {
                let ports: Vec<String> = there.iter().map(ToString::to_string).collect();
                format!(
                    "the listeners' ports in the container are {}",
                    ports.join(", ")
                )
            };
            let mut finding = Diagnostic::error(
                &codes::PORT_WITHOUT_LISTENER,
                &plugin.source,
                plugin.document.place(&list.item(position)),
                format!(
                    "no listener of the Gateway has port {port} in its container, so that this never holds"
                ),
                help,
            );
            finding.severity = Severity::Warning;
            diagnostics.push(finding);
        }
    }
    diagnostics
}

/// Everything but what concerns one configuration's own fields.
pub(super) fn findings(plugins: &[Plugin], all: &[Resource]) -> Vec<Diagnostic> {
    let holder = |plugin: &Plugin| plugin.resource.and_then(|index| all.get(index));
    let loaded: Vec<(&Config, &Resource)> = plugins
        .iter()
        .filter_map(|plugin| Some((plugin.loaded.config.as_ref()?, holder(plugin)?)))
        .collect();
    let mut found = redirects(&loaded, all);
    let mut holders: Vec<&Resource> = Vec::new();
    for resource in plugins.iter().filter_map(holder) {
        let is_known = holders.last().is_some_and(|last| {
            Rc::ptr_eq(&last.source, &resource.source)
                && last.document.span == resource.document.span
        });
        if !is_known {
            holders.push(resource);
        }
    }
    found.extend(holders.iter().filter_map(|holder| fail_open(holder, all)));
    for plugin in plugins {
        if let (Some(config), Some(holder)) = (&plugin.loaded.config, holder(plugin)) {
            found.extend(ports(config, plugin, holder, all));
        }
    }
    found.extend(several(holders.into_iter()));
    found
}
