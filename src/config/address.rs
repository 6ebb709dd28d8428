//! Address blocks: CIDRs, single addresses, and the named sets of well-known load balancers.

use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use super::declare::text;
use super::document::quoted;
use super::problem::{closest, joined};
use super::read::{At, Wrong};

/// A named set of address blocks, written `@name` in `ipBlocks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NamedSet {
    /// The name, with its `@`.
    pub name: &'static str,
    /// What the addresses are.
    #[cfg(feature = "cli")]
    pub meaning: &'static str,
    /// Where the list comes from and when it was read; address lists change.
    #[cfg(feature = "cli")]
    pub source: &'static str,
    /// Whether anybody can become a customer and send requests from these addresses, so that the address alone
    /// doesn't say whose traffic it is.
    pub shared_edge: bool,
    /// The blocks.
    pub blocks: &'static [&'static str],
}

/// Every named set.
pub const NAMED_SETS: &[NamedSet] = &[
    NamedSet {
        name: "@private",
        #[cfg(feature = "cli")]
        meaning: "private, shared (100.64.0.0/10), link-local and loopback addresses",
        #[cfg(feature = "cli")]
        source: "RFC 1918, RFC 6598, RFC 3927, RFC 1122, RFC 4193, RFC 4291",
        shared_edge: false,
        blocks: &[
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "169.254.0.0/16",
            "127.0.0.0/8",
            "fc00::/7",
            "fe80::/10",
            "::1/128",
        ],
    },
    NamedSet {
        name: "@cloudflare",
        #[cfg(feature = "cli")]
        meaning: "Cloudflare's edge",
        #[cfg(feature = "cli")]
        source: "Cloudflare's published ips-v4 and ips-v6 lists, as known in November 2026",
        shared_edge: true,
        blocks: &[
            "173.245.48.0/20",
            "103.21.244.0/22",
            "103.22.200.0/22",
            "103.31.4.0/22",
            "141.101.64.0/18",
            "108.162.192.0/18",
            "190.93.240.0/20",
            "188.114.96.0/20",
            "197.234.240.0/22",
            "198.41.128.0/17",
            "162.158.0.0/15",
            "104.16.0.0/13",
            "104.24.0.0/14",
            "172.64.0.0/13",
            "131.0.72.0/22",
            "2400:cb00::/32",
            "2606:4700::/32",
            "2803:f800::/32",
            "2405:b500::/32",
            "2405:8100::/32",
            "2a06:98c0::/29",
            "2c0f:f248::/32",
        ],
    },
    NamedSet {
        name: "@google-cloud",
        #[cfg(feature = "cli")]
        meaning: "Google Cloud's external load balancers and health probes",
        #[cfg(feature = "cli")]
        source: "Google Cloud's load balancing documentation, as known in November 2026",
        shared_edge: true,
        blocks: &["130.211.0.0/22", "35.191.0.0/16"],
    },
    NamedSet {
        name: "@fastly",
        #[cfg(feature = "cli")]
        meaning: "Fastly's edge",
        #[cfg(feature = "cli")]
        source: "Fastly's public-ip-list, as of October 2025",
        shared_edge: true,
        blocks: &[
            "23.235.32.0/20",
            "43.249.72.0/22",
            "103.244.50.0/24",
            "103.245.222.0/23",
            "103.245.224.0/24",
            "104.156.80.0/20",
            "140.248.64.0/18",
            "140.248.128.0/17",
            "146.75.0.0/17",
            "151.101.0.0/16",
            "157.52.64.0/18",
            "167.82.0.0/17",
            "167.82.128.0/20",
            "167.82.160.0/20",
            "167.82.224.0/20",
            "172.111.64.0/18",
            "185.31.16.0/22",
            "199.27.72.0/21",
            "199.232.0.0/16",
            "2a04:4e40::/32",
            "2a04:4e42::/32",
        ],
    },
];

/// One entry of `ipBlocks`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum IpBlock {
    /// A CIDR or a single address; IPv4-mapped IPv6 is stored as the IPv4 block it equals.
    Net(IpNet),
    /// A named set.
    Set(&'static NamedSet),
}

