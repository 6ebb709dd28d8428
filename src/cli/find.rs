//! Plugin configurations wherever people keep them: plain files, WasmPlugin, TrafficExtension and EnvoyFilter
//! manifests, Envoy bootstraps.

use std::rc::Rc;

use super::source::{Located, Source, SyntaxError, Value};
use crate::config::{HostPattern, PathPattern, RouteMatch};

/// A plugin configuration in a file.
pub(super) struct Found {
    /// What holds it, for people.
    pub(super) holder: String,
    /// The text that its places are in.
    pub(super) source: Rc<Source>,
    /// The configuration.
    pub(super) document: Located,
    /// The connection manager that the filter runs in, where the file shows it.
    pub(super) manager: Option<Manager>,
    /// The variables of the Wasm VM's environment, where the file shows them.
    pub(super) environment: Option<Vec<String>>,
}

/// Settings of an HTTP connection manager that decide which `peerAddress` tells the truth.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools)] // Independent settings, under Envoy's own names.
pub(super) struct Manager {
    pub(super) use_remote_address: bool,
    pub(super) xff_num_trusted_hops: u32,
    pub(super) skip_xff_append: bool,
    pub(super) original_ip_detection: bool,
    pub(super) proxy_protocol: bool,
    pub(super) early_header_mutation: bool,
}

impl Manager {
    /// As on Istio's gateways, and on any that clients reach.
    pub(super) const USUAL: Manager = Manager {
        use_remote_address: true,
        xff_num_trusted_hops: 0,
        skip_xff_append: false,
        original_ip_detection: false,
        proxy_protocol: false,
        early_header_mutation: false,
    };
}

/// A VirtualService's route that has a timeout or retries of its own.
pub(super) struct ExplicitPolicy {
    /// `namespace/name`.
    pub(super) virtual_service: String,
    /// Which of its routes, from 0.
    pub(super) index: usize,
    /// The requests that it holds for. Without hosts where they can't be said as a match of ours.
    pub(super) requests: RouteMatch,
    /// The route's name, if it has one.
    pub(super) route: Option<String>,
    pub(super) timeout: bool,
    pub(super) retries: bool,
    pub(super) source: Rc<Source>,
    pub(super) place: std::ops::Range<usize>,
}

/// What a file holds.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) configurations: Vec<Found>,
    /// Objects without any field of ours: configurations only where there is no other.
    pub(super) perhaps: Vec<Found>,
    pub(super) policies: Vec<ExplicitPolicy>,
    /// Plugins of ours whose configuration is missing, or can't arrive.
    pub(super) unusable: Vec<Unusable>,
}

/// A plugin of ours that gets no configuration.
pub(super) struct Unusable {
    pub(super) source: Rc<Source>,
    pub(super) place: std::ops::Range<usize>,
    pub(super) message: String,
    pub(super) help: &'static str,
}

/// The fields of a plugin configuration, by which a plain file is known as one.
const TOP_FIELDS: &[&str] = &[
    "peerAddress",
    "helperToken",
    "trustedLoadBalancers",
    "untrusted",
    "rewriteScheme",
    "forwardedPort",
    "defaults",
    "routes",
    "mode",
    "reportDecision",
];

impl Contents {
    /// Adds what another file holds.
    pub(super) fn extend(&mut self, other: Contents) {
        self.configurations.extend(other.configurations);
        self.perhaps.extend(other.perhaps);
        self.policies.extend(other.policies);
        self.unusable.extend(other.unusable);
    }

    /// The configurations.
    pub(super) fn take_configurations(&mut self) -> Vec<Found> {
        let certain = std::mem::take(&mut self.configurations);
        if certain.is_empty() && self.unusable.is_empty() {
            return std::mem::take(&mut self.perhaps);
        }
        certain
    }
}

