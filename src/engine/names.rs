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

/// When a header is removed from the request. What removes more twins is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Removal {
    /// Its underscore twins go whoever sent them.
    pub(crate) twins: bool,
    /// When no rule trusts the peer.
    pub(crate) untrusted: bool,
    /// Whoever sent it.
    pub(crate) always: bool,
}

impl Removal {
    /// Whether an underscore twin of the header is removed from any request.
    pub(crate) fn concerns_twins(self) -> bool {
        self.always || self.untrusted || self.twins
    }
}

/// The table of names.
#[derive(Clone, Debug)]
pub(crate) struct HeaderNames {
    names: Vec<String>,
    removals: Vec<Removal>,
    /// The names that are removed from some requests, and when.
    removed: Vec<(HeaderId, Removal)>,
    /// Open addressing: the position is the hash, then onwards; a power of two, at most half full.
    table: Vec<Slot>,
    mask: usize,
}

/// A name in the table, with its whole hash: other names seldom have to be compared.
#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    id: HeaderId,
}

impl Slot {
    /// No configuration has as many names.
    const EMPTY: Slot = Slot {
        hash: 0,
        id: HeaderId(u16::MAX),
    };

    #[inline(always)]
    fn is_empty(self) -> bool {
        self.id == Slot::EMPTY.id
    }
}

/// What a header's name says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// It is a name that the configuration reads.
    pub(crate) id: Option<HeaderId>,
    /// With hyphens for its underscores it would be this name.
    pub(crate) twin_of: Option<HeaderId>,
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
        if let Some(id) = self.look_up(name.as_bytes()).id {
            return id;
        }
        // A configuration has a few dozen names. Those beyond the last number are never found, so that no rule which
        // asks for them holds.
        let Some(id) = u16::try_from(self.names.len())
            .ok()
            .map(HeaderId)
            .filter(|id| *id != Slot::EMPTY.id)
        else {
            return Slot::EMPTY.id;
        };
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
        self.table = vec![Slot::EMPTY; size];
        self.mask = size - 1;
        for index in 0..self.names.len() {
            self.place(HeaderId(u16::try_from(index).unwrap_or(u16::MAX)));
        }
    }

    fn place(&mut self, id: HeaderId) {
        let hash = hash(self.name(id).as_bytes());
        let mut position = hash as usize & self.mask;
        while let Some(slot) = self.table.get_mut(position) {
            if slot.is_empty() {
                *slot = Slot { hash, id };
                return;
            }
            position = (position + 1) & self.mask;
        }
    }

    /// What the configuration knows of a name. It may be both: one that a rule reads, and another's underscore twin.
    #[inline(always)]
    pub(crate) fn look_up(&self, name: &[u8]) -> Known {
        let mut known = Known::default();
        let hash = hash(name);
        let mut position = hash as usize & self.mask;
        while let Some(slot) = self.table.get(position)
            && !slot.is_empty()
        {
            if slot.hash == hash {
                self.compare(slot.id, name, &mut known);
            }
            position = (position + 1) & self.mask;
        }
        known
    }

    fn compare(&self, id: HeaderId, name: &[u8], known: &mut Known) {
        let candidate = self.name(id).as_bytes();
        if same(candidate, name) {
            known.id = Some(id);
        } else if is_twin(candidate, name)
            // Of several it is the one whose twins have to go.
            && known
                .twin_of
                .is_none_or(|other| self.removal(other) < self.removal(id))
        {
            known.twin_of = Some(id);
        }
    }

    #[inline]
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
            let removal = *removal;
            self.removed.retain(|(other, _)| *other != id);
            if removal.always || removal.untrusted {
                self.removed.push((id, removal));
            }
        }
    }

    /// The headers that are removed from some requests, and when.
    #[inline]
    pub(crate) fn removed(&self) -> &[(HeaderId, Removal)] {
        &self.removed
    }

    /// How many names there are; every [`HeaderId`]'s index is below.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }
}

/// Enough to tell a few dozen header names apart: the length, eight bytes from each end, or four of a short name; the
/// same for a name and its underscore twins.
#[inline(always)]
fn hash(name: &[u8]) -> u32 {
    /// The bits in which `_` and `-` are the same, in each of eight bytes.
    const ALIKE: u64 = 0x8d8d_8d8d_8d8d_8d8d;
    let (head, tail) = ends(name);
    let mixed = (head & ALIKE)
        .wrapping_add(name.len() as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (tail & ALIKE).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    #[allow(clippy::cast_possible_truncation)] // The well-mixed half.
    let hash = (mixed >> 32) as u32;
    hash
}

/// The first and the last eight bytes, which overlap in a name of less than sixteen.
#[inline(always)]
fn ends(name: &[u8]) -> (u64, u64) {
    if let (Some(head), Some(tail)) = (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (u64::from_le_bytes(*head), u64::from_le_bytes(*tail))
    } else if let (Some(head), Some(tail)) = (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        (
            u32::from_le_bytes(*head).into(),
            u32::from_le_bytes(*tail).into(),
        )
    } else {
        let word = name
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte));
        (word, 0)
    }
}

/// Whether two names are the same, eight bytes at a time. The module's `memcmp` goes byte by byte.
#[inline(always)]
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && ends(one) == ends(other)
        && (one.len() <= 16
            || one
                .as_chunks::<8>()
                .0
                .iter()
                .zip(other.as_chunks::<8>().0)
                .all(|(one, other)| u64::from_le_bytes(*one) == u64::from_le_bytes(*other)))
}

/// Whether `name` has underscores where `known` has hyphens, and is the same otherwise.
fn is_twin(known: &[u8], name: &[u8]) -> bool {
    known.len() == name.len()
        && known
            .iter()
            .zip(name)
            .all(|(known, byte)| known == byte || (*known == b'-' && *byte == b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_names_have_their_numbers() {
        let names = HeaderNames::new();
        for (index, name) in FIXED.iter().enumerate() {
            let id = names.look_up(name.as_bytes()).id.expect(name);
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
            let name = format!("x-header-{n}");
            assert_eq!(names.look_up(name.as_bytes()).id, Some(*id));
            let twin = Known {
                id: None,
                twin_of: Some(*id),
            };
            assert_eq!(names.look_up(name.replace('-', "_").as_bytes()), twin);
            assert_eq!(names.look_up(name.replacen('-', "_", 1).as_bytes()), twin);
        }
        for unknown in ["x-header-500", "x-headers-7", "", "-", "x_header_500"] {
            assert_eq!(names.look_up(unknown.as_bytes()), Known::default());
        }
        let twin = names.intern("x_header_7");
        let both = names.look_up(b"x_header_7");
        assert_eq!((both.id, both.twin_of), (Some(twin), Some(ids[7])));
        assert_eq!(names.intern("x-header-7"), ids[7]);
    }

    #[test]
    fn a_twin_of_several_names_is_the_twin_that_has_to_go() {
        for order in [["a-b-c-d", "a-b_c-d"], ["a-b_c-d", "a-b-c-d"]] {
            let mut names = HeaderNames::new();
            for name in order {
                names.intern(name);
            }
            let removed = names.intern("a-b-c-d");
            names.mark(removed, |removal| removal.twins = true);
            assert_eq!(names.look_up(b"a_b_c_d").twin_of, Some(removed));
        }
    }
}
