//! The project's own manifests, exactly as they lie in its folders.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use testkit::artifacts::repository;

use crate::programs::Programs;

/// The namespace of the gateways in the project's manifests.
pub const NAMESPACE: &str = "istio-ingress";

/// A file of the project.
///
/// # Panics
/// Where it can't be read.
#[must_use]
pub fn file(path: &str) -> String {
    let path = repository().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What kustomize makes of a folder of the project, or of another.
///
/// # Panics
/// Where kustomize refuses it.
#[must_use]
pub fn kustomized(programs: &Programs, folder: impl AsRef<Path>) -> String {
    try_kustomized(programs, folder).unwrap_or_else(|error| panic!("{error}"))
}

/// As [`kustomized`].
///
/// # Errors
/// What kustomize says.
pub fn try_kustomized(programs: &Programs, folder: impl AsRef<Path>) -> Result<String, String> {
    let output = Command::new(programs.built("kubectl"))
        .arg("kustomize")
        .arg(repository().join(folder))
        .output()
        .map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

/// The documents of a YAML text.
///
/// # Panics
/// Where it isn't YAML.
#[must_use]
pub fn documents(text: &str) -> Vec<Value> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    documents
        .into_iter()
        .filter(|document| !document.is_null())
        .collect()
}

/// Documents as a text for `kubectl apply`.
#[must_use]
pub fn text(documents: &[Value]) -> String {
    documents
        .iter()
        .map(|document| format!("---\n{document}\n"))
        .collect()
}
