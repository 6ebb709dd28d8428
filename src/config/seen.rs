//! Finding what is there twice, in lists of any length.

use std::hash::{Hash, Hasher};

/// Hashes of what has been met. Two things with one hash look like one thing met twice; nobody meets two who doesn't
/// compute them on purpose. The standard library's set would be four times as large in the module.
#[derive(Default)]
pub(crate) struct Seen {
    /// 0 where it is free. Their number is a power of two.
    slots: Vec<u64>,
    used: usize,
}

impl Seen {
    /// Notes a thing. Whether something with its hash was there before.
    pub(crate) fn again(&mut self, thing: &(impl Hash + ?Sized)) -> bool {
        self.again_by_hash(Self::hash(thing))
    }

    /// How many different things there were.
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// A thing's hash, never 0.
    pub(crate) fn hash(thing: &(impl Hash + ?Sized)) -> u64 {
        let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
        thing.hash(&mut hasher);
        hasher.0.max(1)
    }

    pub(crate) fn again_by_hash(&mut self, hash: u64) -> bool {
        if self.used * 2 >= self.slots.len() {
            let larger = vec![0; (self.slots.len() * 2).max(16)];
            let old = std::mem::replace(&mut self.slots, larger);
            for hash in old.into_iter().filter(|hash| *hash != 0) {
                self.put(hash);
            }
        }
        let again = self.put(hash);
        self.used += usize::from(!again);
        again
    }

    /// Whether it was there.
    fn put(&mut self, hash: u64) -> bool {
        let mask = self.slots.len() - 1;
        #[allow(clippy::cast_possible_truncation)] // As many of its bits as there are slots.
        let start = (hash ^ (hash >> 32)) as usize;
        // Half of the slots are free at least.
        for step in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(start.wrapping_add(step) & mask) else {
                break;
            };
            if *slot == hash {
                return true;
            }
            if *slot == 0 {
                *slot = hash;
                break;
            }
        }
        false
    }
}

/// FNV-1a, 64 bits.
struct Fnv(u64);

impl Hasher for Fnv {
    /// Not inlined: every field of every type that is hashed would bring a loop of its own.
    #[inline(never)]
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_twice_is_found_and_nothing_else() {
        let mut seen = Seen::default();
        for number in 0..5_000_u32 {
            assert!(!seen.again(&number), "{number}");
        }
        for number in 0..5_000_u32 {
            assert!(seen.again(&number), "{number}");
        }
        assert!(!seen.again("text"));
        assert!(seen.again("text"));
    }
}
