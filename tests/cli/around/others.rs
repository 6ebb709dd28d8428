//! What runs on the same workload beside a plugin: policies, authorization, Lua, other plugins; ports of Services.

use super::findings;

fn plugin(name: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: {name}, namespace: edge}}\nspec:\n  \
         selector: {{matchLabels: {{istio: ingress}}}}\n  url: oci://registry.example.com/trusted-lb:1\n  {fields}\n"
    )
}

const RULES: &str = "trustedLoadBalancers: [{name: a, match: {ipBlocks: [10.0.12.0/24]}, forwardedProto: {default: https}}]";

fn usual(name: &str, more: &str) -> String {
    plugin(
        name,
        &format!("phase: AUTHN\n  {more}\n  pluginConfig: {{{RULES}}}"),
    )
}

#[test]
fn plugins_on_other_ports_or_in_shadow_mode_are_not_two_on_one_workload() {
    let several = "warning several-plugins";
    let port = |port: u16| format!("match: [{{ports: [{{number: {port}}}]}}]");
    let pair =
        |one: &str, other: &str| findings(&format!("{}{}", usual("one", one), usual("two", other)));
    assert_eq!(pair("", ""), [several]);
    assert_eq!(pair(&port(80), &port(443)), [""; 0]);
    assert_eq!(pair(&port(80), &port(80)), [several]);
    assert_eq!(pair(&port(80), ""), [several]);
    let shadow = plugin(
        "two",
        &format!("phase: AUTHN\n  pluginConfig: {{mode: shadow, {RULES}}}"),
    );
    assert_eq!(findings(&format!("{}{shadow}", usual("one", ""))), [""; 0]);
    // Three are two findings, not three.
    let three = [usual("one", ""), usual("two", ""), usual("three", "")].concat();
    assert_eq!(findings(&three), [several, several]);
}

fn authorization(action: &str, key: &str, labels: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: edge}}\nspec:\n  \
         selector: {{matchLabels: {{istio: {labels}}}}}\n  action: {action}\n  rules:\n  - when: [{{key: \"{key}\", values: [https]}}]\n"
    )
}

#[test]
fn authorization_that_looks_at_the_scheme_before_the_plugin_is_named() {
    let sees = "warning sees-uncorrected-scheme";
    let header = "request.headers[X-Forwarded-Proto]";
    let first = usual("a", "");
    let late = plugin("a", &format!("phase: STATS\n  pluginConfig: {{{RULES}}}"));
    for (plugin, action, key, labels, expected) in [
        (&late, "DENY", header, "ingress", &[sees][..]),
        (&late, "DENY", header, "other", &[]),
        (&late, "DENY", "request.headers[x-user]", "ingress", &[]),
        (&first, "DENY", header, "ingress", &[]),
        (&first, "CUSTOM", header, "ingress", &[sees]),
        (&first, "CUSTOM", "request.headers[x-user]", "ingress", &[]),
    ] {
        let policy = authorization(action, key, labels);
        assert_eq!(
            findings(&format!("{plugin}{policy}")),
            expected,
            "{action} {key} {labels}"
        );
    }
}

#[test]
fn a_script_left_in_place_that_writes_the_scheme_is_named() {
    let left = "warning lua-left-in-place";
    let filter = |labels: &str, call: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: lua, namespace: edge}}\nspec:\n  \
             workloadSelector: {{labels: {{istio: {labels}}}}}\n  configPatches:\n  - applyTo: HTTP_FILTER\n    match: {{context: GATEWAY}}\n    \
             patch:\n      operation: INSERT_BEFORE\n      value:\n        name: lua\n        typed_config:\n          \"@type\": \
             type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua\n          inline_code: |\n            function envoy_on_request(handle)\n              \
             {call}\n            end\n"
        )
    };
    let writes = "handle:headers():replace(\"x-forwarded-proto\", \"https\")";
    let usual = usual("a", "");
    for (labels, call, expected) in [
        ("ingress", writes, &[left][..]),
        (
            "ingress",
            "handle:headers():add(\"X-Forwarded-Proto\", \"https\")",
            &[left],
        ),
        (
            "ingress",
            "handle:headers():add(\"x-forwarded-\" .. \"proto\", \"https\")",
            &[left],
        ),
        ("other", writes, &[]),
        (
            "ingress",
            "-- handle:headers():replace(\"x-forwarded-proto\", \"https\")",
            &[],
        ),
        (
            "ingress",
            "handle:logInfo(handle:headers():get(\"x-forwarded-proto\"))",
            &[],
        ),
        (
            "ingress",
            "handle:headers():replace(\"x-other\", \"x-forwarded-proto\")",
            &[],
        ),
    ] {
        assert_eq!(
            findings(&format!("{usual}{}", filter(labels, call))),
            expected,
            "{labels} {call}"
        );
    }
    // In shadow mode the plugin writes nothing, and without rules it leaves the scheme alone.
    let script = filter("ingress", writes);
    for fields in ["mode: shadow, ", ""] {
        let rules = if fields.is_empty() {
            "defaults: {timeout: 5s}"
        } else {
            RULES
        };
        let quiet = plugin(
            "a",
            &format!("phase: AUTHN\n  pluginConfig: {{{fields}{rules}}}"),
        );
        assert_eq!(findings(&format!("{quiet}{script}")), [""; 0], "{fields}");
    }
    let old = filter("ingress", writes)
        .replace(
            "inline_code: |",
            "default_source_code:\n            inline_string: |",
        )
        .replace("            function", "              function")
        .replace("              handle", "                handle")
        .replace("            end", "              end");
    assert_eq!(findings(&format!("{usual}{old}")), [left]);
}

