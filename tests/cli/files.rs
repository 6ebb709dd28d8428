//! The files that people have: each is read, wherever in it the configuration stands, and rendered as the same one.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use testkit::artifacts::repository;

use crate::command::{COMMAND, listed, relative, run, text};

/// What `check` says of every file of the field, errors of other files' kinds included.
#[test]
fn every_file_of_the_field_has_its_outcome() {
    let assert = snapbox::Assert::new().action_env("SNAPSHOTS");
    let mut files = listed("tests/cli/field", ".yaml");
    files.extend(listed("tests/cli/field", ".json"));
    assert!(files.len() >= 34, "{}", files.len());
    for file in files {
        let output = run(&["check", &relative(&file)], "");
        let said = format!(
            "{}exit code {}\n",
            text(&output),
            output.status.code().unwrap_or(-1)
        );
        let expected = snapbox::Data::read_from(&file.with_extension("check.txt"), None);
        assert.eq(said, expected.raw());
    }
}

/// A configuration with what is easily lost on the way: words, numbers and signs that YAML reads as something else.
fn configuration() -> Value {
    json!({
        "trustedLoadBalancers": [{
            "name": "yes",
            "match": {
                "ipBlocks": ["10.0.12.0/24"],
                "headers": [{"name": "x-origin-verify", "fromEnv": "ORIGIN_SECRET"}],
            },
            "forwardedProto": {
                "from": [{"header": "x-edge-tls", "https": ["y", "on", "0x1", "01", "1e3", "a: b", "# c", "'"], "http": ["n", "~", "null"]}],
                "default": "https",
            },
        }],
        "forwardedPort": true,
        "defaults": {"timeout": "1m", "retries": {"attempts": 2, "retryOn": ["reset"]}},
    })
}

const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const STRING: &str = "type.googleapis.com/google.protobuf.StringValue";

fn filter() -> Value {
    json!({"name": "trusted-lb", "typed_config": {"@type": WASM, "config": {
        "root_id": "trusted_lb",
        "vm_config": {"environment_variables": {"host_env_keys": ["ORIGIN_SECRET"]}},
        "configuration": {"@type": STRING, "value": configuration().to_string()},
    }}})
}

fn camel_filter() -> Value {
    json!({"name": "trusted-lb", "typedConfig": {"@type": WASM, "config": {
        "rootId": "trusted_lb",
        "vmConfig": {"environmentVariables": {"hostEnvKeys": ["ORIGIN_SECRET"]}},
        "configuration": {"@type": STRING, "value": configuration().to_string()},
    }}})
}

fn resource(api: &str, kind: &str, spec: &Value) -> Value {
    json!({"apiVersion": api, "kind": kind, "metadata": {"name": "trusted-lb", "namespace": "edge"}, "spec": spec})
}

