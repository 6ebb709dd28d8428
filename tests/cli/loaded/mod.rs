//! What is meant against what a gateway has loaded. The dumps are those of a real Istio (1.31 in development, Envoy
//! 1.40) and a real Envoy Gateway (1.9.1) with these manifests, cut down to what matters here.

use serde_json::{Map, Value, json};
use testkit::artifacts::repository;

use crate::command::{read, run, text};

/// A file in this folder.
fn file(name: &str) -> String {
    read(&repository().join("tests/cli/loaded").join(name))
}

fn replaced(original: &str, old: &str, new: &str) -> String {
    assert!(original.contains(old), "there is no {old}");
    original.replacen(old, new, 1)
}

/// Checks files of these texts together.
fn check(texts: &[&str], format: &str) -> std::process::Output {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let mut arguments = vec!["check".to_owned(), "--format".to_owned(), format.to_owned()];
    for (index, text) in texts.iter().enumerate() {
        let path = folder.path().join(format!("{index}.yaml"));
        std::fs::write(&path, text).expect("it can be written");
        arguments.push(path.display().to_string());
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    run(&arguments, "")
}

/// Severity, code and path of each finding.
fn findings(texts: &[&str]) -> Vec<String> {
    list(texts)
        .iter()
        .map(|one| format!("{} {} {}", one["severity"], one["code"], one["path"]).replace('"', ""))
        .map(|line| line.trim().to_owned())
        .collect()
}

fn list(texts: &[&str]) -> Vec<Value> {
    let output = check(texts, "json");
    let list: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    list.as_array().expect("a list").clone()
}

/// The message of the only finding.
fn message(texts: &[&str]) -> String {
    let list = list(texts);
    assert_eq!(list.len(), 1, "{list:?}");
    list[0]["message"].as_str().expect("text").to_owned()
}

const NONE: [&str; 0] = [];

#[test]
fn a_plugin_in_every_form_is_recognised_as_loaded() {
    for (name, title) in [
        ("wasmplugin", "WasmPlugin istio-ingress/trusted-lb"),
        (
            "trafficextension",
            "TrafficExtension istio-ingress/trusted-lb",
        ),
        ("envoyfilter", "EnvoyFilter istio-ingress/trusted-lb"),
        ("envoy-gateway", "EnvoyExtensionPolicy default/trusted-lb"),
    ] {
        let (plugin, dump) = (file(&format!("{name}.yaml")), file(&format!("{name}.json")));
        assert_eq!(findings(&[&plugin, &dump]), NONE, "{name}");
        let said = text(&check(&[&plugin, &dump], "text"));
        assert!(
            said.contains(&format!(": {title} is loaded as meant")),
            "{said}"
        );
        assert!(said.contains("1 configuration, 0 errors"), "{said}");
        // Of others' listeners nothing is said.
        assert_eq!(
            findings(&[&dump, &plugin]),
            NONE,
            "{name}, the other way round"
        );
    }
}

#[test]
fn every_field_that_differs_is_named_and_another_way_to_write_it_is_no_difference() {
    let (plugin, dump) = (file("wasmplugin.yaml"), file("wasmplugin.json"));
    let same = replaced(&plugin, "timeout: 15s", "timeout: 15000ms");
    assert_eq!(findings(&[&same, &dump]), NONE);
    let newer = replaced(&plugin, "timeout: 15s", "timeout: 20s");
    assert_eq!(
        findings(&[&newer, &dump]),
        ["error loaded-differently defaults.timeout"]
    );
    assert!(message(&[&newer, &dump]).ends_with("with defaults.timeout 15s instead of 20s"));
    let newer = replaced(
        &newer,
        "    defaults:\n",
        "    mode: shadow\n    defaults:\n",
    );
    assert!(
        message(&[&newer, &dump])
            .ends_with("with mode left out (meant: shadow), defaults.timeout 15s instead of 20s")
    );
    let other = replaced(
        &plugin,
        "ipBlocks: [10.0.12.0/24, 10.0.13.0/24]",
        "ipBlocks: [10.0.12.0/24]",
    );
    assert!(message(&[&other, &dump]).ends_with(
        "trustedLoadBalancers[0].match.ipBlocks [10.0.12.0/24, 10.0.13.0/24] instead of [10.0.12.0/24]"
    ));
    let more = replaced(
        &plugin,
        "    defaults:\n",
        "    - name: second\n      match: {ipBlocks: [10.0.14.0/24]}\n      forwardedProto: {default: https}\n    defaults:\n",
    );
    assert!(message(&[&more, &dump]).contains("trustedLoadBalancers[1] left out"));
}

#[test]
fn a_configuration_that_the_module_refuses_is_not_taken_for_loaded_because_the_dump_has_it() {
    let (plugin, dump) = (file("wasmplugin.yaml"), file("refused-configuration.json"));
    assert_eq!(findings(&[&plugin, &dump]), ["error update-refused"]);
    let said = message(&[&plugin, &dump]);
    assert!(said.contains("did you mean peerAddress?"), "{said}");
    assert!(
        said.contains("defaults.timeout 15 instead of 15s"),
        "{said}"
    );
    // The file that was refused: the file's own faults are named as well.
    let faulty = replaced(&plugin, "timeout: 15s", "timeout: 15");
    let faulty = replaced(&faulty, "peerAddress", "peerAdress");
    assert_eq!(
        findings(&[&faulty, &dump]),
        [
            "error update-refused",
            "error configuration peerAdress",
            "error configuration defaults.timeout",
        ]
    );
}

#[test]
fn a_listener_that_envoy_refuses_is_told_with_envoys_words() {
    let (plugin, dump) = (file("refused-listener.yaml"), file("refused-listener.json"));
    assert_eq!(
        findings(&[&plugin, &dump]),
        [
            "error update-refused",
            "error configuration defaults.timeout"
        ]
    );
    let right = replaced(&plugin, r#""timeout": "15""#, r#""timeout": "15s""#);
    let said = message(&[&right, &dump]);
    assert!(
        said.contains("Unable to create Wasm plugin istio-ingress.trusted-lb"),
        "{said}"
    );
    assert!(said.contains("at 2026-"), "{said}");
    // A refusal of something else says nothing of this plugin.
    let mut value: Value = serde_json::from_str(&dump).expect("JSON");
    for part in value["configs"].as_array_mut().expect("a list") {
        for listener in part["dynamic_listeners"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            if let Some(state) = listener.get_mut("error_state") {
                state["failed_configuration"] = json!({"name": "0.0.0.0_9443"});
            }
        }
    }
    assert_eq!(findings(&[&right, &value.to_string()]), NONE);
    // An extension's refusal, where Envoy tells it.
    let dump = replaced(
        &file("wasmplugin.json"),
        "\"last_updated\": \"2026-11-26T12:04:05.096Z\"\n",
        "\"error_state\": {\"details\": \"no such module\", \"last_update_attempt\": \"2026-11-26T12:10:00Z\"}\n",
    );
    let said = message(&[&file("wasmplugin.yaml"), &dump]);
    assert!(
        said.contains("at 2026-11-26T12:10:00Z: no such module"),
        "{said}"
    );
}

#[test]
fn a_module_that_the_agent_could_not_fetch_denies_everybody_or_lets_everybody_pass() {
    let (plugin, dump) = (file("wasmplugin.yaml"), file("not-fetched.json"));
    assert_eq!(findings(&[&plugin, &dump]), ["error module-not-fetched"]);
    assert!(message(&[&plugin, &dump]).contains("answers every request with 403"));
    let open = replaced(&dump, "wasm-default-deny", "wasm-default-allow");
    assert!(message(&[&plugin, &open]).contains("lets every request pass"));
}

#[test]
fn another_module_is_told_by_its_digest_and_by_where_it_comes_from() {
    let (plugin, dump) = (file("wasmplugin.yaml"), file("wasmplugin.json"));
    let digest = "43467d514747e801c069ca10080de9cf61b2a92ebbb2e1730b4dc5f1f469bb6c";
    let other = "ab".repeat(32);
    let url = "url: oci://registry.example.com/trusted-lb:0.1.0";
    let with = |new: &str| findings(&[&replaced(&plugin, url, new), &dump]);
    assert_eq!(with(&format!("{url}\n  sha256: {digest}")), NONE);
    assert_eq!(
        with(&format!("{url}\n  sha256: {other}")),
        ["error other-module"]
    );
    assert_eq!(
        with(&format!(
            "url: registry.example.com/trusted-lb@sha256:{digest}"
        )),
        NONE
    );
    assert_eq!(
        with(&format!(
            "url: registry.example.com/trusted-lb@sha256:{other}"
        )),
        ["error other-module"]
    );
    assert_eq!(
        with("url: oci://mirror.example.com/trusted-lb:0.1.0"),
        ["error other-module"]
    );
}

#[test]
fn what_else_decides_how_it_is_loaded_is_compared() {
    let (plugin, dump) = (file("wasmplugin.yaml"), file("wasmplugin.json"));
    let open = replaced(
        &plugin,
        "failStrategy: FAIL_CLOSE",
        "failStrategy: FAIL_RELOAD",
    );
    assert_eq!(findings(&[&open, &dump]), ["error loaded-differently"]);
    let variable = replaced(
        &plugin,
        "  pluginConfig:",
        "  vmConfig: {env: [{name: ORIGIN_SECRET, valueFrom: HOST}]}\n  pluginConfig:",
    );
    assert!(message(&[&variable, &dump]).ends_with("it doesn't get the variable ORIGIN_SECRET"));
}

#[test]
fn a_plugin_is_missing_only_where_it_is_meant_and_a_dump_keeps_what_no_listener_has() {
    let (plugin, dump) = (file("wasmplugin.yaml"), file("no-longer-loaded.json"));
    assert!(dump.contains("istio-ingress.trusted-lb~istio-translated-wasmplugin"));
    let missing = "error not-loaded";
    assert_eq!(findings(&[&plugin, &dump]), [missing]);
    for (old, new) in [
        ("istio: ingressgateway", "istio: other"),
        ("namespace: istio-ingress", "namespace: other"),
    ] {
        assert_eq!(findings(&[&replaced(&plugin, old, new), &dump]), NONE);
    }
    // In Istio's root namespace it is for all.
    let of_root = replaced(
        &plugin,
        "namespace: istio-ingress",
        "namespace: istio-system",
    );
    assert_eq!(findings(&[&of_root, &dump]), [missing]);
    // The dump alone has no plugin that serves.
    assert_eq!(findings(&[&dump]), ["warning nothing-found"]);
}

#[test]
fn a_listener_without_the_plugin_is_named_unless_its_port_is_left_out() {
    let plugin = file("wasmplugin.yaml");
    let mut dump: Value = serde_json::from_str(&file("wasmplugin.json")).expect("JSON");
    let mut parts = dump["configs"].as_array_mut().expect("a list").iter_mut();
    let part = parts
        .find(|part| part["dynamic_listeners"].is_array())
        .expect("it is there");
    let listener = &mut part["dynamic_listeners"][1]["active_state"]["listener"];
    let filters = &mut listener["filter_chains"][0]["filters"];
    let filters = filters.as_array_mut().expect("a list").iter_mut();
    for filter in filters {
        if let Some(list) = filter["typed_config"]["http_filters"].as_array_mut() {
            list.remove(0);
        }
    }
    let dump = dump.to_string();
    assert_eq!(findings(&[&plugin, &dump]), ["error not-loaded"]);
    assert!(message(&[&plugin, &dump]).contains("in the listener 0.0.0.0_8443 of gateway"));
    let one_port = replaced(
        &plugin,
        "- mode: CLIENT_AND_SERVER",
        "- {mode: CLIENT_AND_SERVER, ports: [{number: 8080}]}",
    );
    assert_eq!(findings(&[&one_port, &dump]), NONE);
}

#[test]
fn a_plugin_that_no_file_has_is_named() {
    let (plugin, dump) = (file("wasmplugin.yaml"), file("wasmplugin.json"));
    let renamed = replaced(&plugin, "name: trusted-lb", "name: edge");
    let renamed = replaced(&renamed, "timeout: 15s", "timeout: 25s");
    assert_eq!(
        findings(&[&renamed, &dump]),
        ["error not-loaded", "warning loaded-not-meant"]
    );
    let for_others = replaced(&plugin, "istio: ingressgateway", "istio: other");
    assert_eq!(
        findings(&[&for_others, &dump]),
        ["warning loaded-not-meant"]
    );
    assert!(
        message(&[&for_others, &dump])
            .ends_with("WasmPlugin istio-ingress/trusted-lb isn't for it")
    );
}

#[test]
fn what_a_listener_waits_for_is_not_loaded() {
    let mut dump: Value = serde_json::from_str(&file("wasmplugin.json")).expect("JSON");
    for part in dump["configs"].as_array_mut().expect("a list") {
        if part["ecds_filters"].is_array() {
            part["ecds_filters"] = json!([]);
        }
    }
    let said = message(&[&file("wasmplugin.yaml"), &dump.to_string()]);
    assert!(
        said.contains("waits for WasmPlugin istio-ingress/trusted-lb"),
        "{said}"
    );
}

#[test]
fn the_connection_manager_of_the_dump_is_the_one_that_the_plugin_runs_in() {
    let (plugin, dump) = (file("wasmplugin.yaml"), file("wasmplugin.json"));
    let without = dump.replace("trusted_lb.peer", "another.key");
    assert_eq!(
        findings(&[&plugin, &without]),
        ["error configuration peerAddress"]
    );
    let auto = replaced(&plugin, "peerAddress: filterState", "peerAddress: auto");
    let dump = replaced(
        &dump,
        r#"\"peerAddress\":\"filterState\""#,
        r#"\"peerAddress\":\"auto\""#,
    );
    assert_eq!(findings(&[&auto, &dump]), NONE);
    let hops = dump.replace(
        "\"use_remote_address\": true",
        "\"use_remote_address\": true, \"xff_num_trusted_hops\": 1",
    );
    assert_eq!(
        findings(&[&auto, &hops]),
        ["warning configuration peerAddress"]
    );
}

/// The names of fields as istioctl prints them, which is protobuf's own JSON form.
fn camel_case(value: &Value) -> Value {
    let name = |name: &str| -> String {
        if name.starts_with('@') || name.to_uppercase() == name || name.contains(['/', '.']) {
            return name.to_owned();
        }
        let mut parts = name.split('_');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |out, part| {
            let (head, tail) = part.split_at(part.len().min(1));
            format!("{out}{}{tail}", head.to_uppercase())
        })
    };
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(field, inner)| (name(field), camel_case(inner)))
                .collect::<Map<_, _>>(),
        ),
        Value::Array(items) => items.iter().map(camel_case).collect(),
        other => other.clone(),
    }
}

