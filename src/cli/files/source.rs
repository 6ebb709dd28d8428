//! A text that configurations are read from, and its lines.

use std::cell::OnceCell;
use std::ops::Range;

use super::builder::Builder;
use super::syntax_error::SyntaxError;
use super::tree::Located;
use super::within::Within;
use super::{json, template, yaml};

/// A text that configurations are read from.
#[derive(Debug)]
pub(in crate::cli) struct Source {
    /// The file's name, or what else it is.
    pub(in crate::cli) name: String,
    /// The whole text.
    pub(in crate::cli) text: String,
    /// Where each line begins.
    lines: OnceCell<Vec<usize>>,
    merge_key: OnceCell<Option<Range<usize>>>,
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.text == other.text
    }
}

impl Source {
    pub(in crate::cli) fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
            lines: OnceCell::new(),
            merge_key: OnceCell::new(),
        }
    }

    /// Every document of the text: YAML as kubectl reads it, or JSON values one after another.
    pub(in crate::cli) fn documents(&self) -> Result<Vec<Located>, SyntaxError> {
        documents(&self.text).map_err(|error| match template::found(&self.text) {
            Some(template) => template,
            None => error,
        })
    }

    /// Every document of a text that is a scalar of this source, such as a file in a `ConfigMap`. Places are the
    /// source's.
    pub(in crate::cli) fn documents_within(
        &self,
        scalar: &Located,
    ) -> Result<Vec<Located>, SyntaxError> {
        let Some(text) = scalar.text() else {
            return Ok(Vec::new());
        };
        let within = self.within(scalar);
        match documents(text) {
            Ok(mut documents) => {
                for document in &mut documents {
                    document.move_spans(&|span| within.span(span));
                }
                Ok(documents)
            }
            Err(error) => Err(SyntaxError {
                span: within.span(&error.span),
                ..error
            }),
        }
    }

    /// The one JSON value that a scalar of this source holds. Places are the source's.
    pub(in crate::cli) fn json_within(&self, scalar: &Located) -> Option<Located> {
        let mut builder = Builder::default();
        json::read(scalar.text()?, 0, &mut builder).ok()?;
        let mut document = builder.documents.into_iter().next()?;
        let within = self.within(scalar);
        document.move_spans(&|span| within.span(span));
        Some(document)
    }

    /// The place of the first merge key (`<<`), if the text has one.
    pub(in crate::cli) fn merge_key(&self) -> Option<&Range<usize>> {
        let find = || {
            if !self.text.contains("<<") {
                return None;
            }
            let mut builder = Builder::default();
            let _ = yaml::read(&self.text, 0, &mut builder);
            builder.merge_key
        };
        self.merge_key.get_or_init(find).as_ref()
    }

    /// Where the characters of a scalar's text stand in this source.
    pub(in crate::cli) fn within(&self, scalar: &Located) -> Within {
        let raw = self.text.get(scalar.span.clone()).unwrap_or_default();
        Within::new(scalar.text().unwrap_or_default(), raw, scalar.span.start)
    }

    /// The line of a byte, from 1.
    pub(in crate::cli) fn line(&self, at: usize) -> usize {
        self.lines().partition_point(|start| *start <= at)
    }

    /// The column of a byte in characters, from 1.
    pub(in crate::cli) fn column(&self, at: usize) -> usize {
        let start = self.line_start(self.line(at));
        let before = self.text.get(start..at.min(self.text.len()));
        before.map_or(1, |before| before.chars().count() + 1)
    }

    /// The byte at which a line begins; lines count from 1.
    pub(in crate::cli) fn line_start(&self, line: usize) -> usize {
        let start = self.lines().get(line.saturating_sub(1));
        start.copied().unwrap_or(self.text.len())
    }

    fn lines(&self) -> &[usize] {
        self.lines.get_or_init(|| {
            let ends = self.text.bytes().enumerate();
            let starts = ends.filter_map(|(at, byte)| (byte == b'\n').then_some(at + 1));
            std::iter::once(0).chain(starts).collect()
        })
    }
}

fn documents(text: &str) -> Result<Vec<Located>, SyntaxError> {
    // As kubectl: what begins as JSON is read as JSON, and as YAML if it isn't that.
    let begin = text.len() - text.trim_start_matches('\u{feff}').len();
    let content = text.get(begin..).unwrap_or_default();
    let looks_like_json = content.trim_start().starts_with(['{', '[']);
    if looks_like_json {
        let mut builder = Builder::default();
        match json::read(content, begin, &mut builder) {
            Ok(()) => return Ok(builder.documents),
            Err(json::Failure::Bound(error)) => return Err(error),
            Err(json::Failure::NotJson) => {}
        }
    }
    let mut builder = Builder::default();
    yaml::read(content, begin, &mut builder)?;
    Ok(builder.documents)
}
