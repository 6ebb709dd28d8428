//! The configurations and the request that budgets and benches measure.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::wasm_host::Request;

/// The load balancer in every one of these configurations.
pub const LOAD_BALANCER: &str = "127.0.0.2";
/// Somebody else.
pub const STRANGER: &str = "127.0.0.9";

/// A configuration, and what it is for.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its name in tables.
    pub name: &'static str,
    /// The plugin configuration.
    pub config: Value,
    /// Who sends the requests.
    pub peer: &'static str,
    /// A number for large ones: address blocks or routes.
    pub size: usize,
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Workload> {
    let workload = |name, config, peer, size| Workload {
        name,
        config,
        peer,
        size,
    };
    vec![
        workload("xfp only", xfp_only("source"), LOAD_BALANCER, 0),
        workload(
            "xfp and :scheme",
            xfp_and_scheme("source"),
            LOAD_BALANCER,
            0,
        ),
        workload("xfp only, auto", xfp_only("auto"), LOAD_BALANCER, 0),
        workload("untrusted", xfp_only("source"), STRANGER, 0),
        workload("full job", full_job("source"), LOAD_BALANCER, 0),
        workload("full job, auto", full_job("auto"), LOAD_BALANCER, 0),
        workload(
            "full job, rewriteScheme: auto",
            with_scheme(full_job("source"), "auto"),
            LOAD_BALANCER,
            0,
        ),
        workload("full job, untrusted", full_job("source"), STRANGER, 0),
        workload("1 block", blocks(1), LOAD_BALANCER, 1),
        workload("10,000 blocks", blocks(10_000), LOAD_BALANCER, 10_000),
        workload("1 route", routes(1), LOAD_BALANCER, 1),
        workload("1,000 routes", routes(1_000), LOAD_BALANCER, 1_000),
        workload("all signals", all_signals(), LOAD_BALANCER, 0),
    ]
}

/// The workload of that name.
///
/// # Panics
/// Where there is none.
#[must_use]
pub fn named(name: &str) -> Workload {
    all()
        .into_iter()
        .find(|workload| workload.name == name)
        .unwrap_or_else(|| panic!("there is no workload {name}"))
}

/// What the Lua one-liner does, but for the load balancer alone.
#[must_use]
pub fn xfp_only(peer_address: &str) -> Value {
    with_scheme(xfp_and_scheme(peer_address), "never")
}

/// As [`xfp_only`], with what a configuration does that doesn't say anything about `:scheme`.
#[must_use]
pub fn xfp_and_scheme(peer_address: &str) -> Value {
    json!({
        "peerAddress": peer_address,
        "trustedLoadBalancers": [rule(&["127.0.0.2/31", "10.0.0.0/16", "2001:db8::/56"])],
    })
}

fn with_scheme(mut config: Value, rewrite: &str) -> Value {
    config["rewriteScheme"] = json!(rewrite);
    config
}

/// Peer in three blocks, x-forwarded-proto, `:scheme`, four defaults; like the Lua filter that does the same it writes
/// `:scheme` on every protocol.
#[must_use]
pub fn full_job(peer_address: &str) -> Value {
    let mut config = with_scheme(xfp_and_scheme(peer_address), "always");
    config["defaults"] = json!({
        "timeout": "15s",
        "retries": {"attempts": 2, "perTryTimeout": "5s", "retryOn": ["connect-failure", "refused-stream"]},
    });
    config
}

/// As [`xfp_only`], with that many blocks in one rule.
#[must_use]
pub fn blocks(count: usize) -> Value {
    let mut blocks = vec!["127.0.0.2/31".to_owned()];
    // Every second /24, so that none of them become one.
    blocks.extend((1..count).map(|index| {
        format!(
            "{}.{}.{}.0/24",
            11 + index / 32_768,
            index / 128 % 256,
            index % 128 * 2
        )
    }));
    let mut config = xfp_only("source");
    config["trustedLoadBalancers"] =
        json!([rule(&blocks.iter().map(String::as_str).collect::<Vec<_>>())]);
    config
}

