//! Findings as SARIF 2.1.0, which code scanning services and editors read.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Diagnostic, codes};
use crate::config::Severity;

/// A log with one run.
pub(in crate::cli) fn sarif(diagnostics: &[&Diagnostic]) -> Value {
    let used: BTreeSet<&str> = diagnostics
        .iter()
        .map(|diagnostic| diagnostic.code.name)
        .collect();
    let rules: Vec<Value> = codes::ALL
        .iter()
        .filter(|code| used.contains(code.name))
        .map(|code| {
            json!({
                "id": code.name,
                "shortDescription": {"text": code.meaning},
                "help": {"text": code.cure},
            })
        })
        .collect();
    let results: Vec<Value> = diagnostics.iter().map(|one| result(one)).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "trusted-lb",
                "version": crate::cli::VERSION,
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn result(diagnostic: &Diagnostic) -> Value {
    let source = &diagnostic.source;
    let place = diagnostic.visible_place();
    let mut text = diagnostic.message.clone();
    if !diagnostic.path.is_empty() {
        text = format!("{}: {text}", diagnostic.path);
    }
    if let Some(help) = &diagnostic.help {
        text = format!("{text} ({help})");
    }
    let level = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    json!({
        "ruleId": diagnostic.code.name,
        "level": level,
        "message": {"text": text},
        "locations": [{"physicalLocation": {
            "artifactLocation": {"uri": uri(&source.name)},
            "region": {
                "startLine": source.line(place.start),
                "startColumn": source.column(place.start),
                "endColumn": source.column(place.end).max(source.column(place.start) + 1),
            },
        }}],
    })
}

/// A file's name as a URI reference.
fn uri(name: &str) -> String {
    let mut uri = String::new();
    for byte in name.trim_start_matches("./").bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}
