//! Conditions and signals of the configuration as expressions ([`cel`](super::cel)).

use super::cel::{all, any, choose, not, one_of, text, texts};
use super::lines::Lines;
use super::refusal::{Refusal, Refusals};
use crate::config::{
    ClientCertificate, DefaultScheme, ForwardedProto, HeaderMatch, HeaderName, HeaderValueMatch,
    HostPattern, PathPattern, RequestMatch, Signal, SignalForm,
};

/// The scheme of the connection to the gateway.
pub(super) const CONNECTION: &str = "(has(connection.tls_version) ? 'https' : 'http')";

/// The scheme that is meant where no signal tells.
pub(super) fn default_scheme(default: DefaultScheme) -> String {
    match default {
        DefaultScheme::Connection => CONNECTION.to_owned(),
        DefaultScheme::Scheme(scheme) => text(scheme.as_str()),
    }
}

/// Whether the peer has shown one of these certificates. Known from the first request on, not before.
pub(super) fn certificate(certificate: &ClientCertificate) -> String {
    let ClientCertificate {
        uri_sans,
        dns_sans,
        sha256,
    } = certificate;
    let mut parts = vec!["(has(connection.mtls) && connection.mtls)".to_owned()];
    for (attribute, values) in [
        ("uri_san_peer_certificate", uri_sans),
        ("dns_san_peer_certificate", dns_sans),
        ("sha256_peer_certificate_digest", sha256),
    ] {
        if !values.is_empty() {
            parts.push(format!("has(connection.{attribute})"));
            parts.push(one_of(&format!("connection.{attribute}"), &texts(values)));
        }
    }
    all(&parts)
}

/// Whether a request is one of these.
pub(super) fn request(
    matches: &RequestMatch,
    place: &str,
    lines: &mut Lines,
    refusals: &mut Refusals,
) -> String {
    let mut parts = Vec::new();
    let RequestMatch {
        hosts: wanted_hosts,
        not_hosts,
        paths,
        not_paths,
        methods,
        not_methods,
        headers,
        not_headers,
    } = matches;
    if !wanted_hosts.is_empty() {
        parts.push(hosts(wanted_hosts));
    }
    if !not_hosts.is_empty() {
        // What can't be told doesn't hold, negated or not: a host that can't be read is no host.
        parts.push(hosts(&[HostPattern::Any]));
        parts.push(not(&hosts(not_hosts)));
    }
    let any_path = |list: &[PathPattern]| any(&list.iter().map(path).collect::<Vec<_>>());
    if !paths.is_empty() || !not_paths.is_empty() {
        parts.push("has(request.url_path)".to_owned());
    }
    if !paths.is_empty() {
        parts.push(any_path(paths));
    }
    if !not_paths.is_empty() {
        parts.push(not(&any_path(not_paths)));
    }
    if !methods.is_empty() {
        parts.push(one_of("request.method", &texts(methods)));
    }
    if !not_methods.is_empty() {
        parts.push(not(&one_of("request.method", &texts(not_methods))));
    }
    for (index, header) in headers.iter().enumerate() {
        let place = format!("{place}.headers[{index}]");
        if let Some(value) = value_condition(header, &place, refusals) {
            parts.push(match value {
                ValueCondition::Present(true) => present(&header.name),
                ValueCondition::Present(false) => not(&present(&header.name)),
                ValueCondition::Value(condition) => {
                    all(&[present(&header.name), lines.one(&header.name), condition])
                }
            });
        }
    }
    for (index, header) in not_headers.iter().enumerate() {
        let place = format!("{place}.notHeaders[{index}]");
        if let Some(value) = value_condition(header, &place, refusals) {
            parts.push(match value {
                ValueCondition::Present(true) => not(&present(&header.name)),
                ValueCondition::Present(false) => present(&header.name),
                // One on several lines might match, for whoever reads another line.
                ValueCondition::Value(condition) => any(&[
                    not(&present(&header.name)),
                    all(&[lines.one(&header.name), not(&condition)]),
                ]),
            });
        }
    }
    all(&parts)
}

fn present(name: &HeaderName) -> String {
    format!("({} in request.headers)", text(name.as_str()))
}

enum ValueCondition {
    Present(bool),
    /// Holds for a header that is there, on one line.
    Value(String),
}

fn value_condition(
    header: &HeaderMatch,
    place: &str,
    refusals: &mut Refusals,
) -> Option<ValueCondition> {
    let value = format!("request.headers[{}]", text(header.name.as_str()));
    Some(match &header.value {
        HeaderValueMatch::Present(wanted) => ValueCondition::Present(*wanted),
        HeaderValueMatch::Exact(exact) => {
            ValueCondition::Value(format!("{value} == {}", text(exact)))
        }
        HeaderValueMatch::Prefix(prefix) => {
            ValueCondition::Value(format!("{value}.startsWith({})", text(prefix)))
        }
        HeaderValueMatch::Suffix(suffix) => {
            ValueCondition::Value(format!("{value}.endsWith({})", text(suffix)))
        }
        HeaderValueMatch::FromEnv(_) => {
            refusals.add(Refusal::secret(place));
            return None;
        }
    })
}

