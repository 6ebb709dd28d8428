//! Timeouts and retries, as header mutations and the match tree that chooses among them.

use serde_json::{Map, Value, json};

use super::filters::{
    self, Existing, composite, execute, go_on, header_input, header_mutation, literal, tree, write,
};
use super::predicate;
use super::refusal::Refusals;
use super::variants::patterns;
use crate::config::{
    Config, HeaderName, IDEMPOTENT_METHODS, OtherMethods, Policy, RequestHeaders, RequestMatch,
    Retries, RetryFields, Route, RouteMatch, Streams, Timeout,
};

const NAME: &str = "trusted-lb.policy";

const TIMEOUT: &str = "x-envoy-upstream-rq-timeout-ms";
const PER_TRY_TIMEOUT: &str = "x-envoy-upstream-rq-per-try-timeout-ms";
const MAX_RETRIES: &str = "x-envoy-max-retries";
/// Envoy before 1.40 takes this one from clients outside, too.
pub(super) const STREAM_DURATION: &str = "x-envoy-upstream-stream-duration-ms";
/// The headers that Envoy's router reads.
const ROUTER_HEADERS: [&str; 12] = [
    TIMEOUT,
    PER_TRY_TIMEOUT,
    MAX_RETRIES,
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-expected-rq-timeout-ms",
    STREAM_DURATION,
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-alt-stat-name",
];

/// What becomes of x-envoy-* headers that a request brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Brought {
    /// They stay, ours are added.
    Keep,
    /// They go, and ours are written.
    Replace,
    /// Envoy itself has taken them off: the client is from outside.
    Gone,
}

impl Brought {
    /// As a policy says it; nothing if it can't be said.
    fn of(policy: &Policy, config: &Config) -> Option<Self> {
        match policy.request_headers.or(config.defaults.request_headers) {
            Some(RequestHeaders::Replace) => Some(Self::Replace),
            Some(RequestHeaders::Cap) => None,
            None if config.judges_schemes() => Some(Self::Gone),
            Some(RequestHeaders::Keep) | None => Some(Self::Keep),
        }
    }
}

/// Whether Envoy has to take every client for one from outside.
pub(super) fn wants_no_internal_client(config: &Config) -> bool {
    let policies = config.routes.iter().map(|route| &route.policy);
    policies
        .chain([&config.defaults])
        .any(|policy| Brought::of(policy, config) == Some(Brought::Gone))
}

fn refuse_brought(config: &Config, refusals: &mut Refusals) {
    let own = config.routes.iter().enumerate();
    let own = own.map(|(index, route)| (format!("routes[{index}]"), &route.policy));
    let mut kept = None;
    for (place, policy) in own.chain([("defaults".to_owned(), &config.defaults)]) {
        let place = format!("{place}.requestHeaders");
        match Brought::of(policy, config) {
            None => refusals.refuse(
                &place,
                "Envoy's own filters can't compare a number in a header with a limit",
                "write replace, or leave it out: a client from outside has no such headers anyway",
            ),
            Some(Brought::Keep) => kept = kept.or(Some(place)),
            Some(_) => {}
        }
    }
    if let Some(place) = kept.filter(|_| wants_no_internal_client(config)) {
        refusals.refuse(
            &place,
            "Envoy takes every client for one from outside if requestHeaders is left out elsewhere, and removes what is to \
             be kept here",
            "write the same requestHeaders everywhere",
        );
    }
}

/// A policy with everything that it takes from the defaults.
struct Resolved {
    brought: Brought,
    timeout: Option<String>,
    retries: Option<ResolvedRetries>,
    /// Whether upgrades and CONNECT get timeouts.
    streams_too: bool,
}

