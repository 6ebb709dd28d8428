//! Configurations and requests that bytes make.

use serde_json::{Value, json};
use trusted_lb::config;
use trusted_lb::engine::Attribute;

use super::choices::Choices;
use super::engines::SECRET;
use super::request::Plain;

pub(super) const SIGNALS: &[&str] = &[
    "x-forwarded-port",
    "cf-visitor",
    "forwarded",
    "x-forwarded-ssl",
    "front-end-https",
    "fastly-ssl",
    "x-url-scheme",
    "x-forwarded-scheme",
];

const NAMES: &[&str] = &[
    "x-forwarded-for",
    "x-forwarded-proto",
    "x_forwarded_proto",
    "x-forwarded_proto",
    "x-lb-peer",
    "x-lb-proto",
    "x_lb_proto",
    "x-origin-verify",
    "x-edge",
    "x-lb-tls",
    "x_forwarded_ssl",
    "connection",
    "upgrade",
    "idempotency-key",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-max-retries",
    "x-envoy-retry-on",
    "x-envoy-retriable-status-codes",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-upstream-stream-duration-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x.forwarded.proto",
    "x~forwarded~ssl",
];

fn matches(choices: &mut Choices<'_>) -> serde_json::Map<String, Value> {
    let mut fields = serde_json::Map::new();
    let kinds = choices.byte();
    let mut add = |bit: u8, name: &str, value: Value| {
        if kinds >> bit & 1 == 1 {
            fields.insert(name.to_owned(), value);
        }
    };
    add(
        0,
        "hosts",
        json!([choices.one(&["a.example.com", "*.example.com", "*", "localhost"])]),
    );
    add(
        1,
        "notHosts",
        json!([choices.one(&["a.example.com", "*.b.example.com"])]),
    );
    add(
        2,
        "paths",
        json!([{*choices.one(&["exact", "prefix"]): choices.one(&["/", "/a", "/a/b/"])}]),
    );
    add(
        3,
        "notPaths",
        json!([{"suffix": choices.one(&[".png", "/"])}]),
    );
    add(4, "methods", json!([choices.one(&["GET", "POST"])]));
    add(5, "notMethods", json!([choices.one(&["PUT", "DELETE"])]));
    let header = choices.one(&["x-edge", "x-forwarded_proto", "forwarded", "content-type"]);
    add(
        6,
        "headers",
        json!([{"name": header, *choices.one(&["exact", "prefix", "suffix"]): "eu"}]),
    );
    add(
        7,
        "notHeaders",
        json!([{"name": header, "present": choices.byte() & 1 == 1}]),
    );
    fields
}

fn forwarded_proto(choices: &mut Choices<'_>, helper: bool) -> Value {
    let mut from: Vec<Value> = choices
        .some(SIGNALS)
        .into_iter()
        .map(|name| json!(name))
        .collect();
    let more = choices.byte();
    if more & 1 == 1 {
        from.push(json!({"header": "x-lb-tls", "https": ["1", "on"], "http": ["0"]}));
    }
    if more & 2 == 2 && helper {
        from.insert(0, json!("header:x-lb-proto"));
    }
    json!({"from": from, "default": choices.one(&["http", "https", "connection"])})
}

fn policy(choices: &mut Choices<'_>) -> serde_json::Map<String, Value> {
    let mut fields = serde_json::Map::new();
    match choices.below(3) {
        0 => {}
        1 => drop(fields.insert("timeout".to_owned(), json!("inherit"))),
        _ => drop(fields.insert("timeout".to_owned(), json!("15s"))),
    }
    match choices.below(4) {
        0 => drop(fields.insert("timeout".to_owned(), json!("1s"))),
        1 => drop(fields.insert("retries".to_owned(), json!("inherit"))),
        kind => {
            let mut retries =
                json!({"attempts": choices.below(3), "retryOn": ["reset"], "statusCodes": [503]});
            if kind == 3 {
                retries["perTryTimeout"] = json!("500ms");
                retries["otherMethods"] = json!(choices.one(&["inherit", "disable"]));
                retries["idempotencyKey"] = json!("idempotency-key");
            }
            fields.insert("retries".to_owned(), retries);
        }
    }
    fields.insert(
        "requestHeaders".to_owned(),
        json!(choices.one(&["keep", "cap", "replace"])),
    );
    fields.insert("streams".to_owned(), json!(choices.one(&["skip", "apply"])));
    fields
}

