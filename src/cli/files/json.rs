//! The events of JSON values, one after another.

use std::ops::Range;

use serde::Deserialize as _;
use serde::de::IgnoredAny;

use super::builder::{Builder, Key};
use super::syntax_error::SyntaxError;
use crate::config::Node;

/// Why a text isn't read as JSON.
pub(super) enum Failure {
    /// It is something else, perhaps YAML.
    NotJson,
    /// It is JSON, but too large, too deep or of values that nothing can hold.
    Bound(SyntaxError),
}

impl From<SyntaxError> for Failure {
    fn from(error: SyntaxError) -> Self {
        Failure::Bound(error)
    }
}

/// Reads every value of a text that begins at `begin` of its file. Whether it is JSON is for the JSON library to say;
/// the rest is finding the places of what it has accepted.
pub(super) fn read(text: &str, begin: usize, builder: &mut Builder) -> Result<(), Failure> {
    let values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    for value in values {
        value.map_err(|_| Failure::NotJson)?;
    }
    let mut tokens = Tokens { text, begin, at: 0 };
    while let Some(byte) = tokens.next_byte() {
        let start = tokens.at;
        match byte {
            b'{' => {
                tokens.at += 1;
                builder.object(0, tokens.span(start))?;
            }
            b'[' => {
                tokens.at += 1;
                builder.list(0, tokens.span(start))?;
            }
            b'}' | b']' => {
                tokens.at += 1;
                builder.end(&tokens.span(start))?;
            }
            b',' | b':' => tokens.at += 1,
            b'"' => {
                tokens.skip_string();
                let span = tokens.span(start);
                let string = tokens.string(start).ok_or_else(|| {
                    tokens.wrong(start, "this is half of a character (an unpaired surrogate)")
                })?;
                if builder.wants_key() {
                    let key = Key {
                        name: string,
                        span,
                        merge: false,
                    };
                    builder.key(key)?;
                } else {
                    builder.scalar(0, Node::Text(string), span)?;
                }
            }
            _ => {
                tokens.skip_word();
                let node = tokens
                    .word(start)
                    .ok_or_else(|| tokens.wrong(start, "this number is too large"))?;
                builder.scalar(0, node, tokens.span(start))?;
            }
        }
    }
    Ok(())
}

struct Tokens<'t> {
    text: &'t str,
    begin: usize,
    at: usize,
}

impl Tokens<'_> {
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The first byte of the next token.
    fn next_byte(&mut self) -> Option<u8> {
        while self.byte()?.is_ascii_whitespace() {
            self.at += 1;
        }
        self.byte()
    }

    fn skip_string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.byte() {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                return;
            }
        }
    }

    /// Skips a number, true, false or null.
    fn skip_word(&mut self) {
        while self
            .byte()
            .is_some_and(|byte| !byte.is_ascii_whitespace() && !b",:]}".contains(&byte))
        {
            self.at += 1;
        }
    }

    fn since(&self, start: usize) -> &str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn string(&self, start: usize) -> Option<String> {
        serde_json::from_str(self.since(start)).ok()
    }

    fn word(&self, start: usize) -> Option<Node> {
        let mut deserializer = serde_json::Deserializer::from_str(self.since(start));
        Node::deserialize(&mut deserializer).ok()
    }

    fn span(&self, start: usize) -> Range<usize> {
        self.begin + start..self.begin + self.at
    }

    fn wrong(&self, start: usize, message: &str) -> SyntaxError {
        SyntaxError {
            message: message.to_owned(),
            help: None,
            span: self.span(start),
        }
    }
}
