//! The `trusted-lb` command. None of its dependencies reach the module.

mod args;
mod check;
mod explain;
mod find;
mod migrate;
mod reference;
mod render;
mod report;
mod source;
mod yaml;

use std::fmt::Write as _;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use clap::{CommandFactory, Parser};

use crate::config::{self, Config, Severity};
use crate::engine::Engine;
use args::{Arguments, CheckArgs, Command, ExplainArgs, Format, MigrateArgs, RenderArgs};
use explain::{Certificate, Described};
use find::Found;
use source::Source;

/// Version, and commit where the build knew it.
const VERSION: &str = match option_env!("TRUSTED_LB_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// Stands for the token of the early header mutation where the environment has none.
const HELPER_TOKEN: &str = "token-of-the-early-header-mutation";

/// A configuration is invalid.
const INVALID: u8 = 1;
/// The command was used wrongly.
const USAGE: u8 = 2;

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
        Command::Check(arguments) => check(&arguments),
        Command::Explain(arguments) => explain(*arguments),
        Command::Render(arguments) => render(&arguments),
        Command::Migrate(arguments) => migrate(&arguments),
        Command::Schema => done(&format!("{:#}\n", reference::schema())),
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

/// Prints the whole answer.
#[allow(clippy::unnecessary_wraps)] // What every sub-command answers.
fn done(text: &str) -> Result<u8, Failure> {
    print(text);
    Ok(0)
}

fn print(text: &str) {
    // A reader that has gone away (`| head`) is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn read(path: &Path) -> Result<Source, Failure> {
    let usage = |message: String| Failure {
        code: USAGE,
        message,
    };
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| usage(format!("standard input: {error}")))?;
        return Ok(Source {
            name: "<stdin>".to_owned(),
            text,
        });
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| usage(format!("{}: {error}", path.display())))?;
    Ok(Source {
        name: path.display().to_string(),
        text,
    })
}

fn check(arguments: &CheckArgs) -> Result<u8, Failure> {
    let sources = arguments
        .files
        .iter()
        .map(|file| read(file))
        .collect::<Result<Vec<_>, _>>()?;
    let checked = check::sources(sources);
    let count = |severity| {
        checked
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == severity)
            .count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    if arguments.format == Format::Json {
        let list: serde_json::Value = checked
            .diagnostics
            .iter()
            .map(report::Diagnostic::json)
            .collect();
        print(&format!("{list:#}\n"));
    } else {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let mut out = String::new();
        for diagnostic in &checked.diagnostics {
            out.push_str(&diagnostic.text(colours));
            out.push_str("\n\n");
        }
        if !checked.suggested_routes.is_empty() {
            out.push_str("add to routes, in front of others that match the same requests:\n\n");
            out.push_str(&checked.suggested_routes.concat());
            out.push('\n');
        }
        let number =
            |count, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let _ = writeln!(
            out,
            "{}, {}, {}",
            number(checked.configurations, "configuration"),
            number(errors, "error"),
            number(warnings, "warning")
        );
        print(&out);
    }
    Ok(if errors > 0 { INVALID } else { 0 })
}

/// The one configuration of a file, valid.
fn only_configuration(path: &Path) -> Result<(Found, Config), Failure> {
    let source = Rc::new(read(path)?);
    let invalid = |message: String| Failure {
        code: INVALID,
        message,
    };
    let mut contents = find::in_source(&source).map_err(|(source, error)| {
        invalid(report::Diagnostic::syntax(source, error).text(false))
    })?;
    let mut configurations = contents.take_configurations().into_iter();
    if let Some(unusable) = contents.unusable.first() {
        return Err(invalid(format!(
            "{}: {} ({})",
            source.name, unusable.message, unusable.help
        )));
    }
    let Some(found) = configurations.next() else {
        return Err(invalid(format!(
            "{}: there is no configuration of trusted-lb in this file",
            source.name
        )));
    };
    if let Some(second) = configurations.next() {
        return Err(invalid(format!(
            "{}: there is more than one configuration in this file: {} and {}",
            source.name, found.holder, second.holder
        )));
    }
    let loaded = config::load_document(&found.document.node());
    let Some(config) = loaded.config else {
        let problems: Vec<String> = loaded
            .problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .map(|problem| check::located(problem, &found).text(false))
            .collect();
        return Err(invalid(format!(
            "the configuration is invalid\n\n{}",
            problems.join("\n\n")
        )));
    };
    Ok((found, config))
}

fn explain(arguments: ExplainArgs) -> Result<u8, Failure> {
    let (found, config) = only_configuration(&arguments.file)?;
    let usage = |message: &str| Failure {
        code: USAGE,
        message: message.to_owned(),
    };
    let (scheme, rest) = arguments
        .url
        .split_once("://")
        .filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
        .ok_or_else(|| usage("--url: write a whole URL, such as https://shop.example.com/cart"))?;
    let (authority, path) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    if let Some(name) = &arguments.virtual_service
        && !name.contains('/')
    {
        return Err(usage("--virtual-service: write NAMESPACE/NAME"));
    }
    let described = Described {
        peer: arguments.peer,
        forwarded_for: arguments.xff,
        port: arguments.port,
        method: arguments.method,
        scheme: scheme.to_owned(),
        authority: authority.to_owned(),
        path: if path.starts_with('?') {
            format!("/{path}")
        } else {
            path.to_owned()
        },
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
        manager: found.manager,
        trusted_hops: arguments.num_trusted_proxies,
        virtual_host: arguments.virtual_host,
        route: arguments.route,
        virtual_service: arguments.virtual_service,
    };
    let helper_token = config.helper_token.as_ref().map(config::EnvName::as_str);
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
    let seen = described.seen(&config);
    if arguments.format == Format::Json {
        return done(&format!("{:#}\n", explain::json(&config, &engine, &seen)));
    }
    let mut out = explain::text(&config, &engine, &seen);
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

fn render(arguments: &RenderArgs) -> Result<u8, Failure> {
    let (found, config) = only_configuration(&arguments.file)?;
    // A file that is the configuration and nothing else keeps its comments.
    let alone = found.holder == "a plugin configuration";
    let text = alone
        .then_some(found.source.text.as_str())
        .filter(|text| !text.trim_start().starts_with('{'));
    done(&render::manifest(
        arguments,
        &config,
        &found.document.node(),
        text,
    ))
}

fn migrate(arguments: &MigrateArgs) -> Result<u8, Failure> {
    let source = read(&arguments.file)?;
    let migrated = migrate::source(&source, arguments).map_err(|message| Failure {
        code: INVALID,
        message,
    })?;
    let manifests: Vec<&str> = migrated.iter().map(|one| one.manifest.as_str()).collect();
    print(&manifests.join("---\n"));
    for remark in migrated.iter().flat_map(|one| &one.remarks) {
        eprintln!("note: {remark}");
    }
    Ok(0)
}
