//! What a decision does, whatever the configuration and the request.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};
use testkit::wasm_host;
use trusted_lb::engine::{Decision, Engine, Operation};

use super::matching::route_match;
use super::{TOKEN, engine, read};
use crate::plain::Plain;

/// Names that the gateway's early header mutation may write. Some of them are headers that only a proxy may write, or are
/// spelled like one.
const PEER_HELPERS: &[&str] = &["x-lb-peer", "x-real-ip", "x_client-ip"];
const PROTO_HELPERS: &[&str] = &["x-lb-proto", "x-forwarded-scheme", "x_forwarded_ssl"];

fn peer_address() -> impl Strategy<Value = String> {
    prop_oneof![
        select(
            &[
                "auto",
                "source",
                "forwardedFor",
                "filterState",
                "filterState:another.key"
            ][..]
        )
        .prop_map(str::to_owned),
        select(PEER_HELPERS).prop_map(|name| format!("header:{name}")),
    ]
}

/// Signals in any order, and perhaps a helper in front of them. x-forwarded-proto is refused with some `peerAddress`.
fn signals(peer: &str) -> impl Strategy<Value = Vec<Value>> + use<> {
    let mut known = vec![
        json!("cf-visitor"),
        json!("x-forwarded-ssl"),
        json!("forwarded"),
        json!("cloudfront-forwarded-proto"),
        json!("fastly-ssl"),
        json!("front-end-https"),
        json!({"header": "x-tls", "https": ["1"], "http": ["0"]}),
    ];
    if !matches!(peer, "auto" | "source") {
        known.push(json!("x-forwarded-proto"));
        known.push(json!({"header": "x-forwarded-proto", "https": ["TLS"], "http": ["plain"]}));
    }
    let port = select(vec![
        None,
        Some(json!("x-forwarded-port")),
        Some(json!({"header": "x-forwarded-port", "https": [8443]})),
        Some(json!({"header": "x-forwarded-port", "https": [8443, 443], "http": [8080]})),
        Some(json!({"header": "x-forwarded-port", "http": [8080]})),
    ]);
    let helper =
        prop::option::of(select(PROTO_HELPERS).prop_map(|name| json!(format!("header:{name}"))));
    (subsequence(known, 0..5), port, any::<bool>(), helper).prop_map(
        |(mut signals, port, first, helper)| {
            if let Some(port) = port {
                let place = if first { 0 } else { signals.len() };
                signals.insert(place, port);
            }
            // One form for one header.
            let header = |signal: &Value| {
                signal["header"]
                    .as_str()
                    .or(signal.as_str())
                    .map(str::to_owned)
            };
            let mut seen = std::collections::BTreeSet::new();
            signals.retain(|signal| seen.insert(header(signal)));
            if let Some(helper) = helper {
                let read = helper
                    .as_str()
                    .and_then(|text| text.strip_prefix("header:"))
                    .map(str::to_owned);
                signals.retain(|signal| header(signal) != read);
                signals.insert(0, helper);
            }
            signals
        },
    )
}

fn policy() -> impl Strategy<Value = Value> {
    (
        select(&[None, Some("keep"), Some("cap"), Some("replace")][..]),
        select(&["inherit", "disable"][..]),
        select(&["skip", "apply"][..]),
        0..3_u32,
    )
        .prop_map(|(headers, others, streams, attempts)| {
            let mut policy = json!({
                "timeout": "15s",
                "streams": streams,
                "retries": {
                    "attempts": attempts, "perTryTimeout": "2s", "retryOn": ["reset"], "statusCodes": [503],
                    "otherMethods": others, "idempotencyKey": "idempotency-key",
                },
            });
            if let Some(word) = headers {
                policy["requestHeaders"] = json!(word);
            }
            policy
        })
}