/// Everything of interest in a file.
pub(super) fn in_source(source: &Rc<Source>) -> Result<Contents, (Rc<Source>, SyntaxError)> {
    let documents = source
        .documents()
        .map_err(|error| (Rc::clone(source), error))?;
    let mut contents = Contents::default();
    for document in documents {
        match document.get("kind").and_then(Located::text) {
            Some("List") => {
                for item in document
                    .get("items")
                    .map(Located::items)
                    .unwrap_or_default()
                {
                    resource(source, item, &mut contents)?;
                }
            }
            Some(_) if document.get("apiVersion").is_some() => {
                resource(source, &document, &mut contents)?;
            }
            _ if document.get("static_resources").is_some()
                || document.get("typed_config").is_some()
                || document.get("resources").is_some() =>
            {
                envoy(
                    source,
                    &document,
                    "an Envoy configuration",
                    None,
                    &mut contents,
                )?;
            }
            _ if matches!(document.value, Value::Object(_)) => {
                let certain = is_ours(&document);
                let found = Found {
                    holder: "a plugin configuration".to_owned(),
                    source: Rc::clone(source),
                    document,
                    manager: None,
                    environment: None,
                };
                if certain {
                    contents.configurations.push(found);
                } else {
                    contents.perhaps.push(found);
                }
            }
            _ => {}
        }
    }
    Ok(contents)
}

/// A Kubernetes resource.
fn resource(
    source: &Rc<Source>,
    document: &Located,
    contents: &mut Contents,
) -> Result<(), (Rc<Source>, SyntaxError)> {
    let text = |path: &[&str]| document.at(path).and_then(Located::text);
    let kind = text(&["kind"]).unwrap_or_default();
    let name = text(&["metadata", "name"]).unwrap_or("without a name");
    let namespace = text(&["metadata", "namespace"]).unwrap_or("default");
    let holder = format!("{kind} {namespace}/{name}");
    match kind {
        "WasmPlugin" | "TrafficExtension" => {
            let mut plugins = Vec::new();
            plugin_configurations(document, &mut plugins);
            // Other plugins' manifests stand beside ours, and their configurations are none of our business.
            let named = names_us(document);
            plugins.retain(|plugin| named || is_ours(plugin));
            if named && plugins.is_empty() {
                contents.unusable.push(Unusable {
                    source: Rc::clone(source),
                    place: document.start(),
                    message: format!("{holder} has no configuration, which trusted-lb refuses"),
                    help: "write pluginConfig, with trustedLoadBalancers or defaults in it",
                });
            }
            let environment = istio_environment(document);
            for plugin in plugins {
                contents.configurations.push(Found {
                    holder: format!("the pluginConfig of {holder}"),
                    source: Rc::clone(source),
                    document: plugin.clone(),
                    manager: None,
                    environment: Some(environment.clone()),
                });
            }
        }
        "VirtualService" => {
            virtual_service(source, document, &format!("{namespace}/{name}"), contents);
        }
        "EnvoyFilter" => envoy(source, document, &holder, None, contents)?,
        _ => {}
    }
    Ok(())
}

/// Whether any text in a resource, such as its name or the module's URL, names this filter.
fn names_us(located: &Located) -> bool {
    let named = |text: &str| text.contains("trusted-lb") || text.contains("trusted_lb");
    located.text().is_some_and(named)
        || located.fields().any(|field| names_us(&field.value))
        || located.items().iter().any(names_us)
}

/// Whether a plugin configuration has a field of ours.
fn is_ours(located: &Located) -> bool {
    located
        .fields()
        .any(|field| TOP_FIELDS.contains(&field.name.as_str()))
}

fn plugin_configurations<'l>(located: &'l Located, found: &mut Vec<&'l Located>) {
    for field in located.fields() {
        if field.name == "pluginConfig" {
            found.push(&field.value);
        } else {
            plugin_configurations(&field.value, found);
        }
    }
    for item in located.items() {
        plugin_configurations(item, found);
    }
}

