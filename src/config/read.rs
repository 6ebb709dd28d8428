//! Reading values out of a [`Node`] tree: each reader reports what is wrong where it stands and goes on, so that one
//! pass finds everything.

use std::fmt::Display;
use std::hash::Hash;

use super::document::{Node, Shown, quoted};
use super::problem::{Path, Problems, closest, joined};
use super::seen::Seen;

const A_STRING: &str = "a string";

/// One value, where it stands, and where its problems go.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) node: &'a Node,
    pub(crate) path: &'a Path<'a>,
    pub(crate) problems: &'a Problems,
}

/// The fields of an object, checked against the names that are known there.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    at: At<'a>,
}

impl<'a> At<'a> {
    pub(crate) fn error(&self, message: &dyn Display) {
        self.problems.error(self.path, message);
    }

    pub(crate) fn error_with_help(&self, message: &dyn Display, help: &dyn Display) {
        self.problems.error_with_help(self.path, message, help);
    }

    /// Reports that this value is of the wrong kind.
    #[cold]
    #[inline(never)]
    pub(crate) fn wrong_kind(&self, wanted: &str, example: &str) {
        let kind = self.node.kind();
        let quotes = "put it in quotes; without them YAML reads on, off, yes and no as booleans, digits as a number";
        let help = match self.node {
            Node::Bool(_) | Node::Number(_) if wanted == A_STRING => format_args!("{quotes}"),
            _ => format_args!("write for example {example}"),
        };
        match self.node {
            Node::Text(_) | Node::Number(_) | Node::Bool(_) => self.error_with_help(
                &format_args!("{} is {kind}, {wanted} belongs here", self.node.shown()),
                &help,
            ),
            _ => self.error_with_help(
                &format_args!("this is {kind}, {wanted} belongs here"),
                &help,
            ),
        }
    }

    /// The value as an object with these fields; others are reported.
    pub(crate) fn object(self, known: &[&str], example: &str) -> Option<Fields<'a>> {
        let Node::Object(fields) = self.node else {
            self.wrong_kind("an object", example);
            return None;
        };
        self.check_names(fields, known);
        Some(Fields { at: self })
    }

    /// Reports fields that aren't known and fields that are written twice.
    fn check_names(&self, fields: &[(String, Node)], known: &[&str]) {
        for (index, (name, _)) in fields.iter().enumerate() {
            let here = Path::Field(self.path, name);
            if !known.contains(&name.as_str()) {
                let help = match closest(name, &mut known.iter().copied()) {
                    Some(word) => format!("did you mean {word}?"),
                    None => format!(
                        "the fields here are {}",
                        joined(&mut known.iter().copied(), ", ")
                    ),
                };
                self.problems
                    .error_with_help(&here, &"there is no such field", &help);
            } else if fields
                .iter()
                .take(index)
                .any(|(earlier, _)| earlier == name)
            {
                self.problems.error(&here, &"this field is written twice");
            }
        }
    }

    /// Hands every entry of a list to `read`. Not generic, as everything here that can be: what is generic is in the
    /// module once for each type.
    #[inline(never)]
    fn each(self, example: &str, read: &mut dyn FnMut(At<'_>)) -> Option<()> {
        let Node::List(items) = self.node else {
            self.wrong_kind("a list", example);
            return None;
        };
        for (index, node) in items.iter().enumerate() {
            let path = Path::Item(self.path, index);
            read(At {
                node,
                path: &path,
                problems: self.problems,
            });
        }
        Some(())
    }

    /// Every entry of a list, read with `read`; entries with problems are left out.
    pub(crate) fn list<T>(self, example: &str, read: fn(At<'_>) -> Option<T>) -> Option<Vec<T>> {
        let mut values = Vec::new();
        self.each(example, &mut |item| values.extend(read(item)))?;
        Some(values)
    }

    /// A list that holds at least one entry and none twice.
    pub(crate) fn set<T: PartialEq + Hash>(
        self,
        example: &str,
        read: fn(At<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        if matches!(self.node, Node::List(items) if items.is_empty()) {
            self.error_with_help(
                &"an empty list matches nothing",
                &format_args!("leave the field out, or write for example {example}"),
            );
            return None;
        }
        self.distinct(example, read)
    }

    /// A list, perhaps empty, that holds no entry twice.
    #[inline(never)]
    pub(crate) fn distinct<T: PartialEq + Hash>(
        self,
        example: &str,
        read: fn(At<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let mut values: Vec<T> = Vec::new();
        let mut seen = Seen::default();
        self.each(example, &mut |item| {
            if let Some(value) = read(item) {
                if seen.again(&value) && values.contains(&value) {
                    item.error(&"this entry is in the list already");
                } else {
                    values.push(value);
                }
            }
        })?;
        Some(values)
    }

    pub(crate) fn text(self, example: &str) -> Option<&'a str> {
        let Node::Text(text) = self.node else {
            self.wrong_kind(A_STRING, example);
            return None;
        };
        Some(text)
    }

    /// A string with something in it.
    pub(crate) fn some_text(self, example: &str) -> Option<&'a str> {
        let text = self.text(example)?;
        if text.is_empty() {
            self.error_with_help(
                &"this is empty",
                &format_args!("write for example {example}"),
            );
            return None;
        }
        Some(text)
    }

    pub(crate) fn boolean(self) -> Option<bool> {
        let Node::Bool(value) = self.node else {
            self.wrong_kind("true or false", "true, without quotes");
            return None;
        };
        Some(*value)
    }

    /// A whole number in a range. Envoy hands numbers over as doubles: `2.0` is 2.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn whole(self, what: &str, least: u32, most: u32) -> Option<u32> {
        let Node::Number(number) = self.node else {
            let meant = match self.node {
                Node::Text(text) => text.trim().parse().ok(),
                _ => None,
            };
            let example = meant.unwrap_or(least.max(1));
            self.wrong_kind(what, &format!("{example}, without quotes"));
            return None;
        };
        if number.fract() != 0.0 || *number < f64::from(least) || *number > f64::from(most) {
            self.error(&format_args!(
                "{} is not {what} from {least} to {most}",
                Shown(*number)
            ));
            return None;
        }
        Some(*number as u32)
    }

    /// One of these words.
    pub(crate) fn word<T: Copy>(self, words: &[(&str, T)]) -> Option<T> {
        let all = || joined(&mut words.iter().map(|(word, _)| *word), ", ");
        let Node::Text(text) = self.node else {
            self.wrong_kind("a word", &all());
            return None;
        };
        if let Some((_, value)) = words.iter().find(|(word, _)| word == text) {
            return Some(*value);
        }
        let help = match closest(text, &mut words.iter().map(|(word, _)| *word)) {
            Some(word) => format!("did you mean {word}?"),
            None => format!("write one of {}", all()),
        };
        self.error_with_help(&format_args!("{} is not understood", quoted(text)), &help);
        None
    }
}

