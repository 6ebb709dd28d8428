//! Who is trusted, and what nobody else gets past Envoy: settings that only a whole Envoy has.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::cases::{ClientRequest, Gateway, Protocol};
use testkit::envoy::Envoy;
use testkit::gateway::{Listener, bootstrap, merge, typed};
use testkit::http::{self, Response};
use testkit::upstream::Upstream;

const LB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

fn get(peer: IpAddr, path: &str) -> ClientRequest {
    ClientRequest::get(peer, "app.example.com", path)
}

fn send(envoy: &Envoy, listener: &str, request: &ClientRequest) -> Response {
    http::send(envoy.listener(listener), request).expect("the gateway answers")
}

fn rule() -> Value {
    json!([{"name": "lb", "match": {"ipBlocks": ["127.0.0.2"]}, "forwardedProto": {"default": "https"}}])
}

/// What the upstream is told in this header.
fn told(response: &Response, header: &str) -> Option<String> {
    assert_eq!(response.status, 200, "{response:?}");
    response.received_one(header)
}

/// Waits until something is there, on a machine that may be busy.
fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_refused_request_is_answered_by_the_filter_counted_and_never_seen_by_the_upstream() {
    let upstream = Upstream::start();
    let listener = |name, mode| {
        let config = json!({
            "peerAddress": "filterState",
            "trustedLoadBalancers": rule(),
            "untrusted": {"action": "refuse", "except": [{"paths": [{"exact": "/healthz"}]}]},
            "mode": mode,
            "reportDecision": true,
        });
        let line = json!({
            "details": "%RESPONSE_CODE_DETAILS%",
            "reason": "%FILTER_STATE(wasm.trusted_lb_reason:PLAIN)%",
        });
        let mut log = typed("extensions.access_loggers.stream.v3.StderrAccessLog");
        merge(&mut log, json!({"log_format": {"json_format": line}}));
        Listener::new(name)
            .gateway(&Gateway {
                filter_state: true,
                ..Gateway::default()
            })
            .plugin(&config, &BTreeMap::new())
            .setting(
                "access_log",
                json!([{"name": "envoy.access_loggers.stderr", "typed_config": log}]),
            )
    };
    let listeners = [listener("enforce", "enforce"), listener("shadow", "shadow")];
    let envoy = Envoy::start(&bootstrap(&listeners, upstream.address()));
    let fails = |key| format!("/fail?times=0&key={key}");

    let refused = send(&envoy, "enforce", &get(ELSEWHERE, &fails("refused")));
    assert_eq!(refused.status, 403);
    assert_eq!(refused.body, b"not from a trusted load balancer\n");
    let mut http2 = get(ELSEWHERE, &fails("refused"));
    http2.protocol = Protocol::Http2;
    assert_eq!(send(&envoy, "enforce", &http2).status, 403);
    assert_eq!(upstream.attempts("refused"), 0);

    let grpc = get(ELSEWHERE, &fails("refused")).with(&[("content-type", "application/grpc")]);
    let answer = send(&envoy, "enforce", &grpc);
    assert_eq!(
        answer.header("grpc-status").as_deref(),
        Some("7"),
        "permission denied"
    );

    assert_eq!(
        send(&envoy, "enforce", &get(ELSEWHERE, "/healthz")).status,
        200
    );
    assert_eq!(
        send(&envoy, "enforce", &get(LB, &fails("served"))).status,
        200
    );
    assert_eq!(upstream.attempts("served"), 1);
    assert_eq!(
        send(&envoy, "shadow", &get(ELSEWHERE, &fails("shadow"))).status,
        200
    );
    assert_eq!(upstream.attempts("shadow"), 1, "shadow only counts");

    let counted = wait_for("count of three refusals and one in shadow mode", || {
        let all = envoy.prometheus("trusted_lb_");
        (all.get("trusted_lb_refused") == Some(&4)).then_some(all)
    });
    assert_eq!(counted.get("trusted_lb_untrusted"), Some(&5));
    let lines = wait_for("six lines of the access log", || {
        let log = envoy.log();
        let lines: Vec<Value> = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        (lines.len() == 6).then_some(lines)
    });
    let printed: Vec<(String, String)> = lines
        .iter()
        .map(|line| {
            let text = |field: &str| line[field].as_str().unwrap_or("-").to_owned();
            (text("details"), text("reason"))
        })
        .collect();
    let refused = ("trusted_lb_untrusted_refused", "connection,refused");
    let expected = [
        refused,
        refused,
        refused,
        ("via_upstream", "connection"),
        ("via_upstream", "default"),
        ("via_upstream", "connection,refused"),
    ];
    let expected = expected.map(|(details, reason)| (details.to_owned(), reason.to_owned()));
    assert_eq!(printed, expected);
}

