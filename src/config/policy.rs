//! Timeouts and retries.

#[cfg(feature = "cli")]
use super::declare::Kind;
use super::declare::{Boolean, Distinct, Notation, Set, object, whole, words};
use super::document::{Node, Shown, quoted};
use super::duration::{Duration, Millis};
use super::headers::{HeaderName, HeaderOrNone, HeaderToken};
use super::problem::{closest, joined};
use super::read::At;
use super::requests::Method;

object! {
    /// Headers for Envoy's router, which takes them off before the upstream. It tells the upstream the timeout in
    /// `x-envoy-expected-rq-timeout-ms`, which a sidecar there may honour; `suppress_envoy_headers` of the router stops that.
    pub struct Policy = "Policy", "defaults", "{timeout: 15s}";
    derive Default;

    /// `x-envoy-upstream-rq-timeout-ms`. It overrides the timeout of a VirtualService too: `inherit` on a route leaves
    /// that alone.
    timeout: Option<Timeout> = optional "timeout": Timeout, "none", "15s";
    /// See [retries](#retries).
    retries: Option<Retries> = optional "retries": Retries, "none",
        "{attempts: 2, retryOn: [connect-failure, refused-stream]}";
    /// Whether upgrades (WebSocket) and CONNECT get timeouts. Server-sent events and gRPC streams get the timeout of any
    /// other request: give them a route with `timeout: inherit`. Browsers send `accept: text/event-stream` for
    /// server-sent events; a gRPC call is cut off too if its grpc-timeout is longer than ours.
    streams: Option<Streams> = optional "streams": Streams, "skip", "apply";
    /// What becomes of x-envoy-* that the request already carries, from a filter in front of this one, or from a client
    /// whose address Envoy takes for an internal one. Left out: an untrusted peer's are removed, and who comes through a
    /// trusted load balancer is a client from outside too, so that its values are capped, and what isn't configured
    /// here is removed. `keep`: they stay, ours are added where they are absent. `cap`: a number stays if it is valid
    /// and no larger than ours, "no limit" (0), junk and overflow become ours, lists become ours; what isn't configured
    /// stays. `replace`: ours alone.
    request_headers: Option<RequestHeaders> = optional "requestHeaders": RequestHeaders, "as a client from outside", "cap";
}

/// The word that leaves Envoy's own route alone.
const INHERIT: &str = "inherit";

/// The request timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timeout {
    /// Leave the route's own timeout alone.
    Inherit,
    /// `x-envoy-upstream-rq-timeout-ms`.
    After(Millis),
}

impl Notation for Timeout {
    type Value = Self;
    const EXAMPLE: &'static str = "15s";
    #[cfg(feature = "cli")]
    const KIND: Kind = Kind::Either(&[Kind::Words(&[INHERIT]), Duration::KIND]);

    fn read(at: At<'_>) -> Option<Self> {
        if matches!(at.node, Node::Text(text) if text == INHERIT) {
            return Some(Timeout::Inherit);
        }
        Duration::read(at).map(Timeout::After)
    }
}

/// Retries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Retries {
    /// Leave the route's own retry policy alone.
    Inherit,
    /// Write retry headers. Boxed: most routes have none.
    Set(Box<RetryFields>),
}

impl Notation for Retries {
    type Value = Self;
    const EXAMPLE: &'static str = "{attempts: 2, retryOn: [connect-failure]}, or inherit";
    #[cfg(feature = "cli")]
    const KIND: Kind = Kind::Either(&[Kind::Words(&[INHERIT]), RetryFields::KIND]);

    fn read(at: At<'_>) -> Option<Self> {
        let Node::Text(text) = at.node else {
            return RetryFields::read(at).map(|fields| Retries::Set(Box::new(fields)));
        };
        if text == INHERIT {
            return Some(Retries::Inherit);
        }
        at.error_with_help(
            &format_args!("{} is not understood", quoted(text)),
            &format_args!("write {}", Self::EXAMPLE),
        );
        None
    }
}

