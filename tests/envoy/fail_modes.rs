//! What clients of a gateway see when the filter can't be loaded, is refused, or ends: `docs/fail-modes.md`, as tests.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::artifacts;
use testkit::cases::ClientRequest;
use testkit::discovery::{self, Discovery};
use testkit::envoy::{self, Envoy};
use testkit::faulty_module::{self, MOST_HEADERS};
use testkit::gateway::{Listener, bootstrap, plugin, typed};
use testkit::http;
use testkit::upstream::Upstream;

const LB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const POLICIES: [&str; 3] = ["FAIL_CLOSED", "FAIL_OPEN", "FAIL_RELOAD"];

/// What can be wrong with a plugin that Envoy is told to load.
#[derive(Clone, Copy, Debug)]
enum Fault {
    RefusedConfiguration,
    MissingModule,
    BrokenModule,
}

const FAULTS: [Fault; 3] = [
    Fault::RefusedConfiguration,
    Fault::MissingModule,
    Fault::BrokenModule,
];

/// Folders that modules are taken from.
struct Modules(TempDir);

impl Modules {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::write(folder.path().join("broken.wasm"), b"an answer in HTML")
            .expect("it can be written");
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn faulty(&self, policy: &str, fault: Fault) -> Value {
        match fault {
            Fault::RefusedConfiguration => filter(
                policy,
                artifacts::module(),
                &json!({"trustedLoadBalancer": []}),
            ),
            Fault::MissingModule => filter(policy, &self.path("missing.wasm"), &good()),
            Fault::BrokenModule => filter(policy, &self.path("broken.wasm"), &good()),
        }
    }
}

fn good() -> Value {
    json!({"trustedLoadBalancers": [{
        "name": "lb", "match": {"ipBlocks": ["127.0.0.2"]}, "forwardedProto": {"default": "https"},
    }]})
}

fn filter(policy: &str, module: &Path, configuration: &Value) -> Value {
    let mut filter = plugin(configuration, &BTreeMap::new());
    let config = &mut filter["typed_config"]["config"];
    config
        .as_object_mut()
        .expect("an object")
        .remove("fail_open");
    config["failure_policy"] = policy.into();
    config["vm_config"]["code"]["local"]["filename"] = module.to_string_lossy().into();
    // As soon as Envoy lets it: the default is a second.
    if policy == "FAIL_RELOAD" {
        config["reload_config"] = json!({"backoff": {"base_interval": "0.1s"}});
    }
    filter
}

/// The status, and what the upstream was told of the scheme.
fn ask(address: SocketAddr) -> (u16, Option<String>) {
    answer(address, &request())
}

fn request() -> ClientRequest {
    ClientRequest::get(LB, "app.example.com", "/")
}

fn answer(address: SocketAddr, request: &ClientRequest) -> (u16, Option<String>) {
    let response = http::send(address, request).expect("the gateway answers");
    (response.status, response.received_one("x-forwarded-proto"))
}

fn served(scheme: &str) -> (u16, Option<String>) {
    (200, Some(scheme.to_owned()))
}

