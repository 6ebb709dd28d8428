//! What the files mean against what running gateways have loaded.

mod differences;
mod meant;
mod module;

use crate::cli::plugins::{Content, Filter, Node, Plugin, Running};
use crate::cli::report::{Code, Diagnostic, codes};
use crate::cli::setup::{Manager, Setup, Surroundings};
use meant::Meant;

/// Gateways that are compared, and filters of each. Real ones have a few filters.
const MOST_GATEWAYS: usize = 100;
const MOST_FILTERS: usize = 1_000;

/// What came of comparing.
#[derive(Default)]
pub(super) struct Compared {
    pub(super) diagnostics: Vec<Diagnostic>,
    /// What is loaded as meant, a line each.
    pub(super) as_meant: Vec<String>,
    /// The connection managers that a plugin runs in, by the plugin's position.
    managers: Vec<(usize, Manager)>,
}

impl Compared {
    /// The connection managers around a plugin, as a dump shows them.
    pub(super) fn surroundings(&self, plugin: usize) -> impl Iterator<Item = Surroundings> {
        let own = self.managers.iter().filter(move |(of, _)| *of == plugin);
        own.map(|(_, manager)| Surroundings {
            manager: manager.clone(),
            whole: true,
            certain: true,
        })
    }
}

/// Compares every plugin with every gateway that it is for.
pub(super) fn compare(plugins: &[Plugin], setup: &Setup<'_>, running: &[Running]) -> Compared {
    let mut compared = Compared::default();
    let meant: Vec<Meant<'_>> = plugins
        .iter()
        .map(|plugin| Meant::of(plugin, setup))
        .collect();
    if meant.is_empty() {
        return compared;
    }
    for gateway in running.iter().take(MOST_GATEWAYS) {
        let mut filters = gateway.filters();
        filters.truncate(MOST_FILTERS);
        let unnamed = filters.iter().enumerate();
        let unnamed = unnamed
            .filter(|(_, filter)| !meant.iter().any(|one| one.is_called(filter.name)))
            .map(|(position, _)| position)
            .collect();
        Gateway {
            running: gateway,
            title: title(gateway),
            filters,
            unnamed,
        }
        .compare(&meant, setup, &mut compared);
    }
    if let Some(left_out) = running.get(MOST_GATEWAYS) {
        compared.diagnostics.push(Diagnostic::warning(
            &codes::WHOSE_DUMP,
            &left_out.source,
            left_out.place.clone(),
            format!(
                "there are {} dumps here, of which {MOST_GATEWAYS} are compared",
                running.len()
            ),
            "give fewer at once",
        ));
    }
    compared
}

fn title(running: &Running) -> String {
    let name = running.node.as_ref().map(Node::title);
    match name.filter(|name| !name.is_empty()) {
        Some(name) => format!("gateway {name}"),
        None => format!("the gateway of {}", running.source.name),
    }
}

/// A running gateway.
struct Gateway<'r> {
    running: &'r Running,
    title: String,
    filters: Vec<Filter<'r>>,
    /// Those that no plugin of the files is called like.
    unnamed: Vec<usize>,
}

