//! What stands around a plugin and decides whether it protects: redirects, ports, Envoy Gateway's policies, other
//! plugins of ours, authorization and Lua on the same workload.

mod order;
mod policies;
mod ports;
mod redirects;
mod several;

use crate::cli::plugins::Plugin;
use crate::cli::report::{Diagnostic, codes};
use crate::cli::setup::{Reach, Resource, Setup};
use crate::config::Config;

/// A plugin of ours and the resource that holds it.
struct Ours<'r> {
    config: Option<&'r Config>,
    holder: &'r Resource,
}

/// A resource that holds plugins of ours, and whom it is for by Istio's rules.
struct Placed<'r> {
    holder: &'r Resource,
    reach: Reach<'r>,
}

/// Everything but what concerns one configuration's own fields.
pub(super) fn findings(plugins: &[Plugin], setup: &Setup<'_>) -> Vec<Diagnostic> {
    let all = setup.resources;
    let holder = |plugin: &Plugin| plugin.resource.and_then(|index| all.get(index));
    let ours: Vec<Ours<'_>> = plugins
        .iter()
        .filter_map(|plugin| {
            Some(Ours {
                config: plugin.loaded.config.as_ref(),
                holder: holder(plugin)?,
            })
        })
        .collect();
    let loaded: Vec<(&Config, &Resource)> = ours
        .iter()
        .filter_map(|one| Some((one.config?, one.holder)))
        .collect();
    let mut holders: Vec<&Resource> = ours.iter().map(|one| one.holder).collect();
    holders.dedup_by(|one, other| std::ptr::eq(*one, *other));
    let mut found = redirects::redirects(&loaded, setup);
    for holder in &holders {
        found.extend(policies::fail_open(holder, setup));
        found.extend(policies::replaced(holder, setup));
        found.extend(policies::oidc(holder, setup));
    }
    let placed: Vec<Placed<'_>> = holders
        .iter()
        .map(|holder| Placed {
            holder,
            reach: setup.reach(holder),
        })
        .collect();
    found.extend(order::authorization(&placed, setup));
    found.extend(order::lua(&placed, setup));
    for plugin in plugins {
        if let (Some(config), Some(holder)) = (&plugin.loaded.config, holder(plugin)) {
            found.extend(ports::findings(config, plugin, holder, setup));
        }
    }
    found.extend(several::findings(&ours, setup));
    found.extend(mesh_fields(setup));
    found
}

/// A `ProxyConfig` has no `gatewayTopology`.
fn mesh_fields(setup: &Setup<'_>) -> Vec<Diagnostic> {
    let is_wrong = |resource: &&Resource| resource.at(&["spec", "gatewayTopology"]).is_some();
    let found = setup.of_kind("ProxyConfig").filter(is_wrong);
    found
        .map(|resource| {
            Diagnostic::error(
                &codes::UNKNOWN_FIELD,
                &resource.source,
                resource.place(&["spec", "gatewayTopology"]),
                "a ProxyConfig has no field gatewayTopology: kubectl refuses it, other clients drop it in silence",
                "write it into the annotation proxy.istio.io/config of the gateway's pods, or into meshConfig.defaultConfig",
            )
        })
        .collect()
}
