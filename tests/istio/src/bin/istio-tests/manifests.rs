//! The files of envoyfilter/ and examples/, applied exactly as they lie there.

use istio_lab::gateway::{
    ELSEWHERE, HTTP, HTTPS, LOAD_BALANCER, Options, expect, extensions, get, http_filters, metric,
    outcome, send,
};
use istio_lab::lab::Lab;
use istio_lab::manifest::{file, kustomized};
use istio_lab::report::Test;
use istio_lab::wait;
use std::process::Command;
use testkit::artifacts::repository;
use testkit::http::Response;

pub const TESTS: &[Test<Lab>] = &[
    (
        "kubectl apply -k envoyfilter corrects the load balancer's requests and nobody else's",
        kustomization,
    ),
    (
        "wasmplugin.yaml does on plain and on TLS listeners what its comments say",
        wasm_plugin,
    ),
    (
        "trafficextension.yaml does what wasmplugin.yaml does",
        traffic_extension,
    ),
    (
        "what render native writes for wasmplugin.yaml does the same without the module",
        native,
    ),
    (
        "preserve-lb-proto.yaml has the load balancer's own word for the scheme",
        preserve_lb_proto,
    ),
    (
        "envoyfilter.yaml loads by discovery, in front of everything",
        envoy_filter,
    ),
    (
        "envoyfilter-file.yaml loads the module from a file",
        envoy_filter_file,
    ),
    ("the GitOps overlay for production corrects", production),
    (
        "the GitOps overlay for staging counts and changes nothing",
        staging,
    ),
];

/// What everybody who is not the load balancer gets.
fn strangers_are_http() {
    let plain = get(ELSEWHERE, "/");
    expect(&plain, "200 http");
    let forged = plain.with(&[
        ("x-forwarded-proto", "https"),
        ("x-forwarded-for", "10.0.12.5"),
        ("x_forwarded_proto", "https"),
        ("x-forwarded-ssl", "on"),
    ]);
    let response = send(HTTP, &forged);
    assert_eq!(outcome(&response), "200 http");
    for name in ["x_forwarded_proto", "x-forwarded-ssl"] {
        assert_eq!(received(&response, name), Vec::<String>::new(), "{name}");
    }
}

fn received(response: &Response, name: &str) -> Vec<String> {
    let values = response.received(name).expect("the service answers");
    values
        .iter()
        .map(|value| value.escape_ascii().to_string())
        .collect()
}

fn kustomization(lab: &mut Lab) {
    let manifests = kustomized(&lab.programs, "envoyfilter");
    lab.serve(&manifests, &Options::default());
    expect(&get(LOAD_BALANCER, "/"), "200 https");
    strangers_are_http();
}

