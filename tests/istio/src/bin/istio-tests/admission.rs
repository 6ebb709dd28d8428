//! `trusted-lb render admission-policy` in a real API server.

use std::collections::BTreeSet;
use std::process::Command;

use istio_lab::lab::Lab;
use istio_lab::manifest::{NAMESPACE, text};
use istio_lab::report::Test;
use istio_lab::wait;
use serde_json::{Value, json};
use testkit::artifacts::repository;
use testkit::cases;

pub const TESTS: &[Test<Lab>] = &[
    (
        "the admission policy takes every good configuration, and refuses the bad ones but those that need arithmetic",
        every_configuration,
    ),
    (
        "the admission policy names the value, knows TrafficExtension, and leaves others' plugins alone",
        messages,
    ),
    (
        "the admission policy takes ten thousand blocks",
        ten_thousand_blocks,
    ),
];

/// Refused configurations of tests/configurations that the policy takes, and why it can't tell.
const BEYOND_THE_POLICY: &[(&str, &str)] = &[
    ("trust-together", "arithmetic on addresses"),
    ("overwritten-signal", "one field against another"),
    ("contradicted-signals", "one field against another"),
];

/// Applies what `trusted-lb render admission-policy` prints, and waits until it is in force.
fn put_in_force(lab: &Lab) {
    let output = Command::new(&lab.programs.command)
        .args(["render", "admission-policy"])
        .output()
        .expect("the command can be run");
    assert!(output.status.success());
    let policy = String::from_utf8(output.stdout).expect("it is text");
    lab.cluster
        .try_run(&["apply", "--server-side", "-f", "-"], &policy)
        .unwrap_or_else(|error| panic!("the API server takes it: {error}"));
    let bad = wasm_plugin("bad", &json!({"mode": "of-a-kind"}));
    wait::until_true("the policy is in force", || {
        lab.cluster
            .would_create(&text(std::slice::from_ref(&bad)))
            .0
            .is_empty()
    });
}

fn take_away(lab: &Lab) {
    for kind in [
        "validatingadmissionpolicybindings",
        "validatingadmissionpolicies",
    ] {
        lab.cluster
            .run(&["delete", kind, "trusted-lb", "--ignore-not-found"]);
    }
    let bad = wasm_plugin("bad", &json!({"mode": "of-a-kind"}));
    wait::until_true("the policy is gone", || {
        !lab.cluster
            .would_create(&text(std::slice::from_ref(&bad)))
            .0
            .is_empty()
    });
}

fn wasm_plugin(name: &str, configuration: &Value) -> Value {
    json!({
        "apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"url": "oci://registry.example.com/trusted-lb:0.1.0", "pluginConfig": configuration},
    })
}

