//! Conditions: whether a request is one that a rule or a route is about.

use super::facts::{Facts, Lines};
use super::names::HeaderId;
use super::net::CidrSet;
use super::request::{Attribute, Request};
use super::secret::Secret;

/// A condition of a match, by its name in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition(pub &'static str);

/// Conditions on the connection, for rules of trust.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionMatch {
    pub(crate) ip_blocks: Option<CidrSet>,
    pub(crate) not_ip_blocks: Option<CidrSet>,
    pub(crate) ports: Vec<u16>,
    pub(crate) not_ports: Vec<u16>,
    pub(crate) client_certificate: Option<CertificateMatch>,
}

/// Conditions on the client certificate.
#[derive(Clone, Debug, Default)]
pub(crate) struct CertificateMatch {
    pub(crate) uri_sans: Vec<String>,
    pub(crate) dns_sans: Vec<String>,
    pub(crate) sha256: Vec<String>,
}

/// Conditions on the request's own headers.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestMatch {
    pub(crate) hosts: Option<HostSet>,
    pub(crate) not_hosts: Option<HostSet>,
    pub(crate) paths: Vec<PathMatch>,
    pub(crate) not_paths: Vec<PathMatch>,
    pub(crate) methods: Vec<String>,
    pub(crate) not_methods: Vec<String>,
    pub(crate) headers: Vec<HeaderMatch>,
    pub(crate) not_headers: Vec<HeaderMatch>,
}

impl ConnectionMatch {
    /// The first condition that doesn't hold, if any. What can't be told doesn't hold, negated or not.
    pub(crate) fn unmet<R: Request>(&self, facts: &Facts<'_, R>) -> Option<Condition> {
        if let Some(blocks) = &self.ip_blocks
            && !facts
                .peer_address()
                .is_some_and(|peer| blocks.contains(peer))
        {
            return Some(Condition("ipBlocks"));
        }
        if let Some(blocks) = &self.not_ip_blocks
            && facts
                .peer_address()
                .is_none_or(|peer| blocks.contains(peer))
        {
            return Some(Condition("notIpBlocks"));
        }
        if !self.ports.is_empty()
            && !facts
                .destination_port()
                .is_some_and(|port| self.ports.contains(&port))
        {
            return Some(Condition("ports"));
        }
        if !self.not_ports.is_empty()
            && facts
                .destination_port()
                .is_none_or(|port| self.not_ports.contains(&port))
        {
            return Some(Condition("notPorts"));
        }
        if let Some(certificate) = &self.client_certificate
            && !certificate.holds(facts)
        {
            return Some(Condition("clientCertificate"));
        }
        None
    }
}

impl CertificateMatch {
    fn holds<R: Request>(&self, facts: &Facts<'_, R>) -> bool {
        let among = |list: &[String], attribute| {
            list.is_empty()
                || facts
                    .text(attribute)
                    .is_some_and(|value| list.iter().any(|known| known.as_bytes() == value))
        };
        facts.is_mutual_tls()
            && among(&self.uri_sans, Attribute::UriSan)
            && among(&self.dns_sans, Attribute::DnsSan)
            && among(&self.sha256, Attribute::CertificateDigest)
    }
}

impl RequestMatch {
    /// The first condition that doesn't hold, if any. What can't be told doesn't hold, negated or not.
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
        let any_path = |list: &[PathMatch], path: &[u8]| list.iter().any(|known| known.holds(path));
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

/// A path pattern; the path it is matched with has no query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PathMatch {
    Exact(String),
    Prefix(String),
    Suffix(String),
}

impl PathMatch {
    pub(crate) fn holds(&self, path: &[u8]) -> bool {
        match self {
            PathMatch::Exact(exact) => path == exact.as_bytes(),
            PathMatch::Prefix(prefix) => path.strip_prefix(prefix.as_bytes()).is_some_and(|rest| {
                rest.is_empty() || prefix.ends_with('/') || rest.starts_with(b"/")
            }),
            PathMatch::Suffix(suffix) => path.ends_with(suffix.as_bytes()),
        }
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
        let lines = facts.header(self.header);
        match (&self.value, lines) {
            (ValueMatch::Present(wanted), lines) => lines.is_present() == *wanted,
            (_, Lines::None | Lines::Several) => false,
            (ValueMatch::Exact(exact), Lines::One(value)) => exact.as_bytes() == value,
            (ValueMatch::Prefix(prefix), Lines::One(value)) => value.starts_with(prefix.as_bytes()),
            (ValueMatch::Suffix(suffix), Lines::One(value)) => value.ends_with(suffix.as_bytes()),
            // Every secret is compared, so that the time doesn't tell which of them came close.
            (ValueMatch::Secret(secrets), Lines::One(value)) => secrets
                .iter()
                .fold(false, |found, secret| found | secret.is(value)),
        }
    }

    /// Whether the header certainly doesn't match: one on several lines might, for whoever reads another line.
    fn fails<R: Request>(&self, facts: &Facts<'_, R>) -> bool {
        let doubtful = facts.header(self.header) == Lines::Several
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
        let prefix = PathMatch::Prefix("/upload".into());
        for (path, holds) in [
            ("/upload", true),
            ("/upload/", true),
            ("/upload/x", true),
            ("/uploads", false),
            ("/Upload", false),
            ("/", false),
        ] {
            assert_eq!(prefix.holds(path.as_bytes()), holds, "{path}");
        }
        assert!(PathMatch::Prefix("/".into()).holds(b"/anything"));
        assert!(PathMatch::Prefix("/a/".into()).holds(b"/a/b"));
        assert!(!PathMatch::Prefix("/a/".into()).holds(b"/a"));
    }
}
