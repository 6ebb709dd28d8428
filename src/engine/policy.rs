//! Timeouts and retries: what stands in the x-envoy-* headers that Envoy's router reads.

use super::changes::Changes;
use super::facts::Facts;
use super::header_values::HeaderValues;
use super::names::{HeaderId, HeaderNames};
use super::request::Request;
use crate::config::RequestHeaders;

/// A compiled policy: every value as it is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    /// What the configuration says about headers that a request brings, if it says anything.
    pub(crate) request_headers: Option<RequestHeaders>,
    /// Whether upgrades and CONNECT get timeouts.
    pub(crate) streams_too: bool,
    pub(crate) timeout: Wanted,
    pub(crate) retries: Option<Box<Retries>>,
}

/// Compiled retries.
#[derive(Clone, Debug)]
pub(crate) struct Retries {
    /// Methods whose requests may be sent twice. Absent if retries are switched off for every method.
    pub(crate) methods: Option<Vec<String>>,
    pub(crate) idempotency_key: Option<HeaderId>,
    /// For requests that may be sent twice.
    pub(crate) covered: RetryPlan,
    /// For other requests.
    pub(crate) not_covered: RetryPlan,
}

/// The headers that say how Envoy's router retries a request.
pub(crate) const RETRY_HEADERS: [HeaderId; 7] = [
    HeaderId::PER_TRY_TIMEOUT,
    HeaderId::MAX_RETRIES,
    HeaderId::RETRY_ON,
    HeaderId::RETRY_GRPC_ON,
    HeaderId::RETRIABLE_STATUS_CODES,
    HeaderId::RETRIABLE_HEADER_NAMES,
    HeaderId::HEDGE_ON_PER_TRY_TIMEOUT,
];

/// The headers of the router that no field of a policy writes.
const UNWRITTEN_HEADERS: [HeaderId; 4] = [
    HeaderId::EXPECTED_TIMEOUT,
    HeaderId::STREAM_DURATION,
    HeaderId::TIMEOUT_ALT_RESPONSE,
    HeaderId::ALT_STAT_NAME,
];

/// The x-envoy-* headers that the router of Envoy 1.36 to 1.40 reads from a request: "HTTP headers (consumed from
/// downstream clients)" in its documentation, x-envoy-upstream-stream-duration-ms of the route's `max_stream_duration`,
/// and x-envoy-expected-rq-timeout-ms, which `respect_expected_rq_timeout` reads.
pub(crate) const ROUTER_HEADERS: [HeaderId; 12] = [
    HeaderId::TIMEOUT,
    HeaderId::PER_TRY_TIMEOUT,
    HeaderId::MAX_RETRIES,
    HeaderId::RETRY_ON,
    HeaderId::RETRY_GRPC_ON,
    HeaderId::RETRIABLE_STATUS_CODES,
    HeaderId::RETRIABLE_HEADER_NAMES,
    HeaderId::HEDGE_ON_PER_TRY_TIMEOUT,
    HeaderId::EXPECTED_TIMEOUT,
    HeaderId::STREAM_DURATION,
    HeaderId::TIMEOUT_ALT_RESPONSE,
    HeaderId::ALT_STAT_NAME,
];

/// Who sent a request, as far as the rules of trust can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// A trusted load balancer, for a client from outside.
    Trusted,
    /// Anybody else.
    Untrusted,
    /// The configuration has no rules of trust.
    NotJudged,
}

/// What becomes of the router's headers that a request brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handling {
    /// They stay.
    Keep,
    /// No more than the configuration grants. What isn't configured stays.
    Cap,
    /// No more than the configuration grants, and nothing that isn't configured.
    CapAll,
    /// They go.
    Replace,
}

/// What should stand in each header that says how a request is retried, in the order of [`RETRY_HEADERS`].
#[derive(Clone, Debug)]
pub(crate) struct RetryPlan([Wanted; RETRY_HEADERS.len()]);

impl RetryPlan {
    const UNSAID: RetryPlan = RetryPlan([const { Wanted::Unsaid }; _]);

    /// No retry header, whatever the request has.
    pub(crate) fn nothing() -> Self {
        Self([const { Wanted::Nothing }; _])
    }

