//! What routes do with the scheme: redirects that loop, and routes that write x-forwarded-proto themselves.

use super::{changed, findings};

const LOOPS: &[&str] = &["error redirect-loops"];
const OVERWRITTEN: &str = "warning scheme-written-elsewhere";

/// A plugin on pods with the label `istio: ingress`, and what its configuration has beside its rule.
fn plugin(more: &str) -> String {
    format!(
        "---\napiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: trusted-lb, namespace: edge}}\nspec:\n  \
         selector: {{matchLabels: {{istio: ingress}}}}\n  url: oci://registry.example.com/trusted-lb:1\n  phase: AUTHN\n  pluginConfig:\n    \
         {more}trustedLoadBalancers: [{{name: a, match: {{ipBlocks: [10.0.12.0/24]}}, forwardedProto: {{default: https}}}}]\n"
    )
}

/// A Gateway of Istio's.
fn gateway(name: &str, label: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: edge}}\nspec:\n  \
         selector: {{istio: {label}}}\n  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ['*']}}]\n"
    )
}

/// A `VirtualService` in the namespace `shop`.
fn service(name: &str, gateways: &str, http: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         hosts: [shop.example.com]\n  gateways: [{gateways}]\n  http: [{http}]\n"
    )
}

/// An `HTTPRoute` of the same namespace as the plugin.
fn route(rules: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: shop, namespace: edge}}\nspec:\n  \
         parentRefs: [{{name: public}}]\n  rules: [{rules}]\n"
    )
}

#[test]
fn an_unconditional_redirect_to_https_loops_and_one_for_plain_requests_does_not() {
    let rule = "  - filters: [{type: RequestRedirect";
    let only = |header: &str| {
        format!(
            "  - matches: [{{headers: [{{name: {header}, value: http}}]}}]\n    filters: [{{type: RequestRedirect"
        )
    };
    changed(
        "64-httproute-redirect.yaml",
        &[
            (rule, rule, LOOPS),
            (rule, &only("X-Forwarded-Proto"), &[]),
            (rule, &only("x-other"), LOOPS),
            (
                "scheme: https, ",
                "scheme: https, hostname: www.example.com, ",
                &[],
            ),
            ("scheme: https, ", "scheme: https, port: 443, ", LOOPS),
            ("scheme: https, ", "scheme: https, port: 8443, ", &[]),
            (
                "scheme: https, ",
                "scheme: https, path: {type: ReplaceFullPath, replaceFullPath: /new}, ",
                &[],
            ),
            ("scheme: https, ", "", &[]),
            (
                "parentRefs: [{name: public,",
                "parentRefs: [{name: inner,",
                &[],
            ),
            (
                "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: public}]",
                "selector: {matchLabels: {a: b}}",
                LOOPS,
            ),
        ],
    );
}

#[test]
fn a_redirect_beside_a_rule_for_what_came_as_https_does_not_loop() {
    let redirect = "{filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]}";
    let serves = |value: &str| {
        format!(
            "{{matches: [{{headers: [{{name: {value}, value: https}}]}}], backendRefs: [{{name: shop, port: 80}}]}}"
        )
    };
    let with = |other: &str| findings(&(plugin("") + &route(&format!("{other}, {redirect}"))));
    assert_eq!(with(&serves("x-forwarded-proto")), [""; 0]);
    assert_eq!(with(&serves("x-other")), LOOPS);
    // The load balancer may send what came as https to another listener.
    let on_plain = (plugin("") + &route(redirect))
        .replace("{name: public}", "{name: public, sectionName: http}");
    assert_eq!(findings(&on_plain), LOOPS);
    let listeners = |listeners: &str| {
        format!(
            "{on_plain}---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: public, namespace: edge}}\nspec:\n  \
             gatewayClassName: istio\n  listeners: [{listeners}]\n"
        )
    };
    let http = "{name: http, port: 80, protocol: HTTP}";
    assert_eq!(findings(&listeners(http)), LOOPS);
    let two = listeners(&format!(
        "{http}, {{name: from-tls, port: 8443, protocol: HTTP}}"
    ));
    assert_eq!(findings(&two), [""; 0]);
}