/// What becomes of untrusted requests. An exception asks for nothing that is removed from them: after the removal it
/// wouldn't hold.
fn untrusted() -> impl Strategy<Value = Value> {
    let removed = subsequence(
        vec![
            "x-forwarded-port",
            "x-real-scheme",
            "x-forwarded-host",
            "idempotency-key",
            "x-edge",
        ],
        0..=5,
    );
    let kept = subsequence(
        vec![
            "x-forwarded-ssl",
            "x-forwarded-host",
            "forwarded",
            "x-forwarded-port",
        ],
        0..=2,
    );
    let exceptions = subsequence(
        vec![
            json!({"paths": [{"exact": "/healthz"}]}),
            json!({"methods": ["CONNECT"], "headers": [{"name": "x-probe", "present": true}]}),
            json!({"ipBlocks": ["192.0.2.0/24"]}),
        ],
        0..=3,
    );
    (
        select(&["connection", "http"][..]),
        removed,
        kept,
        prop::option::of((select(&[403, 421][..]), exceptions)),
    )
        .prop_map(|(proto, removed, kept, refusal)| {
            let mut untrusted =
                json!({"forwardedProto": proto, "removeHeaders": removed, "keepHeaders": kept});
            if let Some((status, exceptions)) = refusal {
                untrusted["action"] = json!("refuse");
                untrusted["status"] = json!(status);
                if !exceptions.is_empty() {
                    untrusted["except"] = json!(exceptions);
                }
            }
            untrusted
        })
}

/// A configuration with a load balancer in 10.0.0.0/8, another one that knows a secret, and everything that says what
/// becomes of their requests and of anybody else's. Its rules ask for no header that is removed from untrusted requests:
/// after the removal another rule could hold.
fn configuration() -> impl Strategy<Value = Value> {
    let peer = peer_address().prop_flat_map(|peer| {
        let signals = (signals(&peer), signals(&peer));
        (Just(peer), signals)
    });
    let whole = (
        select(&["http", "https", "connection"][..]),
        select(&["auto", "always", "never"][..]),
        any::<bool>(),
        select(&["enforce", "enforce", "shadow"][..]),
    );
    (peer, whole, policy(), policy(), prop::option::of(untrusted())).prop_map(
        |((peer, (from, others)), (default, rewrite, port, mode), defaults, own, untrusted)| {
            let mut config = json!({
                "peerAddress": peer,
                "trustedLoadBalancers": [
                    {
                        "name": "lb",
                        "match": {"ipBlocks": ["10.0.0.0/8"], "notPaths": [{"prefix": "/not-lb"}]},
                        "forwardedProto": {"from": from, "default": default},
                    },
                    {
                        "name": "secret",
                        "match": {"headers": [{"name": "x-origin-verify", "fromEnv": "SECRET"}]},
                        "forwardedProto": {"from": others, "default": "https"},
                    },
                ],
                "rewriteScheme": rewrite,
                "forwardedPort": port,
                "mode": mode,
                "defaults": defaults,
                "routes": [
                    {"name": "by-header", "match": {"headers": [{"name": "x-forwarded-host", "present": true}]}, "timeout": "1s"},
                    {"name": "own", "match": {"methods": ["POST"]}, "requestHeaders": "cap", "forwardedProto": {"default": "http"}},
                ],
            });
            for (field, value) in own.as_object().into_iter().flatten() {
                config["routes"][1][field] = value.clone();
            }
            if let Some(untrusted) = untrusted {
                config["untrusted"] = untrusted;
            }
            if config.to_string().contains("\"header:") {
                config["helperToken"] = json!({"fromEnv": "TOKEN"});
            }
            config
        },
    )
}

/// The headers that a configuration takes for the early header mutation's own.
fn helpers(config: &Value) -> Vec<String> {
    let text = config.to_string();
    text.split('"')
        .filter_map(|word| word.strip_prefix("header:"))
        .map(str::to_owned)
        .collect()
}

/// A request, but for what the gateway says of the direct peer.
#[derive(Clone, Debug)]
struct Arriving {
    headers: Vec<(String, Vec<u8>)>,
    method: &'static str,
    path: &'static str,
    scheme: &'static str,
    protocol: &'static str,
    tls: bool,
    /// Whether the gateway writes helper headers, filter state and addresses as it should.
    is_set_up: bool,
    /// What the early header mutation copies.
    copied: &'static str,
    /// What Envoy left of x-forwarded-proto.
    forwarded_proto: &'static str,
}

