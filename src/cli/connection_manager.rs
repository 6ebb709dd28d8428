//! What Envoy's HTTP connection manager makes of a request before filters see it, as far as this filter can tell.
//!
//! The rules are those of Envoy's `ConnectionManagerUtility::mutateRequestHeaders`. The table of cases (tests/cases) goes
//! through this model and through a real Envoy, with the same results.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::engine::{Attribute, Request};

/// Header lines: names and values as bytes.
pub type HeaderLines = Vec<(Vec<u8>, Vec<u8>)>;

/// The connection manager's settings, under Envoy's own names.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // Independent settings.
pub struct ConnectionManager {
    /// `use_remote_address`.
    pub use_remote_address: bool,
    /// `xff_num_trusted_hops`.
    pub xff_num_trusted_hops: u32,
    /// `skip_xff_append`.
    pub skip_xff_append: bool,
    /// The header of a custom `original_ip_detection_extensions`.
    pub original_ip_header: Option<String>,
    /// Whether `internal_address_config` counts the client as internal.
    pub client_is_internal: bool,
    /// `early_header_mutation_extensions`, as `envoyfilter/preserve-lb-proto.yaml` writes them.
    pub early_mutation: Option<EarlyMutation>,
    /// The key under which a network filter writes the direct peer into the filter state, as
    /// `envoyfilter/direct-peer.yaml` does.
    pub peer_key: Option<String>,
}

impl Default for ConnectionManager {
    /// As on Istio's gateways, and on any gateway that clients reach.
    fn default() -> Self {
        Self {
            use_remote_address: true,
            xff_num_trusted_hops: 0,
            skip_xff_append: false,
            original_ip_header: None,
            client_is_internal: false,
            early_mutation: None,
            peer_key: None,
        }
    }
}

/// Headers that are removed and then written as `TOKEN VALUE`, before anything else.
#[derive(Clone, Debug, Default)]
pub struct EarlyMutation {
    /// What each value begins with.
    pub token: String,
    /// Headers that get the direct peer's address.
    pub peer: Vec<String>,
    /// Headers that get x-forwarded-proto as it came, or `-`.
    pub forwarded_proto: Vec<String>,
}

/// A connection to the gateway.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The address that opened it.
    pub direct_peer: IpAddr,
    /// The client's address that a PROXY protocol header claims.
    pub claimed_peer: Option<IpAddr>,
    /// The port that it arrived at.
    pub port: u16,
    /// Whether it is TLS.
    pub tls: bool,
    /// The client certificate that Envoy has verified.
    pub certificate: Option<Certificate>,
}

/// What Envoy tells of a client certificate that it has verified.
#[derive(Clone, Debug, Default)]
pub struct Certificate {
    /// The first URI subject alternative name.
    pub uri: Option<String>,
    /// The first DNS subject alternative name.
    pub dns: Option<String>,
    /// The SHA-256 digest, lower-case hex.
    pub sha256: Option<String>,
}

/// A request as a client sends it.
#[derive(Clone, Debug)]
pub struct Message {
    /// Envoy's `request.protocol`, such as `HTTP/1.1`.
    pub protocol: &'static str,
    /// The method.
    pub method: Vec<u8>,
    /// `:scheme` of HTTP/2 and HTTP/3, where the client says it itself.
    pub scheme: Option<Vec<u8>>,
    /// The authority or Host.
    pub authority: Vec<u8>,
    /// The path with its query.
    pub path: Vec<u8>,
    /// The header lines.
    pub headers: HeaderLines,
}

/// A request as filters see it.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Every header line, pseudo-headers included.
    pub headers: HeaderLines,
    /// Attributes by path, in Envoy's own form.
    pub attributes: BTreeMap<String, Vec<u8>>,
}

impl Request for Received {
    type Value = Vec<u8>;

    fn header_lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    fn attribute(&self, path: &str) -> Option<Vec<u8>> {
        self.attributes.get(path).cloned()
    }
}

impl Received {
    /// Sets an attribute.
    pub fn set(&mut self, attribute: Attribute, value: impl Into<Vec<u8>>) {
        self.attributes
            .insert(attribute.path().to_owned(), value.into());
    }
}

/// Headers that Envoy keeps on one line, several joined by commas, among those that a rule may read.
const INLINE: &[&[u8]] = &[
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-port",
    b"connection",
    b"upgrade",
];

/// Any port but 0: a direct connection has one.
const PEER_PORT: u16 = 40_000;

/// The gateway's own address, which no rule names.
const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8));