#[test]
fn a_virtual_service_that_redirects_everything_to_https_loops() {
    let redirect = "redirect: {scheme: https}";
    let serves = "route: [{destination: {host: shop}}]";
    let gateways = gateway("public", "ingress") + &gateway("inner", "other");
    let of = |http: &str| {
        let service = service("shop", "edge/public", http);
        findings(&[plugin(""), gateways.clone(), service].concat())
    };
    assert_eq!(of(&format!("{{{redirect}}}")), LOOPS);
    assert_eq!(of("{redirect: {scheme: https, port: 443}}"), LOOPS);
    assert_eq!(of("{redirect: {scheme: https, port: 8443}}"), [""; 0]);
    assert_eq!(of("{redirect: {scheme: https, uri: /new}}"), [""; 0]);
    assert_eq!(
        of("{redirect: {scheme: https, authority: www.example.com}}"),
        [""; 0]
    );
    assert_eq!(of("{redirect: {uri: /new}}"), [""; 0]);
    for (matches, expected) in [
        ("{uri: {prefix: /a}}", LOOPS),
        ("{headers: {X-Forwarded-Proto: {exact: http}}}", &[]),
        ("{withoutHeaders: {x-forwarded-proto: {exact: https}}}", &[]),
        ("{scheme: {exact: http}}", &[]),
        ("{port: 80}", &[]),
        ("{gateways: [edge/public]}", &[]),
        ("{headers: {x-other: {exact: http}}}", LOOPS),
        ("{port: 80}, {uri: {prefix: /a}}", LOOPS),
    ] {
        let conditional = format!("{{match: [{matches}], {redirect}}}, {{{serves}}}");
        assert_eq!(of(&conditional), expected, "{matches}");
    }
    // Envoy takes the first route that matches.
    let https_first = format!(
        "{{match: [{{headers: {{x-forwarded-proto: {{exact: https}}}}}}], {serves}}}, {{{redirect}}}"
    );
    assert_eq!(of(&https_first), [""; 0]);
    let plain_first = format!(
        "{{match: [{{headers: {{x-forwarded-proto: {{exact: http}}}}}}], {redirect}}}, {{{redirect}}}"
    );
    assert_eq!(of(&plain_first), LOOPS);
    // Another one has the same host on the Gateway to which the load balancer sends what came as https.
    let plain = service("plain", "edge/public", &format!("{{{redirect}}}"));
    let other =
        gateway("https", "ingress") + &service("https", "edge/https", &format!("{{{serves}}}"));
    let pair = [plugin(""), gateways.clone(), plain.clone(), other.clone()].concat();
    assert_eq!(findings(&pair), [""; 0]);
    let of_other_host = pair.replacen("hosts: [shop.example.com]", "hosts: [other.example.com]", 1);
    assert_eq!(findings(&of_other_host), LOOPS);
}

#[test]
fn a_virtual_service_is_behind_the_plugin_of_its_gateways_pods() {
    let of = |gateways: &str| service("shop", gateways, "{redirect: {scheme: https}}");
    let all = plugin("") + &gateway("public", "ingress") + &gateway("inner", "other");
    for (gateways, expected) in [
        ("edge/public", LOOPS),
        ("mesh, edge/public", LOOPS),
        ("edge/inner", &[]),
        ("mesh", &[]),
        // Not among the files.
        ("elsewhere/public", LOOPS),
        ("public", LOOPS),
    ] {
        assert_eq!(
            findings(&(all.clone() + &of(gateways))),
            expected,
            "{gateways}"
        );
    }
    let of_targets = all.replace(
        "selector: {matchLabels: {istio: ingress}}",
        "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: kubernetes}]",
    );
    assert_eq!(findings(&(of_targets + &of("elsewhere/public"))), [""; 0]);
    // By its labels the plugin is for other pods than the Gateway, but these pods have both labels.
    let pods = "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: gateway, namespace: edge}\nspec:\n  template:\n    \
                metadata: {labels: {istio: ingress, app: gateway}}\n";
    let by_app =
        all.replace("selector: {istio: ingress}", "selector: {app: gateway}") + &of("edge/public");
    assert_eq!(findings(&by_app), [""; 0]);
    assert_eq!(findings(&(by_app + pods)), LOOPS);
}

#[test]
fn a_virtual_service_that_writes_the_header_overwrites_what_the_plugin_wrote() {
    let of = |http: &str| {
        let service = service("shop", "edge/public", http);
        findings(&[plugin(""), gateway("public", "ingress"), service].concat())
    };
    let route = "route: [{destination: {host: shop}}]";
    for (headers, expected) in [
        (
            "request: {set: {X-Forwarded-Proto: https}}",
            &[OVERWRITTEN][..],
        ),
        ("request: {add: {x-forwarded-proto: https}}", &[OVERWRITTEN]),
        ("request: {remove: [x-forwarded-proto]}", &[OVERWRITTEN]),
        (
            "request: {set: {x-forwarded-proto: '%REQ(x-forwarded-proto)%'}}",
            &[],
        ),
        (
            "request: {set: {x-forwarded-port: '443'}, remove: [x-other]}",
            &[],
        ),
        ("response: {set: {x-forwarded-proto: https}}", &[]),
    ] {
        assert_eq!(
            of(&format!("{{{route}, headers: {{{headers}}}}}")),
            expected,
            "{headers}"
        );
        let of_destination =
            format!("{{route: [{{destination: {{host: shop}}, headers: {{{headers}}}}}]}}");
        assert_eq!(of(&of_destination), expected, "{headers}");
    }
    let set = "headers: {request: {set: {x-forwarded-proto: https}}}";
    let only_https = format!(
        "{{match: [{{headers: {{x-forwarded-proto: {{exact: https}}}}}}], {route}, {set}}}"
    );
    assert_eq!(of(&only_https), [""; 0]);
    // The header is written by one to which another one delegates.
    let root = service(
        "shop",
        "edge/public",
        "{delegate: {name: inner, namespace: team}}",
    );
    let inner = format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: inner, namespace: team}}\nspec:\n  http: [{{{route}, {set}}}]\n"
    );
    assert_eq!(
        findings(&[plugin(""), root, inner.clone()].concat()),
        [OVERWRITTEN]
    );
    assert_eq!(findings(&(plugin("") + &inner)), [""; 0]);
    // In shadow mode the plugin writes nothing, and without rules it leaves the scheme alone.
    let written = service("shop", "edge/public", &format!("{{{route}, {set}}}"));
    assert_eq!(
        findings(&(plugin("mode: shadow\n    ") + &written)),
        [""; 0]
    );
    let defaults = plugin("").replace("trustedLoadBalancers: [{name: a, match: {ipBlocks: [10.0.12.0/24]}, forwardedProto: {default: https}}]", "defaults: {timeout: 5s}");
    assert_eq!(findings(&(defaults + &written)), [""; 0]);
}