fn hosts(patterns: &[HostPattern]) -> String {
    format!("request.host.matches({})", text(&host_regex(patterns)))
}

/// For `:authority`: without case, port and trailing dot, as the engine reads it.
pub(super) fn host_regex(patterns: &[HostPattern]) -> String {
    let alternatives: Vec<String> = patterns
        .iter()
        .map(|pattern| match pattern {
            HostPattern::Any => "[^@:]{2,}|[^@:.]|\\[[^@]*\\]".to_owned(),
            HostPattern::Exact(host) => escape_regex(host),
            HostPattern::Suffix(suffix) => format!("[^@:]+{}", escape_regex(suffix)),
        })
        .collect();
    format!("(?i)^(?:{})\\.?(?::[0-9]*)?$", alternatives.join("|"))
}

/// A text as a regular expression that matches nothing else.
pub(super) fn escape_regex(plain: &str) -> String {
    let mut out = String::with_capacity(plain.len());
    for c in plain.chars() {
        if !c.is_alphanumeric() && c != '_' && c != '-' && c != '/' {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn path(pattern: &PathPattern) -> String {
    match pattern {
        PathPattern::Exact(path) => format!("request.url_path == {}", text(path)),
        PathPattern::Prefix(prefix) if prefix.ends_with('/') => {
            format!("request.url_path.startsWith({})", text(prefix))
        }
        PathPattern::Prefix(prefix) => format!(
            "(request.url_path == {} || request.url_path.startsWith({}))",
            text(prefix),
            text(&format!("{prefix}/"))
        ),
        PathPattern::StartsWith(start) => {
            format!("request.url_path.startsWith({})", text(start))
        }
        PathPattern::Suffix(suffix) => format!("request.url_path.endsWith({})", text(suffix)),
    }
}

/// The scheme that signals tell: an absent one passes the question on, one that can't be read ends in the default.
pub(super) fn signals(
    proto: &ForwardedProto,
    place: &str,
    lines: &mut Lines,
    refusals: &mut Refusals,
) -> String {
    let ForwardedProto { from, default } = proto;
    let default = default_scheme(*default);
    let mut out = default.clone();
    for (index, signal) in from.iter().enumerate().rev() {
        let place = format!("{place}.from[{index}]");
        let Some(read) = signal_value(signal, &default, &place, lines, refusals) else {
            continue;
        };
        let name = text(header_of(signal));
        let absent = match signal.form {
            // A copy of a header that is there and empty is as good as none.
            SignalForm::Helper => {
                format!("(!({name} in request.headers) || request.headers[{name}] in ['', '-'])")
            }
            _ => format!("!({name} in request.headers)"),
        };
        out = choose(&absent, &out, &read);
    }
    out
}

/// A copy of x-forwarded-proto isn't needed as long as the header itself is still the load balancer's.
pub(super) fn header_of(signal: &Signal) -> &str {
    match signal.form {
        SignalForm::Helper => "x-forwarded-proto",
        _ => signal.name.as_str(),
    }
}

/// Where the right-most entry of a list begins.
const RIGHT_MOST: &str = "^(?:\\C*,)?[ \\t]*";

fn signal_value(
    signal: &Signal,
    default: &str,
    place: &str,
    lines: &mut Lines,
    refusals: &mut Refusals,
) -> Option<String> {
    let name = header_of(signal);
    let value = format!("request.headers[{}]", text(name));
    let one = lines.one_of(name);
    let says = |https: &str, http: &str| {
        let read = choose(https, "'https'", &choose(http, "'http'", default));
        Some(choose(&one, &read, default))
    };
    let matches = |pattern: &str| format!("{value}.matches({})", text(pattern));
    match &signal.form {
        SignalForm::Scheme | SignalForm::Helper => says(
            &matches(&format!("{RIGHT_MOST}(?i:https|wss)[ \\t]*$")),
            &matches(&format!("{RIGHT_MOST}(?i:http|ws)[ \\t]*$")),
        ),
        SignalForm::Port { https, http } => {
            let among = |list: &[u16]| {
                if list.is_empty() {
                    return "false".to_owned();
                }
                let ports: Vec<String> = list.iter().map(ToString::to_string).collect();
                matches(&format!("{RIGHT_MOST}0*(?:{})[ \\t]*$", ports.join("|")))
            };
            says(&among(https), &among(http))
        }
        SignalForm::OnOff => says(&matches("^(?i:on)$"), &matches("^(?i:off)$")),
        SignalForm::Present => says("true", "false"),
        SignalForm::Values { https, http } => {
            let among = |list: &[String]| match list {
                [] => "false".to_owned(),
                list => one_of(&value, &texts(list)),
            };
            says(&among(https), &among(http))
        }
        SignalForm::CfVisitor => {
            refusals.add(Refusal::json(place));
            None
        }
        SignalForm::Forwarded => {
            refusals.add(Refusal::forwarded(place));
            None
        }
    }
}
