//! Wasm filters anywhere in an Envoy configuration: bootstraps, listeners, filters alone, config dumps, and the parts
//! of them that Kubernetes resources carry.

use std::collections::HashSet;
use std::ops::Range;
use std::rc::Rc;

use serde::de::IgnoredAny;

use super::chain::Chain;
use super::clusters;
use super::envelope;
use super::handed::{self, Handed};
use super::ours::{self, Evidence};
use super::{Contents, Form, Plugin};
use crate::cli::files::{Located, Source, Value, is_spelling_of};
use crate::cli::report::{Diagnostic, codes};
use crate::cli::setup::{Manager, Written, filter_state, has_proxy_protocol};
use crate::config::{self, Loaded, Node};

/// What is known of the place that is being looked at.
#[derive(Clone)]
pub(super) struct Place<'l> {
    /// What holds it, for people.
    pub(super) holder: &'l str,
    pub(super) manager: Option<Manager>,
    chain: Option<Rc<Chain>>,
    proxy_protocol: bool,
    /// What network filters of the same chain write.
    filter_state: Vec<(String, Written)>,
    /// The name of the filter or extension.
    pub(super) name: Option<&'l Located>,
    /// A merge key of the file, if Envoy itself reads it.
    merge: Option<&'l Range<usize>>,
    /// The clusters that are sent HTTP/2 without TLS.
    plain_http2: Rc<HashSet<&'l str>>,
}

impl<'l> Place<'l> {
    pub(super) fn new(holder: &'l str) -> Self {
        Self {
            holder,
            manager: None,
            chain: None,
            proxy_protocol: false,
            filter_state: Vec::new(),
            name: None,
            merge: None,
            plain_http2: Rc::default(),
        }
    }

    /// A file that Envoy itself reads.
    pub(super) fn own_file(holder: &'l str, merge: Option<&'l Range<usize>>) -> Self {
        Self {
            merge,
            ..Self::new(holder)
        }
    }
}

/// Fields by which a file is known as one of Envoy's.
const SIGNS: &[&str] = &[
    "static_resources",
    "dynamic_resources",
    "typed_config",
    "typed_per_filter_config",
    "config_discovery",
    "http_filters",
    "filter_chains",
    "listener_filters",
    "virtual_hosts",
    "configs",
    "resources",
    "listeners",
];

/// Whether a document is a configuration of Envoy's.
pub(super) fn is_envoy(document: &Located) -> bool {
    document.get("@type").is_some()
        || document
            .fields()
            .any(|field| SIGNS.iter().any(|name| is_spelling_of(&field.name, name)))
}

/// What `walk` comes by.
pub(super) enum Met<'w, 'l> {
    /// An `HttpConnectionManager`. The place's manager is this one.
    Manager(&'l Located, &'w Place<'l>),
    /// A Wasm filter.
    Wasm(&'l Located, &'w Place<'l>),
}

/// Looks for Wasm filters in a value and everything below it.
pub(super) fn search<'l>(
    source: &Rc<Source>,
    located: &'l Located,
    place: Place<'l>,
    contents: &mut Contents,
) {
    walk(located, place, &mut |met| {
        if let Met::Wasm(wasm, place) = met {
            wasm_filter(source, wasm, place, contents);
        }
    });
}

/// Goes through a value and everything below it.
pub(super) fn walk<'l>(
    located: &'l Located,
    mut place: Place<'l>,
    visit: &mut dyn FnMut(Met<'_, 'l>),
) {
    if let Some(name) = located.get("name") {
        place.name = Some(name);
    }
    let mut message = located;
    if let Some((kind, content)) = located.any() {
        message = content;
        match kind {
            "envoy.extensions.filters.http.wasm.v3.Wasm" => {
                visit(Met::Wasm(content, &place));
                return;
            }
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
                place.manager = Some(Manager {
                    proxy_protocol: place.proxy_protocol,
                    filter_state: place.filter_state.clone(),
                    plain_http2: clusters::routed_to(content, &place.plain_http2),
                    ..Manager::read(content)
                });
                place.chain = Some(Rc::new(Chain::read(content)));
                visit(Met::Manager(content, &place));
            }
            _ => {}
        }
    }
    if let Some(own) = message.proto("clusters") {
        let plain = own.items().iter().filter_map(clusters::plain_http2);
        place.plain_http2 = Rc::new(plain.collect());
    }
    if let Some(filters) = message.proto("listener_filters")
        && has_proxy_protocol(filters)
    {
        place.proxy_protocol = true;
    }
    let network = message
        .proto("filters")
        .map(Located::items)
        .unwrap_or_default();
    place
        .filter_state
        .extend(network.iter().flat_map(filter_state));
    for field in message.fields() {
        walk(&field.value, place.clone(), visit);
    }
    for item in message.items() {
        walk(item, place.clone(), visit);
    }
}

