//! Whatever is said about the peer's address.

use std::net::{IpAddr, SocketAddr};

use serde_json::json;
use trusted_lb::config;
use trusted_lb::engine::{Attribute, Peer};

use super::choices::Choices;
use super::engines::{SECRET, engine_of};
use super::request::Plain;

/// Whatever is said about the peer: it is known only as the standard library reads it.
pub fn peer(data: &[u8]) {
    let mut choices = Choices(data);
    let kind = *choices.one(&[
        "auto",
        "source",
        "forwardedFor",
        "header:x-lb-peer",
        "filterState",
    ]);
    let mut document = json!({
        "peerAddress": kind,
        "trustedLoadBalancers": [{
            "name": "lb", "match": {"ipBlocks": ["10.0.0.0/8", "fd00:7::/64"]}, "forwardedProto": {"default": "https"},
        }],
    });
    if kind.starts_with("header:") {
        document["helperToken"] = json!({"fromEnv": "TOKEN"});
    }
    let engine = engine_of(&document);
    let (source, forwarded_for, helper) = (choices.text(), choices.text(), choices.text());
    let state = choices.text();
    let mut request = Plain::default()
        .with(":scheme", b"http")
        .with("x-forwarded-for", forwarded_for)
        .with("x-lb-peer", helper);
    request
        .attributes
        .insert(Attribute::SourceAddress.path().to_owned(), source.into());
    request.attributes.insert(
        Attribute::DestinationPort.path().to_owned(),
        8080_u64.to_le_bytes().into(),
    );
    let key = config::DEFAULT_PEER_KEY;
    request
        .attributes
        .insert(format!("filter_state\0{key}"), state.into());
    let decision = engine.decide(&request);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let of_source = text(source)
        .and_then(|text| text.parse::<SocketAddr>().ok())
        .filter(|address| address.port() != 0)
        .map(|address| address.ip().to_canonical());
    let address = |bytes: &[u8]| {
        Some(
            text(bytes.trim_ascii())?
                .parse::<IpAddr>()
                .ok()?
                .to_canonical(),
        )
    };
    let of_list = address(
        forwarded_for
            .rsplit(|byte| *byte == b',')
            .next()
            .unwrap_or_default(),
    );
    let of_helper = helper
        .strip_prefix(format!("{SECRET} ").as_bytes())
        .and_then(|rest| Some(text(rest)?.parse::<IpAddr>().ok()?.to_canonical()));
    let wanted = match kind {
        "auto" => of_source.filter(|address| Some(*address) == of_list),
        "source" => of_source,
        "forwardedFor" => of_list,
        "filterState" => {
            text(state).and_then(|text| Some(text.parse::<IpAddr>().ok()?.to_canonical()))
        }
        _ => of_helper,
    };
    assert_eq!(
        decision.peer.and_then(Peer::address),
        wanted,
        "{kind} {request:?}"
    );
    let inside = wanted.is_some_and(|address| match address {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => address.segments()[..4] == [0xfd00, 7, 0, 0],
    });
    assert_eq!(decision.rule.is_some(), inside);
}
