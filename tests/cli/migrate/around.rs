//! Where scripts stand, and files that have none.

use serde_json::json;

use super::{LOAD_BALANCER, configuration, envoy_filter, migrate, plain};

const HTTPS: &str =
    r#"function envoy_on_request(h) h:headers():replace("x-forwarded-proto", "https") end"#;

/// A Lua filter with a script, as Envoy has it.
fn filter(script: &str) -> serde_json::Value {
    json!({
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": script},
        },
    })
}

fn of_envoy_gateway(kind: &str, spec: &serde_json::Value) -> String {
    json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": "lua", "namespace": "edge"},
        "spec": spec,
    })
    .to_string()
}

fn gateway() -> serde_json::Value {
    json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "eg"})
}

/// The configuration of Envoy Gateway's manifest.
fn wasm(manifest: &str) -> serde_json::Value {
    let manifest: serde_json::Value = serde_saphyr::from_str(manifest).expect("it is YAML");
    assert_eq!(manifest["kind"], "EnvoyExtensionPolicy");
    assert_eq!(manifest["spec"]["targetRefs"], json!([gateway()]));
    manifest["spec"]["wasm"][0]["config"].clone()
}

#[test]
fn a_script_in_a_config_map_of_the_same_file_is_read_and_another_is_named() {
    let policy = of_envoy_gateway(
        "EnvoyExtensionPolicy",
        &json!({
            "targetRefs": [gateway()],
            "lua": [{"type": "ValueRef", "valueRef": {"group": "", "kind": "ConfigMap", "name": "scripts"}}],
        }),
    );
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "scripts", "namespace": "edge"},
        "data": {"lua": HTTPS},
    });
    let said = migrate(&format!("{policy}\n---\n{map}"), LOAD_BALANCER);
    assert_eq!(said.code, 0, "{}", said.notes);
    assert_eq!(
        wasm(&said.manifest)["trustedLoadBalancers"][0]["forwardedProto"],
        json!({"default": "https"})
    );
    for elsewhere in [
        String::new(),
        map.to_string().replace("\"edge\"", "\"other\""),
    ] {
        let said = migrate(&format!("{policy}\n---\n{elsewhere}"), LOAD_BALANCER);
        assert_eq!(said.code, 1, "{}", said.manifest);
        assert!(
            said.notes
                .contains("the script is in the ConfigMap scripts, which isn't in this file"),
            "{}",
            said.notes
        );
    }
}

#[test]
fn lua_in_a_patch_policy_becomes_an_extension_policy_and_other_patches_are_named() {
    let policy = of_envoy_gateway(
        "EnvoyPatchPolicy",
        &json!({
            "targetRef": gateway(),
            "type": "JSONPatch",
            "jsonPatches": [
                {
                    "type": "type.googleapis.com/envoy.config.listener.v3.Listener",
                    "name": "edge/eg/http",
                    "operation": {
                        "op": "add",
                        "path": "/default_filter_chain/filters/0/typed_config/http_filters/0",
                        "value": filter(HTTPS),
                    },
                },
                {
                    "type": "type.googleapis.com/envoy.config.listener.v3.Listener",
                    "name": "edge/eg/http",
                    "operation": {"op": "add", "path": "/per_connection_buffer_limit_bytes", "value": 1},
                },
            ],
        }),
    );
    let said = migrate(&policy, LOAD_BALANCER);
    assert_eq!(said.code, 0, "{}", said.notes);
    assert!(wasm(&said.manifest)["trustedLoadBalancers"].is_array());
    for note in [
        "the peer's address has to be right first",
        "a filter's place in the list and its listener are Envoy Gateway's own",
        "this patch isn't Lua: keep it in an EnvoyPatchPolicy",
    ] {
        assert!(said.notes.contains(note), "{note}: {}", said.notes);
    }
}

/// An EnvoyFilter whose patches insert these scripts in this way.
fn several(operation: &str, scripts: &[&str]) -> String {
    let patches: Vec<_> = scripts
        .iter()
        .map(|script| {
            json!({
                "applyTo": "HTTP_FILTER",
                "match": {"context": "GATEWAY", "listener": {"filterChain": {"filter": {
                    "name": "envoy.filters.network.http_connection_manager",
                    "subFilter": {"name": "envoy.filters.http.router"},
                }}}},
                "patch": {"operation": operation, "value": filter(script)},
            })
        })
        .collect();
    json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "edge", "namespace": "istio-system"},
        "spec": {"workloadSelector": {"labels": {"istio": "ingressgateway"}}, "configPatches": patches},
    })
    .to_string()
}

