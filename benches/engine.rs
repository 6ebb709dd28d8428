//! What the decision alone costs, natively: `cargo bench --bench engine`. Growth with the size of a configuration is
//! what to look at; what a request costs in Envoy is for `./build.sh bench` to say.

// A bench ends where something is not as expected.
#![allow(clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../tests/native/plain.rs"]
#[allow(dead_code)]
mod plain;

use divan::{Bencher, black_box};
use plain::Plain;
use serde_json::Value;
use testkit::workloads::{self, LOAD_BALANCER, STRANGER};
use trusted_lb::config;
use trusted_lb::engine::Engine;

fn main() {
    divan::main();
}

fn engine(config: &Value) -> Engine {
    let loaded = config::load(config.to_string().as_bytes());
    let config = loaded.config.expect("the workload is a configuration");
    Engine::new(&config, &|_| None).expect("it has no secrets")
}

fn decide(bencher: Bencher<'_, '_>, config: &Value, peer: &str) {
    let engine = engine(config);
    let request = Plain(workloads::request(peer));
    bencher.bench_local(|| black_box(engine.decide(black_box(&request))).rule);
}

#[divan::bench(args = [1, 100, 10_000])]
fn address_blocks(bencher: Bencher<'_, '_>, count: usize) {
    decide(bencher, &workloads::blocks(count), LOAD_BALANCER);
}

#[divan::bench(args = [1, 100, 1_000])]
fn routes(bencher: Bencher<'_, '_>, count: usize) {
    decide(bencher, &workloads::routes(count), LOAD_BALANCER);
}

#[divan::bench]
fn all_signals(bencher: Bencher<'_, '_>) {
    decide(bencher, &workloads::all_signals(), LOAD_BALANCER);
}

#[divan::bench]
fn header_matches(bencher: Bencher<'_, '_>) {
    decide(bencher, &workloads::header_matches(), LOAD_BALANCER);
}

#[divan::bench]
fn full_job(bencher: Bencher<'_, '_>) {
    decide(bencher, &workloads::full_job("source"), LOAD_BALANCER);
}

#[divan::bench]
fn untrusted(bencher: Bencher<'_, '_>) {
    decide(bencher, &workloads::xfp_only("source"), STRANGER);
}

#[divan::bench(args = [1, 10_000])]
fn configure_address_blocks(bencher: Bencher<'_, '_>, count: usize) {
    let config = workloads::blocks(count);
    bencher.bench_local(|| engine(black_box(&config)));
}

#[divan::bench(args = [1, 1_000])]
fn configure_routes(bencher: Bencher<'_, '_>, count: usize) {
    let config = workloads::routes(count);
    bencher.bench_local(|| engine(black_box(&config)));
}
