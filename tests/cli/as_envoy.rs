//! Whatever `check` accepts, Envoy accepts, and the other way round: the same values go to both.
//!
//! What the module has to judge goes into one Envoy as listeners over a file, each of which it takes or refuses by
//! itself. What can't even be read as Envoy's messages is given to `envoy --mode validate`, file by file.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::artifacts::{envoy, module};
use testkit::envoy::{Envoy, validate};

use crate::command::{run, text};

const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const STRING: &str = "type.googleapis.com/google.protobuf.StringValue";
const BYTES: &str = "type.googleapis.com/google.protobuf.BytesValue";
const GOOD: &str = r#"{"defaults":{"timeout":"15s"}}"#;

/// Texts that a `StringValue` may hold.
fn texts() -> Vec<String> {
    let by_hand = [
        GOOD,
        "",
        " \n\t ",
        "null",
        "true",
        "5",
        "\"text\"",
        "[]",
        "{}",
        "[{\"defaults\":{\"timeout\":\"15s\"}}]",
        "{'defaults':{'timeout':'15s'}}",
        "{defaults: {timeout: 15s}}",
        "defaults:\n  timeout: 15s\n",
        "{\"defaults\":{\"timeout\":\"15s\"}} # comment",
        "// comment\n{\"defaults\":{\"timeout\":\"15s\"}}",
        "{\"defaults\":{\"timeout\":\"15s\",}}",
        "{\"defaults\":{\"timeout\":\"15s\"},}",
        "---\n{\"defaults\":{\"timeout\":\"15s\"}}",
        "{\"defaults\":{\"timeout\":\"15s\"}}\n---\n",
        "{\"defaults\":{\"timeout\":\"15s\"}}{}",
        "\u{feff}{\"defaults\":{\"timeout\":\"15s\"}}",
        "\n\n  {\"defaults\":{\"timeout\":\"15s\"}}  \n",
        "\u{a0}{\"defaults\":{\"timeout\":\"15s\"}}",
        "\u{b}{\"defaults\":{\"timeout\":\"15s\"}}",
        "{\"defaults\":{\"timeout\":15}}",
        "{\"defaults\":{\"timeout\":\"15\"}}",
        "{\"defaults\":{\"timeout\":null}}",
        "{\"defaults\":{\"timeout\":\"15s\"},\"defaults\":{\"timeout\":\"15s\"}}",
        "{\"defaults\":{\"timeout\":\"15s\",\"timeout\":\"16s\"}}",
        "{\"forwardedPort\":yes}",
        "{\"forwardedPort\":True}",
        "{\"forwardedPort\":\"true\"}",
        "{\"forwardedPort\":true}",
        "{\"defaults\":{\"retries\":{\"attempts\":0x3,\"retryOn\":[\"reset\"]}}}",
        "{\"defaults\":{\"retries\":{\"attempts\":03,\"retryOn\":[\"reset\"]}}}",
        "{\"defaults\":{\"retries\":{\"attempts\":+3,\"retryOn\":[\"reset\"]}}}",
        "{\"defaults\":{\"retries\":{\"attempts\":3.0,\"retryOn\":[\"reset\"]}}}",
        "{\"defaults\":{\"retries\":{\"attempts\":3e0,\"retryOn\":[\"reset\"]}}}",
        "{\"defaults\":{\"retries\":{\"attempts\":3.5,\"retryOn\":[\"reset\"]}}}",
        "{\"defaults\":{\"retries\":{\"attempts\":\"3\",\"retryOn\":[\"reset\"]}}}",
        "{\"defaults\":{\"retries\":{\"attempts\":1e400,\"retryOn\":[\"reset\"]}}}",
        "{\"defaults\":{\"retries\":{\"attempts\":-0,\"retryOn\":[\"reset\"]}}}",
        "{\"defaults\":{\"retries\":{\"attempts\":NaN,\"retryOn\":[\"reset\"]}}}",
        "{\"defaults\":{\"retries\":{\"attempts\":.5,\"retryOn\":[\"reset\"]}}}",
        "{\"defaults\":{\"retries\":{\"attempts\":1.,\"retryOn\":[\"reset\"]}}}",
        "{\"defaults\":{\"retries\":{\"attempts\":1_0,\"retryOn\":[\"reset\"]}}}",
        "{\"\\u0064efaults\":{\"timeout\":\"15\\u0073\"}}",
        "{\"defaults\":{\"timeout\":\"15\\x73\"}}",
        "{\"defaults\":{\"timeout\":\"15\\s\"}}",
        "{\"routes\":[{\"name\":\"\\ud83d\\ude00\",\"match\":{\"hosts\":[\"a.example.com\"]},\"timeout\":\"1s\"}]}",
        "{\"routes\":[{\"name\":\"\\ud83d\",\"match\":{\"hosts\":[\"a.example.com\"]},\"timeout\":\"1s\"}]}",
        "{\"routes\":[{\"name\":\"a\\/b\",\"match\":{\"hosts\":[\"a.example.com\"]},\"timeout\":\"1s\"}]}",
        "{\"routes\":[{\"name\":\"a\tb\",\"match\":{\"hosts\":[\"a.example.com\"]},\"timeout\":\"1s\"}]}",
        "{\"routes\":[{\"name\":\"ü\",\"match\":{\"hosts\":[\"a.example.com\"]},\"timeout\":\"1s\"}]}",
        "{\"routes\":[{\"name\":\"a\\u0000b\",\"match\":{\"hosts\":[\"a.example.com\"]},\"timeout\":\"1s\"}]}",
        "{\"mode\":\"shadow\"}",
        "{\"mode\":\"Shadow\"}",
        "{\"trustedLoadBalancer\":[]}",
        "{\"trustedLoadBalancers\":[{\"name\":\"alb\",\"match\":{\"ipBlocks\":[\"10.0.12.0/24\"]},\"forwardedProto\":{\"default\":\"https\"}}]}",
        "{\"trustedLoadBalancers\":[{\"name\":\"alb\",\"match\":{\"ipBlocks\":[\"10.0.12.5/24\"]},\"forwardedProto\":{\"default\":\"https\"}}]}",
        "{\"trustedLoadBalancers\":[{\"name\":\"alb\",\"match\":{\"ipBlocks\":[\"10.0.12.0/24\",]},\"forwardedProto\":{\"default\":\"https\"}}]}",
        "{\"defaults\":{\"timeout\":\"15s\"}",
        "\"defaults\":{\"timeout\":\"15s\"}}",
        "{\"defaults\" {\"timeout\":\"15s\"}}",
        "{\"defaults\":{\"timeout\":\"15s}}",
        "<xml/>",
    ];
    let mut texts: Vec<String> = by_hand.map(str::to_owned).into();
    // Deeper than the JSON reader goes, and just not.
    for depth in [100, 126, 127, 128, 200] {
        texts.push(format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
    }
    texts.extend(changed());
    texts
}

/// Good configurations with one character left out, doubled or replaced, here and there.
fn changed() -> Vec<String> {
    let good = "{\"mode\":\"shadow\",\"trustedLoadBalancers\":[{\"name\":\"alb\",\"match\":{\"ipBlocks\":[\"10.0.12.0/24\"],\
                \"ports\":[8080]},\"forwardedProto\":{\"from\":[\"x-lb-proto\"],\"default\":\"https\"}}],\
                \"defaults\":{\"timeout\":\"15s\",\"retries\":{\"attempts\":2,\"retryOn\":[\"reset\"]}}}";
    let letters: Vec<char> = good.chars().collect();
    let mut random = 1_u64;
    let mut changed = Vec::new();
    for _ in 0..110 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from(random >> 33).unwrap_or(0) % letters.len();
        let replacement = "{}[],:\"'0a \\#-\n"
            .chars()
            .nth((random >> 20) as usize % 15);
        let mut letters = letters.clone();
        match (random >> 60) % 3 {
            0 => {
                letters.remove(at);
            }
            1 => letters.insert(at, letters[at]),
            _ => letters[at] = replacement.unwrap_or(' '),
        }
        changed.push(letters.into_iter().collect());
    }
    changed
}

