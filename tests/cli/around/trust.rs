//! The connection managers around a plugin, from wherever their settings come.

use super::findings;
use testkit::artifacts::repository;

use crate::command::{read, run, text};

fn plugin(selection: &str, peer_address: &str) -> String {
    format!(
        "---\napiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: trusted-lb, namespace: edge}}\nspec:\n  \
         {selection}\n  url: oci://registry.example.com/trusted-lb:1\n  phase: AUTHN\n  pluginConfig:\n    peerAddress: {peer_address}\n    \
         trustedLoadBalancers: [{{name: a, match: {{ipBlocks: [10.0.12.0/24]}}, forwardedProto: {{default: https}}}}]\n"
    )
}

const SELECTOR: &str = "selector: {matchLabels: {istio: ingress}}";
const TARGET: &str =
    "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: public}]";

fn deployment(annotation: &str) -> String {
    format!(
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: gateway, namespace: edge}}\nspec:\n  \
         selector: {{matchLabels: {{istio: ingress}}}}\n  template:\n    metadata:\n      labels: {{istio: ingress, app: gateway}}\n      \
         annotations: {{proxy.istio.io/config: '{annotation}'}}\n    spec: {{containers: [{{name: istio-proxy, image: auto}}]}}\n"
    )
}

fn gateway(fields: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: public, namespace: edge}}\nspec:\n  \
         gatewayClassName: istio\n  listeners: [{{name: http, port: 80, protocol: HTTP}}]\n  {fields}\n"
    )
}

/// An EnvoyFilter with one patch.
fn envoy_filter(namespace: &str, labels: &str, patch: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: f, namespace: {namespace}}}\nspec:\n  \
         workloadSelector: {{labels: {labels}}}\n  configPatches:\n  - {patch}\n"
    )
}

fn manager(fields: &str) -> String {
    format!(
        "{{applyTo: NETWORK_FILTER, match: {{context: GATEWAY}}, patch: {{operation: MERGE, value: {{typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, {fields}}}}}}}}}"
    )
}

const PROXY_PROTOCOL: &str = "{applyTo: LISTENER_FILTER, match: {context: GATEWAY}, patch: {operation: INSERT_FIRST, value: {name: \
    envoy.filters.listener.proxy_protocol, typed_config: {\"@type\": \
    type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol}}}}";

/// envoyfilter/direct-peer.yaml for the gateway of these tests.
fn direct_peer() -> String {
    let file = read(&repository().join("envoyfilter/direct-peer.yaml"));
    let file = file.replace("namespace: istio-ingress", "namespace: edge");
    format!(
        "---\n{}",
        file.replace("istio: ingressgateway", "istio: ingress")
    )
}

const FORGED: &str = "error configuration peerAddress";
const NOBODY: &str = "warning configuration peerAddress";

#[test]
fn a_patch_of_the_connection_manager_is_that_of_the_plugins_on_the_same_workload() {
    let hops = manager("xff_num_trusted_hops: 1");
    let auto = plugin(SELECTOR, "auto");
    let with = |filter: &str| findings(&format!("{auto}{filter}"));
    assert_eq!(with(""), [""; 0]);
    for (namespace, labels, expected) in [
        ("edge", "{istio: ingress}", &[NOBODY][..]),
        ("edge", "{}", &[NOBODY]),
        ("edge", "{istio: ingress, app: gateway}", &[NOBODY]),
        // Istio's root namespace is for the whole mesh.
        ("istio-system", "{istio: ingress}", &[NOBODY]),
        ("edge", "{istio: other}", &[]),
        ("other", "{istio: ingress}", &[]),
    ] {
        let filter = envoy_filter(namespace, labels, &hops);
        assert_eq!(with(&filter), expected, "{namespace} {labels}");
    }
    // Two selectors with other labels meet on the pods that have both.
    let app = envoy_filter("edge", "{app: gateway}", &hops);
    assert_eq!(with(&app), [""; 0]);
    assert_eq!(with(&format!("{app}{}", deployment("{}"))), [NOBODY]);
    let forged = envoy_filter("edge", "{istio: ingress}", PROXY_PROTOCOL);
    assert_eq!(with(&forged), [FORGED]);
    let sidecar = forged.replace("context: GATEWAY", "context: SIDECAR_INBOUND");
    assert_eq!(with(&sidecar), [""; 0]);
    // Both together are said once each.
    assert_eq!(
        with(&format!("{forged}{}", forged.replace("name: f", "name: g"))),
        [FORGED]
    );
}

