//! What the filter costs in memory: the resident size of an Envoy that has served some requests, without the filter and
//! with it. The figures in docs/operations.md are from here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;
use testkit::cases::ClientRequest;
use testkit::envoy::Envoy;
use testkit::gateway::{Listener, bootstrap};
use testkit::http::KeptConnection;
use testkit::upstream::Upstream;
use testkit::workloads;

const LOAD_BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const REQUESTS: usize = 2000;

fn main() {
    let upstream = Upstream::start();
    let job = workloads::full_job("source");
    let others = |count: u32| {
        (0..count)
            .map(|number| {
                let mut config = job.clone();
                config["defaults"]["timeout"] = format!("{}s", 20 + number).into();
                config
            })
            .collect::<Vec<_>>()
    };
    let cases: [(&str, Vec<Value>); 5] = [
        ("without the filter", Vec::new()),
        ("one plugin", others(1)),
        ("four plugins with different configurations", others(4)),
        (
            "one plugin with 10,000 blocks",
            vec![workloads::blocks(10_000)],
        ),
        (
            "one plugin with 1,000 routes",
            vec![workloads::routes(1_000)],
        ),
    ];
    for workers in ["1", "4"] {
        for (what, configs) in &cases {
            let listener = configs
                .iter()
                .fold(Listener::new("gateway"), |listener, config| {
                    listener.plugin(config, &BTreeMap::new())
                });
            let envoy = Envoy::start_with_arguments(
                &bootstrap(&[listener], upstream.address()),
                &BTreeMap::new(),
                &["--concurrency", workers],
            );
            let mut connections: Vec<KeptConnection> = (0..16)
                .map(|_| {
                    KeptConnection::open(envoy.listener("gateway"), LOAD_BALANCER)
                        .expect("Envoy listens")
                })
                .collect();
            let request = ClientRequest::get(LOAD_BALANCER, "app.example.com", "/");
            for n in 0..REQUESTS {
                let connection = &mut connections[n % 16];
                let response = connection.send(&request).expect("Envoy answers");
                assert_eq!(response.status, 200);
            }
            let tenths = envoy.resident_bytes() / 1024 * 10 / 1024;
            println!(
                "{workers} workers, {what}: {}.{} MiB",
                tenths / 10,
                tenths % 10
            );
        }
    }
}