/// The names under `vmConfig.env`, wherever that stands.
fn istio_environment(located: &Located) -> Vec<String> {
    let own = located
        .at(&["vmConfig", "env"])
        .map(Located::items)
        .unwrap_or_default()
        .iter()
        .filter_map(|variable| variable.get("name")?.text().map(str::to_owned));
    let below = located
        .fields()
        .flat_map(|field| istio_environment(&field.value));
    own.chain(below).collect()
}

/// The names of an Envoy Wasm filter's environment.
fn envoy_environment(wasm: &Located) -> Vec<String> {
    let variables = |kind| wasm.at(&["config", "vm_config", "environment_variables", kind]);
    let host = variables("host_env_keys")
        .map(Located::items)
        .unwrap_or_default();
    let given = variables("key_values")
        .into_iter()
        .flat_map(Located::fields);
    host.iter()
        .filter_map(Located::text)
        .map(str::to_owned)
        .chain(given.map(|field| field.name.clone()))
        .collect()
}

fn virtual_service(source: &Rc<Source>, document: &Located, name: &str, contents: &mut Contents) {
    let items = |path: &[&str]| document.at(path).map(Located::items).unwrap_or_default();
    let hosts: Option<Vec<HostPattern>> = items(&["spec", "hosts"]).iter().map(host).collect();
    for (index, route) in items(&["spec", "http"]).iter().enumerate() {
        let field = |name: &str| route.fields().find(|field| field.name == name);
        let (timeout, retries) = (field("timeout"), field("retries"));
        let Some(first) = timeout.or(retries) else {
            continue;
        };
        let matches = route.get("match").map(Located::items).unwrap_or_default();
        let paths: Option<Vec<PathPattern>> = matches.iter().map(path).collect();
        let mut requests = RouteMatch {
            virtual_services: vec![name.to_owned()],
            ..RouteMatch::default()
        };
        if let (Some(hosts), Some(paths)) = (&hosts, paths)
            && !hosts.is_empty()
        {
            requests.request.hosts.clone_from(hosts);
            requests.request.paths = paths;
        }
        contents.policies.push(ExplicitPolicy {
            virtual_service: name.to_owned(),
            index,
            requests,
            route: route.get("name").and_then(Located::text).map(str::to_owned),
            timeout: timeout.is_some(),
            retries: retries.is_some(),
            source: Rc::clone(source),
            place: first.name_span.clone(),
        });
    }
}

/// A host of a VirtualService, where it is one that clients of a gateway write: no short name, and not every host.
fn host(located: &Located) -> Option<HostPattern> {
    let host = located.text()?.to_ascii_lowercase();
    match host.strip_prefix('*') {
        Some(suffix) if suffix.len() > 1 && suffix.starts_with('.') => {
            Some(HostPattern::Suffix(suffix.to_owned()))
        }
        None if host.contains('.') => Some(HostPattern::Exact(host)),
        _ => None,
    }
}

/// The path of a VirtualService's match, where nothing else is in it.
fn path(matches: &Located) -> Option<PathPattern> {
    if matches
        .fields()
        .any(|field| !matches!(field.name.as_str(), "uri" | "name"))
    {
        return None;
    }
    let text = |kind: &str| matches.at(&["uri", kind]).and_then(Located::text);
    match (text("exact"), text("prefix")) {
        (Some(exact), None) => Some(PathPattern::Exact(exact.to_owned())),
        (None, Some(prefix)) => Some(PathPattern::Prefix(prefix.to_owned())),
        _ => None,
    }
}

