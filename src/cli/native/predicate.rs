//! Conditions on a request, as predicates of Envoy's match trees.

use serde_json::{Value, json};

use super::expression::{escape_regex, host_regex};
use super::filters::header_input;
use super::lines::is_joined;
use super::refusal::{Refusal, Refusals};
use crate::config::{HeaderMatch, HeaderValueMatch, HostPattern, PathPattern, RequestMatch};

/// Whether a request is one of these. A match has conditions, so there is always something to ask.
pub(super) fn request(matches: &RequestMatch, place: &str, refusals: &mut Refusals) -> Value {
    let mut parts = Vec::new();
    let RequestMatch {
        hosts: wanted_hosts,
        not_hosts,
        paths,
        not_paths,
        methods: wanted_methods,
        not_methods,
        headers,
        not_headers,
    } = matches;
    if !wanted_hosts.is_empty() {
        parts.push(hosts(wanted_hosts));
    }
    if !not_hosts.is_empty() {
        parts.push(hosts(&[HostPattern::Any]));
        parts.push(not(&hosts(not_hosts)));
    }
    if !paths.is_empty() {
        parts.push(any(paths.iter().flat_map(path).collect()));
    }
    if !not_paths.is_empty() {
        parts.push(present(":path"));
        parts.push(not(&any(not_paths.iter().flat_map(path).collect())));
    }
    if !wanted_methods.is_empty() {
        parts.push(methods(wanted_methods));
    }
    if !not_methods.is_empty() {
        parts.push(not(&methods(not_methods)));
    }
    for (index, header) in headers.iter().enumerate() {
        let place = format!("{place}.headers[{index}]");
        parts.extend(header_condition(header, false, &place, refusals));
    }
    for (index, header) in not_headers.iter().enumerate() {
        let place = format!("{place}.notHeaders[{index}]");
        let part = header_condition(header, true, &place, refusals);
        parts.extend(part.map(|part| not(&part)));
    }
    all(parts)
}

/// A request with one of these methods.
pub(super) fn methods(methods: &[String]) -> Value {
    any(methods
        .iter()
        .map(|method| single(":method", &json!({"exact": method})))
        .collect())
}

/// The request starts a stream that outlives its answer's headers, other than CONNECT.
pub(super) fn upgrade() -> Value {
    all(vec![
        present("upgrade"),
        single(
            "connection",
            &regex("(?:\\C*,)?[ \\t]*(?i:upgrade)[ \\t]*(?:,\\C*)?"),
        ),
    ])
}

/// The header is there, whatever it says.
pub(super) fn present(name: &str) -> Value {
    // Any bytes, also those that are no text.
    single(name, &regex("\\C*"))
}

fn regex(text: &str) -> Value {
    json!({"safe_regex": {"google_re2": {}, "regex": text}})
}

fn single(header: &str, value_match: &Value) -> Value {
    json!({"single_predicate": {"input": header_input(header), "value_match": value_match}})
}

fn not(predicate: &Value) -> Value {
    json!({"not_matcher": predicate})
}

fn any(predicates: Vec<Value>) -> Value {
    list("or_matcher", predicates)
}

fn all(predicates: Vec<Value>) -> Value {
    list("and_matcher", predicates)
}

/// Envoy wants at least two in a list.
fn list(kind: &str, mut predicates: Vec<Value>) -> Value {
    if predicates.len() == 1 {
        predicates.pop().unwrap_or_default()
    } else {
        json!({kind: {"predicate": predicates}})
    }
}

fn hosts(patterns: &[HostPattern]) -> Value {
    single(":authority", &regex(&host_regex(patterns)))
}

/// By plain texts: a regular expression of Envoy's doesn't match bytes that aren't UTF-8.
fn path(pattern: &PathPattern) -> Vec<Value> {
    let is = |text: &str| single(":path", &json!({"exact": text}));
    let begins = |text: &str| single(":path", &json!({"prefix": text}));
    match pattern {
        PathPattern::Exact(path) => vec![is(path), begins(&format!("{path}?"))],
        PathPattern::Prefix(prefix) if prefix.ends_with('/') => vec![begins(prefix)],
        PathPattern::Prefix(prefix) => {
            vec![
                is(prefix),
                begins(&format!("{prefix}/")),
                begins(&format!("{prefix}?")),
            ]
        }
        PathPattern::StartsWith(start) => vec![begins(start)],
        PathPattern::Suffix(suffix) => {
            vec![single(
                ":path",
                &regex(&format!("[^?]*{}(?:\\?.*)?", escape_regex(suffix))),
            )]
        }
    }
}

/// Envoy joins the lines of a header by commas: several lines equal no value without one.
fn header_condition(
    header: &HeaderMatch,
    negated: bool,
    place: &str,
    refusals: &mut Refusals,
) -> Option<Value> {
    let name = header.name.as_str();
    let condition = match &header.value {
        HeaderValueMatch::Present(true) => return Some(present(name)),
        HeaderValueMatch::Present(false) => return Some(not(&present(name))),
        HeaderValueMatch::FromEnv(_) => {
            refusals.add(Refusal::secret(place));
            return None;
        }
        HeaderValueMatch::Exact(exact) if !negated && !exact.contains(',') => {
            return Some(single(name, &json!({"exact": exact})));
        }
        HeaderValueMatch::Exact(exact) => json!({"exact": exact}),
        HeaderValueMatch::Prefix(prefix) => json!({"prefix": prefix}),
        HeaderValueMatch::Suffix(suffix) => json!({"suffix": suffix}),
    };
    if is_joined(name) {
        return Some(single(name, &condition));
    }
    refusals.add(Refusal::lines(place));
    None
}
