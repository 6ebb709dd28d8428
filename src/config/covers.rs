//! Whether one match holds for every request that another holds for: then, in an ordered list, the other never gets
//! its turn.

use std::cell::Cell;

use super::address::{IpBlock, Ranges};
use super::overrides::{NamePattern, RouteMatch};
use super::requests::{HostPattern, PathPattern, RequestMatch};
use super::trust::LoadBalancerMatch;

/// How many entries of lists are compared in all. A configuration of several hundred rules or routes takes less; in one
/// of thousands the last ones aren't compared any more, and nothing is said of them.
const MOST_COMPARED: usize = 300_000;

/// Whether `earlier` holds wherever `later` does, however long that takes. `false` where that can't be told simply.
#[cfg(feature = "cli")]
pub(crate) fn route(earlier: &RouteMatch, later: &RouteMatch) -> bool {
    let left = Cell::new(usize::MAX);
    Comparison { left }.route(earlier, later)
}

/// A rule's match, and what its `ipBlocks` are together.
pub(crate) struct Peers<'c> {
    matches: &'c LoadBalancerMatch,
    ranges: Ranges,
}

impl<'c> Peers<'c> {
    pub(crate) fn of(matches: &'c LoadBalancerMatch) -> Self {
        Self {
            matches,
            ranges: Ranges::of(matches.ip_blocks.iter().flat_map(IpBlock::nets)),
        }
    }
}

/// Compares matches, as long as that takes no more than [`MOST_COMPARED`].
pub(crate) struct Comparison {
    left: Cell<usize>,
}

impl Comparison {
    pub(crate) fn new() -> Self {
        Self {
            left: Cell::new(MOST_COMPARED),
        }
    }

    /// Whether there is any comparing left.
    pub(crate) fn goes_on(&self) -> bool {
        self.takes(1)
    }

    /// Whether so much more may be compared.
    #[inline(always)]
    fn takes(&self, entries: usize) -> bool {
        let left = self.left.get().checked_sub(entries);
        self.left.set(left.unwrap_or_default());
        left.is_some()
    }

    /// Whether `earlier` holds wherever `later` does. `false` where that can't be told simply.
    pub(crate) fn load_balancer(&self, earlier: &Peers<'_>, later: &Peers<'_>) -> bool {
        let (wide, narrow) = (earlier.matches, later.matches);
        self.among(&wide.ports, &narrow.ports, |a, b| a == b)
            && (wide.client_certificate.is_none()
                || wide.client_certificate == narrow.client_certificate)
            && (wide.ip_blocks.is_empty()
                || (!narrow.ip_blocks.is_empty() && self.blocks(&earlier.ranges, &later.ranges)))
            && self.excludes(&wide.not_ip_blocks, &narrow.not_ip_blocks)
            && self.excludes(&wide.not_ports, &narrow.not_ports)
            && self.request(&wide.request, &narrow.request)
    }

    /// As [`Self::load_balancer`], for routes.
    pub(crate) fn route(&self, earlier: &RouteMatch, later: &RouteMatch) -> bool {
        self.among(&earlier.virtual_hosts, &later.virtual_hosts, name)
            && self.among(&earlier.routes, &later.routes, name)
            && self.among(
                &earlier.virtual_services,
                &later.virtual_services,
                |a, b| a == b,
            )
            && self.request(&earlier.request, &later.request)
    }

    fn request(&self, earlier: &RequestMatch, later: &RequestMatch) -> bool {
        self.among(&earlier.hosts, &later.hosts, host)
            && self.excludes(&earlier.not_hosts, &later.not_hosts)
            && self.among(&earlier.paths, &later.paths, path)
            && self.excludes(&earlier.not_paths, &later.not_paths)
            && self.among(&earlier.methods, &later.methods, |a, b| a == b)
            && self.excludes(&earlier.not_methods, &later.not_methods)
            // Every header has to match, so that the earlier one may ask for no more than the later one.
            && self.excludes(&earlier.headers, &later.headers)
            && self.excludes(&earlier.not_headers, &later.not_headers)
    }

    /// One of a list has to hold: each of the later's is covered by one of the earlier's.
    fn among<T>(&self, earlier: &[T], later: &[T], covers: fn(&T, &T) -> bool) -> bool {
        earlier.is_empty()
            || (!later.is_empty()
                && self.takes(earlier.len().saturating_mul(later.len()))
                && later
                    .iter()
                    .all(|narrow| earlier.iter().any(|wide| covers(wide, narrow))))
    }

    /// None of a list may hold: what the earlier excludes, the later excludes as well.
    #[inline(always)]
    fn excludes<T: PartialEq>(&self, earlier: &[T], later: &[T]) -> bool {
        earlier.is_empty()
            || (self.takes(earlier.len().saturating_mul(later.len()))
                && earlier.iter().all(|excluded| later.contains(excluded)))
    }

    fn blocks(&self, wide: &Ranges, narrow: &Ranges) -> bool {
        let inside = |narrow: &[(u128, u128)], wide: &[(u128, u128)]| {
            self.takes(narrow.len())
                && narrow.iter().all(|(first, last)| {
                    let after = wide.partition_point(|(from, _)| from <= first);
                    let before = after.checked_sub(1).and_then(|index| wide.get(index));
                    before.is_some_and(|(_, to)| last <= to)
                })
        };
        inside(&narrow.v4, &wide.v4) && inside(&narrow.v6, &wide.v6)
    }
}

fn host(wide: &HostPattern, narrow: &HostPattern) -> bool {
    match (wide, narrow) {
        (HostPattern::Any, _) => true,
        (HostPattern::Suffix(suffix), HostPattern::Exact(host) | HostPattern::Suffix(host)) => {
            host.len() > suffix.len() && host.ends_with(suffix.as_str()) || host == suffix
        }
        (wide, narrow) => wide == narrow,
    }
}

fn path(wide: &PathPattern, narrow: &PathPattern) -> bool {
    match (wide, narrow) {
        (PathPattern::Prefix(prefix), PathPattern::Exact(path) | PathPattern::Prefix(path)) => path
            .strip_prefix(prefix.as_str())
            .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/')),
        // What begins with the text lies below the segment only if the text goes on behind it.
        (PathPattern::Prefix(prefix), PathPattern::StartsWith(start)) => {
            let segment = prefix.trim_end_matches('/');
            start
                .strip_prefix(segment)
                .is_some_and(|rest| rest.starts_with('/') && start.len() >= prefix.len())
        }
        (
            PathPattern::StartsWith(start),
            PathPattern::Exact(path) | PathPattern::Prefix(path) | PathPattern::StartsWith(path),
        ) => path.starts_with(start.as_str()),
        (PathPattern::Suffix(suffix), PathPattern::Exact(path) | PathPattern::Suffix(path)) => {
            path.ends_with(suffix.as_str())
        }
        (wide, narrow) => wide == narrow,
    }
}

fn name(wide: &NamePattern, narrow: &NamePattern) -> bool {
    match (wide, narrow) {
        (NamePattern::Prefix(prefix), NamePattern::Exact(name) | NamePattern::Prefix(name)) => {
            name.starts_with(prefix.as_str())
        }
        (wide, narrow) => wide == narrow,
    }
}
