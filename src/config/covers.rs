//! Whether one match holds for every request that another holds for: then, in an ordered list, the other never gets
//! its turn.

use super::address::{IpBlock, Ranges};
use super::overrides::{NamePattern, RouteMatch};
use super::requests::{HostPattern, PathPattern, RequestMatch};
use super::trust::LoadBalancerMatch;

/// Whether `earlier` holds wherever `later` does. `false` where that can't be told simply.
pub(crate) fn load_balancer(earlier: &LoadBalancerMatch, later: &LoadBalancerMatch) -> bool {
    (earlier.ip_blocks.is_empty()
        || (!later.ip_blocks.is_empty() && blocks(&earlier.ip_blocks, &later.ip_blocks)))
        && excludes(&earlier.not_ip_blocks, &later.not_ip_blocks)
        && among(&earlier.ports, &later.ports, |a, b| a == b)
        && excludes(&earlier.not_ports, &later.not_ports)
        && (earlier.client_certificate.is_none()
            || earlier.client_certificate == later.client_certificate)
        && request(&earlier.request, &later.request)
}

/// As [`load_balancer`], for routes.
pub(crate) fn route(earlier: &RouteMatch, later: &RouteMatch) -> bool {
    among(&earlier.virtual_hosts, &later.virtual_hosts, name)
        && among(&earlier.routes, &later.routes, name)
        && among(
            &earlier.virtual_services,
            &later.virtual_services,
            |a, b| a == b,
        )
        && request(&earlier.request, &later.request)
}

fn request(earlier: &RequestMatch, later: &RequestMatch) -> bool {
    among(&earlier.hosts, &later.hosts, host)
        && excludes(&earlier.not_hosts, &later.not_hosts)
        && among(&earlier.paths, &later.paths, path)
        && excludes(&earlier.not_paths, &later.not_paths)
        && among(&earlier.methods, &later.methods, |a, b| a == b)
        && excludes(&earlier.not_methods, &later.not_methods)
        // Every header has to match, so that the earlier one may ask for no more than the later one.
        && earlier.headers.iter().all(|header| later.headers.contains(header))
        && excludes(&earlier.not_headers, &later.not_headers)
}

/// One of a list has to hold: each of the later's is covered by one of the earlier's.
fn among<T>(earlier: &[T], later: &[T], covers: fn(&T, &T) -> bool) -> bool {
    earlier.is_empty()
        || (!later.is_empty()
            && later
                .iter()
                .all(|narrow| earlier.iter().any(|wide| covers(wide, narrow))))
}

/// None of a list may hold: what the earlier excludes, the later excludes as well.
fn excludes<T: PartialEq>(earlier: &[T], later: &[T]) -> bool {
    earlier.iter().all(|excluded| later.contains(excluded))
}

fn blocks(earlier: &[IpBlock], later: &[IpBlock]) -> bool {
    let ranges = |blocks: &[IpBlock]| Ranges::of(blocks.iter().flat_map(IpBlock::nets));
    let inside = |narrow: &[(u128, u128)], wide: &[(u128, u128)]| {
        narrow.iter().all(|(first, last)| {
            let after = wide.partition_point(|(from, _)| from <= first);
            let before = after.checked_sub(1).and_then(|index| wide.get(index));
            before.is_some_and(|(_, to)| last <= to)
        })
    };
    let (wide, narrow) = (ranges(earlier), ranges(later));
    inside(&narrow.v4, &wide.v4) && inside(&narrow.v6, &wide.v6)
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
