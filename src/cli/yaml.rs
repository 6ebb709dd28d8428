//! Configurations written as YAML.

use std::fmt::Write as _;

use crate::config::Node;

/// A value in block style, each line indented.
pub(super) fn block(node: &Node, indent: usize) -> String {
    let mut out = String::new();
    write(node, indent, &mut out);
    out
}

/// Text that is YAML already, indented further.
pub(super) fn indented(text: &str, indent: usize) -> String {
    let pad = " ".repeat(indent);
    text.lines()
        .filter(|line| !matches!(line.trim_end(), "---" | "..."))
        .map(|line| {
            if line.trim().is_empty() {
                "\n".to_owned()
            } else {
                format!("{pad}{line}\n")
            }
        })
        .collect()
}

fn write(node: &Node, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match node {
        Node::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                out.push_str(&pad);
                out.push_str(&text(name));
                out.push(':');
                nested(value, indent + 2, out);
            }
        }
        Node::List(items) if !items.is_empty() => {
            for item in items {
                let mut inner = String::new();
                write(item, indent + 2, &mut inner);
                // The first line of the entry stands beside its dash.
                let body = inner.get(indent + 2..).unwrap_or_default();
                out.push_str(&pad);
                out.push_str("- ");
                out.push_str(body);
            }
        }
        other => {
            out.push_str(&pad);
            out.push_str(&flow(other));
            out.push('\n');
        }
    }
}

fn nested(value: &Node, indent: usize, out: &mut String) {
    match value {
        Node::Object(fields) if !fields.is_empty() => {
            out.push('\n');
            write(value, indent, out);
        }
        Node::List(items) if !items.is_empty() => {
            out.push('\n');
            write(value, indent.saturating_sub(2), out);
        }
        other => {
            out.push(' ');
            out.push_str(&flow(other));
            out.push('\n');
        }
    }
}

pub(super) fn flow(node: &Node) -> String {
    match node {
        Node::Text(plain) => text(plain),
        Node::List(_) => "[]".to_owned(),
        Node::Object(_) => "{}".to_owned(),
        Node::Null => "null".to_owned(),
        Node::Bool(value) => value.to_string(),
        Node::Number(value) => value.to_string(),
    }
}

/// A text, quoted where it would read as something else.
pub(super) fn text(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./:".contains(&b))
        && !text.ends_with(':')
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    let address = text.contains('.')
        && text.bytes().filter(|b| *b == b'.').count() == 3
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || b"./".contains(&b));
    let duration = text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(['s', 'm', 'h'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
    if plain || address || duration {
        text.to_owned()
    } else {
        printable(&json(&Node::Text(text.to_owned())).to_string())
    }
}

/// JSON with everything escaped that YAML doesn't print or reads as the end of a line.
pub(super) fn printable(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if matches!(
            c,
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        ) {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// A configuration as JSON.
pub(super) fn json(node: &Node) -> serde_json::Value {
    use serde_json::Value;
    match node {
        Node::Null => Value::Null,
        Node::Bool(value) => Value::Bool(*value),
        #[allow(clippy::cast_possible_truncation)]
        // Whole numbers within what a double holds exactly.
        Node::Number(value) if value.fract() == 0.0 && value.abs() < 9e15 => {
            Value::from(*value as i64)
        }
        Node::Number(value) => Value::from(*value),
        Node::Text(text) => Value::String(text.clone()),
        Node::List(items) => items.iter().map(json).collect(),
        Node::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), json(value)))
            .collect(),
    }
}