#[test]
fn envoys_own_writing_of_the_scheme_is_named_beside_rules() {
    let filter = envoy_filter(
        "edge",
        "{istio: ingress}",
        &manager("scheme_header_transformation: {scheme_to_overwrite: https}"),
    );
    let auto = plugin(SELECTOR, "auto");
    assert_eq!(
        findings(&format!("{auto}{filter}")),
        ["warning configuration trustedLoadBalancers"]
    );
    let defaults = auto.split("    peerAddress").next().expect("a plugin");
    assert_eq!(
        findings(&format!(
            "{defaults}    defaults: {{timeout: 15s}}\n{filter}"
        )),
        [""; 0]
    );
}

/// An Envoy configuration whose plugin trusts somebody: with these fields of its manager, this cluster and this scheme rule.
fn routed_to(manager: &str, cluster: &str, rewrite: &str) -> String {
    format!(
        "static_resources:
  listeners:
  - name: l
    filter_chains:
    - filters:
      - name: m
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          use_remote_address: true
{manager}
          route_config:
            virtual_hosts:
            - routes: [{{route: {{weighted_clusters: {{clusters: [{{name: other, weight: 1}}, {{name: app, weight: 1}}]}}}}}}]
          http_filters:
          - name: trusted-lb
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                configuration:
                  '@type': type.googleapis.com/google.protobuf.StringValue
                  value: |
                    {{\"trustedLoadBalancers\": [{{\"name\": \"lb\", \"match\": {{\"ipBlocks\": [\"10.0.12.0/24\"]}},
                      \"forwardedProto\": {{\"default\": \"https\"}}}}], \"rewriteScheme\": \"{rewrite}\"}}
  clusters:
  - name: other
  - name: app
{cluster}
"
    )
}

#[test]
fn an_upstream_that_is_sent_http2_without_tls_may_refuse_https() {
    let http2 = "    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicitHttpConfig: {http2ProtocolOptions: {}}";
    let old = "    http2_protocol_options: {}";
    let tls = "    transport_socket: {name: tls}";
    let warned = |manager: &str, cluster: &str, rewrite: &str| {
        let found = findings(&routed_to(manager, cluster, rewrite));
        match found.as_slice() {
            [] => false,
            [one] if one == "warning configuration rewriteScheme" => true,
            other => panic!("{other:?}"),
        }
    };
    assert!(warned("", http2, "auto"));
    assert!(warned("", old, "always"));
    // It has TLS, speaks HTTP/1, or isn't routed to.
    assert!(!warned("", &format!("{http2}\n{tls}"), "auto"));
    assert!(!warned("", "", "auto"));
    assert!(!warned("", &format!("  - name: xds\n{http2}"), "auto"));
    // The router or the configuration sees to it.
    let matched = "          scheme_header_transformation: {match_upstream: true}";
    assert!(!warned(matched, http2, "auto"));
    assert!(!warned("", http2, "never"));
}

#[test]
fn the_filter_state_needs_its_network_filter_on_the_same_workload() {
    let state = plugin(SELECTOR, "filterState");
    let with = |rest: &str| findings(&format!("{state}{rest}"));
    // A plugin alone doesn't tell what else there is.
    assert_eq!(with(""), [""; 0]);
    let pods = deployment("{\"gatewayTopology\": {\"proxyProtocol\": {}}}");
    assert_eq!(with(&pods), [NOBODY]);
    let filter = direct_peer();
    assert_eq!(with(&format!("{pods}{filter}")), [""; 0]);
    for (old, new, expected) in [
        ("namespace: edge", "namespace: other", NOBODY),
        ("trusted_lb.peer", "other.peer", NOBODY),
        ("envoy.string", "envoy.other", NOBODY),
        ("_WITHOUT_PORT", "", NOBODY),
        // Behind the PROXY protocol this is what its header claims.
        ("DIRECT_REMOTE", "REMOTE", FORGED),
    ] {
        let filter = filter.replacen(old, new, 1);
        assert_eq!(with(&format!("{pods}{filter}")), [expected], "{old}");
    }
    let without = filter.replacen("DIRECT_REMOTE", "REMOTE", 1);
    assert_eq!(with(&format!("{}{without}", deployment("{}"))), [""; 0]);
    let other = plugin(SELECTOR, "filterState:own.key");
    assert_eq!(findings(&format!("{other}{pods}{filter}")), [NOBODY]);
}

#[test]
fn the_network_filter_is_missed_in_a_configuration_of_envoys_own() {
    let envoy = |filters: &str| {
        format!(
            "static_resources:\n  listeners:\n  - address: {{socket_address: {{address: 0.0.0.0, port_value: 8080}}}}\n    filter_chains:\n    - filters:\n{filters}      \
             - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \"@type\": \
             type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
             use_remote_address: true\n          http_filters:\n          - name: trusted-lb\n            typed_config:\n              \
             \"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm\n              config:\n                \
             vm_config: {{code: {{local: {{filename: /trusted_lb.wasm}}}}}}\n                configuration: {{\"@type\": \
             type.googleapis.com/google.protobuf.StringValue, value: '{{\"peerAddress\": \"filterState\", \"trustedLoadBalancers\": \
             [{{\"name\": \"a\", \"match\": {{\"ipBlocks\": [\"10.0.12.0/24\"]}}, \"forwardedProto\": {{\"default\": \"https\"}}}}]}}'}}\n"
        )
    };
    assert_eq!(findings(&envoy("")), [FORGED]);
    let filter = read(&repository().join("envoyfilter/direct-peer.yaml"));
    let (_, filter) = filter.split_once("      value:\n").expect("a value");
    let mut lines = String::new();
    for (index, line) in filter.lines().enumerate() {
        let dash = if index == 0 { "      - " } else { "        " };
        lines.push_str(dash);
        lines.push_str(line.strip_prefix("        ").expect("a line of it"));
        lines.push('\n');
    }
    assert_eq!(findings(&envoy(&lines)), [""; 0]);
}

#[test]
fn pods_of_a_gateway_that_istio_deploys_have_its_annotations() {
    let auto = plugin(TARGET, "auto");
    let annotations = "infrastructure: {annotations: {proxy.istio.io/config: '{\"gatewayTopology\": {\"proxyProtocol\": {}}}'}}";
    assert_eq!(
        findings(&format!("{auto}{}", gateway(annotations))),
        [FORGED]
    );
    assert_eq!(findings(&format!("{auto}{}", gateway(""))), [""; 0]);
    let other = gateway(annotations).replace("name: public", "name: other");
    assert_eq!(findings(&format!("{auto}{other}")), [""; 0]);
}

#[test]
fn a_proxy_config_has_no_topology_and_is_read_as_it_is_meant() {
    let auto = plugin(SELECTOR, "auto");
    let config = |fields: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: {{name: p, namespace: edge}}\nspec:\n  \
             selector: {{matchLabels: {{istio: ingress}}}}\n  {fields}\n"
        )
    };
    assert_eq!(
        findings(&format!(
            "{auto}{}",
            config("gatewayTopology: {proxyProtocol: {}}")
        )),
        ["error unknown-field", FORGED]
    );
    assert_eq!(
        findings(&format!("{auto}{}", config("concurrency: 2"))),
        [""; 0]
    );
}

