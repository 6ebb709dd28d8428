//! What the root context and its streams share: problems of requests, counted and logged at a limited rate.

use std::fmt;

use super::counters::{self, Counter};
use super::host::Status;
use super::rate_limit::{self, RateLimit, RequestProblem};
use crate::engine::{Engine, PeerProblem};

/// What the root context shares with the streams that it creates.
#[derive(Default)]
pub(super) struct Shared {
    rate_limit: RateLimit,
}

impl Shared {
    /// A flush period has passed.
    pub(super) fn tick(&self) {
        self.rate_limit.tick();
    }

    /// A new configuration: its problems are logged from the first on.
    pub(super) fn reset(&self) {
        self.rate_limit.reset();
    }

    /// The direct peer of a request can't be determined.
    pub(super) fn peer_is_ambiguous(&self, problem: PeerProblem) {
        counters::count(Counter::PeerAmbiguous);
        if let Some(suppressed) = self.rate_limit.happened(RequestProblem::Peer(problem)) {
            log::warn!(
                "the direct peer of a request can't be determined, so nobody is trusted by address: {problem}; {} {}",
                problem.advice(),
                RateLimited {
                    suppressed,
                    counter: "trusted_lb_peer_ambiguous"
                }
            );
        }
    }

    /// The header that is to tell the scheme of a trusted request has an unrecognized value.
    pub(super) fn signal_is_unusable(&self, engine: &Engine, rule: usize, header: &str) {
        counters::count(Counter::SignalUnusable);
        if let Some(suppressed) = self.rate_limit.happened(RequestProblem::Signal { rule }) {
            log::warn!(
                "rule {}: {header} has an unrecognized value; using the rule's default {}",
                engine.rule_name(rule),
                RateLimited {
                    suppressed,
                    counter: "trusted_lb_signal_unusable"
                }
            );
        }
    }

    /// Envoy answered a host call with an error. `call` says what was being done.
    pub(super) fn host_call_failed(&self, call: &'static str, status: Status) {
        counters::count(Counter::HostCallError);
        if let Some(suppressed) = self.rate_limit.happened(RequestProblem::HostCall(call)) {
            log::error!(
                "{call} failed: Envoy answered {status} {}",
                RateLimited {
                    suppressed,
                    counter: "trusted_lb_host_call_error"
                }
            );
        }
    }
}

/// The end of a rate-limited line.
struct RateLimited {
    /// How many such lines were left out since the last one.
    suppressed: u32,
    /// The counter that has all of them.
    counter: &'static str,
}

impl fmt::Display for RateLimited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        if self.suppressed > 0 {
            write!(f, "{} suppressed; ", self.suppressed)?;
        }
        write!(
            f,
            "logged at most every {} min, see counter {})",
            rate_limit::MINUTES,
            self.counter
        )
    }
}
