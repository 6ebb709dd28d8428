//! The configuration as a tree of values, before any meaning is given to it.
//!
//! `serde_json::Value` keeps the last of two equal keys and forgets the first. Here both stay, so that
//! reading can refuse them: nothing in a configuration is ever dropped in silence.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// One value of a JSON or YAML document, with objects in the order they were written.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// `null`, or a YAML key without a value.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number. Envoy hands plugin configuration over as doubles, so this is all there is.
    Number(f64),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// An object: its fields in written order, equal keys kept apart.
    Object(Vec<(String, Node)>),
}

impl Node {
    /// What a reader calls this kind of value.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Node::Null => "nothing (null)",
            Node::Bool(_) => "a boolean",
            Node::Number(_) => "a number",
            Node::Text(_) => "a string",
            Node::List(_) => "a list",
            Node::Object(_) => "an object",
        }
    }

    /// The value as a person would have typed it, shortened where it is long.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Node::Null => "null".to_owned(),
            Node::Bool(value) => value.to_string(),
            Node::Number(value) => Shown(*value).to_string(),
            Node::Text(value) => quoted(value).to_string(),
            Node::List(_) => "a list".to_owned(),
            Node::Object(_) => "an object".to_owned(),
        }
    }

    /// The first field of that name, where this is an object.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Node> {
        match self {
            Node::Object(fields) => fields
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// The entries of the list in that field, if there is one.
    pub(crate) fn items_of(&self, name: &str) -> &[Node] {
        match self.get(name) {
            Some(Node::List(items)) => items,
            _ => &[],
        }
    }
}

/// `value` in double quotes with control characters escaped, at most 80 characters of it.
pub(crate) fn quoted(value: &str) -> Quoted<'_> {
    Quoted(value)
}

/// A text as problems show it.
#[derive(Clone, Copy)]
pub(crate) struct Quoted<'v>(&'v str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 80;
        f.write_str("\"")?;
        for c in self.0.chars().take(SHOWN) {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        let more = self.0.chars().nth(SHOWN).is_some();
        f.write_str(if more { "\"…" } else { "\"" })
    }
}

/// A number as problems show it. The standard library's own way to print a fraction is larger than all of this
/// module's numbers are worth.
#[derive(Clone, Copy)]
pub(crate) struct Shown(pub(crate) f64);

impl fmt::Display for Shown {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Saturates, and is only shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thousandths = (self.0.abs() * 1000.0).round() as u64;
        let sign = if self.0 < 0.0 { "-" } else { "" };
        write!(f, "{sign}{}", thousandths / 1000)?;
        match thousandths % 1000 {
            0 => Ok(()),
            part if part % 100 == 0 => write!(f, ".{}", part / 100),
            part => write!(f, ".{part:03}"),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    // Configuration numbers are counts and ports; what a double can't hold exactly is out of range everywhere.
    #[allow(clippy::cast_precision_loss)]
    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value as f64))
    }

    #[allow(clippy::cast_precision_loss)]
    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            fields.push(entry);
        }
        Ok(Node::Object(fields))
    }
}