/// The configuration in everything that it may stand in, by name.
#[allow(clippy::too_many_lines)] // One form after another.
fn everywhere() -> Vec<(&'static str, String)> {
    let configuration = configuration();
    let env = json!({"env": [{"name": "ORIGIN_SECRET", "valueFrom": "HOST"}]});
    let plugin = resource(
        "extensions.istio.io/v1alpha1",
        "WasmPlugin",
        &json!({"url": "oci://registry.example.com/trusted-lb:1", "vmConfig": env, "pluginConfig": configuration}),
    );
    let extension = resource(
        "extensions.istio.io/v1alpha1",
        "TrafficExtension",
        &json!({"wasm": {"url": "oci://registry.example.com/trusted-lb:1", "vmConfig": env, "pluginConfig": configuration}}),
    );
    let envoy_filter = |value: &Value| {
        resource(
            "networking.istio.io/v1alpha3",
            "EnvoyFilter",
            &json!({"configPatches": [{"applyTo": "HTTP_FILTER", "patch": {"operation": "INSERT_FIRST", "value": value}}]}),
        )
    };
    let typed_struct = json!({"name": "trusted-lb", "typed_config": {
        "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
        "type_url": WASM,
        "value": filter()["typed_config"],
    }});
    let policy = resource(
        "gateway.envoyproxy.io/v1alpha1",
        "EnvoyExtensionPolicy",
        &json!({"wasm": [{"name": "trusted-lb", "env": {"hostKeys": ["ORIGIN_SECRET"]}, "config": configuration}]}),
    );
    let patch_policy = resource(
        "gateway.envoyproxy.io/v1alpha1",
        "EnvoyPatchPolicy",
        &json!({"jsonPatches": [{"type": "type.googleapis.com/envoy.config.listener.v3.Listener", "operation":
            {"op": "add", "path": "/default_filter_chain/filters/0/typed_config/http_filters/0", "value": filter()}}]}),
    );
    let listener = |filter: Value| {
        json!({"name": "l", "filterChains": [{"filters": [{"name": "manager", "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "useRemoteAddress": true, "httpFilters": [filter]}}]}]})
    };
    let bootstrap = json!({"staticResources": {"listeners": [listener(camel_filter())]}});
    let dump = json!({"configs": [
        {"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": bootstrap},
        {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "dynamic_listeners": [
            {"name": "l", "active_state": {"listener": listener(camel_filter())}}]},
        {"@type": "type.googleapis.com/envoy.admin.v3.EcdsConfigDump", "ecds_filters": [{"ecds_filter":
            {"@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig", "name": "edge.trusted-lb",
             "typed_config": filter()["typed_config"]}}]},
    ]});
    let config_map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "envoy"},
        "data": {"readme.md": "{ not yaml", "envoy.yaml": bootstrap.to_string()}});
    let typed_list = json!({"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPluginList", "items": [
        {"metadata": {"name": "trusted-lb"}, "spec": plugin["spec"]}]});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}, plugin]}]});
    let yaml = "# comment\ntrustedLoadBalancers:\n- name: \"yes\" # its name\n  match:\n    ipBlocks: &blocks [10.0.12.0/24]\n    \
                headers: [{name: x-origin-verify, fromEnv: ORIGIN_SECRET}]\n  forwardedProto:\n    from:\n    - header: x-edge-tls\n      \
                https: ['y', \"on\", '0x1', '01', '1e3', 'a: b', '# c', '''']\n      http: ['n', '~', 'null']\n    default: https\n\
                forwardedPort: yes\ndefaults:\n  timeout: 1m\n  retries: {attempts: 02, retryOn: [reset]}\n";
    vec![
        ("yaml", yaml.to_owned()),
        ("yaml with a byte order mark", format!("\u{feff}{yaml}")),
        (
            "yaml with a directive",
            format!("%YAML 1.1\n---\n{yaml}...\n"),
        ),
        ("yaml with CRLF", yaml.replace('\n', "\r\n")),
        ("yaml with CR", yaml.replace('\n', "\r")),
        ("json", configuration.to_string()),
        (
            "json with tabs",
            serde_json::to_string_pretty(&configuration)
                .expect("it is JSON")
                .replace("  ", "\t"),
        ),
        ("WasmPlugin", plugin.to_string()),
        ("TrafficExtension", extension.to_string()),
        ("EnvoyFilter", envoy_filter(&filter()).to_string()),
        (
            "EnvoyFilter in camelCase",
            envoy_filter(&camel_filter()).to_string(),
        ),
        (
            "EnvoyFilter with TypedStruct",
            envoy_filter(&typed_struct).to_string(),
        ),
        ("EnvoyExtensionPolicy", policy.to_string()),
        ("EnvoyPatchPolicy", patch_policy.to_string()),
        ("bootstrap", bootstrap.to_string()),
        (
            "filters alone",
            json!({"http_filters": [filter()]}).to_string(),
        ),
        ("filter alone", filter().to_string()),
        ("config dump", dump.to_string()),
        (
            "istioctl's list",
            json!([listener(camel_filter())]).to_string(),
        ),
        ("ConfigMap", config_map.to_string()),
        ("typed list", typed_list.to_string()),
        ("List in List", list.to_string()),
    ]
}

/// The configuration in a rendered manifest, read by another library.
fn rendered(target: &str, manifest: &str) -> Value {
    let value: Value =
        serde_saphyr::from_str(manifest).unwrap_or_else(|error| panic!("{error}:\n{manifest}"));
    let filter = |filter: &Value| {
        let text = filter["typed_config"]["config"]["configuration"]["value"].as_str();
        serde_json::from_str(text.unwrap_or_else(|| panic!("no text:\n{manifest}")))
            .expect("it is JSON")
    };
    match target {
        "wasmplugin" => value["spec"]["pluginConfig"].clone(),
        "trafficextension" => value["spec"]["wasm"]["pluginConfig"].clone(),
        "envoyfilter" => filter(&value["spec"]["configPatches"][0]["patch"]["value"]),
        "envoyextensionpolicy" => value["spec"]["wasm"][0]["config"].clone(),
        _ => filter(&value),
    }
}

