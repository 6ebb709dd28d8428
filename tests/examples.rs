//! The examples, run as their READMEs say. That what they configure is right is tested with the command, in `cli.rs`.

// Tests end where something is not as expected.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::TcpListener;

use serde_json::Value;
use testkit::artifacts::{self, repository};
use testkit::cases::ClientRequest;
use testkit::envoy::Envoy;
use testkit::http;

/// The documents of a YAML text.
fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Loopback ports that nobody uses now.
fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let held: Vec<TcpListener> = (0..COUNT)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)).expect("a port can be had"))
        .collect();
    std::array::from_fn(|index| held[index].local_addr().expect("it has an address").port())
}

#[test]
fn the_standalone_example_does_what_its_readme_says() {
    let [gateway, service] = free_ports();
    let text = std::fs::read_to_string(repository().join("examples/standalone/envoy.yaml"))
        .expect("it is there");
    let text = text
        .replace("10080", &gateway.to_string())
        .replace("10081", &service.to_string())
        .replace(
            "dist/trusted_lb.wasm",
            &artifacts::module().display().to_string(),
        );
    let envoy = Envoy::start(&documents(&text)[0]);
    let saw = |peer: [u8; 4]| {
        let request = ClientRequest::get(peer.into(), "127.0.0.1:10080", "/")
            .with(&[("x-forwarded-proto", "https")]);
        let response =
            http::send(envoy.listener("gateway"), &request).expect("the gateway answers");
        (
            response.header("x-service-saw-proto"),
            response.header("x-service-saw-scheme"),
        )
    };
    let both = |scheme: &str| (Some(scheme.to_owned()), Some(scheme.to_owned()));
    assert_eq!(saw([127, 0, 0, 2]), both("https"));
    assert_eq!(saw([127, 0, 0, 9]), both("http"));
}
