//! The direct peer: the address that opened the connection to the gateway. Trust rests on it, so every doubt ends in
//! "unknown".

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::header_values::HeaderValues;

/// The direct peer, as far as its address can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The direct peer has this address. IPv4-mapped IPv6 addresses have their IPv4 form.
    Known(IpAddr),
    /// Its address can't be told, so nobody is trusted by address.
    Unknown(PeerProblem),
}

impl Peer {
    /// The address, if it is known.
    #[must_use]
    pub fn address(self) -> Option<IpAddr> {
        match self {
            Peer::Known(address) => Some(address),
            Peer::Unknown(_) => None,
        }
    }
}

/// Why the peer's address can't be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerProblem {
    /// The connection has no IP address: a Unix socket, an internal listener, or Envoy didn't say.
    NotAnAddress,
    /// `source.address` has port 0: Envoy took it from a header, which anybody may have sent.
    FromHeader,
    /// There is no x-forwarded-for entry to compare or read.
    NoForwardedFor,
    /// The right-most x-forwarded-for entry is not an address.
    BadForwardedFor,
    /// `source.address` and the right-most x-forwarded-for entry name different addresses.
    Disagreement,
    /// The helper header is absent: the gateway's early header mutation is missing.
    NoHelper,
    /// The helper header came on several lines: somebody besides the early header mutation wrote it.
    SeveralHelpers,
    /// The helper header doesn't begin with the token: somebody else wrote it.
    WrongToken,
    /// What follows the token in the helper header is not an address.
    BadHelper,
    /// The filter state is absent: the gateway's network filter is missing.
    NoFilterState,
    /// What stands in the filter state is not an address.
    BadFilterState,
}

impl PeerProblem {
    /// Whether another `peerAddress` would probably tell the peer: worth a line in the log.
    #[must_use]
    pub fn is_ambiguous(self) -> bool {
        !matches!(self, PeerProblem::NotAnAddress)
    }

    /// A word for access logs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            PeerProblem::NotAnAddress => "not-an-address",
            PeerProblem::FromHeader => "from-header",
            PeerProblem::NoForwardedFor => "no-forwarded-for",
            PeerProblem::BadForwardedFor => "bad-forwarded-for",
            PeerProblem::Disagreement => "disagreement",
            PeerProblem::NoHelper => "no-helper",
            PeerProblem::SeveralHelpers => "several-helpers",
            PeerProblem::WrongToken => "wrong-token",
            PeerProblem::BadHelper => "bad-helper",
            PeerProblem::NoFilterState => "no-filter-state",
            PeerProblem::BadFilterState => "bad-filter-state",
        }
    }

    /// What the operator should look at.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            PeerProblem::NotAnAddress => {
                "peers without an IP address can only be trusted by header or certificate"
            }
            PeerProblem::FromHeader | PeerProblem::Disagreement => {
                "where numTrustedProxies (xff_num_trusted_hops) is at least 1 write peerAddress: forwardedFor; \
                 behind the PROXY protocol, original_ip_detection or use_remote_address: false write \
                 peerAddress: filterState, which is right everywhere, and add its network filter"
            }
            PeerProblem::NoForwardedFor | PeerProblem::BadForwardedFor => {
                "Envoy appends the peer to x-forwarded-for only with use_remote_address on and skip_xff_append off; \
                 with skip_xff_append on and no trusted hops write peerAddress: source"
            }
            PeerProblem::NoHelper
            | PeerProblem::SeveralHelpers
            | PeerProblem::WrongToken
            | PeerProblem::BadHelper => {
                "the early header mutation has to remove this header, then write the token, a space and \
                 %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"
            }
            PeerProblem::NoFilterState | PeerProblem::BadFilterState => {
                "the listener needs the network filter envoy.filters.network.set_filter_state in front of its connection \
                 manager, which writes %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT% under the key that peerAddress \
                 names; on Istio envoyfilter/direct-peer.yaml adds it"
            }
        }
    }
}

impl fmt::Display for PeerProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PeerProblem::NotAnAddress => "its connection has no IP address",
            PeerProblem::FromHeader => "source.address was taken from a header (its port is 0)",
            PeerProblem::NoForwardedFor => "there is no x-forwarded-for",
            PeerProblem::BadForwardedFor => {
                "the right-most x-forwarded-for entry is not an address"
            }
            PeerProblem::Disagreement => {
                "source.address and the right-most x-forwarded-for entry differ"
            }
            PeerProblem::NoHelper => "the helper header is absent",
            PeerProblem::SeveralHelpers => "the helper header came on several lines",
            PeerProblem::WrongToken => "the helper header doesn't begin with the token",
            PeerProblem::BadHelper => "the helper header has no address after the token",
            PeerProblem::NoFilterState => "the filter state has no direct peer",
            PeerProblem::BadFilterState => "the filter state has no address under this key",
        })
    }
}

