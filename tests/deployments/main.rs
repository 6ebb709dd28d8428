//! Whole deployments, tried as far as one machine can: Docker Compose, its dashboard and alerts, kustomize, the smoke test
//! in a cluster, the image in a registry.

// A test ends when something is not as expected.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../cli/command.rs"]
mod command;
mod command_image;
mod compose;
mod gitops;
mod monitoring;
mod oci;
mod smoke_test_job;

use std::path::Path;

use testkit::artifacts::repository;

/// A file of the repository.
fn read(path: &str) -> String {
    let path = repository().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The documents of a YAML text.
fn documents(text: &str) -> Vec<serde_json::Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Says so where a machine can't do what a test needs.
fn skipped(what: &str, reason: &str) {
    eprintln!("SKIPPED: {what}: {reason}");
}

/// Replaces the module's place in a gateway's configuration by where it lies here.
fn with_module(text: &str, place: &str, module: &Path) -> String {
    assert!(text.contains(place), "{place}");
    text.replace(place, &module.display().to_string())
}
