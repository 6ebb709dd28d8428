//! Reading values out of a [`Node`] tree: each reader reports what is wrong where it stands and goes on, so that one
//! pass finds everything.

use std::fmt::{self, Display};
use std::hash::Hash;

use super::declare::{Name, Notation, Part, Rule};
use super::document::{Node, Shown, quoted};
use super::path::Here;
use super::problem::{Problems, closest, joined};
use super::seen::Seen;

const A_STRING: &str = "a string";

/// One value, where it stands, and where its problems go.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) node: &'a Node,
    pub(crate) here: &'a Here<'a>,
    pub(crate) problems: &'a Problems,
    /// A value that could stand here.
    pub(crate) example: &'a str,
}

/// What is wrong with a text, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Wrong {
    pub(crate) fn new(message: String, help: impl Into<String>) -> Self {
        Self {
            message,
            help: Some(help.into()),
        }
    }
}

/// The fields of an object, checked against the names that are known there.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    at: At<'a>,
}

/// What to write in place of a name that isn't known. Worked out only if the problem is shown.
struct InsteadOf<'n> {
    name: &'n str,
    known: &'n [Name],
}

impl Display for InsteadOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Vec::new();
        Name::list(self.known, &mut names);
        if let Some(word) = closest(self.name, &mut names.iter().copied()) {
            return write!(f, "did you mean {word}?");
        }
        f.write_str("the fields here are ")?;
        f.write_str(&joined(&mut names.iter().copied(), ", "))
    }
}

impl<'a> At<'a> {
    pub(crate) fn error(&self, message: &dyn Display) {
        self.problems.error(self.here, message);
    }

    pub(crate) fn error_with_help(&self, message: &dyn Display, help: &dyn Display) {
        self.problems.error_with_help(self.here, message, help);
    }

    /// Reports that this value is of the wrong kind.
    #[cold]
    #[inline(never)]
    pub(crate) fn wrong_kind(&self, wanted: &str) {
        self.wrong_kind_for(wanted, self.example);
    }

    #[cold]
    #[inline(never)]
    fn wrong_kind_for(&self, wanted: &str, example: &str) {
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

    /// The value as an object with the declared fields; others are reported.
    pub(crate) fn object<P: Part>(self) -> Option<P> {
        let fields = self.fields(P::NAMES)?;
        let read = P::read_fields(&fields);
        fields.follow(&P::RULE);
        if let Some(read) = &read {
            read.check(&fields);
        }
        read
    }

    fn fields(self, known: &[Name]) -> Option<Fields<'a>> {
        let Node::Object(fields) = self.node else {
            self.wrong_kind("an object");
            return None;
        };
        self.check_names(fields, known);
        Some(Fields { at: self })
    }

    /// Reports fields that aren't known and fields that are written twice.
    fn check_names(&self, fields: &[(String, Node)], known: &[Name]) {
        let mut seen = Seen::default();
        for (name, _) in fields {
            let here = Here::Field(self.here, name);
            if !Name::any(known, &|known| known == name) {
                self.problems.error_with_help(
                    &here,
                    &"there is no such field",
                    &InsteadOf { name, known },
                );
            } else if seen.again(name) {
                self.problems.error(&here, &"this field is written twice");
            }
        }
    }

