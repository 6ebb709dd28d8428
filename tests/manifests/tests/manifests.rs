//! The manifests, read as Istio reads them and loaded as its gateways load them.

// Tests end where something is not as expected.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use manifests::gateway::Gateway;
use manifests::resource::{self, Resource};
use serde_json::{Value, json};
use testkit::artifacts::repository;
use testkit::cases::ClientRequest;
use testkit::envoy::{self, Envoy};
use testkit::http::{self, Response};
use testkit::upstream::Upstream;

const LB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

fn text(file: &str) -> String {
    std::fs::read_to_string(repository().join(file))
        .unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Files below a folder with an ending.
fn below(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder can be listed") {
        let path = entry.expect("the folder can be listed").path();
        if path.is_dir() {
            found.extend(below(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A manifest of envoyfilter/, with loopback addresses for the load balancer's subnets.
fn manifest(file: &str) -> Vec<Resource> {
    let text = text(&format!("envoyfilter/{file}"));
    let here = text
        .replace("10.0.12.0/24", "127.0.0.2/32")
        .replace("10.0.13.0/24", "127.0.0.3/32");
    resource::read(&here).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A gateway with everything in a manifest.
fn gateway_with(file: &str, upstream: SocketAddr) -> Gateway {
    let mut gateway = Gateway::new(upstream);
    add(&mut gateway, file);
    gateway
}

fn add(gateway: &mut Gateway, file: &str) {
    for resource in manifest(file) {
        match resource {
            Resource::WasmPlugin(plugin) => gateway.load(&plugin),
            Resource::EnvoyFilter(filter) => gateway.patch(&filter),
            other => panic!("{file}: {other:?}"),
        }
    }
}

fn started(gateway: &Gateway, environment: &[(&str, &str)]) -> Envoy {
    let variable = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let environment = environment.iter().map(variable).collect();
    Envoy::start_with_environment(&gateway.bootstrap(), &environment)
}

fn send(envoy: &Envoy, request: &ClientRequest) -> Response {
    let response = http::send(envoy.listener("gateway"), request).expect("the gateway answers");
    assert_eq!(response.status, 200, "{response:?}");
    response
}

fn get(peer: IpAddr) -> ClientRequest {
    ClientRequest::get(peer, "app.example.com", "/")
}

/// What the upstream is told of the scheme.
fn scheme(envoy: &Envoy, request: &ClientRequest) -> String {
    send(envoy, request)
        .received_one("x-forwarded-proto")
        .expect("it is always there")
}

#[test]
fn every_resource_of_istios_is_one_that_istio_reads() {
    let root = repository();
    let mut kinds = BTreeMap::new();
    let mut read = |place: &str, text: &str| {
        let resources = resource::read(text).unwrap_or_else(|error| panic!("{place}: {error}"));
        for resource in resources {
            let kind = match resource {
                Resource::WasmPlugin(_) => "WasmPlugin",
                Resource::EnvoyFilter(_) => "EnvoyFilter",
                Resource::VirtualService => "VirtualService",
                Resource::Gateway => "Gateway",
                Resource::Other(_) => continue,
            };
            *kinds.entry(kind).or_insert(0) += 1;
        }
    };
    for folder in ["envoyfilter", "examples"] {
        for file in below(&root.join(folder), ".yaml") {
            let text = std::fs::read_to_string(&file).expect("it can be read");
            read(&file.display().to_string(), &text);
        }
    }
    let mut documents = vec![root.join("README.md")];
    for folder in ["docs", "envoyfilter", "examples"] {
        documents.extend(below(&root.join(folder), ".md"));
    }
    for file in documents {
        let text = std::fs::read_to_string(&file).expect("it can be read");
        for block in text.split("```yaml\n").skip(1) {
            let block = block.split("```").next().expect("a block ends");
            read(&file.display().to_string(), block);
        }
    }
    assert!(
        kinds["WasmPlugin"] >= 4 && kinds["EnvoyFilter"] >= 4,
        "{kinds:?}"
    );
}

#[test]
fn mistyped_keys_and_words_are_found() {
    for (file, right, wrong, found) in [
        (
            "wasmplugin.yaml",
            "failStrategy:",
            "failStrategie:",
            "there is no spec.failStrategie",
        ),
        (
            "wasmplugin.yaml",
            "matchLabels:",
            "matchLabel:",
            "there is no spec.selector.?.matchLabel",
        ),
        (
            "wasmplugin.yaml",
            "- mode:",
            "- modus:",
            "there is no spec.match.?.0.modus",
        ),
        (
            "wasmplugin.yaml",
            "  namespace:",
            "  namspace:",
            "there is no metadata.namspace",
        ),
        (
            "wasmplugin.yaml",
            "FAIL_CLOSE\n",
            "FAIL_CLOSED\n",
            "unknown variant `FAIL_CLOSED`",
        ),
        (
            "wasmplugin.yaml",
            "  url:",
            "  image:",
            "missing field `url`",
        ),
        (
            "wasmplugin.yaml",
            "kind: WasmPlugin",
            "kind: WasmPlugins",
            "has no WasmPlugins",
        ),
        (
            "trafficextension.yaml",
            "  wasm:",
            "  wasn:",
            "there is no spec.wasm",
        ),
        (
            "trafficextension.yaml",
            "    failStrategy:",
            "    failStrategie:",
            "there is no spec.failStrategie",
        ),
        (
            "wasmplugin-gateway-api.yaml",
            "valueFrom:",
            "valuefrom:",
            "there is no spec.vmConfig.?.env.?.0.valuefrom",
        ),
        (
            "envoyfilter.yaml",
            "configPatches:",
            "configPatch:",
            "there is no spec.configPatch",
        ),
        (
            "envoyfilter.yaml",
            "operation: ADD",
            "operatoin: ADD",
            "there is no spec.configPatches.?.0.patch.?.operatoin",
        ),
        (
            "envoyfilter.yaml",
            "INSERT_FIRST",
            "FIRST",
            "unknown variant `FIRST`",
        ),
    ] {
        let text = text(&format!("envoyfilter/{file}"));
        let mistyped = text.replacen(right, wrong, 1);
        assert_ne!(text, mistyped, "{file} has no {right}");
        let error = resource::read(&mistyped).map(|_| ()).expect_err(wrong);
        assert!(error.contains(found), "{file}: {wrong}: {error}");
    }
}

#[test]
fn what_the_manifests_configure_is_accepted_without_a_warning() {
    let mut configurations = 0;
    for file in below(&repository().join("envoyfilter"), ".yaml") {
        for resource in resource::read(&std::fs::read_to_string(&file).expect("it can be read"))
            .expect("it is read")
        {
            let mut texts = Vec::new();
            match resource {
                Resource::WasmPlugin(plugin) => {
                    texts.push(json!(plugin.spec.plugin_config).to_string())
                }
                Resource::EnvoyFilter(filter) => embedded(&json!(filter.spec), &mut texts),
                _ => {}
            }
            for text in texts {
                let problems = trusted_lb::config::load(text.as_bytes()).problems;
                assert!(problems.is_empty(), "{}: {problems:?}", file.display());
                configurations += 1;
            }
        }
    }
    assert_eq!(configurations, 6);
}

/// The texts that Envoy hands to plugins.
fn embedded(value: &Value, texts: &mut Vec<String>) {
    if value["@type"] == "type.googleapis.com/google.protobuf.StringValue" {
        texts.push(value["value"].as_str().expect("a text").to_owned());
    }
    match value {
        Value::Object(fields) => fields.values().for_each(|value| embedded(value, texts)),
        Value::Array(items) => items.iter().for_each(|value| embedded(value, texts)),
        _ => {}
    }
}

#[test]
fn envoy_finds_no_fault_in_any_of_them() {
    let mut listeners = Vec::new();
    let mut whole = Value::Null;
    for file in below(&repository().join("envoyfilter"), ".yaml") {
        let file = file
            .file_name()
            .expect("files have names")
            .to_string_lossy()
            .into_owned();
        if file == "kustomization.yaml" {
            continue;
        }
        let gateway = gateway_with(&file, ([127, 0, 0, 1], 1).into());
        whole = gateway.bootstrap_at_once();
        let mut listener = whole["static_resources"]["listeners"][0].take();
        listener["name"] = file.as_str().into();
        let network_filters = listener.pointer_mut("/filter_chains/0/filters");
        let manager = network_filters
            .and_then(Value::as_array_mut)
            .and_then(|filters| filters.last_mut())
            .expect("it has a connection manager");
        let filters = manager.pointer_mut("/typed_config/http_filters");
        for filter in filters
            .and_then(Value::as_array_mut)
            .expect("it has filters")
        {
            let Some(vm) = filter.pointer_mut("/typed_config/config/vm_config") else {
                continue;
            };
            // Before 1.39 Envoy lets plugins with the same code share a VM, and with it the environment of the first.
            vm["vm_id"] = file.as_str().into();
            // This process has no such variables, so that their values stand in the configuration.
            let names = vm
                .pointer("/environment_variables/host_env_keys")
                .and_then(Value::as_array)
                .cloned();
            let values: BTreeMap<String, &str> = names
                .iter()
                .flatten()
                .filter_map(|name| Some((name.as_str()?.to_owned(), "a-secret-value")))
                .collect();
            vm["environment_variables"] = json!({"key_values": values});
        }
        listeners.push(listener);
    }
    assert_eq!(listeners.len(), 8);
    whole["static_resources"]["listeners"] = listeners.into();
    if let Err(log) = envoy::validate(&whole) {
        panic!("{log}");
    }
}

#[test]
fn the_wasm_plugin_corrects_the_load_balancers_requests_and_nobody_elses() {
    let upstream = Upstream::start();
    let mut gateway = gateway_with("wasmplugin.yaml", upstream.address());
    add(&mut gateway, "direct-peer.yaml");
    assert_eq!(gateway.filter_names()[0], "istio-ingress.trusted-lb");
    let envoy = started(&gateway, &[]);
    let answer = send(&envoy, &get(LB));
    let told = |name: &str| answer.received_one(&testkit::gateway::seen_as(name));
    assert_eq!(told("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(told(":scheme").as_deref(), Some("https"));
    assert_eq!(
        told("x-envoy-upstream-rq-timeout-ms").as_deref(),
        Some("15000")
    );
    assert_eq!(told("x-envoy-max-retries").as_deref(), Some("2"));
    assert_eq!(
        scheme(
            &envoy,
            &get(ELSEWHERE).with(&[("x-forwarded-proto", "https")])
        ),
        "http"
    );
    assert_eq!(
        envoy.stat("extension_config_discovery.http_filter.istio-ingress.trusted-lb.config_reload"),
        1
    );
}

#[test]
fn the_wasm_plugin_for_the_gateway_api_knows_its_load_balancer_by_a_secret_of_the_environment() {
    let upstream = Upstream::start();
    let gateway = gateway_with("wasmplugin-gateway-api.yaml", upstream.address());
    let envoy = started(&gateway, &[("ORIGIN_SECRET", "open-sesame")]);
    let request = |secret| {
        get(ELSEWHERE).with(&[
            ("x-origin-verify", secret),
            ("cloudfront-forwarded-proto", "https"),
        ])
    };
    assert_eq!(scheme(&envoy, &request("open-sesame")), "https");
    assert_eq!(scheme(&envoy, &request("guess")), "http");
}

#[test]
fn the_envoy_filters_do_what_the_wasm_plugin_does() {
    for file in ["envoyfilter.yaml", "envoyfilter-file.yaml"] {
        let upstream = Upstream::start();
        let mut gateway = gateway_with(file, upstream.address());
        assert_eq!(
            gateway.filter_names()[0],
            "istio-ingress.trusted-lb",
            "{file}"
        );
        let envoy = started(&gateway, &[]);
        let answer = send(&envoy, &get(LB));
        assert_eq!(
            answer.received_one("x-forwarded-proto").as_deref(),
            Some("https"),
            "{file}"
        );
        let timeout = testkit::gateway::seen_as("x-envoy-upstream-rq-timeout-ms");
        assert_eq!(
            answer.received_one(&timeout).as_deref(),
            Some("15000"),
            "{file}"
        );
        let forged = get(ELSEWHERE).with(&[("x-forwarded-proto", "https")]);
        assert_eq!(scheme(&envoy, &forged), "http", "{file}");
    }
}

#[test]
fn the_early_mutation_lets_the_load_balancer_say_which_scheme_it_was() {
    let upstream = Upstream::start();
    let gateway = gateway_with("preserve-lb-proto.yaml", upstream.address());
    let envoy = started(&gateway, &[("TRUSTED_LB_TOKEN", "0123456789abcdef")]);
    let says = |peer, proto| get(peer).with(&[("x-forwarded-proto", proto)]);
    assert_eq!(scheme(&envoy, &says(LB, "https")), "https");
    assert_eq!(scheme(&envoy, &says(LB, "http")), "http");
    assert_eq!(scheme(&envoy, &get(LB)), "https", "the default");
    assert_eq!(scheme(&envoy, &says(ELSEWHERE, "https")), "http");
    let forged =
        says(ELSEWHERE, "https").with(&[("x-lb-peer", "127.0.0.2"), ("x-lb-proto", "https")]);
    assert_eq!(scheme(&envoy, &forged), "http");
    let informed = says(ELSEWHERE, "https").with(&[
        ("x-lb-peer", "0123456789abcdef 127.0.0.2"),
        ("x-lb-proto", "0123456789abcdef https"),
    ]);
    assert_eq!(
        scheme(&envoy, &informed),
        "http",
        "even who knows the token"
    );
    let answer = send(&envoy, &says(LB, "https"));
    assert_eq!(
        (
            answer.received_one("x-lb-peer"),
            answer.received_one("x-lb-proto")
        ),
        (None, None)
    );
}

#[test]
fn the_old_lua_filter_says_https_for_everybody() {
    let upstream = Upstream::start();
    let gateway = gateway_with("legacy-lua.yaml", upstream.address());
    let envoy = started(&gateway, &[]);
    assert_eq!(scheme(&envoy, &get(LB)), "https");
    assert_eq!(scheme(&envoy, &get(ELSEWHERE)), "https");
}

/// An authorization service that allows everything and remembers which scheme it was told.
fn authorization() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port can be had");
    let address = listener.local_addr().expect("it has an address");
    let told = Arc::new(Mutex::new(Vec::new()));
    let remembered = Arc::clone(&told);
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let remembered = Arc::clone(&remembered);
            std::thread::spawn(move || {
                let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
                while let Ok(size @ 1..) = connection.read(&mut chunk) {
                    request.extend_from_slice(&chunk[..size]);
                    if !request.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let scheme = text
                        .lines()
                        .find_map(|line| line.strip_prefix("x-forwarded-proto: "));
                    remembered
                        .lock()
                        .expect("no thread panicked")
                        .push(scheme.unwrap_or("nothing").to_owned());
                    request.clear();
                    if connection
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                        .is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    (address, told)
}

#[test]
fn custom_authorization_sees_the_corrected_scheme_behind_the_envoy_filter_and_not_behind_the_wasm_plugin()
 {
    for (file, expected) in [("envoyfilter.yaml", "https"), ("wasmplugin.yaml", "http")] {
        let upstream = Upstream::start();
        let (service, told) = authorization();
        let mut gateway = Gateway::new(upstream.address());
        gateway.authorize_by(service);
        add(&mut gateway, file);
        add(&mut gateway, "direct-peer.yaml");
        let envoy = started(&gateway, &[]);
        assert_eq!(scheme(&envoy, &get(LB)), "https");
        let deadline = Instant::now() + Duration::from_secs(10);
        while told.lock().expect("no thread panicked").is_empty() {
            assert!(Instant::now() < deadline, "{file}: it was not asked");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(
            *told.lock().expect("no thread panicked"),
            [expected],
            "{file}"
        );
    }
}

#[test]
fn kustomize_renders_one_way_to_load_the_filter() {
    let rendered = Command::new("kubectl")
        .arg("kustomize")
        .arg(repository().join("envoyfilter"))
        .output();
    let Ok(rendered) = rendered else {
        eprintln!("SKIPPED: there is no kubectl here, so the kustomization is not rendered");
        return;
    };
    assert!(
        rendered.status.success(),
        "{}",
        String::from_utf8_lossy(&rendered.stderr)
    );
    let resources = resource::read(&String::from_utf8_lossy(&rendered.stdout)).expect("it is read");
    let (mut plugins, mut patches) = (Vec::new(), Vec::new());
    for resource in &resources {
        match resource {
            Resource::WasmPlugin(plugin) => plugins.push(plugin),
            Resource::EnvoyFilter(filter) => patches.push(filter.metadata.name.as_deref()),
            other => panic!("{other:?}"),
        }
    }
    let [plugin] = plugins.as_slice() else {
        panic!("{plugins:?}");
    };
    assert_eq!(patches, [Some("direct-peer")]);
    assert_eq!(plugin.metadata.namespace.as_deref(), Some("istio-ingress"));
}
