//! The counters. They are kept in the VM's memory and handed to Envoy at every tick, so that a request costs no host call
//! for them.
//!
//! They belong to the VM and not to one configuration, so that nothing is lost when a configuration is replaced.
//! `docs/operations.md` lists them.

use std::cell::Cell;

use proxy_wasm::types::MetricType;

use super::host;

macro_rules! counters {
    ($($name:ident $metric:literal $meaning:literal;)*) => {
        /// What is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Counter {
            $(#[doc = $meaning] $name,)*
        }

        /// The metrics' names, in the order of [`Counter`].
        const METRICS: &[&str] = &[$($metric),*];

        /// Every metric and its meaning.
        #[cfg(test)]
        const DESCRIBED: &[(&str, &str)] = &[$(($metric, $meaning),)* (RULE_METRIC, RULE_MEANING), (GENERATION, GENERATION_MEANING)];
    };
}

counters! {
    Trusted "trusted_lb_trusted" "Requests from a trusted load balancer.";
    Untrusted "trusted_lb_untrusted" "Requests from anybody else.";
    ForwardedProtoRewritten "trusted_lb_forwarded_proto_rewritten" "Requests whose x-forwarded-proto was given another value than they came with.";
    SchemeRewritten "trusted_lb_scheme_rewritten" "Requests whose :scheme was given another value.";
    ForgedClaim "trusted_lb_forged_claim" "Untrusted requests whose claim about the scheme was overridden or removed.";
    SignalUnusable "trusted_lb_signal_unusable" "Trusted requests whose signal has an unrecognized value, so that the rule's default applied.";
    PeerAmbiguous "trusted_lb_peer_ambiguous" "Requests whose direct peer can't be determined, so that nobody was trusted by address.";
    Refused "trusted_lb_refused" "Untrusted requests that untrusted.action refuses; in shadow mode, that it would refuse.";
    Timeout "trusted_lb_timeout" "Requests that were given a timeout.";
    Retries "trusted_lb_retries" "Requests whose retries were written or switched off.";
    Capped "trusted_lb_capped" "Requests that asked for more than requestHeaders: cap allows.";
    Shadow "trusted_lb_shadow" "Requests that were decided in shadow mode: counted by everything else here, but not changed.";
    ShadowDisagreement "trusted_lb_shadow_disagreement" "Of those, the ones whose x-forwarded-proto would have been given another value than they carry.";
    HostCallError "trusted_lb_host_call_error" "Host calls that Envoy answered with an error.";
    ConfigurationAccepted "trusted_lb_configuration_accepted" "Configurations that were accepted, once for each VM.";
    ConfigurationRefused "trusted_lb_configuration_refused" "Configurations that were refused, once for each VM that was asked.";
}

/// The counter of one rule. It has the rule's position in its name, because the rule's own name is free text.
macro_rules! rule_metric {
    ($position:expr) => {
        format_args!("trusted_lb_trusted_rule_{}", $position)
    };
}

#[cfg(test)]
const RULE_METRIC: &str = "trusted_lb_trusted_rule_N";
#[cfg(test)]
const RULE_MEANING: &str = "Requests that the rule at position N trusted, from 0.";

/// This many rules have a counter of their own. The rules after them are counted in [`Counter::Trusted`] only.
const COUNTED_RULES: usize = 32;

const GENERATION: &str = "trusted_lb_configuration_generation";
#[cfg(test)]
const GENERATION_MEANING: &str =
    "A gauge: how many configurations the VM has accepted since it started.";

/// The period of ticks in milliseconds. The counters are handed to Envoy at each.
pub(super) const FLUSH_PERIOD_MS: u32 = 1000;

#[derive(Debug)]
struct Pending {
    count: Cell<u32>,
    /// Envoy's number for the metric, once it is defined.
    id: Cell<Option<u32>>,
}

impl Pending {
    const fn new() -> Self {
        Self {
            count: Cell::new(0),
            id: Cell::new(None),
        }
    }

    #[inline]
    fn count(&self) {
        self.count.set(self.count.get().saturating_add(1));
    }

    /// Envoy's number for the metric, which is defined if it wasn't. A counter that is defined and never counts shows as 0.
    fn defined(&self, kind: MetricType, name: impl FnOnce() -> String) -> Option<u32> {
        if self.id.get().is_none() {
            self.id.set(host::define_metric(kind, &name()).ok());
        }
        self.id.get()
    }