/// The configurations in a folder of tests/configurations, by file name: those that stand in no manifest.
fn configurations(folder: &str) -> Vec<(String, Value)> {
    let folder = repository().join("tests/configurations").join(folder);
    let mut all: Vec<(String, Value)> = std::fs::read_dir(folder)
        .expect("it can be listed")
        .filter_map(|entry| {
            let path = entry.expect("it can be listed").path();
            let name = path.file_stem()?.to_string_lossy().into_owned();
            if path.extension()? != "yaml" {
                return None;
            }
            let text = std::fs::read_to_string(&path).ok()?;
            let documents: Vec<Value> = serde_saphyr::from_multiple(&text).ok()?;
            let first = documents.into_iter().next()?;
            // kubectl and Istio's own schema refuse everything but an object.
            let fields = first.as_object()?;
            let plain =
                !fields.contains_key("apiVersion") && !fields.contains_key("static_resources");
            plain.then_some((name, first))
        })
        .collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

fn every_configuration(lab: &mut Lab) {
    put_in_force(lab);
    let mut good = configurations("accepted");
    good.extend(configurations("warned"));
    for (_, groups) in cases::all() {
        for group in groups {
            let name = format!("case-{}", good.len());
            good.push((name, group.config));
        }
    }
    let names: BTreeSet<String> = good.iter().map(|(name, _)| name.clone()).collect();
    let plugins: Vec<Value> = good
        .iter()
        .map(|(name, one)| wasm_plugin(name, one))
        .collect();
    let (taken, said) = lab.cluster.would_create(&text(&plugins));
    let refused: Vec<&String> = names.iter().filter(|name| !taken.contains(name)).collect();
    assert!(refused.is_empty(), "{refused:?}\n{said}");
    assert!(names.len() > 50, "only {} configurations", names.len());
    let bad = configurations("refused");
    let plugins: Vec<Value> = bad
        .iter()
        .map(|(name, one)| wasm_plugin(name, one))
        .collect();
    let (taken, said) = lab.cluster.would_create(&text(&plugins));
    let taken: BTreeSet<&str> = taken.iter().map(String::as_str).collect();
    let beyond: BTreeSet<&str> = BEYOND_THE_POLICY.iter().map(|(name, _)| *name).collect();
    assert_eq!(taken, beyond, "{said}");
    assert!(bad.len() >= 30, "only {} configurations", bad.len());
    // Each by what is wrong with it, not because CEL gave up.
    for line in said.lines().filter(|line| line.contains("denied request")) {
        assert!(!line.contains("resulted in error"), "{line}");
    }
    take_away(lab);
}

fn rule(block: &str) -> Value {
    json!({"trustedLoadBalancers": [{
        "name": "lb", "match": {"ipBlocks": [block]}, "forwardedProto": {"default": "https"},
    }]})
}

fn messages(lab: &mut Lab) {
    put_in_force(lab);
    let said = |plugin: &Value| {
        lab.cluster
            .would_create(&text(std::slice::from_ref(plugin)))
    };
    for (configuration, wanted) in [
        (
            rule("10.0.12.0/33"),
            "trustedLoadBalancers[].match.ipBlocks[]: 10.0.12.0/33 is not: CIDR, address or named set",
        ),
        (rule("10.0.12.5/24"), "10.0.12.5/24 is not"),
        (
            json!({"trustedLoadBalancer": []}),
            "there is no field trustedLoadBalancer",
        ),
        (
            json!({"defaults": {"timeout": 15}}),
            "defaults.timeout: 15 is none of: inherit, duration",
        ),
        (
            json!({"defaults": {"timeout": "15 seconds"}}),
            "defaults.timeout: 15 seconds is none of",
        ),
        (
            json!({"trustedLoadBalancers": [{"match": {"ipBlocks": ["10.0.0.1"]}, "forwardedProto": {"default": "https"}}]}),
            "trustedLoadBalancers[]: name is missing",
        ),
    ] {
        let (taken, said) = said(&wasm_plugin("trusted-lb", &configuration));
        assert!(taken.is_empty(), "{configuration} is taken");
        assert!(said.contains(wanted), "wanted {wanted:?}, found {said}");
    }
    let mut without = wasm_plugin("trusted-lb", &json!({}));
    without["spec"] = json!({"url": "oci://registry.example.com/trusted-lb:0.1.0"});
    assert!(said(&without).1.contains("pluginConfig is missing"));
    let extension = |configuration: Value| {
        json!({
            "apiVersion": "extensions.istio.io/v1alpha1", "kind": "TrafficExtension",
            "metadata": {"name": "ours", "namespace": NAMESPACE},
            "spec": {"wasm": {"url": "oci://registry.example.com/trusted-lb:0.1.0", "pluginConfig": configuration}},
        })
    };
    assert_eq!(said(&extension(rule("10.0.12.0/24"))).0, ["ours"]);
    assert!(
        said(&extension(rule("10.0.12.0/33")))
            .1
            .contains("10.0.12.0/33 is not")
    );
    let mut others = wasm_plugin("basic-auth", &json!({"rules": [1]}));
    others["spec"]["url"] = json!("oci://registry.example.com/basic-auth:1");
    assert_eq!(said(&others).0, ["basic-auth"]);
    take_away(lab);
}

fn ten_thousand_blocks(lab: &mut Lab) {
    put_in_force(lab);
    let blocks: Vec<String> = (0..10_000)
        .map(|n| format!("10.{}.{}.0/24", n / 256, n % 256))
        .collect();
    let mut configuration = rule("10.0.0.0/24");
    configuration["trustedLoadBalancers"][0]["match"]["ipBlocks"] = json!(blocks);
    let plugin = wasm_plugin("many", &configuration);
    let (taken, said) = lab
        .cluster
        .would_create(&text(std::slice::from_ref(&plugin)));
    assert_eq!(taken, ["many"], "{said}");
    // And still finds the one that is wrong.
    configuration["trustedLoadBalancers"][0]["match"]["ipBlocks"][9_999] = json!("10.39.15.0/42");
    let plugin = wasm_plugin("many", &configuration);
    let (taken, said) = lab
        .cluster
        .would_create(&text(std::slice::from_ref(&plugin)));
    assert!(taken.is_empty() && said.contains("10.39.15.0/42"), "{said}");
    take_away(lab);
}
