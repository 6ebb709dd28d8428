//! Writes a bill of materials of what is linked into the module, in `CycloneDX`'s JSON.
//!
//! `cargo tree` says which packages are linked: it resolves features for this one package, while `cargo metadata` gives
//! each package the features that any member of the workspace asks for. `cargo metadata` describes the packages. Build
//! scripts, procedural macros and tests are not in the module, and so not in its bill; the standard library is.

// Of JSON: what isn't there is null, and what is written to is an object made here.
#![allow(clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, ExitCode};

use serde_json::{Value, json};

const USAGE: &str = "usage: sbom PACKAGE TARGET MODULE-SHA256 REVISION STD-VERSION";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [package, target, sha256, revision, std_version] = arguments.as_slice() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match bill(package, target, sha256, revision, std_version) {
        Ok(bill) => {
            println!("{bill:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bill(
    root: &str,
    target: &str,
    sha256: &str,
    revision: &str,
    std_version: &str,
) -> Result<Value, String> {
    let metadata = cargo(&[
        "metadata",
        "--format-version=1",
        "--locked",
        "--filter-platform",
        target,
    ])?;
    let metadata: Value = serde_json::from_str(&metadata).map_err(|error| error.to_string())?;
    let listed = metadata["packages"].as_array().into_iter().flatten();
    let packages: BTreeMap<Id, &Value> = listed.map(|package| (Id::of(package), package)).collect();
    let tree = cargo(&[
        "tree",
        "--locked",
        "--package",
        root,
        "--target",
        target,
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "depth",
        "--no-dedupe",
        "--format",
        " {p}",
    ])?;
    let (root, edges) = linked(&tree)?;

    let std_reference = format!("rust-std@{std_version}");
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    for (id, on) in &edges {
        let package = packages
            .get(id)
            .ok_or_else(|| format!("cargo metadata doesn't know {}", id.purl()))?;
        if *id != root {
            components.push(component(id, package));
        }
        let mut on: Vec<String> = on.iter().map(Id::purl).collect();
        on.push(std_reference.clone());
        on.sort();
        dependencies.push(json!({"ref": id.purl(), "dependsOn": on}));
    }
    components.push(json!({
        "type": "library", "bom-ref": std_reference, "name": "rust-std", "version": std_version,
        "description": "Rust's standard library, linked statically",
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
    }));
    dependencies.push(json!({"ref": std_reference, "dependsOn": []}));
    let mut module = packages
        .get(&root)
        .map(|package| component(&root, package))
        .unwrap_or_default();
    module["type"] = "application".into();
    module["hashes"] = json!([{"alg": "SHA-256", "content": sha256}]);
    module["properties"] = json!([{"name": "revision", "value": revision}]);
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": module},
        "components": components,
        "dependencies": dependencies,
    }))
}

/// A package's name and version. A build links no two packages that have both in common.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Id {
    name: String,
    version: String,
}

impl Id {
    /// Of a package that `cargo metadata` lists.
    fn of(package: &Value) -> Self {
        let field = |name: &str| package[name].as_str().unwrap_or_default().to_owned();
        Self {
            name: field("name"),
            version: field("version"),
        }
    }

    fn purl(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }
}

/// The root of a tree that `cargo tree --prefix depth` printed, and each package with those that it depends on.
fn linked(tree: &str) -> Result<(Id, BTreeMap<Id, BTreeSet<Id>>), String> {
    let mut edges: BTreeMap<Id, BTreeSet<Id>> = BTreeMap::new();
    // From the root to the package of the line before.
    let mut path: Vec<Id> = Vec::new();
    for line in tree.lines() {
        let unknown = || format!("cargo tree printed an unknown line: {line}");
        let mut words = line.split_whitespace();
        let depth: usize = words
            .next()
            .and_then(|word| word.parse().ok())
            .ok_or_else(unknown)?;
        let name = words.next().ok_or_else(unknown)?.to_owned();
        let version = words
            .next()
            .and_then(|word| word.strip_prefix('v'))
            .ok_or_else(unknown)?
            .to_owned();
        let id = Id { name, version };
        path.truncate(depth);
        if let Some(parent) = path.last() {
            edges.entry(parent.clone()).or_default().insert(id.clone());
        }
        edges.entry(id.clone()).or_default();
        path.push(id);
    }
    let root = path
        .into_iter()
        .next()
        .ok_or("cargo tree printed nothing")?;
    Ok((root, edges))
}

fn cargo(arguments: &[&str]) -> Result<String, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .output()
        .map_err(|error| format!("cargo can't be run: {error}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo {}: {stderr}", arguments.join(" ")));
    }
    String::from_utf8(output.stdout).map_err(|error| error.to_string())
}

fn component(id: &Id, package: &Value) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": id.purl(),
        "name": id.name,
        "version": id.version,
        "purl": id.purl(),
    });
    if let Some(licence) = package["license"].as_str() {
        // The slash that old manifests have means the same.
        component["licenses"] = json!([{"expression": licence.replace('/', " OR ")}]);
    }
    if let Some(description) = package["description"].as_str() {
        component["description"] = description
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .into();
    }
    if let Some(repository) = package["repository"].as_str() {
        component["externalReferences"] = json!([{"type": "vcs", "url": repository}]);
    }
    component
}
