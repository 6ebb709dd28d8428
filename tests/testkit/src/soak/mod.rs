//! A gateway under mixed load for as long as one likes, while its plugin configuration changes every few seconds and its
//! upstream endpoints are stopped and started again.
//!
//! What is held against it: nobody but the load balancer makes the upstream see https; no GET fails; nothing but a
//! POST to an endpoint that just ended is answered 5xx; no POST reaches an endpoint twice; every request is counted
//! once; no VM is left over from a configuration that is gone; Envoy's memory, once warm, grows by less than a tenth.

mod clients;
mod report;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clients::{Shared, attack, client, trusted_get, trusted_post, untrusted};
pub use report::{Kind, Memory, Report, Tally};
use serde_json::{Value, json};

use crate::discovery::{self, Discovery};
use crate::endpoint::{Endpoint, Orders};
use crate::envoy::Envoy;
use crate::gateway::{self, Listener, plugin};
use crate::workloads;

/// The routes' own part in retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routes {
    /// The policy that Istio gives every route: a retry goes to another endpoint.
    Istio,
    /// None, as on a standalone Envoy: a retry may go to the endpoint that just failed, so that a GET may fail.
    Plain,
}

/// Runs the gateway for so long.
///
/// # Panics
/// Where Envoy can't be started.
#[must_use]
pub fn run(how_long: Duration, routes: Routes) -> Report {
    let short = how_long < Duration::from_secs(60);
    let orders = Orders::default();
    let endpoints = [Endpoint::start(&orders), Endpoint::start(&orders)];
    let updates = Discovery::new();
    updates.hand_over("plugin", &[resource(&configuration(0))]);
    let envoy = Envoy::start(&bootstrap(&updates, &endpoints, routes));
    let address = envoy.listener("gateway");

    let shared = Arc::new(Shared::default());
    let clients = [
        client(&shared, address, 30, trusted_get, routes),
        client(&shared, address, 40, trusted_get, routes),
        client(&shared, address, 50, trusted_post, routes),
        client(&shared, address, 50, untrusted, routes),
        client(&shared, address, 100, attack, routes),
    ];
    let restarting = {
        let shared = Arc::clone(&shared);
        let pause = Duration::from_millis(if short { 700 } else { 3000 });
        std::thread::spawn(move || restart_in_turn(&shared, endpoints, pause))
    };

    let every = Duration::from_millis(if short { 800 } else { 4000 });
    let began = Instant::now();
    let (mut good, mut bad) = (1, 0);
    let mut memory = Vec::new();
    let (mut next_update, mut next_sample) = (began + every, began);
    while began.elapsed() < how_long {
        let now = Instant::now();
        if now >= next_sample {
            next_sample += Duration::from_secs(1);
            memory.push(memory_of(&envoy));
        }
        // One after the other: of two that come at once Envoy reads the newer only.
        if now >= next_update && updates_seen(&envoy) == good + bad {
            next_update = now + every;
            let config = configuration(good + bad);
            if is_good(good + bad) {
                good += 1;
            } else {
                bad += 1;
            }
            updates.hand_over("plugin", &[resource(&config)]);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let lasted = began.elapsed();
    shared.stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().expect("a client didn't panic");
    }
    let restarts = restarting.join().expect("it didn't panic");
    let tallies = std::mem::take(&mut *shared.tallies.lock().expect("no thread panicked"));

    let mut wrong = check_envoy(&envoy, &tallies, (good, bad));
    let orders = orders.lock().expect("no thread panicked");
    let twice = orders.values().filter(|count| **count > 1).count();
    if twice > 0 {
        wrong.push(format!("{twice} POSTs of {} were sent twice", orders.len()));
    }
    let mut report = Report {
        lasted,
        tallies,
        configurations: (good, bad),
        restarts,
        retries: envoy.stat("cluster.upstream.upstream_rq_retry"),
        memory,
        wrong,
    };
    let (warm, end) = (report.memory_between(2, 4), report.memory_between(8, 10));
    if end.resident > warm.resident / 10 * 11 {
        report.wrong.push(format!(
            "Envoy's resident size grew from {} to {} bytes",
            warm.resident, end.resident
        ));
    }
    report
}

const UPDATES: &str = "extension_config_discovery.http_filter.trusted-lb";

/// How many configurations Envoy has taken or refused.
fn updates_seen(envoy: &Envoy) -> u64 {
    envoy.stat(&format!("{UPDATES}.update_success"))
        + envoy.stat(&format!("{UPDATES}.update_rejected"))
}

/// What Envoy's own statistics must say at the end.
fn check_envoy(
    envoy: &Envoy,
    tallies: &BTreeMap<Kind, Tally>,
    (good, bad): (u64, u64),
) -> Vec<String> {
    let decided: u64 = tallies
        .iter()
        .filter(|(kind, _)| **kind != Kind::Refused)
        .map(|(_, tally)| tally.sent)
        .sum();
    let gone: u64 = tallies
        .values()
        .flat_map(|tally| tally.endpoint_gone.values())
        .sum();
    let metric = |name: &str| envoy.stat(&format!("wasmcustom.trusted_lb_{name}"));
    let mut wrong = Vec::new();
    let mut check = |what: &str, expected: u64, found: &dyn Fn() -> u64| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while found() != expected {
            if Instant::now() > deadline {
                wrong.push(format!("{what}: expected {expected}, found {}", found()));
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    check("requests counted by the filter", decided, &|| {
        metric("trusted") + metric("untrusted")
    });
    check("host calls that failed", 0, &|| metric("host_call_error"));
    check("answers 5xx", gone, &|| {
        envoy.stat("http.gateway.downstream_rq_5xx")
    });
    check("configurations that were refused", bad, &|| {
        envoy.stat(&format!("{UPDATES}.update_rejected"))
    });
    check("generation of the configuration", good, &|| {
        metric("configuration_generation")
    });
    check("VMs", 3, &|| {
        envoy.stat("wasm.envoy.wasm.runtime.v8.active")
    });
    wrong
}

/// Ends one endpoint after the other and starts it again; every third time without draining. Answers how often of each.
fn restart_in_turn(shared: &Shared, mut endpoints: [Endpoint; 2], pause: Duration) -> (u64, u64) {
    let (mut drained, mut killed) = (0, 0);
    let say = |what: &str| {
        what.clone_into(&mut shared.doing.lock().expect("no thread panicked"));
    };
    for n in 0_usize.. {
        say("both endpoints run");
        std::thread::sleep(pause);
        if !shared.running() {
            break;
        }
        let Some(endpoint) = endpoints.get_mut(n % 2) else {
            break;
        };
        if n % 3 == 2 {
            say("an endpoint is killed");
            endpoint.kill();
            killed += 1;
        } else {
            say("an endpoint drains");
            endpoint.drain();
            drained += 1;
        }
        say("an endpoint is down");
        std::thread::sleep(pause / 4);
        endpoint.restart();
    }
    (drained, killed)
}

/// Whether the filter takes the configuration of that number.
fn is_good(n: u64) -> bool {
    n % 6 != 3
}

/// A configuration like no other, in which the load balancer's clients use https and POST is never sent twice.
fn configuration(n: u64) -> Value {
    if !is_good(n) {
        return json!({"defaults": {"timeout": n.to_string()}});
    }
    let mut config = match n % 6 {
        1 => workloads::blocks(500),
        2 => workloads::routes(200),
        5 => workloads::all_signals(),
        _ => workloads::xfp_and_scheme("auto"),
    };
    config["rewriteScheme"] = "auto".into();
    config["trustedLoadBalancers"][0]["forwardedProto"]["default"] = "https".into();
    config["reportDecision"] = (n % 6 == 4).into();
    config["defaults"] = json!({
        "timeout": format!("{}ms", 5000 + n),
        "retries": {
            "attempts": 3,
            "retryOn": ["connect-failure", "refused-stream", "reset"],
            "otherMethods": "disable",
        },
    });
    config
}

fn resource(config: &Value) -> Value {
    discovery::extension(&plugin(config, &BTreeMap::new()))
}

/// A gateway with the limits of its cluster, and perhaps the retry policy, that Istio gives all of them; for POST the policy
/// is a careless one that would send them twice.
fn bootstrap(updates: &Discovery, endpoints: &[Endpoint; 2], routes: Routes) -> Value {
    let previous_hosts =
        gateway::typed("extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate");
    let route = |retry_on: &str| {
        let mut route = json!({"cluster": "upstream", "timeout": "0s"});
        if routes == Routes::Istio {
            route["retry_policy"] = json!({
                "retry_on": retry_on,
                "num_retries": 2,
                "retry_host_predicate": [
                    {"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": previous_hosts},
                ],
                "host_selection_retry_max_attempts": "5",
            });
        }
        route
    };
    let usual = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
    let post = json!([{"name": ":method", "string_match": {"exact": "POST"}}]);
    let listener = Listener::new("gateway")
        .filter(discovery::discovered(
            "trusted-lb",
            updates.source("plugin"),
        ))
        .virtual_hosts(json!([{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/", "headers": post}, "route": route("5xx")},
            {"match": {"prefix": "/"}, "route": route(usual)},
        ]}]));
    let mut bootstrap = gateway::bootstrap(&[listener], endpoints[0].address());
    discovery::identify(&mut bootstrap);
    let cluster = &mut bootstrap["static_resources"]["clusters"][0];
    cluster["circuit_breakers"] = json!({"thresholds": [{"max_retries": 4_294_967_295_u32}]});
    let lb_endpoints: Vec<Value> = endpoints
        .iter()
        .map(|endpoint| {
            json!({"endpoint": {"address": {"socket_address": {
                "address": endpoint.address().ip().to_string(), "port_value": endpoint.address().port(),
            }}}})
        })
        .collect();
    cluster["load_assignment"]["endpoints"] = json!([{"lb_endpoints": lb_endpoints}]);
    bootstrap
}

fn memory_of(envoy: &Envoy) -> Memory {
    Memory {
        resident: envoy.resident_bytes(),
        allocated: envoy.stat("server.memory_allocated"),
    }
}