impl Fields<'_> {
    /// Whether the field is written.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.at.node.get(name).is_some()
    }

    /// Whether no field is written.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.at.node, Node::Object(fields) if fields.is_empty())
    }

    /// Reads a field where it is written.
    pub(crate) fn optional<T>(
        &self,
        name: &str,
        read: impl FnOnce(At<'_>) -> Option<T>,
    ) -> Option<T> {
        let path = Path::Field(self.at.path, name);
        read(self.field(name, &path)?)
    }

    /// Reads a field once more; that it has no value has been reported.
    pub(crate) fn optional_unless_null(
        &self,
        name: &str,
        read: impl FnOnce(At<'_>) -> Option<()>,
    ) -> Option<()> {
        let path = Path::Field(self.at.path, name);
        self.at
            .node
            .get(name)
            .filter(|node| **node != Node::Null)
            .and_then(|node| {
                read(At {
                    node,
                    path: &path,
                    problems: self.at.problems,
                })
            })
    }

    /// The field where it is written with a value. `null` is an error: it says neither a value nor the default.
    #[inline(never)]
    fn field<'f>(&'f self, name: &str, path: &'f Path<'f>) -> Option<At<'f>> {
        let node = self.at.node.get(name)?;
        let at = At {
            node,
            path,
            problems: self.at.problems,
        };
        if *node == Node::Null {
            at.error_with_help(
                &"this field has no value",
                &"write one, or leave the field out for its default",
            );
            return None;
        }
        Some(at)
    }

    #[cold]
    #[inline(never)]
    fn missing(&self, name: &str, example: &str) {
        self.at.error_with_help(
            &format_args!("{name} is missing"),
            &format_args!("write for example {example}"),
        );
    }

    /// Reads a field that has to be there.
    pub(crate) fn required<T>(
        &self,
        name: &str,
        example: &str,
        read: impl FnOnce(At<'_>) -> Option<T>,
    ) -> Option<T> {
        if self.has(name) {
            return self.optional(name, read);
        }
        self.missing(name, example);
        None
    }

    /// The place of one of the fields, for a problem that is about it.
    pub(crate) fn error_at(&self, name: &str, message: &dyn Display, help: &dyn Display) {
        self.at
            .problems
            .error_with_help(&Path::Field(self.at.path, name), message, help);
    }
}