pub(super) fn configuration_from(choices: &mut Choices<'_>) -> Value {
    let peer = *choices.one(&[
        "auto",
        "source",
        "forwardedFor",
        "header:x-lb-peer",
        "filterState",
        "filterState:a.key",
    ]);
    let helper = peer.starts_with("header:");
    let mut rules = Vec::new();
    for index in 0..choices.below(4) {
        let mut conditions = matches(choices);
        match choices.below(3) {
            0 => {
                drop(conditions.insert("ipBlocks".to_owned(), json!(["10.0.0.0/8", "fd00:7::/64"])))
            }
            1 => {
                let secret = json!([{"name": "x-origin-verify", "fromEnv": "SECRET"}]);
                conditions.insert("headers".to_owned(), secret);
            }
            _ => drop(conditions.insert(
                "clientCertificate".to_owned(),
                json!({"uriSans": ["spiffe://edge"]}),
            )),
        }
        let proto = forwarded_proto(choices, helper);
        rules.push(
            json!({"name": format!("r{index}"), "match": conditions, "forwardedProto": proto}),
        );
    }
    let mut routes = Vec::new();
    for index in 0..choices.below(4) {
        let mut route = policy(choices);
        let mut conditions = matches(choices);
        if choices.byte() & 1 == 1 || conditions.is_empty() {
            conditions.insert(
                "virtualHosts".to_owned(),
                json!([choices.one(&["one", "t*"])]),
            );
        }
        route.insert("name".to_owned(), json!(format!("r{index}")));
        route.insert("match".to_owned(), Value::Object(conditions));
        if choices.byte() & 1 == 1 {
            route.insert(
                "forwardedProto".to_owned(),
                forwarded_proto(choices, helper),
            );
        }
        routes.push(Value::Object(route));
    }
    let mut document = json!({
        "peerAddress": peer,
        "trustedLoadBalancers": rules,
        "mode": choices.one(&["enforce", "enforce", "shadow"]),
        "rewriteScheme": choices.one(&["auto", "always", "never"]),
        "forwardedPort": choices.byte() & 1 == 1,
        "defaults": policy(choices),
        "routes": routes,
    });
    match choices.below(4) {
        0 => {}
        kind => {
            let mut untrusted =
                json!({"forwardedProto": choices.one(&["connection", "connection", "http"])});
            if choices.byte() & 1 == 1 {
                untrusted["removeHeaders"] = json!(["x-edge", "x-lb-tls"]);
            }
            if kind == 2 {
                untrusted["action"] = json!("refuse");
                untrusted["except"] = json!([{"paths": [{"exact": choices.one(&["/", "/a"])}]}]);
            }
            document["untrusted"] = untrusted;
        }
    }
    if helper {
        document["helperToken"] = json!({"fromEnv": "TOKEN"});
    }
    document
}

pub(super) fn request_from(choices: &mut Choices<'_>) -> Plain {
    let mut request = Plain::default()
        .with(
            ":method",
            choices.one(&["GET", "POST", "PUT", "CONNECT"]).as_bytes(),
        )
        .with(
            ":scheme",
            choices.one(&["http", "https", "HTTPS", ""]).as_bytes(),
        );
    let protocol = choices.one(&["HTTP/1.1", "HTTP/2", "HTTP/3", "HTTP/1.0"]);
    request.attributes.insert(
        Attribute::Protocol.path().to_owned(),
        protocol.as_bytes().into(),
    );
    let kinds = choices.byte();
    if kinds & 1 == 1 {
        request
            .attributes
            .insert(Attribute::TlsVersion.path().to_owned(), b"TLSv1.3".into());
        request
            .attributes
            .insert(Attribute::MutualTls.path().to_owned(), vec![kinds >> 1 & 1]);
        request
            .attributes
            .insert(Attribute::UriSan.path().to_owned(), b"spiffe://edge".into());
    }
    if kinds & 4 == 4 {
        request.attributes.insert(
            Attribute::DestinationPort.path().to_owned(),
            8080_u64.to_le_bytes().into(),
        );
    }
    if kinds & 8 == 8 {
        request.attributes.insert(
            Attribute::VirtualHostName.path().to_owned(),
            choices.text().into(),
        );
    }
    request.attributes.insert(
        Attribute::SourceAddress.path().to_owned(),
        choices.text().into(),
    );
    for key in [config::DEFAULT_PEER_KEY, "a.key"] {
        if choices.byte() & 1 == 1 {
            let value = choices.text().into();
            request
                .attributes
                .insert(format!("filter_state\0{key}"), value);
        }
    }
    let (authority, path) = (choices.text(), choices.text());
    request = request.with(":authority", authority).with(":path", path);
    request = request.with(
        "x-forwarded-proto",
        choices.one(&["http", "https", "https,http"]).as_bytes(),
    );
    while !choices.0.is_empty() {
        let name = match choices.below(4) {
            0 => choices.one(SIGNALS),
            _ => choices.one(NAMES),
        };
        let value = match choices.below(8) {
            0 => format!("{SECRET} 10.0.0.7").into_bytes(),
            1 => format!("{SECRET} https").into_bytes(),
            2 => SECRET.into(),
            _ => choices.text().to_vec(),
        };
        request = request.with(name, &value);
    }
    request
}
