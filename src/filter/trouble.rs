//! Problems that any request may bring: each is logged when it first happens and at most every ten minutes from then
//! on. How often it happens is for the counters to tell.

use std::cell::{Cell, RefCell};

use super::counters::FLUSH_PERIOD_MS;
use crate::engine::PeerProblem;

/// A problem that gets a line of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The direct peer can't be told.
    Peer(PeerProblem),
    /// The signal of the load balancer of this rule can't be understood.
    Signal {
        /// The rule's position.
        rule: usize,
    },
    /// A host call failed.
    HostCall(&'static str),
}

/// How many ticks a line keeps the same problem's next one away.
const SILENCE: u32 = 10 * 60 * 1000 / FLUSH_PERIOD_MS;

/// What is known of one problem.
#[derive(Clone, Copy, Debug)]
struct Known {
    trouble: Trouble,
    /// When it may be logged again.
    silent_until: u32,
    /// How often it happened since its last line.
    unsaid: u32,
}

/// The problems of one configuration. There are few: their kinds, and one for each rule.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// Ticks that passed.
    now: Cell<u32>,
    known: RefCell<Vec<Known>>,
}

impl Troubles {
    /// A tick has passed.
    pub(super) fn tick(&self) {
        self.now.set(self.now.get().wrapping_add(1));
    }

    /// Nothing has happened yet, under a new configuration.
    pub(super) fn forget(&self) {
        self.known.borrow_mut().clear();
    }

    /// It happened. Answers, where it is to be logged, how often it went unsaid since its last line.
    #[cold]
    pub(super) fn happened(&self, trouble: Trouble) -> Option<u32> {
        let mut all = self.known.borrow_mut();
        let now = self.now.get();
        let silent_until = now.wrapping_add(SILENCE);
        let Some(known) = all.iter_mut().find(|known| known.trouble == trouble) else {
            all.push(Known {
                trouble,
                silent_until,
                unsaid: 0,
            });
            return Some(0);
        };
        if known.silent_until.wrapping_sub(now).wrapping_sub(1) < SILENCE {
            known.unsaid = known.unsaid.saturating_add(1);
            return None;
        }
        known.silent_until = silent_until;
        Some(std::mem::take(&mut known.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_is_said_once_in_ten_minutes_and_tells_how_often_it_was_not() {
        let troubles = Troubles::default();
        // As after years of running.
        troubles.now.set(u32::MAX - 5);
        let peer = Trouble::Peer(PeerProblem::FromHeader);
        assert_eq!(troubles.happened(peer), Some(0));
        assert_eq!(troubles.happened(peer), None);
        assert_eq!(
            troubles.happened(Trouble::Peer(PeerProblem::Disagreement)),
            Some(0)
        );
        for _ in 1..SILENCE {
            troubles.tick();
        }
        assert_eq!(troubles.happened(peer), None);
        troubles.tick();
        assert_eq!(troubles.happened(peer), Some(2));
        assert_eq!(troubles.happened(peer), None);
        for _ in 0..SILENCE * 3 {
            troubles.tick();
        }
        assert_eq!(troubles.happened(peer), Some(1));
        troubles.forget();
        assert_eq!(troubles.happened(peer), Some(0));
    }
}