#[test]
fn an_untrusted_client_cannot_outstay_the_longest_stream_that_the_cluster_allows() {
    let upstream = Upstream::start();
    let config = json!({"trustedLoadBalancers": rule()});
    let listener = Listener::new("gateway").plugin(&config, &BTreeMap::new());
    let mut bootstrap = bootstrap(&[listener], upstream.address());
    let mut options = typed("extensions.upstreams.http.v3.HttpProtocolOptions");
    merge(
        &mut options,
        json!({
            "common_http_protocol_options": {"max_stream_duration": "1s"},
            "explicit_http_config": {"http_protocol_options": {}},
        }),
    );
    bootstrap["static_resources"]["clusters"][0]["typed_extension_protocol_options"] =
        json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options});
    let envoy = Envoy::start(&bootstrap);
    let wish = ("x-envoy-upstream-stream-duration-ms", "60000");
    for peer in [ELSEWHERE, LB] {
        let slow = get(peer, "/slow?ms=3000").with(&[wish]);
        assert_eq!(send(&envoy, "gateway", &slow).status, 504, "{peer}");
    }
}

#[test]
fn no_header_of_an_internal_client_outlasts_the_configured_timeout() {
    let upstream = Upstream::start();
    let listener = |name, request_headers: Option<&str>| {
        let mut defaults = json!({"timeout": "1s"});
        if let Some(word) = request_headers {
            defaults["requestHeaders"] = json!(word);
        }
        let config = json!({"trustedLoadBalancers": rule(), "defaults": defaults});
        let mut router = typed("extensions.filters.http.router.v3.Router");
        merge(&mut router, json!({"respect_expected_rq_timeout": true}));
        Listener::new(name)
            .gateway(&Gateway {
                internal_addresses: vec![("127.0.0.0".to_owned(), 8)],
                ..Gateway::default()
            })
            .plugin(&config, &BTreeMap::new())
            .router(router)
    };
    let listeners = [
        listener("cap", Some("cap")),
        listener("replace", Some("replace")),
        listener("unsaid", None),
        listener("keep", Some("keep")),
    ];
    let envoy = Envoy::start(&bootstrap(&listeners, upstream.address()));
    let wishes = [
        ("x-envoy-expected-rq-timeout-ms", "3600000"),
        ("x-envoy-upstream-stream-duration-ms", "3600000"),
    ];
    let slow = |peer| get(peer, "/slow?ms=3000").with(&wishes);
    for name in ["cap", "replace", "unsaid"] {
        assert_eq!(send(&envoy, name, &slow(LB)).status, 504, "{name}");
        assert_eq!(send(&envoy, name, &slow(ELSEWHERE)).status, 504, "{name}");
        let quick = send(&envoy, name, &get(LB, "/").with(&wishes));
        assert_eq!(told(&quick, "x-envoy-upstream-rq-timeout-ms"), None);
        // Envoy's router tells the upstream how long it waits: our timeout, and not what the client asked for.
        assert_eq!(
            told(&quick, "x-envoy-expected-rq-timeout-ms").as_deref(),
            Some("1000"),
            "{name}"
        );
    }
    assert_eq!(send(&envoy, "keep", &slow(LB)).status, 200);
}

#[test]
fn a_later_plugin_with_defaults_only_leaves_the_scheme_of_the_first_one_alone() {
    let upstream = Upstream::start();
    let first = json!({"trustedLoadBalancers": rule(), "rewriteScheme": "always"});
    let later = json!({"defaults": {"timeout": "1s"}, "forwardedPort": true});
    let listener = Listener::new("gateway")
        .plugin(&first, &BTreeMap::new())
        .plugin(&later, &BTreeMap::new());
    let overwritten = Listener::new("overwritten")
        .plugin(&later, &BTreeMap::new())
        .setting(
            "scheme_header_transformation",
            json!({"scheme_to_overwrite": "https"}),
        );
    let envoy = Envoy::start(&bootstrap(&[listener, overwritten], upstream.address()));
    let response = send(&envoy, "gateway", &get(LB, "/"));
    assert_eq!(
        told(&response, "x-forwarded-proto").as_deref(),
        Some("https")
    );
    assert_eq!(told(&response, "x-seen-scheme").as_deref(), Some("https"));
    assert_eq!(told(&response, "x-forwarded-port"), None);
    assert_eq!(
        send(&envoy, "gateway", &get(LB, "/slow?ms=3000")).status,
        504
    );
    let response = send(&envoy, "overwritten", &get(ELSEWHERE, "/"));
    assert_eq!(told(&response, "x-seen-scheme").as_deref(), Some("https"));
}

