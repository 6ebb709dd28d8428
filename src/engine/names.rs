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
    EXPECTED_TIMEOUT = 17 "x-envoy-expected-rq-timeout-ms";
    STREAM_DURATION = 18 "x-envoy-upstream-stream-duration-ms";
    TIMEOUT_ALT_RESPONSE = 19 "x-envoy-upstream-rq-timeout-alt-response";
    ALT_STAT_NAME = 20 "x-envoy-upstream-alt-stat-name";
}

/// When a header is removed from the request. What removes more variants is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
#[allow(clippy::struct_excessive_bools)] // Independent: a header may be any of these.
pub(crate) struct Removal {
    /// Its variants are removed, whoever sent them.
    pub(crate) variants: bool,
    /// It and its variants are removed if no rule trusts the peer.
    pub(crate) untrusted: bool,
    /// It is removed, whoever sent it.
    pub(crate) always: bool,
    /// Envoy's router reads it: what becomes of it is up to the policy.
    pub(crate) router: bool,
}

impl Removal {
    /// Whether the header itself may have to be removed.
    fn concerns_itself(self) -> bool {
        self.untrusted || self.always || self.router
    }

    fn concerns_variants(self) -> bool {
        self.variants || self.untrusted
    }
}

/// A name, and when the header is removed.
#[derive(Clone, Debug)]
struct Name {
    text: String,
    removal: Removal,
    /// What [`Known::removable`] says of this name.
    removable: Option<HeaderId>,
}

/// The table of names.
#[derive(Clone, Debug)]
pub(crate) struct HeaderNames {
    names: Vec<Name>,
    /// How many names from the first on have values that are read. The others are only removed.
    read: usize,
    /// Open addressing: the position is the hash, then onwards. Its size is a power of two, and it is at most half full.
    table: Vec<Slot>,
    mask: usize,
    /// Names that have variants which are removed, by the hash that all variants share.
    variants: Vec<Slot>,
    /// For each length, and all from the last on, which first and last letters those names have. This tells most names
    /// that the configuration doesn't know from variants.
    ends: [u32; LENGTHS],
}

const LENGTHS: usize = 64;

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

/// What is known of a header's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// The name is one of the configuration's.
    pub(crate) id: Option<HeaderId>,
    /// The header may have to be removed because it is this one, or a variant of it.
    pub(crate) removable: Option<HeaderId>,
}

impl HeaderNames {
    pub(crate) fn new() -> Self {
        let mut names = Self {
            names: Vec::new(),
            read: usize::MAX,
            table: Vec::new(),
            mask: 0,
            variants: Vec::new(),
            ends: [0; LENGTHS],
        };
        for name in FIXED {
            names.intern(name);
        }
        names
    }

