//! What is seen in a run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Requests that share an expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// GETs of the load balancer, some of them slow: retried, so that none may fail.
    TrustedGet,
    /// POSTs of the load balancer: never retried, so that one may fail where its endpoint ends.
    TrustedPost,
    /// GETs of anybody else.
    Untrusted,
    /// Requests of anybody else that claim https in every way there is.
    Attack,
    /// Attacks that Envoy itself answers 400.
    Refused,
}

/// What became of the requests of one kind.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many were sent.
    pub sent: u64,
    /// Requests that Envoy answered 503 because their endpoint was gone, by what was being done to the endpoints: POSTs, and
    /// where routes are plain whatever was unlucky in its retries.
    pub endpoint_gone: BTreeMap<String, u64>,
    /// What should not have happened; the first few.
    pub wrong: Vec<String>,
    /// How often it happened.
    pub wrong_count: u64,
}

/// Envoy's memory at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident size of the process in bytes.
    pub resident: u64,
    /// What Envoy's allocator has handed out, in bytes; V8's memory is not in it.
    pub allocated: u64,
}

/// What was seen.
#[derive(Debug)]
pub struct Report {
    /// How long the load lasted.
    pub lasted: Duration,
    /// By kind of request.
    pub tallies: BTreeMap<Kind, Tally>,
    /// Configurations handed to Envoy that are good, and that are not.
    pub configurations: (u64, u64),
    /// Ends of an endpoint, graceful and not.
    pub restarts: (u64, u64),
    /// Requests that Envoy's router sent again.
    pub retries: u64,
    /// Envoy's memory once a second.
    pub memory: Vec<Memory>,
    /// Checks at the end that failed.
    pub wrong: Vec<String>,
}

impl Report {
    /// Everything that should not have happened.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let of_requests = self.tallies.iter().flat_map(|(kind, tally)| {
            let count = (tally.wrong_count > 0)
                .then(|| format!("{kind:?}: {} of {}", tally.wrong_count, tally.sent));
            count.into_iter().chain(tally.wrong.clone())
        });
        of_requests.chain(self.wrong.clone()).collect()
    }

    /// The mean of memory samples between two points of the run, given in tenths of it.
    #[must_use]
    pub fn memory_between(&self, from: usize, to: usize) -> Memory {
        let at = |tenths| self.memory.len() * tenths / 10;
        let samples = &self.memory[at(from)..at(to).max(at(from) + 1).min(self.memory.len())];
        let mean = |field: fn(&Memory) -> u64| {
            samples.iter().map(field).sum::<u64>() / (samples.len() as u64).max(1)
        };
        Memory {
            resident: mean(|memory| memory.resident),
            allocated: mean(|memory| memory.allocated),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes / 1024 * 10 / 1024;
        writeln!(f, "lasted {} s", self.lasted.as_secs())?;
        for (kind, tally) in &self.tallies {
            writeln!(
                f,
                "{kind:?}: {} sent, {} wrong",
                tally.sent, tally.wrong_count
            )?;
            for (doing, count) in &tally.endpoint_gone {
                writeln!(f, "    {count} to an endpoint that was gone, while {doing}")?;
            }
        }
        let (good, bad) = self.configurations;
        writeln!(f, "configurations: {good} good, {bad} refused")?;
        let (drained, killed) = self.restarts;
        writeln!(f, "endpoint restarts: {drained} drained, {killed} killed")?;
        writeln!(f, "retries by Envoy: {}", self.retries)?;
        for (from, to) in [(2, 4), (4, 6), (6, 8), (8, 10)] {
            let memory = self.memory_between(from, to);
            let (resident, allocated) = (mib(memory.resident), mib(memory.allocated));
            writeln!(
                f,
                "memory from {from}0 % to {to}0 %: resident {}.{} MiB, allocated {}.{} MiB",
                resident / 10,
                resident % 10,
                allocated / 10,
                allocated % 10
            )?;
        }
        for fault in self.faults() {
            writeln!(f, "WRONG {fault}")?;
        }
        Ok(())
    }
}