#[test]
fn the_direct_peer_of_the_filter_state_outlives_an_internal_redirect() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let socket = folder.path().join("redirector");
    let redirector = Listener::new("redirector")
        .at(json!({"address": {"pipe": {"path": socket}}}))
        .virtual_hosts(json!([{"name": "redirector", "domains": ["*"], "routes": [{
            "match": {"prefix": "/"},
            "redirect": {"host_redirect": "app.example.com", "path_redirect": "/second", "response_code": "FOUND"},
        }]}]));
    let gateway = Listener::new("gateway")
        .gateway(&Gateway {
            filter_state: true,
            ..Gateway::default()
        })
        .plugin(
            &json!({"peerAddress": "filterState", "trustedLoadBalancers": rule()}),
            &BTreeMap::new(),
        )
        .virtual_hosts(json!([{"name": "app", "domains": ["*"], "routes": [
            {"match": {"path": "/first"}, "route": {
                "cluster": "redirector",
                "internal_redirect_policy": {"allow_cross_scheme_redirect": true},
            }},
            {"match": {"prefix": "/"}, "route": {"cluster": "upstream"}},
        ]}]));
    let mut bootstrap = bootstrap(&[redirector, gateway], upstream.address());
    let clusters = bootstrap["static_resources"]["clusters"]
        .as_array_mut()
        .expect("clusters");
    clusters.push(json!({
        "name": "redirector",
        "load_assignment": {"cluster_name": "redirector", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"pipe": {"path": socket}}}},
        ]}]},
    }));
    let envoy = Envoy::start(&bootstrap);
    for (peer, proto) in [(LB, "https"), (ELSEWHERE, "http")] {
        let claim = [("x-forwarded-proto", "https")];
        let response = send(&envoy, "gateway", &get(peer, "/first").with(&claim));
        assert!(
            told(&response, "x-envoy-original-url").is_some(),
            "it was redirected"
        );
        assert_eq!(told(&response, "x-forwarded-proto").as_deref(), Some(proto));
    }
}

/// What Envoy alone, without the filter, tells the upstream: x-forwarded-proto, x-forwarded-for, and the peer's address and
/// port as filters see them.
#[test]
fn envoy_judges_x_forwarded_proto_by_trusted_hops_and_gives_addresses_from_headers_port_0() {
    let upstream = Upstream::start();
    let routes = json!([{
        "name": "app",
        "domains": ["*"],
        "request_headers_to_add": [{"header": {"key": "x-source", "value": "%DOWNSTREAM_REMOTE_ADDRESS%"}}],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}],
    }]);
    let listener = |name, gateway| {
        Listener::new(name)
            .gateway(&gateway)
            .virtual_hosts(routes.clone())
    };
    let listeners = [
        listener("no hops", Gateway::default()),
        listener(
            "a hop",
            Gateway {
                xff_num_trusted_hops: 1,
                ..Gateway::default()
            },
        ),
        listener(
            "no use_remote_address",
            Gateway {
                use_remote_address: false,
                ..Gateway::default()
            },
        ),
    ];
    let envoy = Envoy::start(&bootstrap(&listeners, upstream.address()));
    let forged = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
    ];
    let expected = [
        ("no hops", "http", "203.0.113.9,127.0.0.9", "127.0.0.9:"),
        ("a hop", "https", "203.0.113.9,127.0.0.9", "203.0.113.9:0"),
        (
            "no use_remote_address",
            "https",
            "203.0.113.9",
            "203.0.113.9:0",
        ),
    ];
    for (name, proto, forwarded_for, source) in expected {
        let response = send(&envoy, name, &get(ELSEWHERE, "/").with(&forged));
        assert_eq!(
            told(&response, "x-forwarded-proto").as_deref(),
            Some(proto),
            "{name}"
        );
        assert_eq!(
            told(&response, "x-forwarded-for").as_deref(),
            Some(forwarded_for),
            "{name}"
        );
        let seen = told(&response, "x-source").expect("the route adds it");
        let (prefix, port) = (seen.strip_prefix(source), seen.rsplit(':').next());
        assert!(prefix.is_some(), "{name}: {seen}");
        assert_eq!(port == Some("0"), source.ends_with(":0"), "{name}: {seen}");
    }
}

