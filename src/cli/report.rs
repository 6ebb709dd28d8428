//! Problems with their place in a file, as compilers show them.

use std::ops::Range;
use std::rc::Rc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde_json::json;

use super::source::{Source, SyntaxError};
use crate::config::{Problem, Severity};

/// A problem in a file.
#[derive(PartialEq)]
pub(super) struct Diagnostic {
    pub(super) severity: Severity,
    /// Where in the configuration, such as `routes[2].timeout`; empty where that says nothing.
    pub(super) path: String,
    pub(super) message: String,
    pub(super) help: Option<String>,
    /// Text to put into the configuration.
    pub(super) suggestion: Option<String>,
    pub(super) source: Rc<Source>,
    pub(super) place: Range<usize>,
}

impl Diagnostic {
    /// A problem of a configuration.
    pub(super) fn new(problem: &Problem, source: &Rc<Source>, place: Range<usize>) -> Self {
        Self {
            severity: problem.severity,
            path: problem.path.clone(),
            message: problem.message.clone(),
            help: problem.help.clone(),
            suggestion: None,
            source: Rc::clone(source),
            place,
        }
    }

    /// A text that can't be read at all.
    pub(super) fn syntax(source: Rc<Source>, error: SyntaxError) -> Self {
        Self {
            severity: Severity::Error,
            path: String::new(),
            message: format!("this is not valid YAML or JSON: {}", error.message),
            help: None,
            suggestion: None,
            source,
            place: error.span,
        }
    }

    /// For people: message, excerpt with the place underlined, help.
    pub(super) fn text(&self, colours: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut annotation = AnnotationKind::Primary.span(self.visible_place());
        if !self.path.is_empty() {
            annotation = annotation.label(self.path.as_str());
        }
        let snippet = Snippet::source(self.source.text.as_str())
            .path(self.source.name.as_str())
            .annotation(annotation);
        let mut group = level.primary_title(self.message.as_str()).element(snippet);
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let renderer = if colours {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        renderer.decor_style(DecorStyle::Ascii).render(&[group])
    }

    /// A place that can be underlined: within the text, on one line.
    fn visible_place(&self) -> Range<usize> {
        let text = &self.source.text;
        let start = self.place.start.min(text.len());
        let end = self.place.end.clamp(start, text.len());
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
            "file": self.source.name,
            "line": self.source.line(self.place.start),
            "column": self.source.column(self.place.start),
            "path": self.path,
            "message": self.message,
            "help": self.help,
            "suggestion": self.suggestion,
        })
    }
}
