//! What is wrong with a configuration: where, what, and what to write instead.

use std::cell::RefCell;
use std::fmt::{self, Write};

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration works, but probably not as its author thinks.
    Warning,
    /// The configuration is refused.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether it refuses the configuration.
    pub severity: Severity,
    /// Where it is, such as `routes[2].retries.retryOn[0]`; empty for the document as a whole.
    pub path: String,
    /// What is wrong there, with the value as it was written.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

/// A place in the configuration, linked to the places that hold it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Path<'p> {
    Root,
    Field(&'p Path<'p>, &'p str),
    Item(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Where problems are collected while a configuration is read: all of them, in the order they are met.
#[derive(Debug, Default)]
pub(crate) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    #[cold]
    #[inline(never)]
    fn add(
        &self,
        severity: Severity,
        path: &dyn fmt::Display,
        message: &dyn fmt::Display,
        help: Option<&dyn fmt::Display>,
    ) {
        self.0.borrow_mut().push(Problem {
            severity,
            path: one_line(path),
            message: one_line(message),
            help: help.map(one_line),
        });
    }

    pub(crate) fn error(&self, path: &dyn fmt::Display, message: &dyn fmt::Display) {
        self.add(Severity::Error, path, message, None);
    }

    pub(crate) fn error_with_help(
        &self,
        path: &dyn fmt::Display,
        message: &dyn fmt::Display,
        help: &dyn fmt::Display,
    ) {
        self.add(Severity::Error, path, message, Some(help));
    }

    pub(crate) fn warn(
        &self,
        path: &dyn fmt::Display,
        message: &dyn fmt::Display,
        help: &dyn fmt::Display,
    ) {
        self.add(Severity::Warning, path, message, Some(help));
    }

    pub(crate) fn errors(&self) -> usize {
        self.0
            .borrow()
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .count()
    }

    pub(crate) fn into_vec(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

/// The text with control characters escaped. Parts of it are whatever the configuration says, and must not begin a line
/// of their own in the proxy's log.
fn one_line(text: &dyn fmt::Display) -> String {
    let text = text.to_string();
    if !text.chars().any(char::is_control) {
        return text;
    }
    let mut escaped = String::new();
    for c in text.chars() {
        if c.is_control() {
            // Writing into a String can't fail.
            let _ = write!(escaped, "\\u{{{:x}}}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// The items with `separator` between them. The standard library's `join` would be in the module once for each kind
/// of text and separator.
pub(crate) fn joined(items: &mut dyn Iterator<Item = &str>, separator: &str) -> String {
    let mut joined = String::new();
    for item in items {
        if !joined.is_empty() {
            joined.push_str(separator);
        }
        joined.push_str(item);
    }
    joined
}

/// The word of `known` that `written` was probably meant to be.
pub(crate) fn closest<'k>(
    written: &str,
    known: &mut dyn Iterator<Item = &'k str>,
) -> Option<&'k str> {
    let bare = squeezed(written);
    let allowed = match bare.len() {
        0..=3 => 0,
        4..=7 => 1,
        _ => 2,
    };
    known
        .map(|word| (distance(&bare, &squeezed(word)), word))
        .filter(|(far, _)| *far <= allowed)
        .min_by_key(|(far, _)| *far)
        .map(|(_, word)| word)
}

/// A word without case and separators: `ip_blocks`, `ip-blocks` and `IPBlocks` are all `ipBlocks` in a hurry.
fn squeezed(word: &str) -> Vec<u8> {
    word.bytes()
        .filter(|byte| !matches!(byte, b'_' | b'-' | b' ' | b'.'))
        .map(|byte| byte.to_ascii_lowercase())
        .collect()
}

/// The number of single-byte insertions, deletions and replacements between two words (Levenshtein).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, above) in b.iter().zip(row.iter_mut().skip(1)) {
            let here = (diagonal + usize::from(x != y))
                .min(left + 1)
                .min(*above + 1);
            diagonal = *above;
            *above = here;
            left = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_people_write_it() {
        let routes = Path::Field(&Path::Root, "routes");
        let third = Path::Item(&routes, 2);
        let retries = Path::Field(&third, "retries");
        assert_eq!(retries.to_string(), "routes[2].retries");
    }

    #[test]
    fn what_the_configuration_says_begins_no_line_of_its_own() {
        let problems = Problems::default();
        let field = Path::Field(&Path::Root, "a\nb");
        problems.error_with_help(&field, &"c\u{85}d", &"e\rf");
        assert_eq!(
            problems.into_vec()[0].to_string(),
            "a\\u{a}b: c\\u{85}d (e\\u{d}f)"
        );
    }

    #[test]
    fn a_near_miss_finds_its_word() {
        let known = ["retryOn", "attempts", "perTryTimeout"];
        assert_eq!(closest("retry_on", &mut known.into_iter()), Some("retryOn"));
        assert_eq!(closest("retriesOn", &mut known.into_iter()), None);
        assert_eq!(closest("atempts", &mut known.into_iter()), Some("attempts"));
        assert_eq!(
            closest("pertrytimeouts", &mut known.into_iter()),
            Some("perTryTimeout")
        );
        assert_eq!(closest("hosts", &mut known.into_iter()), None);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance(b"", b"abc"), 3);
        assert_eq!(distance(b"kitten", b"sitting"), 3);
        assert_eq!(distance(b"same", b"same"), 0);
    }
}
