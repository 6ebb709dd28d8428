//! What the filter makes of a request that it has decided on already: after an internal redirect, or in a second plugin.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use testkit::wasm_host;
use trusted_lb::engine::Operation;

use crate::plain::Plain;
use crate::properties::engine;

/// From this peer, with these headers.
fn request(peer: &str, method: &str, headers: &[(&str, &str)]) -> Plain {
    let fixed = [
        (":method", method),
        (":scheme", "http"),
        (":authority", "app.example.com"),
        (":path", "/"),
    ];
    let lines = fixed.iter().chain(headers);
    let request = wasm_host::Request {
        headers: lines
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
        properties: BTreeMap::from([("filter_state\0trusted_lb.peer".to_owned(), peer.into())]),
    };
    Plain(request.property("request.protocol", "HTTP/1.1"))
}

/// What both passes make of it: the headers after the first, and what the second one changes.
fn passes(config: &Value, request: &Plain) -> (Plain, Vec<String>) {
    let engine = engine(config);
    let after = request.after(&engine.decide(request).operations);
    let decision = engine.decide(&after);
    let second = decision.operations.iter().map(Operation::to_string);
    let second = second.collect();
    (after, second)
}

fn values<'r>(request: &'r Plain, name: &str) -> Vec<&'r str> {
    let lines = request.0.headers.iter();
    lines
        .filter(|(line, _)| line == name.as_bytes())
        .filter_map(|(_, value)| std::str::from_utf8(value).ok())
        .collect()
}

fn trusting(forwarded_proto: &Value) -> Value {
    json!({
        "peerAddress": "filterState",
        "trustedLoadBalancers": [{"name": "lb", "match": {"ipBlocks": ["10.0.0.0/8"]}, "forwardedProto": forwarded_proto}],
        "forwardedPort": true,
    })
}

#[test]
fn a_scheme_that_a_load_balancer_tells_in_its_own_words_is_read_again_in_ours() {
    let own = json!({"header": "x-forwarded-proto", "https": ["TLS"], "http": ["plain"]});
    let config = trusting(&json!({"from": [own], "default": "http"}));
    let sent = request("10.0.0.7", "GET", &[("x-forwarded-proto", "TLS")]);
    let (after, second) = passes(&config, &sent);
    assert_eq!(values(&after, "x-forwarded-proto"), ["https"]);
    assert_eq!(second, [""; 0]);
}

#[test]
fn a_port_that_was_written_does_not_tell_another_scheme_than_the_signal_that_it_was_made_from() {
    let ports = json!({"header": "x-forwarded-port", "https": [8443]});
    let config =
        trusting(&json!({"from": [ports, "cloudfront-forwarded-proto"], "default": "https"}));
    let sent = request("10.0.0.7", "GET", &[("cloudfront-forwarded-proto", "http")]);
    let (after, second) = passes(&config, &sent);
    assert_eq!(values(&after, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&after, "x-forwarded-port"), ["80"]);
    assert_eq!(second, [""; 0]);
}

#[test]
fn a_key_that_is_removed_makes_no_request_safe_to_send_twice() {
    let mut config = trusting(&json!({"default": "https"}));
    config["untrusted"] = json!({"removeHeaders": ["idempotency-key"]});
    config["defaults"] = json!({"retries": {
        "attempts": 2, "retryOn": ["reset"], "idempotencyKey": "idempotency-key", "otherMethods": "disable",
    }});
    let key = [("idempotency-key", "8e03978e")];
    let (after, second) = passes(&config, &request("192.0.2.9", "POST", &key));
    assert_eq!(values(&after, "idempotency-key"), [""; 0]);
    assert_eq!(values(&after, "x-envoy-max-retries"), ["0"]);
    assert_eq!(second, [""; 0]);
    let (after, _) = passes(&config, &request("10.0.0.7", "POST", &key));
    assert_eq!(values(&after, "x-envoy-max-retries"), ["2"]);
}

#[test]
fn an_override_asks_for_headers_as_the_upstream_gets_them() {
    let mut config = trusting(&json!({"default": "https"}));
    config["routes"] = json!([{
        "name": "partners", "match": {"headers": [{"name": "x-forwarded-host", "present": true}]}, "timeout": "1s",
    }]);
    let headers = [("x-forwarded-host", "partner.example.com")];
    let (after, second) = passes(&config, &request("192.0.2.9", "GET", &headers));
    assert_eq!(values(&after, "x-forwarded-host"), [""; 0]);
    assert_eq!(values(&after, "x-envoy-upstream-rq-timeout-ms"), [""; 0]);
    assert_eq!(second, [""; 0]);
    let (after, _) = passes(&config, &request("10.0.0.7", "GET", &headers));
    assert_eq!(values(&after, "x-envoy-upstream-rq-timeout-ms"), ["1000"]);
}