#[test]
fn istios_operator_says_what_its_gateways_and_its_mesh_have() {
    let auto = plugin("selector: {matchLabels: {istio: ingressgateway}}", "auto")
        .replace("namespace: edge", "namespace: istio-system");
    let operator = |fields: &str| {
        format!(
            "---\napiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nmetadata: {{name: o, namespace: istio-system}}\nspec:\n  {fields}\n"
        )
    };
    let topology = "'{\"gatewayTopology\": {\"proxyProtocol\": {}}}'";
    for (fields, expected) in [
        (
            "meshConfig: {defaultConfig: {gatewayTopology: {proxyProtocol: {}}}}".to_owned(),
            &[FORGED][..],
        ),
        (
            "meshConfig: {defaultConfig: {concurrency: 2}}".to_owned(),
            &[],
        ),
        (
            format!(
                "components: {{ingressGateways: [{{name: i, k8s: {{podAnnotations: {{proxy.istio.io/config: {topology}}}}}}}]}}"
            ),
            &[FORGED],
        ),
        (
            format!(
                "components: {{ingressGateways: [{{name: i, label: {{istio: other}}, k8s: {{podAnnotations: {{proxy.istio.io/config: {topology}}}}}}}]}}"
            ),
            &[],
        ),
    ] {
        assert_eq!(
            findings(&format!("{auto}{}", operator(&fields))),
            expected,
            "{fields}"
        );
    }
}

