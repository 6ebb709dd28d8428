//! A gateway under mixed load for as long as one likes, while its plugin configuration changes every few seconds and its
//! upstream endpoints are stopped and started again.
//!
//! What is held against it: nobody but the load balancer makes the upstream see https; no GET fails; nothing but a
//! POST to an endpoint that just ended is answered 5xx; no POST reaches an endpoint twice; every request is counted
//! once; no VM is left over from a configuration that is gone; Envoy's memory, once warm, grows by less than a tenth.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cases::{ClientRequest, Protocol};
use crate::discovery::{self, Discovery};
use crate::endpoint::{Endpoint, ORDER, Orders};
use crate::envoy::Envoy;
use crate::gateway::{self, Listener, plugin};
use crate::http::{self, KeptConnection, Response};
use crate::workloads;

const LOAD_BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

/// Requests that share an expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// GETs of the load balancer, some of them slow: retried, so that none may fail.
    TrustedGet,
    /// POSTs of the load balancer: never retried, so that one may fail where its endpoint ends.
    TrustedPost,
    /// GETs of anybody else.
    Untrusted,
    /// Requests of anybody else that claim https in every way there is.
    Attack,
    /// Attacks that Envoy itself answers 400.
    Refused,
}

/// The routes' own part in retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routes {
    /// The policy that Istio gives every route: a retry goes to another endpoint.
    Istio,
    /// None, as on a standalone Envoy: a retry may go to the endpoint that just failed, so that a GET may fail.
    Plain,
}

/// What became of the requests of one kind.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many were sent.
    pub sent: u64,
    /// Requests that Envoy answered 503 because their endpoint was gone, by what was being done to the endpoints: POSTs, and
    /// where routes are plain whatever was unlucky in its retries.
    pub endpoint_gone: BTreeMap<String, u64>,
    /// What should not have happened; the first few.
    pub wrong: Vec<String>,
    /// How often it happened.
    pub wrong_count: u64,
}

/// Envoy's memory at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident size of the process in bytes.
    pub resident: u64,
    /// What Envoy's allocator has handed out, in bytes; V8's memory is not in it.
    pub allocated: u64,
}

/// What was seen.
#[derive(Debug)]
pub struct Report {
    /// How long the load lasted.
    pub lasted: Duration,
    /// By kind of request.
    pub tallies: BTreeMap<Kind, Tally>,
    /// Configurations handed to Envoy that are good, and that are not.
    pub configurations: (u64, u64),
    /// Ends of an endpoint, graceful and not.
    pub restarts: (u64, u64),
    /// Requests that Envoy's router sent again.
    pub retries: u64,
    /// Envoy's memory once a second.
    pub memory: Vec<Memory>,
    /// Checks at the end that failed.
    pub wrong: Vec<String>,
}

impl Report {
    /// Everything that should not have happened.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let of_requests = self.tallies.iter().flat_map(|(kind, tally)| {
            let count = (tally.wrong_count > 0)
                .then(|| format!("{kind:?}: {} of {}", tally.wrong_count, tally.sent));
            count.into_iter().chain(tally.wrong.clone())
        });
        of_requests.chain(self.wrong.clone()).collect()
    }

    /// The mean of memory samples between two points of the run, given in tenths of it.
    #[must_use]
    pub fn memory_between(&self, from: usize, to: usize) -> Memory {
        let at = |tenths| self.memory.len() * tenths / 10;
        let samples = &self.memory[at(from)..at(to).max(at(from) + 1).min(self.memory.len())];
        let mean = |field: fn(&Memory) -> u64| {
            samples.iter().map(field).sum::<u64>() / (samples.len() as u64).max(1)
        };
        Memory {
            resident: mean(|memory| memory.resident),
            allocated: mean(|memory| memory.allocated),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes / 1024 * 10 / 1024;
        writeln!(f, "lasted {} s", self.lasted.as_secs())?;
        for (kind, tally) in &self.tallies {
            writeln!(
                f,
                "{kind:?}: {} sent, {} wrong",
                tally.sent, tally.wrong_count
            )?;
            for (doing, count) in &tally.endpoint_gone {
                writeln!(f, "    {count} to an endpoint that was gone, while {doing}")?;
            }
        }
        let (good, bad) = self.configurations;
        writeln!(f, "configurations: {good} good, {bad} refused")?;
        let (drained, killed) = self.restarts;
        writeln!(f, "endpoint restarts: {drained} drained, {killed} killed")?;
        writeln!(f, "retries by Envoy: {}", self.retries)?;
        for (from, to) in [(2, 4), (4, 6), (6, 8), (8, 10)] {
            let memory = self.memory_between(from, to);
            let (resident, allocated) = (mib(memory.resident), mib(memory.allocated));
            writeln!(
                f,
                "memory from {from}0 % to {to}0 %: resident {}.{} MiB, allocated {}.{} MiB",
                resident / 10,
                resident % 10,
                allocated / 10,
                allocated % 10
            )?;
        }
        for fault in self.faults() {
            writeln!(f, "WRONG {fault}")?;
        }
        Ok(())
    }
}