/// `config` of Wasm filters, whole.
fn configs() -> Vec<Value> {
    let mut configs: Vec<Value> = texts()
        .into_iter()
        .map(|text| json!({"configuration": {"@type": STRING, "value": text}}))
        .collect();
    let base64 = "eyJkZWZhdWx0cyI6eyJ0aW1lb3V0IjoiMTVzIn19";
    let string = json!({"@type": STRING, "value": GOOD});
    configs.extend([
        json!({"configuration": {"@type": BYTES, "value": base64}}),
        json!({"configuration": {"@type": BYTES, "value": "eyJtb2RlIjoic2hhZG93In0="}}),
        json!({"configuration": {"@type": BYTES, "value": "eyJtb2RlIjoic2hhZG93In0"}}),
        json!({"configuration": {"@type": BYTES, "value": format!("{base64}\n")}}),
        json!({"configuration": {"@type": BYTES, "value": "***"}}),
        json!({"configuration": {"@type": BYTES, "value": GOOD}}),
        json!({"configuration": {"@type": BYTES, "value": ""}}),
        json!({"configuration": {"@type": BYTES, "value": "/w=="}}),
        json!({"configuration": {"@type": BYTES, "value": "_w"}}),
        json!({"configuration": {"@type": "google.protobuf.StringValue", "value": GOOD}}),
        json!({"configuration": {"@type": "example.com/google.protobuf.StringValue", "value": GOOD}}),
        json!({"configuration": {"@type": "/google.protobuf.StringValue", "value": GOOD}}),
        json!({"configuration": {"@type": "type.googleapis.com/a/google.protobuf.StringValue", "value": GOOD}}),
        json!({"configuration": {"@type": "type.googleapis.com/google.protobuf.Nothing", "value": GOOD}}),
        json!({"configuration": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"defaults": {"timeout": "15s"}}}}),
        json!({"configuration": {"@type": "type.googleapis.com/google.protobuf.Value", "value": GOOD}}),
        json!({"configuration": {"@type": "type.googleapis.com/google.protobuf.Int32Value", "value": 5}}),
        json!({"configuration": {"@type": "type.googleapis.com/google.protobuf.Empty"}}),
        json!({"configuration": {"@type": "type.googleapis.com/google.protobuf.Any", "value": string}}),
        json!({"configuration": {"@type": "type.googleapis.com/xds.type.v3.TypedStruct",
            "type_url": STRING, "value": {"value": GOOD}}}),
        json!({"configuration": {"value": GOOD}}),
        json!({"configuration": {"type_url": STRING, "value": base64}}),
        json!({"configuration": {}}),
        json!({"configuration": null}),
        json!({"configuration": GOOD}),
        json!({"configuration": [string]}),
        json!({"configuration": {"@type": 5, "value": GOOD}}),
        json!({"configuration": {"@type": STRING}}),
        json!({"configuration": {"@type": STRING, "value": null}}),
        json!({"configuration": {"@type": STRING, "value": 5}}),
        json!({"configuration": {"@type": STRING, "value": true}}),
        json!({"configuration": {"@type": STRING, "value": {"defaults": {"timeout": "15s"}}}}),
        json!({"configuration": {"@type": STRING, "value": [GOOD]}}),
        json!({"configuration": {"@type": STRING, "value": GOOD, "more": 1}}),
        json!({}),
        json!({"configuraton": string}),
        json!({"configuration": string, "rootId": "trusted_lb"}),
        json!({"configuration": string, "root_id": "trusted_lb"}),
        json!({"configuration": string, "rootId": "trusted_lb", "root_id": "trusted_lb"}),
        json!({"configuration": string, "root_id": 5}),
        json!({"configuration": string, "root_id": true}),
        json!({"configuration": string, "RootId": "trusted_lb"}),
        json!({"configuration": string, "failure_policy": "FAIL_CLOSED"}),
        json!({"configuration": string, "failurePolicy": "fail_closed"}),
        json!({"configuration": string, "failure_policy": "FAIL_CLOSE"}),
        json!({"configuration": string, "failure_policy": 2}),
        json!({"configuration": string, "fail_open": "true"}),
        json!({"configuration": string, "failOpen": false}),
        json!({"configuration": string, "fail_open": "yes"}),
        json!({"configuration": string, "fail_open": 1}),
        json!({"configuration": string, "allowOnHeadersStopIteration": true}),
        json!({"configuration": string, "vm_config": {"vmId": "x"}}),
        json!({"configuration": string, "vm_config": {"vm_id": 5}}),
        json!({"configuration": string, "vm_config": {"environment_variables": {"host_env_keys": ["HOME"]}}}),
        json!({"configuration": string, "vm_config": {"environmentVariables": {"hostEnvKeys": ["HOME"]}}}),
        json!({"configuration": string, "vm_config": {"environment_variables": {"host_env_keys": "HOME"}}}),
        json!({"configuration": string, "vm_config": {"environment_variables": {"key_values": {"A": "b"}}}}),
        json!({"configuration": string, "vm_config": {"environment_variables": {"key_values": {"A": 5}}}}),
        json!({"configuration": string, "vm_config": {"env": [{"name": "A"}]}}),
        json!({"configuration": string, "vm_config": {"environment_variables": {"hostEnvKey": ["HOME"]}}}),
    ]);
    let file = module().to_string_lossy().into_owned();
    for config in &mut configs {
        config["name"] = json!("trusted-lb");
        config["vm_config"]["runtime"] = json!("envoy.wasm.runtime.v8");
        config["vm_config"]["code"] = json!({"local": {"filename": file}});
    }
    configs
}

