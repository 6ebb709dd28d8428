//! The headers that a configuration reads, each with a small number, found by name in a handful of instructions.

/// The number of a header that the configuration reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HeaderId(u16);

impl HeaderId {
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

macro_rules! fixed_names {
    ($($constant:ident = $number:literal $name:literal;)*) => {
        /// The headers that every configuration knows.
        impl HeaderId {
            $(pub(crate) const $constant: HeaderId = HeaderId($number);)*
        }
        const FIXED: &[&str] = &[$($name),*];
    };
}

fixed_names! {
    FORWARDED_PROTO = 0 "x-forwarded-proto";
    SCHEME = 1 ":scheme";
    FORWARDED_FOR = 2 "x-forwarded-for";
    METHOD = 3 ":method";
    AUTHORITY = 4 ":authority";
    PATH = 5 ":path";
    UPGRADE = 6 "upgrade";
    FORWARDED_PORT = 7 "x-forwarded-port";
    TIMEOUT = 8 "x-envoy-upstream-rq-timeout-ms";
    PER_TRY_TIMEOUT = 9 "x-envoy-upstream-rq-per-try-timeout-ms";
    MAX_RETRIES = 10 "x-envoy-max-retries";
    RETRY_ON = 11 "x-envoy-retry-on";
    RETRY_GRPC_ON = 12 "x-envoy-retry-grpc-on";
    RETRIABLE_STATUS_CODES = 13 "x-envoy-retriable-status-codes";
    RETRIABLE_HEADER_NAMES = 14 "x-envoy-retriable-header-names";
    HEDGE_ON_PER_TRY_TIMEOUT = 15 "x-envoy-hedge-on-per-try-timeout";
    CONNECTION = 16 "connection";
}

/// When a header is removed from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Removal {
    /// Whoever sent it.
    pub(crate) always: bool,
    /// When no rule trusts the peer.
    pub(crate) untrusted: bool,
    /// Its underscore twins go whoever sent them.
    pub(crate) twins: bool,
}

/// The table of names.
#[derive(Clone, Debug)]
pub(crate) struct HeaderNames {
    names: Vec<String>,
    removals: Vec<Removal>,
    /// The names that are removed from some requests.
    removed: Vec<HeaderId>,
    /// Open addressing: the position is the hash, then onwards; a power of two, at most half full.
    table: Vec<Option<HeaderId>>,
    mask: usize,
}

impl HeaderNames {
    pub(crate) fn new() -> Self {
        let mut names = Self {
            names: Vec::new(),
            removals: Vec::new(),
            removed: Vec::new(),
            table: Vec::new(),
            mask: 0,
        };
        for name in FIXED {
            names.intern(name);
        }
        names
    }

    /// The number of a name, new or known.
    pub(crate) fn intern(&mut self, name: &str) -> HeaderId {
        if let Some(id) = self.find(name.as_bytes()) {
            return id;
        }
        // A configuration has a few dozen names; beyond the last number all would share one slot, which reads as
        // a duplicated header: unusable, so untrusted.
        let id = HeaderId(u16::try_from(self.names.len()).unwrap_or(u16::MAX));
        self.names.push(name.to_owned());
        self.removals.push(Removal::default());
        if self.names.len() * 2 > self.table.len() {
            self.grow();
        } else {
            self.place(id);
        }
        id
    }

    fn grow(&mut self) {
        let size = (self.names.len() * 4).next_power_of_two();
        self.table = vec![None; size];
        self.mask = size - 1;
        for index in 0..self.names.len() {
            self.place(HeaderId(u16::try_from(index).unwrap_or(u16::MAX)));
        }
    }

    fn place(&mut self, id: HeaderId) {
        let mut position = hash(self.name(id).as_bytes()) & self.mask;
        while let Some(slot) = self.table.get_mut(position) {
            if slot.is_none() {
                *slot = Some(id);
                return;
            }
            position = (position + 1) & self.mask;
        }
    }

    /// The number of a name, if the configuration reads it.
    #[inline]
    pub(crate) fn find(&self, name: &[u8]) -> Option<HeaderId> {
        let mut position = hash(name) & self.mask;
        while let Some(Some(id)) = self.table.get(position) {
            if self.name(*id).as_bytes() == name {
                return Some(*id);
            }
            position = (position + 1) & self.mask;
        }
        None
    }

    pub(crate) fn name(&self, id: HeaderId) -> &str {
        self.names.get(id.index()).map_or("", String::as_str)
    }

    pub(crate) fn removal(&self, id: HeaderId) -> Removal {
        self.removals.get(id.index()).copied().unwrap_or_default()
    }

    /// Says when a header is removed.
    pub(crate) fn mark(&mut self, id: HeaderId, mark: impl FnOnce(&mut Removal)) {
        if let Some(removal) = self.removals.get_mut(id.index()) {
            mark(removal);
            if (removal.always || removal.untrusted) && !self.removed.contains(&id) {
                self.removed.push(id);
            }
        }
    }

    /// The headers that are removed from some requests.
    pub(crate) fn removed(&self) -> &[HeaderId] {
        &self.removed
    }

    /// How many names there are; every [`HeaderId`]'s index is below.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }
}

/// Enough to tell a few dozen header names apart: their length and five of their bytes.
#[inline]
fn hash(name: &[u8]) -> usize {
    let byte = |index: usize| name.get(index).copied().map_or(0, usize::from);
    let len = name.len();
    let ends = byte(len.wrapping_sub(1))
        .wrapping_mul(31)
        .wrapping_add(byte(len.wrapping_sub(4)).wrapping_mul(7));
    let middle = byte(len / 2)
        .wrapping_mul(131)
        .wrapping_add(byte(2).wrapping_mul(17));
    len.wrapping_mul(37)
        .wrapping_add(ends)
        .wrapping_add(middle)
        .wrapping_add(byte(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_names_have_their_numbers() {
        let names = HeaderNames::new();
        for (index, name) in FIXED.iter().enumerate() {
            let id = names.find(name.as_bytes()).expect(name);
            assert_eq!(id.index(), index);
            assert_eq!(names.name(id), *name);
        }
    }

    #[test]
    fn every_interned_name_is_found_and_no_other() {
        let mut names = HeaderNames::new();
        let ids: Vec<_> = (0..500)
            .map(|n| names.intern(&format!("x-header-{n}")))
            .collect();
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(names.find(format!("x-header-{n}").as_bytes()), Some(*id));
        }
        assert_eq!(names.find(b"x-header-500"), None);
        assert_eq!(names.find(b""), None);
        assert_eq!(names.intern("x-header-7"), ids[7]);
    }
}
