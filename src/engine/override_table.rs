//! The overrides, found without trying all of them.
//!
//! Every override is in the table under one kind of key: its hosts, its paths or Envoy's names for its route, whichever
//! the fewest others share. An override that has none of these is tried on every request. A request looks up its own
//! keys, and how many those are doesn't depend on the number of overrides. What it finds are candidates: the override's
//! own conditions decide, so two keys with the same hash cost time and nothing else.

use super::facts::Facts;
use super::matcher::Condition;
use super::overrides::{Override, virtual_service};
use super::request::{Attribute, Request};
use crate::config::{NamePattern, PathPattern};

/// The overrides in their listed order, and where to look for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct OverrideTable {
    overrides: Vec<Override>,
    /// Overrides that no key finds, in order.
    unkeyed: Vec<u32>,
    /// Hash and override, by bucket; within one in order.
    entries: Vec<(u32, u32)>,
    /// Where each bucket begins in `entries`, and the end of the last. Their number is a power of two, and one more.
    buckets: Vec<u32>,
    /// The most labels in any keyed host, segments in any keyed prefix, and bytes in any keyed path, and one more: a
    /// request's others can't be keys. 0 if there is no such key.
    labels: usize,
    segments: usize,
    path_bytes: usize,
    /// The first override keyed by each of Envoy's names, which cost a host call to ask for.
    first_named: [u32; NAMES.len()],
}

/// What a key is made of. Each begins its hashes differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Host,
    HostSuffix,
    Path,
    PathPrefix,
    Name(u8),
}

/// Envoy's names for a route, in the order that [`Kind::Name`] counts them.
const NAMES: [Attribute; 3] = [
    Attribute::VirtualHostName,
    Attribute::RouteName,
    Attribute::RouteIstioConfig,
];

/// No override.
const NONE: u32 = u32::MAX;

/// FNV-1a, byte by byte.
#[derive(Clone, Copy)]
struct Hash(u32);

impl Hash {
    fn of(kind: Kind) -> Self {
        let seed: u8 = match kind {
            Kind::Host | Kind::HostSuffix => 1,
            Kind::Path => 2,
            Kind::PathPrefix => 3,
            Kind::Name(index) => 4 + index,
        };
        Self(0x811c_9dc5).with(seed)
    }