const TARGET: &str = "{group: gateway.networking.k8s.io, kind: Gateway, name: public}";

fn policy(kind: &str, target: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: {kind}\nmetadata: {{name: other, namespace: edge}}\nspec:\n  \
         targetRefs: [{target}]\n  {fields}\n"
    )
}

fn envoy_gateway() -> String {
    let plugin = policy(
        "EnvoyExtensionPolicy",
        TARGET,
        &format!(
            "wasm: [{{name: trusted-lb, code: {{type: Image, image: {{url: \"registry.example.com/trusted-lb:1\"}}}}, config: {{{RULES}}}}}]"
        ),
    );
    format!(
        "{}---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: shop, namespace: edge}}\nspec:\n  parentRefs: [{{name: public}}]\n",
        plugin.replace("name: other", "name: trusted-lb")
    )
}

#[test]
fn policies_that_stand_in_for_the_plugins_are_named() {
    let replaced = "error replaced-by-policy";
    let ours = envoy_gateway();
    let route = "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: shop}";
    let lua = "lua: [{type: Inline, inline: \"function envoy_on_response(h) end\"}]";
    for (target, fields, expected) in [
        (route.to_owned(), lua.to_owned(), &[replaced][..]),
        (
            route.to_owned(),
            format!("mergeType: StrategicMerge\n  {lua}"),
            &[],
        ),
        (route.replace("shop", "unknown"), lua.to_owned(), &[]),
        (TARGET.to_owned(), lua.to_owned(), &[replaced]),
        (TARGET.replace("public", "inner"), lua.to_owned(), &[]),
        (
            TARGET.replace("name: public", "name: public, sectionName: https"),
            lua.to_owned(),
            &[replaced],
        ),
    ] {
        let other = policy("EnvoyExtensionPolicy", &target, &fields);
        assert_eq!(
            findings(&format!("{ours}{other}")),
            expected,
            "{target} {fields}"
        );
    }
}

#[test]
fn openid_connect_that_builds_its_address_from_the_scheme_is_named() {
    let sees = "warning sees-uncorrected-scheme";
    let ours = envoy_gateway();
    let order = "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyProxy\nmetadata: {name: p, namespace: edge}\nspec:\n  \
                 filterOrder: [{name: envoy.filters.http.wasm, before: envoy.filters.http.oauth2}]\n";
    for (target, oidc, more, expected) in [
        (TARGET, "oidc: {clientID: x}", "", &[sees][..]),
        (TARGET, "oidc: {clientID: x}", order, &[]),
        (
            TARGET,
            "oidc: {redirectURL: \"https://shop.example.com/oauth2/callback\"}",
            "",
            &[],
        ),
        (
            TARGET,
            "oidc: {redirectURL: \"%REQ(x-forwarded-proto)%://shop.example.com/oauth2/callback\"}",
            "",
            &[sees],
        ),
        (TARGET, "jwt: {providers: []}", "", &[]),
        (
            "{kind: HTTPRoute, name: shop}",
            "oidc: {clientID: x}",
            "",
            &[sees],
        ),
        (
            "{kind: HTTPRoute, name: unknown}",
            "oidc: {clientID: x}",
            "",
            &[],
        ),
    ] {
        let other = policy("SecurityPolicy", target, oidc);
        assert_eq!(
            findings(&format!("{ours}{other}{more}")),
            expected,
            "{target} {oidc}"
        );
    }
}

