//! What is known of one request: its headers, read in one pass, and Envoy's attributes, each asked for when it is
//! first needed and then remembered.

use std::cell::OnceCell;
use std::cmp::Ordering;

use super::header_values::HeaderValues;
use super::names::{HeaderId, HeaderNames};
use super::request::{Attribute, Request};
use crate::config::Scheme;

/// A header of the request that may have to be removed, as its name is spelled there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Removable<'r> {
    pub(crate) name: &'r [u8],
    /// The header that this is, or is a variant of.
    pub(crate) of: HeaderId,
    pub(crate) is_variant: bool,
}

/// The values of the headers that the configuration reads.
struct Headers<'r> {
    /// Those with small numbers: nearly always all of them, so that a request costs no allocation.
    first: [HeaderValues<'r>; FIRST],
    others: Vec<HeaderValues<'r>>,
}

const FIRST: usize = 32;

impl<'r> Headers<'r> {
    #[inline(always)]
    fn new(count: usize) -> Self {
        Self {
            first: [HeaderValues::Absent; FIRST],
            others: vec![HeaderValues::Absent; count.saturating_sub(FIRST)],
        }
    }

    /// Headers beyond the count are only removed. Nobody reads their values.
    #[inline(always)]
    fn add(&mut self, id: HeaderId, value: &'r [u8]) {
        let index = id.index();
        let values = match self.first.get_mut(index) {
            Some(values) => Some(values),
            None => self.others.get_mut(index - FIRST),
        };
        if let Some(values) = values {
            *values = values.and(value);
        }
    }

    fn forget(&mut self, id: HeaderId) {
        let index = id.index();
        let values = match self.first.get_mut(index) {
            Some(values) => Some(values),
            None => self.others.get_mut(index - FIRST),
        };
        if let Some(values) = values {
            *values = HeaderValues::Absent;
        }
    }

    #[inline(always)]
    fn get(&self, id: HeaderId) -> HeaderValues<'r> {
        let index = id.index();
        match self.first.get(index) {
            Some(values) => *values,
            None => self.others.get(index - FIRST).copied().unwrap_or_default(),
        }
    }
}

/// What is known of one request.
pub(crate) struct Facts<'r, R: Request> {
    request: &'r R,
    headers: Headers<'r>,
    /// Each spelling once: shorter names first.
    pub(crate) removable: Vec<Removable<'r>>,
    connection: OnceCell<Scheme>,
    destination_port: OnceCell<Option<u16>>,
    attributes: [OnceCell<Option<R::Value>>; Attribute::ALL.len()],
}

impl<'r, R: Request> Facts<'r, R> {
    #[inline]
    pub(crate) fn new(names: &HeaderNames, request: &'r R) -> Self {
        let mut headers = Headers::new(names.read());
        let mut removable: Vec<Removable<'r>> = Vec::new();
        for (name, value) in request.header_lines() {
            let known = names.look_up(name);
            if let Some(id) = known.id {
                headers.add(id, value);
            }
            // A client may send a name on many lines: removing it once is enough.
            if let Some(of) = known.removable
                && let Err(place) = removable.binary_search_by(|other| by_length(other.name, name))
            {
                let is_variant = known.id != Some(of);
                removable.insert(
                    place,
                    Removable {
                        name,
                        of,
                        is_variant,
                    },
                );
            }
        }
        Self {
            request,
            headers,
            removable,
            connection: OnceCell::new(),
            destination_port: OnceCell::new(),
            attributes: [const { OnceCell::new() }; Attribute::ALL.len()],
        }
    }

    #[inline]
    pub(crate) fn header(&self, id: HeaderId) -> HeaderValues<'r> {
        self.headers.get(id)
    }

    /// From now on these headers are absent.
    #[inline]
    pub(crate) fn forget(&mut self, ids: &[HeaderId]) {
        for id in ids {
            self.headers.forget(*id);
        }
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

    /// Whether the connection to the gateway is TLS or not. No header has a say in it.
    pub(crate) fn connection(&self) -> Scheme {
        *self.connection.get_or_init(|| {
            if self
                .attribute(Attribute::TlsVersion)
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
        self.attribute(Attribute::MutualTls) == Some(&[1])
    }

    pub(crate) fn is_http1(&self) -> bool {
        self.attribute(Attribute::Protocol)
            .is_some_and(|protocol| protocol.starts_with(b"HTTP/1"))
    }

    pub(crate) fn destination_port(&self) -> Option<u16> {
        *self.destination_port.get_or_init(|| {
            let bytes = self.attribute(Attribute::DestinationPort)?;
            let number = i64::from_le_bytes(bytes.try_into().ok()?);
            u16::try_from(number).ok()
        })
    }

    /// The attribute with this path, asked for now.
    pub(crate) fn attribute_at(&self, path: &str) -> Option<R::Value> {
        self.request.attribute(path)
    }

    /// An attribute as Envoy gave it.
    pub(crate) fn attribute(&self, attribute: Attribute) -> Option<&[u8]> {
        self.attributes
            .get(attribute as usize)?
            .get_or_init(|| self.request.attribute(attribute.path()))
            .as_ref()
            .map(AsRef::as_ref)
    }
}

/// Lengths tell most names apart, and cost less to compare.
fn by_length(one: &[u8], other: &[u8]) -> Ordering {
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

/// The host of an authority. An authority that has user information or is empty gives none: no rule believes it.
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