#[test]
fn early_request_headers_and_patches_of_envoy_gateways_make_the_peer_right() {
    let policy = |peer: &str| {
        format!(
            "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyExtensionPolicy\nmetadata: {{name: trusted-lb, namespace: edge}}\nspec:\n  \
             {TARGET}\n  wasm:\n  - name: trusted-lb\n    code: {{type: Image, image: {{url: \"registry.example.com/trusted-lb:1\"}}}}\n    \
             config:\n      peerAddress: {peer}\n      trustedLoadBalancers: [{{name: a, match: {{ipBlocks: [10.0.12.0/24]}}, forwardedProto: {{default: https}}}}]\n"
        )
    };
    let client = |fields: &str| {
        format!(
            "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: ClientTrafficPolicy\nmetadata: {{name: c, namespace: edge}}\nspec:\n  {TARGET}\n  {fields}\n"
        )
    };
    let detects = client("clientIPDetection: {xForwardedFor: {numTrustedHops: 1}}");
    let appends = policy("forwardedFor");
    assert_eq!(findings(&format!("{appends}{detects}")), [""; 0]);
    let custom = client("clientIPDetection: {customHeader: {name: x-real-ip}}");
    assert_eq!(findings(&format!("{appends}{custom}")), [FORGED]);
    let gateway = gateway("").replace("gatewayClassName: istio", "gatewayClassName: eg");
    let state = policy("filterState");
    assert_eq!(findings(&format!("{state}{gateway}")), [NOBODY]);
    assert_eq!(findings(&state), [""; 0]);
    let patch = "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyPatchPolicy\nmetadata: {name: p, namespace: edge}\nspec:\n  \
         targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: public}\n  type: JSONPatch\n  jsonPatches:\n  - type: \
         type.googleapis.com/envoy.config.listener.v3.Listener\n    name: edge/public/http\n    operation:\n      op: add\n      path: \
         /default_filter_chain/filters/0\n      value:\n        name: direct-peer\n        typed_config:\n          \"@type\": \
         type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config\n          on_new_connection: [{object_key: \
         trusted_lb.peer, factory_key: envoy.string, format_string: {text_format_source: {inline_string: \
         \"%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%\"}}}]\n";
    assert_eq!(findings(&format!("{state}{gateway}{patch}")), [""; 0]);
    let elsewhere = patch.replace("name: public", "name: other");
    assert_eq!(findings(&format!("{state}{gateway}{elsewhere}")), [NOBODY]);
}

#[test]
fn render_writes_the_network_filter_that_the_filter_state_needs() {
    let configuration = String::from(
        "peerAddress: filterState:own.key\ntrustedLoadBalancers: [{name: a, match: {ipBlocks: [10.0.12.0/24]}, forwardedProto: {default: https}}]\n",
    );
    let patches = |manifest: &str| -> serde_json::Value {
        let manifest: serde_json::Value = serde_saphyr::from_str(manifest).expect("it is YAML");
        manifest["spec"]["configPatches"].clone()
    };
    let by_hand = read(&repository().join("envoyfilter/direct-peer.yaml"));
    let by_hand = patches(&by_hand.replace("trusted_lb.peer", "own.key"));
    for (target, options) in [
        ("wasmplugin", &["--selector", "istio=ingress"][..]),
        ("trafficextension", &["--selector", "istio=ingress"]),
        ("envoyfilter", &["--selector", "istio=ingress"]),
        ("wasmplugin", &["--target-ref", "public"]),
    ] {
        let render = [&["render", target, "-", "--namespace", "edge"][..], options].concat();
        let output = run(&render, &configuration);
        let rendered = text(&output);
        let (_, filter) = rendered.split_once("---\n").expect("two documents");
        assert_eq!(patches(filter), by_hand, "{target}");
        let around = format!("---\n{}{}", deployment("{}"), gateway(""));
        assert_eq!(
            findings(&format!("{rendered}{around}")),
            [""; 0],
            "{target}"
        );
    }
    let auto = run(
        &["render", "wasmplugin", "-"],
        &configuration.replace("filterState:own.key", "auto"),
    );
    assert!(!text(&auto).contains("EnvoyFilter"));
}
