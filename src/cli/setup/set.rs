//! Sets of small numbers.

/// A set of places in a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Set(Vec<u64>);

impl Set {
    pub(super) const EMPTY: Set = Set(Vec::new());

    pub(super) fn insert(&mut self, place: usize) {
        let (word, bit) = (place / 64, place % 64);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(bits) = self.0.get_mut(word) {
            *bits |= 1 << bit;
        }
    }

    pub(super) fn has(&self, place: usize) -> bool {
        let bits = self.0.get(place / 64).copied().unwrap_or_default();
        bits & (1 << (place % 64)) != 0
    }

    /// Whether the two have a place in common.
    pub(super) fn meets(&self, other: &Set) -> bool {
        self.0
            .iter()
            .zip(&other.0)
            .any(|(one, other)| one & other != 0)
    }

    /// What is in either.
    pub(super) fn or(&self, other: &Set) -> Set {
        let (long, short) = if self.0.len() >= other.0.len() {
            (self, other)
        } else {
            (other, self)
        };
        let mut both = long.clone();
        for (bits, more) in both.0.iter_mut().zip(&short.0) {
            *bits |= more;
        }
        both
    }

    /// The places, in order.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(word, bits)| {
            (0..64)
                .filter(move |bit| bits & (1 << bit) != 0)
                .map(move |bit| word * 64 + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Set;

    fn of(places: &[usize]) -> Set {
        let mut set = Set::default();
        for place in places {
            set.insert(*place);
        }
        set
    }

    #[test]
    fn a_set_has_what_was_put_in() {
        let set = of(&[200, 3, 64]);
        assert_eq!(set.places().collect::<Vec<_>>(), [3, 64, 200]);
        assert!(set.has(64) && !set.has(65) && !set.has(1_000));
    }

    #[test]
    fn sets_of_any_length_meet_and_join() {
        assert!(of(&[1, 200]).meets(&of(&[200])) && !of(&[1, 200]).meets(&of(&[2])));
        assert_eq!(of(&[2]).or(&of(&[70])), of(&[2, 70]));
        assert_eq!(of(&[70]).or(&of(&[2])), of(&[2, 70]));
    }
}