#[test]
fn the_parts_that_istioctl_and_egctl_print_are_read_together() {
    let plugin = file("wasmplugin.yaml");
    let dump: Value = serde_json::from_str(&file("wasmplugin.json")).expect("JSON");
    let parts = dump["configs"].as_array().expect("a list");
    let part = |kind: &str| {
        let is_it = |part: &&Value| part["@type"].as_str().is_some_and(|it| it.ends_with(kind));
        let mut part = camel_case(parts.iter().find(is_it).expect("it is there"));
        part.as_object_mut()
            .expect("an object")
            .shift_remove("@type");
        part
    };
    let extensions = part(".EcdsConfigDump").to_string();
    let bootstrap = part(".BootstrapConfigDump").to_string();
    let listeners: Value = part(".ListenersConfigDump")["dynamicListeners"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["activeState"]["listener"].clone())
        .collect();
    let listeners = listeners.to_string();
    let all = [plugin.as_str(), &listeners, &extensions, &bootstrap];
    assert_eq!(findings(&all), NONE);
    assert!(text(&check(&all, "text")).contains("gateway istio-ingress/gateway-1: WasmPlugin"));
    // One plugin is meant for whatever gateway that is.
    assert_eq!(findings(&[&plugin, &extensions]), NONE);
    let newer = replaced(&plugin, "timeout: 15s", "timeout: 20s");
    assert_eq!(
        findings(&[&newer, &listeners, &extensions]),
        ["error loaded-differently defaults.timeout"]
    );
    // Of two it can't be told.
    let other = replaced(&plugin, "istio: ingressgateway", "istio: other");
    let other = replaced(&other, "name: trusted-lb", "name: other");
    assert_eq!(
        findings(&[&plugin, &other, &listeners, &extensions]),
        ["warning whose-dump"]
    );
    assert_eq!(
        findings(&[&plugin, &other, &listeners, &extensions, &bootstrap]),
        NONE
    );

    // By namespace and pod, as egctl prints them.
    let policy = file("envoy-gateway.yaml");
    let dump: Value = serde_json::from_str(&file("envoy-gateway.json")).expect("JSON");
    let by_pod = json!({"envoy-gateway-system": {"envoy-public-1": camel_case(&dump)}}).to_string();
    assert_eq!(findings(&[&policy, &by_pod]), NONE);
    let newer = replaced(&policy, "timeout: 15s", "timeout: 20s");
    assert_eq!(
        findings(&[&newer, &by_pod]),
        ["error loaded-differently defaults.timeout"]
    );
    let elsewhere = replaced(&policy, "namespace: default", "namespace: other");
    assert_eq!(
        findings(&[&elsewhere, &by_pod])[0],
        "warning loaded-not-meant"
    );
}

#[test]
fn every_gateway_is_compared_by_itself() {
    let plugin = file("wasmplugin.yaml");
    let one = file("wasmplugin.json");
    let two = file("no-longer-loaded.json").replace("gateway-1", "gateway-2");
    assert_eq!(findings(&[&plugin, &one, &two]), ["error not-loaded"]);
    assert!(message(&[&plugin, &one, &two]).ends_with("gateway istio-ingress/gateway-2"));
    // A configuration alone is compared with whatever is loaded.
    let alone = "peerAddress: filterState\ntrustedLoadBalancers:\n- name: public-alb\n  match: {ipBlocks: [10.0.12.0/24]}\n  \
                 forwardedProto: {default: https}\n";
    assert_eq!(
        findings(&[alone, &one]),
        ["error loaded-differently trustedLoadBalancers[0].match.ipBlocks"]
    );
}