/// What the threads of a run share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    tallies: Mutex<BTreeMap<Kind, Tally>>,
    /// What is being done to the endpoints, for the reason of a failure.
    doing: Mutex<String>,
}

impl Shared {
    fn running(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    fn tally(&self, kind: Kind, outcome: Result<Outcome, String>, routes: Routes) {
        let doing = self.doing.lock().expect("no thread panicked").clone();
        let mut tallies = self.tallies.lock().expect("no thread panicked");
        let tally = tallies.entry(kind).or_default();
        tally.sent += 1;
        match outcome {
            Ok(Outcome::Served) => {}
            Ok(Outcome::EndpointGone) if kind == Kind::TrustedPost || routes == Routes::Plain => {
                *tally.endpoint_gone.entry(doing).or_default() += 1;
            }
            outcome => {
                let reason = outcome
                    .err()
                    .unwrap_or_else(|| "its endpoint was gone".to_owned());
                tally.wrong_count += 1;
                if tally.wrong.len() < 10 {
                    tally.wrong.push(format!("{kind:?}, {doing}: {reason}"));
                }
            }
        }
    }
}

enum Outcome {
    Served,
    EndpointGone,
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

/// What a client sends next, and what came of it.
type Step = fn(SocketAddr, u64, &mut Option<KeptConnection>) -> (Kind, Result<Outcome, String>);

fn client(
    shared: &Arc<Shared>,
    address: SocketAddr,
    every_ms: u64,
    step: Step,
    routes: Routes,
) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let mut connection = None;
        for n in 0.. {
            if !shared.running() {
                return;
            }
            let began = Instant::now();
            let (kind, outcome) = step(address, n, &mut connection);
            shared.tally(kind, outcome, routes);
            std::thread::sleep(Duration::from_millis(every_ms).saturating_sub(began.elapsed()));
        }
    })
}

fn trusted_get(
    address: SocketAddr,
    n: u64,
    connection: &mut Option<KeptConnection>,
) -> (Kind, Result<Outcome, String>) {
    let path = if n.is_multiple_of(5) {
        "/slow?ms=100"
    } else {
        "/"
    };
    let request = ClientRequest::get(LOAD_BALANCER, "app.example.com", path);
    let response = keep_sending(address, connection, &request);
    (
        Kind::TrustedGet,
        response.and_then(|response| served(&response, "https")),
    )
}

fn trusted_post(
    address: SocketAddr,
    n: u64,
    connection: &mut Option<KeptConnection>,
) -> (Kind, Result<Outcome, String>) {
    let path = if n.is_multiple_of(2) {
        "/slow?ms=100"
    } else {
        "/"
    };
    let order = n.to_string();
    let mut request =
        ClientRequest::get(LOAD_BALANCER, "app.example.com", path).with(&[(ORDER, &order)]);
    request.method = "POST".to_owned();
    let response = keep_sending(address, connection, &request);
    (
        Kind::TrustedPost,
        response.and_then(|response| served(&response, "https")),
    )
}

