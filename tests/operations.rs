//! What an operator sees of the filter in a real Envoy: counters, log lines, decisions in the access log.

// Tests end where something is not as expected.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::artifacts;
use testkit::cases::{ClientRequest, Gateway};
use testkit::envoy::Envoy;
use testkit::gateway::{Listener, bootstrap, merge, typed};
use testkit::http::{self, Response};
use testkit::upstream::Upstream;

const LB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const OTHER_LB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

fn get(peer: IpAddr, path: &str) -> ClientRequest {
    ClientRequest::get(peer, "app.example.com", path)
}

fn send(envoy: &Envoy, listener: &str, request: &ClientRequest) -> Response {
    http::send(envoy.listener(listener), request).expect("the gateway answers")
}

/// Waits until something holds, on a machine that may be busy.
fn wait_for<T>(what: &str, mut found: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match found() {
            Ok(found) => return found,
            Err(instead) => assert!(Instant::now() < deadline, "no {what}; instead:\n{instead}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The counters once they say that so many requests were decided.
fn counted(envoy: &Envoy, requests: u64) -> BTreeMap<String, u64> {
    wait_for("such number of requests", || {
        let all = envoy.prometheus("trusted_lb_");
        let of = |name| all.get(name).copied().unwrap_or_default();
        if of("trusted_lb_trusted") + of("trusted_lb_untrusted") == requests {
            Ok(all)
        } else {
            Err(format!("{all:#?}"))
        }
    })
}

/// A field that docs/operations.md gives to Envoy.
fn documented(field: &str) -> Value {
    let text = std::fs::read_to_string(artifacts::repository().join("docs/operations.md"))
        .expect("docs/operations.md can be read");
    let (_, rest) = text
        .split_once(&format!("```yaml\n{field}:\n"))
        .unwrap_or_else(|| panic!("no block for {field}"));
    let (yaml, _) = rest.split_once("```").expect("the block ends");
    serde_saphyr::from_str(yaml).expect("it is YAML")
}

fn two_load_balancers() -> Value {
    json!({
        "trustedLoadBalancers": [
            {"name": "lb", "match": {"ipBlocks": ["127.0.0.2"]}, "forwardedProto": {"default": "https"}},
            {"name": "other", "match": {"ipBlocks": ["127.0.0.3"]},
             "forwardedProto": {"from": ["x-forwarded-port"], "default": "https"}},
        ],
        "defaults": {"timeout": "15s", "retries": {"attempts": 2, "retryOn": ["connect-failure"]}, "requestHeaders": "cap"},
        "routes": [{"name": "left-alone", "match": {"paths": [{"prefix": "/left-alone"}]}, "timeout": "inherit", "retries": "inherit"}],
    })
}

#[test]
fn every_counter_shows_its_exact_value_to_prometheus() {
    let upstream = Upstream::start();
    let config = two_load_balancers();
    let plain = Listener::new("gateway").plugin(&config, &BTreeMap::new());
    let asking_for_more = Listener::new("asking-for-more")
        .plugin(&config, &BTreeMap::new())
        .gateway(&Gateway {
            earlier_filter: vec![("x-envoy-max-retries".to_owned(), "9".to_owned())],
            ..Gateway::default()
        });
    let hidden = Listener::new("hidden")
        .plugin(&config, &BTreeMap::new())
        .gateway(&Gateway {
            use_remote_address: false,
            ..Gateway::default()
        });
    let mut bootstrap = bootstrap(&[plain, asking_for_more, hidden], upstream.address());
    bootstrap["stats_config"] = documented("stats_config");
    let envoy = Envoy::start(&bootstrap);
    for _ in 0..3 {
        send(&envoy, "gateway", &get(LB, "/"));
    }
    let port = |value| get(OTHER_LB, "/").with(&[("x-forwarded-port", value)]);
    send(&envoy, "gateway", &port("80"));
    send(&envoy, "gateway", &port("http"));
    send(&envoy, "gateway", &get(ELSEWHERE, "/left-alone"));
    send(
        &envoy,
        "gateway",
        &get(ELSEWHERE, "/left-alone").with(&[("x-forwarded-ssl", "on")]),
    );
    send(&envoy, "asking-for-more", &get(LB, "/"));
    send(
        &envoy,
        "hidden",
        &get(ELSEWHERE, "/left-alone").with(&[("x-forwarded-for", "127.0.0.2")]),
    );
    let expected = [
        ("capped", 1),
        // The canary that Envoy tries it in, the main thread and one worker.
        ("configuration_accepted", 3),
        ("configuration_generation", 1),
        ("configuration_refused", 0),
        ("forged_claim", 1),
        ("forwarded_proto_rewritten", 5),
        ("host_call_error", 0),
        ("peer_ambiguous", 1),
        ("retries", 6),
        ("scheme_rewritten", 5),
        ("shadow", 0),
        ("shadow_disagreement", 0),
        ("signal_unusable", 1),
        ("timeout", 6),
        ("trusted", 6),
        ("trusted_rule{rule=\"0\"}", 4),
        ("trusted_rule{rule=\"1\"}", 2),
        ("untrusted", 3),
    ];
    let expected: BTreeMap<String, u64> = expected
        .into_iter()
        .map(|(name, value)| (format!("trusted_lb_{name}"), value))
        .collect();
    assert_eq!(counted(&envoy, 9), expected);
}

/// The usual Lua filter: https for everybody.
const LUA: &str = r#"
function envoy_on_request(handle)
  handle:headers():replace("x-forwarded-proto", "https")
end
"#;

#[test]
fn shadow_mode_behind_the_lua_filter_counts_where_the_two_disagree_and_changes_nothing() {
    let upstream = Upstream::start();
    let mut config = two_load_balancers();
    config["mode"] = "shadow".into();
    let mut lua = typed("extensions.filters.http.lua.v3.Lua");
    merge(
        &mut lua,
        json!({"default_source_code": {"inline_string": LUA}}),
    );
    let listener = Listener::new("gateway")
        .filter(json!({"name": "lua", "typed_config": lua}))
        .plugin(&config, &BTreeMap::new());
    let envoy = Envoy::start(&bootstrap(&[listener], upstream.address()));
    for (peer, headers) in [
        (LB, &[][..]),
        (LB, &[]),
        (OTHER_LB, &[("x-forwarded-port", "443")]),
        (OTHER_LB, &[("x-forwarded-port", "80")]),
        (ELSEWHERE, &[]),
        (ELSEWHERE, &[]),
    ] {
        let response = send(&envoy, "gateway", &get(peer, "/").with(headers));
        assert_eq!(
            response.received_one("x-forwarded-proto").as_deref(),
            Some("https")
        );
    }
    let counters = counted(&envoy, 6);
    for (name, value) in [
        ("shadow", 6),
        // The other load balancer's client on plain HTTP, and the two that anybody sent.
        ("shadow_disagreement", 3),
        ("forwarded_proto_rewritten", 3),
        ("forged_claim", 2),
        ("trusted_rule_0", 2),
        ("trusted_rule_1", 2),
        ("timeout", 6),
    ] {
        assert_eq!(
            counters[&format!("trusted_lb_{name}")],
            value,
            "{name}: {counters:#?}"
        );
    }
}

#[test]
fn an_access_log_prints_what_was_decided_and_why() {
    let upstream = Upstream::start();
    let mut config = two_load_balancers();
    config["reportDecision"] = true.into();
    let listener = |name| {
        Listener::new(name)
            .plugin(&config, &BTreeMap::new())
            .setting("access_log", documented("access_log"))
    };
    let hidden = listener("hidden").gateway(&Gateway {
        use_remote_address: false,
        ..Gateway::default()
    });
    let envoy = Envoy::start(&bootstrap(
        &[listener("gateway"), hidden],
        upstream.address(),
    ));
    let port = |value| get(OTHER_LB, "/").with(&[("x-forwarded-port", value)]);
    send(&envoy, "gateway", &get(LB, "/left-alone"));
    send(&envoy, "gateway", &port("80"));
    send(&envoy, "gateway", &port("http"));
    send(&envoy, "gateway", &get(ELSEWHERE, "/"));
    send(
        &envoy,
        "hidden",
        &get(ELSEWHERE, "/").with(&[("x-forwarded-for", "127.0.0.2")]),
    );
    let expected = [
        ("lb", "left-alone", "https", "default"),
        ("other", "-", "http", "signal:x-forwarded-port"),
        ("other", "-", "https", "default,unusable:x-forwarded-port"),
        ("-", "-", "http", "connection"),
        ("-", "-", "http", "connection,peer:from-header"),
    ];
    let shown = |field: &Value| field.as_str().unwrap_or("-").to_owned();
    let lines = wait_for("five lines of the access log", || {
        let log = envoy.log();
        let lines: Vec<Value> = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        if lines.len() == expected.len() {
            Ok(lines)
        } else {
            Err(log)
        }
    });
    let printed: Vec<_> = lines
        .iter()
        .map(|line| {
            ["rule", "route", "scheme", "reason"]
                .map(|field| shown(&line[format!("trusted_lb_{field}")]))
        })
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(rule, route, scheme, reason)| {
            [rule, route, scheme, reason].map(|text| (*text).to_owned())
        })
        .collect();
    assert_eq!(printed, expected);
}
