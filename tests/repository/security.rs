//! The security model's claims: the tests that it names exist, and dependencies are what deny.toml allows.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use testkit::artifacts::repository;

/// The names of all test functions below a folder.
fn tests_in(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder can be listed") {
        let path = entry.expect("a folder can be listed").path();
        if path.is_dir() {
            tests_in(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file can be read");
            let mut is_test = false;
            for line in text.lines().map(str::trim_start) {
                if line == "#[test]" {
                    is_test = true;
                } else if let Some(rest) = line.strip_prefix("fn ").filter(|_| is_test) {
                    names.extend(rest.split('(').next().map(str::to_owned));
                    is_test = false;
                }
            }
        }
    }
}

#[test]
fn every_test_that_the_security_model_names_exists() {
    let mut tests = BTreeSet::new();
    for folder in ["src", "tests"] {
        tests_in(&repository().join(folder), &mut tests);
    }
    let model = std::fs::read_to_string(repository().join("docs/security.md"))
        .expect("docs/security.md can be read");
    let table = model
        .split("| assumption | pinned by |")
        .nth(1)
        .expect("the table is there");
    let rows: Vec<&str> = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let test = row
            .trim_end_matches(" |")
            .rsplit("| ")
            .next()
            .unwrap_or_default()
            .trim_matches('`');
        assert!(tests.contains(test), "there is no test {test}: {row}");
    }
}

/// Whether a licence expression can be satisfied with these licences: `A OR (B AND C)`, also in the old form `A/B`.
fn allows(allowed: &[&str], expression: &str) -> bool {
    let expression = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = expression.split_whitespace().collect();
    let mut place = 0;
    let satisfied = any_of(allowed, &words, &mut place);
    assert_eq!(place, words.len(), "{expression} is not understood");
    satisfied
}

fn any_of(allowed: &[&str], words: &[&str], place: &mut usize) -> bool {
    let mut satisfied = all_of(allowed, words, place);
    while words.get(*place) == Some(&"OR") {
        *place += 1;
        satisfied |= all_of(allowed, words, place);
    }
    satisfied
}

fn all_of(allowed: &[&str], words: &[&str], place: &mut usize) -> bool {
    let mut satisfied = one(allowed, words, place);
    while words.get(*place) == Some(&"AND") {
        *place += 1;
        satisfied &= one(allowed, words, place);
    }
    satisfied
}

fn one(allowed: &[&str], words: &[&str], place: &mut usize) -> bool {
    let word = words.get(*place).copied().unwrap_or_default();
    *place += 1;
    if word == "(" {
        let satisfied = any_of(allowed, words, place);
        *place += 1;
        return satisfied;
    }
    // An exception only permits more than the licence itself.
    if words.get(*place) == Some(&"WITH") {
        *place += 2;
    }
    allowed.contains(&word)
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed() {
    let deny =
        std::fs::read_to_string(repository().join("deny.toml")).expect("deny.toml can be read");
    let list = deny
        .split("allow = [")
        .nth(1)
        .and_then(|rest| rest.split(']').next())
        .expect("licences are allowed");
    let allowed: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    // `{ allow = ["MPL-2.0"], crate = "full_moon" }`
    let exceptions: Vec<(&str, &str)> = deny
        .lines()
        .filter(|line| line.starts_with("exceptions"))
        .flat_map(|line| line.split('{').skip(1))
        .filter_map(|entry| {
            let mut words = entry.split('"').skip(1).step_by(2);
            let licence = words.next()?;
            Some((words.next()?, licence))
        })
        .collect();
    assert!(allows(&["MIT"], "Apache-2.0 OR MIT") && !allows(&["MIT"], "MIT AND (Zlib OR ISC)"));
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        let output = Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--format-version",
                "1",
                "--locked",
                "--all-features",
                "--manifest-path",
            ])
            .arg(repository().join(manifest))
            .output()
            .expect("cargo can be run");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("cargo answers in JSON");
        let packages = metadata["packages"].as_array().expect("there are packages");
        assert!(packages.len() > 10);
        for package in packages {
            let name = &package["name"];
            let licence = package["license"].as_str().unwrap_or_default();
            let excepted = exceptions
                .iter()
                .any(|(known, excepted)| *name == **known && licence == *excepted);
            assert!(
                excepted || allows(&allowed, licence),
                "{manifest}: {name}: {licence}"
            );
            let source = package["source"].as_str();
            assert!(
                source.is_none_or(|source| source.starts_with("registry+")),
                "{manifest}: {name}: {source:?}"
            );
        }
    }
}
