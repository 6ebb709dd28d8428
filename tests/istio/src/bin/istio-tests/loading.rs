//! How the module and its configuration come, change, and fail to come.

use std::path::Path;

use istio_lab::gateway::{
    self, ELSEWHERE, HTTP, HTTPS, LOAD_BALANCER, Options, STATUS, expect, extensions, get,
    http_filters, metric, outcome, outcome_of, send,
};
use istio_lab::lab::{DIRECT_PEER, Lab};
use istio_lab::load;
use istio_lab::manifest::{NAMESPACE, documents, file, text};
use istio_lab::registry::{HOST, Image, Registry, another_version};
use istio_lab::report::Test;
use istio_lab::wait;
use serde_json::{Value, json};
use testkit::http;

pub const TESTS: &[Test<Lab>] = &[
    (
        "the right sha256 loads; a wrong one denies everything until it is right again",
        sha256,
    ),
    (
        "a new version of the module replaces the old one under load without a failed request",
        another_tag,
    ),
    (
        "imagePullPolicy Always takes a tag that was pushed again when the plugin changes, without a failed request",
        always,
    ),
    (
        "good and bad configurations come under load without a failed request",
        configurations,
    ),
    (
        "a gateway that starts without its registry denies everything until the plugin changes, and its agent counts it",
        no_registry,
    ),
    (
        "a private registry opens to a pull secret, and to Docker's own configuration for an EnvoyFilter",
        private_registry,
    ),
    (
        "a registry with an authority of its own needs SSL_CERT_FILE or SSL_CERT_DIR at the agent",
        own_authority,
    ),
    (
        "what has been loaded serves on without istiod, and changes come when it is back",
        no_istiod,
    ),
    (
        "variables of the proxy's container reach the filter; a missing one is refused",
        host_variables,
    ),
    (
        "two plugins on one gateway both run, and a configuration without rules leaves the scheme alone",
        two_plugins,
    ),
    (
        "a plugin with mode: SERVER never reaches a gateway, one for a port reaches the listener of that port",
        by_match,
    ),
    (
        "the agent's page for Prometheus has the filter's counters and its own",
        counters,
    ),
    (
        "a gateway that is told to end drains without a failed request",
        drain,
    ),
];

/// The usual plugin as a value, to change what a test is about.
fn plugin() -> Value {
    documents(&file("envoyfilter/wasmplugin.yaml")).remove(0)
}

fn apply(lab: &Lab, plugin: &Value) {
    lab.apply(&text(std::slice::from_ref(plugin)));
}

const TRUSTED: &str = "200 https";
/// What the agent puts in place of a module that it can't get.
const DENIED: &str = "403";

fn sha256(lab: &mut Lab) {
    let mut plugin = plugin();
    plugin["spec"]["sha256"] = json!(lab.image.manifest);
    lab.serve(&text(std::slice::from_ref(&plugin)), &Options::default());
    expect(&get(LOAD_BALANCER, "/"), TRUSTED);
    let right = plugin["spec"]["sha256"].take();
    plugin["spec"]["sha256"] = json!(lab.image.module);
    apply(lab, &plugin);
    expect(&get(LOAD_BALANCER, "/"), DENIED);
    let body = send(HTTP, &get(LOAD_BALANCER, "/")).body;
    assert_eq!(String::from_utf8_lossy(&body), "RBAC: access denied");
    plugin["spec"]["sha256"] = right;
    apply(lab, &plugin);
    expect(&get(LOAD_BALANCER, "/"), TRUSTED);
}

fn push_another(lab: &Lab, name: &str, tag: &str) -> Image {
    let module = another_version(&lab.programs.module, lab.folder(), name);
    let image = Image::write(&lab.programs, &module, name, lab.folder());
    image.push(&lab.programs, tag, &[]);
    image
}

/// The file that Envoy reads the module of our plugin from: the agent names it by the module's digest or the image's.
fn loaded_file() -> Option<String> {
    let extensions = extensions();
    let (_, filter) = extensions
        .iter()
        .find(|(name, _)| name.contains("istio-ingress.trusted-lb"))?;
    filter["config"]["vm_config"]["code"]["local"]["filename"]
        .as_str()
        .map(str::to_owned)
}

