//! Findings for people, as compilers show them.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};

use super::{Diagnostic, floor};
use crate::config::Severity;

/// Longer lines are shown in part.
const LONG_LINE: usize = 300;

/// Message, excerpt with the place underlined, help.
pub(in crate::cli) fn text(diagnostic: &Diagnostic, colours: bool) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let source = &diagnostic.source;
    let place = diagnostic.visible_place();
    let line = source.line(place.start);
    let line_start = source.line_start(line);
    let line_end = source.line_start(line + 1).max(place.end);
    let is_long = line_end - line_start > LONG_LINE;
    // Of a text of megabytes only the line itself is handed over.
    let (from, to) = if is_long {
        let from = place.start.saturating_sub(LONG_LINE / 4).max(line_start);
        let to = (place.start + LONG_LINE / 2).min(line_end);
        (floor(&source.text, from), floor(&source.text, to))
    } else {
        (line_start, line_end)
    };
    let excerpt = source.text.get(from..to).unwrap_or_default();
    let excerpt = excerpt.trim_end_matches(['\n', '\r']);
    let within = |at: usize| at.saturating_sub(from).min(excerpt.len());
    let marked = within(place.start)..within(place.end);
    let mut annotation = AnnotationKind::Primary.span(marked);
    if !diagnostic.path.is_empty() {
        annotation = annotation.label(diagnostic.path.as_str());
    }
    let snippet = Snippet::source(excerpt)
        .line_start(line)
        .annotation(annotation);
    let title = level.primary_title(diagnostic.message.as_str());
    let mut group = if is_long {
        let origin = Origin::path(source.name.as_str())
            .line(line)
            .char_column(diagnostic.column());
        title.element(origin).element(snippet)
    } else {
        title.element(snippet.path(source.name.as_str()))
    };
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    let renderer = if colours {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    renderer.decor_style(DecorStyle::Ascii).render(&[group])
}