impl IpBlock {
    /// The networks of this entry.
    #[must_use]
    pub fn nets(&self) -> Vec<IpNet> {
        match self {
            IpBlock::Net(net) => vec![*net],
            IpBlock::Set(set) => set
                .blocks
                .iter()
                .filter_map(|block| parse(block).ok())
                .flat_map(|block| block.nets())
                .collect(),
        }
    }
}

impl std::fmt::Display for IpBlock {
    /// The form that [`parse`] reads back: single addresses without their prefix length.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            IpBlock::Net(net) if net.prefix_len() == net.max_prefix_len() => {
                write!(f, "{}", net.addr())
            }
            IpBlock::Net(net) => write!(f, "{net}"),
            IpBlock::Set(set) => f.write_str(set.name),
        }
    }
}

text! {
    /// One entry of `ipBlocks`.
    Block: IpBlock = "CIDR, address or named set", "10.0.12.0/24", block, pattern();
}

fn block(at: At<'_>) -> Option<IpBlock> {
    at.reported(parse(at.text()?))
}

/// Reads one entry of `ipBlocks`.
///
/// # Errors
/// What is wrong and what to write instead.
pub(crate) fn parse(text: &str) -> Result<IpBlock, Wrong> {
    let shown = quoted(text);
    if text.starts_with('@') {
        return named(text)
            .map(IpBlock::Set)
            .ok_or_else(|| unknown_set(text));
    }
    let wrong = |message| {
        Wrong::new(
            message,
            "write a CIDR such as 10.0.12.0/24, an address, or a named set such as @private",
        )
    };
    let Some((address, length)) = text.split_once('/') else {
        return match IpAddr::from_str(text) {
            Ok(address) => Ok(IpBlock::Net(IpNet::from(address.to_canonical()))),
            Err(_)
                if NAMED_SETS
                    .iter()
                    .any(|set| set.name.strip_prefix('@') == Some(text)) =>
            {
                Err(Wrong::new(
                    format!("{shown} is not an address"),
                    format!("did you mean \"@{text}\"?"),
                ))
            }
            Err(_) => Err(wrong(format!(
                "{shown} is not an address or CIDR{}",
                why_not(text)
            ))),
        };
    };
    let Ok(ip) = IpAddr::from_str(address) else {
        return Err(wrong(format!(
            "{shown} is not a CIDR: {} is not an address{}",
            quoted(address),
            why_not(address)
        )));
    };
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    let length: u8 = match length.parse() {
        Ok(bits) if bits <= longest && length.bytes().all(|b| b.is_ascii_digit()) => bits,
        _ if IpAddr::from_str(length).is_ok() => {
            return Err(Wrong::new(
                format!("{shown} has a netmask where a prefix length belongs"),
                format!("write for example {address}/24"),
            ));
        }
        _ => {
            return Err(wrong(format!(
                "{shown}: the prefix length {} is not a number from 0 to {longest}",
                quoted(length)
            )));
        }
    };
    let Ok(net) = IpNet::new(ip, length) else {
        return Err(wrong(format!("{shown} is not a CIDR")));
    };
    let network = net.trunc();
    if network.addr() != ip {
        return Err(Wrong::new(
            format!("{shown} has host bits set"),
            format!(
                "did you mean {network}? A single address is written without a prefix length: {ip}"
            ),
        ));
    }
    Ok(IpBlock::Net(canonical(network)))
}

/// A pattern of what [`parse`] reads, except that host bits may be set.
#[cfg(feature = "cli")]
fn pattern() -> String {
    let sets: Vec<&str> = NAMED_SETS.iter().map(|set| set.name).collect();
    format!(
        "^({}|{}(/0*([0-9]|[12][0-9]|3[0-2]))?|({})(/0*([0-9]{{1,2}}|1[01][0-9]|12[0-8]))?)$",
        sets.join("|"),
        ipv4_pattern(),
        ipv6_pattern()
    )
}

#[cfg(feature = "cli")]
fn ipv4_pattern() -> String {
    let byte = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
    format!("{byte}(\\.{byte}){{3}}")
}

