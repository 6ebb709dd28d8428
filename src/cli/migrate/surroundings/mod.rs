//! Where Lua stands in resources and Envoy configurations, and what stands around it.

mod envoy;
mod envoy_filter;
mod envoy_gateway;
mod per_route;
mod traffic_extension;

pub(super) use envoy::envoy;

use super::lua::Condition;
use crate::cli::files::Located;
use crate::config::Node;

/// A Lua filter with its scripts.
pub(super) struct Filter {
    /// What it stands in, for people.
    pub(super) holder: String,
    /// The resource's name, if it has one.
    pub(super) name: Option<String>,
    pub(super) target: Target,
    /// The script for every request that no other one is for.
    pub(super) everywhere: Option<Script>,
    /// Where that script is, if it isn't in the resource.
    pub(super) config_map: Option<ConfigMapScript>,
    /// Scripts by name, for `LuaPerRoute`.
    pub(super) named: Vec<(String, Script)>,
    /// What some virtual hosts or routes run instead.
    pub(super) elsewhere: Vec<PerRoute>,
    /// Where the peer's address is read with this connection manager.
    pub(super) peer_address: Option<String>,
    pub(super) notes: Vec<Note>,
}

impl Filter {
    fn new(holder: String, name: Option<String>, target: Target, notes: Vec<Note>) -> Self {
        Self {
            holder,
            name,
            target,
            everywhere: None,
            config_map: None,
            named: Vec::new(),
            elsewhere: Vec::new(),
            peer_address: None,
            notes,
        }
    }
}

/// A script that stands in a `ConfigMap`, and the byte that says so.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ConfigMapScript {
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) at: usize,
}

/// A script and where it stands.
#[derive(Clone)]
pub(super) struct Script {
    pub(super) code: String,
    pub(super) place: Located,
}

/// What runs on a virtual host or a route.
pub(super) struct PerRoute {
    pub(super) condition: Condition,
    pub(super) runs: Runs,
    /// The byte where it stands.
    pub(super) at: usize,
}

pub(super) enum Runs {
    Nothing,
    Named(String),
    Script(Script),
}

/// Something that isn't in the translation, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Note {
    pub(super) at: usize,
    pub(super) text: String,
}

/// What the translation is written as.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    /// Istio's WasmPlugin or `TrafficExtension`.
    Istio(Istio),
    /// Envoy Gateway's `EnvoyExtensionPolicy`, with the fields that say where it applies.
    EnvoyGateway {
        namespace: Option<String>,
        targets: Vec<(String, Node)>,
    },
    /// A filter of an Envoy configuration; the number keeps connection managers apart.
    Envoy(usize),
}

#[derive(Clone, Debug, PartialEq, Default)]
pub(super) struct Istio {
    pub(super) namespace: Option<String>,
    pub(super) traffic_extension: bool,
    /// `selector`, `targetRefs`, `match`, `priority`, as they are printed.
    pub(super) selector: Option<Node>,
    pub(super) target_refs: Option<Node>,
    pub(super) matches: Option<Node>,
    pub(super) phase: Option<String>,
    pub(super) priority: Option<Node>,
}

/// Every Lua filter of a Kubernetes resource.
pub(super) fn of_resource(document: &Located, kind: &str, found: &mut Vec<Filter>) {
    match kind {
        "EnvoyFilter" => envoy_filter::envoy_filter(document, found),
        "TrafficExtension" => traffic_extension::traffic_extension(document, found),
        "EnvoyExtensionPolicy" => envoy_gateway::extension_policy(document, found),
        "EnvoyPatchPolicy" => envoy_gateway::patch_policy(document, found),
        _ => {}
    }
}

/// A whole number; protobuf's JSON form takes a text too.
fn whole_number(located: &Located) -> Option<u32> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // Negative is 0, large is large.
    located.proto_number().map(|number| number as u32)
}

fn note(notes: &mut Vec<Note>, at: &Located, text: impl Into<String>) {
    notes.push(Note {
        at: at.start().start,
        text: text.into(),
    });
}