object! {
    /// What a route leaves out is taken from the defaults. Retries by header *override* those of a VirtualService:
    /// `retries: inherit` on a route leaves them alone.
    pub struct RetryFields = "Retries", "retries", "{attempts: 2, retryOn: [connect-failure]}";
    derive Default;

    /// Tries after the first: `x-envoy-max-retries`. 0 switches retries off, for every method.
    attempts: Option<u32> = optional "attempts": Attempts, "Envoy's (1)", "2";
    /// `x-envoy-upstream-rq-per-try-timeout-ms`. Envoy ignores one that isn't shorter than `timeout`.
    per_try_timeout: Option<Millis> = optional "perTryTimeout": Duration, "none", "5s";
    /// `x-envoy-retry-on`, added to the route's own conditions. A GET that is reset after it was sent is retried by
    /// `reset`, not by `reset-before-request`.
    retry_on: Option<Vec<String>> = optional "retryOn": Distinct<RetryOn>, "[]", "[connect-failure, refused-stream]";
    /// `x-envoy-retry-grpc-on`.
    retry_grpc_on: Option<Vec<String>> = optional "retryGrpcOn": Distinct<RetryGrpcOn>, "[]", "[unavailable]";
    /// `x-envoy-retriable-status-codes`; implies `retriable-status-codes` in `retryOn`.
    status_codes: Option<Vec<u16>> = optional "statusCodes": Distinct<StatusCode>, "[]", "[503]";
    /// `x-envoy-retriable-header-names`; implies `retriable-headers` in `retryOn`.
    header_names: Option<Vec<HeaderName>> = optional "headerNames": Distinct<HeaderToken>, "[]", "[x-retry-me]";
    /// `x-envoy-hedge-on-per-try-timeout`: after `perTryTimeout` try once more without giving the first try up.
    hedge_on_per_try_timeout: Option<bool> = optional "hedgeOnPerTryTimeout": Boolean, "false", "true";
    /// Methods whose requests may be sent twice. Others get no retry headers.
    methods: Option<Vec<String>> = optional "methods": Set<Method>, "the idempotent ones, see below", "[GET, HEAD]";
    /// A header that makes a request with any other method safe to send twice, if it isn't empty.
    idempotency_key: Option<Option<HeaderName>> = optional "idempotencyKey": HeaderOrNone, "\"\" (off)",
        "idempotency-key";
    /// `disable` writes `x-envoy-max-retries: 0` for methods that aren't listed, so that not even Istio's default policy
    /// retries a POST.
    other_methods: Option<OtherMethods> = optional "otherMethods": OtherMethods, "inherit", "disable";
}

whole! {
    /// How often a request is tried again.
    Attempts: u32 = "a number of retries", 0, 100;
}

whole! {
    /// An HTTP status.
    StatusCode: u16 = "a status code", 100, 599;
}

/// The methods whose requests may be sent twice unless the configuration says otherwise: RFC 9110, 9.2.2, and QUERY
/// (RFC 10008).
pub const IDEMPOTENT_METHODS: &[&str] =
    &["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"];

words! {
    /// What becomes of the retries of requests with a method that isn't listed.
    pub enum OtherMethods;

    /// The route's own retry policy applies.
    Inherit = "inherit";
    /// `x-envoy-max-retries: 0`: not even the route's own policy retries them.
    Disable = "disable";
}

words! {
    /// Whether upgrades (WebSocket) and CONNECT get timeouts.
    pub enum Streams;

    /// They don't.
    Skip = "skip";
    /// They do, up to the answer that starts the stream.
    Apply = "apply";
}

words! {
    /// What becomes of x-envoy-* headers that the request already carries when it reaches the filter.
    pub enum RequestHeaders;

    /// They stay, and ours are added where they are absent.
    Keep = "keep";
    /// Numbers stay if they are valid and no larger than ours; everything else is replaced.
    Cap = "cap";
    /// Ours replace them.
    Replace = "replace";
}

/// A header of Envoy's router that lists conditions, and the words that the router understands there.
struct RetryWords {
    field: &'static str,
    what: &'static str,
    words: &'static [&'static str],
}