/// As [`full_job`], with that many routes: by host, by path, by both. The request's is the last.
#[must_use]
pub fn routes(count: usize) -> Value {
    let mut routes: Vec<Value> = (1..count)
        .map(|index| {
            let matches = match index % 3 {
                0 => json!({"hosts": [format!("service-{index}.example.com")]}),
                1 => json!({"paths": [{"prefix": format!("/service/{index}")}]}),
                _ => json!({"hosts": [format!("*.tenant-{index}.example.com")], "paths": [{"exact": "/"}]}),
            };
            json!({"name": format!("route-{index}"), "match": matches, "timeout": "1m"})
        })
        .collect();
    routes.push(json!({
        "name": "last",
        "match": {"hosts": ["app.example.com"], "paths": [{"prefix": "/api"}]},
        "timeout": "30s",
    }));
    let mut config = full_job("source");
    config["routes"] = json!(routes);
    config
}

/// Every signal, none of them in the request but the last.
#[must_use]
pub fn all_signals() -> Value {
    let mut config = xfp_only("source");
    config["trustedLoadBalancers"][0]["forwardedProto"] = json!({"from": [
        "x-forwarded-scheme", "x-url-scheme", "x-client-proto", "cloudfront-forwarded-proto", "cf-visitor",
        "x-forwarded-ssl", "front-end-https", "fastly-ssl", "x-arr-ssl", "forwarded",
        {"header": "x-lb-tls", "https": ["1"], "http": ["0"]}, "x-forwarded-port",
    ]});
    config
}

/// A rule that asks for headers of each kind, one of them on a second load balancer.
#[must_use]
pub fn header_matches() -> Value {
    let mut config = xfp_only("source");
    let mut other = rule(&["10.9.0.0/16"]);
    other["name"] = json!("other");
    other["match"]["headers"] = json!([{"name": "x-edge", "exact": "1"}]);
    config["trustedLoadBalancers"][0]["match"]["headers"] = json!([
        {"name": "x-amzn-trace-id", "prefix": "Root="},
        {"name": "user-agent", "present": true},
        {"name": "cache-control", "exact": "no-cache"},
    ]);
    let ours = config["trustedLoadBalancers"][0].take();
    config["trustedLoadBalancers"] = json!([other, ours]);
    config
}

fn rule(blocks: &[&str]) -> Value {
    json!({
        "name": "lb",
        "match": {"ipBlocks": blocks},
        "forwardedProto": {"default": "https"},
    })
}

/// The header lines of a browser's request behind a load balancer, without the pseudo-headers: ten.
pub const HEADERS: &[(&str, &str)] = &[
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    ),
    (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    ),
    ("accept-language", "en-GB,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br"),
    (
        "cookie",
        "session=8f14e45fceea167a5a36dedd4bea2543; theme=dark",
    ),
    ("referer", "https://app.example.com/"),
    ("x-forwarded-port", "443"),
    (
        "x-amzn-trace-id",
        "Root=1-67891233-abcdef012345678912345678",
    ),
    ("cache-control", "no-cache"),
    ("x-forwarded-for", "198.51.100.7"),
];

/// Their `:path`.
pub const PATH: &str = "/api/orders?page=2";

/// The request as the filter sees it on a gateway.
#[must_use]
pub fn request(peer: &str) -> Request {
    let mut request = Request::default()
        .header(":authority", "app.example.com")
        .header(":path", PATH)
        .header(":method", "GET")
        .header(":scheme", "http");
    for (name, value) in HEADERS {
        request = if *name == "x-forwarded-for" {
            request.header(name, format!("{value},{peer}"))
        } else {
            request.header(name, value)
        };
    }
    request
        .header("x-forwarded-proto", "http")
        .header("x-request-id", "5f0c9f3e-6b4e-4c3e-9d35-1c2b7a1f9e11")
        .property("source.address", format!("{peer}:41234"))
        .property("request.protocol", "HTTP/1.1")
        .property("destination.port", 8080_u64.to_le_bytes())
}

/// A table's row: name, numbers right-aligned.
#[must_use]
pub fn row(name: &str, numbers: &[u64]) -> String {
    let mut row = format!("{name:<70}");
    for number in numbers {
        let _ = write!(row, "{number:>9}");
    }
    row
}
