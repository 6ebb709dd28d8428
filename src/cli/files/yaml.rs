//! The events of a YAML text.

use std::ops::Range;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::builder::{Builder, Key};
use super::scalar;
use super::syntax_error::SyntaxError;

/// Reads every document of a text that begins at `begin` of its file.
pub(super) fn read(text: &str, begin: usize, builder: &mut Builder) -> Result<(), SyntaxError> {
    let offsets = Offsets::new(text, begin);
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let at = offsets.byte(error.marker());
            SyntaxError {
                message: error.info().to_owned(),
                help: None,
                span: at..at,
            }
        })?;
        let span = offsets.byte(&span.start)..offsets.byte(&span.end);
        apply(event, span, builder)?;
    }
    Ok(())
}

fn apply(event: Event<'_>, span: Range<usize>, builder: &mut Builder) -> Result<(), SyntaxError> {
    match event {
        Event::Scalar(text, style, anchor, tag) => {
            let plain = style == ScalarStyle::Plain;
            let tag = tag.as_deref();
            let wrong = |message| SyntaxError {
                message,
                help: None,
                span: span.clone(),
            };
            let node = scalar::resolve(&text, plain, tag.map(core)).map_err(wrong)?;
            if builder.wants_key() {
                let merge = plain && text == "<<" && tag.is_none_or(|tag| core(tag) == "merge");
                let name = scalar::name(node).map_err(wrong)?;
                builder.key(Key { name, span, merge })
            } else {
                builder.scalar(anchor, node, span)
            }
        }
        Event::SequenceStart(anchor, _) => builder.list(anchor, span),
        Event::MappingStart(anchor, _) => builder.object(anchor, span),
        Event::SequenceEnd | Event::MappingEnd => builder.end(&span),
        Event::Alias(anchor) => builder.alias(anchor, &span),
        Event::DocumentStart(_) => {
            builder.document();
            Ok(())
        }
        Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
    }
}

/// The suffix of a tag of YAML's own, such as `int` of `!!int`; of any other tag nothing.
fn core(tag: &Tag) -> &str {
    if tag.is_yaml_core_schema() {
        &tag.suffix
    } else {
        ""
    }
}

/// The parser counts characters, places are bytes.
struct Offsets<'t> {
    text: &'t str,
    begin: usize,
    /// The byte of every so many characters. Nothing if all of them are one byte long.
    marks: Vec<usize>,
}

const STEP: usize = 64;

impl<'t> Offsets<'t> {
    fn new(text: &'t str, begin: usize) -> Self {
        let marks = if text.is_ascii() {
            Vec::new()
        } else {
            let bytes = text.char_indices().map(|(byte, _)| byte);
            bytes.step_by(STEP).collect()
        };
        Self { text, begin, marks }
    }

    fn byte(&self, marker: &Marker) -> usize {
        let index = marker.index();
        if self.marks.is_empty() {
            return self.begin + index.min(self.text.len());
        }
        let byte = self.marks.get(index / STEP).and_then(|mark| {
            let (within, _) = self.text.get(*mark..)?.char_indices().nth(index % STEP)?;
            Some(mark + within)
        });
        self.begin + byte.unwrap_or(self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::cli::files::Source;
    use crate::cli::yaml::json;

    /// Texts and what sigs.k8s.io/yaml 1.6 makes of them, written down by that library itself.
    const TABLE: &str = include_str!("../../../tests/cli/kubectl-yaml.json");

    /// What kubectl refuses and this reader takes: nobody is misled by that.
    const TAKEN: &[&str] = &[
        "%YAML 1.2\n---\na: 1",
        "%YAML 1.3\n---\na: 1",
        "a: \"\\x41\\/\"",
        "a: \u{7f}",
        "a: |\n\tx",
    ];

    /// What kubectl takes and this reader refuses, with an error at the place.
    const REFUSED: &[&str] = &["a:\t1", "a: !!binary aGk="];

    #[test]
    fn values_are_read_as_kubectl_reads_them() {
        let table: Vec<Value> = serde_json::from_str(TABLE).expect("it is JSON");
        let mut wrong = Vec::new();
        for row in &table {
            let text = row["yaml"].as_str().expect("a text");
            let expected = row.get("json");
            let read = Source::new("table", text).documents();
            let right = match (&read, expected) {
                (Ok(documents), Some(expected)) => {
                    let value = documents
                        .first()
                        .map_or(Value::Null, |document| json(&last_wins(document.node())));
                    same(&value, expected)
                }
                (Err(_), None) => true,
                (Ok(_), None) => TAKEN.contains(&text),
                (Err(_), Some(_)) => REFUSED.contains(&text),
            };
            if !right {
                wrong.push(format!("{text:?}: {read:?}, not {row}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(table.len() > 100, "{}", table.len());
    }

    /// Of two fields of one name kubectl takes the last.
    fn last_wins(node: crate::config::Node) -> crate::config::Node {
        use crate::config::Node;
        match node {
            Node::Object(fields) => {
                let mut kept: Vec<(String, Node)> = Vec::new();
                for (name, value) in fields {
                    kept.retain(|(known, _)| *known != name);
                    kept.push((name, last_wins(value)));
                }
                Node::Object(kept)
            }
            other => other,
        }
    }

    /// Numbers are doubles to Envoy.
    fn same(a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
            }
            (Value::Object(a), Value::Object(b)) => {
                a.len() == b.len()
                    && a.iter()
                        .all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
            }
            (a, b) => a == b,
        }
    }
}