impl Arriving {
    /// As the gateway hands it over, from this peer.
    fn from(&self, peer: &str, config: &Value) -> Plain {
        let fixed = [
            (":method", self.method),
            (":scheme", self.scheme),
            (":authority", "app.example.com"),
            (":path", self.path),
            ("x-forwarded-proto", self.forwarded_proto),
            ("x-forwarded-for", peer),
        ];
        let mut headers: Vec<(Vec<u8>, Vec<u8>)> = fixed
            .map(|(name, value)| (name.into(), value.into()))
            .into();
        let sent = self.headers.iter().cloned();
        headers.extend(sent.map(|(name, value)| (name.into_bytes(), value)));
        if self.is_set_up {
            for name in helpers(config) {
                let value = if PEER_HELPERS.contains(&name.as_str()) {
                    peer
                } else {
                    self.copied
                };
                headers.retain(|(line, _)| line != name.as_bytes());
                headers.push((name.into(), format!("{TOKEN} {value}").into()));
            }
        }
        let mut request = wasm_host::Request {
            headers,
            properties: BTreeMap::new(),
        };
        request = request.property("request.protocol", self.protocol);
        if self.is_set_up {
            let port: [u8; 8] = 8080_u64.to_le_bytes();
            request
                .properties
                .insert("destination\0port".to_owned(), port.into());
            for key in ["trusted_lb.peer", "another.key"] {
                request
                    .properties
                    .insert(format!("filter_state\0{key}"), peer.into());
            }
        }
        let port = if self.is_set_up { 41234 } else { 0 };
        request = request.property("source.address", format!("{peer}:{port}"));
        if self.tls {
            request = request.property("connection.tls_version", "TLSv1.3");
        }
        Plain(request)
    }
}

fn arriving() -> impl Strategy<Value = Arriving> {
    let name = prop_oneof![
        6 => select(&[
            "x-forwarded-port", "cf-visitor", "x-forwarded-ssl", "forwarded", "cloudfront-forwarded-proto",
            "fastly-ssl", "front-end-https", "x-tls", "x_forwarded_proto", "x-forwarded_proto", "x_forwarded-proto",
            "x-forwarded-scheme", "x-url-scheme", "x_tls", "upgrade", "connection", "x-envoy-max-retries",
            "x-envoy-upstream-rq-timeout-ms", "x-envoy-retry-on", "x-envoy-upstream-rq-per-try-timeout-ms",
        ][..]).prop_map(str::to_owned),
        3 => select(&[
            "x.forwarded.proto", "x_forwarded_port", "x-forwarded-host", "x-real-scheme", "x_real_scheme", "x-edge",
            "x-lb-peer", "x_lb_peer", "x-lb-proto", "x~lb~proto", "x-real-ip", "x_client-ip", "x-client-ip",
            "x_forwarded_ssl", "x-origin-verify", "x-probe", "idempotency-key", "x-envoy-expected-rq-timeout-ms",
            "x-envoy-upstream-stream-duration-ms", "x-envoy-retry-grpc-on", "x-envoy-retriable-status-codes",
            "x-envoy-upstream-rq-timeout-alt-response", "x-envoy-upstream-alt-stat-name", "x-forwarded-proto",
        ][..]).prop_map(str::to_owned),
        1 => "[a-z_-]{1,12}",
    ];
    let value = prop_oneof![
        4 => select(&[
            "https", "http", "HTTPS", "wss", "443", "80", "on", "off", "1", "0", "proto=https", "for=x;proto=http",
            r#"{"scheme":"https"}"#, "https,http", "", "upgrade", "websocket", "99999999999999999999", "-1", "8443",
            "8080", "TLS", "plain",
        ][..]).prop_map(|value| value.as_bytes().to_vec()),
        1 => Just(TOKEN.into()),
        1 => Just(format!("{TOKEN} https").into_bytes()),
        2 => prop::collection::vec(any::<u8>(), 0..24),
    ];
    // A header that tells the scheme, as load balancers write it.
    let signal = select(
        &[
            ("x-forwarded-port", "443"),
            ("x-forwarded-port", "80"),
            ("x-forwarded-port", "8443"),
            ("x-forwarded-port", "8080"),
            ("cloudfront-forwarded-proto", "https"),
            ("cloudfront-forwarded-proto", "http"),
            ("x-forwarded-ssl", "off"),
            ("x-tls", "1"),
            ("x-tls", "0"),
            ("cf-visitor", r#"{"scheme":"http"}"#),
        ][..],
    )
    .prop_map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    (
        prop::collection::vec(prop_oneof![2 => signal, 3 => (name, value)], 0..8),
        select(&["GET", "POST", "CONNECT"][..]),
        select(&["/", "/healthz", "/not-lb/x"][..]),
        select(&["http", "https"][..]),
        select(&["HTTP/1.1", "HTTP/2", "HTTP/3"][..]),
        any::<bool>(),
        prop::bool::weighted(0.8),
        select(&["https", "http", "-", "", "http, https", "ftp"][..]),
        select(&["http", "https", "TLS", "plain", "ftp"][..]),
    )
        .prop_map(
            |(headers, method, path, scheme, protocol, tls, is_set_up, copied, forwarded_proto)| {
                Arriving {
                    headers,
                    method,
                    path,
                    scheme,
                    protocol,
                    tls,
                    is_set_up,
                    copied,
                    forwarded_proto,
                }
            },
        )
}

/// Whom a request may come from: the load balancer, one that is an exception, anybody else.
fn peers() -> impl Strategy<Value = &'static str> {
    select(&["10.0.0.7", "192.0.2.7", "203.0.113.9"][..])
}

