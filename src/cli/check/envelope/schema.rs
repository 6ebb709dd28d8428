//! Resources against the schemas that their projects publish (the definitions of custom resources): what the API server
//! refuses, and what it drops in silence.

use std::rc::Rc;

use crate::cli::files::{Field, Located, Source, Value};
use crate::cli::report::{Diagnostic, codes};
use crate::config;

/// Definitions, as `./build.sh crds` cuts them out of Istio's.
const DEFINITIONS: &[(&str, &str)] = &[
    ("WasmPlugin", include_str!("crds/wasmplugin.yaml")),
    (
        "TrafficExtension",
        include_str!("crds/trafficextension.yaml"),
    ),
    ("EnvoyFilter", include_str!("crds/envoyfilter.yaml")),
];

/// The schema of a kind, if there is one here.
pub(super) fn of(kind: &str) -> Option<Located> {
    let (_, text) = DEFINITIONS.iter().find(|(known, _)| *known == kind)?;
    let documents = Source::new("a definition", *text).documents().ok()?;
    let versions = documents.first()?.at(&["spec", "versions"])?.items();
    // The newest stands last.
    versions.last()?.at(&["schema", "openAPIV3Schema"]).cloned()
}

/// Checks a resource.
pub(super) fn check(
    source: &Rc<Source>,
    resource: &Located,
    schema: &Located,
    found: &mut Vec<Diagnostic>,
) {
    let mut reader = Reader { source, found };
    for field in resource.fields() {
        match field.name.as_str() {
            "apiVersion" | "kind" | "metadata" => {}
            name => match schema.at(&["properties", name]) {
                Some(schema) => reader.value(field, &field.value, schema),
                // That a plugin's configuration stands beside spec has a finding of its own.
                None if name == "pluginConfig" => {}
                None => reader.unknown(field, schema),
            },
        }
    }
}

struct Reader<'r> {
    source: &'r Rc<Source>,
    found: &'r mut Vec<Diagnostic>,
}

