//! The overlays as kustomize renders them, through the same check as every configuration.

use std::process::{Command, Output};

use serde_json::{Value, json};
use testkit::artifacts::{self, repository};

use crate::command::{run, text};
use crate::{documents, skipped};

/// What kustomize renders of a folder; nothing where this machine can't have kustomize.
fn rendered(folder: &str) -> Option<String> {
    let kustomize = match artifacts::tool("kustomize") {
        Ok(tool) => tool.program,
        Err(reason) => {
            skipped(&format!("{folder} was not rendered"), &reason);
            return None;
        }
    };
    let output: Output = Command::new(kustomize)
        .args(["build", folder])
        .current_dir(repository())
        .output()
        .expect("kustomize can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.is_empty(),
        "{folder}: {said}"
    );
    Some(String::from_utf8(output.stdout).expect("it renders text"))
}

/// What `trusted-lb check` says, and its exit code.
fn checked(manifest: &str) -> (String, Option<i32>) {
    let output = run(&["check", "-"], manifest);
    (text(&output), output.status.code())
}

fn plugin(manifest: &str) -> Value {
    let mut documents = documents(manifest);
    assert_eq!(documents.len(), 1, "{manifest}");
    documents.remove(0)["spec"].take()
}

#[test]
fn staging_is_rendered_in_shadow_mode_with_its_own_load_balancer() {
    let Some(manifest) = rendered("examples/gitops/overlays/staging") else {
        return;
    };
    let plugin = plugin(&manifest);
    let configuration = &plugin["pluginConfig"];
    assert_eq!(configuration["mode"], "shadow");
    assert_eq!(plugin["failStrategy"], "FAIL_OPEN");
    assert_eq!(
        configuration["trustedLoadBalancers"],
        json!([{"name": "staging-alb", "match": {"ipBlocks": ["10.20.12.0/24"]}, "forwardedProto": {"default": "https"}}])
    );
    assert_eq!(configuration["defaults"]["timeout"], "15s", "from the base");
    let (said, code) = checked(&manifest);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn production_is_rendered_in_enforce_mode_with_its_own_load_balancers() {
    let Some(manifest) = rendered("examples/gitops/overlays/production") else {
        return;
    };
    let plugin = plugin(&manifest);
    let configuration = &plugin["pluginConfig"];
    assert_eq!(configuration["mode"], "enforce");
    assert_eq!(plugin["failStrategy"], "FAIL_CLOSE");
    let names: Vec<&Value> = configuration["trustedLoadBalancers"]
        .as_array()
        .expect("it is a list")
        .iter()
        .map(|rule| &rule["name"])
        .collect();
    assert_eq!(names, ["public-alb", "cdn"]);
    let (said, code) = checked(&manifest);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_mistake_in_an_overlay_is_found_in_what_is_rendered() {
    let Some(manifest) = rendered("examples/gitops/overlays/production") else {
        return;
    };
    let wrong = manifest.replace("10.0.40.0/24", "10.0.40.1/24");
    assert_ne!(wrong, manifest);
    let (said, code) = checked(&wrong);
    assert!(code != Some(0) && said.contains("ipBlocks"), "{said}");
}