impl Gateway<'_> {
    fn compare(&self, meant: &[Meant<'_>], setup: &Setup<'_>, compared: &mut Compared) {
        let mut matched = vec![false; self.filters.len()];
        let mut not_told: Option<&Meant<'_>> = None;
        for (index, one) in meant.iter().enumerate() {
            let found = self.find(one, meant);
            match one.is_for(self.running.node.as_ref(), setup) {
                Some(false) => continue,
                // Nobody says whose Envoy it is: what is there by name is meant.
                None if found.is_empty() && meant.len() > 1 => {
                    not_told = not_told.or(Some(one));
                    continue;
                }
                _ => {}
            }
            for position in &found {
                if let Some(matched) = matched.get_mut(*position) {
                    *matched = true;
                }
            }
            let found: Vec<&Filter<'_>> = found
                .iter()
                .filter_map(|position| self.filters.get(*position))
                .collect();
            let managers = found.iter().flat_map(|filter| &filter.managers);
            for manager in managers {
                let known = (index, (*manager).clone());
                if !compared.managers.contains(&known) {
                    compared.managers.push(known);
                }
            }
            let before = compared.diagnostics.len();
            self.one(one, &found, &mut compared.diagnostics);
            if compared.diagnostics.len() == before
                && let Some(filter) = found.first()
            {
                let since = filter
                    .since
                    .map_or(String::new(), |since| format!(", since {since}"));
                compared.as_meant.push(format!(
                    "{}: {} is loaded as meant{since}",
                    self.title, one.title
                ));
            }
        }
        if let Some(one) = not_told {
            compared.diagnostics.push(Diagnostic::warning(
                &codes::WHOSE_DUMP,
                &self.running.source,
                self.running.place.clone(),
                format!(
                    "nothing here says whose Envoy this is, so that {} may be missing or meant for others",
                    one.title
                ),
                "give the whole /config_dump, or add what istioctl proxy-config bootstrap POD -o json prints",
            ));
            return;
        }
        for (filter, matched) in self.filters.iter().zip(matched) {
            if !matched {
                self.not_meant(filter, meant, &mut compared.diagnostics);
            }
        }
    }

    /// The filters that are a plugin: by their name, or one with the same configuration that isn't another's by its
    /// name. A plugin without a name of its own is compared with any filter of ours if it is the only one.
    fn find(&self, one: &Meant<'_>, all: &[Meant<'_>]) -> Vec<usize> {
        let positions = |is_it: &dyn Fn(&Filter<'_>) -> bool| -> Vec<usize> {
            let filters = self.filters.iter().enumerate();
            filters
                .filter(|(_, filter)| is_it(filter))
                .map(|(position, _)| position)
                .collect()
        };
        for name in &one.names {
            let found = positions(&|filter| name.is_of(filter.name));
            if !found.is_empty() {
                return found;
            }
        }
        let is_ours = |filter: &Filter<'_>| {
            matches!(
                filter.content,
                Some(Content::Plugin(..) | Content::Unreadable(_))
            )
        };
        let unnamed = self.unnamed.iter().copied();
        let found: Vec<usize> = unnamed
            .filter(|position| {
                let filter = self.filters.get(*position);
                match filter.and_then(|filter| filter.content) {
                    Some(Content::Plugin(plugin, _)) => one.is_same(plugin),
                    _ => false,
                }
            })
            .collect();
        if !found.is_empty() || !one.names.is_empty() || all.len() > 1 {
            return found;
        }
        positions(&is_ours)
    }

    /// What is wrong with a plugin here.
    fn one(&self, one: &Meant<'_>, found: &[&Filter<'_>], diagnostics: &mut Vec<Diagnostic>) {
        let refused = self
            .running
            .refused(&|name| one.is_called(name))
            .or_else(|| found.iter().find_map(|filter| filter.refused));
        if let Some(refused) = refused {
            let when = refused
                .when
                .as_ref()
                .map_or(String::new(), |when| format!(" at {when}"));
            let after = if found.is_empty() {
                "; nothing of it is loaded"
            } else {
                "; what was there before serves on"
            };
            diagnostics.push(one.error(
                &codes::UPDATE_REFUSED,
                one.place(),
                format!(
                    "{} has refused an update with {} in it{when}: {}{after}",
                    self.title, one.title, refused.details
                ),
                "mend what it says; the proxy's log has the field",
            ));
            return;
        }
        if found.is_empty() {
            diagnostics.push(one.error(
                &codes::NOT_LOADED,
                one.place(),
                format!("{} isn't loaded in {}", one.title, self.title),
                "if it has just been applied, take the dump again; else istioctl proxy-status and the control plane's log say why",
            ));
            return;
        }
        for filter in found {
            if let Some(finding) = self.filter(one, filter) {
                diagnostics.push(finding);
                return;
            }
        }
        let missing: Vec<&str> = self
            .running
            .http_listeners()
            .filter(|(_, port)| one.is_on(*port))
            .map(|(name, _)| name)
            .filter(|name| !found.iter().any(|filter| filter.listeners.contains(name)))
            .collect();
        if !missing.is_empty() && found.iter().any(|filter| !filter.listeners.is_empty()) {
            diagnostics.push(one.error(
                &codes::NOT_LOADED,
                one.place(),
                format!(
                    "{} isn't loaded in the listener {} of {}",
                    one.title,
                    missing.join(", "),
                    self.title
                ),
                "requests to this listener pass without it: see match, and whether the dump is newer than the listener",
            ));
        }
    }

    /// What is wrong with a filter that is a plugin.
    fn filter(&self, one: &Meant<'_>, filter: &Filter<'_>) -> Option<Diagnostic> {
        let Some(content) = filter.content else {
            return Some(one.error(
                &codes::NOT_LOADED,
                one.place(),
                format!(
                    "{} waits for {}, which has never come",
                    self.title, one.title
                ),
                "the control plane's log says why it doesn't send it; until then its listeners answer nothing",
            ));
        };
        let fetched = "see `error in converting the wasm config to local` in the proxy's log; the agent tries again when the resource changes: kubectl annotate it";
        match content {
            Content::Closed => Some(one.error(
                &codes::MODULE_NOT_FETCHED,
                one.module_place(),
                format!(
                    "{} couldn't fetch the module of {}, and answers every request with 403",
                    self.title, one.title
                ),
                fetched,
            )),
            Content::Open => Some(one.error(
                &codes::MODULE_NOT_FETCHED,
                one.module_place(),
                format!(
                    "{} couldn't fetch the module of {}, and lets every request pass without it",
                    self.title, one.title
                ),
                fetched,
            )),
            Content::Other => Some(one.error(
                &codes::NOT_LOADED,
                one.place(),
                format!(
                    "what is called {} in {} isn't this filter",
                    filter.name, self.title
                ),
                "see what else has this name",
            )),
            Content::Unreadable(findings) => {
                let why = findings.first().map_or("", |finding| &finding.message);
                Some(one.error(
                    &codes::LOADED_DIFFERENTLY,
                    one.place(),
                    format!("{} has {} differently: {why}", self.title, one.title),
                    "apply what is in the file",
                ))
            }
            Content::Plugin(plugin, config) => self
                .against(one, plugin)
                .or_else(|| {
                    let other = one.other_module(config.as_ref()?)?;
                    Some(one.error(
                        &codes::OTHER_MODULE,
                        one.module_place(),
                        format!("{} runs another module for {}: {other}", self.title, one.title),
                        "if the resource has just been applied, take the dump again; else see imagePullPolicy, and the proxy's log",
                    ))
                })
                .or_else(|| {
                    let other = one.other_settings(plugin, config.as_ref()?)?;
                    Some(one.error(
                        &codes::LOADED_DIFFERENTLY,
                        one.place(),
                        format!("{} has {} differently: {other}", self.title, one.title),
                        "if the resource has just been applied, take the dump again",
                    ))
                }),
        }
    }

    /// What is wrong with the configuration that is loaded for a plugin.
    fn against(&self, one: &Meant<'_>, loaded: &Plugin) -> Option<Diagnostic> {
        let differences = if one.is_same(loaded) {
            Vec::new()
        } else {
            differences::between(&one.plugin.document.node(), &loaded.document.node())
        };
        let first = differences.first();
        let place = first.map_or_else(|| one.place(), |(path, _)| one.plugin.document.place(path));
        let listed = differences::listed(&differences);
        // Envoy shows a configuration that the module refuses as if it were loaded.
        if let Some(error) = loaded.loaded.errors().next() {
            let other = if differences.is_empty() {
                String::new()
            } else {
                format!("; the file has another: {listed}")
            };
            return Some(one.error(
                &codes::UPDATE_REFUSED,
                place,
                format!(
                    "{} has got a configuration for {} that the module refuses ({error}), so that an older one serves or none{other}",
                    self.title, one.title
                ),
                "apply a right configuration; the dump shows the refused one as if it were loaded",
            ));
        }
        let (path, _) = first?;
        let mut finding = one.error(
            &codes::LOADED_DIFFERENTLY,
            place,
            format!("{} runs {} with {listed}", self.title, one.title),
            "if the file has just been applied, take the dump again; else apply it, and look for a refusal in the proxy's log",
        );
        finding.path = path.to_string();
        Some(finding)
    }

    /// A plugin of ours that no file has.
    fn not_meant(
        &self,
        filter: &Filter<'_>,
        meant: &[Meant<'_>],
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        if !matches!(
            filter.content,
            Some(Content::Plugin(..) | Content::Unreadable(_))
        ) {
            return;
        }
        let named = |one: &&Meant<'_>| one.is_called(filter.name);
        let why = match meant.iter().find(named) {
            Some(one) => format!("{} isn't for it", one.title),
            None => "no file has it".to_owned(),
        };
        diagnostics.push(Diagnostic::warning(
            &codes::LOADED_NOT_MEANT,
            filter.source,
            filter.place.clone(),
            format!("{} has {} loaded, and {why}", self.title, filter.name),
            "give the files of all plugins of this gateway, or delete the resource that it comes from",
        ));
    }
}

/// Whether a node is of a kind that resources of Istio's or Envoy Gateway's are for.
fn is_of_a_control_plane(node: &Node) -> bool {
    !matches!(node, Node::Other { .. })
}

impl Meant<'_> {
    fn error(
        &self,
        code: &'static Code,
        place: std::ops::Range<usize>,
        message: String,
        help: &str,
    ) -> Diagnostic {
        Diagnostic::error(code, &self.plugin.source, place, message, help)
    }
}
