//! Conditions on a request's own headers, which rules and overrides share.

use super::facts::Facts;
use super::header_values::HeaderValues;
use super::names::HeaderId;
use super::request::Request;
use super::secret::Secret;
use crate::config::PathPattern;

/// A condition of a match, by its name in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition(pub &'static str);

/// Conditions on the request's own headers.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestMatch {
    pub(crate) hosts: Option<HostSet>,
    pub(crate) not_hosts: Option<HostSet>,
    pub(crate) paths: Vec<PathPattern>,
    pub(crate) not_paths: Vec<PathPattern>,
    pub(crate) methods: Vec<String>,
    pub(crate) not_methods: Vec<String>,
    pub(crate) headers: Vec<HeaderMatch>,
    pub(crate) not_headers: Vec<HeaderMatch>,
}

impl RequestMatch {
    /// The first condition that doesn't hold, if any. What can't be told doesn't hold, negated or not.
    #[inline(never)]
    pub(crate) fn unmet<R: Request>(&self, facts: &Facts<'_, R>) -> Option<Condition> {
        if let Some(hosts) = &self.hosts
            && !facts.host().is_some_and(|host| hosts.contains(host))
        {
            return Some(Condition("hosts"));
        }
        if let Some(hosts) = &self.not_hosts
            && facts.host().is_none_or(|host| hosts.contains(host))
        {
            return Some(Condition("notHosts"));
        }
        let any_path =
            |list: &[PathPattern], path: &[u8]| list.iter().any(|known| path_matches(known, path));
        if !self.paths.is_empty() && !facts.path().is_some_and(|path| any_path(&self.paths, path)) {
            return Some(Condition("paths"));
        }
        if !self.not_paths.is_empty()
            && facts
                .path()
                .is_none_or(|path| any_path(&self.not_paths, path))
        {
            return Some(Condition("notPaths"));
        }
        let any_method =
            |list: &[String], method: &[u8]| list.iter().any(|known| known.as_bytes() == method);
        if !self.methods.is_empty()
            && !facts
                .method()
                .is_some_and(|method| any_method(&self.methods, method))
        {
            return Some(Condition("methods"));
        }
        if !self.not_methods.is_empty()
            && facts
                .method()
                .is_none_or(|method| any_method(&self.not_methods, method))
        {
            return Some(Condition("notMethods"));
        }
        if !self.headers.iter().all(|header| header.holds(facts)) {
            return Some(Condition("headers"));
        }
        if self.not_headers.iter().any(|header| !header.fails(facts)) {
            return Some(Condition("notHeaders"));
        }
        None
    }
}

/// A set of hosts.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostSet {
    /// `*`.
    pub(crate) any: bool,
    /// Lower-case, sorted.
    pub(crate) exact: Vec<String>,
    /// `.example.com`, lower-case.
    pub(crate) suffixes: Vec<String>,
}

impl HostSet {
    /// Whether a host, in whatever case, is in the set.
    pub(crate) fn contains(&self, host: &[u8]) -> bool {
        self.any
            || self
                .exact
                .binary_search_by(|known| {
                    known.bytes().cmp(host.iter().map(u8::to_ascii_lowercase))
                })
                .is_ok()
            || self.suffixes.iter().any(|suffix| {
                let suffix = suffix.as_bytes();
                host.len()
                    .checked_sub(suffix.len())
                    .filter(|label| *label > 0)
                    .and_then(|label| host.get(label..))
                    .is_some_and(|tail| tail.eq_ignore_ascii_case(suffix))
            })
    }
}

/// Whether a path without its query matches.
pub(crate) fn path_matches(pattern: &PathPattern, path: &[u8]) -> bool {
    match pattern {
        PathPattern::Exact(exact) => path == exact.as_bytes(),
        PathPattern::Prefix(prefix) => path
            .strip_prefix(prefix.as_bytes())
            .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with(b"/")),
        PathPattern::StartsWith(start) => path.starts_with(start.as_bytes()),
        PathPattern::Suffix(suffix) => path.ends_with(suffix.as_bytes()),
    }
}

/// A condition on one header.
#[derive(Clone, Debug)]
pub(crate) struct HeaderMatch {
    pub(crate) header: HeaderId,
    pub(crate) value: ValueMatch,
}

/// What a header's value must be.
#[derive(Clone, Debug)]
pub(crate) enum ValueMatch {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Present(bool),
    Secret(Vec<Secret>),
}

impl HeaderMatch {
    fn holds<R: Request>(&self, facts: &Facts<'_, R>) -> bool {
        let values = facts.header(self.header);
        match (&self.value, values) {
            (ValueMatch::Present(wanted), values) => values.is_present() == *wanted,
            (_, HeaderValues::Absent | HeaderValues::Several) => false,
            (ValueMatch::Exact(exact), HeaderValues::One(value)) => exact.as_bytes() == value,
            (ValueMatch::Prefix(prefix), HeaderValues::One(value)) => {
                value.starts_with(prefix.as_bytes())
            }
            (ValueMatch::Suffix(suffix), HeaderValues::One(value)) => {
                value.ends_with(suffix.as_bytes())
            }
            // Every secret is compared, so that the time doesn't tell which of them came close.
            (ValueMatch::Secret(secrets), HeaderValues::One(value)) => secrets
                .iter()
                .fold(false, |found, secret| found | secret.is(value)),
        }
    }

    /// Whether the header certainly doesn't match. A header on several lines may match for a server that reads another line.
    fn fails<R: Request>(&self, facts: &Facts<'_, R>) -> bool {
        let doubtful = facts.header(self.header) == HeaderValues::Several
            && !matches!(self.value, ValueMatch::Present(_));
        !doubtful && !self.holds(facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_match_without_case_and_on_label_borders() {
        let set = HostSet {
            any: false,
            exact: vec!["a.example.com".into(), "b.example.com".into()],
            suffixes: vec![".example.org".into()],
        };
        for (host, inside) in [
            ("a.example.com", true),
            ("A.Example.COM", true),
            ("c.example.com", false),
            ("x.example.org", true),
            ("x.y.EXAMPLE.org", true),
            ("example.org", false),
            (".example.org", false),
            ("evilexample.org", false),
            ("", false),
        ] {
            assert_eq!(set.contains(host.as_bytes()), inside, "{host}");
        }
    }

    #[test]
    fn a_prefix_ends_on_a_segment_border() {
        let prefix = PathPattern::Prefix("/upload".into());
        for (path, holds) in [
            ("/upload", true),
            ("/upload/", true),
            ("/upload/x", true),
            ("/uploads", false),
            ("/Upload", false),
            ("/", false),
        ] {
            assert_eq!(path_matches(&prefix, path.as_bytes()), holds, "{path}");
        }
        let start = PathPattern::StartsWith("/upload".into());
        assert!(path_matches(&start, b"/uploads"));
        assert!(!path_matches(&start, b"/up"));
        let below =
            |prefix: &str, path: &[u8]| path_matches(&PathPattern::Prefix(prefix.into()), path);
        assert!(below("/", b"/anything"));
        assert!(below("/a/", b"/a/b"));
        assert!(!below("/a/", b"/a"));
    }
}
