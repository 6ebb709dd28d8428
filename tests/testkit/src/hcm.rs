//! What Envoy's HTTP connection manager does to a request before filters see it, as far as this filter can tell.
//!
//! For running one table of cases natively and in the in-process host as well as in a real Envoy. The rules are those of
//! Envoy's `ConnectionManagerUtility::mutateRequestHeaders`; that this copy follows them is shown by the same table
//! giving the same results in Envoy.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::cases::{ClientRequest, Gateway, Protocol};
use crate::{HeaderLines, latin1, wasm_host};

/// The port that requests arrive at.
pub const LISTENER_PORT: u16 = 10_000;

/// The name of the virtual host that requests are routed by, in Envoy too.
pub const VIRTUAL_HOST: &str = "cases";

/// What Istio writes into the metadata of a VirtualService's routes.
pub const ISTIO_CONFIG: &str =
    "/apis/networking.istio.io/v1/namespaces/shop/virtual-service/checkout";

/// What an earlier filter adds, and what an early header mutation writes, as a real gateway would.
pub const PEER_HELPER: &str = "x-lb-peer";
/// See [`PEER_HELPER`].
pub const PROTO_HELPER: &str = "x-lb-proto";

/// The request as filters see it.
#[must_use]
pub fn received(
    request: &ClientRequest,
    gateway: &Gateway,
    environment: &BTreeMap<String, String>,
) -> wasm_host::Request {
    let connection = if request.tls { "https" } else { "http" };
    let mut headers = merged(request.header_bytes());
    if gateway.early_mutation {
        early_mutation(&mut headers, request, environment);
    }

    let forwarded_for = value(&headers, "x-forwarded-for");
    let hops = gateway.xff_num_trusted_hops as usize;
    let direct = SocketAddr::new(request.peer, 40_000);
    let from_header = if let Some(name) = &gateway.original_ip_header {
        value(&headers, name).and_then(|text| address(&text))
    } else if gateway.use_remote_address {
        hops.checked_sub(1)
            .and_then(|skip| entry(forwarded_for.as_deref(), skip))
    } else {
        entry(forwarded_for.as_deref(), hops)
    };
    if gateway.use_remote_address && !gateway.skip_xff_append {
        // A loopback peer is appended as Envoy's own address; any other than 127.0.0.1 will do here.
        let appended = if request.peer.to_string() == "127.0.0.1" {
            "192.0.2.1".to_owned()
        } else {
            request.peer.to_string()
        };
        let joined = match forwarded_for {
            Some(before) => [before.as_slice(), b",", appended.as_bytes()].concat(),
            None => appended.into_bytes(),
        };
        set(&mut headers, "x-forwarded-for", joined);
    }
    let overwrite = gateway.use_remote_address && hops == 0;
    if overwrite || value(&headers, "x-forwarded-proto").is_none() {
        set(&mut headers, "x-forwarded-proto", connection.into());
    }
    // Since Envoy 1.33 no request is internal unless that is configured: every client's x-envoy-* is removed.
    if gateway.internal_addresses.is_empty() {
        headers.retain(|(name, _)| !name.starts_with(b"x-envoy-"));
    }
    let upgrade = value(&headers, "connection").is_some_and(|value| {
        value
            .to_ascii_lowercase()
            .windows(7)
            .any(|word| word == b"upgrade")
    });
    if !upgrade {
        headers.retain(|(name, _)| name != b"connection" && name != b"upgrade");
    }

    let scheme = match (&request.protocol, &request.scheme) {
        (Protocol::Http2, Some(scheme)) => latin1(scheme),
        _ => value(&headers, "x-forwarded-proto")
            .filter(|proto| proto == b"http" || proto == b"https")
            .unwrap_or_else(|| connection.into()),
    };
    let mut lines: HeaderLines = vec![
        (b":authority".to_vec(), latin1(&request.authority)),
        (b":path".to_vec(), latin1(&request.path)),
        (b":method".to_vec(), request.method.clone().into()),
        (b":scheme".to_vec(), scheme),
    ];
    lines.append(&mut headers);
    for (name, value) in &gateway.earlier_filter {
        lines.push((name.clone().into(), value.clone().into()));
    }
    let source = match from_header {
        Some(address) => SocketAddr::new(address, 0),
        None => direct,
    };
    let mut received = wasm_host::Request {
        headers: lines,
        properties: BTreeMap::new(),
    }
    .property("source.address", source.to_string())
    .property("destination.port", u64::from(LISTENER_PORT).to_le_bytes())
    .property("request.protocol", request.protocol.attribute())
    .property("xds.virtual_host_name", VIRTUAL_HOST);
    if request.path.starts_with("/named") {
        received = received.property("xds.route_name", "named-route");
    }
    if request.path.starts_with("/checkout") {
        received = received.property("xds.route_name", "checkout").property(
            "xds.route_metadata.filter_metadata.istio.config",
            ISTIO_CONFIG,
        );
    }
    if request.tls {
        received = received
            .property("connection.tls_version", "TLSv1.3")
            .property("connection.mtls", [u8::from(request.certificate.is_some())]);
    }
    if let Some(certificate) = request.certificate {
        let [uri, dns, digest] = certificate.attributes();
        received = received
            .property("connection.uri_san_peer_certificate", uri)
            .property("connection.dns_san_peer_certificate", dns)
            .property("connection.sha256_peer_certificate_digest", digest);
    }
    received
}

/// Headers that Envoy keeps on one line, several joined by commas, among those that a rule may read.
const INLINE: &[&[u8]] = &[
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-port",
    b"connection",
    b"upgrade",
];

/// Inline headers are kept on one line each.
fn merged(lines: HeaderLines) -> HeaderLines {
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
            None => merged.push((name, value)),
        }
    }
    merged
}

/// `envoyfilter/preserve-lb-proto.yaml`: remove, then write `TOKEN VALUE`.
fn early_mutation(
    headers: &mut HeaderLines,
    request: &ClientRequest,
    environment: &BTreeMap<String, String>,
) {
    let token = environment
        .values()
        .next()
        .expect("the token is in the environment");
    headers.retain(|(name, _)| name != PEER_HELPER.as_bytes() && name != PROTO_HELPER.as_bytes());
    let proto = value(headers, "x-forwarded-proto").unwrap_or_else(|| b"-".to_vec());
    set(
        headers,
        PEER_HELPER,
        format!("{token} {}", request.peer).into(),
    );
    set(
        headers,
        PROTO_HELPER,
        [token.as_bytes(), b" ", &proto].concat(),
    );
}

fn value(headers: &HeaderLines, name: &str) -> Option<Vec<u8>> {
    headers
        .iter()
        .find(|(line, _)| line == name.as_bytes())
        .map(|(_, value)| value.clone())
}

fn set(headers: &mut HeaderLines, name: &str, value: Vec<u8>) {
    headers.retain(|(line, _)| line != name.as_bytes());
    headers.push((name.into(), value));
}

/// The x-forwarded-for entry that many places from the right, where all from there on are addresses.
fn entry(forwarded_for: Option<&[u8]>, skip: usize) -> Option<IpAddr> {
    let text = forwarded_for?.rsplit(|byte| *byte == b',').nth(skip)?;
    address(text)
}

fn address(text: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}