/// Words of Envoy 1.40, from the router filter's documentation. A new one is one entry here.
const RETRY_ON: RetryWords = RetryWords {
    field: "retryOn",
    what: "retry condition",
    words: &[
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "envoy-ratelimited",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "http3-post-connect-failure",
    ],
};

/// The same for gRPC.
const RETRY_GRPC_ON: RetryWords = RetryWords {
    field: "retryGrpcOn",
    what: "gRPC retry condition",
    words: &[
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    ],
};

/// A word of `retryOn`.
pub(crate) enum RetryOn {}

/// A word of `retryGrpcOn`.
pub(crate) enum RetryGrpcOn {}

impl Notation for RetryOn {
    type Value = String;
    const EXAMPLE: &'static str = "connect-failure";
    #[cfg(feature = "cli")]
    const KIND: Kind = Kind::Words(RETRY_ON.words);

    fn read(at: At<'_>) -> Option<String> {
        retry_word(at, &RETRY_ON, &RETRY_GRPC_ON)
    }
}

impl Notation for RetryGrpcOn {
    type Value = String;
    const EXAMPLE: &'static str = "unavailable";
    #[cfg(feature = "cli")]
    const KIND: Kind = Kind::Words(RETRY_GRPC_ON.words);

    fn read(at: At<'_>) -> Option<String> {
        retry_word(at, &RETRY_GRPC_ON, &RETRY_ON)
    }
}

fn retry_word(at: At<'_>, here: &RetryWords, elsewhere: &RetryWords) -> Option<String> {
    if let Node::Number(code) = at.node {
        let code = Shown(*code);
        at.error_with_help(
            &format_args!("{code} is a status code"),
            &format_args!("write it under statusCodes: [{code}]"),
        );
        return None;
    }
    let text = at.text()?;
    if here.words.contains(&text) {
        return Some(text.to_owned());
    }
    let words = || here.words.iter().copied();
    let help = if elsewhere.words.contains(&text) {
        format!("it belongs under {}", elsewhere.field)
    } else if text.bytes().any(|b| b == b',') {
        "write each condition as its own list entry".to_owned()
    } else if text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit()) {
        format!("write it under statusCodes: [{text}]")
    } else if let Some(word) = closest(text, &mut words()) {
        format!("did you mean {word}?")
    } else {
        format!("write one of {}", joined(&mut words(), ", "))
    };
    at.error_with_help(
        &format_args!("{} is not a {}", quoted(text), here.what),
        &help,
    );
    None
}

impl RetryFields {
    /// These fields, and those of `defaults` where these are not given.
    #[must_use]
    pub fn merged_over(&self, defaults: &RetryFields) -> RetryFields {
        RetryFields {
            attempts: self.attempts.or(defaults.attempts),
            per_try_timeout: self.per_try_timeout.or(defaults.per_try_timeout),
            retry_on: self.retry_on.clone().or(defaults.retry_on.clone()),
            retry_grpc_on: self
                .retry_grpc_on
                .clone()
                .or(defaults.retry_grpc_on.clone()),
            status_codes: self.status_codes.clone().or(defaults.status_codes.clone()),
            header_names: self.header_names.clone().or(defaults.header_names.clone()),
            hedge_on_per_try_timeout: self
                .hedge_on_per_try_timeout
                .or(defaults.hedge_on_per_try_timeout),
            methods: self.methods.clone().or(defaults.methods.clone()),
            idempotency_key: self
                .idempotency_key
                .clone()
                .or(defaults.idempotency_key.clone()),
            other_methods: self.other_methods.or(defaults.other_methods),
        }
    }

    /// Whether anything is said to retry on.
    #[must_use]
    pub fn has_conditions(&self) -> bool {
        fn some<T>(list: Option<&Vec<T>>) -> bool {
            list.is_some_and(|list| !list.is_empty())
        }
        some(self.retry_on.as_ref())
            || some(self.retry_grpc_on.as_ref())
            || some(self.status_codes.as_ref())
            || some(self.header_names.as_ref())
    }
}