fn loaded_digest() -> String {
    let file = loaded_file().unwrap_or_default();
    Path::new(&file)
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn another_tag(lab: &mut Lab) {
    let mut plugin = plugin();
    lab.serve(&text(std::slice::from_ref(&plugin)), &Options::default());
    expect(&get(LOAD_BALANCER, "/"), TRUSTED);
    assert_eq!(loaded_digest(), lab.image.manifest);
    let image = push_another(lab, "another", "0.2.0");
    let load = load::https();
    plugin["spec"]["url"] = json!("oci://registry.example.com/trusted-lb:0.2.0");
    plugin["spec"]["sha256"] = json!(image.manifest);
    apply(lab, &plugin);
    wait::until_true("the new module is there", || {
        loaded_digest() == image.manifest
    });
    load.more(100);
    load.end_without_a_failure();
}

fn always(lab: &mut Lab) {
    let mut plugin = plugin();
    plugin["spec"]["imagePullPolicy"] = json!("Always");
    plugin["spec"]["url"] = json!("oci://registry.example.com/trusted-lb:moving");
    lab.image.push(&lab.programs, "moving", &[]);
    lab.serve(&text(std::slice::from_ref(&plugin)), &Options::default());
    expect(&get(LOAD_BALANCER, "/"), TRUSTED);
    let image = push_another(lab, "moved", "moving");
    let load = load::https();
    plugin["spec"]["pluginConfig"]["defaults"]["timeout"] = json!("14s");
    apply(lab, &plugin);
    wait::until_true("the new module is there", || {
        loaded_digest() == image.manifest
    });
    load.more(100);
    load.end_without_a_failure();
}

fn configurations(lab: &mut Lab) {
    let mut plugin = plugin();
    plugin["spec"]["pluginConfig"]["defaults"] = json!({"timeout": "15s"});
    lab.serve(&text(std::slice::from_ref(&plugin)), &Options::default());
    expect(&get(LOAD_BALANCER, "/"), TRUSTED);
    let load = load::https();
    for n in 1..=3 {
        plugin["spec"]["pluginConfig"]["defaults"]["timeout"] = json!(format!("{n}s"));
        apply(lab, &plugin);
        wait::until_true("the configuration is in force", || {
            let response = send(HTTP, &get(LOAD_BALANCER, "/"));
            response.received_one("x-envoy-expected-rq-timeout-ms") == Some(format!("{n}000"))
        });
        let refused = metric("trusted_lb_configuration_refused");
        // What kubectl takes and the filter doesn't: a number without a unit.
        plugin["spec"]["pluginConfig"]["defaults"]["timeout"] = json!(n);
        apply(lab, &plugin);
        wait::until_true("the configuration is refused", || {
            metric("trusted_lb_configuration_refused") > refused
        });
        load.more(50);
    }
    load.end_without_a_failure();
    let log = lab.gateway().log();
    assert!(
        log.contains("refused configuration with 1 error"),
        "the proxy's log says so"
    );
}

fn no_registry(lab: &mut Lab) {
    lab.registry = None;
    let base = format!("{}\n---\n{}", lab.base(), file(DIRECT_PEER));
    lab.apply(&format!(
        "{base}\n---\n{}",
        file("envoyfilter/wasmplugin.yaml")
    ));
    lab.wait_for_istiod(&base);
    lab.launch(&Options::default());
    lab.gateway().wait_until_ready();
    expect(&get(LOAD_BALANCER, "/"), DENIED);
    let failed = "istio_agent_wasm_config_conversion_count{result=\"fetch_failure\"}";
    wait::until_true("the agent counts it", || metric(failed) > 0.0);
    assert!(metric("istio_agent_wasm_remote_fetch_count{result=\"manifest_failure\"}") > 0.0);
    let log = lab.gateway().log();
    assert!(
        log.contains("error in converting the wasm config to local"),
        "{log}"
    );
    lab.start_registry();
    // Nothing tries again by itself: what counts attempts stands still while requests go on being denied.
    let attempts = metric(failed);
    for _ in 0..200 {
        assert_eq!(outcome_of(&get(LOAD_BALANCER, "/")), DENIED);
    }
    assert!(
        (metric(failed) - attempts).abs() < 0.5,
        "the agent has tried again"
    );
    lab.cluster.run(&[
        "annotate",
        "wasmplugin",
        "trusted-lb",
        "-n",
        NAMESPACE,
        "again=1",
    ]);
    expect(&get(LOAD_BALANCER, "/"), TRUSTED);
}

/// The password `pull-me`, as htpasswd writes it.
const PASSWORD: &str = "$2b$05$abcdefghijklmnopqrstuuBp.n58v886n7kD7.z9i0nzqxtQ8I2P.";

fn private_registry(lab: &mut Lab) {
    lab.registry = None;
    let passwords = lab.folder().join("passwords");
    std::fs::write(&passwords, format!("puller:{PASSWORD}\n")).expect("it can be written");
    let auth = json!({"auth": {"htpasswd": {"realm": "https://registry.example.com/", "path": passwords}}});
    lab.registry = Some(Registry::start_with(
        &lab.programs,
        lab.folder(),
        &auth,
        401,
    ));
    let credentials = json!({"auths": {HOST: {"username": "puller", "password": "pull-me", "auth": "cHVsbGVyOnB1bGwtbWU="}}});
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": "registry", "namespace": NAMESPACE},
        "stringData": {".dockerconfigjson": credentials.to_string()},
    });
    let mut plugin = plugin();
    lab.serve(&text(&[secret, plugin.clone()]), &Options::default());
    expect(&get(LOAD_BALANCER, "/"), DENIED);
    plugin["spec"]["imagePullSecret"] = json!("registry");
    apply(lab, &plugin);
    expect(&get(LOAD_BALANCER, "/"), TRUSTED);
    // An EnvoyFilter has no field for it; the agent reads what Docker would read.
    lab.cluster
        .run(&["delete", "wasmplugin", "trusted-lb", "-n", NAMESPACE]);
    let docker = lab.folder().join("docker");
    std::fs::create_dir_all(&docker).expect("a folder can be made");
    std::fs::write(docker.join("config.json"), credentials.to_string()).expect("it can be written");
    let environment = [("DOCKER_CONFIG".to_owned(), docker.display().to_string())].into();
    lab.serve(
        &file("envoyfilter/envoyfilter.yaml"),
        &Options {
            environment,
            ..Options::default()
        },
    );
    expect(&get(LOAD_BALANCER, "/"), TRUSTED);
    // Without it, denied.
    lab.launch(&Options::default());
    lab.gateway().wait_until_ready();
    expect(&get(LOAD_BALANCER, "/"), DENIED);
    lab.registry = None;
}

