//! Several plugins of ours on one workload.

use std::rc::Rc;

use super::Ours;
use crate::cli::files::Located;
use crate::cli::plugins::{Chain, Plugin};
use crate::cli::report::{Diagnostic, codes};
use crate::cli::setup::{Reach, Resource, Setup, gateways};
use crate::config::Mode;

/// Whom a plugin is for, and on which ports.
struct Place<'r> {
    holder: &'r Resource,
    reach: Option<Reach<'r>>,
    gateways: Vec<String>,
    ports: Option<Vec<u64>>,
}

/// Plugins of ours that run on the same workload, of which the last one wins. Each is named once.
pub(super) fn findings(ours: &[Ours<'_, '_>], setup: &Setup<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut earlier: Vec<Place<'_>> = Vec::new();
    for (config, holder) in ours
        .iter()
        .filter_map(|one| Some((one.config?, one.holder)))
    {
        if config.mode == Mode::Shadow {
            continue; // It changes nothing.
        }
        let is_istios = holder.kind != "EnvoyExtensionPolicy";
        let place = Place {
            holder,
            reach: is_istios.then(|| setup.reach(holder)),
            gateways: gateways(holder, "targetRefs"),
            ports: ports(holder),
        };
        let first = earlier.iter().find(|first| {
            !std::ptr::eq(first.holder, holder)
                && first.holder.title() != holder.title() // The same resource, written again.
                && share(first, &place, setup)
        });
        if let Some(first) = first {
            found.push(Diagnostic::warning(
                &codes::SEVERAL_PLUGINS,
                &holder.source,
                holder.place(&["metadata", "name"]),
                format!(
                    "{} is for the same workload as {}: both run, and the later one overwrites what the other wrote",
                    holder.title(),
                    first.holder.title()
                ),
                "put everything into one configuration, or set phase and priority so that the one with the rules is last",
            ));
        }
        earlier.push(place);
    }
    found
}

/// Plugins of ours in the same connection manager of Envoy's own configuration. Each is named once.
pub(super) fn beside(plugins: &[Plugin]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut earlier: Vec<(&Rc<Chain>, &Plugin)> = Vec::new();
    for plugin in plugins {
        let (Some(chain), Some(config)) = (&plugin.chain, &plugin.loaded.config) else {
            continue;
        };
        if config.mode == Mode::Shadow {
            continue;
        }
        let first = earlier.iter().find(|(other, _)| Rc::ptr_eq(other, chain));
        // A running Envoy may have the same one on several listeners.
        if let Some((_, first)) = first
            && first.document.span != plugin.document.span
        {
            found.push(Diagnostic::warning(
                &codes::SEVERAL_PLUGINS,
                &plugin.source,
                plugin.document.start(),
                format!(
                    "{} is the second of ours in this connection manager: both run, and the later one overwrites what the other wrote",
                    plugin.holder
                ),
                "put everything into one configuration, or let the one with the rules be last",
            ));
        }
        if first.is_none() {
            earlier.push((chain, plugin));
        }
    }
    found
}

fn share(one: &Place<'_>, other: &Place<'_>, setup: &Setup<'_>) -> bool {
    if let (Some(one), Some(other)) = (&one.ports, &other.ports)
        && !one.iter().any(|port| other.contains(port))
    {
        return false;
    }
    match (&one.reach, &other.reach) {
        (Some(one), Some(other)) => setup.share_a_workload(one, other),
        (None, None) => one
            .gateways
            .iter()
            .any(|name| other.gateways.contains(name)),
        _ => false,
    }
}

/// The ports that a WasmPlugin is for, if it says so.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Ports are small.
fn ports(holder: &Resource) -> Option<Vec<u64>> {
    let entries = holder.items(&["spec", "match"]);
    let mut all = Vec::new();
    for entry in entries {
        let ports = entry.get("ports").map(Located::items).unwrap_or_default();
        if ports.is_empty() {
            return None;
        }
        all.extend(
            ports
                .iter()
                .filter_map(|port| Some(port.get("number")?.number()? as u64)),
        );
    }
    (!entries.is_empty()).then_some(all)
}
