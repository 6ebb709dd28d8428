//! What stands beside a plugin in Envoy's own configuration: routes, Lua, other plugins.

use super::findings;

/// A listener with the fields of its virtual host and its route, and its filters.
fn listener(of_host: &str, of_route: &str, filters: &[&str]) -> String {
    format!(
        "filter_chains:\n- filters:\n  - name: manager\n    typed_config:\n      \"@type\": \
         type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n      \
         use_remote_address: true\n      route_config: {{virtual_hosts: [{{name: all, domains: ['*'], {of_host}routes: [{{match: {{prefix: /}}, {of_route}route: \
         {{cluster: app}}}}]}}]}}\n      http_filters:\n{}",
        filters.concat()
    )
}

/// A plugin, with fields of its configuration.
fn plugin(fields: &str) -> String {
    format!(
        "      - name: trusted-lb\n        typed_config:\n          \"@type\": \
         type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm\n          config:\n            name: trusted-lb\n            \
         vm_config: {{runtime: envoy.wasm.runtime.v8, code: {{local: {{filename: /trusted_lb.wasm}}}}}}\n            configuration:\n              \"@type\": \
         type.googleapis.com/google.protobuf.StringValue\n              value: '{{{fields}}}'\n"
    )
}

const RULES: &str = r#""trustedLoadBalancers": [{"name": "a", "match": {"ipBlocks": ["10.0.12.0/24"]}, "forwardedProto": {"default": "https"}}]"#;

const DEFAULTS: &str = r#""defaults": {"timeout": "5s"}"#;

fn lua(call: &str) -> String {
    format!(
        "      - name: lua\n        typed_config:\n          \"@type\": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua\n          \
         default_source_code:\n            inline_string: |\n              function envoy_on_request(handle)\n                {call}\n              end\n"
    )
}

#[test]
fn the_routes_of_the_same_connection_manager_are_looked_at() {
    let rules = plugin(RULES);
    let of = |host: &str, route: &str| findings(&listener(host, route, &[&rules]));
    let adds = "request_headers_to_add: [{header: {key: X-Forwarded-Proto, value: https}}], ";
    let removes = "requestHeadersToRemove: [x-forwarded-proto], ";
    let other = "request_headers_to_add: [{header: {key: x-other, value: https}}], ";
    let found = ["warning configuration trustedLoadBalancers"];
    assert_eq!(of("", ""), [""; 0]);
    assert_eq!(of(adds, ""), found);
    assert_eq!(of("", adds), found);
    assert_eq!(of("", removes), found);
    assert_eq!(of(other, other), [""; 0]);
    let defaults = plugin(DEFAULTS);
    assert_eq!(findings(&listener(adds, "", &[&defaults])), [""; 0]);
}

#[test]
fn a_script_that_writes_the_scheme_beside_a_plugin_is_named() {
    let writes = lua("handle:headers():replace('x-forwarded-proto', 'https')");
    let logs = lua("handle:logInfo(handle:headers():get('x-forwarded-proto'))");
    let shadow = format!(r#""mode": "shadow", {RULES}"#);
    let left = ["warning lua-left-in-place"];
    let of = |filters: &[&str]| findings(&listener("", "", filters));
    assert_eq!(of(&[&plugin(RULES), &writes]), left);
    assert_eq!(of(&[&writes, &plugin(RULES)]), left);
    assert_eq!(of(&[&plugin(RULES), &logs]), [""; 0]);
    assert_eq!(of(&[&plugin(&shadow), &writes]), [""; 0]);
    assert_eq!(of(&[&plugin(DEFAULTS), &writes]), [""; 0]);
    // In another listener it is no concern of the plugin's.
    let other = listener("", "", &[&writes]);
    let both = format!("{}\n---\n{other}", listener("", "", &[&plugin(RULES)]));
    assert_eq!(findings(&both), [""; 0]);
}

#[test]
fn two_plugins_in_one_connection_manager_are_named() {
    let several = ["warning several-plugins"];
    let shadow = format!(r#""mode": "shadow", {RULES}"#);
    let of = |filters: &[&str]| findings(&listener("", "", filters));
    assert_eq!(of(&[&plugin(RULES), &plugin(RULES)]), several);
    assert_eq!(of(&[&plugin(RULES), &plugin(&shadow)]), [""; 0]);
    let apart = [
        listener("", "", &[&plugin(RULES)]),
        listener("", "", &[&plugin(RULES)]),
    ];
    assert_eq!(findings(&apart.join("---\n")), [""; 0]);
}
