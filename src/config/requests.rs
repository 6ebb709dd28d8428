//! Conditions on a request itself: hosts, paths, methods and headers. Rules of trust and overrides share them.

#[cfg(feature = "cli")]
use super::declare::Kind;
use super::declare::{Boolean, Notation, OneOrSet, Set, choice, object, text};
use super::document::{Node, quoted};
use super::headers::{EnvName, HeaderName, HeaderToken, HeaderValue, Variable};
use super::read::At;

object! {
    /// Within a list one entry must hold, of `headers` every one. What can't be told doesn't hold, negated or not.
    pub struct RequestMatch = "RequestMatch", "conditions on the request", "{paths: [{prefix: /upload}]}";
    derive Default;

    /// `:authority`, without case, port and trailing dot. `*.example.com` holds hosts below example.com.
    hosts: Vec<HostPattern> = optional "hosts": Set<Host>, "any", "[\"*.example.com\"]";
    /// The host is none of these.
    not_hosts: Vec<HostPattern> = optional "notHosts": Set<Host>, "none", "[internal.example.com]";
    /// The path, without its query.
    paths: Vec<PathPattern> = optional "paths": Set<PathMatch>, "any", "[{prefix: /healthz}]";
    /// The path is none of these.
    not_paths: Vec<PathPattern> = optional "notPaths": Set<PathMatch>, "none", "[{suffix: .png}]";
    /// The method.
    methods: Vec<String> = optional "methods": Set<Method>, "any", "[GET]";
    /// The method is none of these.
    not_methods: Vec<String> = optional "notMethods": Set<Method>, "none", "[CONNECT]";
    /// Every one of these headers matches. A header on several lines matches `present` only.
    headers: Vec<HeaderMatch> = optional "headers": Set<HeaderMatch>, "any",
        "[{name: x-origin-verify, fromEnv: ORIGIN_SECRET}]";
    /// None of these headers matches.
    not_headers: Vec<HeaderMatch> = optional "notHeaders": Set<HeaderMatch>, "none", "[{name: x-debug, present: true}]";
}

choice! {
    /// One of these. Case matters. There are no regular expressions: a small engine for them adds 62 KB to a module
    /// that has to stay below 320 KB.
    pub enum PathPattern = "PathMatch", "paths[], notPaths[]", "{prefix: /upload}, {exact: /login}, {startsWith: /up} or {suffix: .png}";

    /// The path is this.
    Exact(String) = "exact": PathText, "/login";
    /// The path is this or lies below it: `/upload` holds `/upload/x`, not `/uploads`.
    Prefix(String) = "prefix": PathText, "/upload";
    /// The path's text begins with this, as `prefix` of a VirtualService does: `/upload` holds `/uploads` too.
    StartsWith(String) = "startsWith": PathText, "/upload";
    /// The path ends in this.
    Suffix(String) = "suffix": PathEnd, ".png";
}

object! {
    /// `name`, and one of the others.
    pub struct HeaderMatch = "HeaderMatch", "headers[], notHeaders[]",
        "{name: x-origin-verify, fromEnv: ORIGIN_SECRET}", HeaderValueMatch::RULE;

    /// The header, in any case.
    name: HeaderName = required "name": HeaderToken, "x-origin-verify";
    /// What its value must be.
    value: HeaderValueMatch = shared;
}

choice! {
    /// What a header's value must be.
    pub enum HeaderValueMatch = "HeaderValueMatch", "a header's value", "{exact: eu-west-1}";

    /// The value is this. For secrets use `fromEnv`.
    Exact(String) = "exact": HeaderValue, "eu-west-1";
    /// The value begins with this.
    Prefix(String) = "prefix": HeaderValue, "eu-";
    /// The value ends in this.
    Suffix(String) = "suffix": HeaderValue, "-edge";
    /// The header is there, or isn't.
    Present(bool) = "present": Boolean, "true";
    /// The value is that of this environment variable of the Wasm VM, or of one of these: the secret and the one that
    /// replaces it. At least 8 characters; compared in constant time, never logged.
    FromEnv(Vec<EnvName>) = "fromEnv": OneOrSet<Variable>, "[ORIGIN_SECRET, ORIGIN_SECRET_NEXT]";
}

/// A host to match `:authority` with: without case, port and trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host; lower-case.
    Exact(String),
    /// `*.example.com`: hosts with at least one label more. The stored text is `.example.com`, lower-case.
    Suffix(String),
    /// `*`: any host.
    Any,
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HostPattern::Exact(host) => f.write_str(host),
            HostPattern::Suffix(suffix) => write!(f, "*{suffix}"),
            HostPattern::Any => f.write_str("*"),
        }
    }
}

text! {
    /// A host name, `*` and the labels that follow, or an IPv6 address in brackets.
    Host: HostPattern = "host", "shop.example.com, or \"*.example.com\"", host, format!(
        r"^(\*|(\*\.)?[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)*\.?|\[({})\])$", super::address::ipv6_pattern()
    );
}