#[test]
fn a_configuration_is_read_and_rendered_the_same_wherever_it_stands() {
    for (name, file) in everywhere() {
        for target in [
            "wasmplugin",
            "trafficextension",
            "envoyfilter",
            "envoyextensionpolicy",
            "envoy",
        ] {
            let mut arguments = vec!["render", target, "-"];
            if target == "envoyextensionpolicy" {
                arguments.extend(["--target-ref", "public"]);
            }
            let output = run(&arguments, &file);
            assert_eq!(output.status.code(), Some(0), "{name}: {}", text(&output));
            // serde-saphyr reads YAML 1.2: what kubectl would read otherwise has to be written so that both agree.
            let manifest = text(&output)
                .replace("forwardedPort: yes", "forwardedPort: true")
                .replace("attempts: 02", "attempts: 2");
            assert_eq!(
                rendered(target, &manifest),
                configuration(),
                "{name}, {target}:\n{manifest}"
            );
            assert!(manifest.contains("ORIGIN_SECRET"), "{manifest}");
        }
    }
}

/// What a real API server makes of it is shown in tests/istio.
#[test]
fn the_admission_policy_speaks_of_every_field_and_in_expressions_that_cel_knows() {
    let output = run(
        &["render", "admission-policy", "--plugin", "it's \"ours\""],
        "",
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text(&output)).expect("it is YAML");
    let kinds: Vec<&str> = documents
        .iter()
        .filter_map(|document| document["kind"].as_str())
        .collect();
    assert_eq!(
        kinds,
        [
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding"
        ]
    );
    let policy = documents[0].to_string();
    let schema: Value = serde_json::from_str(&text(&run(&["schema"], ""))).expect("it is JSON");
    for object in schema["$defs"].as_object().expect("definitions").values() {
        for field in object["properties"].as_object().expect("fields").keys() {
            assert!(policy.contains(field.as_str()), "{field}");
        }
    }
    // CEL's regular expressions know neither lookaheads nor \u.
    for unknown in ["(?=", "(?!", "\\u"] {
        assert!(!policy.contains(unknown), "{unknown}");
    }
    let ours = &documents[0]["spec"]["matchConditions"][0]["expression"];
    assert!(
        ours.as_str()
            .expect("a text")
            .contains(r#".contains("it's \"ours\"")"#),
        "{ours}"
    );
    let everybody = run(&["render", "admission-policy", "--plugin", ""], "");
    assert_eq!(everybody.status.code(), Some(2));
}

#[test]
fn values_on_the_command_line_are_checked_and_quoted() {
    let file = "tests/configurations/accepted/minimal.yaml";
    let output = run(
        &[
            "render",
            "wasmplugin",
            file,
            "--namespace",
            "yes",
            "--selector",
            "app=1e3",
        ],
        "",
    );
    assert!(
        text(&output).contains("namespace: \"yes\""),
        "{}",
        text(&output)
    );
    assert!(text(&output).contains("app: \"1e3\""), "{}", text(&output));
    for wrong in [
        &["render", "wasmplugin", file, "--url", "*x"][..],
        &["render", "wasmplugin", file, "--url", "ftp://x/y"],
        &["render", "wasmplugin", file, "--namespace", "A b"],
        &["render", "wasmplugin", file, "--name", "-x"],
        &["render", "wasmplugin", file, "--selector", "a b=c"],
        &["render", "wasmplugin", file, "--sha256", "12"],
        &[
            "render",
            "wasmplugin",
            file,
            "--target-ref",
            "public",
            "--selector",
            "a=b",
        ],
        &["render", "wasmplugin", file, "--file-in-proxy", "/x"],
        &["render", "envoyfilter", file, "--url", "oci://x/y"],
        &["render", "envoyfilter", file, "--phase", "authn"],
        &["render", "envoy", file, "--namespace", "x"],
        &["render", "envoy", file, "--selector", "a=b"],
        &["explain", file, "--peer", "10.0.12.5", "--url", "http://"],
        &["explain", file, "--peer", "10.0.12.5", "--url", "http:///x"],
        &["explain", file, "--peer", "10.0.12.5", "--method", "G T"],
        &["explain", file, "--peer", "10.0.12.5", "-H", "a b: c"],
    ] {
        let output = run(wrong, "");
        assert_eq!(
            output.status.code(),
            Some(2),
            "{wrong:?}: {}",
            text(&output)
        );
    }
}

#[test]
fn an_answer_that_cannot_be_written_is_an_error_and_a_closed_pipe_is_not() {
    let arguments = [
        "render",
        "wasmplugin",
        "tests/configurations/accepted/minimal.yaml",
    ];
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("Linux has it");
    let output = Command::new(COMMAND)
        .args(arguments)
        .current_dir(repository())
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .expect("the command runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("can't be written"));
    let mut child = Command::new(COMMAND)
        .args(arguments)
        .current_dir(repository())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the command ends");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
}

#[test]
fn what_is_too_deep_or_grows_without_end_is_refused_at_its_place() {
    let mut anchors = String::new();
    for (name, before) in ('b'..='e').zip('a'..) {
        let aliases = format!("*{before}, ").repeat(10);
        let _ = writeln!(anchors, "{name}: &{name} [{aliases}]");
    }
    for (file, message) in [
        (
            format!("a:\n  {}x", "- ".repeat(58_000)),
            "inside each other",
        ),
        (format!("a: {}", "[".repeat(58_000)), "recursion limit"),
        (
            format!("{{\"a\": {}1{}}}", "[".repeat(58_000), "]".repeat(58_000)),
            "inside each other",
        ),
        (
            format!(
                "a: &a [{}]\n{anchors}z: [{}]\n",
                ["x"; 10].join(", "),
                ["*e"; 200].join(", ")
            ),
            "more than 1000000 values",
        ),
    ] {
        let output = run(&["check", "-"], &file);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output).contains(message), "{}", text(&output));
    }
}

