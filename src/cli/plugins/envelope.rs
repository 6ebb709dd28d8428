//! The fields around the configuration in Envoy's Wasm filter, as its .proto files have them (Envoy 1.36 to 1.40). Envoy
//! refuses a file with any other.

use std::rc::Rc;

use super::Contents;
use crate::cli::files::{Field, Located, Source, Value, is_spelling_of};
use crate::cli::report::{Diagnostic, codes};
use crate::config::{self, Severity};

/// What a field holds.
enum Kind {
    Text,
    Boolean,
    Words(&'static [&'static str]),
    Texts,
    /// Text by text.
    Map,
    Message(&'static [(&'static str, Kind)]),
    /// Something that is not looked into.
    Other,
}

/// `envoy.extensions.wasm.v3.PluginConfig`.
const PLUGIN: &[(&str, Kind)] = &[
    ("name", Kind::Text),
    ("root_id", Kind::Text),
    ("vm_config", Kind::Message(VM)),
    ("configuration", Kind::Other),
    ("fail_open", Kind::Boolean),
    (
        "failure_policy",
        Kind::Words(&["UNSPECIFIED", "FAIL_RELOAD", "FAIL_CLOSED", "FAIL_OPEN"]),
    ),
    ("reload_config", Kind::Other),
    ("capability_restriction_config", Kind::Other),
    ("allow_on_headers_stop_iteration", Kind::Boolean),
];

/// `envoy.extensions.wasm.v3.VmConfig`.
const VM: &[(&str, Kind)] = &[
    ("vm_id", Kind::Text),
    ("runtime", Kind::Text),
    ("code", Kind::Message(CODE)),
    ("configuration", Kind::Other),
    ("allow_precompiled", Kind::Boolean),
    ("nack_on_code_cache_miss", Kind::Boolean),
    (
        "environment_variables",
        Kind::Message(&[("host_env_keys", Kind::Texts), ("key_values", Kind::Map)]),
    ),
];

/// `envoy.config.core.v3.AsyncDataSource`.
const CODE: &[(&str, Kind)] = &[
    (
        "local",
        Kind::Message(&[
            ("filename", Kind::Text),
            ("inline_bytes", Kind::Text),
            ("inline_string", Kind::Text),
            ("environment_variable", Kind::Text),
            ("watched_directory", Kind::Other),
        ]),
    ),
    (
        "remote",
        Kind::Message(&[
            ("http_uri", Kind::Other),
            ("sha256", Kind::Text),
            ("retry_policy", Kind::Other),
        ]),
    ),
];

/// Checks `config` of a Wasm filter.
pub(super) fn check(source: &Rc<Source>, plugin: &Located, contents: &mut Contents) {
    message(source, plugin, "config", PLUGIN, contents);
}

fn message(
    source: &Rc<Source>,
    located: &Located,
    what: &str,
    known: &[(&'static str, Kind)],
    contents: &mut Contents,
) {
    let mut refuse = |severity, field: &Field, message: String, help: String| {
        let mut finding = Diagnostic::error(
            &codes::REFUSED_BY_ENVOY,
            source,
            field.name_span.clone(),
            message,
            help,
        );
        finding.severity = severity;
        contents.findings.push(finding);
    };
    if !located.is_object() && !located.is_null() {
        contents.findings.push(Diagnostic::error(
            &codes::REFUSED_BY_ENVOY,
            source,
            located.start(),
            format!("{what} has to be an object"),
            "write its fields",
        ));
        return;
    }
    let mut seen: Vec<(&str, &str)> = Vec::new();
    let mut inner = Vec::new();
    for field in located.fields() {
        let Some((name, kind)) = known
            .iter()
            .find(|(name, _)| is_spelling_of(&field.name, name))
        else {
            let mut names = known.iter().map(|(name, _)| *name);
            let help = match config::closest(&field.name, &mut names.clone()) {
                Some(word) => format!("did you mean {word}?"),
                None => format!("the fields here are {}", config::joined(&mut names, ", ")),
            };
            let message = format!(
                "{what} has no field {}, so Envoy refuses this file",
                field.name
            );
            refuse(Severity::Error, field, message, help);
            continue;
        };
        let earlier = seen.iter().find(|(known, _)| known == name);
        match earlier {
            Some((_, spelling)) if *spelling == field.name => refuse(
                Severity::Warning,
                field,
                format!("{name} is written twice here, of which Envoy takes the last"),
                "leave one of them out".to_owned(),
            ),
            Some(_) => refuse(
                Severity::Warning,
                field,
                format!(
                    "{name} is written in both spellings, and which of them Envoy takes is not certain"
                ),
                "leave one of them out".to_owned(),
            ),
            None => {}
        }
        seen.push((name, &field.name));
        if let Some(wanted) = wrong_kind(&field.value, kind) {
            refuse(
                Severity::Error,
                field,
                format!("{name} has to be {wanted}, so Envoy refuses this file"),
                "put texts in quotes if YAML would read them as something else".to_owned(),
            );
        }
        if let Kind::Message(fields) = kind {
            inner.push((&field.value, *name, *fields));
        }
    }
    for (located, what, known) in inner {
        message(source, located, what, known, contents);
    }
}

/// What belongs there in place of this value.
fn wrong_kind(value: &Located, kind: &Kind) -> Option<&'static str> {
    if value.is_null() {
        return None; // As if it weren't written.
    }
    let is_text = |value: &Located| value.text().is_some();
    let (right, wanted) = match kind {
        Kind::Text => (is_text(value), "a string"),
        Kind::Boolean => (
            // Protobuf's reader takes these words as texts too.
            value.boolean().is_some()
                || value.text().is_some_and(|text| {
                    const WORDS: &[&str] =
                        &["true", "t", "yes", "y", "1", "false", "f", "no", "n", "0"];
                    WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
                }),
            "true or false",
        ),
        Kind::Words(words) => (
            value
                .text()
                .is_none_or(|text| words.iter().any(|word| word.eq_ignore_ascii_case(text)))
                && (is_text(value) || value.number().is_some()),
            "UNSPECIFIED, FAIL_RELOAD, FAIL_CLOSED or FAIL_OPEN",
        ),
        Kind::Texts => (
            // One of a list may stand without the list.
            is_text(value)
                || matches!(value.value, Value::List(_)) && value.items().iter().all(is_text),
            "a list of strings",
        ),
        Kind::Map => (
            value.is_object() && value.fields().all(|field| is_text(&field.value)),
            "an object of strings",
        ),
        Kind::Message(_) | Kind::Other => return None,
    };
    (!right).then_some(wanted)
}
