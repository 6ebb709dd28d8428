//! Plugin configuration that changes while a gateway serves, as it does whenever a `WasmPlugin` is edited.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::cases::ClientRequest;
use testkit::discovery::{self, Discovery};
use testkit::envoy::Envoy;
use testkit::gateway::{Listener, bootstrap, plugin, seen_as};
use testkit::http;
use testkit::upstream::Upstream;

const LB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// The name that Istio gives a `WasmPlugin` trusted-lb in the namespace istio-ingress.
const NAME: &str = "istio-ingress.trusted-lb";
const UPDATES: &str = "extension_config_discovery.http_filter.istio-ingress.trusted-lb";

/// A configuration in which the load balancer says this scheme.
fn saying(scheme: &str) -> Value {
    json!({"trustedLoadBalancers": [{
        "name": "lb", "match": {"ipBlocks": ["127.0.0.2"]}, "forwardedProto": {"default": scheme},
    }]})
}

/// Wrong at two places.
fn wrong() -> Value {
    json!({
        "trustedLoadBalancers": [{"name": "lb", "match": {"ipBlock": ["127.0.0.2"]}, "forwardedProto": {"default": "https"}}],
        "defaults": {"timeout": "15"},
    })
}

fn filter(configuration: &Value) -> Value {
    plugin(configuration, &BTreeMap::new())
}

/// What the upstream is told of the load balancer's scheme.
fn scheme(address: SocketAddr) -> Result<String, String> {
    let request = ClientRequest::get(LB, "app.example.com", "/");
    let response = http::send(address, &request).map_err(|error| error.to_string())?;
    match response.received_one("x-forwarded-proto") {
        Some(scheme) if response.status == 200 => Ok(scheme),
        _ => Err(format!("{response:?}")),
    }
}

/// Clients that send one request after the other until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn on(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicU64::new(0));
        let clients = (0..3)
            .map(|_| {
                let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
                std::thread::spawn(move || {
                    let mut failed = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        match scheme(address) {
                            Ok(_) => _ = served.fetch_add(1, Ordering::Relaxed),
                            Err(error) => failed.push(error),
                        }
                    }
                    failed
                })
            })
            .collect();
        Self {
            stop,
            served,
            clients,
        }
    }

    /// Waits until that many more requests were served.
    fn wait_for(&self, more: u64) {
        let enough = self.served.load(Ordering::Relaxed) + more;
        wait("requests are served", || {
            self.served.load(Ordering::Relaxed) >= enough
        });
    }

    /// The requests that were not served.
    fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients
            .into_iter()
            .flat_map(|client| client.join().expect("clients don't panic"))
            .collect()
    }
}