fn own_authority(lab: &mut Lab) {
    let environment = [("SSL_CERT_FILE".to_owned(), String::new())].into();
    lab.serve(
        &file("envoyfilter/wasmplugin.yaml"),
        &Options {
            environment,
            ..Options::default()
        },
    );
    expect(&get(LOAD_BALANCER, "/"), DENIED);
    assert!(
        lab.gateway().log().contains("certificate"),
        "the log says why"
    );
    // As a folder that a ConfigMap is mounted at: what is in it comes beside the image's own authorities.
    let authorities = lab.folder().join("authorities");
    std::fs::create_dir_all(&authorities).expect("a folder can be made");
    std::fs::copy(
        lab.folder().join("registry.crt"),
        authorities.join("registry.crt"),
    )
    .expect("it can be copied");
    let environment = [
        ("SSL_CERT_FILE".to_owned(), String::new()),
        (
            "SSL_CERT_DIR".to_owned(),
            format!("/etc/ssl/certs:{}", authorities.display()),
        ),
    ];
    lab.launch(&Options {
        environment: environment.into(),
        ..Options::default()
    });
    lab.gateway().wait_until_ready();
    expect(&get(LOAD_BALANCER, "/"), TRUSTED);
}

fn no_istiod(lab: &mut Lab) {
    lab.serve(&file("envoyfilter/wasmplugin.yaml"), &Options::default());
    expect(&get(LOAD_BALANCER, "/"), TRUSTED);
    let load = load::https();
    lab.istiod = None;
    let mut changed = plugin();
    changed["spec"]["pluginConfig"]["defaults"] = json!({"timeout": "7s"});
    apply(lab, &changed);
    load.more(100);
    lab.start_istiod();
    wait::until_true("the change has come", || {
        let response = send(HTTP, &get(LOAD_BALANCER, "/"));
        response
            .received_one("x-envoy-expected-rq-timeout-ms")
            .as_deref()
            == Some("7000")
    });
    load.more(50);
    load.end_without_a_failure();
}

fn host_variables(lab: &mut Lab) {
    let mut plugin = plugin();
    plugin["spec"]["vmConfig"] = json!({"env": [{"name": "ORIGIN_SECRET", "valueFrom": "HOST"}]});
    plugin["spec"]["pluginConfig"] = json!({"trustedLoadBalancers": [{
        "name": "cdn",
        "match": {"headers": [{"name": "x-origin-verify", "fromEnv": "ORIGIN_SECRET"}]},
        "forwardedProto": {"default": "https"},
    }]});
    lab.serve(&text(std::slice::from_ref(&plugin)), &Options::default());
    expect(
        &get(ELSEWHERE, "/").with(&[("x-origin-verify", gateway::SECRET)]),
        TRUSTED,
    );
    assert_eq!(
        outcome_of(&get(ELSEWHERE, "/").with(&[("x-origin-verify", "guessed")])),
        "200 http"
    );
    // One that nobody has set: what was there before serves on.
    let refused = metric("trusted_lb_configuration_refused");
    plugin["spec"]["vmConfig"] = json!({"env": [{"name": "NOBODY_SET_IT", "valueFrom": "HOST"}]});
    plugin["spec"]["pluginConfig"]["trustedLoadBalancers"][0]["match"]["headers"][0]["fromEnv"] =
        json!("NOBODY_SET_IT");
    apply(lab, &plugin);
    wait::until_true("it is refused", || {
        metric("trusted_lb_configuration_refused") > refused
            || lab.gateway().log().contains("NOBODY_SET_IT")
    });
    expect(
        &get(ELSEWHERE, "/").with(&[("x-origin-verify", gateway::SECRET)]),
        TRUSTED,
    );
}