impl Reader<'_> {
    fn wrong(&mut self, field: &Field, value: &Located, message: String, help: String) {
        let place = match value.value {
            Value::Scalar(_) if !value.span.is_empty() => value.span.clone(),
            _ => field.name_span.clone(),
        };
        self.found.push(Diagnostic::error(
            &codes::REFUSED_BY_KUBERNETES,
            self.source,
            place,
            message,
            help,
        ));
    }

    fn unknown(&mut self, field: &Field, schema: &Located) {
        let properties = schema.get("properties");
        let names: Vec<&str> = properties
            .into_iter()
            .flat_map(Located::fields)
            .map(|field| field.name.as_str())
            .collect();
        let help = match config::closest(&field.name, &mut names.iter().copied()) {
            Some(word) => format!("did you mean {word}?"),
            None => format!("the fields here are {}", names.join(", ")),
        };
        self.found.push(Diagnostic::error(
            &codes::UNKNOWN_FIELD,
            self.source,
            field.name_span.clone(),
            format!(
                "there is no field {} here: kubectl refuses it, other clients drop it in silence",
                field.name
            ),
            help,
        ));
    }

    fn value(&mut self, field: &Field, value: &Located, schema: &Located) {
        let name = &field.name;
        if value.is_null() {
            return; // As if it weren't written.
        }
        if name == "pluginConfig" && !value.is_object() {
            return; // The configuration's own reader says so.
        }
        let kind = schema
            .get("type")
            .and_then(Located::text)
            .unwrap_or_default();
        let any = schema
            .get("x-kubernetes-int-or-string")
            .and_then(Located::boolean)
            .unwrap_or(false);
        let (right, wanted) = match kind {
            "object" => (value.is_object(), "an object"),
            "array" => (matches!(value.value, Value::List(_)), "a list"),
            "string" => (value.text().is_some(), "a string"),
            "boolean" => (value.boolean().is_some(), "true or false"),
            "integer" => (
                value.number().is_some_and(|number| number.fract() == 0.0),
                "a whole number",
            ),
            "number" => (value.number().is_some(), "a number"),
            _ => (true, ""),
        };
        if !right && !any {
            let help = match wanted {
                "a string" => "put it in quotes",
                "an object" if value.text().is_some() => {
                    "write its fields below it, without quotes, and without | behind the colon"
                }
                _ => "see the resource's reference",
            };
            self.wrong(
                field,
                value,
                format!("{name} has to be {wanted}"),
                help.to_owned(),
            );
            return;
        }
        self.words(field, value, schema);
        self.bounds(field, value, schema);
        self.rules(field, value, schema);
        for item in value.items() {
            if let Some(items) = schema.get("items") {
                self.value(field, item, items);
            }
        }
        if value.is_object() {
            self.fields(field, value, schema);
        }
    }

    fn fields(&mut self, of: &Field, value: &Located, schema: &Located) {
        let open = schema
            .get("x-kubernetes-preserve-unknown-fields")
            .and_then(Located::boolean)
            .unwrap_or(false);
        let others = schema.get("additionalProperties");
        for field in value.fields() {
            match schema.at(&["properties", &field.name]).or(others) {
                Some(schema) => self.value(field, &field.value, schema),
                None if open => {}
                None => self.unknown(field, schema),
            }
        }
        for required in schema
            .get("required")
            .map(Located::items)
            .unwrap_or_default()
        {
            let Some(name) = required.text() else {
                continue;
            };
            if value.get(name).is_none_or(Located::is_null) {
                let message = format!("{} is missing under {}", name, of.name);
                self.wrong(of, value, message, format!("write {name}"));
            }
        }
    }

    /// One of a list of words.
    fn words(&mut self, field: &Field, value: &Located, schema: &Located) {
        let words = schema.get("enum").map(Located::items).unwrap_or_default();
        let (Some(text), false) = (value.text(), words.is_empty()) else {
            return;
        };
        let mut words = words.iter().filter_map(Located::text);
        if words.clone().any(|word| word == text) {
            return;
        }
        let help = match config::closest(text.trim(), &mut words.clone()) {
            Some(word) => format!("did you mean {word}?"),
            None => format!("write one of {}", config::joined(&mut words, ", ")),
        };
        let message = format!("{} is no {}", config::quoted(text), field.name);
        self.wrong(field, value, message, help);
    }

    #[allow(clippy::cast_precision_loss)] // Lengths are small.
    fn bounds(&mut self, field: &Field, value: &Located, schema: &Located) {
        let bound = |name: &str| schema.get(name).and_then(Located::number);
        let length = value.text().map(|text| text.chars().count() as f64);
        let count = matches!(value.value, Value::List(_)).then(|| value.items().len() as f64);
        let number = value.number();
        for (least, most, size, what) in [
            ("minLength", "maxLength", length, "characters"),
            ("minItems", "maxItems", count, "entries"),
            ("minimum", "maximum", number, ""),
        ] {
            let Some(size) = size else { continue };
            let low = bound(least).is_some_and(|least| size < least);
            let high = bound(most).is_some_and(|most| size > most);
            if low || high {
                let limit = bound(if low { least } else { most }).unwrap_or_default();
                let than = if low { "less" } else { "more" };
                let message = format!("{} has {than} than {limit} {what}", field.name);
                self.wrong(
                    field,
                    value,
                    message.trim_end().to_owned(),
                    "change it".to_owned(),
                );
            }
        }
    }

    /// Patterns and rules in CEL: those that the definitions have.
    fn rules(&mut self, field: &Field, value: &Located, schema: &Located) {
        if let Some(pattern) = schema.get("pattern").and_then(Located::text)
            && let Some(text) = value.text()
            && let Some((_, holds, message, help)) =
                PATTERNS.iter().find(|(known, ..)| *known == pattern)
            && !holds(text)
        {
            self.wrong(field, value, (*message).to_owned(), (*help).to_owned());
        }
        let rules = schema
            .get("x-kubernetes-validations")
            .map(Located::items)
            .unwrap_or_default();
        for rule in rules {
            let message = rule
                .get("message")
                .and_then(Located::text)
                .unwrap_or_default();
            if let Some((_, holds, help)) = RULES.iter().find(|(known, ..)| *known == message)
                && !holds(value)
            {
                self.wrong(field, value, message.to_owned(), (*help).to_owned());
            }
        }
    }
}