#[test]
fn an_upstream_that_is_sent_http2_without_tls_sees_https_unless_the_router_matches_it() {
    let upstream = Upstream::start();
    let shows = json!([{
        "name": "app",
        "domains": ["*"],
        "request_headers_to_add": [{"header": {"key": "x-scheme-here", "value": "%REQ(:SCHEME)%"}}],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}],
    }]);
    // It leaves what it is told as it is.
    let inner = Listener::new("inner")
        .gateway(&Gateway {
            use_remote_address: false,
            ..Gateway::default()
        })
        .virtual_hosts(shows);
    let behind = Envoy::start(&bootstrap(&[inner], upstream.address()));
    let listener = |name, rewrite| {
        let config = json!({
            "peerAddress": "source",
            "trustedLoadBalancers": rule(),
            "rewriteScheme": rewrite,
        });
        Listener::new(name)
            .gateway(&Gateway::default())
            .plugin(&config, &BTreeMap::new())
    };
    let listeners = [
        listener("auto", "auto"),
        listener("never", "never"),
        listener("matched", "auto").setting(
            "scheme_header_transformation",
            json!({"match_upstream": true}),
        ),
    ];
    let mut file = bootstrap(&listeners, behind.listener("inner"));
    merge(
        &mut file["static_resources"]["clusters"][0],
        json!({"typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        }}),
    );
    let envoy = Envoy::start(&file);
    for (name, scheme) in [("auto", "https"), ("never", "http"), ("matched", "http")] {
        let response = send(&envoy, name, &get(LB, "/"));
        assert_eq!(
            told(&response, "x-scheme-here").as_deref(),
            Some(scheme),
            "{name}"
        );
        assert_eq!(
            told(&response, "x-forwarded-proto").as_deref(),
            Some("https"),
            "{name}"
        );
    }
}

#[test]
fn what_a_route_does_to_the_header_comes_after_the_filter_and_stands_for_every_client() {
    let upstream = Upstream::start();
    let changed = |name: &'static str, of_host: Value| {
        let mut host = json!({
            "name": "app",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}],
        });
        merge(&mut host, of_host);
        let config = json!({"peerAddress": "source", "trustedLoadBalancers": rule()});
        Listener::new(name)
            .gateway(&Gateway::default())
            .plugin(&config, &BTreeMap::new())
            .virtual_hosts(json!([host]))
    };
    let sets = |value: &str| {
        json!({"request_headers_to_add": [{
            "header": {"key": "x-forwarded-proto", "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }]})
    };
    let redirects = json!({"match": {"prefix": "/"}, "redirect": {"scheme_redirect": "https"}});
    let mut plain_only = redirects.clone();
    let is_http = json!({"name": "x-forwarded-proto", "string_match": {"exact": "http"}});
    plain_only["match"]["headers"] = json!([is_http]);
    let serves = json!({"match": {"prefix": "/"}, "route": {"cluster": "upstream"}});
    let listeners = [
        changed("sets", sets("https")),
        changed("itself", sets("%REQ(x-forwarded-proto)%")),
        changed(
            "removes",
            json!({"request_headers_to_remove": ["x-forwarded-proto"]}),
        ),
        changed("loops", json!({"routes": [redirects]})),
        changed("redirects", json!({"routes": [plain_only, serves]})),
    ];
    let envoy = Envoy::start(&bootstrap(&listeners, upstream.address()));
    for (listener, peer, proto) in [
        ("sets", LB, Some("https")),
        ("sets", ELSEWHERE, Some("https")),
        ("itself", LB, Some("https")),
        ("itself", ELSEWHERE, Some("http")),
        ("removes", LB, None),
        ("removes", ELSEWHERE, None),
    ] {
        let response = send(&envoy, listener, &get(peer, "/"));
        let told = told(&response, "x-forwarded-proto");
        assert_eq!(told.as_deref(), proto, "{listener} {peer}");
    }
    for (listener, peer, status) in [
        ("loops", LB, 301),
        ("loops", ELSEWHERE, 301),
        ("redirects", LB, 200),
        ("redirects", ELSEWHERE, 301),
    ] {
        let response = send(&envoy, listener, &get(peer, "/"));
        assert_eq!(response.status, status, "{listener} {peer}");
    }
}
