//! What people copy from here: manifests, examples, and the YAML in the documentation.

// Tests end where something is not as expected.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use serde_json::Value;
use testkit::artifacts::{self, repository};
use testkit::cases::ClientRequest;
use testkit::envoy::Envoy;
use testkit::http;
use trusted_lb::config;

/// Every file below these folders with one of these endings.
fn files(folders: &[&str], endings: &[&str]) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder can be listed") {
            let path = entry.expect("a folder can be listed").path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for folder in folders {
        walk(&repository().join(folder), &mut found);
    }
    found.retain(|path| {
        let name = path.to_string_lossy();
        endings.iter().any(|ending| name.ends_with(ending))
    });
    found
}

/// The documents of a YAML text.
fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Plugin configurations anywhere in a document, as JSON text in a string too.
fn configurations(value: &Value, found: &mut Vec<Value>) {
    match value {
        Value::String(text) if text.contains("trustedLoadBalancers") => {
            found.push(serde_json::from_str(text).expect("an embedded configuration is JSON"));
        }
        Value::Object(fields) => {
            if fields.contains_key("trustedLoadBalancers") {
                found.push(value.clone());
            }
            for field in fields.values() {
                configurations(field, found);
            }
        }
        Value::Array(items) => {
            for item in items {
                configurations(item, found);
            }
        }
        _ => {}
    }
}

fn check(place: &str, document: &Value) -> usize {
    let mut found = Vec::new();
    configurations(document, &mut found);
    for configuration in &found {
        let loaded = config::load(configuration.to_string().as_bytes());
        assert!(
            loaded.problems.is_empty(),
            "{place}: {:#?}",
            loaded.problems
        );
    }
    found.len()
}

#[test]
fn every_configuration_in_manifests_and_examples_is_accepted() {
    let mut found = 0;
    for path in files(&["envoyfilter", "examples"], &[".yaml", ".yml"]) {
        let text = std::fs::read_to_string(&path).expect("a file can be read");
        for document in documents(&text) {
            found += check(&path.display().to_string(), &document);
        }
    }
    assert!(found >= 2, "only {found} configurations were found");
}

#[test]
fn every_configuration_in_the_documentation_is_accepted() {
    let mut paths = files(&["docs", "examples"], &[".md"]);
    paths.push(repository().join("README.md"));
    let mut found = 0;
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a file can be read");
        for block in text.split("```yaml\n").skip(1) {
            let yaml = block.split("```").next().expect("a block ends");
            for document in documents(yaml) {
                found += check(&path.display().to_string(), &document);
            }
        }
    }
    assert!(found >= 2, "only {found} configurations were found");
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
