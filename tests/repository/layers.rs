//! Who may know whom: the decision knows no host, and only the glue knows proxy-wasm.

use std::path::Path;

use testkit::artifacts::repository;

/// Files below a folder that have one of these words in their code.
fn naming(folder: &Path, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder can be listed") {
        let path = entry.expect("a folder can be listed").path();
        if path.is_dir() {
            found.extend(naming(&path, words));
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source file can be read");
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        if code
            .clone()
            .any(|line| words.iter().any(|word| line.contains(word)))
        {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn only_the_filter_knows_proxy_wasm() {
    let source = repository().join("src");
    for layer in ["config", "engine", "cli", "bin"] {
        let found = naming(
            &source.join(layer),
            &["proxy_wasm", "proxy_on_", "proxy_get_", "crate::filter"],
        );
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn the_decision_and_the_configuration_do_no_input_or_output() {
    let source = repository().join("src");
    for layer in ["config", "engine"] {
        let words = [
            "std::fs",
            "std::env",
            "std::net::Tcp",
            "std::io",
            "std::time",
            "println!",
            "log::",
        ];
        let found = naming(&source.join(layer), &words);
        assert!(found.is_empty(), "{found:?}");
    }
    for layer in ["config", "engine"] {
        let found = naming(&source.join(layer), &["crate::cli"]);
        assert!(found.is_empty(), "{found:?}");
    }
    let found = naming(&source.join("config"), &["crate::engine"]);
    assert!(
        found.is_empty(),
        "the configuration knows its own meaning only: {found:?}"
    );
}