    /// Hands over what was counted since the last time. If Envoy refuses it, it is kept for the next time. Answers
    /// whether there was anything to hand over.
    fn flush(&self, name: impl FnOnce() -> String) -> bool {
        let count = self.count.get();
        if count == 0 {
            return false;
        }
        if let Some(id) = self.defined(MetricType::Counter, name)
            && host::increment_counter(id, count.into()).is_ok()
        {
            self.count.set(0);
        }
        true
    }
}

struct Counters {
    fixed: [Pending; METRICS.len()],
    rules: [Pending; COUNTED_RULES],
    /// Counts configurations.
    generation: Pending,
}

thread_local! {
    /// A VM has one thread.
    static OF_VM: Counters = const {
        Counters {
            fixed: [const { Pending::new() }; METRICS.len()],
            rules: [const { Pending::new() }; COUNTED_RULES],
            generation: Pending::new(),
        }
    };
}

/// Counts one.
#[inline]
pub(super) fn count(counter: Counter) {
    OF_VM.with(|counters| {
        if let Some(pending) = counters.fixed.get(counter as usize) {
            pending.count();
        }
    });
}

/// Counts one if `happened`.
#[inline]
pub(super) fn count_if(happened: bool, counter: Counter) {
    if happened {
        count(counter);
    }
}

/// Counts a request that the rule at this position trusts.
#[inline]
pub(super) fn count_rule(position: usize) {
    OF_VM.with(|counters| {
        if let Some(pending) = counters.rules.get(position) {
            pending.count();
        }
    });
}

/// A configuration with that many rules was accepted: defines every counter in Envoy. Answers the generation: how many
/// configurations this VM has accepted, with this one.
pub(super) fn configured(rules: usize) -> u32 {
    OF_VM.with(|counters| {
        count(Counter::ConfigurationAccepted);
        counters.define(rules);
        counters.generation.count();
        let generation = counters.generation.count.get();
        if let Some(id) = counters
            .generation
            .defined(MetricType::Gauge, || GENERATION.to_owned())
        {
            // If this fails, the gauge is wrong until the next configuration. There is nobody else to tell.
            let _ = host::record_gauge(id, generation.into());
        }
        generation
    })
}

/// A configuration was refused.
pub(super) fn refused() {
    OF_VM.with(|counters| counters.define(0));
    count(Counter::ConfigurationRefused);
}

/// Hands what was counted since the last time to Envoy, with one host call for each counter that changed. Answers
/// whether there was anything to hand over.
pub(super) fn flush() -> bool {
    OF_VM.with(|counters| {
        let mut any = false;
        for (pending, name) in counters.fixed.iter().zip(METRICS) {
            any |= pending.flush(|| (*name).to_owned());
        }
        for (position, pending) in counters.rules.iter().enumerate() {
            any |= pending.flush(|| rule_metric!(position).to_string());
        }
        any
    })
}

impl Counters {
    fn define(&self, rules: usize) {
        for (pending, name) in self.fixed.iter().zip(METRICS) {
            pending.defined(MetricType::Counter, || (*name).to_owned());
        }
        for (position, pending) in self.rules.iter().take(rules).enumerate() {
            pending.defined(MetricType::Counter, || rule_metric!(position).to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_in_the_documentation_and_nothing_else_is() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
        let text = std::fs::read_to_string(path).expect("docs/operations.md can be read");
        let table: Vec<(&str, &str)> = text
            .lines()
            .filter_map(|line| line.strip_prefix("| `trusted_lb_"))
            .map(|line| {
                let mut cells = line.trim_end_matches(" |").split(" | ");
                let name = cells.next().unwrap_or_default().trim_end_matches('`');
                (name, cells.next().unwrap_or_default())
            })
            .collect();
        let expected: Vec<(&str, String)> = DESCRIBED
            .iter()
            .map(|(name, meaning)| {
                let name = name.strip_prefix("trusted_lb_").expect("a prefix of ours");
                (name, documented(meaning))
            })
            .collect();
        let expected: Vec<(&str, &str)> = expected
            .iter()
            .map(|(name, meaning)| (*name, meaning.as_str()))
            .collect();
        assert_eq!(table, expected);
    }

    /// The documentation has code in backticks.
    fn documented(meaning: &str) -> String {
        [
            "x-forwarded-proto",
            ":scheme",
            "requestHeaders: cap",
            "untrusted.action",
        ]
        .iter()
        .fold(meaning.to_owned(), |text, code| {
            text.replace(code, &format!("`{code}`"))
        })
    }
}
