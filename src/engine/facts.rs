//! What is known of one request: its headers, read in one pass, and Envoy's attributes, each asked for when it is
//! first needed and then remembered.

use std::cell::OnceCell;
use std::net::IpAddr;

use super::Engine;
use super::names::HeaderId;
use super::peer::{self, Peer, PeerProblem};
use super::request::{Attribute, Request};
use crate::config::Scheme;

/// The lines of one header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Lines<'r> {
    /// The header is absent.
    #[default]
    None,
    /// One line with this value.
    One(&'r [u8]),
    /// More than one line. Which one Envoy or the upstream reads differs, so that no rule believes any.
    Several,
}

impl<'r> Lines<'r> {
    pub(crate) fn one(self) -> Option<&'r [u8]> {
        match self {
            Lines::One(value) => Some(value),
            Lines::None | Lines::Several => None,
        }
    }

    pub(crate) fn is_present(self) -> bool {
        !matches!(self, Lines::None)
    }
}

/// A header whose name differs from one that is removed or written only in underscores for hyphens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Twin<'r> {
    pub(crate) name: &'r [u8],
    pub(crate) of: HeaderId,
}

/// The headers of one request that the configuration reads.
struct Headers<'r> {
    /// Those with small numbers: nearly always all of them, so that a request costs no allocation.
    first: [Lines<'r>; FIRST],
    others: Vec<Lines<'r>>,
}

const FIRST: usize = 32;

impl<'r> Headers<'r> {
    #[inline(always)]
    fn new(count: usize) -> Self {
        Self {
            first: [Lines::None; FIRST],
            others: vec![Lines::None; count.saturating_sub(FIRST)],
        }
    }

    #[inline(always)]
    fn add(&mut self, id: HeaderId, value: &'r [u8]) {
        let index = id.index();
        let line = match self.first.get_mut(index) {
            Some(line) => Some(line),
            None => self.others.get_mut(index - FIRST),
        };
        if let Some(line) = line {
            *line = match line {
                Lines::None => Lines::One(value),
                _ => Lines::Several,
            };
        }
    }

    #[inline(always)]
    fn get(&self, id: HeaderId) -> Lines<'r> {
        let index = id.index();
        match self.first.get(index) {
            Some(line) => *line,
            None => self.others.get(index - FIRST).copied().unwrap_or_default(),
        }
    }
}

/// What is known of one request.
pub(crate) struct Facts<'r, R: Request> {
    request: &'r R,
    engine: &'r Engine,
    headers: Headers<'r>,
    pub(crate) twins: Vec<Twin<'r>>,
    peer: OnceCell<Peer>,
    connection: OnceCell<Scheme>,
    destination_port: OnceCell<Option<u16>>,
    texts: [OnceCell<Option<R::Value>>; Attribute::ALL.len()],
}

impl<'r, R: Request> Facts<'r, R> {
    #[inline]
    pub(crate) fn new(engine: &'r Engine, request: &'r R) -> Self {
        let names = &engine.names;
        let mut headers = Headers::new(names.len());
        let mut twins = Vec::new();
        for (name, value) in request.header_lines() {
            let known = names.look_up(name);
            if let Some(id) = known.id {
                headers.add(id, value);
            }
            if let Some(of) = known.twin_of
                && names.removal(of).concerns_twins()
            {
                twins.push(Twin { name, of });
            }
        }
        Self {
            request,
            engine,
            headers,
            twins,
            peer: OnceCell::new(),
            connection: OnceCell::new(),
            destination_port: OnceCell::new(),
            texts: [const { OnceCell::new() }; Attribute::ALL.len()],
        }
    }

