//! The Lua filters of one place, read together: what they do, and where what is said of them stands.

use super::lua::{self, Meaning, Remark, Span, Subject};
use super::surroundings::{Filter, Note, PerRoute, Runs, Script};
use super::translate::instead;
use crate::cli::files::{Source, Within};

/// Remarks that are shown for one filter.
const MOST_REMARKS: usize = 100;

/// Characters of a script that a remark shows.
const SHOWN: usize = 120;

/// Characters of a remark, which may name texts of the script.
const MOST_OF_A_REMARK: usize = 600;

/// Where a script's text begins in the text that all scripts of a group are.
struct Part {
    base: usize,
    code: String,
    within: Within,
}

/// Bytes of scripts of one place, blanks in front of them included: some hundred scripts of usual length.
const MOST_READ: usize = 64 << 20;

/// The filters of one place, together.
pub(super) struct Group<'s> {
    source: &'s Source,
    parts: Vec<Part>,
    end: usize,
    /// Bytes that were read, each script behind blanks for those in front of it.
    read: usize,
    /// Where the first script stands that wasn't read.
    unread: Option<usize>,
    notes: Vec<Note>,
}

impl<'s> Group<'s> {
    pub(super) fn new(source: &'s Source) -> Self {
        Self {
            source,
            parts: Vec::new(),
            end: 0,
            read: 0,
            unread: None,
            notes: Vec::new(),
        }
    }

    /// Adds what is to be said about a filter.
    pub(super) fn note(&mut self, notes: &[Note]) {
        self.notes.extend_from_slice(notes);
    }

    /// What a filter does, on every virtual host and route.
    pub(super) fn of_filter(&mut self, filter: &Filter) -> Meaning {
        let mut meaning = match &filter.everywhere {
            Some(script) => self.meaning(script),
            None => Meaning::default(),
        };
        let mut used: Vec<&str> = Vec::new();
        for one in by_exactness(filter) {
            let there = match &one.runs {
                Runs::Nothing => Meaning::default(),
                Runs::Script(script) => self.meaning(script),
                Runs::Named(name) => {
                    if let Some((known, script)) =
                        filter.named.iter().find(|(known, _)| known == name)
                    {
                        used.push(known);
                        self.meaning(script)
                    } else {
                        self.notes.push(Note {
                            at: one.at,
                            text: format!(
                                "there is no script {name} in source_codes: Envoy runs none here"
                            ),
                        });
                        Meaning::default()
                    }
                }
            };
            meaning = instead(&one.condition, there, meaning);
        }
        for (name, script) in &filter.named {
            if !used.contains(&name.as_str()) {
                self.notes.push(Note {
                    at: script.place.span.start,
                    text: format!(
                        "no route in this file runs the script {name}: it isn't translated"
                    ),
                });
            }
        }
        if filter.everywhere.is_none()
            && filter.named.is_empty()
            && filter.elsewhere.is_empty()
            && filter.notes.is_empty()
        {
            self.notes.push(Note {
                at: 0,
                text: format!("{} has a Lua filter without a script", filter.holder),
            });
        }
        meaning
    }

    /// What a script does; its places are those of the whole group's text.
    fn meaning(&mut self, script: &Script) -> Meaning {
        let base = self.end;
        self.end += script.code.len() + 1;
        self.read = self.read.saturating_add(self.end);
        if self.read > MOST_READ {
            self.unread.get_or_insert(script.place.span.start);
            return Meaning::default();
        }
        self.parts.push(Part {
            base,
            code: script.code.clone(),
            within: self.source.within(&script.place),
        });
        let padded = format!("{}{}", " ".repeat(base), script.code);
        match lua::meaning(&padded) {
            Ok(meaning) => {
                if !meaning.on_request {
                    let what = if script.code.trim().is_empty() {
                        "the script is empty"
                    } else {
                        "the script has no function envoy_on_request, so it does nothing to requests"
                    };
                    self.notes.push(Note {
                        at: script.place.span.start,
                        text: what.to_owned(),
                    });
                }
                meaning
            }
            Err(unreadable) => {
                let at = self.place(unreadable.at);
                self.notes.push(Note {
                    at,
                    text: unreadable.message,
                });
                Meaning::default()
            }
        }
    }

    /// The byte of the file where a byte of the scripts stands.
    fn place(&self, at: usize) -> usize {
        let part = self.parts.iter().rev().find(|part| part.base <= at);
        part.map_or(0, |part| part.within.byte(at - part.base))
    }

    /// Everything that is to be said about places, in their order.
    pub(super) fn remarks(&self, remarks: &[Remark]) -> Vec<String> {
        // Those that are left out last come first.
        let mut placed: Vec<(bool, usize, String)> = self
            .notes
            .iter()
            .map(|note| (true, note.at, note.text.clone()))
            .collect();
        if let Some(at) = self.unread {
            let text = "there are too many scripts for one place: this one isn't read, nor are those behind it";
            placed.push((false, at, text.to_owned()));
        }
        for remark in remarks {
            let why = cut(&remark.why, MOST_OF_A_REMARK);
            let text = format!("`{}`: {why}", self.excerpt(&remark.span));
            placed.push((!remark.is_end, self.place(remark.span.start), text));
        }
        placed.sort();
        placed.dedup();
        let source = self.source;
        let hidden = placed.len().saturating_sub(MOST_REMARKS);
        placed.truncate(MOST_REMARKS);
        placed.sort_by_key(|(_, at, _)| *at);
        let mut lines: Vec<String> = placed
            .into_iter()
            .map(|(_, at, text)| {
                let (line, column) = (source.line(at), source.column(at));
                format!("{}:{line}:{column}: {text}", source.name)
            })
            .collect();
        if hidden > 0 {
            lines.push(format!("{}: and {hidden} more", source.name));
        }
        lines
    }

    /// A piece of a script, on one line.
    fn excerpt(&self, span: &Span) -> String {
        let part = self.parts.iter().rev().find(|part| part.base <= span.start);
        let text = part
            .and_then(|part| {
                let end = span.end.saturating_sub(part.base).min(part.code.len());
                part.code.get(span.start - part.base..end)
            })
            .unwrap_or_default();
        let words: Vec<&str> = text.split_whitespace().collect();
        let line = words.join(" ");
        cut(&line, SHOWN)
    }
}

/// A text that isn't longer than that.
pub(super) fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// What runs elsewhere, the more exact places last: they win.
pub(super) fn by_exactness(filter: &Filter) -> Vec<&PerRoute> {
    let mut elsewhere: Vec<_> = filter.elsewhere.iter().collect();
    elsewhere.sort_by_key(|one| {
        let mut tests = 0;
        one.condition.tests(&mut |test| {
            // A route is a part of a virtual host.
            tests += if test.subject == Subject::Route { 2 } else { 1 };
        });
        tests
    });
    elsewhere
}
