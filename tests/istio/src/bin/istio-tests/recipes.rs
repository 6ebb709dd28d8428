//! The recipes of examples/load-balancers, each with the requests that lie beside it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use istio_lab::gateway::{self, HTTP, HTTPS, Options};
use istio_lab::lab::Lab;
use istio_lab::manifest::file;
use istio_lab::report::Test;
use istio_lab::wait;
use serde_json::{Value, json};
use testkit::artifacts::repository;
use testkit::http::{self, Response, Transport};

pub const TESTS: &[Test<Lab>] = &[
    (
        "every recipe for a load balancer does with its requests what is written beside them",
        recipes,
    ),
    (
        "every recipe's requests behind trusted proxies",
        behind_trusted_proxies,
    ),
];

struct Recipe {
    name: String,
    requests: Vec<Value>,
}

impl Recipe {
    fn all() -> Vec<Self> {
        let folder = repository().join("examples/load-balancers");
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .expect("it can be listed")
            .map(|entry| entry.expect("it can be listed"))
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
            .into_iter()
            .map(|name| Self {
                requests: read(&format!("examples/load-balancers/{name}/requests.yaml")),
                name,
            })
            .collect()
    }

    /// Everything that lies in the recipe's folder and is no request.
    fn manifests(&self) -> String {
        let folder = format!("examples/load-balancers/{}", self.name);
        let mut files: Vec<_> = std::fs::read_dir(repository().join(&folder))
            .expect("it can be listed")
            .map(|entry| {
                entry
                    .expect("it can be listed")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .filter(|name| name.ends_with(".yaml") && name != "requests.yaml")
            .collect();
        files.sort();
        files
            .iter()
            .map(|name| format!("---\n{}\n", file(&format!("{folder}/{name}"))))
            .collect()
    }

    fn speaks_proxy_protocol(&self) -> bool {
        self.requests
            .iter()
            .any(|one| one["request"]["proxyProtocol"].is_string())
    }
}

/// With nothing that doesn't lie in the recipe's folder.
fn alone() -> Options {
    Options {
        without_direct_peer: true,
        ..Options::default()
    }
}

fn read(path: &str) -> Vec<Value> {
    serde_saphyr::from_str(&file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn hops(case: &Value) -> u64 {
    case["request"]["numTrustedProxies"].as_u64().unwrap_or(0)
}

/// The gateway of the lab listens on IPv4 only, as Istio's do in a cluster without dual stack.
fn is_ipv6(case: &Value) -> bool {
    case["request"]["peer"]
        .as_str()
        .is_some_and(|peer| peer.contains(':'))
}

fn recipes(lab: &mut Lab) {
    let mut running = false;
    for recipe in Recipe::all() {
        // A gateway goes from one recipe to the next, as it goes from one configuration to another. One that begins or ends
        // to read the PROXY protocol is started anew.
        if recipe.speaks_proxy_protocol() || !running {
            lab.clear();
            lab.serve(&recipe.manifests(), &alone());
        } else {
            lab.apply(&recipe.manifests());
        }
        running = !recipe.speaks_proxy_protocol();
        run(&recipe, 0);
    }
}

fn behind_trusted_proxies(lab: &mut Lab) {
    for recipe in Recipe::all()
        .iter()
        .filter(|recipe| recipe.requests.iter().any(|case| hops(case) > 0))
    {
        lab.clear();
        let topology = json!({"numTrustedProxies": 1});
        let options = Options {
            proxy_config: BTreeMap::from([("gatewayTopology".to_owned(), topology)]),
            ..alone()
        };
        lab.serve(&recipe.manifests(), &options);
        run(recipe, 1);
    }
}

/// Sends those requests of a recipe that are for this number of trusted proxies.
fn run(recipe: &Recipe, trusted_proxies: u64) {
    // First those that show that the recipe is in force.
    let mut cases: Vec<&Value> = recipe
        .requests
        .iter()
        .filter(|case| hops(case) == trusted_proxies && !is_ipv6(case))
        .collect();
    cases.sort_by_key(|case| case["expect"]["forwardedProto"] != "https");
    for case in cases {
        let name = format!("{}: {}", recipe.name, case["name"]);
        wait::until(&name, || {
            let response = send(&case["request"])?;
            let wrong = differences(&case["expect"], &response);
            if wrong.is_empty() {
                Ok(())
            } else {
                Err(format!("{wrong:?}"))
            }
        });
    }
}

fn differences(expected: &Value, response: &Response) -> Vec<String> {
    let mut wrong = Vec::new();
    let scheme = expected["forwardedProto"].as_str().unwrap_or("none");
    let found = gateway::outcome(response);
    if found != format!("200 {scheme}") {
        wrong.push(format!("expected 200 {scheme}, found {found}"));
    }
    for (name, value) in expected["headers"].as_object().into_iter().flatten() {
        // Envoy's router takes these off; other tests see them.
        if name.starts_with(':') {
            continue;
        }
        let found = response.received_one(name);
        if found.as_deref() != value.as_str() {
            wrong.push(format!("{name}: expected {value}, found {found:?}"));
        }
    }
    wrong
}

/// Sends one of the tables' requests over HTTP/1, as `trusted-lb explain` would read it.
fn send(request: &Value) -> Result<Response, String> {
    let text = |name: &str| request[name].as_str();
    let peer: IpAddr = text("peer")
        .ok_or("no peer")?
        .parse()
        .map_err(|_| "no address")?;
    let url = text("url").unwrap_or("http://app.example.com/");
    let (_, rest) = url.split_once("://").ok_or("no URL")?;
    let (host, path) = rest.split_once('/').ok_or("no path")?;
    let mut bytes = Vec::new();
    if let Some(client) = text("proxyProtocol") {
        let port = request["port"].as_u64().unwrap_or(8080);
        bytes.extend(format!("PROXY TCP4 {client} 198.51.100.1 50000 {port}\r\n").into_bytes());
    }
    let method = text("method").unwrap_or("GET");
    bytes.extend(format!("{method} /{path} HTTP/1.1\r\nhost: {host}\r\n").into_bytes());
    if let Some(list) = text("xff") {
        bytes.extend(format!("x-forwarded-for: {list}\r\n").into_bytes());
    }
    for line in request["headers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        bytes.extend(format!("{line}\r\n").into_bytes());
    }
    bytes.extend(b"\r\n");
    let encrypted = request["tls"].as_bool().unwrap_or(false);
    let (address, transport) = if encrypted {
        (HTTPS, Transport::Tls(None))
    } else {
        (HTTP, Transport::Plain)
    };
    http::exchange(address, peer, &transport, &bytes, method == "HEAD")
        .map_err(|error| error.to_string())
}
