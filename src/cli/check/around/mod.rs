//! What stands around a plugin and decides whether it protects: routes, ports, Envoy Gateway's policies, other plugins
//! of ours, authorization and Lua on the same workload.

mod order;
mod overwritten;
mod policies;
mod ports;
mod redirects;
mod routes;
mod several;
mod source_nat;

use crate::cli::plugins::Plugin;
use crate::cli::report::{Diagnostic, codes};
use crate::cli::setup::{Reach, Resource, Setup};
use crate::config::{Config, Mode};

/// A plugin of ours and the resource that holds it.
struct Ours<'p, 'r> {
    config: Option<&'p Config>,
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
    let ours: Vec<Ours<'_, '_>> = plugins
        .iter()
        .filter_map(|plugin| {
            Some(Ours {
                config: plugin.loaded.config.as_ref(),
                holder: holder(plugin)?,
            })
        })
        .collect();
    let mut holders: Vec<&Resource> = ours.iter().map(|one| one.holder).collect();
    holders.dedup_by(|one, other| std::ptr::eq(*one, *other));
    let mut found = Vec::new();
    for holder in &holders {
        found.extend(policies::fail_open(holder, setup));
        found.extend(policies::replaced(holder, setup));
        found.extend(policies::oidc(holder, setup));
    }
    // Without rules a plugin leaves the scheme alone, and in shadow mode it writes nothing.
    let has_rules = |config: &Config| !config.trusted_load_balancers.is_empty();
    let ruling = placed(&ours, setup, has_rules);
    let writing = |config: &Config| has_rules(config) && config.mode != Mode::Shadow;
    let writing = placed(&ours, setup, writing);
    found.extend(redirects::findings(&routes::behind(&ruling, setup), setup));
    found.extend(overwritten::findings(&writing, setup));
    found.extend(order::authorization(&writing, setup));
    found.extend(order::lua(&writing, setup));
    found.extend(order::lua_beside(plugins));
    let by_address = |config: &Config| {
        let mut rules = config.trusted_load_balancers.iter();
        rules.any(|rule| !rule.matches.ip_blocks.is_empty())
    };
    found.extend(source_nat::findings(
        &placed(&ours, setup, by_address),
        setup,
    ));
    for plugin in plugins {
        if let (Some(config), Some(holder)) = (&plugin.loaded.config, holder(plugin)) {
            found.extend(ports::findings(config, plugin, holder, setup));
        }
    }
    found.extend(several::findings(&ours, setup));
    found.extend(several::beside(plugins));
    found.extend(mesh_fields(setup));
    found
}

/// The resources with plugins whose configuration is like this, or can't be read yet, each once.
fn placed<'r>(
    ours: &[Ours<'_, 'r>],
    setup: &Setup<'_>,
    is_meant: impl Fn(&Config) -> bool,
) -> Vec<Placed<'r>> {
    let meant = ours.iter().filter(|one| one.config.is_none_or(&is_meant));
    let mut holders: Vec<&Resource> = meant.map(|one| one.holder).collect();
    holders.dedup_by(|one, other| std::ptr::eq(*one, *other));
    let place = |holder| Placed {
        holder,
        reach: setup.reach(holder),
    };
    holders.into_iter().map(place).collect()
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
