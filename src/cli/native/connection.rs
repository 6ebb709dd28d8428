//! What belongs to the connection: who the direct peer is, by address and port. Decided once a connection.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::cel;
use super::refusal::Refusals;
use crate::config::{IpBlock, LoadBalancerMatch};

/// The keys of filter state that expressions read: one for each prefix length.
#[derive(Debug, Default)]
pub(super) struct Networks {
    lengths: BTreeSet<u8>,
}

impl Networks {
    /// Whether the conditions on the connection hold, as an expression for a network filter.
    pub(super) fn condition(
        &mut self,
        matches: &LoadBalancerMatch,
        place: &str,
        refusals: &mut Refusals,
    ) -> String {
        let mut parts = Vec::new();
        if !matches.ip_blocks.is_empty() {
            parts.push(self.contains(&matches.ip_blocks, &format!("{place}.ipBlocks"), refusals));
        }
        if !matches.not_ip_blocks.is_empty() {
            // A peer without an IP address lies in no block, and isn't trusted for that.
            self.lengths.insert(0);
            parts.push(format!(
                "{} in [{}, {}]",
                state(&network_key(0)),
                cel::bytes("0.0.0.0/0"),
                cel::bytes("::/0")
            ));
            let blocks = self.contains(
                &matches.not_ip_blocks,
                &format!("{place}.notIpBlocks"),
                refusals,
            );
            parts.push(cel::not(&blocks));
        }
        let is_among = |list: &[u16]| {
            let list: Vec<String> = list.iter().map(ToString::to_string).collect();
            format!("destination.port in [{}]", list.join(", "))
        };
        if !matches.ports.is_empty() || !matches.not_ports.is_empty() {
            parts.push("has(destination.port)".to_owned());
        }
        if !matches.ports.is_empty() {
            parts.push(is_among(&matches.ports));
        }
        if !matches.not_ports.is_empty() {
            parts.push(cel::not(&is_among(&matches.not_ports)));
        }
        cel::all(&parts)
    }

    fn contains(&mut self, blocks: &[IpBlock], place: &str, refusals: &mut Refusals) -> String {
        let mut by_length: BTreeMap<u8, Vec<String>> = BTreeMap::new();
        for net in nets(blocks) {
            if !is_written_alike(&net) {
                refusals.refuse(
                    place,
                    &format!("Envoy may write the network {net} in another form, so that it would never be found"),
                    "write it as IPv4, or keep the module",
                );
            }
            by_length
                .entry(net.prefix_len())
                .or_default()
                .push(cel::bytes(&net.to_string()));
        }
        self.lengths.extend(by_length.keys());
        let parts: Vec<String> = by_length
            .into_iter()
            .map(|(length, nets)| {
                format!("{} in [{}]", state(&network_key(length)), nets.join(", "))
            })
            .collect();
        cel::any(&parts)
    }

    /// Keys and formats, which have to be written before whatever reads them.
    pub(super) fn objects(&self) -> Vec<(String, String)> {
        self.lengths
            .iter()
            .map(|length| {
                (
                    network_key(*length),
                    format!("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT({length})%"),
                )
            })
            .collect()
    }
}

fn network_key(length: u8) -> String {
    format!("trusted-lb.net{length}")
}

/// A value of filter state, in an expression.
pub(super) fn state(key: &str) -> String {
    format!("filter_state['{key}']")
}

/// The networks of a list, as few as say the same.
pub(super) fn nets(blocks: &[IpBlock]) -> Vec<IpNet> {
    IpNet::aggregate(&blocks.iter().flat_map(IpBlock::nets).collect())
}

/// IPv6 addresses that begin with zeros have a second form, with an IPv4 address at their end.
fn is_written_alike(net: &IpNet) -> bool {
    match net.network() {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => {
            let zeros = address
                .segments()
                .iter()
                .take(5)
                .all(|segment| *segment == 0);
            !zeros || address == Ipv6Addr::LOCALHOST || net.prefix_len() == 0
        }
    }
}
