//! `trusted-lb check`: what is wrong with configurations, before a gateway sees them.

mod around;
mod envelope;
mod loaded;
mod manager;
mod overridden;
mod run;

use std::rc::Rc;

use super::args::CheckTarget;
use super::files::{Located, Source};
use super::native;
use super::plugins::{self, Contents, Plugin};
use super::report::{Diagnostic, codes};
use super::setup::Setup;
use crate::config::{self, Config, Path, Problem, Severity};

pub(super) use run::{of_text, run};

/// Problems shown of one configuration, and of everything. What is behind them is counted.
const MOST_OF_ONE: usize = 100;
const MOST_OF_ALL: usize = 1_000;

/// Plugins that are judged with what stands around them.
const MOST_WITH_SURROUNDINGS: usize = 1_000;

/// Plugins times resources: each is looked at beside every resource.
const MOST_PAIRS: usize = 10_000_000;

/// Selectors that are held against workloads.
const MOST_SELECTIONS: usize = 50_000_000;

/// What came of checking some files.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Problems of configurations that aren't among the diagnostics, because there are so many.
    pub(super) left_out: Vec<LeftOut>,
    /// The file of each configuration that was found.
    pub(super) configurations: Vec<Rc<Source>>,
    /// `routes` entries that leave the routes' own timeouts and retries alone.
    pub(super) suggested_routes: Vec<String>,
    /// The commands that write configurations as Envoy's own filters, for those that they can say.
    pub(super) native: Vec<String>,
    /// What running gateways have loaded as it is meant, a line each.
    pub(super) as_meant: Vec<String>,
}

/// Problems of one configuration that aren't shown.
pub(super) struct LeftOut {
    pub(super) source: Rc<Source>,
    pub(super) errors: usize,
    pub(super) warnings: usize,
}

/// Checks every configuration in these texts.
pub(super) fn sources(sources: &[Rc<Source>], target: CheckTarget) -> Checked {
    let mut checked = Checked::default();
    let mut all = Contents::default();
    for source in sources {
        match plugins::in_source(source) {
            Ok(contents) => all.extend(contents),
            Err(error) => checked.diagnostics.push(Diagnostic::syntax(source, error)),
        }
    }
    let mut plugins = all.take_plugins();
    let running = all.take_running();
    checked.diagnostics.append(&mut all.findings);
    let setup = Setup::new(&all.resources);
    checked
        .diagnostics
        .extend(envelope::findings(&setup, &all.patches));
    // Among many manifests most have none. Not one in all of them is a mistake.
    if let Some(source) = sources.last()
        && plugins.is_empty()
        && checked.diagnostics.is_empty()
    {
        checked
            .diagnostics
            .push(nothing_found(source, all.known > 0));
    }
    let near = plugins
        .get(..most_with_surroundings(&setup))
        .unwrap_or(&plugins);
    let near_count = near.len();
    if let Some(left_out) = plugins.get(near_count) {
        checked
            .diagnostics
            .push(too_many(left_out, plugins.len(), all.resources.len()));
    }
    checked.diagnostics.extend(around::findings(near, &setup));
    let mut compared = loaded::compare(near, &setup, &running);
    checked.diagnostics.append(&mut compared.diagnostics);
    checked.as_meant = std::mem::take(&mut compared.as_meant);
    let mut overrides = overridden::Found::new(&all.resources);
    for (index, plugin) in plugins.iter_mut().enumerate() {
        checked.configurations.push(Rc::clone(&plugin.source));
        let is_near = index < near_count;
        // Whether they can be said natively is asked of all of them only by who wants to know.
        let native = (is_near || target == CheckTarget::Native).then(|| native::command(plugin));
        match native.unwrap_or(Err(Vec::new())) {
            Ok(command) => checked.native.push(command),
            Err(against) if target == CheckTarget::Native => {
                let against = against.iter().take(MOST_OF_ONE);
                checked
                    .diagnostics
                    .extend(against.map(|problem| Diagnostic {
                        code: &codes::NOT_NATIVE,
                        ..plugin.diagnostic(problem)
                    }));
            }
            Err(_) => {}
        }
        let mut surroundings = if is_near {
            setup.surroundings(plugin)
        } else {
            Vec::new()
        };
        surroundings.extend(compared.surroundings(index));
        let mut problems = std::mem::take(&mut plugin.loaded.problems);
        if let Some(config) = &plugin.loaded.config {
            let holder = plugin.resource.and_then(|index| all.resources.get(index));
            manager::rules(config, &surroundings, &mut problems);
            spoofable_signals(config, &mut problems);
            missing_variables(plugin, &mut problems);
            if is_near {
                overrides.of(config, holder);
            }
        }
        checked.add(plugin, problems);
    }
    checked.diagnostics.append(&mut overrides.diagnostics);
    checked.suggested_routes = overrides.routes;
    checked
}

