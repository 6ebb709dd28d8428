//! What a running Envoy has: its config dump, or what `istioctl proxy-config` prints of it.
//!
//! The dump has more in it than what serves. An extension stays in it when no listener has it any longer, and a
//! configuration that a Wasm module refuses stands there as if it were loaded (seen on Envoy 1.40).

mod dump;

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use super::envoy::{self, Place};
use super::{Contents, Plugin};
use crate::cli::files::{Located, Source};
use crate::cli::report::Diagnostic;
use crate::cli::setup::Manager;
pub(super) use dump::read;

/// Extensions that are looked through for one that a listener names.
const MOST_EXTENSIONS: usize = 1_000;

/// Different filters of one name that are looked at. Two are rare.
const MOST_OF_A_NAME: usize = 16;

/// A running Envoy, or a part of what is known of it.
pub(in crate::cli) struct Running {
    pub(in crate::cli) source: Rc<Source>,
    pub(in crate::cli) place: Range<usize>,
    pub(in crate::cli) node: Option<Node>,
    /// None if the listeners aren't shown.
    listeners: Option<Vec<Listener>>,
    /// What came by discovery (ECDS). None if it isn't shown.
    extensions: Option<Vec<Extension>>,
}

/// Whose Envoy it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Node {
    /// A proxy of Istio's, with the labels of its pod.
    Istio {
        namespace: String,
        name: String,
        labels: Vec<(String, String)>,
    },
    /// A proxy of Envoy Gateway's, for these Gateways, as `namespace/name`. Empty if their listeners' names don't tell.
    EnvoyGateway { gateways: Vec<String> },
    /// Any other, with its id.
    Other { id: String },
}

/// A listener, and the HTTP filters in it that may be a plugin.
struct Listener {
    source: Rc<Source>,
    name: String,
    port: Option<u64>,
    is_static: bool,
    /// Whether it has a connection manager.
    is_http: bool,
    filters: Vec<Listed>,
    refused: Option<Refused>,
}

/// An entry of a connection manager's `http_filters`.
struct Listed {
    name: String,
    place: Range<usize>,
    manager: Manager,
    /// None if it comes by discovery.
    content: Option<Content>,
}

struct Extension {
    name: String,
    place: Range<usize>,
    content: Content,
    since: Option<String>,
    refused: Option<Refused>,
    source: Rc<Source>,
}

/// What a filter is.
pub(in crate::cli) enum Content {
    /// Ours, with its `envoy.extensions.wasm.v3.PluginConfig`.
    Plugin(Box<Plugin>, Option<Located>),
    /// Ours, with a configuration that can't be read.
    Unreadable(Vec<Diagnostic>),
    /// What Istio's agent puts in place of a module that it can't fetch: a filter that refuses every request.
    Closed,
    /// The same for `FAIL_OPEN`: a filter that does nothing.
    Open,
    /// Another's.
    Other,
}

/// An update that Envoy has refused.
#[derive(Clone)]
pub(in crate::cli) struct Refused {
    pub(in crate::cli) details: String,
    pub(in crate::cli) when: Option<String>,
    /// The names of the HTTP filters in what was refused.
    filters: Vec<String>,
}

/// An HTTP filter of a running Envoy.
pub(in crate::cli) struct Filter<'r> {
    pub(in crate::cli) name: &'r str,
    pub(in crate::cli) source: &'r Rc<Source>,
    pub(in crate::cli) place: Range<usize>,
    /// The listeners that have it. Empty if they aren't shown.
    pub(in crate::cli) listeners: Vec<&'r str>,
    /// The connection managers that it runs in.
    pub(in crate::cli) managers: Vec<&'r Manager>,
    /// None if its listeners wait for it, and it has never come.
    pub(in crate::cli) content: Option<&'r Content>,
    pub(in crate::cli) since: Option<&'r str>,
    /// The refused update of it, if Envoy shows it.
    pub(in crate::cli) refused: Option<&'r Refused>,
}

impl Running {
    /// Whether this is all of an Envoy: whose it is, and its listeners.
    pub(in crate::cli) fn is_whole(&self) -> bool {
        self.node.is_some() && self.listeners.is_some()
    }

    /// Adds another part of the same Envoy.
    pub(in crate::cli) fn join(&mut self, other: Running) {
        self.node = self.node.take().or(other.node);
        self.listeners = joined(self.listeners.take(), other.listeners);
        self.extensions = joined(self.extensions.take(), other.extensions);
    }

    /// Whether anything is known of its filters.
    pub(in crate::cli) fn shows_filters(&self) -> bool {
        self.listeners.is_some() || self.extensions.is_some()
    }

    /// Its HTTP listeners that come from a control plane, with their ports.
    pub(in crate::cli) fn http_listeners(&self) -> impl Iterator<Item = (&str, Option<u64>)> {
        self.listeners
            .iter()
            .flatten()
            .filter(|one| one.is_http && !one.is_static)
            .map(|one| (one.name.as_str(), one.port))
    }

    /// The refused update of a listener that would have brought a filter of such a name.
    pub(in crate::cli) fn refused(&self, is_it: &dyn Fn(&str) -> bool) -> Option<&Refused> {
        let listeners = self.listeners.iter().flatten();
        listeners
            .filter_map(|one| one.refused.as_ref())
            .find(|refused| refused.filters.iter().any(|name| is_it(name)))
    }

