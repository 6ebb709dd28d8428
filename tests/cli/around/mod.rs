//! What stands around a plugin: each finding with an input that triggers it and one next to it that doesn't.

mod envoys_own;
mod others;
mod routes;
mod source_nat;
mod trust;

use serde_json::Value;

use crate::command::{read, run, text};
use testkit::artifacts::repository;

/// The codes of the findings, with what path they are about.
fn findings(manifests: &str) -> Vec<String> {
    let output = run(&["check", "-", "--format", "json"], manifests);
    let list: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    let list = list.as_array().expect("a list").iter();
    list.map(|one| format!("{} {} {}", one["severity"], one["code"], one["path"]).replace('"', ""))
        .map(|line| line.trim().to_owned())
        .collect()
}

/// A file of the field, and what is found after each change to it.
fn changed(file: &str, changes: &[(&str, &str, &[&str])]) {
    let original = read(&repository().join("tests/cli/field").join(file));
    for (old, new, expected) in changes {
        assert!(original.contains(old), "{file} has no {old}");
        let manifests = original.replacen(old, new, 1);
        assert_eq!(findings(&manifests), *expected, "{old} -> {new}");
    }
}

#[test]
fn the_proxy_protocol_of_the_pods_is_that_of_the_plugin_that_selects_them() {
    let forged: &[&str] = &["error configuration peerAddress"];
    changed(
        "63-proxy-protocol-by-annotation.yaml",
        &[
            (
                "matchLabels: {istio: ingress-nlb}}\n  template",
                "matchLabels: {istio: ingress-nlb}}\n  template",
                forged,
            ),
            (
                r#""proxyProtocol": {}, "#,
                "",
                &["warning configuration peerAddress"],
            ),
            (
                "labels: {istio: ingress-nlb}\n      annotations",
                "labels: {istio: other}\n      annotations",
                &[],
            ),
            (
                "name: istio-ingress-nlb, namespace: istio-ingress",
                "name: istio-ingress-nlb, namespace: other",
                &[],
            ),
            (
                ", match: {ipBlocks: [10.0.12.0/24]}",
                ", match: {clientCertificate: {uriSans: [\"spiffe://edge\"]}}",
                &[],
            ),
        ],
    );
    let mesh = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    \
                defaultConfig: {gatewayTopology: {proxyProtocol: {}}}\n";
    let plugin = read(&repository().join("tests/cli/field/63-proxy-protocol-by-annotation.yaml"));
    let (_, plugin) = plugin.split_once("---\n").expect("two documents");
    assert_eq!(findings(plugin), [""; 0]);
    assert_eq!(findings(&format!("{plugin}{mesh}")), forged);
}

#[test]
fn a_client_address_from_a_header_leaves_envoy_gateways_plugin_without_trust_and_open_if_it_fails_open()
 {
    let untrusted = "warning configuration peerAddress";
    changed(
        "68-envoy-gateway-client-ip.yaml",
        &[
            (
                "failOpen: true",
                "failOpen: true",
                &["error open-without-filter", untrusted],
            ),
            ("failOpen: true", "failOpen: false", &[untrusted]),
            (
                "clientIPDetection: {xForwardedFor: {numTrustedHops: 1}}",
                "timeout: {}",
                &[],
            ),
            (
                "metadata: {name: public, namespace: edge}",
                "metadata: {name: public, namespace: other}",
                &[],
            ),
        ],
    );
}

#[test]
fn two_plugins_on_one_workload_are_named() {
    let plugin = |name: &str, label: &str| {
        format!(
            "---\napiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: {name}, namespace: edge}}\nspec:\n  \
             selector: {{matchLabels: {{istio: {label}}}}}\n  url: oci://registry.example.com/trusted-lb:1\n  phase: AUTHN\n  \
             pluginConfig: {{trustedLoadBalancers: [{{name: a, match: {{ipBlocks: [10.0.12.0/24]}}, forwardedProto: {{default: https}}}}]}}\n"
        )
    };
    let one = plugin("one", "ingress");
    assert_eq!(
        findings(&[one.clone(), plugin("two", "ingress")].concat()),
        ["warning several-plugins"]
    );
    assert_eq!(
        findings(&[one.clone(), plugin("two", "other")].concat()),
        [""; 0]
    );
    assert_eq!(findings(&[one.clone(), one].concat()), [""; 0]);
}

#[test]
fn a_port_that_no_listener_has_in_its_container_is_named() {
    let never = "warning port-without-listener";
    changed(
        "67-envoy-gateway-nlb-ports.yaml",
        &[
            ("ports: [443]", "ports: [443]", &[never]),
            ("ports: [443]", "ports: [10443]", &[]),
            ("ports: [443]", "ports: [10443, 8080]", &[never]),
            (
                "metadata: {name: public, namespace: edge}",
                "metadata: {name: other, namespace: edge}",
                &[],
            ),
        ],
    );
}
