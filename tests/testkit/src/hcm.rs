//! Requests of the table of cases as filters see them: through the command's model of Envoy's connection manager, so
//! that one table runs natively and in the in-process host as well as in a real Envoy.

use std::collections::BTreeMap;

use trusted_lb::cli::connection_manager::{
    Certificate, Connection, ConnectionManager, EarlyMutation, Message,
};
use trusted_lb::config::DEFAULT_PEER_KEY;
use trusted_lb::engine::Attribute;

use crate::cases::{ClientRequest, Gateway, Protocol};
use crate::{latin1, wasm_host};

/// The port that requests arrive at.
pub const LISTENER_PORT: u16 = 10_000;

/// The name of the virtual host that requests are routed by, in Envoy too.
pub const VIRTUAL_HOST: &str = "cases";

/// What Istio writes into the metadata of a VirtualService's routes.
pub const ISTIO_CONFIG: &str =
    "/apis/networking.istio.io/v1/namespaces/shop/virtual-service/checkout";

/// The early-mutation header with the direct peer, as a gateway of the table writes it.
pub const PEER_HELPER: &str = "x-lb-peer";
/// The early-mutation header with the load balancer's x-forwarded-proto.
pub const PROTO_HELPER: &str = "x-lb-proto";

/// The request as filters see it.
///
/// # Panics
/// If the gateway mutates early and the environment has no token.
#[must_use]
pub fn received(
    request: &ClientRequest,
    gateway: &Gateway,
    environment: &BTreeMap<String, String>,
) -> wasm_host::Request {
    let manager = ConnectionManager {
        use_remote_address: gateway.use_remote_address,
        xff_num_trusted_hops: gateway.xff_num_trusted_hops,
        skip_xff_append: gateway.skip_xff_append,
        original_ip_header: gateway.original_ip_header.clone(),
        client_is_internal: !gateway.internal_addresses.is_empty(),
        peer_key: gateway.filter_state.then(|| DEFAULT_PEER_KEY.to_owned()),
        early_mutation: gateway.early_mutation.then(|| EarlyMutation {
            token: environment
                .values()
                .next()
                .expect("the token is in the environment")
                .clone(),
            peer: vec![PEER_HELPER.to_owned()],
            forwarded_proto: vec![PROTO_HELPER.to_owned()],
        }),
    };
    let connection = Connection {
        direct_peer: request.peer,
        claimed_peer: None,
        port: LISTENER_PORT,
        tls: request.tls,
        certificate: request.certificate.map(|certificate| {
            let [uri, dns, sha256] = certificate.attributes().map(|text| Some(text.to_owned()));
            Certificate { uri, dns, sha256 }
        }),
    };
    let message = Message {
        protocol: request.protocol.attribute(),
        method: request.method.clone().into(),
        scheme: match request.protocol {
            Protocol::Http1 => None,
            Protocol::Http2 => request.scheme.as_deref().map(latin1),
        },
        authority: latin1(&request.authority),
        path: latin1(&request.path),
        headers: request.header_bytes(),
    };
    let mut received = manager.receive(&connection, &message);
    for (name, value) in &gateway.earlier_filter {
        received.headers.retain(|(line, _)| line != name.as_bytes());
        received
            .headers
            .push((name.clone().into(), value.clone().into()));
    }
    received.set(Attribute::VirtualHostName, VIRTUAL_HOST);
    if request.path.starts_with("/named") {
        received.set(Attribute::RouteName, "named-route");
    }
    if request.path.starts_with("/checkout") {
        received.set(Attribute::RouteName, "checkout");
        received.set(Attribute::RouteIstioConfig, ISTIO_CONFIG);
    }
    wasm_host::Request {
        headers: received.headers,
        properties: received.attributes,
    }
}
