//! Writes a bill of materials of what is linked into the module, in `CycloneDX`'s JSON.
//!
//! Reads `cargo metadata`, filtered for the module's target, from standard input. Build scripts, tests and the other
//! packages of the workspace are not in the module, and so not in its bill; the standard library is.

// Of JSON: what isn't there is null, and what is written to is an object made here.
#![allow(clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::process::ExitCode;

use serde_json::{Value, json};

const USAGE: &str = "usage: cargo metadata … | sbom PACKAGE MODULE-SHA256 REVISION STD-VERSION";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [package, sha256, revision, std_version] = arguments.as_slice() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut text = String::new();
    let bill = std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())
        .and_then(|_| serde_json::from_str(&text).map_err(|error| error.to_string()))
        .and_then(|metadata: Value| bill(&metadata, package, sha256, revision, std_version));
    match bill {
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
    metadata: &Value,
    root: &str,
    sha256: &str,
    revision: &str,
    std_version: &str,
) -> Result<Value, String> {
    let by_id = |list: &Value| -> BTreeMap<String, Value> {
        let items = list.as_array().into_iter().flatten();
        items
            .filter_map(|item| Some((item["id"].as_str()?.to_owned(), item.clone())))
            .collect()
    };
    let packages = by_id(&metadata["packages"]);
    let nodes = by_id(&metadata["resolve"]["nodes"]);
    let (root_id, _) = packages
        .iter()
        .find(|(_, package)| package["name"] == root && package["source"].is_null())
        .ok_or_else(|| format!("there is no package {root} in this workspace"))?;

    let mut linked = BTreeSet::new();
    let mut open = vec![root_id.clone()];
    let mut edges = BTreeMap::new();
    while let Some(id) = open.pop() {
        if !linked.insert(id.clone()) {
            continue;
        }
        let node = nodes
            .get(&id)
            .ok_or_else(|| format!("{id} is not resolved"))?;
        let used: Vec<String> = linked_dependencies(node, &packages);
        open.extend(used.iter().cloned());
        edges.insert(id, used);
    }

    let reference = |id: &String| packages.get(id).map(purl).unwrap_or_default();
    let std_reference = format!("rust-std@{std_version}");
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    for id in &linked {
        let Some(package) = packages.get(id) else {
            continue;
        };
        if id != root_id {
            components.push(component(package));
        }
        let mut on: Vec<String> = edges.get(id).into_iter().flatten().map(reference).collect();
        on.push(std_reference.clone());
        on.sort();
        dependencies.push(json!({"ref": purl(package), "dependsOn": on}));
    }
    components.push(json!({
        "type": "library", "bom-ref": std_reference, "name": "rust-std", "version": std_version,
        "description": "Rust's standard library, linked statically",
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
    }));
    dependencies.push(json!({"ref": std_reference, "dependsOn": []}));
    let mut module = packages.get(root_id).map(component).unwrap_or_default();
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

/// What a package is linked with: no build scripts, no tests, no macros that only run while compiling.
fn linked_dependencies(node: &Value, packages: &BTreeMap<String, Value>) -> Vec<String> {
    let each = node["deps"].as_array().into_iter().flatten();
    each.filter(|dependency| {
        let kinds = dependency["dep_kinds"].as_array().into_iter().flatten();
        kinds.into_iter().any(|kind| kind["kind"].is_null())
    })
    .filter_map(|dependency| dependency["pkg"].as_str())
    .filter(|id| packages.get(*id).is_some_and(|package| !is_macro(package)))
    .map(str::to_owned)
    .collect()
}

fn is_macro(package: &Value) -> bool {
    let targets = package["targets"].as_array().into_iter().flatten();
    targets
        .flat_map(|target| target["kind"].as_array().into_iter().flatten())
        .any(|kind| kind == "proc-macro")
}

fn component(package: &Value) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
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

fn purl(package: &Value) -> String {
    let field = |name: &str| package[name].as_str().unwrap_or_default();
    format!("pkg:cargo/{}@{}", field("name"), field("version"))
}