    /// The configuration says nothing.
    pub(crate) fn unsaid() -> Self {
        Self::UNSAID.clone()
    }

    #[inline(never)]
    pub(crate) fn set(&mut self, header: HeaderId, wanted: Wanted) {
        let mut places = RETRY_HEADERS.iter().zip(&mut self.0);
        if let Some((_, place)) = places.find(|(known, _)| **known == header) {
            *place = wanted;
        }
    }
}

/// What the configuration wants in one header.
#[derive(Clone, Debug, Default)]
pub(crate) enum Wanted {
    /// This value.
    Ours(Value),
    /// At most this value, if the request has one.
    AtMost(Value),
    /// Nothing: it would change what the configuration says in other headers.
    Nothing,
    /// The configuration says nothing about it.
    #[default]
    Unsaid,
}

/// What is written into a header.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    text: Box<str>,
    /// The same as a number, which `requestHeaders: cap` compares. Absent if it is none.
    number: Option<u32>,
}

impl Value {
    pub(crate) fn text(text: &str) -> Self {
        Self {
            text: text.into(),
            number: None,
        }
    }

    #[inline(never)]
    pub(crate) fn number(number: u32) -> Self {
        Self {
            text: number.to_string().into(),
            number: Some(number),
        }
    }

    /// Whether a request that asks for this asks for no more than our value grants. To Envoy a timeout of 0 is none.
    fn grants(&self, header: HeaderId, asked: HeaderValues<'_>) -> bool {
        let least = u64::from(matches!(
            header,
            HeaderId::TIMEOUT | HeaderId::PER_TRY_TIMEOUT
        ));
        let asked = asked.one().and_then(number);
        match (self.number, asked) {
            (Some(most), Some(asked)) => asked >= least && asked <= u64::from(most),
            _ => false,
        }
    }
}

impl Policy {
    /// Changes the headers as the policy and `requestHeaders` say.
    pub(crate) fn apply<'a, R: Request>(
        &'a self,
        facts: &Facts<'a, R>,
        names: &'a HeaderNames,
        sender: Sender,
        changes: &mut Changes<'a>,
    ) {
        let mut removable = facts.removable.iter();
        let brought_any = removable.any(|one| names.removal(one.of).router);
        if !brought_any && matches!(self.timeout, Wanted::Unsaid) && self.retries.is_none() {
            return;
        }
        let timeouts = self.streams_too || !is_stream(facts);
        let handling = self.handling(sender);
        let mut change = |header: HeaderId, handling: Handling, wanted: &'a Wanted| {
            let brought = if brought_any {
                facts.header(header)
            } else {
                HeaderValues::Absent
            };
            match (wanted, brought) {
                (Wanted::Ours(own), HeaderValues::Absent) => {
                    changes.set(names.name(header), &own.text);
                    true
                }
                (_, HeaderValues::Absent) => false,
                _ => change(header, handling, wanted, brought, names, changes),
            }
        };
        let timeout = if timeouts {
            &self.timeout
        } else {
            &Wanted::Unsaid
        };
        let has_timeout = change(HeaderId::TIMEOUT, handling, timeout);
        if brought_any {
            for header in UNWRITTEN_HEADERS {
                let is_duration = matches!(
                    header,
                    HeaderId::EXPECTED_TIMEOUT | HeaderId::STREAM_DURATION
                );
                // Envoy reads them in place of a timeout, or beside it.
                let wanted = match timeout {
                    Wanted::Ours(_) if is_duration => &Wanted::Nothing,
                    _ => &Wanted::Unsaid,
                };
                // Envoy before 1.37 takes this one from anybody, so that no filter in front of this one has to have
                // written it.
                let handling = match sender {
                    Sender::Untrusted if header == HeaderId::STREAM_DURATION => Handling::Replace,
                    _ => handling,
                };
                change(header, handling, wanted);
            }
        }
        let retries = match &self.retries {
            None => &RetryPlan::UNSAID,
            Some(retries) if retries.cover(facts) => &retries.covered,
            Some(retries) => &retries.not_covered,
        };
        let mut has_retries = false;
        for (header, wanted) in RETRY_HEADERS.iter().zip(&retries.0) {
            let wanted = match wanted {
                Wanted::Ours(_) if *header == HeaderId::PER_TRY_TIMEOUT && !timeouts => {
                    &Wanted::Nothing
                }
                _ => wanted,
            };
            has_retries |= change(*header, handling, wanted);
        }
        changes.notes.timeout |= has_timeout;
        changes.notes.retries |= has_retries;
    }

    /// What becomes of the router's headers that this sender's request brings. Who comes through a load balancer is a
    /// client from outside, whatever Envoy's internal addresses are.
    fn handling(&self, sender: Sender) -> Handling {
        match (self.request_headers, sender) {
            (Some(RequestHeaders::Keep), _) | (None, Sender::NotJudged) => Handling::Keep,
            (Some(RequestHeaders::Cap), _) => Handling::Cap,
            (None, Sender::Trusted) => Handling::CapAll,
            (Some(RequestHeaders::Replace), _) | (None, Sender::Untrusted) => Handling::Replace,
        }
    }
}