/// `envoy.extensions.filters.http.wasm.v3.Wasm`.
pub(super) fn wasm_filter(
    source: &Rc<Source>,
    wasm: &Located,
    place: &Place<'_>,
    contents: &mut Contents,
) {
    let plugin = wasm.proto("config");
    let at = |path: &[&str]| plugin.and_then(|plugin| plugin.proto_at(path));
    let mut evidence = Evidence::default();
    evidence.name(place.name);
    evidence.name(at(&["name"]));
    evidence.name(at(&["root_id"]));
    evidence.name(at(&["vm_config", "vm_id"]));
    evidence.module(at(&["vm_config", "code", "local", "filename"]));
    evidence.module(at(&["vm_config", "code", "remote", "http_uri", "uri"]));

    let any = plugin.and_then(|plugin| plugin.proto_field("configuration"));
    let handed = handed::over(any.map(|field| &field.value));
    if !is_ours(source, &evidence, any.map(|field| &field.value), &handed) {
        return;
    }
    if let Some(plugin) = plugin {
        envelope::check(source, plugin, contents);
    }
    if let Some(place_of_merge) = place.merge {
        contents.findings.push(Diagnostic::error(
            &codes::REFUSED_BY_ENVOY,
            source,
            place_of_merge.clone(),
            "Envoy's YAML has no merge keys, so it refuses this file",
            "write the fields out, or give Envoy what yq 'explode(.)' makes of it",
        ));
    }
    let holder = format!("the Wasm filter in {}", place.holder);
    let (document, loaded) = match handed {
        Handed::Text(text, scalar) => in_text(source, scalar, text.as_bytes()),
        Handed::Bytes(bytes, scalar) => in_bytes(scalar, &bytes),
        Handed::Nothing => {
            let at = any.map_or(wasm, |field| &field.value);
            contents.findings.push(Diagnostic::error(
                &codes::CONFIGURATION_MISSING,
                source,
                at.start(),
                format!("{holder} has no configuration, which trusted-lb refuses"),
                handed::STRING_VALUE,
            ));
            return;
        }
        Handed::Encoded(kind) => {
            let at = any.map_or(wasm, |field| &field.value);
            let message = if kind == "google.protobuf.Struct" {
                format!(
                    "{holder} has its configuration as fields, which Envoy hands over in a form that trusted-lb refuses"
                )
            } else {
                format!("{holder} has a {kind} as its configuration, which trusted-lb can't read")
            };
            let value = at.get("value").unwrap_or(at);
            contents.findings.push(Diagnostic::error(
                &codes::CONFIGURATION_NOT_TEXT,
                source,
                value.start(),
                message,
                handed::STRING_VALUE,
            ));
            return;
        }
        Handed::Refused(at, message, help) => {
            contents.findings.push(Diagnostic::error(
                &codes::REFUSED_BY_ENVOY,
                source,
                at.start(),
                message,
                help,
            ));
            return;
        }
    };
    contents.plugins.push(Plugin {
        holder,
        form: Form::EnvoyFilter,
        source: Rc::clone(source),
        document,
        resource: None,
        loaded,
        manager: place.manager.clone(),
        chain: place.chain.clone(),
        environment: plugin.map(environment),
    });
}