#[test]
fn of_many_problems_the_first_are_shown_and_the_others_counted() {
    let file = format!("trustedLoadBalancers:\n{}", "- {nme: x}\n".repeat(2_000));
    let output = run(&["check", "-"], &file);
    let said = text(&output);
    assert_eq!(said.matches("error: ").count(), 100, "{said}");
    assert!(said.contains("more problems like these"), "{said}");
    assert!(said.len() < 60_000, "{}", said.len());
    let long = format!(
        "{{\"defaults\": {{\"timeout\": \"{}\"}}}}",
        "x".repeat(1_000_000)
    );
    let output = run(&["check", "-"], &long);
    assert!(text(&output).len() < 5_000, "{}", text(&output).len());
    assert!(text(&output).contains("<stdin>:1:26"), "{}", text(&output));
}

#[test]
fn a_neighbours_plugin_is_never_an_error_and_a_misspelled_field_makes_none() {
    let plugin = |name: &str, url: &str, configuration: &str| {
        format!(
            "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: {name}, labels: {{app: trusted-lb}}}}\n\
             spec:\n  url: {url}\n  pluginConfig: {configuration}\n"
        )
    };
    for (name, url, configuration) in [
        (
            "waf",
            "oci://registry.example.com/waf:1",
            "{mode: report, routes: [{prefix: /a}]}",
        ),
        (
            "waf",
            "oci://registry.example.com/trusted-lb-stack/waf:1",
            "{x: 1}",
        ),
        (
            "waf-beside-trusted-lb",
            "oci://registry.example.com/waf:1",
            "{rules: []}",
        ),
        (
            "limits",
            "oci://registry.example.com/limits:1",
            "{defaults: {per_minute: 5}}",
        ),
        ("limits", "oci://registry.example.com/limits:1", "text"),
    ] {
        let output = run(&["check", "-"], &plugin(name, url, configuration));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert!(
            text(&output).contains("0 configurations, 0 errors"),
            "{}",
            text(&output)
        );
    }
    for (name, url, configuration) in [
        (
            "trusted-lb",
            "oci://mirror.example.com/plugin-17",
            "{defalts: {timeout: 15s}}",
        ),
        (
            "edge",
            "oci://mirror.example.com/trusted_lb@sha256:00",
            "{mod: shadow}",
        ),
        (
            "edge",
            "oci://mirror.example.com/plugin-17",
            "{trustedLoadBalancer: []}",
        ),
        (
            "edge",
            "oci://mirror.example.com/plugin-17",
            "{trusted_load_balancers: []}",
        ),
        (
            "edge",
            "https://files.example.com/trusted_lb-0.1.0.wasm?x=1",
            "{}",
        ),
    ] {
        let output = run(&["check", "-"], &plugin(name, url, configuration));
        assert!(
            text(&output).contains("1 configuration,"),
            "{}",
            text(&output)
        );
        if configuration != "{}" {
            assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        }
    }
}