/// Reads `source.address`: the address of a direct peer has a port.
#[inline]
pub(crate) fn from_source(value: Option<&[u8]>) -> Peer {
    let Some(value) = value else {
        return Peer::Unknown(PeerProblem::NotAnAddress);
    };
    match socket_address(value) {
        Some(address) if address.port() == 0 => Peer::Unknown(PeerProblem::FromHeader),
        Some(address) => Peer::Known(address.ip().to_canonical()),
        None => Peer::Unknown(PeerProblem::NotAnAddress),
    }
}

/// Reads the right-most entry of x-forwarded-for, which Envoy merges into one line.
#[inline]
pub(crate) fn from_forwarded_for(values: HeaderValues<'_>) -> Peer {
    let value = match values {
        HeaderValues::Absent => return Peer::Unknown(PeerProblem::NoForwardedFor),
        HeaderValues::One(value) => value,
        HeaderValues::Several => return Peer::Unknown(PeerProblem::BadForwardedFor),
    };
    let last = value.rsplit(|byte| *byte == b',').next().unwrap_or(value);
    match ip(last.trim_ascii()) {
        Some(address) => Peer::Known(address),
        None => Peer::Unknown(PeerProblem::BadForwardedFor),
    }
}

/// Believes `source.address` only where x-forwarded-for agrees.
#[inline]
pub(crate) fn agreed(source: Peer, forwarded_for: HeaderValues<'_>) -> Peer {
    let Peer::Known(address) = source else {
        return source;
    };
    match from_forwarded_for(forwarded_for) {
        Peer::Known(other) if other == address => source,
        Peer::Known(_) => Peer::Unknown(PeerProblem::Disagreement),
        problem @ Peer::Unknown(_) => problem,
    }
}

/// Reads a helper header: `TOKEN ADDRESS`.
pub(crate) fn from_helper(values: HeaderValues<'_>, token: &super::secret::Secret) -> Peer {
    let value = match values {
        HeaderValues::Absent => return Peer::Unknown(PeerProblem::NoHelper),
        HeaderValues::One(value) => value,
        HeaderValues::Several => return Peer::Unknown(PeerProblem::SeveralHelpers),
    };
    match token.strip_from(value) {
        None => Peer::Unknown(PeerProblem::WrongToken),
        Some(rest) => ip(rest).map_or(Peer::Unknown(PeerProblem::BadHelper), Peer::Known),
    }
}

/// Reads the filter state: an address, and nothing else.
pub(crate) fn from_filter_state(value: Option<&[u8]>) -> Peer {
    match value {
        None | Some([]) => Peer::Unknown(PeerProblem::NoFilterState),
        Some(value) => ip(value).map_or(Peer::Unknown(PeerProblem::BadFilterState), Peer::Known),
    }
}

/// An address without port or brackets.
fn ip(text: &[u8]) -> Option<IpAddr> {
    if let Some((address, [])) = plain_ipv4(text) {
        return Some(address.into());
    }
    let text = std::str::from_utf8(text).ok()?;
    text.parse::<IpAddr>()
        .ok()
        .map(|address| address.to_canonical())
}