/// The request after what the filter does, which in shadow mode is next to nothing. The gateway's early header mutation
/// writes its helpers anew in front of each filter that reads them.
fn passed(engine: &Engine, config: &Value, request: &Plain, operations: &[Operation<'_>]) -> Plain {
    let carried_out: Vec<Operation<'_>> = operations
        .iter()
        .copied()
        .filter(|operation| engine.carries_out(operation))
        .collect();
    let mut after = request.after(&carried_out);
    for name in helpers(config) {
        let is_helper = |(line, _): &&(Vec<u8>, Vec<u8>)| line == name.as_bytes();
        if !after.0.headers.iter().any(|line| is_helper(&line)) {
            after
                .0
                .headers
                .extend(request.0.headers.iter().filter(is_helper).cloned());
        }
    }
    after
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn deciding_on_its_own_output_changes_nothing(
        config in configuration(),
        arriving in arriving(),
        peer in peers(),
    ) {
        let engine = engine(&config);
        let request = arriving.from(peer, &config);
        let first = engine.decide(&request);
        let after = passed(&engine, &config, &request, &first.operations);
        let again = engine.decide(&after);
        let judged = |decision: &Decision<'_>| {
            (decision.rule, decision.applied_override, decision.forwarded_proto, decision.refusal)
        };
        prop_assert_eq!(judged(&again), judged(&first), "{:#}\n{:?}\n{:?}", config, request, after);
        let helpers = helpers(&config);
        let is_helper = |operation: &Operation<'_>| {
            matches!(operation, Operation::Remove { name } if helpers.iter().any(|helper| helper.as_bytes() == *name))
        };
        if config["mode"] == "shadow" {
            prop_assert_eq!(&again.operations, &first.operations);
        } else {
            prop_assert!(again.operations.iter().all(is_helper), "{:#}\n{:?}\n{:?}", config, again.operations, after);
        }
    }

    #[test]
    fn what_is_written_is_a_valid_header(config in configuration(), arriving in arriving(), peer in peers()) {
        let engine = engine(&config);
        for operation in engine.decide(&arriving.from(peer, &config)).operations {
            if let Operation::Set { name, value } = operation {
                prop_assert!(name == ":scheme" || http::HeaderName::from_bytes(name.as_bytes()).is_ok());
                prop_assert!(http::HeaderValue::from_str(value).is_ok());
                prop_assert!(!value.is_empty());
                if name == "x-forwarded-proto" || name == ":scheme" {
                    prop_assert!(matches!(value, "http" | "https"));
                }
            }
        }
    }

    #[test]
    fn a_header_is_written_once_and_never_removed_as_well(
        config in configuration(),
        arriving in arriving(),
        peer in peers(),
    ) {
        let engine = engine(&config);
        let request = arriving.from(peer, &config);
        let decision = engine.decide(&request);
        let mut names: Vec<&[u8]> = decision.operations.iter().map(|operation| match operation {
            Operation::Set { name, .. } => name.as_bytes(),
            Operation::Remove { name } => name,
        }).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        prop_assert_eq!(names.len(), all, "{:#}\n{:?}", config, decision.operations);
    }

    #[test]
    fn no_helper_reaches_the_upstream(config in configuration(), arriving in arriving(), peer in peers()) {
        let engine = engine(&config);
        let request = arriving.from(peer, &config);
        let decision = engine.decide(&request);
        if decision.refusal.is_some() && config["mode"] == "enforce" {
            return Ok(());
        }
        let carried_out: Vec<Operation<'_>> =
            decision.operations.iter().copied().filter(|operation| engine.carries_out(operation)).collect();
        let after = request.after(&carried_out);
        for helper in helpers(&config) {
            prop_assert!(after.0.headers.iter().all(|(name, _)| name != helper.as_bytes()), "{}", helper);
        }
    }

    #[test]
    fn nothing_that_an_untrusted_peer_sends_changes_the_scheme(
        config in configuration(),
        arriving in arriving(),
        peer in select(&["192.0.2.7", "203.0.113.9"][..]),
    ) {
        let engine = engine(&config);
        let mut arriving = arriving;
        // Whoever knows the secret is trusted.
        arriving.headers.retain(|(name, _)| name != "x-origin-verify");
        let request = arriving.from(peer, &config);
        let decision = engine.decide(&request);
        // The token is known here, so that without the gateway's own mutation the client may be whoever it says.
        if decision.rule.is_some() && !arriving.is_set_up && config["helperToken"].is_object() {
            return Ok(());
        }
        prop_assert_eq!(decision.rule, None);
        if decision.refusal.is_some() && config["mode"] == "enforce" {
            prop_assert!(decision.operations.is_empty());
            return Ok(());
        }
        let after = request.after(&decision.operations);
        let connection = if arriving.tls { "https" } else { "http" };
        let told = if config["untrusted"]["forwardedProto"] == "http" { "http" } else { connection };
        let values = |wanted: &str| -> Vec<&[u8]> {
            after.0.headers.iter()
                .filter(|(name, _)| name == wanted.as_bytes())
                .map(|(_, value)| value.as_slice())
                .collect()
        };
        prop_assert_eq!(values("x-forwarded-proto"), [told.as_bytes()]);
        prop_assert_eq!(values(":scheme"), [connection.as_bytes()]);
        if config["forwardedPort"] == true {
            let port: &[u8] = if told == "https" { b"443" } else { b"80" };
            prop_assert_eq!(values("x-forwarded-port"), [port]);
        }
        let kept = |name: &str| config["untrusted"]["keepHeaders"].as_array().is_some_and(|kept| kept.contains(&json!(name)));
        for gone in [
            "x_forwarded_proto", "x-forwarded_proto", "x_forwarded-proto", "x.forwarded.proto", "x-forwarded-ssl", "forwarded",
            "x-forwarded-host", "x-tls",
        ] {
            let is_read = gone != "x-tls" || config.to_string().contains("x-tls");
            if is_read && !kept(gone) {
                prop_assert_eq!(values(gone), [b""; 0], "{}", gone);
            }
        }
        for name in config["untrusted"]["removeHeaders"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let is_written = name == "x-forwarded-port" && config["forwardedPort"] == true;
            if !is_written && !kept(name) {
                prop_assert_eq!(values(name), [b""; 0], "{}", name);
            }
        }
    }
}

/// The same document with the fields of every object the other way round, and every number as a double.
fn reordered(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .rev()
                .map(|(name, value)| format!("\n {}:\t{}", json!(name), reordered(value)))
                .collect();
            format!("{{{}\n}}", fields.join(" ,"))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(reordered).collect();
            format!("[ {} ]", items.join(" , "))
        }
        Value::Number(number) => format!("{number}.0e0"),
        other => other.to_string(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_fields_and_the_form_of_numbers_change_nothing(
        config in configuration(),
        matches in prop::collection::vec(route_match(), 0..6),
    ) {
        let mut document = config;
        document["routes"] = json!([]);
        let routes = matches.iter().enumerate().map(|(index, one)| json!({"name": format!("{index}"), "match": one, "timeout": "1s"}));
        document["routes"] = routes.collect();
        prop_assert_eq!(read(&reordered(&document)), read(&document.to_string()));
    }
}