#[test]
fn machines_get_lines_and_columns_of_the_outer_file() {
    let inner = "{\n  \"defaults\": {\n    \"timeout\": 15\n  }\n}";
    let json = json!({"name": "trusted-lb", "typed_config": {"@type": WASM, "config":
        {"configuration": {"@type": STRING, "value": inner}}}});
    let one_line = json.to_string();
    let column = one_line.find(": 15").expect("it is there") + 3;
    let mut block = format!(
        "name: trusted-lb\ntyped_config:\n  \"@type\": {WASM}\n  config:\n    configuration:\n      \"@type\": {STRING}\n      value: |\n"
    );
    for line in inner.lines() {
        let _ = writeln!(block, "        {line}");
    }
    for (file, line, column) in [(one_line, 1, column), (block, 10, 24)] {
        let output = run(&["check", "--format", "json", "-"], &file);
        let found: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
        let found = &found[0];
        assert_eq!(
            (&found["file"], &found["line"], &found["column"]),
            (&json!("<stdin>"), &json!(line), &json!(column)),
            "{found}"
        );
        let output = run(&["check", "--format", "github", "-"], &file);
        let expected = format!(
            "::error file=<stdin>,line={line},col={column},title=trusted-lb configuration::defaults.timeout: "
        );
        assert!(text(&output).contains(&expected), "{}", text(&output));
        let output = run(&["check", "--format", "sarif", "-"], &file);
        let log: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
        let region = &log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"];
        assert_eq!(
            (&region["startLine"], &region["startColumn"]),
            (&json!(line), &json!(column)),
            "{log}"
        );
    }
}

#[test]
fn a_folder_is_read_whole_and_summed_up_by_file() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it lies in a folder"))
            .expect("it can be made");
        let mut file = std::fs::File::create(path).expect("it can be made");
        file.write_all(text.as_bytes()).expect("it can be written");
    };
    let good = "defaults: {timeout: 15s}\nuntrusted: {}\n";
    write("a/good.yaml", good);
    write("a/b/wrong.yml", "defaults: {timeout: 15}\n");
    write("a/tsconfig.json", "{ // comment\n}");
    write("a/chart/templates/x.yaml", "a: {{ .Values.x }}\n");
    write(
        "a/service.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: trusted-lb}\n",
    );
    write(
        "a/more.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n",
    );
    write("a/binary.json", "{\"a\": \"\u{0}\"");
    let path = folder.path().display().to_string();
    let output = run(&["check", &path], "");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("a/good.yaml: 1 configuration, 0 errors"),
        "{said}"
    );
    assert!(
        said.contains("a/b/wrong.yml: 1 configuration, 1 error"),
        "{said}"
    );
    assert!(
        said.contains("5 files without trusted-lb\n2 configurations, 1 error,"),
        "{said}"
    );
    // Named by itself, a file that can't be read is an error.
    let output = run(&["check", &format!("{path}/a/chart/templates/x.yaml")], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("helm template"), "{}", text(&output));
}

/// Of a thousand plugins each is looked at beside every resource, of more only the first ones.
#[test]
fn plugins_beyond_a_thousand_are_judged_by_themselves_and_check_says_so() {
    for (number, said) in [(1_000, false), (1_001, true)] {
        let mut file = String::new();
        for index in 0..number {
            let _ = write!(
                file,
                "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: trusted-lb, namespace: ns{index}}}\n\
                 spec:\n  selector: {{matchLabels: {{istio: ingressgateway}}}}\n  url: oci://registry.example.com/trusted-lb:0.1.0\n  \
                 phase: AUTHN\n  pluginConfig: {{defaults: {{timeout: 15s}}}}\n---\n"
            );
        }
        let output = text(&run(&["check", "--format", "json", "-"], &file));
        assert_eq!(output.contains("too-many-plugins"), said, "{number}");
    }
}
