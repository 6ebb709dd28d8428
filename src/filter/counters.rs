//! Counters: kept in the VM's memory, handed to Envoy on every tick. Counting costs a request no host call.

use std::cell::Cell;

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
    };
}

counters! {
    Trusted "trusted_lb_trusted" "Requests from a trusted load balancer.";
    Untrusted "trusted_lb_untrusted" "Requests from anybody else.";
    ForgedClaim "trusted_lb_forged_claim" "Untrusted requests whose claim about the scheme was overridden or removed.";
    SchemeRewritten "trusted_lb_scheme_rewritten" "Requests whose :scheme was written.";
    PeerAmbiguous "trusted_lb_peer_ambiguous" "Requests whose direct peer could not be told, so that nobody was trusted by address.";
    Timeout "trusted_lb_timeout" "Requests that were given a timeout.";
    Retries "trusted_lb_retries" "Requests whose retries were written or switched off.";
    Capped "trusted_lb_capped" "Requests that asked for more than requestHeaders: cap allows.";
    HostCallError "trusted_lb_host_call_error" "Host calls that failed.";
    ConfigurationAccepted "trusted_lb_configuration_accepted" "Configurations that were taken, per worker.";
    ConfigurationRefused "trusted_lb_configuration_refused" "Configurations that were refused, per worker.";
}

/// How often counters are handed to Envoy.
pub(super) const FLUSH_PERIOD_MS: u32 = 1000;

/// The counters of one root context.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pending: [Cell<u64>; METRICS.len()],
    ids: [Cell<Option<u32>>; METRICS.len()],
}

impl Counters {
    /// Counts one.
    #[inline]
    pub(super) fn count(&self, counter: Counter) {
        if let Some(pending) = self.pending.get(counter as usize) {
            pending.set(pending.get().wrapping_add(1));
        }
    }

    /// Counts one where `happened`.
    #[inline]
    pub(super) fn count_if(&self, happened: bool, counter: Counter) {
        if happened {
            self.count(counter);
        }
    }

    /// Hands what was counted since the last time to Envoy. What Envoy doesn't take is kept for the next time.
    pub(super) fn flush(&self) {
        for ((pending, id), metric) in self.pending.iter().zip(&self.ids).zip(METRICS) {
            let id = match id.get() {
                Some(number) => number,
                // Defined when first needed to be seen: a counter that never counted shows as 0.
                None => match host::define_counter(metric) {
                    Ok(number) => {
                        id.set(Some(number));
                        number
                    }
                    Err(_) => continue,
                },
            };
            let count = pending.get();
            if count > 0 && host::increment_counter(id, count).is_ok() {
                pending.set(0);
            }
        }
    }
}