type Pattern = (&'static str, fn(&str) -> bool, &'static str, &'static str);
type Rule = (&'static str, fn(&Located) -> bool, &'static str);

/// Regular expressions of the definitions, as functions.
const PATTERNS: &[Pattern] = &[
    (
        "(^$|^[a-f0-9]{64}$)",
        |text| {
            text.is_empty()
                || text.len() == 64
                    && text
                        .bytes()
                        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        },
        "sha256 has to be 64 small hexadecimal digits",
        "write the digits alone, without sha256: in front of them",
    ),
    (
        r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        |text| text.is_empty() || crate::cli::names::resource(text).is_ok(),
        "this is no group",
        "write gateway.networking.k8s.io, or networking.istio.io for a ServiceEntry",
    ),
    (
        "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$",
        |text| {
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        },
        "this is no kind",
        "write Gateway",
    ),
];

/// Rules of the definitions, by their message.
const RULES: &[Rule] = &[
    (
        "url must have schema one of [http, https, file, oci]",
        |value| {
            value
                .text()
                .is_none_or(|url| crate::cli::names::module_url(url).is_ok())
        },
        "write for example oci://registry.example.com/trusted-lb:0.1.0",
    ),
    (
        "only one of targetRefs or selector can be set",
        |spec| {
            let set = ["selector", "targetRef", "targetRefs", "workloadSelector"];
            let count = set.iter().filter(|name| spec.get(name).is_some());
            count.count() <= 1
        },
        "keep targetRefs for a Gateway that Istio itself deploys, selector for any other",
    ),
    (
        "exactly one of wasm or lua must be set",
        |spec| spec.get("wasm").is_some() != spec.get("lua").is_some(),
        "write two resources",
    ),
    (
        "cross namespace referencing is not currently supported",
        |value| value.text().is_none_or(str::is_empty),
        "put the resource into the Gateway's own namespace, and leave namespace out",
    ),
    (
        "value may only be set when valueFrom is INLINE",
        |value| {
            value.get("valueFrom").and_then(Located::text) != Some("HOST")
                || value.get("value").is_none()
        },
        "leave value out, or write valueFrom: INLINE",
    ),
    (
        "wildcard not allowed in label value match",
        |value| value.text().is_none_or(|text| !text.contains('*')),
        "write the label's whole value",
    ),
    (
        "wildcard not allowed in label key match",
        |value| value.fields().all(|field| !field.name.contains('*')),
        "write the label's whole name",
    ),
    (
        "key must not be empty",
        |value| value.fields().all(|field| !field.name.is_empty()),
        "write the label's name",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(schema: &Located, unknown: &mut Vec<String>) {
        if let Some(pattern) = schema.get("pattern").and_then(Located::text)
            && !PATTERNS.iter().any(|(known, ..)| *known == pattern)
        {
            unknown.push(pattern.to_owned());
        }
        let rules = schema.get("x-kubernetes-validations");
        for rule in rules.map(Located::items).unwrap_or_default() {
            let message = rule
                .get("message")
                .and_then(Located::text)
                .expect("a message");
            if !RULES.iter().any(|(known, ..)| *known == message) {
                unknown.push(message.to_owned());
            }
        }
        for field in schema.fields() {
            visit(&field.value, unknown);
        }
        for item in schema.items() {
            visit(item, unknown);
        }
    }

    #[test]
    fn every_pattern_and_rule_of_the_plugins_schemas_is_known_here() {
        for kind in ["WasmPlugin", "TrafficExtension"] {
            let mut unknown = Vec::new();
            visit(&of(kind).expect("there is one"), &mut unknown);
            assert!(unknown.is_empty(), "{kind}: {unknown:#?}");
        }
    }
}
