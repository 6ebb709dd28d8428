//! The declaration's patterns as RE2 takes them, which has no lookahead.

use std::fmt::Write as _;

/// A pattern without lookaheads, and what they ask for: whether it has to match, and the pattern.
pub(super) fn without_lookahead(pattern: &str) -> (String, Vec<(bool, String)>) {
    let mut whole = pattern.to_owned();
    let mut conditions = Vec::new();
    while let Some(start) = whole.find("(?=").into_iter().chain(whole.find("(?!")).min() {
        let wanted = whole
            .get(start..)
            .is_some_and(|rest| rest.starts_with("(?="));
        let Some(end) = end_of_group(&whole, start) else {
            break;
        };
        let before = whole.get(..start).unwrap_or_default().to_owned();
        let inner = whole.get(start + 3..end).unwrap_or_default();
        conditions.push((wanted, format!("{before}{inner}")));
        whole = format!("{before}{}", whole.get(end + 1..).unwrap_or_default());
    }
    (whole, conditions)
}

/// Where the group that opens at `start` closes.
fn end_of_group(pattern: &str, start: usize) -> Option<usize> {
    let (mut depth, mut escaped, mut in_class) = (0_usize, false, false);
    for (index, character) in pattern.char_indices().skip_while(|(at, _)| *at < start) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' => in_class = false,
            _ if in_class => {}
            '[' => in_class = true,
            '(' => depth += 1,
            ')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(index);
                }
            }
            _ => {}
        }
    }
    None
}

/// `\uXXXX` as RE2 writes it.
pub(super) fn re2(pattern: &str) -> String {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once("\\u") {
        out.push_str(before);
        if let (Some(digits), Some(more)) = (after.get(..4), after.get(4..)) {
            let _ = write!(out, "\\x{{{digits}}}");
            rest = more;
        } else {
            out.push_str("\\u");
            rest = after;
        }
    }
    out.push_str(rest);
    out
}