fn wait(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn in_a_static_configuration_every_fault_keeps_envoy_from_starting_whatever_the_policy() {
    let modules = Modules::new();
    for policy in POLICIES {
        for fault in FAULTS {
            let listener = Listener::new("gateway").filter(modules.faulty(policy, fault));
            let log = envoy::validate(&bootstrap(&[listener], ([127, 0, 0, 1], 1).into()))
                .expect_err(&format!("{policy} {fault:?} is refused"));
            let reason = match fault {
                Fault::RefusedConfiguration => {
                    "trustedLoadBalancer: there is no such field (did you mean trustedLoadBalancers?)"
                }
                Fault::MissingModule => "missing.wasm",
                Fault::BrokenModule => "Failed to parse corrupted Wasm module",
            };
            assert!(log.contains(reason), "{policy} {fault:?}: {log}");
        }
    }
}

#[test]
fn over_discovery_a_faulty_first_plugin_answers_500_until_a_good_one_comes_and_a_faulty_update_changes_nothing()
 {
    let modules = Modules::new();
    let upstream = Upstream::start();
    let discovery = Discovery::new();
    let gateways: Vec<(String, &str, Fault)> = POLICIES
        .iter()
        .flat_map(|policy| FAULTS.map(|fault| (format!("{policy}-{fault:?}"), *policy, fault)))
        .collect();
    let hand_over = |name: &str, filter: &Value| {
        let mut resource = discovery::extension(filter);
        resource["name"] = name.into();
        discovery.hand_over(name, &[resource]);
    };
    let mut listeners = Vec::new();
    for (name, policy, fault) in &gateways {
        hand_over(name, &modules.faulty(policy, *fault));
        listeners
            .push(Listener::new(name).filter(discovery::discovered(name, discovery.source(name))));
    }
    let mut bootstrap = bootstrap(&listeners, upstream.address());
    discovery::identify(&mut bootstrap);
    let envoy = Envoy::start(&bootstrap);
    let rejected = |name: &str| {
        envoy.stat(&format!(
            "extension_config_discovery.http_filter.{name}.update_rejected"
        ))
    };

    for (name, policy, _) in &gateways {
        let address = envoy.listener(name);
        wait("the first is refused", || rejected(name) == 1);
        assert_eq!(ask(address), (500, None), "{name}");
        hand_over(name, &filter(policy, artifacts::module(), &good()));
        wait("a good one serves", || ask(address) == served("https"));
    }
    for (name, policy, fault) in &gateways {
        hand_over(name, &modules.faulty(policy, *fault));
        wait("the update is refused", || rejected(name) == 2);
        assert_eq!(ask(envoy.listener(name)), served("https"), "{name}");
    }
}

#[test]
fn when_istio_cannot_download_the_module_it_denies_everything_or_switches_the_filter_off() {
    // Istio's agent hands Envoy one of these in place of a plugin that it couldn't download.
    let deny_all = json!({"name": "plugin", "typed_config": {
        "@type": typed("extensions.filters.http.rbac.v3.RBAC")["@type"], "rules": {},
    }});
    let allow_all =
        json!({"name": "plugin", "typed_config": typed("extensions.filters.http.rbac.v3.RBAC")});
    let upstream = Upstream::start();
    let discovery = Discovery::new();
    let hand_over = |filter: &Value| discovery.hand_over("plugin", &[discovery::extension(filter)]);
    let ours = || {
        let mut filter = filter("FAIL_CLOSED", artifacts::module(), &good());
        filter["name"] = "plugin".into();
        filter
    };
    hand_over(&ours());
    let listener = Listener::new("gateway")
        .filter(discovery::discovered("plugin", discovery.source("plugin")));
    let mut bootstrap = bootstrap(&[listener], upstream.address());
    discovery::identify(&mut bootstrap);
    let envoy = Envoy::start(&bootstrap);
    let address = envoy.listener("gateway");
    assert_eq!(ask(address), served("https"));

    hand_over(&deny_all);
    wait("FAIL_CLOSE, FAIL_RELOAD: everything is denied", || {
        ask(address) == (403, None)
    });
    hand_over(&allow_all);
    wait(
        "FAIL_OPEN: the load balancer's requests are plain HTTP again",
        || ask(address) == served("http"),
    );
    hand_over(&ours());
    wait("the download succeeded", || ask(address) == served("https"));
}

#[test]
fn a_module_that_ends_is_closed_open_or_started_again_as_the_policy_says() {
    let modules = Modules::new();
    let trapping = modules.path("trapping.wasm");
    let module = std::fs::read(artifacts::module()).expect("the module is built");
    std::fs::write(&trapping, faulty_module::trapping(&module)).expect("it can be written");
    let upstream = Upstream::start();
    let listeners: Vec<Listener> = POLICIES
        .iter()
        .map(|policy| {
            let mut filter = filter(policy, &trapping, &good());
            // Plugins of one VM would end together.
            filter["typed_config"]["config"]["vm_config"]["vm_id"] = (*policy).into();
            Listener::new(policy).filter(filter)
        })
        .collect();
    let envoy = Envoy::start(&bootstrap(&listeners, upstream.address()));
    let mut fatal = request();
    for index in 0..=MOST_HEADERS {
        fatal
            .headers
            .push((format!("x-many-{index}"), "1".to_owned()));
    }
    for policy in POLICIES {
        let address = envoy.listener(policy);
        assert_eq!(ask(address), served("https"), "{policy}");
        let ended = answer(address, &fatal);
        if policy == "FAIL_OPEN" {
            assert_eq!(ask(address), served("http"), "{policy}: switched off");
        } else {
            assert_eq!(ended, (503, None), "{policy}");
        }
        if policy == "FAIL_CLOSED" {
            assert_eq!(ask(address), (503, None), "{policy}: ended for good");
        }
        if policy == "FAIL_RELOAD" {
            wait("it is started again", || ask(address) == served("https"));
        }
    }
    assert_eq!(ask(envoy.listener("FAIL_CLOSED")), (503, None), "for good");
    assert_eq!(ask(envoy.listener("FAIL_OPEN")), served("http"), "for good");
}