fn untrusted(
    address: SocketAddr,
    _: u64,
    connection: &mut Option<KeptConnection>,
) -> (Kind, Result<Outcome, String>) {
    let request = ClientRequest::get(ELSEWHERE, "app.example.com", "/");
    let response = keep_sending(address, connection, &request);
    (
        Kind::Untrusted,
        response.and_then(|response| served(&response, "http")),
    )
}

/// One attack after the other, each over a connection of its own.
fn attack(
    address: SocketAddr,
    n: u64,
    _: &mut Option<KeptConnection>,
) -> (Kind, Result<Outcome, String>) {
    let long = "10.0.0.7, ".repeat(1000);
    let lies: [&[(&str, &str)]; 8] = [
        &[("x-forwarded-proto", "https")],
        &[
            ("x-forwarded-for", "127.0.0.2"),
            ("x-forwarded-proto", "https"),
        ],
        &[
            ("x_forwarded_proto", "https"),
            ("x-forwarded_proto", "https"),
        ],
        &[("x-forwarded-ssl", "on"), ("front-end-https", "on")],
        &[
            ("forwarded", "for=127.0.0.2;proto=https"),
            ("x-forwarded-scheme", "https"),
        ],
        &[("x-forwarded-for", &long)],
        &[
            ("x-forwarded-proto", "\u{ff}\u{fe}https"),
            ("cookie", "\u{80}"),
        ],
        &[
            ("x-envoy-upstream-rq-timeout-ms", "1"),
            ("x-envoy-max-retries", "99"),
        ],
    ];
    let index = usize::try_from(n % 10).unwrap_or_default();
    let mut request = ClientRequest::get(ELSEWHERE, "app.example.com", "/");
    if index == 9 {
        let request = request.with(&[("connection", "x-forwarded-proto")]);
        let outcome = match http::send(address, &request) {
            Ok(response) if response.status == 400 => Ok(Outcome::Served),
            other => Err(format!("{other:?}")),
        };
        return (Kind::Refused, outcome);
    }
    if index == 8 {
        request.protocol = Protocol::Http2;
        request.scheme = Some("https".to_owned());
    }
    let request = request.with(lies.get(index).copied().unwrap_or_default());
    let outcome = http::send(address, &request)
        .map_err(|error| error.to_string())
        .and_then(|response| {
            for claim in [
                "x_forwarded_proto",
                "x-forwarded_proto",
                "x-forwarded-ssl",
                "front-end-https",
                "forwarded",
                "x-forwarded-scheme",
            ] {
                if response.received_one(claim).is_some() {
                    return Err(format!("{claim} reached the upstream"));
                }
            }
            served(&response, "http")
        });
    (Kind::Attack, outcome)
}

/// Sends over the connection that there is, or over a new one.
fn keep_sending(
    address: SocketAddr,
    connection: &mut Option<KeptConnection>,
    request: &ClientRequest,
) -> Result<Response, String> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => KeptConnection::open(address, request.peer).map_err(|error| error.to_string())?,
    };
    let response = open.send(request).map_err(|error| error.to_string())?;
    if response.header("connection").as_deref() != Some("close") {
        *connection = Some(open);
    }
    Ok(response)
}

/// Whether the upstream answered, and saw this scheme.
fn served(response: &Response, scheme: &str) -> Result<Outcome, String> {
    // Envoy's own words where its upstream connection failed or ended.
    if response.status == 503 && response.body.starts_with(b"upstream connect error") {
        return Ok(Outcome::EndpointGone);
    }
    let seen = ["x-forwarded-proto", "x-seen-scheme"].map(|name| response.received_one(name));
    if response.status == 200 && seen.iter().all(|seen| seen.as_deref() == Some(scheme)) {
        Ok(Outcome::Served)
    } else {
        Err(format!(
            "{} {seen:?} {}",
            response.status,
            String::from_utf8_lossy(&response.body[..response.body.len().min(200)])
        ))
    }
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