    #[inline]
    fn with(self, byte: u8) -> Self {
        Self((self.0 ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }

    fn with_all(self, bytes: &[u8]) -> Self {
        bytes.iter().fold(self, |hash, byte| hash.with(*byte))
    }

    /// A host from its end: what is below a suffix goes on from the suffix's hash.
    fn with_host(self, host: &[u8]) -> Self {
        host.iter()
            .rev()
            .fold(self, |hash, byte| hash.with(byte.to_ascii_lowercase()))
    }
}

impl OverrideTable {
    pub(crate) fn new(overrides: Vec<Override>) -> Self {
        let mut table = Self {
            first_named: [NONE; NAMES.len()],
            ..Self::default()
        };
        // How often each key is used decides under which of its keys an override is looked for.
        let all: Vec<[Option<Keys>; 5]> = overrides.iter().map(Keys::of).collect();
        let counted = Buckets::of(
            all.iter()
                .flat_map(|choices| choices.iter().flatten())
                .flat_map(|keys| keys.hashes.iter().map(|hash| (*hash, 0)))
                .collect(),
        );
        let mut chosen = Vec::new();
        for (index, choices) in all.iter().enumerate() {
            let index = u32::try_from(index).unwrap_or(NONE);
            let (request, names) = choices.split_at(2);
            // Asking Envoy for a name costs a call: only for overrides that the request's own headers don't find.
            let best = [request, names].into_iter().find_map(|choices| {
                choices
                    .iter()
                    .flatten()
                    .min_by_key(|keys| counted.most(&keys.hashes))
            });
            let Some(keys) = best else {
                table.unkeyed.push(index);
                continue;
            };
            table.labels = table.labels.max(keys.labels);
            table.segments = table.segments.max(keys.segments);
            table.path_bytes = table.path_bytes.max(keys.path_bytes);
            if let Kind::Name(name) = keys.kind
                && let Some(first) = table.first_named.get_mut(usize::from(name))
            {
                *first = (*first).min(index);
            }
            chosen.extend(keys.hashes.iter().map(|hash| (*hash, index)));
        }
        let buckets = Buckets::of(chosen);
        table.entries = buckets.entries;
        table.buckets = buckets.starts;
        table.overrides = overrides;
        table
    }

    pub(crate) fn len(&self) -> usize {
        self.overrides.len()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Override> {
        self.overrides.get(index)
    }

    /// For every override the first condition that doesn't hold, if any.
    pub(crate) fn unmet<R: Request>(&self, facts: &Facts<'_, R>) -> Vec<Option<Condition>> {
        self.overrides.iter().map(|one| one.unmet(facts)).collect()
    }

    /// The first override that matches.
    pub(crate) fn find<R: Request>(&self, facts: &Facts<'_, R>) -> Option<usize> {
        if self.overrides.is_empty() {
            return None;
        }
        let mut search = Search {
            table: self,
            facts,
            best: NONE,
        };
        if !self.entries.is_empty() {
            search.host();
            search.path();
        }
        for index in &self.unkeyed {
            if *index >= search.best || search.try_one(*index) {
                break;
            }
        }
        search.names();
        (search.best != NONE).then_some(search.best as usize)
    }
}

/// Looking for the first override that matches one request.
struct Search<'s, 'r, R: Request> {
    table: &'s OverrideTable,
    facts: &'s Facts<'r, R>,
    best: u32,
}

impl<R: Request> Search<'_, '_, R> {
    /// Whether this override matches. If so, it is the best so far.
    fn try_one(&mut self, index: u32) -> bool {
        let matches = self
            .table
            .get(index as usize)
            .is_some_and(|one| one.unmet(self.facts).is_none());
        if matches {
            self.best = index;
        }
        matches
    }

    fn candidates(&mut self, hash: Hash) {
        let table = self.table;
        for (known, index) in bucket(&table.entries, &table.buckets, hash.0) {
            if *index >= self.best {
                return;
            }
            if *known == hash.0 && self.try_one(*index) {
                return;
            }
        }
    }

    /// The host, and each part of it that begins with a dot.
    fn host(&mut self) {
        if self.table.labels == 0 {
            return;
        }
        let Some(host) = self.facts.host() else {
            return;
        };
        let mut hash = Hash::of(Kind::Host);
        let mut dots = 0;
        for byte in host.iter().rev() {
            hash = hash.with(byte.to_ascii_lowercase());
            if *byte == b'.' {
                self.candidates(hash);
                dots += 1;
                if dots == self.table.labels {
                    return;
                }
            }
        }
        self.candidates(hash);
    }

    /// The path, and each part of it that ends before a slash.
    fn path(&mut self) {
        if self.table.segments == 0 && self.table.path_bytes == 0 {
            return;
        }
        let Some(path) = self.facts.path() else {
            return;
        };
        if path.len() < self.table.path_bytes {
            self.candidates(Hash::of(Kind::Path).with_all(path));
        }
        if self.table.segments == 0 {
            return;
        }
        let mut hash = Hash::of(Kind::PathPrefix);
        let mut slashes = 0;
        for byte in path {
            if *byte == b'/' {
                self.candidates(hash);
                slashes += 1;
                if slashes == self.table.segments {
                    return;
                }
            }
            hash = hash.with(*byte);
        }
        self.candidates(hash);
    }

    /// Envoy's names, asked for if an override before the best one so far has one as its key.
    fn names(&mut self) {
        let firsts = self.table.first_named;
        for ((index, attribute), first) in (0..).zip(NAMES).zip(firsts) {
            if first >= self.best {
                continue;
            }
            let Some(name) = self.facts.attribute(attribute) else {
                continue;
            };
            let hash = Hash::of(Kind::Name(index));
            let hash = match attribute {
                Attribute::RouteIstioConfig => {
                    let Some((namespace, name)) = virtual_service(name) else {
                        continue;
                    };
                    hash.with_all(namespace).with(b'/').with_all(name)
                }
                _ => hash.with_all(name),
            };
            self.candidates(hash);
        }
    }
}

/// The keys of one kind under which an override is found.
struct Keys {
    kind: Kind,
    hashes: Vec<u32>,
    labels: usize,
    segments: usize,
    path_bytes: usize,
}

impl Keys {
    /// By hosts, by paths, by each of Envoy's names. Nothing if the override has none of them, or one that no key finds.
    fn of(one: &Override) -> [Option<Keys>; 5] {
        [
            Self::of_hosts(one),
            Self::of_paths(one),
            Self::of_names(0, one.virtual_hosts.iter().map(exact)),
            Self::of_names(1, one.routes.iter().map(exact)),
            Self::of_names(
                2,
                one.virtual_services.iter().map(|name| Some(name.as_str())),
            ),
        ]
    }

    fn new(kind: Kind) -> Self {
        Self {
            kind,
            hashes: Vec::new(),
            labels: 0,
            segments: 0,
            path_bytes: 0,
        }
    }

    fn of_hosts(one: &Override) -> Option<Self> {
        let hosts = one.request.hosts.as_ref().filter(|hosts| !hosts.any)?;
        let mut keys = Self::new(Kind::Host);
        for (kind, host) in hosts.exact.iter().map(|host| (Kind::Host, host)).chain(
            hosts
                .suffixes
                .iter()
                .map(|suffix| (Kind::HostSuffix, suffix)),
        ) {
            let dots = host.bytes().filter(|byte| *byte == b'.').count();
            // A host is looked up after its last label too, a suffix at its dot.
            keys.labels = keys.labels.max(dots + usize::from(kind == Kind::Host));
            keys.hashes
                .push(Hash::of(kind).with_host(host.as_bytes()).0);
        }
        Some(keys)
    }

    fn of_paths(one: &Override) -> Option<Self> {
        if one.request.paths.is_empty() {
            return None;
        }
        let mut keys = Self::new(Kind::Path);
        for path in &one.request.paths {
            let hash = match path {
                PathPattern::Exact(path) => {
                    keys.path_bytes = keys.path_bytes.max(path.len() + 1);
                    Hash::of(Kind::Path).with_all(path.as_bytes())
                }
                PathPattern::Prefix(path) => {
                    let path = path.trim_end_matches('/');
                    let slashes = path.matches('/').count();
                    keys.segments = keys.segments.max(slashes + 1);
                    Hash::of(Kind::PathPrefix).with_all(path.as_bytes())
                }
                PathPattern::StartsWith(_) | PathPattern::Suffix(_) => return None,
            };
            keys.hashes.push(hash.0);
        }
        Some(keys)
    }

    fn of_names<'n>(index: u8, names: impl Iterator<Item = Option<&'n str>>) -> Option<Self> {
        let mut keys = Self::new(Kind::Name(index));
        for name in names {
            keys.hashes
                .push(Hash::of(Kind::Name(index)).with_all(name?.as_bytes()).0);
        }
        (!keys.hashes.is_empty()).then_some(keys)
    }
}

fn exact(pattern: &NamePattern) -> Option<&str> {
    match pattern {
        NamePattern::Exact(name) => Some(name),
        NamePattern::Prefix(_) => None,
    }
}

/// Entries put into buckets by their hashes.
struct Buckets {
    entries: Vec<(u32, u32)>,
    starts: Vec<u32>,
}

impl Buckets {
    /// A counting sort. It is stable: overrides stay in order.
    fn of(unsorted: Vec<(u32, u32)>) -> Self {
        if unsorted.is_empty() {
            return Self {
                entries: unsorted,
                starts: Vec::new(),
            };
        }
        let size = (unsorted.len() * 2).next_power_of_two();
        let place = |hash: u32| hash as usize & (size - 1);
        let mut starts = vec![0_u32; size + 1];
        for (hash, _) in &unsorted {
            if let Some(count) = starts.get_mut(place(*hash) + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let mut next = starts.clone();
        let mut entries = vec![(0, 0); unsorted.len()];
        for entry in unsorted {
            if let Some(next) = next.get_mut(place(entry.0)) {
                if let Some(slot) = entries.get_mut(*next as usize) {
                    *slot = entry;
                }
                *next += 1;
            }
        }
        Self { entries, starts }
    }

    /// How often the most frequent of these hashes is there.
    fn most(&self, hashes: &[u32]) -> usize {
        let count = |hash: &u32| {
            bucket(&self.entries, &self.starts, *hash)
                .iter()
                .filter(|(known, _)| known == hash)
                .count()
        };
        hashes.iter().map(count).max().unwrap_or(0)
    }
}

/// The bucket of a hash.
fn bucket<'e>(entries: &'e [(u32, u32)], starts: &[u32], hash: u32) -> &'e [(u32, u32)] {
    let index = hash as usize & starts.len().saturating_sub(2);
    let (Some(from), Some(to)) = (starts.get(index), starts.get(index + 1)) else {
        return &[];
    };
    entries.get(*from as usize..*to as usize).unwrap_or(&[])
}
