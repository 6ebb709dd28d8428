//! The pre-commit hook, the GitHub action and SARIF, run as their hosts run them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use testkit::artifacts::repository;

use crate::command::{COMMAND, read, text};

const WRONG: &str = "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: trusted-lb}\nspec:\n  \
                     pluginConfig: {defaults: {timeout: 15}}\n";

fn yaml(file: &str) -> Value {
    serde_saphyr::from_str(&read(&repository().join(file))).expect("it is YAML")
}

/// A folder with a manifest that has an error, and one of others.
fn manifests() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("it can be written");
    };
    write("wrong.yaml", WRONG);
    write(
        "service.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n",
    );
    folder
}

#[test]
fn the_pre_commit_hook_checks_the_files_that_it_is_given() {
    let hooks = yaml(".pre-commit-hooks.yaml");
    let hook = &hooks[0];
    let used = &yaml("examples/ci/pre-commit-config.yaml")["repos"][0]["hooks"][0];
    assert_eq!(hook["id"], used["id"]);
    assert_eq!(hook["language"], "script");
    let entry = hook["entry"].as_str().expect("an entry");
    let folder = manifests();
    let run = |files: &[&str]| -> Output {
        let path = format!(
            "{}:{}",
            Path::new(COMMAND)
                .parent()
                .expect("it lies in a folder")
                .display(),
            std::env::var("PATH").unwrap_or_default()
        );
        Command::new(repository().join(entry))
            .args(files)
            .current_dir(folder.path())
            .env("PATH", path)
            .output()
            .expect("the hook can be run")
    };
    let output = run(&["service.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let output = run(&["service.yaml", "wrong.yaml"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("wrong.yaml:5:38"),
        "{}",
        text(&output)
    );
}

/// The steps of the action, as a runner runs them: expressions replaced, each step with what the one before wrote.
fn action(inputs: &BTreeMap<&str, &str>, folder: &Path, path: &str) -> Output {
    let action = yaml("action.yml");
    let variables = folder.join("github-env");
    std::fs::write(&variables, "").expect("it can be written");
    let mut last = None;
    for step in action["runs"]["steps"].as_array().expect("steps") {
        assert_eq!(step["shell"], "bash");
        let mut command = Command::new("bash");
        command
            .args(["-e", "-o", "pipefail", "-c"])
            .arg(step["run"].as_str().expect("what it runs"))
            .current_dir(folder)
            .env("PATH", path)
            .env("GITHUB_ACTION_PATH", repository())
            .env("GITHUB_ENV", &variables)
            .env("GITHUB_SERVER_URL", "https://github.example.com");
        for (name, value) in step["env"].as_object().expect("variables") {
            let expression = value.as_str().expect("a text");
            let name_of = expression
                .trim_start_matches("${{ ")
                .trim_end_matches(" }}");
            let value = match name_of.strip_prefix("inputs.") {
                Some(input) => {
                    let default = &action["inputs"][input]["default"];
                    inputs
                        .get(input)
                        .copied()
                        .unwrap_or_else(|| default.as_str().expect("a default"))
                }
                None if name_of == "github.action_repository" => "owner/trusted-lb",
                None => "v0.1.0",
            };
            command.env(name, value);
        }
        for line in read(&variables).lines() {
            let (name, value) = line.split_once('=').expect("NAME=VALUE");
            command.env(name, value);
        }
        let output = command.output().expect("bash can be run");
        let good = output.status.success();
        last = Some(output);
        if !good {
            break;
        }
    }
    last.expect("there are steps")
}

#[test]
fn the_github_action_annotates_the_line_and_writes_sarif() {
    let folder = manifests();
    let path = std::env::var("PATH").unwrap_or_default();
    let inputs = BTreeMap::from([
        ("command", COMMAND),
        ("files", "wrong.yaml\nservice.yaml\n"),
        ("sarif", "out.sarif"),
    ]);
    let output = action(&inputs, folder.path(), &path);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("::error file=wrong.yaml,line=5,col=38,title=trusted-lb configuration::defaults.timeout: 15 has no unit"),
        "{}",
        text(&output)
    );
    let log: Value =
        serde_json::from_str(&read(&folder.path().join("out.sarif"))).expect("it is JSON");
    assert_eq!(log["version"], "2.1.0");
    let result = &log["runs"][0]["results"][0];
    assert_eq!(result["level"], "error");
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "wrong.yaml");
    let rules = log["runs"][0]["tool"]["driver"]["rules"]
        .as_array()
        .expect("rules");
    assert!(rules.iter().any(|rule| rule["id"] == result["ruleId"]));
    let inputs = BTreeMap::from([("command", COMMAND), ("files", "service.yaml")]);
    assert_eq!(action(&inputs, folder.path(), &path).status.code(), Some(0));
}

/// A `curl` that serves a release from a folder.
fn served(folder: &Path, sums: &str) -> String {
    let script = format!(
        "#!/bin/sh\nfor last; do :; done\nwhile [ \"$1\" != --output ]; do shift; done\n\
         case \"$last\" in\nhttps://github.example.com/owner/trusted-lb/releases/download/v0.1.0/SHA256SUMS) printf '%s' '{sums}' >\"$2\" ;;\n\
         https://github.example.com/owner/trusted-lb/releases/download/v0.1.0/trusted-lb-*) cp '{COMMAND}' \"$2\" ;;\n*) exit 22 ;;\nesac\n"
    );
    let tools = folder.join("tools");
    std::fs::create_dir_all(&tools).expect("it can be made");
    let program = tools.join("curl");
    std::fs::write(&program, script).expect("it can be written");
    let made = Command::new("chmod").arg("+x").arg(&program).status();
    assert!(made.is_ok_and(|status| status.success()));
    format!(
        "{}:{}",
        tools.display(),
        std::env::var("PATH").unwrap_or_default()
    )
}

#[test]
fn the_github_action_runs_no_download_that_differs_from_its_sum() {
    let folder = manifests();
    let sum = Command::new("sha256sum")
        .arg(COMMAND)
        .output()
        .expect("it can be run");
    let sum = String::from_utf8_lossy(&sum.stdout);
    let sum = sum.split(' ').next().expect("a sum");
    let machine = Command::new("uname")
        .arg("-m")
        .output()
        .expect("it can be run");
    let machine = String::from_utf8_lossy(&machine.stdout).trim().to_owned();
    let name = format!("trusted-lb-{machine}-unknown-linux-musl");
    let inputs = BTreeMap::from([("files", "service.yaml")]);
    let path = served(folder.path(), &format!("{sum}  {name}\n"));
    let output = action(&inputs, folder.path(), &path);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    for wrong in [format!("{}  {name}\n", "0".repeat(64)), String::new()] {
        let path = served(folder.path(), &wrong);
        let output = action(&inputs, folder.path(), &path);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(
            text(&output).contains("isn't what SHA256SUMS says"),
            "{}",
            text(&output)
        );
    }
}