    /// The HTTP filters that serve: those in listeners, or the extensions if the listeners aren't shown.
    pub(in crate::cli) fn filters(&self) -> Vec<Filter<'_>> {
        let Some(listeners) = &self.listeners else {
            let extensions = self.extensions.iter().flatten();
            return extensions.map(Extension::filter).collect();
        };
        let mut found: Vec<Filter<'_>> = Vec::new();
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
        for listener in listeners {
            for listed in &listener.filters {
                let Some(filter) = self.filter(listener, listed) else {
                    continue;
                };
                let called = by_name.entry(filter.name).or_default();
                let known = called.iter().copied().find(|position| {
                    found
                        .get(*position)
                        .is_some_and(|known| known.is_same(&filter))
                });
                match known.and_then(|position| found.get_mut(position)) {
                    Some(known) => known.add(&filter),
                    None if called.len() >= MOST_OF_A_NAME => {}
                    None => {
                        called.push(found.len());
                        found.push(filter);
                    }
                }
            }
        }
        found
    }

    fn filter<'r>(&'r self, listener: &'r Listener, listed: &'r Listed) -> Option<Filter<'r>> {
        let mut filter = Filter {
            name: &listed.name,
            source: &listener.source,
            place: listed.place.clone(),
            listeners: Vec::new(),
            managers: Vec::new(),
            content: listed.content.as_ref(),
            since: None,
            refused: None,
        };
        if listed.content.is_none() {
            let extensions = self.extensions.as_ref()?;
            if let Some(extension) = extensions
                .iter()
                .take(MOST_EXTENSIONS)
                .find(|one| one.name == listed.name)
            {
                filter = extension.filter();
            }
        }
        filter.listeners.push(&listener.name);
        filter.managers.push(&listed.manager);
        Some(filter)
    }

    /// Its plugins of ours, each once, as if a file had them.
    pub(super) fn into_contents(self, contents: &mut Contents) {
        for filter in self.filters() {
            match filter.content {
                Some(Content::Plugin(plugin, _)) => {
                    let managers = filter
                        .managers
                        .iter()
                        .map(|manager| Some((*manager).clone()));
                    let none = filter.managers.is_empty().then_some(None);
                    contents
                        .plugins
                        .extend(managers.chain(none).map(|manager| Plugin {
                            manager,
                            ..Plugin::clone(plugin)
                        }));
                }
                Some(Content::Unreadable(findings)) => {
                    contents.findings.extend(findings.iter().cloned());
                }
                _ => {}
            }
        }
    }
}

fn joined<T>(one: Option<Vec<T>>, other: Option<Vec<T>>) -> Option<Vec<T>> {
    match (one, other) {
        (Some(mut one), Some(other)) => {
            one.extend(other);
            Some(one)
        }
        (one, other) => one.or(other),
    }
}

impl<'r> Filter<'r> {
    fn is_same(&self, other: &Filter<'_>) -> bool {
        let is_same_content = match (self.content, other.content) {
            (Some(one), Some(other)) => one.is_same(other),
            (one, other) => one.is_none() && other.is_none(),
        };
        self.name == other.name && is_same_content
    }

    fn add(&mut self, other: &Filter<'r>) {
        for name in &other.listeners {
            if !self.listeners.contains(name) {
                self.listeners.push(name);
            }
        }
        for manager in &other.managers {
            if !self.managers.contains(manager) {
                self.managers.push(manager);
            }
        }
    }
}

impl Content {
    fn is_same(&self, other: &Content) -> bool {
        match (self, other) {
            (Content::Plugin(one, _), Content::Plugin(other, _)) => {
                one.document.node() == other.document.node()
            }
            (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
        }
    }

    /// What a filter is, by its configuration.
    fn read(source: &Rc<Source>, wasm: &Located, place: &Place<'_>) -> Content {
        let mut contents = Contents::default();
        envoy::wasm_filter(source, wasm, place, &mut contents);
        match contents.plugins.pop() {
            Some(plugin) => Content::Plugin(Box::new(plugin), wasm.proto("config").cloned()),
            None if contents.findings.is_empty() => Content::Other,
            None => Content::Unreadable(contents.findings),
        }
    }
}

impl Listener {
    fn new(source: &Rc<Source>, is_static: bool) -> Self {
        Self {
            source: Rc::clone(source),
            name: String::new(),
            port: None,
            is_static,
            is_http: false,
            filters: Vec::new(),
            refused: None,
        }
    }
}

impl Extension {
    fn filter(&self) -> Filter<'_> {
        Filter {
            name: &self.name,
            source: &self.source,
            place: self.place.clone(),
            listeners: Vec::new(),
            managers: Vec::new(),
            content: Some(&self.content),
            since: self.since.as_deref(),
            refused: self.refused.as_ref(),
        }
    }
}

impl Node {
    /// Reads `envoy.config.core.v3.Node`. Istio's agent writes the pod's name, namespace and labels into its
    /// metadata.
    fn read(node: &Located) -> Node {
        let text = |path: &[&str]| node.at(path).and_then(Located::text).map(str::to_owned);
        let id = text(&["id"]).unwrap_or_default();
        if let Some(namespace) = text(&["metadata", "NAMESPACE"]) {
            let labels = node.at(&["metadata", "LABELS"]);
            return Node::Istio {
                namespace,
                name: text(&["metadata", "NAME"]).unwrap_or(id),
                labels: labels
                    .into_iter()
                    .flat_map(Located::fields)
                    .filter_map(|label| Some((label.name.clone(), label.value.text()?.to_owned())))
                    .collect(),
            };
        }
        Node::Other { id }
    }

    /// For people.
    pub(in crate::cli) fn title(&self) -> String {
        match self {
            Node::Istio {
                namespace, name, ..
            } => format!("{namespace}/{name}"),
            Node::EnvoyGateway { gateways } => gateways.join(", "),
            Node::Other { id } => id.clone(),
        }
    }
}
