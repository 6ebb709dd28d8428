//! Lua's searches in texts that depend on the request.

use std::rc::Rc;

use super::condition::{Condition, Is, Subject};
use super::evaluate::Run;
use super::operators::is;
use super::syntax::Span;
use super::value::{Asked, Value};

/// What a Lua pattern says, where it is a text with or without anchors.
struct Plain {
    from_start: bool,
    text: String,
    to_end: bool,
}

/// Reads a pattern that stands for a text: `^/api/`, `%.example%.com$`, `.*-edge`.
fn plain(pattern: &str) -> Option<Plain> {
    let mut rest = pattern;
    let mut from_start = false;
    if let Some(after) = rest.strip_prefix('^') {
        from_start = true;
        rest = after;
    }
    for anything in [".*", ".-"] {
        if let Some(after) = rest.strip_prefix(anything) {
            from_start = false;
            rest = after;
        }
    }
    let mut to_end = false;
    if let Some(before) = rest.strip_suffix('$')
        && !before.ends_with('%')
    {
        to_end = true;
        rest = before;
    }
    if let Some(before) = rest.strip_suffix(".*") {
        to_end = false;
        rest = before;
    }
    let mut text = String::new();
    let mut chars = rest.chars().peekable();
    while let Some(c) = chars.next() {
        let literal = match c {
            '%' => chars.next().filter(char::is_ascii_punctuation)?,
            '.' | '[' | ']' | '(' | ')' | '*' | '+' | '-' | '?' | '^' | '$' => return None,
            other => other,
        };
        if matches!(chars.peek(), Some('*' | '+' | '-' | '?')) {
            return None;
        }
        text.push(literal);
    }
    Some(Plain {
        from_start,
        text,
        to_end,
    })
}

/// Whether a value matches.
fn matches(asked: &Asked, plain: &Plain, span: &Span) -> Condition {
    if asked.skipped != 0 || asked.taken.is_some() {
        return Condition::beyond("a pattern on a part of a value", span.clone());
    }
    let other_case = |byte: u8| {
        if asked.upper {
            byte.is_ascii_lowercase()
        } else {
            byte.is_ascii_uppercase()
        }
    };
    if asked.folded && plain.text.bytes().any(other_case) {
        return Condition::Never;
    }
    let text: Rc<str> = if asked.folded {
        plain.text.to_ascii_lowercase().into()
    } else {
        plain.text.as_str().into()
    };
    if asked.folded
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
        && !(plain.from_start && plain.to_end)
        && !is_host(asked)
    {
        return Condition::beyond(
            format!("whether a value has {text:?} in it, upper or lower case"),
            span.clone(),
        );
    }
    match (plain.from_start, plain.to_end) {
        (true, true) => asked.equals(&text, span.clone()),
        (true, false) => asked.test(Is::Prefix(text), span.clone()),
        (false, true) => asked.test(Is::Suffix(text), span.clone()),
        (false, false) => asked.test(Is::Contains(text), span.clone()),
    }
}

pub(super) fn is_host(asked: &Asked) -> bool {
    matches!(&asked.subject, Subject::Header(name) if &**name == ":authority" || &**name == "host")
}

/// Patterns that take a host without its port or a path without its query, as matches of trusted-lb do anyway.
fn takes_what_is_matched(asked: &Asked, pattern: &str) -> bool {
    let Subject::Header(name) = &asked.subject else {
        return asked.subject == Subject::Peer
            && matches!(
                pattern,
                "^([^:]+)"
                    | "([^:]+)"
                    | "^[^:]+"
                    | "[^:]+"
                    | "^(.-):"
                    | "^(.+):%d+$"
                    | "(.+):%d+"
                    | "^(.*):%d+$"
                    | "^([%d%.]+)"
                    | "([%d%.]+)"
            );
    };
    match &**name {
        ":authority" | "host" => matches!(
            pattern,
            "^([^:]+)" | "([^:]+)" | "^[^:]+" | "[^:]+" | "^([^:]*)" | "([^:]*)" | "^[^:]*"
        ),
        ":path" => matches!(
            pattern,
            "^([^?]+)"
                | "([^?]+)"
                | "^[^?]+"
                | "[^?]+"
                | "^([^?]*)"
                | "([^?]*)"
                | "^[^?]*"
                | "[^%?]+"
                | "^([^%?]+)"
                | "([^%?]+)"
                | "^[^%?]+"
                | "^([^%?]*)"
        ),
        _ => false,
    }
}

