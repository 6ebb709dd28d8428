//! Signals with any value.

use serde_json::{Value, json};
use trusted_lb::config;
use trusted_lb::engine::{Attribute, Reading};

use super::engines::engine_of;
use super::generated::SIGNALS;
use super::request::Plain;

/// A signal of each form, with any value: it says a scheme only where the value could mean that.
pub fn signals(data: &[u8]) {
    let (which, value) = data.split_first().unwrap_or((&0, &[]));
    let signal = match usize::from(*which) % (SIGNALS.len() + 2) {
        index if index < SIGNALS.len() => json!(SIGNALS[index]),
        index if index == SIGNALS.len() => {
            json!({"header": "x-lb-tls", "https": ["1", "on"], "http": ["0"]})
        }
        _ => json!("header:x-lb-proto"),
    };
    let header = match &signal {
        Value::String(name) => name.strip_prefix("header:").unwrap_or(name),
        _ => "x-lb-tls",
    };
    let engine = engine_of(&json!({
        "peerAddress": "header:x-lb-peer",
        "helperToken": {"fromEnv": "TOKEN"},
        "trustedLoadBalancers": [{
            "name": "tunnel", "match": {"notPorts": [1]}, "insecureTrustAnyone": true,
            "forwardedProto": {"from": [signal], "default": "connection"},
        }],
    }));
    let mut request = Plain::default()
        .with(":scheme", b"http")
        .with(header, value);
    request.attributes.insert(
        Attribute::DestinationPort.path().to_owned(),
        8080_u64.to_le_bytes().into(),
    );
    let explanation = engine.explain(&request);
    let [(name, reading)] = explanation.signals.as_slice() else {
        panic!("one signal: {explanation:?}");
    };
    assert_eq!(*name, header);
    let text = String::from_utf8_lossy(value).to_ascii_lowercase();
    let could_mean =
        |words: &[&str]| words.iter().any(|word| text.contains(word)) || name.ends_with("y-ssl");
    match reading {
        Reading::Says(config::Scheme::Https) => {
            assert!(could_mean(&["https", "wss", "443", "on", "1"]), "{text}")
        }
        Reading::Says(config::Scheme::Http) => {
            assert!(could_mean(&["http", "ws", "80", "off", "0"]), "{text}")
        }
        Reading::Absent => assert!(*name == "x-lb-proto", "{text}"),
        Reading::Unusable => {}
    }
    // A second line, whatever it says, leaves nothing to believe.
    let two = request.with(header, b"https");
    let explanation = engine.explain(&two);
    assert_eq!(
        explanation.signals.first().map(|(_, reading)| *reading),
        Some(Reading::Unusable)
    );
}