/// Changes a header that the request has brought. Whether it has our value now.
#[inline(never)]
fn change<'a>(
    header: HeaderId,
    handling: Handling,
    wanted: &'a Wanted,
    brought: HeaderValues<'_>,
    names: &'a HeaderNames,
    changes: &mut Changes<'a>,
) -> bool {
    match wanted.outcome(handling, header, brought) {
        Outcome::Stays => false,
        Outcome::Removed => {
            changes.remove(names.name(header).as_bytes());
            false
        }
        Outcome::Set { value, is_capped } => {
            changes.set(names.name(header), value);
            changes.notes.capped |= is_capped;
            true
        }
    }
}

/// What becomes of one header.
enum Outcome<'p> {
    Stays,
    Set { value: &'p str, is_capped: bool },
    Removed,
}

impl Wanted {
    /// What becomes of a header of which the request has these values.
    fn outcome(
        &self,
        handling: Handling,
        header: HeaderId,
        brought: HeaderValues<'_>,
    ) -> Outcome<'_> {
        match (self, handling) {
            (_, Handling::Keep) | (Wanted::Unsaid, Handling::Cap) => Outcome::Stays,
            (Wanted::Ours(own), _) if brought.is(&own.text) => Outcome::Stays,
            (Wanted::Ours(own) | Wanted::AtMost(own), Handling::Cap | Handling::CapAll) => {
                if own.grants(header, brought) {
                    return Outcome::Stays;
                }
                Outcome::Set {
                    value: &own.text,
                    is_capped: own.number.is_some(),
                }
            }
            (Wanted::Ours(own), Handling::Replace) => Outcome::Set {
                value: &own.text,
                is_capped: false,
            },
            (Wanted::Nothing | Wanted::Unsaid | Wanted::AtMost(_), _) => Outcome::Removed,
        }
    }
}

impl Retries {
    /// Whether this request may be retried.
    fn cover<R: Request>(&self, facts: &Facts<'_, R>) -> bool {
        let Some(methods) = &self.methods else {
            return true;
        };
        let listed = facts
            .method()
            .is_some_and(|method| methods.iter().any(|known| known.as_bytes() == method));
        listed
            || self.idempotency_key.is_some_and(|key| {
                facts
                    .header(key)
                    .one()
                    .is_some_and(|value| !value.is_empty())
            })
    }
}

/// Whether the request starts a stream that outlives its answer's headers: CONNECT, or an upgrade as Envoy sees one
/// (`Connection` names it, `Upgrade` says to what). HTTP/2's extended CONNECT reaches filters in that form as well.
fn is_stream<R: Request>(facts: &Facts<'_, R>) -> bool {
    if facts.method() == Some(b"CONNECT") {
        return true;
    }
    facts.header(HeaderId::UPGRADE).is_present()
        && facts
            .header(HeaderId::CONNECTION)
            .one()
            .is_some_and(|value| {
                value
                    .split(|byte| *byte == b',')
                    .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
            })
}

/// A number as Envoy reads one: decimal digits only.
fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}