fn host(at: At<'_>) -> Option<HostPattern> {
    let text = at.some_text()?;
    let shown = quoted(text);
    let refuse = |why: &str, help: String| {
        at.error_with_help(&format_args!("{shown} is not a host: {why}"), &help);
        None
    };
    if text == "*" {
        return Some(HostPattern::Any);
    }
    if let Some((_, rest)) = text.split_once(':')
        && let Some(rest) = rest.strip_prefix("//")
    {
        return refuse("leave the scheme out", format!("write {rest}"));
    }
    if let Some(address) = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return refuse(
                "only an IPv6 address stands in brackets",
                "write for example [2001:db8::1]".to_owned(),
            );
        }
        return Some(HostPattern::Exact(text.to_ascii_lowercase()));
    }
    let (wildcard, bare) = match text.strip_prefix('*') {
        Some(rest) if rest.starts_with('.') => (true, rest.strip_prefix('.').unwrap_or(rest)),
        Some(rest) => {
            return refuse(
                "* stands for whole labels only",
                format!("write *.{rest} for the hosts below {rest}"),
            );
        }
        None => (false, text),
    };
    let bare = bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase();
    if let Some((name, port)) = bare.rsplit_once(':')
        && port.bytes().all(|b| b.is_ascii_digit())
        && !name.contains(':')
    {
        return refuse("ports are ignored", format!("write {name}"));
    }
    if bare.contains('/') {
        return refuse(
            "a path belongs under paths",
            String::from("write the host only"),
        );
    }
    if !bare.is_ascii() {
        return refuse(
            "international names come in their ASCII form",
            "write the xn-- form".to_owned(),
        );
    }
    let good = bare.split('.').all(|label| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    });
    if !good {
        return refuse(
            "labels have letters, digits and - only",
            "write for example shop.example.com or *.example.com".to_owned(),
        );
    }
    Some(if wildcard {
        HostPattern::Suffix(format!(".{bare}"))
    } else {
        HostPattern::Exact(bare)
    })
}

/// A [`PathPattern`]. People often write the path alone: they are told how to say which kind it is.
pub(crate) enum PathMatch {}

impl Notation for PathMatch {
    type Value = PathPattern;
    const EXAMPLE: &'static str = PathPattern::EXAMPLE;
    #[cfg(feature = "cli")]
    const KIND: Kind = PathPattern::KIND;

    fn read(at: At<'_>) -> Option<PathPattern> {
        let Node::Text(text) = at.node else {
            return PathPattern::read(at);
        };
        let help = match text.strip_suffix('*') {
            Some(prefix) => format!("write {{prefix: {}}}", prefix.trim_end_matches('/')),
            None => format!("write {{exact: {text}}} or {{prefix: {text}}}"),
        };
        at.error_with_help(&"say how the path is matched", &help);
        None
    }
}

text! {
    /// A path, or the beginning of one.
    PathText: String = "path", "/upload", path, r"^/[^?#*\u0000-\u001f\u007f-\u009f ]*$";
}

text! {
    /// The end of a path.
    PathEnd: String = "end of a path", ".png", path_end, r"^[^?#*\u0000-\u001f\u007f-\u009f ]+$";
}

fn path(at: At<'_>) -> Option<String> {
    let text = path_end(at)?;
    if !text.starts_with('/') {
        at.error_with_help(
            &format_args!("{}: a path begins with /", quoted(&text)),
            &format_args!("write /{text}"),
        );
        return None;
    }
    Some(text)
}

fn path_end(at: At<'_>) -> Option<String> {
    let text = at.some_text()?;
    let shown = quoted(text);
    if text.contains(['?', '#']) {
        at.error_with_help(
            &format_args!("{shown}: the query is not part of the path"),
            &"leave out everything from ? or # on",
        );
    } else if text.contains('*') {
        at.error_with_help(
            &format_args!("{shown}: * is not a wildcard here"),
            &"write {prefix: ...} without it",
        );
    } else if text.chars().any(|c| c.is_control() || c == ' ') {
        at.error_with_help(
            &format_args!("{shown}: a path has no spaces or control characters"),
            &"write it as it is sent, such as %20 for a space",
        );
    } else {
        return Some(text.to_owned());
    }
    None
}

text! {
    /// A request method.
    Method: String = "method", "GET", method, r"^[A-Z0-9_.-]+$";
}

fn method(at: At<'_>) -> Option<String> {
    let text = at.some_text()?;
    if text.bytes().any(|b| b.is_ascii_lowercase()) {
        at.error_with_help(
            &format_args!("{}: methods are case-sensitive", quoted(text)),
            &format_args!("write {}", text.to_ascii_uppercase()),
        );
        return None;
    }
    if !text
        .bytes()
        .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b"-_.".contains(&b))
    {
        at.error_with_help(
            &format_args!("{} is not a method", quoted(text)),
            &"write one method per list entry, such as GET",
        );
        return None;
    }
    Some(text.to_owned())
}

impl HeaderMatch {
    /// Whether the value can't be had by reading the configuration.
    pub(crate) fn is_secret(&self) -> bool {
        matches!(self.value, HeaderValueMatch::FromEnv(_))
    }

    /// Whether a client has to know some value.
    pub(crate) fn asks_for_a_value(&self) -> bool {
        !matches!(self.value, HeaderValueMatch::Present(_))
    }
}
