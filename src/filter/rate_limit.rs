//! Rate-limits the log lines about requests: each kind of problem is logged when it first happens, and from then on at
//! most once every ten minutes. The counters tell how often it happens.

use std::cell::{Cell, RefCell};

use super::counters::FLUSH_PERIOD_MS;
use crate::engine::PeerProblem;

/// A kind of problem that has a log line of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestProblem {
    /// The direct peer can't be determined.
    Peer(PeerProblem),
    /// A signal of the load balancer that this rule trusts has an unrecognized value.
    Signal {
        /// The rule's position.
        rule: usize,
    },
    /// Envoy answered a host call with an error. The text says what was being done.
    HostCall(&'static str),
}

/// How many minutes pass between two lines about the same problem.
pub(super) const MINUTES: u32 = 10;

/// The same in ticks.
const TICKS: u32 = MINUTES * 60 * 1000 / FLUSH_PERIOD_MS;

/// A problem that was logged.
#[derive(Clone, Copy, Debug)]
struct Logged {
    problem: RequestProblem,
    /// The tick from which on it may be logged again.
    again_at: u32,
    /// How often it happened since it was last logged.
    suppressed: u32,
}

/// What was logged about the requests of one plugin. The list is short: some kinds of problems, and one for each rule.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    /// The number of ticks that have passed.
    now: Cell<u32>,
    logged: RefCell<Vec<Logged>>,
}

impl RateLimit {
    /// A tick has passed.
    pub(super) fn tick(&self) {
        self.now.set(self.now.get().wrapping_add(1));
    }

    /// Forgets what was logged, because a new configuration applies.
    pub(super) fn reset(&self) {
        self.logged.borrow_mut().clear();
    }

    /// The problem happened. If it is to be logged now, the answer is how often it was suppressed since it was last
    /// logged.
    #[cold]
    pub(super) fn happened(&self, problem: RequestProblem) -> Option<u32> {
        let mut all = self.logged.borrow_mut();
        let now = self.now.get();
        let again_at = now.wrapping_add(TICKS);
        let Some(logged) = all.iter_mut().find(|logged| logged.problem == problem) else {
            all.push(Logged {
                problem,
                again_at,
                suppressed: 0,
            });
            return Some(0);
        };
        // The number of ticks wraps around after 136 years of them.
        if logged.again_at.wrapping_sub(now).wrapping_sub(1) < TICKS {
            logged.suppressed = logged.suppressed.saturating_add(1);
            return None;
        }
        logged.again_at = again_at;
        Some(std::mem::take(&mut logged.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_logged_once_in_ten_minutes_with_how_often_it_was_suppressed() {
        let limit = RateLimit::default();
        // As after years of running.
        limit.now.set(u32::MAX - 5);
        let peer = RequestProblem::Peer(PeerProblem::FromHeader);
        assert_eq!(limit.happened(peer), Some(0));
        assert_eq!(limit.happened(peer), None);
        assert_eq!(
            limit.happened(RequestProblem::Peer(PeerProblem::Disagreement)),
            Some(0)
        );
        for _ in 1..TICKS {
            limit.tick();
        }
        assert_eq!(limit.happened(peer), None);
        limit.tick();
        assert_eq!(limit.happened(peer), Some(2));
        assert_eq!(limit.happened(peer), None);
        for _ in 0..TICKS * 3 {
            limit.tick();
        }
        assert_eq!(limit.happened(peer), Some(1));
        limit.reset();
        assert_eq!(limit.happened(peer), Some(0));
    }
}