/// A pattern of IPv6 addresses (RFC 3986, 3.2.2), which are also what stands in brackets in a host.
#[cfg(feature = "cli")]
pub(crate) fn ipv6_pattern() -> String {
    let group = "[0-9A-Fa-f]{1,4}";
    let last = format!("({group}:{group}|{})", ipv4_pattern());
    let mut forms = vec![format!("({group}:){{6}}{last}")];
    // `::` stands for at least one group: as many as may be in front of it are fewer the more come after it.
    for after in 0..=7_usize {
        let before = match 7 - after {
            0 => String::new(),
            1 => format!("({group})?"),
            groups => format!("(({group}:){{0,{}}}{group})?", groups - 1),
        };
        let after = match after {
            0 => String::new(),
            1 => group.to_owned(),
            after => format!("({group}:){{{}}}{last}", after - 2),
        };
        forms.push(format!("{before}::{after}"));
    }
    forms.join("|")
}

/// The set of that name, `@` included.
#[must_use]
pub fn named(name: &str) -> Option<&'static NamedSet> {
    NAMED_SETS.iter().find(|set| set.name == name)
}

fn unknown_set(text: &str) -> Wrong {
    let names = || NAMED_SETS.iter().map(|set| set.name);
    let help = match closest(text, &mut names()) {
        Some(name) => format!("did you mean {name}?"),
        None => format!("the named sets are {}", joined(&mut names(), ", ")),
    };
    Wrong::new(format!("{} is not a named set", quoted(text)), help)
}

/// An IPv4-mapped IPv6 block (`::ffff:10.0.0.0/104`) as the IPv4 block it equals.
fn canonical(net: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= MAPPED_BITS => match v6.addr().to_ipv4_mapped() {
            Some(v4) => Ipv4Net::new(v4, v6.prefix_len() - MAPPED_BITS).map_or(net, IpNet::V4),
            None => net,
        },
        IpNet::V6(_) | IpNet::V4(_) => net,
    }
}

/// What people often write that an address can't be.
fn why_not(text: &str) -> &'static str {
    let has = |wanted: u8| text.bytes().any(|b| b == wanted);
    if has(b'*') {
        ": wildcards are not understood"
    } else if has(b'-') {
        ": ranges are not understood"
    } else if has(b',') {
        ": write each block as its own list entry"
    } else if text.starts_with('[') || (text.bytes().filter(|b| *b == b':').count() == 1) {
        ": leave out brackets and ports"
    } else if text.trim() != text {
        ": it has spaces around it"
    } else if text.bytes().filter(|b| *b == b'.').count() == 3
        && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    {
        ": each part is a number from 0 to 255 without leading zeros"
    } else if text.bytes().any(|b| b.is_ascii_alphabetic()) && has(b'.') {
        ": host names are not looked up"
    } else {
        ""
    }
}

/// Whether these networks together cover every public IPv4 or every public IPv6 address, and which.
pub(crate) fn covers_everybody(nets: &[IpNet]) -> Option<&'static str> {
    // Unicast addresses on the Internet: a list that covers these trusts everybody, whatever it leaves out beside them.
    const V4: (u128, u128) = (0x0100_0000, 0xdfff_ffff); // 1.0.0.0 to 223.255.255.255
    const V6: (u128, u128) = (0x2000 << 112, (0x4000 << 112) - 1); // 2000::/3
    let covers = |ranges: &[(u128, u128)], all: (u128, u128)| {
        ranges
            .iter()
            .any(|(first, last)| *first <= all.0 && all.1 <= *last)
    };
    let ranges = Ranges::of(nets.iter().copied());
    if covers(&ranges.v4, V4) {
        Some("every public IPv4 address")
    } else if covers(&ranges.v6, V6) {
        Some("every public IPv6 address")
    } else {
        None
    }
}

/// Networks as inclusive ranges, sorted; none touches another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    pub(crate) v4: Vec<(u128, u128)>,
    pub(crate) v6: Vec<(u128, u128)>,
}