#[test]
fn a_route_of_the_gateway_api_that_writes_the_header_overwrites_what_the_plugin_wrote() {
    let modifier = |modifier: &str| {
        format!("filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{{modifier}}}}}]")
    };
    for (fields, expected) in [
        (
            "set: [{name: X-Forwarded-Proto, value: https}]",
            &[OVERWRITTEN][..],
        ),
        (
            "add: [{name: x-forwarded-proto, value: https}]",
            &[OVERWRITTEN],
        ),
        ("remove: [x-forwarded-proto]", &[OVERWRITTEN]),
        ("set: [{name: x-other, value: https}]", &[]),
    ] {
        let filters = modifier(fields);
        let of_rule = route(&format!(
            "{{{filters}, backendRefs: [{{name: shop, port: 80}}]}}"
        ));
        assert_eq!(findings(&(plugin("") + &of_rule)), expected, "{fields}");
        let of_backend = route(&format!(
            "{{backendRefs: [{{name: shop, port: 80, {filters}}}]}}"
        ));
        assert_eq!(findings(&(plugin("") + &of_backend)), expected, "{fields}");
        let of_grpc = of_backend.replace("HTTPRoute", "GRPCRoute");
        assert_eq!(findings(&(plugin("") + &of_grpc)), expected, "{fields}");
    }
}

#[test]
fn a_patch_that_writes_the_header_is_named_beside_a_plugin_on_the_same_gateway() {
    let patch = |label: &str, context: &str, value: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: routes, namespace: edge}}\nspec:\n  \
             workloadSelector: {{labels: {{istio: {label}}}}}\n  configPatches:\n  - applyTo: ROUTE_CONFIGURATION\n    match: {{context: {context}}}\n    \
             patch: {{operation: MERGE, value: {{{value}}}}}\n"
        )
    };
    let adds = "request_headers_to_add: [{header: {key: x-forwarded-proto, value: https}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]";
    for (label, context, value, expected) in [
        ("ingress", "GATEWAY", adds, &[OVERWRITTEN][..]),
        (
            "ingress",
            "GATEWAY",
            "requestHeadersToRemove: [x-forwarded-proto]",
            &[OVERWRITTEN],
        ),
        (
            "ingress",
            "GATEWAY",
            "response_headers_to_add: [{header: {key: x-forwarded-proto, value: https}}]",
            &[],
        ),
        ("ingress", "SIDECAR_INBOUND", adds, &[]),
        ("other", "GATEWAY", adds, &[]),
    ] {
        let manifests = plugin("") + &patch(label, context, value);
        assert_eq!(findings(&manifests), expected, "{label} {context} {value}");
    }
}

#[test]
fn a_filter_that_mutates_the_header_is_named_beside_a_plugin_on_the_same_gateway() {
    let filter = |mutation: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: mutates, namespace: edge}}\nspec:\n  \
             workloadSelector: {{labels: {{istio: ingress}}}}\n  configPatches:\n  - applyTo: HTTP_FILTER\n    match: {{context: GATEWAY}}\n    \
             patch:\n      operation: INSERT_BEFORE\n      value:\n        name: mutates\n        typed_config:\n          \"@type\": \
             type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation\n          mutations: {{{mutation}}}\n"
        )
    };
    for (mutation, expected) in [
        (
            "request_mutations: [{append: {header: {key: x-forwarded-proto, value: https}}}]",
            &[OVERWRITTEN][..],
        ),
        (
            "requestMutations: [{remove: X-Forwarded-Proto}]",
            &[OVERWRITTEN],
        ),
        (
            "request_mutations: [{append: {header: {key: x-other, value: https}}}]",
            &[],
        ),
        (
            "response_mutations: [{append: {header: {key: x-forwarded-proto, value: https}}}]",
            &[],
        ),
    ] {
        assert_eq!(
            findings(&(plugin("") + &filter(mutation))),
            expected,
            "{mutation}"
        );
    }
}