/// With timeouts and retries, and the untrusted peers' headers.
fn native(lab: &mut Lab) {
    let output = Command::new(&lab.programs.command)
        .args(["render", "native", "--as", "envoyfilter", "--http2", "deny"])
        .arg(repository().join("envoyfilter/wasmplugin.yaml"))
        .output()
        .expect("the command can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let manifest = String::from_utf8(output.stdout).expect("it is text");
    let options = Options {
        without_direct_peer: true,
        ..Options::default()
    };
    lab.serve(&manifest, &options);
    expect(&get(LOAD_BALANCER, "/"), "200 https");
    strangers_are_http();
    let names = http_filters(HTTP.port());
    assert!(!names.iter().any(|name| name.contains("wasm")), "{names:?}");
}

fn wasm_plugin(lab: &mut Lab) {
    lab.serve(&file("envoyfilter/wasmplugin.yaml"), &Options::default());
    expect(&get(LOAD_BALANCER, "/"), "200 https");
    strangers_are_http();
    let response = send(HTTP, &get(LOAD_BALANCER, "/"));
    assert_eq!(
        received(&response, "x-envoy-expected-rq-timeout-ms"),
        ["5000"],
        "the timeout of one try"
    );
    let mut encrypted = get(ELSEWHERE, "/");
    encrypted.tls = true;
    assert_eq!(
        outcome(&send(HTTPS, &encrypted)),
        "200 https",
        "a client's own TLS is https, whoever it is"
    );
    encrypted.peer = LOAD_BALANCER;
    assert_eq!(outcome(&send(HTTPS, &encrypted)), "200 https");
    let named = "istio-ingress.trusted-lb";
    let filters = http_filters(HTTP.port());
    assert_eq!(
        filters.iter().filter(|name| name.contains(named)).count(),
        1,
        "{filters:?}"
    );
    let loaded = extensions();
    assert_eq!(
        loaded.keys().collect::<Vec<_>>(),
        [
            "extensions.istio.io/trafficextension/istio-ingress.trusted-lb~istio-translated-wasmplugin"
        ],
        "docs/istio.md has the names"
    );
    let plugin = loaded.values().next().expect("there is one");
    assert_eq!(
        plugin["config"]["name"],
        "istio-ingress.trusted-lb~istio-translated-wasmplugin"
    );
}

fn traffic_extension(lab: &mut Lab) {
    lab.serve(
        &file("envoyfilter/trafficextension.yaml"),
        &Options::default(),
    );
    expect(&get(LOAD_BALANCER, "/"), "200 https");
    strangers_are_http();
    let loaded = extensions();
    let name = "istio-ingress.trusted-lb";
    let resource = format!("extensions.istio.io/trafficextension/{name}");
    assert_eq!(loaded.keys().collect::<Vec<_>>(), [&resource]);
    assert_eq!(loaded[&resource]["config"]["name"], name);
}

fn preserve_lb_proto(lab: &mut Lab) {
    lab.serve(
        &file("envoyfilter/preserve-lb-proto.yaml"),
        &Options::default(),
    );
    for said in ["https", "http"] {
        expect(
            &get(LOAD_BALANCER, "/").with(&[("x-forwarded-proto", said)]),
            &format!("200 {said}"),
        );
    }
    expect(&get(LOAD_BALANCER, "/"), "200 https");
    strangers_are_http();
    let forged = [
        ("x-lb-peer", "0123456789abcdef0123456789abcdef 10.0.12.5"),
        ("x-lb-proto", "0123456789abcdef0123456789abcdef https"),
    ];
    let response = send(HTTP, &get(ELSEWHERE, "/").with(&forged));
    assert_eq!(outcome(&response), "200 http");
    for name in ["x-lb-peer", "x-lb-proto"] {
        assert_eq!(received(&response, name), Vec::<String>::new(), "{name}");
    }
}

fn envoy_filter(lab: &mut Lab) {
    lab.serve(&file("envoyfilter/envoyfilter.yaml"), &Options::default());
    expect(&get(LOAD_BALANCER, "/"), "200 https");
    strangers_are_http();
    let filters = http_filters(HTTP.port());
    assert_eq!(
        filters.first().map(String::as_str),
        Some("istio-ingress.trusted-lb"),
        "{filters:?}"
    );
}

fn envoy_filter_file(lab: &mut Lab) {
    std::fs::copy(&lab.programs.module, "/etc/trusted-lb/trusted_lb.wasm")
        .expect("/etc is this namespace's own");
    lab.serve(
        &file("envoyfilter/envoyfilter-file.yaml"),
        &Options::default(),
    );
    expect(&get(LOAD_BALANCER, "/"), "200 https");
    strangers_are_http();
}

fn production(lab: &mut Lab) {
    let manifests = kustomized(&lab.programs, "examples/gitops/overlays/production");
    lab.serve(&manifests, &Options::default());
    expect(&get(LOAD_BALANCER, "/"), "200 https");
    let cdn = "10.0.40.7".parse().expect("an address");
    let said = [("cloudfront-forwarded-proto", "http")];
    expect(&get(cdn, "/").with(&said), "200 http");
    expect(&get(cdn, "/"), "200 https");
    expect(
        &get("10.0.50.9".parse().expect("an address"), "/").with(&said),
        "200 http",
    );
}

fn staging(lab: &mut Lab) {
    let manifests = kustomized(&lab.programs, "examples/gitops/overlays/staging");
    lab.serve(&manifests, &Options::default());
    let balancer = get("10.20.12.5".parse().expect("an address"), "/");
    wait::until_true("shadow mode counts what it would change", || {
        assert_eq!(outcome(&send(HTTP, &balancer)), "200 http");
        metric("trusted_lb_shadow_disagreement") > 0.0
    });
}
