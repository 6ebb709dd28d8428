//! Rules by port, and the ports that there are.

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

/// Ports of rules that no listener of the plugin's Gateways has. A Gateway that isn't among the files may have any.
pub(super) fn findings(
    config: &Config,
    plugin: &Plugin,
    holder: &Resource,
    setup: &Setup<'_>,
) -> Vec<Diagnostic> {
    if config
        .trusted_load_balancers
        .iter()
        .all(|rule| rule.matches.ports.is_empty())
    {
        return Vec::new();
    }
    let there = of_gateways(plugin, holder, setup).or_else(|| setup.container_ports(holder));
    let Some(mut there) = there.filter(|ports| !ports.is_empty()) else {
        return Vec::new();
    };
    there.sort_unstable();
    there.dedup();
    let mut diagnostics = Vec::new();
    for (index, rule) in config.trusted_load_balancers.iter().enumerate() {
        let list = Path::root().field("trustedLoadBalancers").item(index);
        let list = list.field("match").field("ports");
        for (position, port) in rule.matches.ports.iter().enumerate() {
            if there.contains(port) {
                continue;
            }
            let shifted = shift(plugin.form, *port);
            let help = if there.contains(&shifted) {
                format!("write {shifted}: Envoy Gateway adds 10000 to ports below 1024")
            } else {
                let ports: Vec<String> = there.iter().map(ToString::to_string).collect();
                format!(
                    "the listeners' ports in the container are {}",
                    ports.join(", ")
                )
            };
            diagnostics.push(Diagnostic::warning(
                &codes::PORT_WITHOUT_LISTENER,
                &plugin.source,
                plugin.document.place(&list.item(position)),
                format!(
                    "no listener of the gateway has port {port} in its container, so that this never holds"
                ),
                help,
            ));
        }
    }
    diagnostics
}
