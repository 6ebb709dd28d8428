//! Plugins in Kubernetes resources.

use std::path::Path;
use std::rc::Rc;

use super::envoy::{self, Place};
use super::ours::{self, Evidence};
use super::{Contents, Form, Plugin, document};
use crate::cli::files::{Located, Source, SyntaxError};
use crate::cli::report::{Diagnostic, codes};
use crate::cli::setup::Resource;
use crate::config;

/// The resources in a document: of a List, and of Lists in it, each one. `kind` is that of a typed list's entries,
/// which often don't say it themselves.
pub(in crate::cli) fn resources<'l>(
    document: &'l Located,
    kind: Option<&'l str>,
    visit: &mut dyn FnMut(&'l Located, &'l str),
) {
    let own = document.get("kind").and_then(Located::text);
    let Some(kind) = own.or(kind) else {
        return;
    };
    match (kind.strip_suffix("List"), document.get("items")) {
        (Some(entries), Some(items)) => {
            let entries = Some(entries).filter(|kind| !kind.is_empty());
            for item in items.items() {
                resources(item, entries, visit);
            }
        }
        _ => visit(document, kind),
    }
}

/// Whether a document is a resource or a list of them.
pub(super) fn is_resource(document: &Located) -> bool {
    let text = |name: &str| document.get(name).and_then(Located::text);
    text("kind").is_some_and(|kind| text("apiVersion").is_some() || kind.ends_with("List"))
}

/// What a resource holds.
pub(super) fn resource(
    source: &Rc<Source>,
    resource: &Located,
    kind: &str,
    depth: usize,
    contents: &mut Contents,
) -> Result<(), SyntaxError> {
    let text = |path: &[&str]| resource.at(path).and_then(Located::text);
    let name = text(&["metadata", "name"]).unwrap_or("without a name");
    let namespace = text(&["metadata", "namespace"]).unwrap_or("default");
    let holder = format!("{kind} {namespace}/{name}");
    let before = contents.plugins.len();
    let findings_before = contents.findings.len();
    match kind {
        "WasmPlugin" => wasm_plugin(
            source,
            resource,
            resource.get("spec"),
            Form::WasmPlugin,
            &holder,
            contents,
        ),
        "TrafficExtension" => {
            let wasm = resource.at(&["spec", "wasm"]);
            if wasm.is_some() {
                wasm_plugin(
                    source,
                    resource,
                    wasm,
                    Form::TrafficExtension,
                    &holder,
                    contents,
                );
            }
        }
        "EnvoyExtensionPolicy" => {
            for wasm in resource
                .at(&["spec", "wasm"])
                .map(Located::items)
                .unwrap_or_default()
            {
                extension_policy(source, resource, wasm, &holder, contents);
            }
        }
        "ConfigMap" | "Secret" => {
            for data in ["data", "stringData"] {
                if kind == "Secret" && data == "data" {
                    continue; // Base64.
                }
                if let Some(files) = resource.get(data) {
                    embedded(source, files, depth, contents)?;
                }
            }
        }
        // Envoy Gateway's own bootstrap for its proxies.
        "EnvoyProxy" => {
            if let Some(bootstrap) = resource.at(&["spec", "bootstrap"]) {
                embedded(source, bootstrap, depth, contents)?;
            }
        }
        "Kustomization" | "Component" => kustomization(source, resource, contents),
        _ => envoy::search(source, resource, Place::new(&holder), contents),
    }
    let is_ours = contents.plugins.len() > before || contents.findings.len() > findings_before;
    if contents.plugins.len() > before {
        written_twice(source, resource, before, contents);
    }
    if let Some(mut taken) = Resource::take(source, resource, kind) {
        taken.is_ours = is_ours;
        for plugin in contents.plugins.iter_mut().skip(before) {
            plugin.resource = Some(contents.resources.len());
        }
        contents.resources.push(taken);
    }
    Ok(())
}

/// A field that is written twice: kubectl keeps the last in silence.
fn written_twice(source: &Rc<Source>, resource: &Located, before: usize, contents: &mut Contents) {
    // The configuration's own reader says it of the configuration.
    let own: Vec<_> = contents
        .plugins
        .iter()
        .skip(before)
        .map(|plugin| plugin.document.span.clone())
        .collect();
    for field in resource.written_twice() {
        let place = &field.name_span;
        if own
            .iter()
            .any(|span| span.start <= place.start && place.end <= span.end)
        {
            continue;
        }
        contents.findings.push(Diagnostic::error(
            &codes::WRITTEN_TWICE,
            source,
            place.clone(),
            format!(
                "{} is written twice here, of which kubectl takes the last",
                field.name
            ),
            "leave one of them out",
        ));
    }
}

