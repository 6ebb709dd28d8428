//! What runs before or behind the plugin on the same workload, and looks at the scheme or writes it.

use std::rc::Rc;

use crate::cli::files::Located;
use crate::cli::migrate;
use crate::cli::plugins::{self, Chain, Plugin};
use crate::cli::report::{Diagnostic, codes};
use crate::cli::setup::{Resource, Setup, gateways};

use super::Placed;
use crate::config::Mode;

/// The attribute of authorization policies that is the scheme's header.
const HEADER: &str = "request.headers[x-forwarded-proto]";

/// Authorization that looks at x-forwarded-proto before the plugin has corrected it.
pub(super) fn authorization(holders: &[Placed<'_>], setup: &Setup<'_>) -> Vec<Diagnostic> {
    let policies: Vec<_> = setup
        .of_kind("AuthorizationPolicy")
        .filter_map(|policy| Some((policy, looks_at_scheme(policy)?, setup.reach(policy))))
        .collect();
    let mut found = Vec::new();
    for Placed { holder, reach } in holders {
        if matches!(holder.kind.as_str(), "WasmPlugin" | "TrafficExtension") {
            let seen = policies
                .iter()
                .filter(|(_, _, other)| setup.share_a_workload(reach, other));
            found.extend(seen.filter_map(|(policy, key, _)| sees_uncorrected(policy, key, holder)));
        }
    }
    found
}

fn sees_uncorrected(policy: &Resource, key: &Located, holder: &Resource) -> Option<Diagnostic> {
    let is_first = matches!(holder.text(&["spec", "phase"]), Some("AUTHN" | "AUTHZ"));
    let is_custom = policy.text(&["spec", "action"]) == Some("CUSTOM");
    if is_first && !is_custom {
        return None;
    }
    let help = if is_custom {
        "insert the plugin first: trusted-lb render envoyfilter, or envoyfilter/envoyfilter.yaml"
    } else {
        "write phase: AUTHN into the plugin"
    };
    Some(Diagnostic::warning(
        &codes::SEES_UNCORRECTED_SCHEME,
        &policy.source,
        key.start(),
        format!(
            "{} looks at x-forwarded-proto and runs before {}: it sees what Envoy wrote",
            policy.title(),
            holder.title()
        ),
        help,
    ))
}

fn looks_at_scheme(policy: &Resource) -> Option<&Located> {
    policy
        .items(&["spec", "rules"])
        .iter()
        .flat_map(|rule| rule.get("when").map(Located::items).unwrap_or_default())
        .filter_map(|condition| condition.get("key"))
        .find(|key| {
            key.text()
                .is_some_and(|text| text.eq_ignore_ascii_case(HEADER))
        })
}

/// Scripts beside the plugin that are read. Others are taken to be fine.
const MOST_SCRIPTS: usize = 200;

/// Lua filters that were left in place and write the scheme.
pub(super) fn lua(holders: &[Placed<'_>], setup: &Setup<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut read = 0;
    for other in setup.resources {
        let scripts = scripts(other);
        if scripts.is_empty() || read >= MOST_SCRIPTS {
            continue;
        }
        let own = setup.reach(other);
        let Some(Placed { holder, .. }) = holders.iter().find(|Placed { holder, reach }| {
            let is_envoy_gateways = |one: &Resource| one.kind == "EnvoyExtensionPolicy";
            if is_envoy_gateways(holder) || is_envoy_gateways(other) {
                let names = gateways(other, "targetRefs");
                return is_envoy_gateways(holder)
                    && is_envoy_gateways(other)
                    && gateways(holder, "targetRefs")
                        .iter()
                        .any(|name| names.contains(name));
            }
            setup.share_a_workload(reach, &own)
        }) else {
            continue;
        };
        read += scripts.len();
        let writes = scripts.into_iter().find(|script| writes_scheme(script));
        if let Some(script) = writes {
            found.push(Diagnostic::warning(
                &codes::LUA_LEFT_IN_PLACE,
                &other.source,
                script.span.start..script.span.start + 1,
                format!(
                    "this script of {} writes x-forwarded-proto on the workload of {}: one of them overwrites the other",
                    other.title(),
                    holder.title()
                ),
                TAKE_OUT,
            ));
        }
    }
    found
}

/// Lua filters in the connection manager of a plugin, in Envoy's own configuration.
pub(super) fn lua_beside(plugins: &[Plugin]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut read = 0;
    let mut known: Vec<&Rc<Chain>> = Vec::new();
    for plugin in plugins {
        let (Some(chain), Some(config)) = (&plugin.chain, &plugin.loaded.config) else {
            continue;
        };
        let leaves_it = config.trusted_load_balancers.is_empty() || config.mode == Mode::Shadow;
        if leaves_it || read >= MOST_SCRIPTS || known.iter().any(|other| Rc::ptr_eq(other, chain)) {
            continue;
        }
        known.push(chain);
        read += chain.scripts.len();
        let writes = chain.scripts.iter().find(|script| writes_scheme(script));
        found.extend(writes.map(|script| {
            Diagnostic::warning(
                &codes::LUA_LEFT_IN_PLACE,
                &plugin.source,
                script.span.start..script.span.start + 1,
                format!(
                    "this script writes x-forwarded-proto beside {}: one of them overwrites the other",
                    plugin.holder
                ),
                TAKE_OUT,
            )
        }));
    }
    found
}

const TAKE_OUT: &str =
    "take the Lua filter out; trusted-lb migrate tells what of it the plugin has to do";

fn writes_scheme(script: &Located) -> bool {
    let code = script.text();
    code.is_some_and(|code| migrate::writes(code, "x-forwarded-proto"))
}

/// The Lua of a resource.
fn scripts(resource: &Resource) -> Vec<&Located> {
    let mut found = Vec::new();
    match resource.kind.as_str() {
        "EnvoyFilter" => {
            for patch in resource.items(&["spec", "configPatches"]) {
                let value = patch.at(&["patch", "value"]);
                found.extend(value.map(plugins::scripts).unwrap_or_default());
            }
        }
        "TrafficExtension" => found.extend(resource.at(&["spec", "lua", "inlineCode"])),
        "EnvoyExtensionPolicy" => {
            let all = resource.items(&["spec", "lua"]).iter();
            found.extend(all.filter_map(|lua| lua.get("inline")));
        }
        _ => {}
    }
    found
}