struct ResolvedRetries {
    /// Methods that may be sent twice; nothing if that doesn't matter.
    methods: Option<Vec<String>>,
    other_methods: OtherMethods,
    per_try_timeout: Option<String>,
    /// Name and value.
    headers: Vec<(&'static str, String)>,
}

/// The HTTP filter that writes timeouts and retries, if any are configured.
pub(super) fn filter(config: &Config, refusals: &mut Refusals) -> Option<Value> {
    refuse_brought(config, refusals);
    let defaults = resolved(
        &config.defaults,
        &Policy::default(),
        Brought::of(&config.defaults, config),
        "defaults",
        refusals,
    );
    let mut outcome = outcome(&defaults);
    let mut overridden = Vec::new();
    for (index, route) in config.routes.iter().enumerate() {
        let place = format!("routes[{index}]");
        let Some(request) = matched_request(route, &place, refusals) else {
            continue;
        };
        let condition = predicate::request(request, &format!("{place}.match"), refusals);
        let policy = resolved(
            &route.policy,
            &config.defaults,
            Brought::of(&route.policy, config),
            &place,
            refusals,
        );
        overridden.push((condition, self::outcome(&policy)));
    }
    // An override that does what follows it anyway isn't asked about.
    while overridden.last().is_some_and(|(_, last)| *last == outcome) {
        overridden.pop();
    }
    if !overridden.is_empty() {
        let matchers: Vec<Value> = overridden
            .into_iter()
            .map(|(condition, outcome)| json!({"predicate": condition, "on_match": outcome.on_match()}))
            .collect();
        let mut matcher = json!({"matcher_list": {"matchers": matchers}});
        if let (Some(otherwise), Value::Object(fields)) = (outcome.if_any(), &mut matcher) {
            fields.insert("on_no_match".to_owned(), otherwise);
        }
        outcome = Outcome::Tree(matcher);
    }
    match outcome {
        Outcome::Mutations(list) if list.is_empty() => None,
        Outcome::Mutations(list) => Some(header_mutation(NAME, &list)),
        Outcome::Tree(matcher) => Some(composite(NAME, &matcher)),
    }
}

/// The request that an override is about, unless it is about names that Envoy gives to routes.
pub(super) fn matched_request<'c>(
    route: &'c Route,
    place: &str,
    refusals: &mut Refusals,
) -> Option<&'c RequestMatch> {
    let Route {
        name: _,
        matches:
            RouteMatch {
                request,
                virtual_hosts,
                routes,
                virtual_services,
            },
        policy: _,
        forwarded_proto: _,
    } = route;
    if virtual_hosts.is_empty() && routes.is_empty() && virtual_services.is_empty() {
        return Some(request);
    }
    refusals.refuse(
        &format!("{place}.match"),
        "Envoy's own filters don't see the names of virtual hosts, routes and VirtualServices",
        "match by hosts, paths and methods, or write the timeout and retries into the route itself",
    );
    None
}

/// What becomes of a request's headers: the same for every request, or as a match tree says.
#[derive(PartialEq)]
enum Outcome {
    Mutations(Vec<Value>),
    Tree(Value),
}

impl Outcome {
    /// As a match tree takes it; a match with nothing to do has to be said too.
    fn on_match(self) -> Value {
        match self {
            Outcome::Mutations(list) => execute(&header_mutation(NAME, &list)),
            Outcome::Tree(matcher) => go_on(matcher),
        }
    }

    fn if_any(self) -> Option<Value> {
        match self {
            Outcome::Mutations(list) if list.is_empty() => None,
            other => Some(other.on_match()),
        }
    }
}

fn outcome(policy: &Resolved) -> Outcome {
    let listed = |stream| mutations(policy, true, stream);
    let other = |stream| mutations(policy, false, stream);
    let methods = policy
        .retries
        .as_ref()
        .and_then(|retries| retries.methods.as_ref());
    let by_stream = |mutations: &dyn Fn(bool) -> Vec<Value>| {
        let (usual, stream) = (mutations(false), mutations(true));
        if usual == stream {
            return Outcome::Mutations(usual);
        }
        let upgrade = json!({"predicate": predicate::upgrade(), "on_match": Outcome::Mutations(stream).on_match()});
        let mut matcher = json!({"matcher_list": {"matchers": [upgrade]}});
        if let (Some(otherwise), Value::Object(fields)) =
            (Outcome::Mutations(usual).if_any(), &mut matcher)
        {
            fields.insert("on_no_match".to_owned(), otherwise);
        }
        Outcome::Tree(matcher)
    };
    let (of_listed, of_other) = (by_stream(&listed), by_stream(&other));
    let mut map = Map::new();
    let streams_differ = listed(false) != listed(true) || other(false) != other(true);
    match methods {
        Some(methods) if of_listed != of_other => {
            let on_match = of_listed.on_match();
            for method in methods.iter().filter(|method| *method != "CONNECT") {
                map.insert(method.clone(), on_match.clone());
            }
            if streams_differ || methods.iter().any(|method| method == "CONNECT") {
                let connect = mutations(
                    policy,
                    methods.iter().any(|method| method == "CONNECT"),
                    true,
                );
                map.insert("CONNECT".to_owned(), Outcome::Mutations(connect).on_match());
            }
            Outcome::Tree(tree(&header_input(":method"), map, of_other.if_any()))
        }
        // CONNECT is a stream, upgrade or not.
        _ if streams_differ => {
            map.insert(
                "CONNECT".to_owned(),
                Outcome::Mutations(listed(true)).on_match(),
            );
            Outcome::Tree(tree(&header_input(":method"), map, of_listed.if_any()))
        }
        _ => of_listed,
    }
}

