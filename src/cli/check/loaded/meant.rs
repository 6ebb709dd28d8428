//! What the files say of a plugin: whom it is for, what it is called in Envoy, and how it is loaded.

use std::ops::Range;

use super::is_of_a_control_plane;
use super::module::Module;
use crate::cli::files::Located;
use crate::cli::plugins::{Form, Node, Plugin};
use crate::cli::setup::{Resource, Setup, gateways};

/// What a filter is called in Envoy.
pub(super) enum Name {
    Whole(String),
    /// Its end: Envoy Gateway puts the kind of the resource in front, or nothing in its place.
    Ending(String),
}

impl Name {
    pub(super) fn is_of(&self, filter: &str) -> bool {
        match self {
            Name::Whole(name) => name == filter,
            Name::Ending(end) => {
                filter.starts_with("envoy.filters.http.wasm/") && filter.ends_with(end)
            }
        }
    }
}

/// A plugin in the files.
pub(super) struct Meant<'p> {
    pub(super) plugin: &'p Plugin,
    holder: Option<&'p Resource>,
    /// For people.
    pub(super) title: String,
    /// What its filter may be called in Envoy. Empty if it may be called anything.
    pub(super) names: Vec<Name>,
    module: Option<Module<'p>>,
    module_place: Option<Range<usize>>,
    /// The listeners' ports that it is for. None if it is for all.
    ports: Option<Vec<u64>>,
    /// Whether it is meant for every HTTP listener of its gateway.
    is_everywhere: bool,
}

impl<'p> Meant<'p> {
    pub(super) fn of(plugin: &'p Plugin, setup: &'p Setup<'_>) -> Self {
        let all = setup.resources;
        let holder = plugin.resource.and_then(|index| all.get(index));
        let mut meant = Self {
            plugin,
            holder,
            title: holder.map_or_else(|| plugin.holder.clone(), Resource::title),
            names: Vec::new(),
            module: None,
            module_place: None,
            ports: None,
            is_everywhere: false,
        };
        let Some(holder) = holder else {
            return meant;
        };
        let own = format!("{}.{}", holder.namespace(), holder.name());
        match (plugin.form, holder.kind.as_str()) {
            (Form::WasmPlugin, _) => {
                // Istio's newest, and those before it.
                meant.names = vec![
                    Name::Whole(format!(
                        "extensions.istio.io/trafficextension/{own}~istio-translated-wasmplugin"
                    )),
                    Name::Whole(format!("extensions.istio.io/wasmplugin/{own}")),
                ];
                meant.of_istio(holder, &["spec"]);
            }
            (Form::TrafficExtension, _) => {
                meant.names = vec![Name::Whole(format!(
                    "extensions.istio.io/trafficextension/{own}"
                ))];
                meant.of_istio(holder, &["spec", "wasm"]);
            }
            (Form::EnvoyExtensionPolicy, _) => {
                let entries = holder.items(&["spec", "wasm"]);
                if let Some(index) = entries.iter().position(|entry| meant.is_within(entry)) {
                    let own = format!("{}/{}", holder.namespace(), holder.name());
                    meant.names = vec![Name::Ending(format!("/{own}/wasm/{index}"))];
                }
            }
            (_, "EnvoyFilter") => {
                let patches = holder.items(&["spec", "configPatches"]);
                meant.of_patch(patches, &["patch", "value"]);
            }
            (_, "EnvoyPatchPolicy") => {
                let patches = holder.items(&["spec", "jsonPatches"]);
                meant.of_patch(patches, &["operation", "value"]);
            }
            _ => {}
        }
        meant
    }

    /// `spec` of a WasmPlugin, `spec.wasm` of a TrafficExtension.
    fn of_istio(&mut self, holder: &'p Resource, path: &[&str]) {
        self.is_everywhere = true;
        let entries = holder.items(&["spec", "match"]);
        let mut ports = Vec::new();
        for entry in entries {
            let of_entry = entry.get("ports").map(Located::items).unwrap_or_default();
            if of_entry.is_empty() {
                ports.clear();
                break;
            }
            ports.extend(of_entry.iter().filter_map(|one| number(one.get("number")?)));
        }
        self.ports = (!ports.is_empty()).then_some(ports);
        let Some(wasm) = holder.at(path) else {
            return;
        };
        if let Some(url) = wasm.field("url") {
            self.module_place = Some(url.value.span.clone());
            self.module = url.value.text().map(|url| Module {
                url,
                sha256: wasm.get("sha256").and_then(Located::text),
            });
        }
    }

    /// The patch of an `EnvoyFilter` or `EnvoyPatchPolicy` that has the plugin in it.
    fn of_patch(&mut self, patches: &'p [Located], path: &[&str]) {
        let values = patches.iter().filter_map(|patch| patch.at(path));
        let Some(value) = values.into_iter().find(|value| self.is_within(value)) else {
            return;
        };
        let mut names = Vec::new();
        self.filters(value, &mut names);
        self.names = names;
    }

    /// The names of the HTTP filters around the plugin, the innermost first.
    fn filters(&mut self, located: &'p Located, names: &mut Vec<Name>) {
        if !self.is_within(located) {
            return;
        }
        for field in located.fields() {
            self.filters(&field.value, names);
        }
        for item in located.items() {
            self.filters(item, names);
        }
        let Some((kind, wasm)) = located.proto("typed_config").and_then(Located::any) else {
            return;
        };
        if kind != "envoy.extensions.filters.http.wasm.v3.Wasm" {
            return;
        }
        let name = located.get("name").and_then(Located::text);
        names.extend(name.map(|name| Name::Whole(name.to_owned())));
        if let Some(code) = wasm.proto_at(&["config", "vm_config", "code"]) {
            let url = code
                .proto_at(&["remote", "http_uri", "uri"])
                .or_else(|| code.proto_at(&["local", "filename"]));
            if let Some(url) = url {
                self.module_place = Some(url.span.clone());
                self.module = url.text().map(|url| Module {
                    url,
                    sha256: code.proto_at(&["remote", "sha256"]).and_then(Located::text),
                });
            }
        }
    }