    /// Hands every entry of a list to `read`. Not generic, as everything here that can be: what is generic is in the
    /// module once for each type.
    #[inline(never)]
    fn each(self, example: &str, read: &mut dyn FnMut(At<'_>)) -> Option<()> {
        let Node::List(items) = self.node else {
            self.wrong_kind("a list");
            return None;
        };
        for (index, node) in items.iter().enumerate() {
            let here = Here::Item(self.here, index);
            read(At {
                node,
                here: &here,
                problems: self.problems,
                example,
            });
        }
        Some(())
    }

    /// Every entry of a list; entries with problems are left out.
    pub(crate) fn list<N: Notation>(self) -> Option<Vec<N::Value>> {
        self.list_of(N::EXAMPLE, N::read)
    }

    /// Generic in the value only: several notations have one.
    #[inline(never)]
    fn list_of<T>(self, example: &str, read: fn(At<'_>) -> Option<T>) -> Option<Vec<T>> {
        let mut values = Vec::new();
        self.each(example, &mut |item| values.extend(read(item)))?;
        Some(values)
    }

    /// A list that holds at least one entry and none twice.
    pub(crate) fn set<N: Notation<Value: Hash>>(self) -> Option<Vec<N::Value>> {
        if matches!(self.node, Node::List(items) if items.is_empty()) {
            self.error_with_help(
                &"an empty list matches nothing",
                &format_args!("leave the field out, or write for example {}", self.example),
            );
            return None;
        }
        self.distinct::<N>()
    }

    /// A list, perhaps empty, that holds no entry twice.
    pub(crate) fn distinct<N: Notation<Value: Hash>>(self) -> Option<Vec<N::Value>> {
        self.distinct_of(N::EXAMPLE, N::read)
    }

    #[inline(never)]
    fn distinct_of<T: Hash>(self, example: &str, read: fn(At<'_>) -> Option<T>) -> Option<Vec<T>> {
        let mut values: Vec<T> = Vec::new();
        self.each_once(example, &mut |item| {
            let value = read(item)?;
            let hash = Seen::hash(&value);
            values.push(value);
            Some(hash)
        })?;
        Some(values)
    }

    /// Reports entries whose values have the same hash.
    fn each_once(self, example: &str, read: &mut dyn FnMut(At<'_>) -> Option<u64>) -> Option<()> {
        let mut seen = Seen::default();
        self.each(example, &mut |item| {
            let errors = item.problems.errors();
            let hash = read(item);
            // With an error in it, it may have the defaults of what was meant.
            if item.problems.errors() == errors && hash.is_some_and(|hash| seen.again_by_hash(hash))
            {
                item.error(&"this entry is in the list already");
            }
        })
    }

    pub(crate) fn text(self) -> Option<&'a str> {
        let Node::Text(text) = self.node else {
            self.wrong_kind(A_STRING);
            return None;
        };
        Some(text)
    }

    /// A string with something in it.
    pub(crate) fn some_text(self) -> Option<&'a str> {
        let text = self.text()?;
        if text.is_empty() {
            self.error_with_help(
                &"this is empty",
                &format_args!("write for example {}", self.example),
            );
            return None;
        }
        Some(text)
    }

    /// What a reader of texts made of it; what it found wrong is reported.
    pub(crate) fn reported<T>(self, result: Result<T, Wrong>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.wrong(&wrong);
                None
            }
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn wrong(self, Wrong { message, help }: &Wrong) {
        match help {
            Some(help) => self.error_with_help(message, help),
            None => self.error(message),
        }
    }

    pub(crate) fn boolean(self) -> Option<bool> {
        let Node::Bool(value) = self.node else {
            self.wrong_kind_for("true or false", "true, without quotes");
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
            self.wrong_kind_for(what, &format!("{example}, without quotes"));
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
    pub(crate) fn word<T: Clone>(self, words: &[(&str, T)]) -> Option<T> {
        self.word_of(words, &[])
    }

    /// One of these words, if it isn't something else, which `others` names.
    pub(crate) fn word_of<T: Clone>(self, words: &[(&str, T)], others: &[&str]) -> Option<T> {
        let mut names = words
            .iter()
            .map(|(word, _)| *word)
            .chain(others.iter().copied());
        let found = self.word_among(&mut names)?;
        words
            .iter()
            .find(|(word, _)| *word == found)
            .map(|(_, value)| value.clone())
    }

    /// The text, if it is one of these.
    fn word_among(self, words: &mut dyn Iterator<Item = &str>) -> Option<&'a str> {
        let words: Vec<&str> = words.collect();
        let all = || joined(&mut words.iter().copied(), ", ");
        let Node::Text(text) = self.node else {
            self.wrong_kind_for("a word", &all());
            return None;
        };
        if words.contains(&text.as_str()) {
            return Some(text);
        }
        let help = match closest(text, &mut words.iter().copied()) {
            Some(word) => format!("did you mean {word}?"),
            None => format!("write one of {}", all()),
        };
        self.error_with_help(&format_args!("{} is not understood", quoted(text)), &help);
        None
    }
}

impl<'a> Fields<'a> {
    /// The object itself.
    pub(crate) fn at(&self) -> At<'a> {
        self.at
    }

    /// Whether the field is written.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.at.node.get(name).is_some()
    }

    /// Reads a field where it is written.
    pub(crate) fn optional<N: Notation>(&self, name: &str, example: &str) -> Option<N::Value> {
        self.optional_of(name, example, N::read)
    }

    #[inline(never)]
    fn optional_of<T>(
        &self,
        name: &str,
        example: &str,
        read: fn(At<'_>) -> Option<T>,
    ) -> Option<T> {
        let here = Here::Field(self.at.here, name);
        read(self.field(name, &here, example)?)
    }

    /// Reads a field that has to be there.
    pub(crate) fn required<N: Notation>(&self, name: &str, example: &str) -> Option<N::Value> {
        if !self.has(name) {
            self.missing(name, example);
            return None;
        }
        self.optional::<N>(name, example)
    }

    /// The field where it is written with a value. `null` is an error: it says neither a value nor the default.
    #[inline(never)]
    fn field<'f>(&'f self, name: &str, here: &'f Here<'f>, example: &'f str) -> Option<At<'f>> {
        let node = self.at.node.get(name)?;
        let at = At {
            node,
            here,
            problems: self.at.problems,
            example,
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
            &format_args!("write for example {name}: {example}"),
        );
    }

    /// Reports it where the fields that are written don't go together.
    fn follow(&self, rule: &Rule) {
        match rule {
            Rule::Any => {}
            Rule::AtLeastOne { message, help } => {
                if matches!(self.at.node, Node::Object(fields) if fields.is_empty()) {
                    self.at.error_with_help(message, help);
                }
            }
            Rule::AtLeastOneOf {
                names,
                message,
                help,
            } => {
                if !Name::any(names, &|name| self.has(name)) {
                    self.at.error_with_help(message, help);
                }
            }
            Rule::ExactlyOneOf(names) => match names.iter().filter(|name| self.has(name)).count() {
                1 => {}
                0 => self.at.error_with_help(
                    &format_args!(
                        "one of {} is missing",
                        joined(&mut names.iter().copied(), ", ")
                    ),
                    &format_args!("write for example {}", self.at.example),
                ),
                _ => {
                    let mut written = names.iter().copied().filter(|name| self.has(name));
                    self.at.error_with_help(
                        &format_args!("{} can't stand together", joined(&mut written, " and ")),
                        &"write one of them, and a list entry of its own for the other",
                    );
                }
            },
        }
    }

    /// Whether a field is written and nothing is wrong with it, once this object is read.
    pub(crate) fn is_whole(&self, name: &str) -> bool {
        let here = Here::Field(self.at.here, name);
        self.has(name) && !self.at.problems.any_error_within(&here, self.at.here)
    }

    /// Reports a problem that is about one of the fields.
    pub(crate) fn error_at(&self, name: &str, message: &dyn Display, help: &dyn Display) {
        self.at
            .problems
            .error_with_help(&Here::Field(self.at.here, name), message, help);
    }
}