/// Whether the filter is ours, whatever form its configuration has.
fn is_ours(
    source: &Rc<Source>,
    evidence: &Evidence<'_>,
    any: Option<&Located>,
    handed: &Handed<'_>,
) -> bool {
    let in_text = |text: &str, scalar: Option<&Located>| {
        let document = scalar.and_then(|scalar| match source.json_within(scalar) {
            Some(document) => Some(document),
            None => source.documents_within(scalar).ok()?.into_iter().next(),
        });
        match &document {
            Some(document) if document.is_object() => evidence.is_ours(Some(document)),
            _ => evidence.is_ours(None) || ours::text_names_fields(text),
        }
    };
    match handed {
        Handed::Text(text, scalar) => in_text(text, Some(scalar)),
        Handed::Bytes(bytes, _) => {
            let node = serde_json::from_slice::<Node>(bytes).ok();
            let document = node.map(|node| unplaced(&node));
            evidence.is_ours(document.as_ref())
                || ours::text_names_fields(&String::from_utf8_lossy(bytes))
        }
        _ => {
            // The fields stand beside @type, or in value.
            let Some(any) = any else {
                return evidence.is_ours(None);
            };
            let value = any.get("value");
            let text = value.and_then(Located::text);
            evidence.is_ours(value)
                || evidence.is_ours(Some(any))
                || text.is_some_and(|text| in_text(text, value))
        }
    }
}

/// A JSON text in a scalar of the file, read by the module's own reader.
fn in_text(source: &Rc<Source>, scalar: &Located, bytes: &[u8]) -> (Located, Loaded) {
    let loaded = config::load(bytes);
    if let Some(document) = source.json_within(scalar) {
        return (document, loaded);
    }
    // No JSON: the place is the one where it ends to be.
    let mut place = scalar.clone();
    let begin = bytes.iter().position(|byte| !byte.is_ascii_whitespace());
    if let Some(begin) = begin
        && bytes.get(begin) != Some(&b'{')
    {
        place.span = source.within(scalar).span(&(begin..begin + 1));
    } else if let Err(error) = serde_json::from_slice::<IgnoredAny>(bytes)
        && error.line() > 0
    {
        let start = bytes
            .split_inclusive(|byte| *byte == b'\n')
            .take(error.line() - 1)
            .map(<[u8]>::len)
            .sum::<usize>();
        let at = (start + error.column().saturating_sub(1)).min(bytes.len().saturating_sub(1));
        place.span = source.within(scalar).span(&(at..at + 1));
    }
    (place, loaded)
}

/// The bytes of a `BytesValue`. Places are those of the base64 text as a whole.
fn in_bytes(scalar: &Located, bytes: &[u8]) -> (Located, Loaded) {
    let loaded = config::load(bytes);
    let document = match serde_json::from_slice::<Node>(bytes) {
        Ok(node) => {
            let mut document = unplaced(&node);
            document.move_spans(&|_| scalar.span.clone());
            document
        }
        Err(_) => scalar.clone(),
    };
    (document, loaded)
}

fn unplaced(node: &Node) -> Located {
    let value = match node {
        Node::List(items) => Value::List(Rc::new(items.iter().map(unplaced).collect())),
        Node::Object(fields) => Value::Object(Rc::new(
            fields
                .iter()
                .map(|(name, value)| crate::cli::files::Field {
                    name: name.clone(),
                    name_span: 0..0,
                    value: unplaced(value),
                })
                .collect(),
        )),
        scalar => Value::Scalar(scalar.clone()),
    };
    Located { value, span: 0..0 }
}

/// The names of the environment variables that the VM gets.
fn environment(plugin: &Located) -> Vec<String> {
    let variables = plugin.proto_at(&["vm_config", "environment_variables"]);
    let host = variables.and_then(|variables| variables.proto("host_env_keys"));
    let given = variables.and_then(|variables| variables.proto("key_values"));
    // One of a list may stand without the list.
    let alone = host.and_then(Located::text);
    host.map(Located::items)
        .unwrap_or_default()
        .iter()
        .filter_map(Located::text)
        .chain(alone)
        .map(str::to_owned)
        .chain(
            given
                .into_iter()
                .flat_map(Located::fields)
                .map(|field| field.name.clone()),
        )
        .collect()
}
