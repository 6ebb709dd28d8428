//! Every kind of finding, with files in which there is one and the same files but for one change, in which there is none.

use std::collections::BTreeSet;

use serde_json::Value;
use testkit::artifacts::repository;

use crate::command::{read, run, text};

fn file(name: &str) -> String {
    let folders = ["tests/cli/findings", "tests/cli/loaded"];
    let paths = folders.map(|folder| repository().join(folder).join(name));
    let path = paths.iter().find(|path| path.exists());
    read(path.unwrap_or_else(|| panic!("there is no file {name}")))
}

fn strings(list: &Value) -> Vec<&str> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).collect()
}

/// The codes of what is found in these files.
fn codes(options: &[&str], files: &[(&str, String)]) -> BTreeSet<String> {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let mut arguments = vec!["check".to_owned(), "--format".to_owned(), "json".to_owned()];
    arguments.extend(options.iter().map(|option| (*option).to_owned()));
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("it can be written");
        arguments.push(path.display().to_string());
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = run(&arguments, "");
    let list: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    let list = list.as_array().expect("a list").iter();
    list.filter_map(|one| one["code"].as_str().map(str::to_owned))
        .collect()
}

fn pairs() -> Vec<Value> {
    serde_saphyr::from_str(&file("pairs.yaml")).expect("it is YAML")
}

#[test]
fn each_finding_is_made_by_one_change_and_not_without_it() {
    for pair in pairs() {
        let code = pair["code"].as_str().expect("a code");
        let names = strings(&pair["files"]);
        if names.is_empty() {
            continue; // Another test has it.
        }
        let options = strings(&pair["options"]);
        let without: Vec<(&str, String)> = names.iter().map(|name| (*name, file(name))).collect();
        let found = codes(&options, &without);
        assert!(
            !found.contains(code),
            "{code}: without the change: {found:?}"
        );
        let mut with = without.clone();
        if let Some(change) = pair["change"].as_object() {
            let place = change.get("in").and_then(Value::as_str).unwrap_or(names[0]);
            let text = |name: &str| change[name].as_str().expect("a text");
            let changed = with
                .iter_mut()
                .find(|(name, _)| *name == place)
                .expect("the file is among them");
            assert!(changed.1.contains(text("from")), "{code}: {place}");
            changed.1 = changed.1.replacen(text("from"), text("to"), 1);
        } else {
            let instead = strings(&pair["instead"]);
            with = instead.iter().map(|name| (*name, file(name))).collect();
        }
        let found = codes(&options, &with);
        assert!(found.contains(code), "{code}: with the change: {found:?}");
    }
}

#[test]
fn the_files_without_a_change_have_no_finding_at_all() {
    for pair in pairs() {
        let names = strings(&pair["files"]);
        let files: Vec<(&str, String)> = names.iter().map(|name| (*name, file(name))).collect();
        if !files.is_empty() {
            let found = codes(&strings(&pair["options"]), &files);
            assert!(found.is_empty(), "{names:?}: {found:?}");
        }
    }
}

#[test]
fn every_code_has_its_pair_and_an_explanation() {
    let page = read(&repository().join("docs/findings.md"));
    let documented: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    let pairs = pairs();
    let paired: BTreeSet<&str> = pairs
        .iter()
        .filter_map(|pair| pair["code"].as_str())
        .collect();
    assert_eq!(paired, documented);
    for code in documented {
        let output = run(&["check", "--explain", code], "");
        assert_eq!(output.status.code(), Some(0), "{code}");
        assert!(text(&output).lines().count() > 2, "{}", text(&output));
    }
}

/// The configuration is read by the module's reader, not by Istio's schema: one fault has one finding.
#[test]
fn a_configuration_that_is_written_as_text_is_one_error() {
    let plugin = file("plugin.yaml");
    let (before, after) = plugin.split_once("pluginConfig:\n").expect("it has one");
    let written = format!("{before}pluginConfig: |\n{after}");
    let output = text(&run(&["check", "-"], &written));
    assert!(
        output.contains("is a string, an object belongs here"),
        "{output}"
    );
    assert!(output.contains("1 configuration, 1 error,"), "{output}");
}