    pub(crate) fn name(&self, id: HeaderId) -> &'r str {
        self.engine.names.name(id)
    }

    #[inline]
    pub(crate) fn header(&self, id: HeaderId) -> Lines<'r> {
        self.headers.get(id)
    }

    /// The host of `:authority`: without port and trailing dot, in the case it came in.
    pub(crate) fn host(&self) -> Option<&'r [u8]> {
        host_of(self.header(HeaderId::AUTHORITY).one()?)
    }

    /// The path without query and fragment.
    pub(crate) fn path(&self) -> Option<&'r [u8]> {
        let path = self.header(HeaderId::PATH).one()?;
        path.split(|byte| matches!(byte, b'?' | b'#')).next()
    }

    pub(crate) fn method(&self) -> Option<&'r [u8]> {
        self.header(HeaderId::METHOD).one()
    }

    pub(crate) fn peer(&self) -> Peer {
        *self.peer.get_or_init(|| match &self.engine.peer {
            super::PeerSource::Auto => peer::agreed(
                peer::from_source(self.text(Attribute::SourceAddress)),
                self.header(HeaderId::FORWARDED_FOR),
            ),
            super::PeerSource::Source => peer::from_source(self.text(Attribute::SourceAddress)),
            // For a peer without an IP address Envoy appends nothing: the right-most entry is the client's own. Such a
            // connection has no port at this end either.
            super::PeerSource::ForwardedFor if self.destination_port().is_none() => {
                Peer::Unknown(PeerProblem::NotAnAddress)
            }
            super::PeerSource::ForwardedFor => {
                peer::from_forwarded_for(self.header(HeaderId::FORWARDED_FOR))
            }
            super::PeerSource::Helper { header, token } => {
                peer::from_helper(self.header(*header), token)
            }
        })
    }

    /// The peer, if anything has asked for it.
    pub(crate) fn peer_if_asked(&self) -> Option<Peer> {
        self.peer.get().copied()
    }

    pub(crate) fn peer_address(&self) -> Option<IpAddr> {
        self.peer().address()
    }

    /// What the connection to the gateway itself is: TLS or not. Never what a header says.
    pub(crate) fn connection(&self) -> Scheme {
        *self.connection.get_or_init(|| {
            if self
                .text(Attribute::TlsVersion)
                .is_some_and(|version| !version.is_empty())
            {
                Scheme::Https
            } else {
                Scheme::Http
            }
        })
    }

    /// Whether the client presented a certificate that Envoy verified.
    pub(crate) fn is_mutual_tls(&self) -> bool {
        self.text(Attribute::MutualTls) == Some(&[1])
    }

    pub(crate) fn is_http1(&self) -> bool {
        self.text(Attribute::Protocol)
            .is_some_and(|protocol| protocol.starts_with(b"HTTP/1"))
    }

    pub(crate) fn destination_port(&self) -> Option<u16> {
        *self.destination_port.get_or_init(|| {
            let bytes = self.text(Attribute::DestinationPort)?;
            let number = i64::from_le_bytes(bytes.try_into().ok()?);
            u16::try_from(number).ok()
        })
    }

    /// An attribute as Envoy gave it.
    pub(crate) fn text(&self, attribute: Attribute) -> Option<&[u8]> {
        self.texts
            .get(attribute as usize)?
            .get_or_init(|| self.request.attribute(attribute))
            .as_ref()
            .map(AsRef::as_ref)
    }
}

/// The host of an authority, or nothing where it has user information or is empty: no rule believes such a one.
fn host_of(authority: &[u8]) -> Option<&[u8]> {
    if authority.contains(&b'@') {
        return None;
    }
    let colon = authority.iter().rposition(|byte| *byte == b':');
    let bracket = authority.iter().rposition(|byte| *byte == b']');
    let host = match (colon, bracket) {
        (Some(colon), bracket) if bracket.is_none_or(|bracket| bracket < colon) => {
            let (host, port) = authority.split_at_checked(colon)?;
            let port = port.strip_prefix(b":")?;
            if !port.iter().all(u8::is_ascii_digit) {
                return None;
            }
            host
        }
        _ => authority,
    };
    let host = host.strip_suffix(b".").unwrap_or(host);
    (!host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_no_port_and_no_trailing_dot() {
        for (authority, host) in [
            ("shop.example.com", Some("shop.example.com")),
            ("shop.example.com:8080", Some("shop.example.com")),
            ("shop.example.com.", Some("shop.example.com")),
            ("shop.example.com.:8080", Some("shop.example.com")),
            ("shop.example.com:", Some("shop.example.com")),
            ("[::1]:8080", Some("[::1]")),
            ("[::1]", Some("[::1]")),
            ("user@shop.example.com", None),
            ("shop.example.com:http", None),
            (":80", None),
            ("", None),
        ] {
            assert_eq!(
                host_of(authority.as_bytes()),
                host.map(str::as_bytes),
                "{authority}"
            );
        }
    }
}