#[test]
fn a_port_of_the_service_is_not_the_containers() {
    let never = "warning port-without-listener";
    let pods = "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: g, namespace: edge}\nspec:\n  template:\n    \
                metadata: {labels: {istio: ingress}}\n    spec: {containers: [{name: p, ports: [{name: tls, containerPort: 8443}]}]}\n";
    let service = |target: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: g, namespace: edge}}\nspec:\n  selector: {{istio: ingress}}\n  \
             ports: [{{name: https, port: 443{target}}}]\n"
        )
    };
    let plugin = |port: u16| {
        usual("a", "").replace("10.0.12.0/24]", &format!("10.0.12.0/24], ports: [{port}]"))
    };
    for (port, target, expected) in [
        (443, ", targetPort: 8443", &[never][..]),
        (8443, ", targetPort: 8443", &[]),
        (8443, ", targetPort: tls", &[]),
        (443, ", targetPort: tls", &[never]),
        // What isn't known isn't said.
        (443, ", targetPort: unknown", &[]),
        (443, "", &[]),
    ] {
        assert_eq!(
            findings(&format!("{}{pods}{}", plugin(port), service(target))),
            expected,
            "{port} {target}"
        );
        // The plugin's own ports are the same ones.
        let own = usual("a", &format!("match: [{{ports: [{{number: {port}}}]}}]"));
        let manifests = format!("{own}{pods}{}", service(target));
        assert_eq!(findings(&manifests), expected, "{port} {target}");
        let filter = format!(
            "---\napiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: f, namespace: edge}}\nspec:\n  \
             workloadSelector: {{labels: {{istio: ingress}}}}\n  configPatches:\n  - applyTo: HTTP_FILTER\n    \
             match: {{context: GATEWAY, listener: {{portNumber: {port}}}}}\n    patch:\n      operation: INSERT_FIRST\n      value:\n        \
             name: trusted-lb\n        typed_config:\n          \"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm\n          \
             config:\n            vm_config: {{runtime: envoy.wasm.runtime.v8, code: {{local: {{filename: /trusted_lb.wasm}}}}}}\n            \
             configuration:\n              \"@type\": type.googleapis.com/google.protobuf.StringValue\n              \
             value: '{{\"defaults\": {{\"timeout\": \"5s\"}}}}'\n"
        );
        let manifests = format!("{filter}{pods}{}", service(target));
        assert_eq!(findings(&manifests), expected, "{port} {target}");
    }
    assert_eq!(findings(&format!("{}{pods}", plugin(443))), [""; 0]);
    // Istio deploys no pods for a Gateway with addresses: the Service is somebody's own.
    let gateway = |spec: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: public, namespace: edge}}\nspec:\n  \
             gatewayClassName: istio\n  {spec}listeners: [{{name: http, port: 80, protocol: HTTP}}]\n"
        )
    };
    let of_gateway = |port: u16| {
        plugin(port).replace(
            "selector: {matchLabels: {istio: ingress}}",
            "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: public}]",
        )
    };
    let pods = pods.replace(
        "istio: ingress",
        "gateway.networking.k8s.io/gateway-name: public",
    );
    let own = "addresses: [{type: Hostname, value: g.edge.svc.cluster.local}]\n  ";
    for (port, spec, expected) in [
        (80, "", &[][..]),
        (8080, "", &[never]),
        (80, own, &[]),
        (8080, own, &[]),
    ] {
        let manifests = [of_gateway(port), pods.clone(), gateway(spec)].concat();
        assert_eq!(findings(&manifests), expected, "{port} {spec}");
    }
}