fn wait(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A gateway whose filter is discovered, with this configuration first.
fn gateway(discovery: &Discovery, upstream: &Upstream, first: &Value) -> Envoy {
    discovery.hand_over("filters", &[extension(first)]);
    let listener =
        Listener::new("gateway").filter(discovery::discovered(NAME, discovery.source("filters")));
    let mut bootstrap = bootstrap(&[listener], upstream.address());
    discovery::identify(&mut bootstrap);
    Envoy::start(&bootstrap)
}

fn extension(configuration: &Value) -> Value {
    let mut extension = discovery::extension(&filter(configuration));
    extension["name"] = NAME.into();
    extension
}

#[test]
fn a_changed_configuration_takes_effect_under_load_and_no_request_is_lost() {
    let upstream = Upstream::start();
    let discovery = Discovery::new();
    let envoy = gateway(&discovery, &upstream, &saying("http"));
    let address = envoy.listener("gateway");
    let load = Load::on(address);
    for round in 0..10 {
        let says = ["https", "http"][round % 2];
        discovery.hand_over("filters", &[extension(&saying(says))]);
        wait("the new configuration takes effect", || {
            scheme(address).as_deref() == Ok(says)
        });
        load.wait_for(10);
    }
    let failed = load.end();
    assert!(failed.is_empty(), "{failed:#?}\n{}", envoy.log());
    assert_eq!(envoy.stat(&format!("{UPDATES}.config_reload")), 11);
    assert_eq!(envoy.stat(&format!("{UPDATES}.update_rejected")), 0);
}

#[test]
fn a_bad_update_is_refused_with_every_fault_in_the_log_and_the_old_configuration_serves_on() {
    let upstream = Upstream::start();
    let discovery = Discovery::new();
    let envoy = gateway(&discovery, &upstream, &saying("https"));
    let address = envoy.listener("gateway");
    let load = Load::on(address);
    discovery.hand_over("filters", &[extension(&wrong())]);
    let rejected = || envoy.stat(&format!("{UPDATES}.update_rejected"));
    wait("the update is refused", || rejected() == 1);
    load.wait_for(20);
    assert_eq!(scheme(address).as_deref(), Ok("https"));

    discovery.hand_over("filters", &[extension(&saying("http"))]);
    wait("a good one takes effect", || {
        scheme(address).as_deref() == Ok("http")
    });
    let failed = load.end();
    assert!(failed.is_empty(), "{failed:#?}\n{}", envoy.log());
    assert_eq!(rejected(), 1);
    let log = envoy.log();
    for part in [
        "refused configuration with 2 errors",
        "trustedLoadBalancers[0].match.ipBlock: there is no such field (did you mean ipBlocks?)",
        "defaults.timeout: \"15\" has no unit (write 15s for seconds, or 15ms for milliseconds)",
    ] {
        assert!(log.contains(part), "{part}\n{log}");
    }
}

#[test]
fn a_listener_that_is_replaced_with_another_configuration_loses_no_request() {
    let upstream = Upstream::start();
    let discovery = Discovery::new();
    let handed_over = |configuration: &Value| {
        let listener = Listener::new("gateway").filter(filter(configuration));
        let mut bootstrap = bootstrap(&[listener], upstream.address());
        let listener = discovery::listener(&bootstrap["static_resources"]["listeners"][0]);
        discovery.hand_over("listeners", &[listener]);
        bootstrap["static_resources"]["listeners"] = json!([]);
        bootstrap["dynamic_resources"] = json!({"lds_config": discovery.source("listeners")});
        discovery::identify(&mut bootstrap);
        bootstrap
    };
    let envoy = Envoy::start(&handed_over(&saying("http")));
    let address = envoy.listener("gateway");
    let load = Load::on(address);
    for says in ["https", "http", "https"] {
        handed_over(&saying(says));
        wait("the new listener serves", || {
            scheme(address).as_deref() == Ok(says)
        });
        load.wait_for(10);
    }
    handed_over(&wrong());
    wait("the bad listener is refused", || {
        envoy.stat("listener_manager.lds.update_rejected") == 1
    });
    load.wait_for(10);
    assert_eq!(scheme(address).as_deref(), Ok("https"));
    let failed = load.end();
    assert!(failed.is_empty(), "{failed:#?}\n{}", envoy.log());
}

/// Whether this Envoy gives plugins of the same code VMs of their own where their environments differ.
fn environment_makes_a_vm(envoy: &Envoy) -> bool {
    let info: Value =
        serde_json::from_slice(&envoy.admin("/server_info").body).expect("it is JSON");
    let version = info["version"].as_str().expect("it has a version");
    let minor = version
        .split('/')
        .nth(1)
        .and_then(|version| version.split('.').nth(1));
    minor
        .and_then(|minor| minor.parse::<u32>().ok())
        .expect("a number")
        >= 39
}

#[test]
fn a_secret_in_the_manifest_changes_while_envoy_runs_only_from_1_39_on() {
    let upstream = Upstream::start();
    let discovery = Discovery::new();
    let with_secret = |secret: &str, timeout: &str| {
        let configuration = json!({"trustedLoadBalancers": [{
            "name": "cdn", "match": {"headers": [{"name": "x-origin-verify", "fromEnv": "ORIGIN_SECRET"}]},
            "forwardedProto": {"default": "https"},
        }], "defaults": {"timeout": timeout}});
        let environment = BTreeMap::from([("ORIGIN_SECRET".to_owned(), secret.to_owned())]);
        let mut extension = discovery::extension(&plugin(&configuration, &environment));
        extension["name"] = NAME.into();
        // Istio gives none.
        let vm = &mut extension["typed_config"]["config"]["vm_config"];
        vm.as_object_mut().expect("an object").remove("vm_id");
        extension
    };
    discovery.hand_over("filters", &[with_secret("first-secret", "1s")]);
    let listener =
        Listener::new("gateway").filter(discovery::discovered(NAME, discovery.source("filters")));
    let mut bootstrap = bootstrap(&[listener], upstream.address());
    discovery::identify(&mut bootstrap);
    let envoy = Envoy::start(&bootstrap);
    let address = envoy.listener("gateway");
    let answer = |secret: &str| {
        let request =
            ClientRequest::get(LB, "app.example.com", "/").with(&[("x-origin-verify", secret)]);
        http::send(address, &request).expect("the gateway answers")
    };
    let said = || {
        ["first-secret", "second-secret"]
            .map(|secret| answer(secret).received_one("x-forwarded-proto"))
    };
    let both = |first: &str, second: &str| [first, second].map(|scheme| Some(scheme.to_owned()));
    assert_eq!(said(), both("https", "http"));

    discovery.hand_over("filters", &[with_secret("second-secret", "2s")]);
    let timeout = seen_as("x-envoy-upstream-rq-timeout-ms");
    wait("the update takes effect", || {
        answer("").received_one(&timeout).as_deref() == Some("2000")
    });
    if environment_makes_a_vm(&envoy) {
        assert_eq!(said(), both("http", "https"));
    } else {
        assert_eq!(
            said(),
            both("https", "http"),
            "the VM has the environment that it began with"
        );
    }
}
