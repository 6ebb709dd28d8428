//! Sets of addresses: sorted ranges, searched in logarithmic time.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::Ranges;

/// A set of IP addresses: inclusive ranges, sorted by their first value; none overlaps another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CidrSet {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl CidrSet {
    pub(crate) fn new(nets: impl Iterator<Item = IpNet>) -> Self {
        let ranges = Ranges::of(nets);
        let narrow = |value: u128| u32::try_from(value).unwrap_or(u32::MAX);
        Self {
            v4: ranges
                .v4
                .into_iter()
                .map(|(first, last)| (narrow(first), narrow(last)))
                .collect(),
            v6: ranges.v6,
        }
    }

    /// Whether the address, in its canonical form, lies in the set.
    #[inline]
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => contains(&self.v4, address.to_bits()),
            IpAddr::V6(address) => contains(&self.v6, address.to_bits()),
        }
    }
}

fn contains<T: Copy + Ord>(ranges: &[(T, T)], value: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= value);
    after
        .checked_sub(1)
        .and_then(|index| ranges.get(index))
        .is_some_and(|(_, last)| value <= *last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(blocks: &[&str]) -> CidrSet {
        CidrSet::new(blocks.iter().map(|block| block.parse().expect("block")))
    }

    #[test]
    fn the_first_and_last_address_of_a_block_are_in_it() {
        let set = set(&["10.0.12.0/24", "2001:db8::/32", "192.0.2.7/32"]);
        for (address, inside) in [
            ("10.0.12.0", true),
            ("10.0.12.255", true),
            ("10.0.11.255", false),
            ("10.0.13.0", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8::", true),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db9::", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
        ] {
            assert_eq!(
                set.contains(address.parse().expect("address")),
                inside,
                "{address}"
            );
        }
    }

    #[test]
    fn overlapping_blocks_are_one() {
        let set = set(&["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/1"]);
        assert_eq!(set.v4.len(), 1);
        assert!(set.contains("127.255.255.255".parse().expect("address")));
        assert!(!set.contains("128.0.0.0".parse().expect("address")));
    }

    #[test]
    fn an_empty_set_holds_nothing() {
        assert!(!CidrSet::default().contains("10.0.0.1".parse().expect("address")));
    }
}