/// Wasm filters anywhere in an Envoy configuration.
fn envoy(
    source: &Rc<Source>,
    located: &Located,
    holder: &str,
    manager: Option<Manager>,
    contents: &mut Contents,
) -> Result<(), (Rc<Source>, SyntaxError)> {
    let text = |name: &str| {
        located
            .get(name)
            .and_then(Located::text)
            .unwrap_or_default()
    };
    let mut kind = text("@type");
    let mut located = located;
    // An older way to write typed_config, still found in EnvoyFilters.
    if kind.ends_with("TypedStruct")
        && let Some(value) = located.get("value")
    {
        kind = text("type_url");
        located = value;
    }
    let mut manager = manager;
    if kind.ends_with("HttpConnectionManager") {
        manager = Some(read_manager(
            located,
            manager.is_some_and(|outer| outer.proxy_protocol),
        ));
    } else if let Some(filters) = located.get("listener_filters") {
        let proxy_protocol = filters.items().iter().any(|filter| {
            let name = filter
                .get("name")
                .and_then(Located::text)
                .unwrap_or_default();
            name.contains("proxy_protocol")
        });
        manager = proxy_protocol.then(|| Manager {
            proxy_protocol,
            ..read_manager(located, true)
        });
    }
    if kind.ends_with("wasm.v3.Wasm") {
        match located.at(&["config", "configuration"]) {
            Some(configuration) => {
                let environment = envoy_environment(located);
                wasm_configuration(
                    source,
                    configuration,
                    holder,
                    manager,
                    environment,
                    contents,
                )?;
            }
            None if names_us(located) => contents.unusable.push(Unusable {
                source: Rc::clone(source),
                place: located.start(),
                message: format!(
                    "the Wasm filter in {holder} has no configuration, which trusted-lb refuses"
                ),
                help: STRING_VALUE,
            }),
            None => {}
        }
        return Ok(());
    }
    for field in located.fields() {
        envoy(source, &field.value, holder, manager, contents)?;
    }
    for item in located.items() {
        envoy(source, item, holder, manager, contents)?;
    }
    Ok(())
}

fn read_manager(located: &Located, proxy_protocol: bool) -> Manager {
    let on = |name: &str| {
        located
            .get(name)
            .and_then(Located::boolean)
            .unwrap_or(false)
    };
    let some = |name: &str| {
        located
            .get(name)
            .is_some_and(|list| !list.items().is_empty())
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Saturates; hops are few.
    let hops = located
        .get("xff_num_trusted_hops")
        .and_then(Located::number)
        .unwrap_or(0.0) as u32;
    Manager {
        use_remote_address: on("use_remote_address"),
        xff_num_trusted_hops: hops,
        skip_xff_append: on("skip_xff_append"),
        original_ip_detection: some("original_ip_detection_extensions"),
        proxy_protocol,
        early_header_mutation: some("early_header_mutation_extensions"),
    }
}

const STRING_VALUE: &str = "write config.configuration with \"@type\": \
    type.googleapis.com/google.protobuf.StringValue and the configuration as JSON text in value";

/// The configuration inside an Envoy Wasm filter: JSON in a text.
fn wasm_configuration(
    source: &Rc<Source>,
    configuration: &Located,
    holder: &str,
    manager: Option<Manager>,
    environment: Vec<String>,
    contents: &mut Contents,
) -> Result<(), (Rc<Source>, SyntaxError)> {
    let Some(value) = configuration.get("value") else {
        return Ok(());
    };
    let holder = format!("the Wasm filter in {holder}");
    let Some(text) = value.text() else {
        if is_ours(value) {
            contents.unusable.push(Unusable {
                source: Rc::clone(source),
                place: value.start(),
                message: format!(
                    "{holder} has its configuration as fields, which Envoy hands over in a form that trusted-lb refuses"
                ),
                help: STRING_VALUE,
            });
        }
        return Ok(());
    };
    if !TOP_FIELDS.iter().any(|field| text.contains(field)) {
        return Ok(()); // Another plugin's.
    }
    let inner = Rc::new(Source {
        name: format!(
            "{} (configuration at line {})",
            source.name,
            source.line(value.span.start)
        ),
        text: text.to_owned(),
    });
    let documents = inner
        .documents()
        .map_err(|error| (Rc::clone(&inner), error))?;
    contents
        .configurations
        .extend(documents.into_iter().next().map(|document| Found {
            holder,
            source: inner,
            document,
            manager,
            environment: Some(environment),
        }));
    Ok(())
}
