//! What `check` suggests for routes with a timeout of their own covers the same requests, neither more nor fewer. Which
//! those are was read off Istio's and the Gateway API's rules by a person; `explain` tells what becomes of them.

use std::fmt::Write as _;

use serde_json::Value;

use crate::command::{run, text};

const PLUGIN: &str = "apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: trusted-lb, namespace: istio-ingress}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: public}]
  url: oci://registry.example.com/trusted-lb:0.1.0
  phase: AUTHN
  pluginConfig:
";
const CONFIGURATION: &str = "    trustedLoadBalancers: [{name: alb, match: {ipBlocks: [10.0.12.0/24]}, forwardedProto: {default: https}}]
    defaults: {timeout: 15s}
";

/// The findings about overridden routes: messages and suggestions.
fn overridden(routes: &str, configuration: &str) -> Vec<(String, String)> {
    let file = tempfile::NamedTempFile::with_suffix(".yaml").expect("a file can be made");
    std::fs::write(file.path(), format!("{PLUGIN}{configuration}")).expect("it can be written");
    let plugin = file.path().to_string_lossy();
    let output = run(&["check", &plugin, routes, "--format", "json"], "");
    let findings: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    let one = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    let findings = findings.as_array().expect("a list").iter();
    findings
        .filter(|finding| finding["code"] == "overridden-by-defaults")
        .map(|finding| (one(finding, "message"), one(finding, "suggestion")))
        .collect()
}

/// The configuration with the suggested entries.
fn with_suggestions(routes: &str) -> String {
    let mut configuration = format!("{CONFIGURATION}    routes:\n");
    for (_, suggestion) in overridden(routes, CONFIGURATION) {
        for line in suggestion.lines() {
            let _ = writeln!(configuration, "    {line}");
        }
    }
    configuration
}

/// Whether the plugin's own timeout is written on a request.
fn is_ours(configuration: &str, request: &[&str]) -> bool {
    let mut arguments = vec!["explain", "-", "--peer", "10.0.12.5", "--format", "json"];
    arguments.extend(request);
    let output = run(&arguments, &format!("{PLUGIN}{configuration}"));
    let said: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    let headers = said["headers"].as_array().expect("a list");
    headers
        .iter()
        .any(|header| header["name"] == "x-envoy-upstream-rq-timeout-ms")
}

#[test]
fn suggestions_cover_the_requests_of_a_virtual_services_routes_and_no_others() {
    let routes = "tests/cli/overridden/virtual-services.yaml";
    let configuration = with_suggestions(routes);
    let shop = |path: &str| format!("https://shop.example.com{path}");
    for (path, is_ours_now) in [
        ("/pay", false),
        ("/payments", false),
        ("/payments/7?x=1", false),
        ("/pay/status", true),
        ("/pay/status/now", false),
        ("/pa", true),
        ("/x/pay", true),
        ("/", true),
        // A regular expression is nothing of ours: Envoy's name tells.
        ("/r7", true),
    ] {
        assert_eq!(
            is_ours(&configuration, &["--url", &shop(path)]),
            is_ours_now,
            "{path}\n{configuration}"
        );
    }
    let named = ["--virtual-service", "shop/shop", "--route", "reports"];
    assert!(!is_ours(
        &configuration,
        &[&["--url", &shop("/r7")][..], &named].concat()
    ));
    let bulk = ["-H", "x-kind: bulk", "--method", "PUT"];
    assert!(!is_ours(
        &configuration,
        &[&["--url", &shop("/x")][..], &bulk].concat()
    ));
    assert!(is_ours(
        &configuration,
        &[&["--url", &shop("/pay/status")][..], &bulk].concat()
    ));
    assert!(is_ours(
        &configuration,
        &["--url", &shop("/x"), "--method", "PUT"]
    ));
    for (url, is_ours_now) in [
        ("https://other.example.com/", false),
        ("https://a.b.example.com/", false),
        ("https://a.quick.example.com/", true),
        ("https://quick.example.com/", false),
        ("https://example.com/", true),
        ("https://shop.example.com/", true),
    ] {
        assert_eq!(
            is_ours(&configuration, &["--url", url]),
            is_ours_now,
            "{url}\n{configuration}"
        );
    }
}

#[test]
fn suggestions_cover_the_requests_of_the_gateway_apis_rules_and_no_others() {
    let routes = "tests/cli/overridden/gateway-api.yaml";
    let configuration = with_suggestions(routes);
    for (url, is_ours_now) in [
        ("https://api.example.com/", false),
        ("https://api.example.com/fast", true),
        ("https://api.example.com/fast/1", true),
        ("https://api.example.com/faster", false),
        ("https://grpc.example.com/bank.Ledger/Get", false),
        ("https://grpc.example.com/bank.LedgerTwo/Get", true),
        ("https://inner.example.com/", true),
        ("https://shop.example.com/", true),
    ] {
        assert_eq!(
            is_ours(&configuration, &["--url", url]),
            is_ours_now,
            "{url}\n{configuration}"
        );
    }
    let bulk = ["-H", "x-kind: bulk", "--method", "POST"];
    assert!(!is_ours(
        &configuration,
        &[&["--url", "https://api.example.com/login"][..], &bulk].concat()
    ));
}

#[test]
fn with_its_suggestions_nothing_is_overridden_any_more() {
    for routes in [
        "tests/cli/overridden/virtual-services.yaml",
        "tests/cli/overridden/gateway-api.yaml",
    ] {
        assert!(!overridden(routes, CONFIGURATION).is_empty());
        assert_eq!(overridden(routes, &with_suggestions(routes)), []);
    }
}

#[test]
fn a_segment_of_ours_does_not_cover_a_text_of_istios() {
    let routes = "tests/cli/overridden/virtual-services.yaml";
    let pay = "of VirtualService shop/shop";
    let entry = |kind: &str| {
        format!(
            "{CONFIGURATION}    routes: [{{name: pay, match: {{paths: [{{{kind}: /pay}}]}}, timeout: inherit}}]\n"
        )
    };
    let count = |configuration: &str| {
        let found = overridden(routes, configuration);
        found
            .iter()
            .filter(|(message, _)| message.ends_with(pay))
            .count()
    };
    assert_eq!(count(CONFIGURATION), 2);
    assert_eq!(count(&entry("prefix")), 2);
    assert_eq!(count(&entry("startsWith")), 1);
}
