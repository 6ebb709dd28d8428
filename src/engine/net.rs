//! Sets of addresses: sorted ranges, searched in logarithmic time.

use std::net::IpAddr;

use ipnet::IpNet;

/// A set of IP addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CidrSet {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl CidrSet {
    pub(crate) fn new(nets: impl IntoIterator<Item = IpNet>) -> Self {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for net in nets {
            match net {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Self {
            v4: Ranges::new(v4),
            v6: Ranges::new(v6),
        }
    }

    /// Whether the address, in its canonical form, lies in the set.
    #[inline]
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.contains(address.to_bits()),
            IpAddr::V6(address) => self.v6.contains(address.to_bits()),
        }
    }
}

/// Inclusive ranges, sorted by their first value; none overlaps another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges<T>(Vec<(T, T)>);

impl<T: Copy + Ord> Ranges<T> {
    fn new(mut ranges: Vec<(T, T)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= *end => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    fn contains(&self, value: T) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= value);
        after
            .checked_sub(1)
            .and_then(|index| self.0.get(index))
            .is_some_and(|(_, last)| value <= *last)
    }
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
        assert_eq!(set.v4.0.len(), 1);
        assert!(set.contains("127.255.255.255".parse().expect("address")));
        assert!(!set.contains("128.0.0.0".parse().expect("address")));
    }

    #[test]
    fn an_empty_set_holds_nothing() {
        assert!(!CidrSet::default().contains("10.0.0.1".parse().expect("address")));
    }
}