/// `spec` of a WasmPlugin, `spec.wasm` of a TrafficExtension.
fn wasm_plugin(
    source: &Rc<Source>,
    resource: &Located,
    spec: Option<&Located>,
    form: Form,
    holder: &str,
    contents: &mut Contents,
) {
    let field = |name: &str| spec.and_then(|spec| spec.proto_field(name));
    let mut evidence = Evidence::default();
    evidence.name(resource.at(&["metadata", "name"]));
    evidence.name(field("plugin_name").map(|field| &field.value));
    evidence.module(field("url").map(|field| &field.value));
    let configuration = field("plugin_config").map(|field| &field.value);
    // A plugin whose configuration stands beside spec is ours as well.
    let misplaced = ["pluginConfig", "plugin_config"]
        .into_iter()
        .find_map(|name| resource.field(name));
    if !evidence.is_ours(configuration.or(misplaced.map(|field| &field.value))) {
        return;
    }
    let Some(configuration) = configuration else {
        let (at, help) = match misplaced {
            Some(field) => (
                field.name_span.clone(),
                "pluginConfig belongs under spec: indent it",
            ),
            None => (
                resource.start(),
                "write pluginConfig, with trustedLoadBalancers or defaults in it",
            ),
        };
        contents.findings.push(Diagnostic::error(
            &codes::CONFIGURATION_MISSING,
            source,
            at,
            format!("{holder} has no configuration, which trusted-lb refuses"),
            help,
        ));
        return;
    };
    let variables = spec.and_then(|spec| spec.proto_at(&["vm_config", "env"]));
    let environment = variables
        .map(Located::items)
        .unwrap_or_default()
        .iter()
        .filter_map(|variable| variable.get("name")?.text().map(str::to_owned))
        .collect();
    contents.plugins.push(Plugin {
        holder: format!("the pluginConfig of {holder}"),
        form,
        source: Rc::clone(source),
        document: configuration.clone(),
        resource: None,
        loaded: config::load_document(&configuration.node()),
        manager: None,
        chain: None,
        environment: Some(environment),
    });
}

/// An entry under `spec.wasm` of an `EnvoyExtensionPolicy`.
fn extension_policy(
    source: &Rc<Source>,
    resource: &Located,
    wasm: &Located,
    holder: &str,
    contents: &mut Contents,
) {
    let mut evidence = Evidence::default();
    evidence.name(wasm.get("name"));
    evidence.name(wasm.get("rootID"));
    // A policy with one plugin is often named after it.
    if wasm.get("name").is_none() {
        evidence.name(resource.at(&["metadata", "name"]));
    }
    evidence.module(wasm.at(&["code", "image", "url"]));
    evidence.module(wasm.at(&["code", "http", "url"]));
    let configuration = wasm.get("config").filter(|config| !config.is_null());
    if !evidence.is_ours(configuration) {
        return;
    }
    let Some(configuration) = configuration else {
        contents.findings.push(Diagnostic::error(
            &codes::CONFIGURATION_MISSING,
            source,
            wasm.start(),
            format!("{holder} has no configuration, which trusted-lb refuses"),
            "write config, with trustedLoadBalancers or defaults in it",
        ));
        return;
    };
    let environment = wasm
        .at(&["env", "hostKeys"])
        .map(Located::items)
        .unwrap_or_default()
        .iter()
        .filter_map(Located::text)
        .map(str::to_owned)
        .collect();
    contents.plugins.push(Plugin {
        holder: format!("the config of {holder}"),
        form: Form::EnvoyExtensionPolicy,
        source: Rc::clone(source),
        document: configuration.clone(),
        resource: None,
        loaded: config::load_document(&configuration.node()),
        manager: None,
        chain: None,
        environment: Some(environment),
    });
}

/// `ConfigMap`s in texts of `ConfigMap`s.
const MOST_EMBEDDED: usize = 3;

/// Files inside a resource: `envoy.yaml` of a `ConfigMap`.
fn embedded(
    source: &Rc<Source>,
    files: &Located,
    depth: usize,
    contents: &mut Contents,
) -> Result<(), SyntaxError> {
    if depth >= MOST_EMBEDDED {
        return Ok(());
    }
    for field in files.fields() {
        let Some(text) = field.value.text() else {
            continue;
        };
        match source.documents_within(&field.value) {
            Ok(documents) => {
                for inner in documents.iter().filter(|inner| !is_plain_text(inner)) {
                    // What has no field of ours is anything: only a file of its own may be a configuration without one.
                    document(source, inner, depth + 1, false, contents)?;
                }
            }
            Err(error) if ours::text_names_fields(text) || text.contains("trusted_lb") => {
                return Err(error);
            }
            Err(_) => {}
        }
    }
    Ok(())
}

fn is_plain_text(document: &Located) -> bool {
    !document.is_object() && document.items().is_empty()
}

/// The sources of a kustomize build hold parts of resources, of which nobody can say what they come to.
fn kustomization(source: &Rc<Source>, resource: &Located, contents: &mut Contents) {
    let patches = ["patches", "patchesJson6902", "patchesStrategicMerge"]
        .into_iter()
        .filter_map(|name| resource.get(name))
        .flat_map(Located::items);
    for patch in patches {
        // A patch in a file of its own is read as that file.
        let file = patch.get("path").unwrap_or(patch).text();
        if let Some(file) = file.filter(|file| !file.contains('\n')) {
            let folder = Path::new(&source.name).parent().unwrap_or(Path::new(""));
            let file = file.trim_start_matches("./");
            contents.patches.push(folder.join(file));
        }
        let text = patch.get("patch").unwrap_or(patch);
        if text.text().is_some_and(|text| text.contains('\n')) && ours::is_mentioned(patch) {
            contents.findings.push(kustomize(source, patch));
        }
    }
}

/// That a patch has to be applied before it can be judged.
pub(super) fn kustomize(source: &Rc<Source>, patch: &Located) -> Diagnostic {
    Diagnostic::error(
        &codes::KUSTOMIZE_PATCH,
        source,
        patch.start(),
        "this is a kustomize patch: what it comes to depends on its base".to_owned(),
        "give what kustomize makes of it: kustomize build FOLDER | trusted-lb check -",
    )
}
