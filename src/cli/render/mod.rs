//! `trusted-lb render`: a complete manifest around a configuration.

mod admission_policy;
mod envoy;
mod envoy_gateway;
mod istio;

use std::rc::Rc;

use super::args::{RenderArgs, Target};
use super::files::Source;
use super::plugins::{self, Form, Plugin};
use super::{Failure, INVALID, done, native, only_configuration, yaml};
use crate::config::{Config, HeaderMatch, HeaderValueMatch, Node};

/// Prints a manifest.
pub(super) fn run(arguments: &RenderArgs) -> Result<u8, Failure> {
    let file = match &arguments.target {
        Target::Native(args) => return native::run(args),
        Target::Wasmplugin(args) | Target::Trafficextension(args) => &args.common.file,
        Target::Envoyfilter(args) => &args.filter.common.file,
        Target::Envoyextensionpolicy(args) => &args.common.file,
        Target::Envoy(args) => &args.common.file,
        Target::AdmissionPolicy(args) => {
            return done(&admission_policy::admission_policy(args));
        }
    };
    let (plugin, config) = only_configuration(file)?;
    let node = plugin.document.node();
    // A file that is the configuration and nothing else keeps its comments, if it reads the same where it is put.
    let own_text = own_text(&plugin).map(str::to_owned);
    let name = plugin.source.name.clone();
    // Large configurations needn't be in memory with all their places while what is written is read back.
    drop(plugin);
    let write = |text: Option<&str>| {
        let subject = Subject {
            config: &config,
            node: &node,
            text,
        };
        match &arguments.target {
            Target::Wasmplugin(args) => istio::wasm_plugin(args, &subject),
            Target::Trafficextension(args) => istio::traffic_extension(args, &subject),
            Target::Envoyfilter(args) => istio::envoy_filter(args, &subject),
            Target::Envoyextensionpolicy(args) => envoy_gateway::extension_policy(args, &subject),
            Target::Envoy(args) => envoy::http_filter(args, &subject, 0),
            Target::AdmissionPolicy(args) => admission_policy::admission_policy(args),
            // Rendered above, from no text.
            Target::Native(_) => String::new(),
        }
    };
    for text in own_text.as_deref().into_iter().map(Some).chain([None]) {
        let manifest = write(text);
        if reads_back(&manifest, &node) {
            return done(&manifest);
        }
    }
    Err(Failure {
        code: INVALID,
        message: format!(
            "{name}: this configuration can't be written as a manifest that reads the same"
        ),
    })
}

/// What a manifest is written around.
struct Subject<'c> {
    config: &'c Config,
    node: &'c Node,
    /// The configuration as its author wrote it, in YAML's block style.
    text: Option<&'c str>,
}

impl Subject<'_> {
    /// The configuration in YAML.
    fn yaml(&self, indent: usize) -> String {
        match self.text {
            Some(text) => yaml::indented(text, indent),
            None => yaml::block(self.node, indent),
        }
    }

    /// The configuration as JSON in a block scalar.
    fn json(&self, indent: usize) -> String {
        let json = format!("{:#}", yaml::json(self.node));
        yaml::indented(&yaml::printable(&json), indent)
    }
}

/// The text of a file that is a configuration in YAML and nothing else.
fn own_text(plugin: &Plugin) -> Option<&str> {
    let text = plugin.source.text.trim_start_matches('\u{feff}');
    let is_own = plugin.form == Form::Alone
        && !text.trim_start().starts_with(['{', '['])
        && !text.lines().any(|line| line.starts_with('%'));
    is_own.then_some(text)
}

/// Whether a manifest holds the configuration that it was written for, as kubectl and the module read it.
fn reads_back(manifest: &str, configuration: &Node) -> bool {
    let source = Rc::new(Source::new("what is rendered", manifest));
    let Ok(mut contents) = plugins::in_source(&source) else {
        return false;
    };
    let plugins = contents.take_plugins();
    let [plugin] = plugins.as_slice() else {
        return false;
    };
    plugin.loaded.config.is_some() && plugin.document.is(configuration)
}

/// `metadata` of a resource.
fn metadata(name: &str, namespace: &str) -> String {
    format!(
        "metadata:\n  name: {}\n  namespace: {}\n",
        yaml::text(name),
        yaml::text(namespace)
    )
}

/// The environment variables that a configuration reads, each once.
pub(super) fn environment(config: &Config) -> Vec<&str> {
    fn of<'c>(headers: &'c [HeaderMatch], names: &mut Vec<&'c str>) {
        for header in headers {
            if let HeaderValueMatch::FromEnv(variables) = &header.value {
                names.extend(variables.iter().map(crate::config::EnvName::as_str));
            }
        }
    }
    let mut names: Vec<&str> = Vec::new();
    names.extend(
        config
            .helper_token
            .iter()
            .map(|token| token.from_env.as_str()),
    );
    let rules = config
        .trusted_load_balancers
        .iter()
        .map(|rule| &rule.matches.request);
    let routes = config.routes.iter().map(|route| &route.matches.request);
    for request in rules.chain(routes) {
        of(&request.headers, &mut names);
        of(&request.not_headers, &mut names);
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(*name));
    names
}