/// `string.sub`.
#[allow(clippy::cast_possible_truncation)] // Indices that were typed.
pub(super) fn sub(run: &Run<'_>, value: &Value, from: f64, to: Option<f64>) -> Value {
    let (from, to) = (from as i64, to.map(|to| to as i64));
    match value {
        Value::Asked(asked) if asked.taken.is_none() => {
            let skipped = usize::try_from(from - 1).unwrap_or(0);
            match (from, to) {
                (1.., None | Some(-1)) => {
                    let skipped = asked.skipped + skipped;
                    let in_front = if asked.folded {
                        None
                    } else {
                        run.known_prefix(&asked.subject, skipped)
                    };
                    Value::Asked(Asked {
                        skipped,
                        in_front,
                        ..asked.clone()
                    })
                }
                (0..=1, Some(to @ 1..)) if asked.skipped == 0 => Value::Asked(Asked {
                    taken: Some(to),
                    ..asked.clone()
                }),
                (..=-1, None | Some(-1)) if asked.skipped == 0 => Value::Asked(Asked {
                    taken: Some(from),
                    ..asked.clone()
                }),
                _ => Value::unknown("a part of a value"),
            }
        }
        _ => Value::unknown("a part of a text that isn't known"),
    }
}

/// `string.find`.
pub(super) fn find(value: &Value, pattern: &str, rest: &[Value], span: &Span) -> Value {
    let from_first = match rest.first() {
        None | Some(Value::Nil) => true,
        Some(Value::Number(number)) => is(*number, 1.0),
        Some(_) => false,
    };
    let verbatim = matches!(rest.get(1), Some(Value::Bool(true)));
    let read = if verbatim {
        Some(Plain {
            from_start: false,
            text: pattern.to_owned(),
            to_end: false,
        })
    } else {
        plain(pattern)
    };
    let Some(plain) = read.filter(|_| from_first) else {
        return match value {
            Value::Asked(_) => Value::unknown(format!("whether the pattern {pattern:?} matches")),
            _ => Value::unknown("a search that isn't followed"),
        };
    };
    match value {
        Value::Asked(asked) => {
            let condition = matches(asked, &plain, span);
            if plain.to_end {
                return Value::Perhaps(condition, "the place of an end".into());
            }
            Value::Found(asked.clone(), plain.text.as_str().into(), condition)
        }
        Value::Unknown(why) => Value::Unknown(Rc::clone(why)),
        _ => Value::unknown("a search in a text that isn't known"),
    }
}

/// `string.match`.
pub(super) fn match_text(value: &Value, pattern: &str, span: &Span) -> Value {
    match value {
        Value::Asked(asked) if takes_what_is_matched(asked, pattern) => Value::Asked(asked.clone()),
        Value::Asked(asked) => {
            // What is in the parentheses isn't known, but whether there is a match is.
            let bare: String = match pattern.split_once('(') {
                Some((before, after))
                    if pattern.matches('(').count() == 1 && !before.ends_with('%') =>
                {
                    format!("{before}{}", after.replacen(')', "", 1))
                }
                _ => pattern.to_owned(),
            };
            match plain(&bare) {
                Some(plain) => Value::Perhaps(
                    matches(asked, &plain, span),
                    format!("what the pattern {pattern:?} takes out of a value").into(),
                ),
                None => {
                    Value::unknown(format!("what the pattern {pattern:?} takes out of a value"))
                }
            }
        }
        Value::Unknown(why) => Value::Unknown(Rc::clone(why)),
        _ => Value::unknown("a search in a text that isn't known"),
    }
}
