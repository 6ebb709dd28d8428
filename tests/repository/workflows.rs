//! The workflow for a public repository's continuous integration, as far as it can be tried here.

use std::process::Command;

use serde_json::Value;
use testkit::artifacts::repository;

fn workflow() -> Value {
    let text = std::fs::read_to_string(repository().join(".github/workflows/ci.yml"))
        .expect("it is there");
    serde_saphyr::from_str(&text).expect("it is YAML")
}

/// Every step of every job.
fn steps() -> Vec<Value> {
    let workflow = workflow();
    let jobs = workflow["jobs"].as_object().expect("jobs");
    jobs.values()
        .flat_map(|job| job["steps"].as_array().expect("steps").clone())
        .collect()
}

#[test]
fn the_workflow_runs_each_envoy_that_is_known_to_work() {
    let known = Command::new("bash")
        .args([
            "-c",
            ". scripts/common.sh; . scripts/envoy.sh; echo $KNOWN_ENVOYS",
        ])
        .current_dir(repository())
        .output()
        .expect("bash can be run");
    let known = String::from_utf8(known.stdout).expect("text");
    let workflow = workflow();
    let matrix = workflow["jobs"]["envoy"]["strategy"]["matrix"]["version"]
        .as_array()
        .expect("a list");
    let versions: Vec<&str> = matrix.iter().filter_map(Value::as_str).collect();
    assert_eq!(versions, known.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn every_action_is_pinned_by_its_commit() {
    let mut pinned = 0;
    for step in steps() {
        let Some(action) = step["uses"].as_str() else {
            continue;
        };
        let (_, commit) = action.split_once('@').expect("a version");
        assert!(
            commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{action}"
        );
        pinned += 1;
    }
    assert!(pinned > 0);
}

#[test]
fn every_command_of_build_sh_in_it_exists() {
    let help = Command::new(repository().join("build.sh"))
        .arg("help")
        .output()
        .expect("build.sh can be run");
    let help = String::from_utf8(help.stdout).expect("text");
    let mut called = 0;
    for step in steps() {
        let script = step["run"].as_str().unwrap_or_default().to_owned();
        for call in script.split("./build.sh ").skip(1) {
            let command = call.split_whitespace().next().expect("a command");
            let listed = help
                .lines()
                .any(|line| line.starts_with(&format!("  {command}")));
            assert!(listed, "build.sh has no {command}");
            called += 1;
        }
    }
    assert!(called >= 5, "only {called}");
}
