//! What is wrong with a configuration: where, what, and what to write instead.

use std::cell::{Cell, RefCell};
use std::fmt;

use super::path::{Here, Path, one_line};
use super::seen::Seen;

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
    /// Where it is.
    pub path: Path,
    /// What is wrong there, with the value as it was written.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_root() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

/// Where problems are collected while a configuration is read: all of them, in the order they are met.
#[derive(Default)]
pub(crate) struct Problems {
    list: RefCell<Vec<Problem>>,
    errors: Cell<usize>,
    warnings: Cell<usize>,
    /// The different headers that were named so far.
    headers: RefCell<Seen>,
}

/// More problems than these are only counted: a configuration may be one large mistake.
const MOST_PROBLEMS: usize = 1_000;

/// More headers have no number in the engine's table, which has some of its own.
pub(crate) const MOST_HEADERS: usize = 65_000;

impl Problems {
    #[cold]
    #[inline(never)]
    fn add(
        &self,
        severity: Severity,
        here: &Here<'_>,
        message: &dyn fmt::Display,
        help: Option<&dyn fmt::Display>,
    ) {
        let count = match severity {
            Severity::Error => &self.errors,
            Severity::Warning => &self.warnings,
        };
        count.set(count.get() + 1);
        if self.is_full() {
            return;
        }
        self.list.borrow_mut().push(Problem {
            severity,
            path: here.path(),
            message: escaped(message),
            help: help.map(escaped),
        });
    }

    pub(crate) fn error(&self, here: &Here<'_>, message: &dyn fmt::Display) {
        self.add(Severity::Error, here, message, None);
    }

    pub(crate) fn error_with_help(
        &self,
        here: &Here<'_>,
        message: &dyn fmt::Display,
        help: &dyn fmt::Display,
    ) {
        self.add(Severity::Error, here, message, Some(help));
    }

    pub(crate) fn warn(
        &self,
        here: &Here<'_>,
        message: &dyn fmt::Display,
        help: &dyn fmt::Display,
    ) {
        self.add(Severity::Warning, here, message, Some(help));
    }

    /// Whether there is an error at this place or in it. Reading it was the last thing that happened.
    pub(crate) fn any_error_within(&self, here: &Here<'_>, parent: &Here<'_>) -> bool {
        let problems = self.list.borrow();
        if problems.is_empty() {
            return false;
        }
        let (place, parent) = (here.path(), parent.path());
        problems
            .iter()
            .rev()
            .take_while(|problem| problem.path.is_within(&parent))
            .any(|problem| problem.severity == Severity::Error && problem.path.is_within(&place))
    }

    /// Whether problems are only counted from now on.
    pub(crate) fn is_full(&self) -> bool {
        self.list.borrow().len() >= MOST_PROBLEMS
    }

    /// How many errors there are.
    pub(crate) fn errors(&self) -> usize {
        self.errors.get()
    }

    /// Notes that a header is named. Whether there are too many now.
    pub(crate) fn one_header_too_many(&self, name: &str) -> bool {
        let mut headers = self.headers.borrow_mut();
        !headers.again(name) && headers.len() == MOST_HEADERS + 1
    }

    pub(crate) fn into_vec(self) -> Vec<Problem> {
        let mut list = self.list.into_inner();
        let more = self.errors.get() + self.warnings.get() - list.len();
        if more > 0 {
            let refused = self.errors.get() > 0;
            list.push(Problem {
                severity: if refused {
                    Severity::Error
                } else {
                    Severity::Warning
                },
                path: Path::root(),
                message: format!("there are {more} more problems like these"),
                help: Some("mend those that are shown first".to_owned()),
            });
        }
        list
    }
}

/// The text with its control characters escaped: parts of it are whatever the configuration says.
fn escaped(text: &dyn fmt::Display) -> String {
    let text = text.to_string();
    if !text.chars().any(char::is_control) {
        return text;
    }
    let mut escaped = String::new();
    // Writing into a String can't fail.
    let _ = one_line(&text, &mut escaped);
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
    fn what_the_configuration_says_begins_no_line_of_its_own() {
        let problems = Problems::default();
        let field = Here::Field(&Here::Root, "a\nb");
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
