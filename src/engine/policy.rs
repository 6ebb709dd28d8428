//! Timeouts and retries: which x-envoy-* headers a request gets.

use super::decision::{Notes, Operation};
use super::facts::{Facts, Lines};
use super::names::HeaderId;
use super::request::Request;
use crate::config::{OtherMethods, RequestHeaders};

/// A compiled policy: every value as it is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    pub(crate) request_headers: RequestHeaders,
    /// Whether upgrades and CONNECT get timeouts.
    pub(crate) streams_too: bool,
    pub(crate) timeout: Option<Written>,
    pub(crate) retries: Option<Retries>,
}

/// Compiled retries.
#[derive(Clone, Debug)]
pub(crate) struct Retries {
    /// Methods whose requests may be sent twice; nothing where the answer doesn't matter (attempts: 0).
    pub(crate) methods: Option<Vec<String>>,
    pub(crate) idempotency_key: Option<HeaderId>,
    pub(crate) other_methods: OtherMethods,
    pub(crate) per_try_timeout: Option<Written>,
    pub(crate) headers: Vec<Written>,
}

/// A header that is written.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) header: HeaderId,
    pub(crate) value: String,
    /// For headers that are a number, which `requestHeaders: cap` compares; and the least that caps.
    pub(crate) number: Option<Number>,
}

/// A header value that is a number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number {
    pub(crate) value: u64,
    /// Smaller numbers in a request mean "no limit" to Envoy, so that they are replaced: 1 for timeouts, 0 for counts.
    pub(crate) least: u64,
}

/// The headers that say how a request is retried.
const RETRY_HEADERS: &[HeaderId] = &[
    HeaderId::MAX_RETRIES,
    HeaderId::RETRY_ON,
    HeaderId::RETRY_GRPC_ON,
    HeaderId::RETRIABLE_STATUS_CODES,
    HeaderId::RETRIABLE_HEADER_NAMES,
    HeaderId::HEDGE_ON_PER_TRY_TIMEOUT,
    HeaderId::PER_TRY_TIMEOUT,
];

const SWITCHED_OFF: &str = "0";

impl Policy {
    pub(crate) fn apply<'a, R: Request>(
        &'a self,
        facts: &Facts<'a, R>,
        operations: &mut Vec<Operation<'a>>,
        notes: &mut Notes,
    ) {
        let mut out = Output {
            facts,
            mode: self.request_headers,
            operations,
            notes,
        };
        let timeouts = self.streams_too || !is_stream(facts);
        let timeout = self.timeout.as_ref().filter(|_| timeouts);
        match timeout {
            Some(timeout) => {
                if out.write(timeout) {
                    out.notes.timeout = true;
                }
            }
            None => out.clear_if_replacing(HeaderId::TIMEOUT),
        }
        let Some(retries) = &self.retries else {
            for header in RETRY_HEADERS {
                out.clear_if_replacing(*header);
            }
            return;
        };
        if retries.cover(facts) {
            let per_try = retries.per_try_timeout.as_ref().filter(|_| timeouts);
            let mut written = false;
            for header in retries.headers.iter().chain(per_try) {
                written |= out.write(header);
            }
            if self.request_headers != RequestHeaders::Keep {
                for header in RETRY_HEADERS {
                    let ours = retries
                        .headers
                        .iter()
                        .chain(per_try)
                        .any(|own| own.header == *header);
                    if !ours {
                        out.clear(*header);
                    }
                }
            }
            out.notes.retries |= written;
            return;
        }
        match retries.other_methods {
            OtherMethods::Disable => {
                out.notes.retries |= out.switch_off();
            }
            OtherMethods::Inherit => {
                if self.request_headers == RequestHeaders::Cap
                    && let Some(attempts) = retries
                        .headers
                        .iter()
                        .find(|own| own.header == HeaderId::MAX_RETRIES)
                    && facts.header(HeaderId::MAX_RETRIES).is_present()
                {
                    out.write(attempts);
                }
            }
        }
        for header in RETRY_HEADERS {
            if *header != HeaderId::MAX_RETRIES || retries.other_methods == OtherMethods::Inherit {
                out.clear_if_replacing(*header);
            }
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

/// Where headers are written, and what becomes of those that the request brought.
struct Output<'f, 'a, R: Request> {
    facts: &'f Facts<'a, R>,
    mode: RequestHeaders,
    operations: &'f mut Vec<Operation<'a>>,
    notes: &'f mut Notes,
}

impl<'a, R: Request> Output<'_, 'a, R> {
    fn name(&self, header: HeaderId) -> &'a str {
        self.facts.name(header)
    }

    /// Writes a header as the mode says. Whether the request has our value now that it hadn't.
    fn write(&mut self, header: &'a Written) -> bool {
        let name = self.name(header.header);
        let brought = self.facts.header(header.header);
        if brought == Lines::One(header.value.as_bytes()) {
            return false;
        }
        if brought.is_present() {
            match self.mode {
                RequestHeaders::Keep => return false,
                RequestHeaders::Replace => {}
                RequestHeaders::Cap => {
                    if let Some(own) = header.number {
                        let asked = brought.one().and_then(number);
                        if asked.is_some_and(|asked| asked >= own.least && asked <= own.value) {
                            return false;
                        }
                        self.notes.capped = true;
                    }
                }
            }
        }
        self.operations.push(Operation::Set {
            name,
            value: &header.value,
        });
        true
    }

    /// `x-envoy-max-retries: 0`, whatever the mode but `keep` says of the number that was brought.
    fn switch_off(&mut self) -> bool {
        let brought = self.facts.header(HeaderId::MAX_RETRIES);
        if brought == Lines::One(SWITCHED_OFF.as_bytes())
            || (brought.is_present() && self.mode == RequestHeaders::Keep)
        {
            return false;
        }
        self.operations.push(Operation::Set {
            name: self.name(HeaderId::MAX_RETRIES),
            value: SWITCHED_OFF,
        });
        true
    }

    fn clear_if_replacing(&mut self, header: HeaderId) {
        if self.mode == RequestHeaders::Replace {
            self.clear(header);
        }
    }

    fn clear(&mut self, header: HeaderId) {
        if self.facts.header(header).is_present() {
            self.operations.push(Operation::Remove {
                name: self.name(header).as_bytes(),
            });
        }
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
