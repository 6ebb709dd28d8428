//! The manifest around a migrated configuration.

use super::surroundings::{Istio, Target};
use super::translate::{object, text};
use crate::cli::files::Source;
use crate::cli::yaml;
use crate::config::Node;

/// A manifest that reads back as what it says.
pub(super) fn print(
    target: &Target,
    name: &str,
    url: &str,
    configuration: &Node,
) -> Result<String, String> {
    let (printed, expected) = match target {
        Target::Istio(istio) => {
            let node = of_istio(istio, name, url, configuration);
            (yaml::block(&node, 0), node)
        }
        Target::EnvoyGateway { namespace, targets } => {
            let node = of_envoy_gateway(namespace.as_deref(), targets, name, url, configuration);
            (yaml::block(&node, 0), node)
        }
        Target::Envoy(_) => of_envoy(name, configuration),
    };
    let source = Source::new("the translation", printed);
    let documents = source.documents().map_err(|error| error.message)?;
    match documents.as_slice() {
        [one] if one.node() == expected => Ok(source.text),
        _ => Err("the manifest doesn't read back as what it was made from".to_owned()),
    }
}

fn metadata(name: &str, namespace: Option<&str>) -> Node {
    let mut fields = vec![("name", text(name))];
    if let Some(namespace) = namespace {
        fields.push(("namespace", text(namespace)));
    }
    object(fields)
}

fn of_istio(istio: &Istio, name: &str, url: &str, configuration: &Node) -> Node {
    let mut spec = Vec::new();
    if let Some(labels) = &istio.selector {
        spec.push(("selector", object(vec![("matchLabels", labels.clone())])));
    }
    if let Some(targets) = &istio.target_refs {
        spec.push(("targetRefs", targets.clone()));
    }
    if let Some(matches) = &istio.matches {
        spec.push(("match", matches.clone()));
    }
    let phase = text(istio.phase.as_deref().unwrap_or("AUTHN"));
    if let Some(priority) = &istio.priority {
        spec.push(("priority", priority.clone()));
    }
    let plugin = vec![
        ("failStrategy", text("FAIL_CLOSE")),
        ("pluginConfig", configuration.clone()),
    ];
    let kind = if istio.traffic_extension {
        spec.push(("phase", phase));
        let mut wasm = vec![("url", text(url))];
        wasm.extend(plugin);
        spec.push(("wasm", object(wasm)));
        "TrafficExtension"
    } else {
        spec.push(("url", text(url)));
        spec.push(("phase", phase));
        spec.extend(plugin);
        "WasmPlugin"
    };
    object(vec![
        ("apiVersion", text("extensions.istio.io/v1alpha1")),
        ("kind", text(kind)),
        ("metadata", metadata(name, istio.namespace.as_deref())),
        ("spec", object(spec)),
    ])
}

fn of_envoy_gateway(
    namespace: Option<&str>,
    targets: &[(String, Node)],
    name: &str,
    url: &str,
    configuration: &Node,
) -> Node {
    // Envoy Gateway names an image without the scheme.
    let image = url.strip_prefix("oci://").unwrap_or(url);
    let code = if image.starts_with("http://") || image.starts_with("https://") {
        object(vec![
            ("type", text("HTTP")),
            ("http", object(vec![("url", text(image))])),
        ])
    } else {
        object(vec![
            ("type", text("Image")),
            ("image", object(vec![("url", text(image))])),
        ])
    };
    let wasm = object(vec![
        ("name", text("trusted-lb")),
        ("rootID", text("trusted_lb")),
        ("code", code),
        ("config", configuration.clone()),
        ("failOpen", Node::Bool(false)),
    ]);
    let mut spec: Vec<(&str, Node)> = targets
        .iter()
        .map(|(field, value)| (field.as_str(), value.clone()))
        .collect();
    spec.push(("wasm", Node::List(vec![wasm])));
    object(vec![
        ("apiVersion", text("gateway.envoyproxy.io/v1alpha1")),
        ("kind", text("EnvoyExtensionPolicy")),
        ("metadata", metadata(name, namespace)),
        ("spec", object(spec)),
    ])
}

/// Stands for the configuration until its text is put there.
const MARK: &str = "the-configuration";

/// The HTTP filter, with its configuration as JSON text.
fn of_envoy(name: &str, configuration: &Node) -> (String, Node) {
    let json = format!("{:#}\n", yaml::json(configuration));
    let head = |value: Node| {
        object(vec![
            ("name", text(name)),
            (
                "typed_config",
                object(vec![
                    (
                        "@type",
                        text("type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"),
                    ),
                    (
                        "config",
                        object(vec![
                            ("name", text(name)),
                            ("root_id", text("trusted_lb")),
                            ("failure_policy", text("FAIL_CLOSED")),
                            (
                                "vm_config",
                                object(vec![
                                    ("runtime", text("envoy.wasm.runtime.v8")),
                                    (
                                        "code",
                                        object(vec![(
                                            "local",
                                            object(vec![(
                                                "filename",
                                                text("/etc/trusted-lb/trusted_lb.wasm"),
                                            )]),
                                        )]),
                                    ),
                                ]),
                            ),
                            (
                                "configuration",
                                object(vec![
                                    (
                                        "@type",
                                        text("type.googleapis.com/google.protobuf.StringValue"),
                                    ),
                                    ("value", value),
                                ]),
                            ),
                        ]),
                    ),
                ]),
            ),
        ])
    };
    // JSON inside of YAML reads best as a block.
    let block = format!("|\n{}\n", yaml::indented(&json, 8).trim_end());
    let printed = yaml::block(&head(text(MARK)), 0).replacen(&format!("{MARK}\n"), &block, 1);
    (printed, head(Node::Text(json)))
}
