//! The built module in a real Envoy.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::cases::{self, ClientRequest, Protocol};
use testkit::envoy::{self, Envoy};
use testkit::gateway::{Listener, bootstrap, plugin, seen_as, usual_virtual_hosts};
use testkit::http::{self, Response};
use testkit::upstream::Upstream;

#[test]
fn envoy_gives_every_case_the_expected_request() {
    let upstream = Upstream::start();
    let groups: Vec<_> = cases::all()
        .into_iter()
        .flat_map(|(file, groups)| groups.into_iter().map(move |group| (file.clone(), group)))
        .collect();
    let mut listeners = Vec::new();
    let mut environment = BTreeMap::new();
    for (index, (_, group)) in groups.iter().enumerate() {
        let listener = |name: String| {
            Listener::new(&name)
                .gateway(&group.gateway)
                .plugin(&group.config, &group.environment)
        };
        listeners.push(listener(format!("{index}")));
        listeners.push(listener(format!("{index}-tls")).tls());
        environment.extend(group.environment.clone());
    }
    let envoy =
        Envoy::start_with_environment(&bootstrap(&listeners, upstream.address()), &environment);

    let mut wrong = Vec::new();
    for (index, (file, group)) in groups.iter().enumerate() {
        for case in group
            .cases
            .iter()
            .filter(|case| case.not_in_envoy.is_none())
        {
            let place = format!("{file}: {}: {}", group.name, case.name);
            let name = format!("{index}{}", if case.request.tls { "-tls" } else { "" });
            let response = http::send(envoy.listener(&name), &case.request)
                .unwrap_or_else(|error| panic!("{place}: {error}"));
            if let Some(status) = case.expect.refused {
                if response.status != status || response.received("host").is_some() {
                    wrong.push(format!("{place}: not refused with {status}: {response:?}"));
                }
                continue;
            }
            if !matches!(response.status, 200 | 101) || response.received("host").is_none() {
                wrong.push(format!("{place}: not the upstream's answer: {response:?}"));
                continue;
            }
            let values = |name: &str| response.received(&seen_as(name)).unwrap_or_default();
            for difference in case.expect.differences(values) {
                wrong.push(format!("{place}: {difference}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), envoy.log());
}

/// A gateway with httpsRedirect, a path redirect and the usual defaults; 127.0.0.2 is its load balancer.
struct UsualGateway {
    upstream: Upstream,
    envoy: Envoy,
}

impl UsualGateway {
    fn start() -> Self {
        let upstream = Upstream::start();
        let listener = Listener::new("gateway")
            .plugin(
                &json!({
                    "trustedLoadBalancers": [{
                        "name": "lb",
                        "match": {"ipBlocks": ["127.0.0.2"]},
                        "forwardedProto": {"default": "https"},
                    }],
                    "defaults": {"timeout": "500ms", "retries": {"attempts": 2, "retryOn": ["gateway-error"]}},
                    "routes": [{"name": "patient", "match": {"hosts": ["patient.example.com"]}, "timeout": "5s"}],
                }),
                &BTreeMap::new(),
            )
            .virtual_hosts(usual_virtual_hosts());
        let envoy = Envoy::start(&bootstrap(&[listener], upstream.address()));
        Self { upstream, envoy }
    }

    fn send(&self, request: &ClientRequest) -> Response {
        http::send(self.envoy.listener("gateway"), request).expect("the gateway answers")
    }
}

const LB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

#[test]
fn the_redirect_loop_ends_for_the_load_balancer_and_for_nobody_else() {
    let gateway = UsualGateway::start();
    let secure = |peer| ClientRequest::get(peer, "secure.example.com", "/");
    assert_eq!(gateway.send(&secure(LB)).status, 200);
    let spoofed = secure(ELSEWHERE).with(&[
        ("x-forwarded-proto", "https"),
        ("x-forwarded-for", "127.0.0.2"),
    ]);
    let refused = gateway.send(&spoofed);
    assert_eq!(refused.status, 301);
    assert_eq!(
        refused.header("location").as_deref(),
        Some("https://secure.example.com/")
    );
}

#[test]
fn envoys_own_redirects_tell_the_scheme_that_was_decided() {
    let gateway = UsualGateway::start();
    let location = |request: &ClientRequest| {
        gateway
            .send(request)
            .header("location")
            .expect("a redirect")
    };
    let old = |peer| ClientRequest::get(peer, "old.example.com", "/");
    assert_eq!(location(&old(LB)), "https://old.example.com/new");
    assert_eq!(
        location(&old(ELSEWHERE).with(&[("x-forwarded-proto", "https")])),
        "http://old.example.com/new"
    );
    let mut http2 = old(ELSEWHERE);
    http2.protocol = Protocol::Http2;
    http2.scheme = Some("https".to_owned());
    assert_eq!(location(&http2), "http://old.example.com/new");
}

#[test]
fn a_slow_upstream_is_answered_504_and_a_route_may_wait_longer() {
    let gateway = UsualGateway::start();
    let slow = |authority| ClientRequest::get(LB, authority, "/slow?ms=1500");
    // Without the filter Envoy waits for 15 s.
    assert_eq!(gateway.send(&slow("app.example.com")).status, 504);
    assert_eq!(gateway.send(&slow("patient.example.com")).status, 200);
}

#[test]
fn a_failing_upstream_is_tried_three_times_but_not_with_post() {
    let gateway = UsualGateway::start();
    let fail = |key| ClientRequest::get(LB, "app.example.com", &format!("/fail?times=2&key={key}"));
    assert_eq!(gateway.send(&fail("get")).status, 200);
    assert_eq!(gateway.upstream.attempts("get"), 3);
    let mut post = fail("post");
    post.method = "POST".to_owned();
    assert_eq!(gateway.send(&post).status, 503);
    assert_eq!(gateway.upstream.attempts("post"), 1);
}

#[test]
fn counters_show_at_envoys_admin_interface() {
    let gateway = UsualGateway::start();
    gateway.send(&ClientRequest::get(LB, "app.example.com", "/"));
    gateway.send(&ClientRequest::get(ELSEWHERE, "app.example.com", "/"));
    gateway.send(
        &ClientRequest::get(ELSEWHERE, "app.example.com", "/").with(&[("x-forwarded-ssl", "on")]),
    );
    let deadline = Instant::now() + Duration::from_secs(10);
    while gateway.envoy.stat("wasmcustom.trusted_lb_untrusted") < 2 {
        assert!(
            Instant::now() < deadline,
            "{}",
            String::from_utf8_lossy(&gateway.envoy.admin("/stats").body)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(gateway.envoy.stat("wasmcustom.trusted_lb_trusted"), 1);
    assert_eq!(gateway.envoy.stat("wasmcustom.trusted_lb_forged_claim"), 1);
    let prometheus =
        String::from_utf8_lossy(&gateway.envoy.admin("/stats/prometheus").body).into_owned();
    assert!(
        prometheus
            .lines()
            .any(|line| line == "trusted_lb_trusted{} 1"),
        "{prometheus}"
    );
}

#[test]
fn envoy_refuses_a_bad_configuration_and_its_log_names_every_fault() {
    let listener = Listener::new("gateway").plugin(
        &json!({
            "trustedLoadBalancers": [{"name": "all", "match": {"ipBlocks": ["0.0.0.0/1", "128.0.0.0/1"]},
                "forwardedProto": {"default": "https"}}],
            "defaults": {"timeout": "15", "retries": {"retryOn": ["conect-failure"]}},
            "routes": [{"name": "empty", "match": {}, "timeout": "1s"}],
        }),
        &BTreeMap::new(),
    );
    let log = envoy::validate(&bootstrap(&[listener], ([127, 0, 0, 1], 1).into()))
        .expect_err("it is refused");
    for part in [
        "4 errors",
        "trustedLoadBalancers[0].match: these ipBlocks trust every public IPv4 address",
        "defaults.timeout: \"15\" has no unit (write 15s for seconds, or 15ms for milliseconds)",
        "defaults.retries.retryOn[0]: \"conect-failure\" is not a retry condition (did you mean connect-failure?)",
        "routes[0].match: an empty match would hold for every request",
    ] {
        assert!(log.contains(part), "{part}\n{log}");
    }
}

#[test]
fn envoy_hands_a_struct_over_as_protobuf_and_the_log_says_what_to_write() {
    let mut filter = plugin(&json!({}), &BTreeMap::new());
    filter["typed_config"]["config"]["configuration"] = json!({"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"defaults": {"timeout": "15s"}}});
    let listener = Listener::new("gateway").filter(filter);
    let log = envoy::validate(&bootstrap(&[listener], ([127, 0, 0, 1], 1).into()))
        .expect_err("it is refused");
    assert!(
        log.contains("write JSON text into a google.protobuf.StringValue"),
        "{log}"
    );
}