impl Checked {
    /// Adds the problems of a configuration: in the order of the text, or the errors first if they are too many.
    fn add(&mut self, plugin: &Plugin, mut problems: Vec<Problem>) {
        if problems.len() > MOST_OF_ONE {
            problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
            let rest = problems.split_off(MOST_OF_ONE);
            let errors = rest
                .iter()
                .filter(|problem| problem.severity == Severity::Error)
                .count();
            self.left_out.push(LeftOut {
                source: Rc::clone(&plugin.source),
                errors,
                warnings: rest.len() - errors,
            });
        }
        self.diagnostics
            .extend(problems.iter().map(|problem| plugin.diagnostic(problem)));
    }
}

/// How many plugins are judged with what stands around them, so that this ends in seconds.
fn most_with_surroundings(setup: &Setup<'_>) -> usize {
    if setup.selections() > MOST_SELECTIONS {
        return 0;
    }
    MOST_WITH_SURROUNDINGS.min(MOST_PAIRS / setup.resources.len().max(1))
}

/// That only some plugins are judged with what stands around them.
fn too_many(first: &Plugin, plugins: usize, resources: usize) -> Diagnostic {
    Diagnostic::warning(
        &codes::TOO_MANY_PLUGINS,
        &first.source,
        first.document.start(),
        format!(
            "there are {plugins} plugins of ours and {resources} resources here: from this one on only their configurations are judged, not what stands around them"
        ),
        "check the files of each gateway by themselves",
    )
}

/// That there is nothing to check. Among resources of others that may be so: a hook gives whatever has changed.
fn nothing_found(source: &Rc<Source>, has_others: bool) -> Diagnostic {
    let mut finding = Diagnostic::error(
        &codes::NOTHING_FOUND,
        source,
        0..0,
        "there is no configuration of trusted-lb in this file",
        "give a plugin configuration, a WasmPlugin, TrafficExtension, EnvoyFilter or EnvoyExtensionPolicy, or an Envoy \
         bootstrap or config dump",
    );
    if source.text.contains("envoy_on_request") {
        finding.help =
            Some("this is a Lua filter: trusted-lb migrate writes what replaces it".to_owned());
    }
    if has_others {
        finding.severity = Severity::Warning;
    }
    finding
}

/// Signals that their own load balancer doesn't overwrite.
fn spoofable_signals(config: &Config, problems: &mut Vec<Problem>) {
    for (path, signal) in signals(config) {
        if signal.name.as_str() == "fastly-ssl" {
            problems.push(Problem {
                severity: Severity::Warning,
                path,
                message: "Fastly passes a client's own fastly-ssl on, so that every client of Fastly's can say https"
                    .to_owned(),
                help: Some(
                    "let VCL set a header of your own from fastly_info.edge.is_tls, as in examples/load-balancers/fastly"
                        .to_owned(),
                ),
            });
        }
    }
}

/// Variables that the configuration reads and that the VM beside it isn't given: the gateway would refuse it.
fn missing_variables(plugin: &Plugin, problems: &mut Vec<Problem>) {
    let Some(environment) = &plugin.environment else {
        return;
    };
    let mut read = Vec::new();
    variables(&plugin.document, &Path::root(), &mut read);
    for (name, path) in read {
        if environment.iter().any(|known| known == name) {
            continue;
        }
        problems.push(Problem {
            severity: Severity::Error,
            path,
            message: format!(
                "the Wasm VM here gets no environment variable {name}, so the gateway would refuse the configuration"
            ),
            help: Some(format!(
                "in a WasmPlugin write vmConfig: {{env: [{{name: {name}, valueFrom: HOST}}]}}, in an Envoy \
                 configuration vm_config: {{environment_variables: {{host_env_keys: [{name}]}}}}"
            )),
        });
    }
}

/// The variables that `fromEnv` names, with their places.
fn variables<'l>(located: &'l Located, path: &Path, read: &mut Vec<(&'l str, Path)>) {
    for field in located.fields() {
        let path = path.field(&field.name);
        if field.name == "fromEnv" {
            read.extend(field.value.text().map(|name| (name, path.clone())));
            for (index, item) in field.value.items().iter().enumerate() {
                read.extend(item.text().map(|name| (name, path.item(index))));
            }
        } else {
            variables(&field.value, &path, read);
        }
    }
    for (index, item) in located.items().iter().enumerate() {
        variables(item, &path.item(index), read);
    }
}

/// Every signal, with its place.
pub(super) fn signals(config: &Config) -> impl Iterator<Item = (Path, &config::Signal)> {
    let of_rules = config
        .trusted_load_balancers
        .iter()
        .enumerate()
        .map(|(index, rule)| {
            let path = Path::root().field("trustedLoadBalancers").item(index);
            (path, &rule.forwarded_proto)
        });
    let of_routes = config
        .routes
        .iter()
        .enumerate()
        .filter_map(|(index, route)| {
            let path = Path::root().field("routes").item(index);
            Some((path, route.forwarded_proto.as_ref()?))
        });
    of_rules.chain(of_routes).flat_map(|(path, proto)| {
        let from = path.field("forwardedProto").field("from");
        let place = move |(position, signal)| (from.item(position), signal);
        proto.from.iter().enumerate().map(place)
    })
}