#[test]
fn a_script_reads_what_the_one_before_it_wrote() {
    let second = r#"function envoy_on_request(h)
      if h:headers():get("x-forwarded-proto") == "https" then
        h:headers():replace("x-envoy-upstream-rq-timeout-ms", "5000")
      else
        h:headers():replace("x-envoy-upstream-rq-timeout-ms", "9000")
      end
    end"#;
    let in_order = migrate(&several("INSERT_BEFORE", &[HTTPS, second]), LOAD_BALANCER);
    assert_eq!(in_order.code, 0, "{}", in_order.notes);
    assert_eq!(
        configuration(&in_order.manifest)["defaults"],
        json!({"timeout": "5s"}),
        "{}",
        in_order.notes
    );
    // Each INSERT_FIRST stands in front of those before it.
    let turned = migrate(&several("INSERT_FIRST", &[second, HTTPS]), LOAD_BALANCER);
    assert_eq!(
        plain(&configuration(&turned.manifest)),
        plain(&configuration(&in_order.manifest)),
        "{}",
        turned.notes
    );
    // What it copies is what was written.
    let copies = r#"function envoy_on_request(h)
      h:headers():replace("x-forwarded-proto", h:headers():get("x-lb-proto"))
    end"#;
    let written = r#"function envoy_on_request(h) h:headers():replace("x-lb-proto", "https") end"#;
    let third = migrate(&several("INSERT_BEFORE", &[written, copies]), LOAD_BALANCER);
    assert_eq!(
        configuration(&third.manifest)["trustedLoadBalancers"][0]["forwardedProto"],
        json!({"default": "https"}),
        "{}",
        third.notes
    );
}

#[test]
fn a_script_that_is_in_no_text_of_the_file_is_named_with_what_to_write() {
    let manifest = envoy_filter(HTTPS);
    let inline = format!("\"inline_string\":{}", json!(HTTPS));
    assert!(manifest.contains(&inline));
    for (source, word) in [
        (
            r#""filename":"/etc/edge.lua""#,
            "the script is in a file of the proxy: write it as inline_string",
        ),
        (
            r#""environment_variable":"SCRIPT""#,
            "the script is in a variable of the proxy's environment: write it as inline_string",
        ),
        (
            r#""inline_bytes":"cHJpbnQoMSk=""#,
            "the script is in base64: write it as inline_string",
        ),
    ] {
        let said = migrate(&manifest.replace(&inline, source), LOAD_BALANCER);
        assert_eq!(said.code, 1, "{source}: {}", said.manifest);
        assert!(said.notes.contains(word), "{source}: {}", said.notes);
        assert!(
            said.notes.contains("<stdin>:1:"),
            "{source}: {}",
            said.notes
        );
    }
}

#[test]
fn files_without_a_lua_filter_of_envoy_are_refused_with_what_they_have() {
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: x}\nspec: {rules: [{filters: \
                 [{type: RequestHeaderModifier}]}]}\n";
    let writes = route.replace(
        "RequestHeaderModifier",
        "RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Forwarded-Proto, value: https}]}",
    );
    let kong = "apiVersion: configuration.konghq.com/v1\nkind: KongPlugin\nmetadata: {name: p}\nplugin: pre-function\nconfig: \
                {access: [\"kong.service.request.set_header('x-forwarded-proto', 'https')\"]}\n";
    for (file, word) in [
        (HTTPS, "this is a script"),
        (route, "it has HTTPRoute in line 1"),
        (&writes, "take the header out of the route"),
        (kong, "it has KongPlugin in line 1"),
        (
            "# ours\n---\n# theirs\nkind: Ingress\napiVersion: networking.k8s.io/v1\n",
            "it has Ingress in line 4",
        ),
        (
            "entryPoints: {web: {address: ':80', forwardedHeaders: {trustedIPs: [10.0.0.0/8]}}}",
            "there is no Lua filter in it",
        ),
        (
            "server { listen 80; location / { proxy_set_header X-Forwarded-Proto https; } }",
            "there is no Lua filter in it",
        ),
        ("", "there is no Lua filter in it"),
    ] {
        let said = migrate(file, LOAD_BALANCER);
        assert_eq!((said.code, said.manifest.as_str()), (1, ""), "{file}");
        assert!(said.notes.contains(word), "{file}: {}", said.notes);
    }
}