    fn is_within(&self, located: &Located) -> bool {
        let own = &self.plugin.document.span;
        located.span.start <= own.start && own.end <= located.span.end
    }

    /// Whether its filter may be called that in Envoy.
    pub(super) fn is_called(&self, filter: &str) -> bool {
        self.names.iter().any(|name| name.is_of(filter))
    }

    /// Whether the plugin is for a proxy. None if nobody says whose proxy it is.
    pub(super) fn is_for(&self, node: Option<&Node>, setup: &Setup<'_>) -> Option<bool> {
        let node = node?;
        let Some(holder) = self.holder else {
            // A configuration alone may be for any, Envoy's own files are for Envoys of one's own.
            return Some(self.plugin.form == Form::Alone || !is_of_a_control_plane(node));
        };
        Some(match (holder.kind.as_str(), node) {
            (
                "WasmPlugin" | "TrafficExtension" | "EnvoyFilter",
                Node::Istio {
                    namespace, labels, ..
                },
            ) => {
                let labels: Vec<(&str, &str)> = labels
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()))
                    .collect();
                setup.reach(holder).takes(namespace, &labels)
            }
            ("EnvoyExtensionPolicy" | "EnvoyPatchPolicy", Node::EnvoyGateway { gateways }) => {
                if gateways.is_empty() {
                    return None;
                }
                policy_is_for(holder, gateways, setup)
            }
            ("ConfigMap" | "Secret", Node::Other { .. }) => true,
            _ => false,
        })
    }

    /// Whether a listener on this port has to have it.
    pub(super) fn is_on(&self, port: Option<u64>) -> bool {
        self.is_everywhere
            && self
                .ports
                .as_ref()
                .is_none_or(|ports| port.is_some_and(|port| ports.contains(&port)))
    }

    /// Whether a loaded configuration says the same.
    pub(super) fn is_same(&self, loaded: &Plugin) -> bool {
        match (&self.plugin.loaded.config, &loaded.loaded.config) {
            (Some(meant), Some(loaded)) => meant == loaded,
            _ => self.plugin.document.node() == loaded.document.node(),
        }
    }

    /// What is different in the module, by the `PluginConfig` that is loaded.
    pub(super) fn other_module(&self, config: &Located) -> Option<String> {
        self.module
            .as_ref()?
            .other(config.proto_at(&["vm_config", "code"])?)
    }

    /// What else is different: variables and what happens if it fails.
    pub(super) fn other_settings(&self, loaded: &Plugin, config: &Located) -> Option<String> {
        if let (Some(meant), Some(has)) = (&self.plugin.environment, &loaded.environment)
            && let Some(name) = meant.iter().find(|name| !has.contains(name))
        {
            return Some(format!("it doesn't get the variable {name}"));
        }
        let spec = match self.plugin.form {
            Form::WasmPlugin => self.holder?.at(&["spec"])?,
            Form::TrafficExtension => self.holder?.at(&["spec", "wasm"])?,
            _ => return None,
        };
        let meant = spec.get("failStrategy").and_then(Located::text);
        let meant = meant.unwrap_or("FAIL_CLOSE");
        let open = config.proto("fail_open").and_then(Located::boolean);
        let policy = config.proto("failure_policy").and_then(Located::text);
        let has = match policy {
            Some("FAIL_OPEN") => "FAIL_OPEN",
            Some("FAIL_RELOAD") => "FAIL_RELOAD",
            Some("FAIL_CLOSED") => "FAIL_CLOSE",
            _ if open == Some(true) => "FAIL_OPEN",
            _ => "FAIL_CLOSE",
        };
        (meant != has).then(|| format!("failStrategy is {has} instead of {meant}"))
    }

    /// Where the files have it.
    pub(super) fn place(&self) -> Range<usize> {
        self.holder.map_or_else(
            || self.plugin.document.start(),
            |holder| holder.place(&["metadata", "name"]),
        )
    }

    /// Where the files name its module.
    pub(super) fn module_place(&self) -> Range<usize> {
        self.module_place.clone().unwrap_or_else(|| self.place())
    }
}

/// Whether a policy of Envoy Gateway's is for one of these Gateways: by itself, or by a route of it.
fn policy_is_for(holder: &Resource, own: &[String], setup: &Setup<'_>) -> bool {
    let is_own = |name: &String| own.contains(name);
    if gateways(holder, "targetRefs").iter().any(is_own) {
        return true;
    }
    let one = holder.at(&["spec", "targetRef"]);
    let targets = holder.items(&["spec", "targetRefs"]).iter().chain(one);
    let routes: Vec<(&str, &str)> = targets
        .filter_map(|target| {
            let text = |name: &str| target.get(name).and_then(Located::text);
            Some((text("kind")?, text("name")?))
        })
        .collect();
    routes.iter().any(|(kind, name)| {
        setup.named(kind, name).any(|route| {
            route.namespace() == holder.namespace()
                && gateways(route, "parentRefs").iter().any(is_own)
        })
    })
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Ports are small.
fn number(located: &Located) -> Option<u64> {
    Some(located.proto_number()? as u64)
}