    /// The number of a name, new or known.
    pub(crate) fn intern(&mut self, name: &str) -> HeaderId {
        if let Some(id) = self.id(name.as_bytes()) {
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
        self.names.push(Name {
            text: name.to_owned(),
            removal: Removal::default(),
            removable: None,
        });
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

    /// What is known of a name. It may be one that a rule reads and a variant of another one.
    #[inline(always)]
    pub(crate) fn look_up(&self, name: &[u8]) -> Known {
        let hash = hash(name);
        let mut position = hash as usize & self.mask;
        while let Some(slot) = self.table.get(position)
            && !slot.is_empty()
        {
            if slot.hash == hash
                && let Some(known) = self.names.get(slot.id.index())
                && same(known.text.as_bytes(), name)
            {
                return Known {
                    id: Some(slot.id),
                    removable: known.removable,
                };
            }
            position = (position + 1) & self.mask;
        }
        let ends = self.ends.get(name.len()).or(self.ends.last());
        let removable = if ends.is_some_and(|ends| ends & bit_of_ends(name) != 0) {
            self.variant_of(name)
        } else {
            None
        };
        Known {
            id: None,
            removable,
        }
    }

    /// The number of a known name.
    #[inline(never)]
    pub(crate) fn id(&self, name: &[u8]) -> Option<HeaderId> {
        self.look_up(name).id
    }

    /// The header that this name is a variant of. Of several it is the one whose variants are removed from more requests.
    #[cold]
    fn variant_of(&self, name: &[u8]) -> Option<HeaderId> {
        let hash = hash_of_variants(name);
        let after = self.variants.partition_point(|slot| slot.hash < hash);
        let alike = self.variants.get(after..)?.iter();
        alike
            .take_while(|slot| slot.hash == hash)
            .map(|slot| slot.id)
            .filter(|id| is_variant(self.name(*id).as_bytes(), name))
            .max_by_key(|id| self.removal(*id))
    }

    #[inline]
    pub(crate) fn name(&self, id: HeaderId) -> &str {
        self.names
            .get(id.index())
            .map_or("", |name| name.text.as_str())
    }

    pub(crate) fn removal(&self, id: HeaderId) -> Removal {
        self.names
            .get(id.index())
            .map(|name| name.removal)
            .unwrap_or_default()
    }

    /// Whether a header of this name is removed if no rule trusts the peer: by itself, or as a variant of another.
    pub(crate) fn is_removed_from_untrusted(&self, id: HeaderId) -> bool {
        let name = self.names.get(id.index());
        let of = name.and_then(|name| name.removable);
        of.is_some_and(|of| self.removal(of).untrusted)
    }

    /// Says when a header is removed.
    pub(crate) fn mark(&mut self, id: HeaderId, mark: impl FnOnce(&mut Removal)) {
        if let Some(name) = self.names.get_mut(id.index()) {
            mark(&mut name.removal);
        }
    }

    /// From now on names are interned that are only removed.
    pub(crate) fn all_read_names_are_in(&mut self) {
        self.read = self.names.len();
    }

    /// Every name is in and marked.
    pub(crate) fn finish(&mut self) {
        for index in 0..self.names.len() {
            let id = HeaderId(u16::try_from(index).unwrap_or(u16::MAX));
            let name = self.name(id).as_bytes();
            if !self.removal(id).concerns_variants() || name.iter().all(u8::is_ascii_alphanumeric) {
                continue;
            }
            let hash = hash_of_variants(name);
            let ends = [name.first(), name.last()].into_iter().flatten();
            // Another character may stand in place of one that is no letter or digit.
            let bits = if ends.copied().all(|byte| byte.is_ascii_alphanumeric()) {
                bit_of_ends(name)
            } else {
                u32::MAX
            };
            let length = name.len().min(LENGTHS - 1);
            if let Some(known) = self.ends.get_mut(length) {
                *known |= bits;
            }
            let place = self.variants.partition_point(|slot| slot.hash < hash);
            self.variants.insert(place, Slot { hash, id });
        }
        for index in 0..self.names.len() {
            let id = HeaderId(u16::try_from(index).unwrap_or(u16::MAX));
            let of = self.variant_of(self.name(id).as_bytes());
            let itself = Some(id).filter(|id| self.removal(*id).concerns_itself());
            let removable = [itself, of.filter(|of| *of != id)]
                .into_iter()
                .flatten()
                .max_by_key(|id| self.removal(*id));
            if let Some(name) = self.names.get_mut(index) {
                name.removable = removable;
            }
        }
    }

    /// How many names have values that are read. Their indexes are below this.
    pub(crate) fn read(&self) -> usize {
        self.read.min(self.names.len())
    }
}

/// Enough to tell a few dozen header names apart: the length, and four bytes from each end.
#[inline(always)]
fn hash(name: &[u8]) -> u32 {
    mixed(four_from_each_end(name), name.len())
}

/// The same for a name and all its variants.
fn hash_of_variants(name: &[u8]) -> u32 {
    mixed(letters_and_digits(four_from_each_end(name)), name.len())
}

#[inline(always)]
fn four_from_each_end(name: &[u8]) -> u64 {
    match (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        (Some(head), Some(tail)) => {
            u64::from(u32::from_le_bytes(*head)) << 32 | u64::from(u32::from_le_bytes(*tail))
        }
        _ => 0,
    }
}

#[inline(always)]
fn mixed(word: u64, length: usize) -> u32 {
    #[allow(clippy::cast_possible_truncation)] // The well-mixed half.
    let hash = (word
        .wrapping_add(length as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        >> 32) as u32;
    hash
}

/// One bit that depends on the first and the last byte.
#[inline(always)]
fn bit_of_ends(name: &[u8]) -> u32 {
    let first = name.first().copied().unwrap_or_default();
    let last = name.last().copied().unwrap_or_default();
    1_u32.wrapping_shl(u32::from(first) * 5 + u32::from(last))
}

/// The same eight bytes with 0 for every byte that isn't a letter or digit. `0` becomes 0 too, and bytes that are in no
/// header's name may become anything.
fn letters_and_digits(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // From a to z bits 6 and 5 are set even after one is taken away, from 1 to 9 bits 5 and 4. Only what is above z gets
    // bit 7 when five are added.
    let less = word.wrapping_sub(ONES);
    let more = word.wrapping_add(5 * ONES);
    let kept = (less >> 5) & ((less >> 6) | (less >> 4)) & !(more >> 7) & ONES;
    word & kept.wrapping_mul(0xff)
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

/// Whether `name` differs from `known` only in characters that aren't letters or digits. Servers of the CGI family turn
/// `_`, some of them every such character, into the same variable as `-`.
fn is_variant(known: &[u8], name: &[u8]) -> bool {
    known.len() == name.len()
        && known.iter().zip(name).all(|(known, byte)| {
            known == byte || !(known.is_ascii_alphanumeric() || byte.is_ascii_alphanumeric())
        })
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

    /// A table in which these names are removed from untrusted requests, and those are only read.
    fn table(removed: &[&str], read: &[&str]) -> HeaderNames {
        let mut names = HeaderNames::new();
        for name in read {
            names.intern(name);
        }
        for name in removed {
            let id = names.intern(name);
            names.mark(id, |removal| removal.untrusted = true);
        }
        names.finish();
        names
    }

    #[test]
    fn every_interned_name_is_found_and_no_other() {
        let texts: Vec<String> = (0..500).map(|n| format!("x-header-{n}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut names = table(&texts, &["x_header_7"]);
        for name in &texts {
            let id = names.intern(name);
            let known = names.look_up(name.as_bytes());
            assert_eq!((known.id, known.removable), (Some(id), Some(id)), "{name}");
            for variant in [name.replace('-', "."), name.replacen('-', "_", 1)] {
                let known = names.look_up(variant.as_bytes());
                assert_eq!((known.id, known.removable), (None, Some(id)), "{variant}");
            }
        }
        for unknown in ["x-header-500", "x-headers-7", "", "-", "x_header_500"] {
            assert_eq!(names.look_up(unknown.as_bytes()), Known::default());
        }
        let both = names.look_up(b"x_header_7");
        assert_eq!(both.id, Some(names.intern("x_header_7")));
        assert_eq!(both.removable, Some(names.intern("x-header-7")));
    }

    #[test]
    fn every_character_of_a_header_name_that_is_no_letter_or_digit_makes_a_variant() {
        // RFC 9110, 5.6.2.
        for byte in b"!#$%&'*+.^_`|~" {
            for known in ["a-b", "x-b", "x-forwarded-proto", "a-to-z-0-to-9-x", "--x"] {
                let names = table(&[known], &[]);
                let id = names.look_up(known.as_bytes()).id;
                for (place, _) in known.match_indices('-') {
                    let mut name = known.as_bytes().to_vec();
                    name[place] = *byte;
                    let shown = String::from_utf8_lossy(&name).into_owned();
                    assert_eq!(names.look_up(&name).removable, id, "{shown}");
                }
                let all = known.replace('-', &char::from(*byte).to_string());
                assert_eq!(names.look_up(all.as_bytes()).removable, id, "{all}");
            }
        }
        let long = format!("x-{}-b", "a".repeat(100));
        let names = table(&[&long], &[]);
        assert!(
            names
                .look_up(long.replace('-', "+").as_bytes())
                .removable
                .is_some()
        );
    }

    #[test]
    fn a_letter_or_digit_in_place_of_a_hyphen_makes_no_variant() {
        let names = table(&["x-forwarded-proto"], &[]);
        for name in [
            "x0forwarded-proto",
            "xaforwarded-proto",
            "x-forwarded-prot-",
            "x_forwarded_protocol",
        ] {
            assert_eq!(names.look_up(name.as_bytes()), Known::default(), "{name}");
        }
    }

    #[test]
    fn of_several_names_a_variant_belongs_to_the_one_that_is_removed() {
        for read in [["a-b-c-d", "a-b_c-d"], ["a-b_c-d", "a-b-c-d"]] {
            let mut names = table(&["a-b-c-d"], &read);
            let removed = names.intern("a-b-c-d");
            assert_eq!(names.look_up(b"a_b_c_d").removable, Some(removed));
            assert_eq!(names.look_up(b"a-b_c-d").removable, Some(removed));
        }
    }
}
