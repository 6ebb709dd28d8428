//! The `trusted-lb` command. None of its dependencies reach the module.

mod args;
mod check;
pub mod connection_manager;
mod explain;
mod files;
mod migrate;
mod names;
mod native;
mod plugins;
mod reference;
mod render;
mod report;
mod schema;
mod setup;
mod yaml;

use std::fmt::Write as _;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use clap::{CommandFactory, Parser};

use crate::config::Config;
use crate::engine::Engine;
use args::{Arguments, Command, ExplainArgs, Format};
use connection_manager::Certificate;
use explain::{Described, Report};
use plugins::Plugin;
use setup::{Manager, Resource, Setup};

/// Version, and commit where the build knew it.
const VERSION: &str = match option_env!("TRUSTED_LB_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// Stands for the token of the early header mutation where the environment has none.
const HELPER_TOKEN: &str = "token-of-the-early-header-mutation";

/// A configuration is invalid.
const INVALID: u8 = 1;
/// The command was used wrongly, or a file can't be read or written.
const USAGE: u8 = 2;

/// Errors that are shown of a configuration that is needed right.
const MOST_ERRORS: usize = 100;

/// What went wrong, said in one line.
struct Failure {
    code: u8,
    message: String,
}

/// Runs the command.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Explain(arguments) => explain(*arguments),
        Command::Render(arguments) => render::run(&arguments),
        Command::Migrate(arguments) => migrate::run(&arguments),
        Command::Schema => done(&format!(
            "{:#}
",
            schema::schema()
        )),
        Command::Reference => done(&reference::markdown()),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "trusted-lb", &mut text);
            done(&String::from_utf8_lossy(&text))
        }
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("error: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// What `trusted-lb check` says of a text, in every format: for fuzzing, which has no files.
#[must_use]
pub fn check_text(text: &str) -> String {
    check::of_text(text)
}

/// A script on one request, as `migrate --compare` runs it: for a test that runs the same in Envoy.
pub mod lua_filter {
    pub use super::migrate::{NOT_RUN, Ran, Seen, run_script};
}

/// What `trusted-lb migrate` makes of a text: the manifests, and what it says besides. For fuzzing, which has no files.
#[must_use]
pub fn migrate_text(text: &str) -> (String, String) {
    migrate::of_text(text)
}

/// A listener's fields that decide as this configuration does, by Envoy's own filters: for the bench, which starts many.
///
/// # Errors
/// Everything of the configuration that they can't say.
pub fn native_listener(
    config: &Config,
    chains: bool,
) -> Result<serde_json::Value, Vec<crate::config::Problem>> {
    native::listener(config, chains)
}

fn usage(message: String) -> Failure {
    Failure {
        code: USAGE,
        message,
    }
}

/// Prints the whole answer.
fn done(text: &str) -> Result<u8, Failure> {
    print(text)?;
    Ok(0)
}

/// Prints a part of the answer. A reader that has gone away (`| head`) is no failure, a full disk is.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(usage(format!("the answer can't be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Whether the answer may have colours in it.
fn colours() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal()
        && !is_set("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// The connection manager that the resources around a plugin make, if it is the same for all of its pods. Of the
/// filters that a configuration counts on they may not be the whole: those are taken to be there.
fn around(plugin: &Plugin, resources: &[Resource]) -> Option<Manager> {
    let surroundings = Setup::new(resources).surroundings(plugin);
    match surroundings.as_slice() {
        [one] => Some(Manager {
            early_header_mutation: true,
            ..one.manager.clone()
        }),
        _ => None,
    }
}

/// The one configuration of a file, valid.
fn only_configuration(path: &Path) -> Result<(Plugin, Config), Failure> {
    let (plugin, config, _) = configuration_among(path)?;
    Ok((plugin, config))
}

/// The one configuration of a file, valid, and the resources there.
fn configuration_among(path: &Path) -> Result<(Plugin, Config, Vec<Resource>), Failure> {
    let source = Rc::new(files::one(path).map_err(usage)?);
    let invalid = |message: String| Failure {
        code: INVALID,
        message,
    };
    let mut contents = plugins::in_source(&source).map_err(|error| {
        let diagnostic = report::Diagnostic::syntax(&source, error);
        invalid(report::text(&diagnostic, false))
    })?;
    let mut plugins = contents.take_plugins();
    if let Some(finding) = contents.findings.first() {
        return Err(invalid(report::text(finding, false)));
    }
    // A config dump holds the same listener in several places.
    let mut configurations = Vec::new();
    plugins.retain(|plugin| {
        let new = !configurations.contains(&plugin.document.node());
        if new {
            configurations.push(plugin.document.node());
        }
        new
    });
    let mut plugins = plugins.into_iter();
    let Some(plugin) = plugins.next() else {
        return Err(invalid(format!(
            "{}: there is no configuration of trusted-lb in this file",
            source.name
        )));
    };
    if let Some(second) = plugins.next() {
        return Err(invalid(format!(
            "{}: there is more than one configuration in this file: {} (line {}) and {} (line {})",
            source.name,
            plugin.holder,
            source.line(plugin.document.span.start),
            second.holder,
            source.line(second.document.span.start)
        )));
    }
    let Some(config) = plugin.loaded.config.clone() else {
        let errors: Vec<_> = plugin.loaded.errors().collect();
        let mut shown: Vec<String> = errors
            .iter()
            .take(MOST_ERRORS)
            .map(|problem| report::text(&plugin.diagnostic(problem), false))
            .collect();
        if errors.len() > MOST_ERRORS {
            shown.push(format!("and {} more", errors.len() - MOST_ERRORS));
        }
        return Err(invalid(format!(
            "the configuration is invalid\n\n{}",
            shown.join("\n\n")
        )));
    };
    Ok((plugin, config, contents.resources))
}

fn explain(arguments: ExplainArgs) -> Result<u8, Failure> {
    let (plugin, config, resources) = configuration_among(&arguments.file)?;
    if let Some(name) = &arguments.virtual_service
        && !name.contains('/')
    {
        return Err(usage("--virtual-service: write NAMESPACE/NAME".to_owned()));
    }
    let native = native::command(&plugin).ok();
    let around = around(&plugin, &resources);
    let of_pods = plugin.manager.is_none() && around.is_some();
    let manager = plugin.manager.or(around);
    let shown = manager.as_ref().filter(|_| of_pods);
    let hops = shown.map_or(0, |manager| manager.xff_num_trusted_hops);
    let hops = Some(hops).filter(|hops| *hops > 0 && arguments.num_trusted_proxies.is_none());
    let described = Described {
        peer: arguments.peer,
        forwarded_for: arguments.xff,
        port: arguments.port,
        method: arguments.method,
        scheme: arguments.url.scheme,
        authority: arguments.url.authority,
        path: arguments.url.path,
        headers: arguments.headers,
        http2: arguments.http2,
        tls: arguments.tls,
        certificate: Certificate {
            uri: arguments.client_cert_uri,
            dns: arguments.client_cert_dns,
            // As Envoy tells it.
            sha256: arguments
                .client_cert_sha256
                .map(|digest| digest.replace(':', "").to_ascii_lowercase()),
        },
        claimed: arguments.proxy_protocol,
        manager,
        trusted_hops: arguments.num_trusted_proxies,
        virtual_host: arguments.virtual_host,
        route: arguments.route,
        virtual_service: arguments.virtual_service,
    };
    let helper_token = config
        .helper_token
        .as_ref()
        .map(|token| token.from_env.as_str());
    let given = |name: &str| {
        let of_arguments = arguments
            .environment
            .iter()
            .find(|(known, _)| known == name);
        of_arguments
            .map(|(_, value)| value.clone())
            .or_else(|| std::env::var(name).ok())
    };
    let environment = |name: &str| {
        // The early header mutation that is played here writes this token, whatever the real one is.
        if Some(name) == helper_token {
            return Some(HELPER_TOKEN.to_owned());
        }
        given(name).or_else(|| Some("a secret that is not given here".to_owned()))
    };
    let engine = Engine::new(&config, &environment).map_err(|problems| Failure {
        code: INVALID,
        message: problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n"),
    })?;
    let received = described.received(&config);
    let report = Report::new(&config, &engine, &received)
        .natively(native)
        .with_hops_of_file(hops);
    if arguments.format == Format::Json {
        return done(&format!("{:#}\n", serde_json::json!(report)));
    }
    let mut out = report.text();
    for name in render::environment(&config) {
        if Some(name) != helper_token && given(name).is_none() {
            let _ = write!(
                out,
                "\nnote: {name} is not set here, so that no header equals it; give --env {name}=...\n"
            );
        }
    }
    done(&out)
}