fn two_plugins(lab: &mut Lab) {
    let mut second = plugin();
    second["metadata"] = json!({"name": "defaults", "namespace": "istio-system"});
    second["spec"]["priority"] = json!(1);
    second["spec"]["pluginConfig"] = json!({"defaults": {"timeout": "9s"}});
    lab.serve(&text(&[plugin(), second]), &Options::default());
    wait::until("both run", || {
        let names: Vec<String> = extensions().into_keys().collect();
        if names.len() == 2 {
            Ok(())
        } else {
            Err(format!("{names:?}"))
        }
    });
    wait::until("the second one's timeout", || {
        let response = send(HTTP, &get(LOAD_BALANCER, "/"));
        let timeout = response.received_one("x-envoy-expected-rq-timeout-ms");
        if timeout.is_some() && outcome(&response) == TRUSTED {
            Ok(())
        } else {
            Err(format!("{} {timeout:?}", outcome(&response)))
        }
    });
    expect(
        &get(ELSEWHERE, "/").with(&[("x-forwarded-proto", "https")]),
        "200 http",
    );
}

fn by_match(lab: &mut Lab) {
    let of = |name: &str, matches: &Value| {
        let mut plugin = plugin();
        plugin["metadata"]["name"] = json!(name);
        plugin["spec"]["match"] = json!([matches]);
        plugin
    };
    let ports = |port: u16| json!({"mode": "CLIENT", "ports": [{"number": port}]});
    let plugins = [
        of("for-servers", &json!({"mode": "SERVER"})),
        of("for-clients", &json!({"mode": "CLIENT"})),
        of("for-plain", &ports(HTTP.port())),
        of("for-tls", &ports(HTTPS.port())),
    ];
    lab.serve(&text(&plugins), &Options::default());
    expect(&get(LOAD_BALANCER, "/"), TRUSTED);
    let on = |port: u16| {
        let filters = http_filters(port);
        plugins
            .iter()
            .filter_map(|plugin| plugin["metadata"]["name"].as_str())
            .filter(|name| filters.iter().any(|filter| filter.contains(name)))
            .collect::<Vec<_>>()
    };
    assert_eq!(on(HTTP.port()), ["for-clients", "for-plain"]);
    assert_eq!(on(HTTPS.port()), ["for-clients", "for-tls"]);
}

fn counters(lab: &mut Lab) {
    lab.serve(&file("envoyfilter/wasmplugin.yaml"), &Options::default());
    expect(&get(LOAD_BALANCER, "/"), TRUSTED);
    expect(&get(ELSEWHERE, "/"), "200 http");
    for name in [
        "trusted_lb_trusted",
        "trusted_lb_untrusted",
        "trusted_lb_configuration_accepted",
        "istio_agent_wasm_remote_fetch_count{result=\"success\"}",
        "istio_agent_wasm_config_conversion_count{result=\"success\"}",
    ] {
        wait::until(name, || {
            if metric(name) > 0.0 {
                Ok(())
            } else {
                Err(format!("{:?}", pages()))
            }
        });
    }
    let names = pages();
    assert!(
        !names
            .iter()
            .any(|name| name.contains("extension_config_discovery")),
        "Istio has them by default now"
    );
}

/// The names of everything that is of interest on the agent's page.
fn pages() -> Vec<String> {
    gateway::metrics(gateway::AGENT, "/stats/prometheus")
        .into_keys()
        .filter(|name| {
            ["trusted_lb", "wasm", "extension_config"]
                .iter()
                .any(|word| name.contains(word))
        })
        .collect()
}

fn drain(lab: &mut Lab) {
    lab.serve(&file("envoyfilter/wasmplugin.yaml"), &Options::default());
    expect(&get(LOAD_BALANCER, "/"), TRUSTED);
    let load = load::https();
    lab.gateway().terminate();
    // What a load balancer sees first: the target isn't ready any more. It opens no more connections.
    wait::until_true("it isn't ready any more", || {
        !http::try_get(STATUS, "/healthz/ready").is_ok_and(|response| response.status == 200)
    });
    load.drain();
    lab.gateway().wait();
    load.end_without_a_failure();
}
