//! Where the characters of a string stand in the file that holds it: JSON in a quoted scalar, YAML in a block scalar,
//! Lua in either.

use std::ops::Range;

/// The places of a string's characters.
pub(in crate::cli) struct Within {
    /// Where a run of characters begins in the string and in the file, for each run that is the same in both.
    runs: Vec<(usize, usize)>,
}

impl Within {
    /// Aligns a string with the text that it was written as, which begins at `begin` of its file. Both are walked once.
    pub(super) fn new(string: &str, raw: &str, begin: usize) -> Self {
        let mut walk = Walk {
            raw,
            at: 0,
            quote: raw.bytes().next().filter(|byte| b"\"'".contains(byte)),
            block: raw.starts_with(['|', '>']),
        };
        let mut runs = vec![(0, begin)];
        if walk.block {
            walk.at = raw.find('\n').map_or(raw.len(), |end| end + 1);
        } else if walk.quote.is_some() {
            walk.at = 1;
        }
        for (inner, c) in string.char_indices() {
            let Some(outer) = walk.find(c) else {
                break;
            };
            let outer = begin + outer;
            let here = runs.last().copied().unwrap_or_default();
            if outer.wrapping_sub(here.1) != inner.wrapping_sub(here.0) {
                if here.0 == inner {
                    runs.pop();
                }
                runs.push((inner, outer));
            }
        }
        Self { runs }
    }

    /// The byte of the file at which a byte of the string stands.
    pub(in crate::cli) fn byte(&self, inner: usize) -> usize {
        let run = self.runs.partition_point(|(start, _)| *start <= inner);
        let (start, outer) = run
            .checked_sub(1)
            .and_then(|run| self.runs.get(run))
            .copied()
            .unwrap_or_default();
        outer + inner.saturating_sub(start)
    }

    /// The part of the file at which a part of the string stands.
    pub(in crate::cli) fn span(&self, inner: &Range<usize>) -> Range<usize> {
        let start = self.byte(inner.start);
        let end = match inner.end.checked_sub(1) {
            Some(last) if last >= inner.start => self.byte(last) + 1,
            _ => start,
        };
        start..end.max(start)
    }
}

/// A position in the text as it was written.
struct Walk<'r> {
    raw: &'r str,
    at: usize,
    quote: Option<u8>,
    block: bool,
}

impl Walk<'_> {
    fn rest(&self) -> &str {
        self.raw.get(self.at..).unwrap_or_default()
    }

    /// Where a character of the string stands; the position is behind it then.
    fn find(&mut self, c: char) -> Option<usize> {
        if matches!(c, ' ' | '\t' | '\n') {
            return Some(self.blank(c));
        }
        loop {
            let next = self.rest().chars().next()?;
            let at = self.at;
            if next == '\\' && self.quote == Some(b'"') {
                if self.escape(c) {
                    return Some(at);
                }
                continue;
            }
            if next == c {
                // In single quotes a quote is written twice.
                let doubled = c == '\'' && self.quote == Some(b'\'');
                self.at += if doubled { 2 } else { c.len_utf8() };
                return Some(at);
            }
            if !next.is_whitespace() {
                return None;
            }
            self.at += next.len_utf8();
        }
    }

    /// A space or line break: written as it is, folded out of a line break, or escaped.
    fn blank(&mut self, c: char) -> usize {
        loop {
            let at = self.at;
            let rest = self.rest();
            let broken = if rest.starts_with("\r\n") { 2 } else { 1 };
            if rest.starts_with('\\') && self.quote == Some(b'"') {
                if self.escape(c) {
                    return at;
                }
                continue;
            }
            if rest.starts_with(c) {
                self.at += 1;
            } else if rest.starts_with(['\n', '\r']) {
                self.at += broken;
            } else if c != ' ' && rest.starts_with([' ', '\t']) {
                // Indentation in front of a line break, and blanks at a line's end.
                self.at += 1;
                continue;
            }
            return at;
        }
    }

    /// Skips an escape. Whether it stands for a character, not for the end of a line that goes on.
    fn escape(&mut self, c: char) -> bool {
        let mut after = self.rest().chars().skip(1);
        let length = match after.next() {
            Some('x') => 4,
            // JSON writes what lies beyond the basic plane as two.
            Some('u') if u32::from(c) > 0xffff => 12,
            Some('u') => 6,
            Some('U') => 10,
            Some('\n' | '\r') => {
                self.at += 1;
                while self.rest().starts_with(char::is_whitespace) {
                    self.at += self.rest().chars().next().map_or(1, char::len_utf8);
                }
                return false;
            }
            Some(other) => 1 + other.len_utf8(),
            None => 1,
        };
        self.at = (self.at + length).min(self.raw.len());
        true
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::files::Source;

    /// Where a word of a string in the text stands, by the string's own offsets.
    fn found(text: &str, word: &str) -> usize {
        let source = Source::new("text", text);
        let documents = source.documents().expect("it can be read");
        let scalar = documents[0].get("a").expect("the field a");
        let string = scalar.text().expect("a string");
        let inner = string.find(word).expect("the word is in the string");
        source.within(scalar).byte(inner)
    }

    #[test]
    fn a_word_in_a_string_is_found_where_it_is_written() {
        for text in [
            "a: plain WORD here",
            "a: plain\n  on two lines\n\n  and more WORD",
            "a: 'single ''quoted'' WORD'",
            "a: \"double \\\"quoted\\\" \\u00e4\\x41 \\\n     folded\n  WORD\"",
            "{\"a\": \"json \\\"text\\\" \\ud83d\\ude00\\n WORD\"}",
            "a: |\n    literal\n      deeper\n\n    WORD\n",
            "a: >-\n    folded\n    twice\n\n    WORD\n",
            "a: |2\n    kept indentation\n  WORD\n",
            "é: ü\na: |\n  ä ö\n  WORD\n",
            "\u{feff}a: 'x WORD'",
            "a: |\r\n  line\r\n  WORD\r\n",
            "a: \"tab\\tand \\/ WORD\"",
        ] {
            assert_eq!(
                found(text, "WORD"),
                text.find("WORD").expect("it has one"),
                "{text:?}"
            );
        }
    }
}
