//! What `check` finds, with its place in a file.

pub(super) mod codes;
mod github;
mod sarif;
mod text;

use std::ops::Range;
use std::rc::Rc;

use serde_json::json;

use super::files::{Source, SyntaxError};
use crate::config::{Problem, Severity};

pub(super) use codes::Code;
pub(super) use github::github;
pub(super) use sarif::sarif;
pub(super) use text::text;

/// A finding in a file.
#[derive(Clone, Debug)]
pub(super) struct Diagnostic {
    pub(super) code: &'static Code,
    pub(super) severity: Severity,
    /// Where in the configuration, such as `routes[2].timeout`; empty if that says nothing.
    pub(super) path: String,
    pub(super) message: String,
    pub(super) help: Option<String>,
    /// Text to put into the configuration.
    pub(super) suggestion: Option<String>,
    pub(super) source: Rc<Source>,
    pub(super) place: Range<usize>,
}

impl Diagnostic {
    /// An error about a file, not about a field of the configuration.
    pub(super) fn error(
        code: &'static Code,
        source: &Rc<Source>,
        place: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            code,
            severity: Severity::Error,
            path: String::new(),
            message: message.into(),
            help: Some(help.into()),
            suggestion: None,
            source: Rc::clone(source),
            place,
        }
    }

    /// A warning about a file, not about a field of the configuration.
    pub(super) fn warning(
        code: &'static Code,
        source: &Rc<Source>,
        place: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, source, place, message, help)
        }
    }

    /// A problem of a configuration.
    pub(super) fn problem(problem: &Problem, source: &Rc<Source>, place: Range<usize>) -> Self {
        // Inside a file the place is the file's, not that of the text in it.
        let message = match problem.message.split_once(" at line ") {
            Some((message, _)) if problem.path.is_root() => message,
            _ => problem.message.as_str(),
        };
        Self {
            code: &codes::CONFIGURATION,
            severity: problem.severity,
            path: problem.path.to_string(),
            message: message.to_owned(),
            help: problem.help.clone(),
            suggestion: None,
            source: Rc::clone(source),
            place,
        }
    }

    /// A text that can't be read at all.
    pub(super) fn syntax(source: &Rc<Source>, error: SyntaxError) -> Self {
        let message = if error.help.is_some() {
            error.message
        } else {
            // A parser may quote megabytes.
            let short: String = error.message.chars().take(200).collect();
            format!("this is not valid YAML or JSON: {short}")
        };
        Self {
            code: &codes::UNREADABLE,
            severity: Severity::Error,
            path: String::new(),
            message,
            help: error.help,
            suggestion: None,
            source: Rc::clone(source),
            place: error.span,
        }
    }

    pub(super) fn line(&self) -> usize {
        self.source.line(self.place.start)
    }

    pub(super) fn column(&self) -> usize {
        self.source.column(self.place.start)
    }

    /// The part of the place that lies on its first line, so that it can be underlined.
    fn visible_place(&self) -> Range<usize> {
        let text = &self.source.text;
        let start = floor(text, self.place.start);
        let end = floor(text, self.place.end).max(start);
        let line_end = text
            .get(start..end)
            .and_then(|part| part.find('\n'))
            .map_or(end, |newline| start + newline);
        start..line_end
    }

    /// For machines.
    pub(super) fn json(&self) -> serde_json::Value {
        json!({
            "severity": self.severity.to_string(),
            "code": self.code.name,
            "file": self.source.name,
            "line": self.line(),
            "column": self.column(),
            "path": self.path,
            "message": self.message,
            "help": self.help,
            "suggestion": self.suggestion,
        })
    }
}

/// The last boundary between characters that isn't behind a byte.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