fn socket_address(text: &[u8]) -> Option<SocketAddr> {
    if let Some((address, [b':', port @ ..])) = plain_ipv4(text)
        && let Some((port, [])) = plain_number(port, u16::MAX.into())
    {
        return Some(SocketAddr::new(address.into(), u16::try_from(port).ok()?));
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// An IPv4 address as everybody writes it, and what follows. The standard library's parser takes ten times as long; it
/// has the last word on anything else.
#[inline]
fn plain_ipv4(text: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let mut bits = 0;
    let mut rest = text;
    for part in 0..4 {
        if part > 0 {
            rest = rest.strip_prefix(b".")?;
        }
        let (number, after) = plain_number(rest, 255)?;
        bits = bits << 8 | number;
        rest = after;
    }
    Some((Ipv4Addr::from_bits(bits), rest))
}

/// A decimal number without leading zeros and no larger than `most`, and what follows.
#[inline]
fn plain_number(text: &[u8], most: u32) -> Option<(u32, &[u8])> {
    let (first, mut rest) = text.split_first()?;
    let mut number = u32::from(first.wrapping_sub(b'0'));
    if number > 9 {
        return None;
    }
    while let Some((byte, after)) = rest.split_first() {
        let digit = u32::from(byte.wrapping_sub(b'0'));
        if digit > 9 {
            break;
        }
        if number == 0 {
            return None;
        }
        number = number * 10 + digit;
        if number > most {
            return None;
        }
        rest = after;
    }
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::secret::Secret;

    fn known(address: &str) -> Peer {
        Peer::Known(address.parse().expect("address"))
    }

    #[test]
    fn source_address_needs_a_port() {
        assert_eq!(from_source(Some(b"10.0.0.7:41234")), known("10.0.0.7"));
        assert_eq!(
            from_source(Some(b"[2001:db8::1]:41234")),
            known("2001:db8::1")
        );
        assert_eq!(from_source(Some(b"[::ffff:10.0.0.7]:1")), known("10.0.0.7"));
        assert_eq!(
            from_source(Some(b"10.0.0.7:0")),
            Peer::Unknown(PeerProblem::FromHeader)
        );
        for junk in [
            &b"10.0.0.7"[..],
            b"/run/envoy.sock",
            b"",
            b"envoy://x/",
            b"10.0.0.7:99999",
            b"\xff:1",
        ] {
            assert_eq!(
                from_source(Some(junk)),
                Peer::Unknown(PeerProblem::NotAnAddress)
            );
        }
        assert_eq!(from_source(None), Peer::Unknown(PeerProblem::NotAnAddress));
    }

    #[test]
    fn the_right_most_entry_is_the_peer() {
        for (value, peer) in [
            ("10.0.0.7", known("10.0.0.7")),
            ("1.2.3.4, 10.0.0.7", known("10.0.0.7")),
            ("1.2.3.4,10.0.0.7 ", known("10.0.0.7")),
            ("1.2.3.4, ::ffff:10.0.0.7", known("10.0.0.7")),
            ("10.0.0.7,", Peer::Unknown(PeerProblem::BadForwardedFor)),
            ("10.0.0.7:4444", Peer::Unknown(PeerProblem::BadForwardedFor)),
            ("[::1]", Peer::Unknown(PeerProblem::BadForwardedFor)),
            ("unknown", Peer::Unknown(PeerProblem::BadForwardedFor)),
        ] {
            assert_eq!(
                from_forwarded_for(HeaderValues::One(value.as_bytes())),
                peer,
                "{value}"
            );
        }
    }

    #[test]
    fn auto_believes_nothing_that_disagrees() {
        let source = from_source(Some(b"10.0.0.7:41234"));
        assert_eq!(
            agreed(source, HeaderValues::One(b"1.1.1.1,10.0.0.7")),
            known("10.0.0.7")
        );
        assert_eq!(
            agreed(source, HeaderValues::One(b"10.0.0.8")),
            Peer::Unknown(PeerProblem::Disagreement)
        );
        assert_eq!(
            agreed(source, HeaderValues::Absent),
            Peer::Unknown(PeerProblem::NoForwardedFor)
        );
        // use_remote_address: false, or hops with skip_xff_append: both say what the client wrote; the port tells.
        let forged = from_source(Some(b"10.0.0.7:0"));
        assert_eq!(
            agreed(forged, HeaderValues::One(b"10.0.0.7")),
            Peer::Unknown(PeerProblem::FromHeader)
        );
    }

    #[test]
    fn a_helper_is_believed_with_its_token_only() {
        let token = Secret::new("s3cret");
        assert_eq!(
            from_helper(HeaderValues::One(b"s3cret 10.0.0.7"), &token),
            known("10.0.0.7")
        );
        for (values, problem) in [
            (HeaderValues::Absent, PeerProblem::NoHelper),
            (HeaderValues::Several, PeerProblem::SeveralHelpers),
            (HeaderValues::One(b"10.0.0.7"), PeerProblem::WrongToken),
            (
                HeaderValues::One(b"wrong! 10.0.0.7"),
                PeerProblem::WrongToken,
            ),
            (
                HeaderValues::One(b"s3cret10.0.0.7"),
                PeerProblem::WrongToken,
            ),
            (HeaderValues::One(b"s3cret"), PeerProblem::WrongToken),
            (HeaderValues::One(b"s3cret -"), PeerProblem::BadHelper),
            (
                HeaderValues::One(b"s3cret 10.0.0.7, 1.1.1.1"),
                PeerProblem::BadHelper,
            ),
        ] {
            assert_eq!(from_helper(values, &token), Peer::Unknown(problem));
        }
    }

    #[test]
    fn the_filter_state_holds_an_address_or_nobody_is_known() {
        assert_eq!(from_filter_state(Some(b"10.0.0.7")), known("10.0.0.7"));
        assert_eq!(
            from_filter_state(Some(b"::ffff:10.0.0.7")),
            known("10.0.0.7")
        );
        for absent in [None, Some(&b""[..])] {
            let problem = Peer::Unknown(PeerProblem::NoFilterState);
            assert_eq!(from_filter_state(absent), problem);
        }
        for junk in ["10.0.0.7:80", "/run/envoy.sock", "-", "10.0.0.7, 1.1.1.1"] {
            let problem = Peer::Unknown(PeerProblem::BadFilterState);
            assert_eq!(from_filter_state(Some(junk.as_bytes())), problem, "{junk}");
        }
    }

    proptest! {
        #[test]
        fn addresses_are_what_the_standard_library_says(
            text in r"([0-9]{1,4}\.){3}[0-9]{1,4}(:[0-9]{1,6})?|[0-9a-f:.\[\] ]{0,20}",
        ) {
            prop_assert_eq!(socket_address(text.as_bytes()), text.parse().ok());
            let address: Option<IpAddr> = text.parse().ok();
            prop_assert_eq!(ip(text.as_bytes()), address.map(|address| address.to_canonical()));
        }
    }
}
