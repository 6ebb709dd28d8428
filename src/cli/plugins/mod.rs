//! Plugin configurations wherever people keep them: plain files, WasmPlugin, TrafficExtension, EnvoyFilter and Envoy
//! Gateway's policies, `ConfigMap`s, Envoy bootstraps and config dumps.

mod chain;
mod clusters;
mod envelope;
mod envoy;
mod handed;
mod kubernetes;
mod ours;
mod running;

use std::path::PathBuf;
use std::rc::Rc;

use super::files::{Located, Source, SyntaxError, Value};
use super::report::Diagnostic;
use super::setup::{Manager, Resource};
use crate::config::{self, Loaded, Problem};
pub(super) use chain::{Chain, scripts};
pub(super) use kubernetes::resources;
pub(super) use running::{Content, Filter, Node, Running};

/// A plugin of ours in a file.
#[derive(Clone)]
pub(super) struct Plugin {
    /// What holds its configuration, for people.
    pub(super) holder: String,
    pub(super) form: Form,
    /// The text that its places are in.
    pub(super) source: Rc<Source>,
    /// The configuration.
    pub(super) document: Located,
    /// Which of the resources it stands in.
    pub(super) resource: Option<usize>,
    /// What the module makes of it.
    pub(super) loaded: Loaded,
    /// The connection manager that the filter runs in, if the file shows it.
    pub(super) manager: Option<Manager>,
    /// What stands beside it, if that is Envoy's own configuration.
    pub(super) chain: Option<Rc<Chain>>,
    /// The variables of the Wasm VM's environment, if the file shows them.
    pub(super) environment: Option<Vec<String>>,
}

impl Plugin {
    /// A problem at its place.
    pub(super) fn diagnostic(&self, problem: &Problem) -> Diagnostic {
        Diagnostic::problem(problem, &self.source, self.document.place(&problem.path))
    }
}

/// What a configuration stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing: the file is the configuration.
    Alone,
    WasmPlugin,
    TrafficExtension,
    EnvoyExtensionPolicy,
    /// Envoy's own filter, whatever that stands in.
    EnvoyFilter,
}

/// What files hold.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) plugins: Vec<Plugin>,
    /// Objects without any field of ours: configurations only if there is no other.
    pub(super) perhaps: Vec<Plugin>,
    /// Plugins of ours whose configuration is missing or can't arrive, and what can't be read.
    pub(super) findings: Vec<Diagnostic>,
    /// The resources that stand around them.
    pub(super) resources: Vec<Resource>,
    /// Files that kustomizations name as patches: parts of resources.
    pub(super) patches: Vec<PathBuf>,
    /// What running Envoys have.
    pub(super) running: Vec<Running>,
    /// Resources and Envoy configurations, whatever is in them.
    pub(super) known: usize,
}

impl Contents {
    /// Adds what another file holds.
    pub(super) fn extend(&mut self, mut other: Contents) {
        for plugin in other.plugins.iter_mut().chain(&mut other.perhaps) {
            plugin.resource = plugin.resource.map(|index| index + self.resources.len());
        }
        self.resources.extend(other.resources);
        self.patches.extend(other.patches);
        self.plugins.extend(other.plugins);
        self.perhaps.extend(other.perhaps);
        self.findings.extend(other.findings);
        self.running.extend(other.running);
        self.known += other.known;
    }

    /// Every running Envoy: parts that don't say whose they are belong together.
    pub(super) fn take_running(&mut self) -> Vec<Running> {
        let mut whole = Vec::new();
        let mut parts: Option<Running> = None;
        for running in std::mem::take(&mut self.running) {
            if running.is_whole() {
                whole.push(running);
            } else if let Some(parts) = &mut parts {
                parts.join(running);
            } else {
                parts = Some(running);
            }
        }
        whole.extend(parts.filter(Running::shows_filters));
        whole
    }

    /// The plugins. Those of running Envoys only if there are no others, which they are compared with.
    pub(super) fn take_plugins(&mut self) -> Vec<Plugin> {
        if self.plugins.is_empty() && self.findings.is_empty() {
            for running in self.take_running() {
                running.into_contents(self);
            }
        }
        let certain = std::mem::take(&mut self.plugins);
        if certain.is_empty() && self.findings.is_empty() {
            return std::mem::take(&mut self.perhaps);
        }
        certain
    }
}

/// Everything of interest in a file.
pub(super) fn in_source(source: &Rc<Source>) -> Result<Contents, SyntaxError> {
    let mut contents = Contents::default();
    for one in source.documents()? {
        document(source, &one, 0, true, &mut contents)?;
    }
    Ok(contents)
}

/// What a document holds. `perhaps` tells whether it may be a configuration without any field of ours.
fn document(
    source: &Rc<Source>,
    document: &Located,
    depth: usize,
    perhaps: bool,
    contents: &mut Contents,
) -> Result<(), SyntaxError> {
    let running = running::read(source, document);
    if !running.is_empty() {
        contents.known += running.len();
        contents.running.extend(running);
        return Ok(());
    }
    if let Value::List(items) = &document.value {
        // A list of filters or resources.
        for item in items.iter() {
            if is_json_patch(item) {
                if ours::is_mentioned(document) {
                    contents
                        .findings
                        .push(kubernetes::kustomize(source, document));
                }
                return Ok(());
            }
            self::document(source, item, depth, false, contents)?;
        }
        return Ok(());
    }
    if kubernetes::is_resource(document) {
        let mut all = Vec::new();
        resources(document, None, &mut |resource, kind| {
            all.push((resource, kind));
        });
        contents.known += all.len();
        for (resource, kind) in all {
            kubernetes::resource(source, resource, kind, depth, contents)?;
        }
        return Ok(());
    }
    let before = (contents.plugins.len(), contents.findings.len());
    let merge = if depth == 0 { source.merge_key() } else { None };
    let place = envoy::Place::own_file("an Envoy configuration", merge);
    envoy::search(source, document, place, contents);
    let found = before != (contents.plugins.len(), contents.findings.len());
    if found || envoy::is_envoy(document) {
        contents.known += 1;
        return Ok(());
    }
    if !document.is_object() {
        return Ok(());
    }
    let certain = ours::has_fields(document);
    if !certain && !perhaps {
        return Ok(());
    }
    let plugin = Plugin {
        holder: "a plugin configuration".to_owned(),
        form: Form::Alone,
        source: Rc::clone(source),
        document: document.clone(),
        resource: None,
        loaded: config::load_document(&document.node()),
        manager: None,
        chain: None,
        environment: None,
    };
    if certain {
        contents.plugins.push(plugin);
    } else {
        contents.perhaps.push(plugin);
    }
    Ok(())
}

/// An entry of a JSON patch: `op`, `path` and `value`.
fn is_json_patch(item: &Located) -> bool {
    item.get("op").is_some() && item.get("path").is_some()
}