impl ConnectionManager {
    /// The request as filters see it.
    #[must_use]
    pub fn receive(&self, connection: &Connection, message: &Message) -> Received {
        let own_scheme: &[u8] = if connection.tls { b"https" } else { b"http" };
        let mut headers = merged(&message.headers);
        if let Some(mutation) = &self.early_mutation {
            mutation.apply(&mut headers, connection.direct_peer);
        }
        let peer = connection.claimed_peer.unwrap_or(connection.direct_peer);
        let source = self
            .address_from_header(&headers)
            .map_or(SocketAddr::new(peer, PEER_PORT), |address| {
                SocketAddr::new(address, 0)
            });
        if self.use_remote_address && !self.skip_xff_append {
            append_peer(&mut headers, peer);
        }
        let overwrites = self.use_remote_address && self.xff_num_trusted_hops == 0;
        if overwrites || value(&headers, b"x-forwarded-proto").is_none() {
            set(&mut headers, b"x-forwarded-proto", own_scheme.to_vec());
        }
        self.clean_internal_headers(&mut headers);
        let scheme = message.scheme.clone().unwrap_or_else(|| {
            value(&headers, b"x-forwarded-proto")
                .filter(|proto| proto == b"http" || proto == b"https")
                .unwrap_or_else(|| own_scheme.to_vec())
        });
        let mut received = Received {
            headers: vec![
                (b":authority".to_vec(), message.authority.clone()),
                (b":path".to_vec(), message.path.clone()),
                (b":method".to_vec(), message.method.clone()),
                (b":scheme".to_vec(), scheme),
            ],
            attributes: BTreeMap::new(),
        };
        received.headers.append(&mut headers);
        received.set(Attribute::SourceAddress, source.to_string());
        received.set(
            Attribute::DestinationPort,
            u64::from(connection.port).to_le_bytes(),
        );
        received.set(Attribute::Protocol, message.protocol);
        if let Some(key) = &self.peer_key {
            let peer = connection.direct_peer.to_string();
            received
                .attributes
                .insert(format!("filter_state\0{key}"), peer.into());
        }
        if connection.tls {
            received.set(Attribute::TlsVersion, "TLSv1.3");
            received.set(
                Attribute::MutualTls,
                [u8::from(connection.certificate.is_some())],
            );
        }
        if let Some(certificate) = &connection.certificate {
            for (attribute, value) in [
                (Attribute::UriSan, &certificate.uri),
                (Attribute::DnsSan, &certificate.dns),
                (Attribute::CertificateDigest, &certificate.sha256),
            ] {
                if let Some(value) = value {
                    received.set(attribute, value.as_str());
                }
            }
        }
        received
    }

    /// The client's address, if Envoy takes it from a header.
    fn address_from_header(&self, headers: &HeaderLines) -> Option<IpAddr> {
        if let Some(name) = &self.original_ip_header {
            return address(&value(headers, name.as_bytes())?);
        }
        let hops = usize::try_from(self.xff_num_trusted_hops).unwrap_or(usize::MAX);
        let skip = if self.use_remote_address {
            hops.checked_sub(1)?
        } else {
            hops
        };
        let list = value(headers, b"x-forwarded-for")?;
        address(list.rsplit(|byte| *byte == b',').nth(skip)?)
    }

    /// Envoy removes x-envoy-* of clients from outside, and connection headers of requests that ask for no upgrade.
    fn clean_internal_headers(&self, headers: &mut HeaderLines) {
        if !self.client_is_internal {
            headers.retain(|(name, _)| !name.starts_with(b"x-envoy-"));
        }
        let upgrades = value(headers, b"connection").is_some_and(|value| {
            value
                .to_ascii_lowercase()
                .windows(7)
                .any(|word| word == b"upgrade")
        });
        if !upgrades {
            headers.retain(|(name, _)| name != b"connection" && name != b"upgrade");
        }
    }
}

impl EarlyMutation {
    fn apply(&self, headers: &mut HeaderLines, peer: IpAddr) {
        let all = || self.peer.iter().chain(&self.forwarded_proto);
        headers.retain(|(name, _)| !all().any(|written| written.as_bytes() == name));
        let proto = value(headers, b"x-forwarded-proto").unwrap_or_else(|| b"-".to_vec());
        let with_token = |value: &[u8]| [self.token.as_bytes(), b" ", value].concat();
        for name in &self.peer {
            let value = with_token(peer.to_string().as_bytes());
            headers.push((name.clone().into_bytes(), value));
        }
        for name in &self.forwarded_proto {
            headers.push((name.clone().into_bytes(), with_token(&proto)));
        }
    }
}

/// Names in lower case, inline headers on one line each.
fn merged(lines: &HeaderLines) -> HeaderLines {
    let mut merged: HeaderLines = Vec::new();
    for (name, value) in lines {
        let name = name.to_ascii_lowercase();
        let inline = INLINE.contains(&name.as_slice());
        match merged
            .iter_mut()
            .find(|(known, _)| inline && *known == name)
        {
            Some((_, before)) => {
                before.push(b',');
                before.extend(value);
            }
            None => merged.push((name, value.clone())),
        }
    }
    merged
}

/// Appends the peer to x-forwarded-for. For a loopback peer Envoy appends its own address.
fn append_peer(headers: &mut HeaderLines, peer: IpAddr) {
    let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].contains(&peer);
    let entry = if loopback { GATEWAY } else { peer }.to_string();
    let list = match value(headers, b"x-forwarded-for") {
        Some(before) => [before.as_slice(), b",", entry.as_bytes()].concat(),
        None => entry.into_bytes(),
    };
    set(headers, b"x-forwarded-for", list);
}

fn value(headers: &HeaderLines, name: &[u8]) -> Option<Vec<u8>> {
    headers
        .iter()
        .find(|(line, _)| line == name)
        .map(|(_, value)| value.clone())
}

fn set(headers: &mut HeaderLines, name: &[u8], value: Vec<u8>) {
    headers.retain(|(line, _)| line != name);
    headers.push((name.to_vec(), value));
}

fn address(text: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}
