//! The plugin as a whole: its configuration, counters and log.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::rc::Rc;

use super::counters::{self, Counter, FLUSH_PERIOD_MS};
use super::host::{self, Buffer, Status};
use super::log::follow_host_level;
use super::request::Configured;
use super::trouble::{Trouble, Troubles};
use crate::config::{self, Config, Mode, PeerAddress, Problem, Retries, Timeout};
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
    configured: RefCell<Option<Rc<Configured>>>,
    shared: Rc<Shared>,
}

/// What the root context and its requests share.
#[derive(Default)]
pub(super) struct Shared {
    troubles: Troubles,
}

impl Shared {
    pub(super) fn peer_is_ambiguous(&self, problem: PeerProblem) {
        counters::count(Counter::PeerAmbiguous);
        if let Some(unsaid) = self.troubles.happened(Trouble::Peer(problem)) {
            log::warn!(
                "the direct peer of a request can't be told, so nobody is trusted by address: {problem}; {} ({})",
                problem.advice(),
                Again {
                    unsaid,
                    counter: "trusted_lb_peer_ambiguous"
                }
            );
        }
    }

    pub(super) fn signal_is_unusable(&self, engine: &Engine, rule: usize, header: &str) {
        counters::count(Counter::SignalUnusable);
        if let Some(unsaid) = self.troubles.happened(Trouble::Signal { rule }) {
            log::warn!(
                "{}: a request's {header} can't be understood, so the default applied ({})",
                engine.rule_name(rule),
                Again {
                    unsaid,
                    counter: "trusted_lb_signal_unusable"
                }
            );
        }
    }

    pub(super) fn host_call_failed(&self, call: &'static str, status: Status) {
        counters::count(Counter::HostCallError);
        if let Some(unsaid) = self.troubles.happened(Trouble::HostCall(call)) {
            log::error!(
                "{call}: Envoy answered {status} ({})",
                Again {
                    unsaid,
                    counter: "trusted_lb_host_call_error"
                }
            );
        }
    }
}

/// The end of a line that isn't written each time.
struct Again {
    unsaid: u32,
    counter: &'static str,
}

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unsaid {
            0 => f.write_str("said")?,
            unsaid => write!(f, "{unsaid} more since this was last said, which is")?,
        }
        write!(
            f,
            " at most every 10 minutes; the counter {} goes on",
            self.counter
        )
    }
}

impl Root {
    /// Reads the plugin configuration, which has that many bytes. False where it is refused; the one before stays.
    pub(super) fn configure(&self, size: usize) -> bool {
        follow_host_level();
        let accepted = match configured(size) {
            Ok((engine, summary)) => {
                let generation = counters::configured(engine.rule_count());
                log::info!(
                    "{VERSION} ({COMMIT}) takes a configuration, the VM's number {generation}: {summary}"
                );
                self.take_over(engine);
                self.shared.troubles.forget();
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

    /// A period of [`FLUSH_PERIOD_MS`] has passed.
    pub(super) fn tick(&self) {
        self.shared.troubles.tick();
        // With nothing to hand over there were no requests, and nobody to log anything.
        if counters::flush() {
            follow_host_level();
        }
    }

    /// Decides streams that begin from now on by this.
    pub(super) fn take_over(&self, engine: Engine) {
        let configured = Configured::new(engine, Rc::clone(&self.shared));
        self.configured.replace(Some(Rc::new(configured)));
    }

    /// What streams that begin now are decided by; nothing where no configuration was taken yet.
    pub(super) fn configured(&self) -> Option<Rc<Configured>> {
        self.configured.borrow().clone()
    }
}

impl Drop for Root {
    /// Envoy has replaced the configuration or lets the VM go: what the last second brought isn't lost.
    fn drop(&mut self) {
        counters::flush();
    }
}

#[cold]
fn log_refusal(problems: &[Problem]) {
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
}

/// Reads and compiles the plugin configuration; warnings are logged.
fn configured(size: usize) -> Result<(Engine, String), Vec<Problem>> {
    let text = host::plugin_configuration(size).unwrap_or_else(|status| {
        log::error!("reading the plugin configuration: Envoy answered {status}");
        Buffer::default()
    });
    let loaded = config::load(text.as_ref());
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

/// More names than these make the line long.
const MOST_NAMES: usize = 8;

/// What a configuration says, in one line.
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
         default retries {retries}, {} routes",
        config.routes.len()
    )
}