fn filter(config: &Value) -> Value {
    json!({"name": "trusted-lb", "typed_config": {"@type": WASM, "config": config}})
}

fn listener(name: &str, filters: &[Value]) -> Value {
    let router = json!({"name": "router", "typed_config":
        {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}});
    let filters: Vec<Value> = filters.iter().cloned().chain([router]).collect();
    json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "manager", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in",
            "route_config": {},
            "http_filters": filters,
        }}]}],
    })
}

fn bootstrap(filters: &[Value]) -> Value {
    json!({"static_resources": {"listeners": [listener("l", filters)]}})
}

/// What `check` says of a file: whether it is accepted, and whether Envoy itself can't read it.
fn checked(file: &str) -> (bool, bool) {
    let output = run(&["check", "--format", "json", "-"], file);
    let findings: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
    let unreadable = findings
        .as_array()
        .into_iter()
        .flatten()
        .any(|finding| finding["code"] == "refused-by-envoy" && finding["severity"] == "error");
    (output.status.code() == Some(0), unreadable)
}

/// Which of these listeners a running Envoy takes.
fn taken(listeners: &[Value]) -> BTreeMap<String, bool> {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("listeners.json");
    let resources: Vec<Value> = listeners
        .iter()
        .map(|listener| {
            let mut listener = listener.clone();
            listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
            listener
        })
        .collect();
    let list = json!({"version_info": "1", "resources": resources});
    std::fs::write(&file, list.to_string()).expect("the listeners can be written");
    let envoy = Envoy::start(&json!({
        "node": {"id": "node", "cluster": "cluster"},
        "dynamic_resources": {"lds_config": {
            "path_config_source": {"path": file}, "resource_api_version": "V3"}},
    }));
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let dump =
            envoy.admin("/config_dump?resource=dynamic_listeners&mask=name,error_state.details");
        let dump: Value = serde_json::from_slice(&dump.body).expect("it is JSON");
        let configs = dump["configs"].as_array().into_iter().flatten();
        let taken: BTreeMap<String, bool> = configs
            .filter_map(|one| {
                Some((
                    one["name"].as_str()?.to_owned(),
                    one["error_state"].is_null(),
                ))
            })
            .collect();
        if taken.len() == listeners.len() {
            return taken;
        }
        assert!(
            Instant::now() < deadline,
            "{} of {}: {}",
            taken.len(),
            listeners.len(),
            envoy.log().lines().last().unwrap_or_default()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn check_accepts_the_values_that_envoy_accepts_and_no_others() {
    let configs = configs();
    assert!(configs.len() >= 230, "{}", configs.len());
    let mut wrong = Vec::new();
    let mut listeners = Vec::new();
    let mut accepted = Vec::new();
    let mut verdicts = BTreeMap::new();
    let mut unreadable_values = 0;
    for (index, config) in configs.iter().enumerate() {
        let filter = filter(config);
        let file = bootstrap(std::slice::from_ref(&filter));
        let (good, unreadable) = checked(&file.to_string());
        if unreadable {
            unreadable_values += 1;
            if validate(&file).is_ok() {
                wrong.push(format!("Envoy takes {config}"));
            }
            continue;
        }
        let name = format!("l{index}");
        listeners.push(listener(&name, std::slice::from_ref(&filter)));
        verdicts.insert(name, (good, config));
        if good {
            accepted.push(filter);
        }
    }
    for (name, taken) in taken(&listeners) {
        let (good, config) = verdicts[&name];
        if taken != good {
            wrong.push(format!("check says {good}, Envoy {taken}: {config}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The same by the command that people use.
    assert!(accepted.len() > 30, "{}", accepted.len());
    assert!(unreadable_values > 20, "{unreadable_values}");
    validate(&bootstrap(&accepted)).unwrap_or_else(|log| panic!("{log}"));
}

/// Ways to write the same in YAML, and ways that Envoy's YAML doesn't have.
const YAML: &[&str] = &[
    "configuration: {\"@type\": STRING, value: 'GOOD'}",
    "configuration:\n  \"@type\": STRING\n  value: |\n    GOOD",
    "configuration:\n  '@type': STRING\n  value: >-\n    GOOD",
    "configuration:\n  \"@type\": STRING\n  value: !!str 'GOOD'",
    "configuration: !other\n  \"@type\": STRING\n  value: 'GOOD'",
    "configuration:\n  value: 'GOOD'\n  \"@type\": STRING",
    "root_id: &root trusted_lb\nconfiguration:\n  \"@type\": STRING\n  value: 'GOOD'\nvm_config:\n  vm_id: *root",
    "<<: {root_id: x}\nconfiguration:\n  \"@type\": STRING\n  value: 'GOOD'",
    "root_id: yes\nconfiguration:\n  \"@type\": STRING\n  value: 'GOOD'",
    "root_id: y\nconfiguration:\n  \"@type\": STRING\n  value: 'GOOD'",
    "root_id: 010\nconfiguration:\n  \"@type\": STRING\n  value: 'GOOD'",
    "root_id: '5'\nconfiguration:\n  \"@type\": STRING\n  value: 'GOOD'",
    "root_id: ~\nconfiguration:\n  \"@type\": STRING\n  value: 'GOOD'",
    "root_id:\nconfiguration:\n  \"@type\": STRING\n  value: 'GOOD'",
    "fail_open: y\nconfiguration:\n  \"@type\": STRING\n  value: 'GOOD'",
    "fail_open: off\nconfiguration:\n  \"@type\": STRING\n  value: 'GOOD'",
    "fail_open: N\nconfiguration:\n  \"@type\": STRING\n  value: 'GOOD'",
    "fail_open: 'no'\nconfiguration:\n  \"@type\": STRING\n  value: 'GOOD'",
    "configuration:\n  \"@type\": STRING\n  value:\n    defaults: {timeout: 15s}",
    "configuration:\n  \"@type\": STRING\n  value: |\n    defaults: {timeout: 15s}",
    "configuration:\n  \"@type\": STRING\n  value: \"{\\\"defaults\\\":\\t{\\\"timeout\\\": \\\"15s\\\"}}\"",
    "configuration:\n  \"@type\": STRING\n  value: \"{\\\"defaults\\\": \\\n    {\\\"timeout\\\": \\\"15s\\\"}}\"",
    "configuration:\n- \"@type\": STRING\n  value: 'GOOD'",
    "configuration:\n  \"@type\": STRING\n  value: 'x'\n  value: 'GOOD'",
    "configuration:\n  \"@type\": STRING\n  value: 'GOOD'\n  value: 'x'",
];

#[test]
fn check_accepts_the_yaml_that_envoy_accepts_and_no_other() {
    let file = module().to_string_lossy().into_owned();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("bootstrap.yaml");
    let mut wrong = Vec::new();
    for config in YAML {
        let config = config.replace("STRING", STRING).replace("GOOD", GOOD);
        let pad = "\n                ";
        let mut code = format!(
            "vm_config:\n  runtime: envoy.wasm.runtime.v8\n  code: {{local: {{filename: {file}}}}}"
        );
        let config = match config.split_once("\nvm_config:") {
            Some((before, own)) => {
                code.push_str(own);
                before.to_owned()
            }
            None => config,
        };
        let config = format!("{code}\n{config}").replace('\n', pad);
        let text = format!(
            "static_resources:\n  listeners:\n  - name: l\n    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}\n    \
             filter_chains:\n    - filters:\n      - name: manager\n        typed_config:\n          \
             \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
             stat_prefix: in\n          route_config: {{}}\n          http_filters:\n          - name: trusted-lb\n            \
             typed_config:\n              \"@type\": {WASM}\n              config:{pad}{config}\n          \
             - name: router\n            typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}\n"
        );
        let (good, _) = checked(&text);
        std::fs::write(&path, &text).expect("the bootstrap can be written");
        let output = std::process::Command::new(envoy())
            .args([
                "--mode",
                "validate",
                "--use-dynamic-base-id",
                "--log-level",
                "critical",
                "--config-path",
            ])
            .arg(&path)
            .output()
            .expect("Envoy can be run");
        if output.status.success() != good {
            wrong.push(format!(
                "check says {good}: {text}\n{}",
                String::from_utf8_lossy(&output.stderr)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
