//! A route's own timeout or retries, and which requests they hold for.

use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;

use crate::cli::files::{Located, Source};
use crate::config::{
    HeaderMatch, HeaderName, HeaderValueMatch, HostPattern, PathPattern, RequestMatch, RouteMatch,
};

/// A route, or a policy on routes, that has a timeout or retries of its own.
pub(super) struct OwnPolicy {
    /// Kind, namespace and name of the resource.
    pub(super) holder: String,
    /// Which of its routes.
    pub(super) route: Option<String>,
    /// A name for the entry that leaves it alone.
    pub(super) entry_name: String,
    /// Matches for its requests. Empty if they can't be said.
    pub(super) suggested: Vec<RouteMatch>,
    pub(super) reach: Reach,
    /// Whether any route that the suggestion holds for has a timeout, and retries, if it holds for more than this one.
    pub(super) all: Option<(bool, bool)>,
    /// What else to do if nothing can be suggested.
    pub(super) otherwise: &'static str,
    /// Matches that together hold for all of its requests, perhaps for more: what covers these covers them.
    pub(super) covered: Vec<RouteMatch>,
    /// The Gateways of the Gateway API whose requests these are, as `namespace/name`, if the resource tells.
    pub(super) gateways: Option<Vec<String>>,
    pub(super) timeout: bool,
    pub(super) retries: bool,
    pub(super) source: Rc<Source>,
    pub(super) place: Range<usize>,
}

/// Which requests a suggestion holds for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The route's, neither more nor fewer.
    Exact,
    /// Those that Envoy knows to be the route's by its name: none behind httpsRedirect.
    Named,
    /// More than the route's.
    Wider,
}

/// What a route has itself.
#[derive(Default)]
pub(super) struct Wants {
    pub(super) timeout: bool,
    pub(super) retries: bool,
    /// Whether the gateway answers itself, so that neither matters.
    pub(super) is_answered: bool,
    /// Where the first of them stands.
    pub(super) place: Option<Range<usize>>,
}

impl Wants {
    /// Whether it has what another has: an entry that leaves the other's alone does no harm to it.
    pub(super) fn has(&self, other: &Wants) -> bool {
        (self.timeout || !other.timeout) && (self.retries || !other.retries)
    }
}

/// Hosts that resources name, in order.
#[derive(Default)]
pub(super) struct WrittenHosts {
    /// Reversed, so that the hosts below a domain stand together.
    reversed: BTreeSet<String>,
}

/// Hosts taken out of one match. Beyond them it isn't said exactly.
const MOST_HOSTS: usize = 100;

impl WrittenHosts {
    pub(super) fn add<'t>(&mut self, hosts: impl Iterator<Item = &'t str>) {
        let reverse = |host: &str| host.to_ascii_lowercase().chars().rev().collect();
        self.reversed
            .extend(hosts.filter(|host| host.contains('.')).map(reverse));
    }

    /// Hosts below a domain with its dot, without that domain's own wildcard.
    fn below(&self, suffix: &str) -> impl Iterator<Item = HostPattern> {
        let start: String = suffix.chars().rev().collect();
        let own = format!("{start}*");
        self.reversed
            .range(start.clone()..)
            .take_while(move |host| host.starts_with(&start))
            .filter(move |host| **host != own)
            .take(MOST_HOSTS + 1)
            .map(|host| {
                let host: String = host.chars().rev().collect();
                match host.strip_prefix('*') {
                    Some(suffix) => HostPattern::Suffix(suffix.to_owned()),
                    None => HostPattern::Exact(host),
                }
            })
    }
}

/// Takes narrower hosts of others out of a match for wildcards. Whether that can be said.
pub(super) fn exclude_hosts(
    request: &mut RequestMatch,
    others: &WrittenHosts,
    own: &[HostPattern],
) -> bool {
    let mut narrower = Vec::new();
    for host in own {
        match host {
            HostPattern::Exact(_) => {}
            HostPattern::Suffix(suffix) => narrower.extend(others.below(suffix)),
            HostPattern::Any => narrower.extend(others.below("")),
        }
    }
    narrower.retain(|host| !own.contains(host));
    narrower.sort_by_key(ToString::to_string);
    narrower.dedup();
    if narrower.len() > MOST_HOSTS {
        return false;
    }
    for host in narrower {
        if !request.not_hosts.contains(&host) {
            request.not_hosts.push(host);
        }
    }
    true
}

/// A match for every host needs no hosts, but some condition.
pub(super) fn escape_into_names(request: &mut RequestMatch) {
    if request.hosts.contains(&HostPattern::Any) {
        request.hosts = Vec::new();
        if request.paths.is_empty() {
            request.paths = vec![PathPattern::Prefix("/".to_owned())];
        }
    }
}

/// Header conditions in Istio's form: names with `exact`, `prefix`, or nothing.
pub(super) fn headers_of(headers: &Located) -> Option<Vec<HeaderMatch>> {
    headers
        .fields()
        .map(|field| {
            let text = |kind: &str| field.value.get(kind).and_then(Located::text);
            let value = match (text("exact"), text("prefix")) {
                (Some(exact), None) => HeaderValueMatch::Exact(exact.to_owned()),
                (None, Some(prefix)) => HeaderValueMatch::Prefix(prefix.to_owned()),
                _ if field.value.is_object() && field.value.fields().next().is_none() => {
                    HeaderValueMatch::Present(true)
                }
                _ => return None,
            };
            header(&field.name, value)
        })
        .collect()
}

/// A condition on a header that a match of ours may name: no pseudo-header.
pub(super) fn header(name: &str, value: HeaderValueMatch) -> Option<HeaderMatch> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_plain = !name.is_empty() && name.bytes().all(is_token);
    is_plain.then(|| HeaderMatch {
        name: HeaderName(name.to_ascii_lowercase()),
        value,
    })
}