/// What people call a resource.
fn holder(document: &Located) -> String {
    let text = |path: &[&str]| document.at(path).and_then(Located::text);
    let kind = text(&["kind"]).unwrap_or("resource");
    let name = text(&["metadata", "name"]).unwrap_or("without a name");
    match text(&["metadata", "namespace"]) {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

fn text_at(document: &Located, path: &[&str]) -> Option<String> {
    document.at(path).and_then(Located::text).map(str::to_owned)
}

/// Fields of `metadata` that a cluster writes itself.
const OF_THE_CLUSTER: &[&str] = &[
    "name",
    "namespace",
    "creationTimestamp",
    "generation",
    "resourceVersion",
    "uid",
    "managedFields",
    "selfLink",
];

fn metadata(document: &Located, notes: &mut Vec<Note>) {
    let Some(metadata) = document.get("metadata") else {
        return;
    };
    for field in metadata.fields() {
        if OF_THE_CLUSTER.contains(&field.name.as_str()) {
            continue;
        }
        if field.name == "annotations" {
            let own: Vec<&str> = field
                .value
                .fields()
                .map(|annotation| annotation.name.as_str())
                .filter(|name| *name != "kubectl.kubernetes.io/last-applied-configuration")
                .collect();
            if own.is_empty() {
                continue;
            }
        }
        notes.push(Note {
            at: field.name_span.start,
            text: format!("metadata.{} isn't taken over", field.name),
        });
    }
}

/// Whether an object is Envoy's configuration of the Lua filter, by its type or by its fields.
fn lua_configuration(filter: &Located) -> Option<&Located> {
    let configuration = filter
        .proto("typed_config")
        .or_else(|| filter.get("config"));
    if let Some(configuration) = configuration {
        let of_type = |located: &Located, field: &str| {
            located
                .get(field)
                .and_then(Located::text)
                .is_some_and(|name| {
                    name.ends_with("filters.http.lua.v3.Lua")
                        || name.ends_with("filter.http.lua.v2.Lua")
                })
        };
        if of_type(configuration, "@type") {
            return Some(configuration);
        }
        if of_type(configuration, "type_url") || of_type(configuration, "typeUrl") {
            return configuration.get("value");
        }
        if configuration.get("@type").is_none() && has_code(configuration) {
            return Some(configuration);
        }
        return None;
    }
    has_code(filter).then_some(filter)
}

fn has_code(located: &Located) -> bool {
    ["inline_code", "default_source_code", "source_codes"]
        .iter()
        .any(|name| located.proto(name).is_some())
}

/// A data source's text.
fn data_source(located: &Located, notes: &mut Vec<Note>) -> Option<Script> {
    if let Some(code) = located.proto("inline_string") {
        return Some(Script {
            code: code.text()?.to_owned(),
            place: code.clone(),
        });
    }
    for (name, what) in [
        ("filename", "in a file of the proxy"),
        (
            "environment_variable",
            "in a variable of the proxy's environment",
        ),
        ("inline_bytes", "in base64"),
    ] {
        if let Some(value) = located.proto(name) {
            note(
                notes,
                value,
                format!("the script is {what}: write it as inline_string to have it translated"),
            );
        }
    }
    None
}

/// Scripts of the filter's configuration.
fn configuration(located: &Located, filter: &mut Filter) {
    for field in located.fields() {
        let value = &field.value;
        match snake(&field.name).as_str() {
            "@type" | "type_url" => {}
            "inline_code" => {
                filter.everywhere = value.text().map(|code| Script {
                    code: code.to_owned(),
                    place: value.clone(),
                });
            }
            "default_source_code" => {
                filter.everywhere = data_source(value, &mut filter.notes);
            }
            "source_codes" => {
                for code in value.fields() {
                    if let Some(script) = data_source(&code.value, &mut filter.notes) {
                        filter.named.push((code.name.clone(), script));
                    }
                }
            }
            "clear_route_cache" => {
                let text = if value.boolean() == Some(false) {
                    "clear_route_cache: false has no counterpart: when trusted-lb changes x-forwarded-proto, Envoy chooses the \
                     route again (that is what ends redirect loops)"
                } else {
                    "clear_route_cache isn't needed: when trusted-lb changes a header, Envoy chooses the route again"
                };
                filter.notes.push(Note {
                    at: field.name_span.start,
                    text: text.to_owned(),
                });
            }
            "stat_prefix" => filter.notes.push(Note {
                at: field.name_span.start,
                text: "the Lua filter's statistics end; trusted-lb has counters of its own"
                    .to_owned(),
            }),
            other => filter.notes.push(Note {
                at: field.name_span.start,
                text: format!("{other} of the Lua filter isn't translated"),
            }),
        }
    }
}

/// `inlineCode` as `inline_code`.
pub(super) fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
