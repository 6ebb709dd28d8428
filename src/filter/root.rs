//! The plugin as a whole: its configuration, counters and log.

use std::cell::Cell;
use std::fmt::Display;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

use super::counters::{Counter, Counters, FLUSH_PERIOD_MS};
use super::host::{self, Status};
use super::log::follow_host_level;
use super::request::RequestFilter;
use crate::config::{self, Config, Mode, PeerAddress, Problem};
use crate::engine::{Engine, PeerProblem};

/// Version and commit, for the log.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const COMMIT: &str = match option_env!("TRUSTED_LB_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// A configuration's problems beyond these aren't logged: the proxy's log is for others as well.
const MOST_LOGGED: usize = 100;

/// The root context: one per plugin configuration and worker.
#[derive(Default)]
pub(super) struct Root {
    engine: Option<Rc<Engine>>,
    shared: Rc<Shared>,
}

/// What the root context and its requests share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) counters: Counters,
    warned_of_peer: Cell<bool>,
    warned_of_host: Cell<bool>,
}

impl Shared {
    /// One line per configuration; the counter tells how often.
    pub(super) fn warn_of_ambiguous_peer(&self, problem: PeerProblem) {
        if !self.warned_of_peer.replace(true) {
            log::warn!(
                "the direct peer of a request can't be told, so nobody is trusted by address: {problem}; {} \
                 (said once; the counter trusted_lb_peer_ambiguous goes on)",
                problem.advice()
            );
        }
    }

    /// One line per configuration; the counter tells how often.
    pub(super) fn host_call_failed(&self, call: &dyn Display, status: Status) {
        self.counters.count(Counter::HostCallError);
        if !self.warned_of_host.replace(true) {
            log::error!(
                "{call}: Envoy answered {status} (said once; the counter trusted_lb_host_call_error goes on)"
            );
        }
    }

    fn forget_warnings(&self) {
        self.warned_of_peer.set(false);
        self.warned_of_host.set(false);
    }
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        follow_host_level();
        let accepted = match configured(size) {
            Ok((engine, summary)) => {
                log::info!("{VERSION} ({COMMIT}) has a configuration: {summary}");
                self.engine = Some(Rc::new(engine));
                self.shared.forget_warnings();
                true
            }
            Err(problems) => {
                let count = problems.len();
                log::error!(
                    "{VERSION} ({COMMIT}) refuses the configuration, {count} {}:",
                    if count == 1 { "error" } else { "errors" }
                );
                for problem in problems.iter().take(MOST_LOGGED) {
                    log::error!("  {problem}");
                }
                if let Some(more) = count.checked_sub(MOST_LOGGED).filter(|more| *more > 0) {
                    log::error!("  and {more} more; `trusted-lb check` shows all of them");
                }
                false
            }
        };
        self.shared.counters.count(if accepted {
            Counter::ConfigurationAccepted
        } else {
            Counter::ConfigurationRefused
        });
        self.shared.counters.flush();
        if let Err(status) = host::set_tick_period(FLUSH_PERIOD_MS) {
            self.shared.host_call_failed(&"asking for ticks", status);
        }
        accepted
    }

    fn on_tick(&mut self) {
        follow_host_level();
        self.shared.counters.flush();
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(RequestFilter::new(
            self.engine.clone(),
            Rc::clone(&self.shared),
        )))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// Reads and compiles the plugin configuration; warnings are logged.
fn configured(size: usize) -> Result<(Engine, String), Vec<Problem>> {
    let text = host::plugin_configuration(size).unwrap_or_else(|status| {
        log::error!("reading the plugin configuration: Envoy answered {status}");
        Vec::new()
    });
    let loaded = config::load(&text);
    for warning in loaded.warnings().take(MOST_LOGGED) {
        log::warn!("{warning}");
    }
    let warnings = loaded.warnings().count();
    if let Some(more) = warnings.checked_sub(MOST_LOGGED).filter(|more| *more > 0) {
        log::warn!("and {more} more warnings; `trusted-lb check` shows all of them");
    }
    let Some(config) = loaded.config else {
        return Err(loaded.errors().cloned().collect());
    };
    let engine = Engine::new(&config, &|name| std::env::var(name).ok())?;
    Ok((engine, summary(&config)))
}

/// What a configuration says, in one line.
fn summary(config: &Config) -> String {
    let mut names = String::new();
    for rule in &config.trusted_load_balancers {
        if !names.is_empty() {
            names.push_str(", ");
        }
        names.push_str(&rule.name);
    }
    let mode = match config.mode {
        Mode::Enforce => "enforce",
        Mode::Shadow => "shadow",
    };
    let peer = match &config.peer_address {
        PeerAddress::Auto => "auto".to_owned(),
        PeerAddress::Source => "source".to_owned(),
        PeerAddress::ForwardedFor => "forwardedFor".to_owned(),
        PeerAddress::Header(name) => format!("header:{}", name.as_str()),
    };
    format!(
        "mode {mode}, peerAddress {peer}, trusted load balancers [{names}], {} routes",
        config.routes.len()
    )
}
