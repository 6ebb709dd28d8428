//! Rules and plugins by port, and the ports that there are.

use crate::cli::files::Located;
use crate::cli::plugins::{Form, Plugin};
use crate::cli::report::{Diagnostic, codes};
use crate::cli::setup::{Resource, Setup, gateways};
use crate::config::{Config, Path};

/// The ports in the containers of the plugin's Gateways. None if one of them isn't among the files, or takes listeners
/// from elsewhere.
fn of_gateways(plugin: &Plugin, holder: &Resource, setup: &Setup<'_>) -> Option<Vec<u16>> {
    let own = gateways(holder, "targetRefs");
    if own.is_empty() {
        return None;
    }
    let mut ports = Vec::new();
    for own in own {
        let (namespace, name) = own.split_once('/')?;
        let gateway = setup.named("Gateway", name).find(|gateway| {
            gateway.namespace() == namespace && gateway.at(&["spec", "allowedListeners"]).is_none()
        })?;
        if !gateway.items(&["spec", "addresses"]).is_empty() {
            return None; // Pods of somebody's own, behind a Service of theirs.
        }
        let listeners = gateway.items(&["spec", "listeners"]).iter();
        ports.extend(listeners.filter_map(|listener| {
            let port: u16 = listener
                .get("port")
                .and_then(Located::number)?
                .to_string()
                .parse()
                .ok()?;
            Some(shift(plugin.form, port))
        }));
    }
    Some(ports)
}

/// Envoy Gateway's containers can't listen on privileged ports.
fn shift(form: Form, port: u16) -> u16 {
    match form {
        Form::EnvoyExtensionPolicy if port < 1024 => port + 10_000,
        _ => port,
    }
}

/// Ports of rules and of the plugin itself that no listener of the plugin's Gateways has. A Gateway that isn't among the
/// files may have any.
pub(super) fn findings(
    config: &Config,
    plugin: &Plugin,
    holder: &Resource,
    setup: &Setup<'_>,
) -> Vec<Diagnostic> {
    let own = of_match(holder);
    let mut rules = config.trusted_load_balancers.iter();
    if own.is_empty() && rules.all(|rule| rule.matches.ports.is_empty()) {
        return Vec::new();
    }
    let there = of_gateways(plugin, holder, setup).or_else(|| setup.container_ports(holder));
    let Some(mut there) = there.filter(|ports| !ports.is_empty()) else {
        return Vec::new();
    };
    there.sort_unstable();
    there.dedup();
    let mut diagnostics = Vec::new();
    for (port, place) in own {
        if !there.contains(&port) {
            diagnostics.push(Diagnostic::warning(
                &codes::PORT_WITHOUT_LISTENER,
                &holder.source,
                place.start(),
                format!(
                    "no listener of the gateway has port {port} in its container, so that the plugin isn't loaded for it"
                ),
                instead(plugin.form, port, &there),
            ));
        }
    }
    for (index, rule) in config.trusted_load_balancers.iter().enumerate() {
        let list = Path::root().field("trustedLoadBalancers").item(index);
        let list = list.field("match").field("ports");
        for (position, port) in rule.matches.ports.iter().enumerate() {
            if there.contains(port) {
                continue;
            }
            diagnostics.push(Diagnostic::warning(
                &codes::PORT_WITHOUT_LISTENER,
                &plugin.source,
                plugin.document.place(&list.item(position)),
                format!(
                    "no listener of the gateway has port {port} in its container, so that this never holds"
                ),
                instead(plugin.form, *port, &there),
            ));
        }
    }
    diagnostics
}

/// What to write in place of a port.
fn instead(form: Form, port: u16, there: &[u16]) -> String {
    let shifted = shift(form, port);
    if there.contains(&shifted) {
        return format!("write {shifted}: Envoy Gateway adds 10000 to ports below 1024");
    }
    let ports: Vec<String> = there.iter().map(ToString::to_string).collect();
    format!(
        "the listeners' ports in the container are {}",
        ports.join(", ")
    )
}

/// The ports of the listeners that the plugin is for, if it says so.
fn of_match(holder: &Resource) -> Vec<(u16, &Located)> {
    let numbers: Vec<&Located> = match holder.kind.as_str() {
        "WasmPlugin" | "TrafficExtension" => {
            let entries = holder.items(&["spec", "match"]).iter();
            entries
                .filter(|entry| entry.get("mode").and_then(Located::text) != Some("SERVER"))
                .flat_map(|entry| entry.get("ports").map(Located::items).unwrap_or_default())
                .filter_map(|port| port.get("number"))
                .collect()
        }
        "EnvoyFilter" => {
            let patches = holder.items(&["spec", "configPatches"]).iter();
            patches
                .filter(|patch| {
                    let context = patch.at(&["match", "context"]).and_then(Located::text);
                    context.is_none_or(|context| !context.starts_with("SIDECAR"))
                })
                .filter_map(|patch| patch.at(&["match", "listener", "portNumber"]))
                .collect()
        }
        _ => Vec::new(),
    };
    numbers
        .into_iter()
        .filter_map(|number| Some((number.number()?.to_string().parse().ok()?, number)))
        .collect()
}
