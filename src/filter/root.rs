//! The plugin as a whole: its configuration, its counters and its log lines.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Bytes, ContextType};

use super::counters::{self, FLUSH_PERIOD_MS};
use super::host;
use super::log::follow_host_level;
use super::shared::Shared;
use super::stream::{Configured, Stream};
use crate::config::{self, Config, Problem, Retries, Timeout};
use crate::engine::Engine;

/// Version and commit, for the log.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const COMMIT: &str = match option_env!("TRUSTED_LB_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// At most this many errors or warnings of a configuration are logged: the proxy's log is for others as well.
const MOST_LOGGED: usize = 100;

/// The root context. Each worker has one for each plugin configuration.
#[derive(Default)]
pub(super) struct Root {
    /// Nothing until a configuration is accepted.
    configured: RefCell<Option<Rc<Configured>>>,
    shared: Rc<Shared>,
}

impl Context for Root {}

impl RootContext for Root {
    /// Reads the plugin configuration, which has that many bytes. `false` refuses it; the one before stays in force.
    fn on_configure(&mut self, size: usize) -> bool {
        follow_host_level();
        let accepted = match configured(size) {
            Ok((engine, summary)) => {
                let generation = counters::configured(engine.rule_count());
                log::info!(
                    "loaded configuration (generation {generation}): {summary}; version {VERSION} ({COMMIT})"
                );
                self.take_over(engine);
                true
            }
            Err(problems) => {
                counters::refused();
                log_refusal(&problems);
                false
            }
        };
        counters::flush();
        if let Err(status) = host::set_tick_period(FLUSH_PERIOD_MS) {
            self.shared.host_call_failed("asking for ticks", status);
        }
        accepted
    }

    /// [`FLUSH_PERIOD_MS`] have passed.
    fn on_tick(&mut self) {
        self.shared.tick();
        // If nothing was counted there were no requests, and nobody to log anything.
        if counters::flush() {
            follow_host_level();
        }
    }

    fn create_http_context(&self, _context: u32) -> Option<Box<dyn HttpContext>> {
        // The crate panics on `None`, so a plugin without a configuration has streams too.
        Some(Box::new(Stream(self.configured.borrow().clone())))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Root {
    /// Decides the streams that begin from now on by this engine.
    fn take_over(&self, engine: Engine) {
        let configured = Configured::new(engine, Rc::clone(&self.shared));
        self.configured.replace(Some(Rc::new(configured)));
        self.shared.reset();
    }
}

impl Drop for Root {
    /// Envoy has replaced the configuration or ends the VM. What was counted since the last tick is not lost.
    fn drop(&mut self) {
        counters::flush();
    }
}

#[cold]
fn log_refusal(problems: &[Problem]) {
    let count = problems.len();
    log::error!(
        "refused configuration with {count} {}; version {VERSION} ({COMMIT}):",
        if count == 1 { "error" } else { "errors" }
    );
    for problem in problems.iter().take(MOST_LOGGED) {
        log::error!("  {problem}");
    }
    if let Some(more) = count.checked_sub(MOST_LOGGED).filter(|more| *more > 0) {
        log::error!("  and {more} more; `trusted-lb check` shows all of them");
    }
}

/// Reads and compiles the plugin configuration, and logs its warnings. Answers the engine and a summary for the log.
///
/// # Errors
/// All errors of the configuration.
fn configured(size: usize) -> Result<(Engine, String), Vec<Problem>> {
    let text = host::plugin_configuration(size).unwrap_or_else(|status| {
        log::error!("reading the plugin configuration failed: Envoy answered {status}");
        Bytes::new()
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

/// At most this many rules are named in the summary.
const MOST_NAMES: usize = 8;

/// The main points of a configuration, in one line.
fn summary(config: &Config) -> String {
    let rules = &config.trusted_load_balancers;
    let mut names = String::new();
    for rule in rules.iter().take(MOST_NAMES) {
        if !names.is_empty() {
            names.push_str(", ");
        }
        names.push_str(&rule.name);
    }
    if let Some(more) = rules.len().checked_sub(MOST_NAMES).filter(|more| *more > 0) {
        let _ = write!(names, " and {more} more");
    }
    let mode = config.mode.as_str();
    let peer = &config.peer_address;
    let timeout = match config.defaults.timeout {
        None | Some(Timeout::Inherit) => "inherited".to_owned(),
        Some(Timeout::After(millis)) => format!("{} ms", millis.0),
    };
    let retries = match &config.defaults.retries {
        None | Some(Retries::Inherit) => "inherited".to_owned(),
        Some(Retries::Set(fields)) => match fields.attempts {
            Some(attempts) => attempts.to_string(),
            None => "set".to_owned(),
        },
    };
    format!(
        "mode {mode}, peerAddress {peer}, trusted load balancers [{names}], default timeout {timeout}, \
         default retries {retries}, overrides {}",
        config.routes.len()
    )
}