/// The mutations for a request whose method is listed or not, and which starts a stream or not.
fn mutations(policy: &Resolved, listed: bool, stream: bool) -> Vec<Value> {
    let existing = match policy.brought {
        Brought::Keep => Existing::Keep,
        Brought::Replace | Brought::Gone => Existing::Overwrite,
    };
    let replaces = policy.brought == Brought::Replace;
    let timeouts = policy.streams_too || !stream;
    let mut written: Vec<(&str, &str)> = Vec::new();
    if timeouts {
        written.extend(
            policy
                .timeout
                .as_ref()
                .map(|value| (TIMEOUT, value.as_str())),
        );
    }
    if let Some(retries) = &policy.retries {
        if listed || retries.methods.is_none() {
            let own = retries.headers.iter();
            written.extend(own.map(|(name, value)| (*name, value.as_str())));
            let per_try = retries.per_try_timeout.as_ref().filter(|_| timeouts);
            written.extend(per_try.map(|value| (PER_TRY_TIMEOUT, value.as_str())));
        } else if retries.other_methods == OtherMethods::Disable {
            written.push((MAX_RETRIES, "0"));
        }
    }
    let mut list: Vec<Value> = written
        .iter()
        .map(|(name, value)| write(name, &literal(value), existing))
        .collect();
    if replaces {
        let others: Vec<&str> = ROUTER_HEADERS
            .into_iter()
            .filter(|name| !written.iter().any(|(own, _)| own == name))
            .collect();
        let patterns = patterns(&[], &[], &others);
        list.extend(patterns.iter().map(|one| filters::remove_matching(one)));
    }
    list
}

fn resolved(
    policy: &Policy,
    defaults: &Policy,
    brought: Option<Brought>,
    place: &str,
    refusals: &mut Refusals,
) -> Resolved {
    let Policy {
        timeout,
        retries,
        streams,
        request_headers: _,
    } = policy;
    let timeout = match timeout.or(defaults.timeout) {
        None | Some(Timeout::Inherit) => None,
        Some(Timeout::After(millis)) => Some(millis.0.to_string()),
    };
    let fields = match (retries, &defaults.retries) {
        (Some(Retries::Inherit), _) | (None, None | Some(Retries::Inherit)) => None,
        (Some(Retries::Set(own)), Some(Retries::Set(defaults))) => Some(own.merged_over(defaults)),
        (Some(Retries::Set(fields)), _) | (None, Some(Retries::Set(fields))) => {
            Some((**fields).clone())
        }
    };
    Resolved {
        // One that can't be said is refused.
        brought: brought.unwrap_or(Brought::Replace),
        timeout,
        retries: fields.map(|fields| resolved_retries(&fields, place, refusals)),
        streams_too: streams.or(defaults.streams).unwrap_or_default() == Streams::Apply,
    }
}

fn resolved_retries(fields: &RetryFields, place: &str, refusals: &mut Refusals) -> ResolvedRetries {
    let RetryFields {
        attempts,
        per_try_timeout,
        // Read by `retry_conditions`.
        retry_on: _,
        retry_grpc_on: _,
        status_codes: _,
        header_names: _,
        hedge_on_per_try_timeout: _,
        methods,
        idempotency_key,
        other_methods,
    } = fields;
    let off = *attempts == Some(0);
    if !off && idempotency_key.as_ref().is_some_and(Option::is_some) {
        refusals.refuse(
            &format!("{place}.retries.idempotencyKey"),
            "a key that makes any method safe to send twice would double the match tree for every policy",
            "leave it out, or keep the module",
        );
    }
    let mut headers: Vec<(&'static str, String)> = Vec::new();
    headers.extend(attempts.map(|attempts| (MAX_RETRIES, attempts.to_string())));
    if !off {
        headers.extend(retry_conditions(fields));
    }
    let idempotent = || IDEMPOTENT_METHODS.iter().map(|method| (*method).to_owned());
    ResolvedRetries {
        methods: (!off).then(|| methods.clone().unwrap_or_else(|| idempotent().collect())),
        other_methods: other_methods.unwrap_or_default(),
        per_try_timeout: per_try_timeout
            .filter(|_| !off)
            .map(|millis| millis.0.to_string()),
        headers,
    }
}

/// The headers that say on what to retry. Status codes and header names do nothing without their condition.
fn retry_conditions(fields: &RetryFields) -> Vec<(&'static str, String)> {
    let mut conditions = fields.retry_on.clone().unwrap_or_default();
    let codes: Vec<String> = fields
        .status_codes
        .iter()
        .flatten()
        .map(ToString::to_string)
        .collect();
    let names: Vec<&str> = fields
        .header_names
        .iter()
        .flatten()
        .map(HeaderName::as_str)
        .collect();
    for (condition, wanted) in [
        ("retriable-status-codes", !codes.is_empty()),
        ("retriable-headers", !names.is_empty()),
    ] {
        if wanted && !conditions.iter().any(|known| known == condition) {
            conditions.push(condition.to_owned());
        }
    }
    let mut headers = vec![
        ("x-envoy-retry-on", conditions.join(",")),
        (
            "x-envoy-retry-grpc-on",
            fields.retry_grpc_on.clone().unwrap_or_default().join(","),
        ),
        ("x-envoy-retriable-status-codes", codes.join(",")),
        ("x-envoy-retriable-header-names", names.join(",")),
    ];
    headers.retain(|(_, list)| !list.is_empty());
    if fields.hedge_on_per_try_timeout == Some(true) {
        headers.push(("x-envoy-hedge-on-per-try-timeout", "true".to_owned()));
    }
    headers
}
