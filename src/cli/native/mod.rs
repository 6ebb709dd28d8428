//! The same configuration by Envoy's own filters: `trusted-lb render native`.
//!
//! Configuration → [`plan`] (what has to be done, in the cheapest form that says the same, or what can't be said) →
//! [`emit`] (in the form that people apply). Nothing weaker than the configuration is ever written: what can't be said is a
//! [`Refusal`].

mod cel;
mod chains;
mod connection;
mod emit;
mod expression;
mod filter_chain;
mod filters;
mod lines;
mod one_chain;
mod options;
mod plan;
mod policy;
mod predicate;
mod refusal;
mod removal;
mod variants;

pub(super) use options::NativeArgs;
use refusal::Refusal;

use super::files::STDIN;
use super::plugins::{Form, Plugin};
use super::{Failure, INVALID, MOST_ERRORS, done, only_configuration, report, usage};
use crate::config::{Config, Problem};
use options::{Options, Output};

/// Prints the configuration of a file as Envoy's own filters, or everything that stands against it.
pub(super) fn run(args: &NativeArgs) -> Result<u8, Failure> {
    let options = Options::of(args).map_err(usage)?;
    let (plugin, config) = only_configuration(&args.file)?;
    let plan = plan::of(&config, options).map_err(|refusals| refused(&plugin, &refusals))?;
    done(&emit::manifest(args, &plan, &wishes(args, &config, &plan)))
}

/// The fields of a standalone Envoy's listener, with a filter chain for each load balancer or one for everybody that speaks
/// HTTP/1.
///
/// # Errors
/// Everything that stands against it.
pub(super) fn listener(config: &Config, chains: bool) -> Result<serde_json::Value, Vec<Problem>> {
    let options = Options::standalone(chains);
    let plan = plan::of(config, options);
    plan.map(|plan| emit::listener(&plan))
        .map_err(|refusals| refusals.iter().map(Refusal::problem).collect())
}

/// The command that writes a plugin's configuration as Envoy's own filters.
///
/// # Errors
/// What stands against it, whatever is chosen. Nothing of that, if the configuration has an error of its own.
pub(super) fn command(plugin: &Plugin) -> Result<String, Vec<Problem>> {
    let Some(config) = &plugin.loaded.config else {
        return Err(Vec::new());
    };
    let output = match plugin.form {
        Form::WasmPlugin | Form::TrafficExtension => Output::Envoyfilter,
        Form::EnvoyFilter if plugin.resource.is_some() => Output::Envoyfilter,
        Form::EnvoyExtensionPolicy => Output::Envoypatchpolicy,
        Form::EnvoyFilter | Form::Alone => Output::Envoy,
    };
    let mut against = Vec::new();
    for options in Options::attempts(output) {
        match plan::of(config, options) {
            Ok(_) => {
                let name = word(&plugin.source.name);
                let options = options.written(output);
                return Ok(format!("trusted-lb render native {name}{options}"));
            }
            Err(refusals) => against = refusals,
        }
    }
    Err(against.iter().map(Refusal::problem).collect())
}

/// A file's name as a shell takes it.
fn word(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:,".contains(c);
    match name {
        STDIN => "-".to_owned(),
        _ if name.chars().all(plain) => name.to_owned(),
        _ => format!("'{}'", name.replace('\'', "'\\''")),
    }
}

/// Everything that stands against it, each with its place.
fn refused(plugin: &Plugin, refusals: &[Refusal]) -> Failure {
    let mut shown = vec![format!(
        "{}: Envoy's own filters can't say this configuration",
        plugin.source.name
    )];
    shown.extend(
        refusals
            .iter()
            .take(MOST_ERRORS)
            .map(|refusal| report::text(&plugin.diagnostic(&refusal.problem()), false)),
    );
    Failure {
        code: INVALID,
        message: shown.join("\n"),
    }
}

/// What can't be written with it, or should be known.
fn wishes(args: &NativeArgs, config: &Config, plan: &plan::Plan) -> Vec<String> {
    let mut wishes = Vec::new();
    let mut wish = |text: &str| wishes.push(text.to_owned());
    match args.output {
        Output::Envoy => wish(
            "these are fields of a listener: add the routes, the other HTTP filters behind these, and transport sockets",
        ),
        Output::Envoyfilter => wish(
            "no other EnvoyFilter inserts an HTTP filter in front of these, and none writes the same fields of the connection \
             manager",
        ),
        Output::Envoypatchpolicy => wish(
            "no ClientTrafficPolicy of this Gateway may set earlyRequestHeaders or clientIPDetection: these patches write the \
             same fields",
        ),
    }
    if let plan::Form::Chains(_) = &plan.form {
        wish("every filter chain needs the same routes and other filters");
    }
    if config.judges_schemes() {
        wish(
            "Envoy takes the right-most x-forwarded-for entry that a peer sends for the client's address (a trusted hop): the load \
             balancer has to append it, and policies by client address need the gateway closed to everybody else",
        );
        wish(
            "the direct peer is the TCP peer, also behind the PROXY protocol: no peerAddress is needed, and no early mutation or \
             network filter that was added for it",
        );
    }
    if policy::wants_no_internal_client(config) {
        wish(
            "no client counts as an internal one (internal_address_config), so that Envoy itself removes x-envoy-* headers that \
             clients send",
        );
    }
    wishes
}