impl Ranges {
    pub(crate) fn of(nets: impl Iterator<Item = IpNet>) -> Self {
        let mut ranges = Self::default();
        for net in nets {
            match net {
                IpNet::V4(net) => ranges.v4.push((
                    u128::from(net.network().to_bits()),
                    u128::from(net.broadcast().to_bits()),
                )),
                IpNet::V6(net) => ranges
                    .v6
                    .push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        ranges.v4 = merged(ranges.v4);
        ranges.v6 = merged(ranges.v6);
        ranges
    }
}

fn merged(ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    // A heap's sort is a tenth of the standard library's in size, and fast enough for ten thousand blocks.
    let ranges = BinaryHeap::from(ranges).into_sorted_vec();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        match parse(text) {
            Ok(IpBlock::Net(net)) => net,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn every_named_block_is_a_valid_cidr() {
        for set in NAMED_SETS {
            for block in set.blocks {
                assert!(
                    parse(block).is_ok(),
                    "{} {block}: {:?}",
                    set.name,
                    parse(block)
                );
            }
            assert_eq!(IpBlock::Set(set).nets().len(), set.blocks.len());
        }
    }

    #[test]
    fn an_ipv4_mapped_block_is_its_ipv4_block() {
        assert_eq!(net("::ffff:10.0.0.0/104"), net("10.0.0.0/8"));
        assert_eq!(net("::ffff:10.0.0.7"), net("10.0.0.7"));
    }

    #[test]
    fn host_bits_name_the_network_meant() {
        let wrong = parse("10.0.0.1/8").expect_err("host bits");
        assert_eq!(wrong.message, "\"10.0.0.1/8\" has host bits set");
        assert!(
            wrong
                .help
                .expect("help")
                .contains("did you mean 10.0.0.0/8?")
        );
    }

    #[test]
    fn what_is_no_block_says_why() {
        for (text, part) in [
            ("10.0.0.0/33", "not a number from 0 to 32"),
            ("10.0.0.0/+8", "not a number"),
            ("10.0.0.0/255.0.0.0", "netmask"),
            ("10.0.*.*", "wildcards"),
            ("10.0.0.1-10.0.0.9", "ranges"),
            ("10.0.0.1,10.0.0.2", "its own list entry"),
            ("10.0.0.1:80", "ports"),
            ("[::1]", "brackets"),
            (" 10.0.0.1", "spaces"),
            ("10.0.0.256", "0 to 255"),
            ("lb.example.com", "host names"),
            ("@cloudfare", "not a named set"),
            ("private", "not an address"),
            ("", "not an address"),
        ] {
            let wrong = parse(text).expect_err(text);
            assert!(wrong.message.contains(part), "{text}: {wrong:?}");
        }
    }

    #[test]
    fn everybody_is_judged_on_the_union() {
        let nets = |list: &[&str]| list.iter().map(|text| net(text)).collect::<Vec<_>>();
        assert!(covers_everybody(&nets(&["0.0.0.0/1", "128.0.0.0/1"])).is_some());
        assert!(covers_everybody(&nets(&["0.0.0.0/0"])).is_some());
        assert!(covers_everybody(&nets(&["0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/3"])).is_some());
        assert!(
            covers_everybody(&nets(&[
                "1.0.0.0/8",
                "2.0.0.0/7",
                "4.0.0.0/6",
                "8.0.0.0/5",
                "16.0.0.0/4",
                "32.0.0.0/3",
                "64.0.0.0/2",
                "128.0.0.0/2",
                "192.0.0.0/3"
            ]))
            .is_some()
        );
        assert!(covers_everybody(&nets(&["2.0.0.0/7", "4.0.0.0/6"])).is_none());
        assert!(covers_everybody(&nets(&["::/0"])).is_some());
        assert!(covers_everybody(&nets(&["2000::/4", "3000::/4"])).is_some());
        assert!(covers_everybody(&nets(&["::ffff:0.0.0.0/96"])).is_some());
        assert!(covers_everybody(&nets(&["0.0.0.0/1", "128.0.0.0/2"])).is_none());
        assert!(covers_everybody(&nets(&["10.0.0.0/8", "fc00::/7"])).is_none());
    }
}
