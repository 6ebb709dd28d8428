//! Expressions of the Common Expression Language, as Envoy's `%CEL(...)%` formatter takes them.
//!
//! Three traps are dealt with here. Filter state is bytes: only a byte literal equals it. An expression that fails writes
//! nothing, so every part is total: an attribute or header is read only behind a test that it is there. And the formatter
//! ends a command at the first `)%`, so no literal has a percent sign.

use std::fmt::Write as _;

/// A text literal.
pub(super) fn text(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('\'');
    for c in value.chars() {
        match c {
            '\'' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '%' => out.push_str("\\x25"),
            c if c.is_ascii_graphic() || c == ' ' => out.push(c),
            c => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
        }
    }
    out.push('\'');
    out
}

/// A literal that filter state can equal.
pub(super) fn bytes(value: &str) -> String {
    format!("b{}", text(value))
}

/// All of these hold; nothing to hold is true.
pub(super) fn all(parts: &[String]) -> String {
    joined(parts, " && ", "true")
}

/// One of these holds; none to hold is false.
pub(super) fn any(parts: &[String]) -> String {
    joined(parts, " || ", "false")
}

fn joined(parts: &[String], operator: &str, empty: &str) -> String {
    match parts {
        [] => empty.to_owned(),
        [one] => one.clone(),
        parts => format!("({})", parts.join(operator)),
    }
}

pub(super) fn not(part: &str) -> String {
    format!("!({part})")
}

pub(super) fn choose(condition: &str, yes: &str, no: &str) -> String {
    match condition {
        "true" => yes.to_owned(),
        "false" => no.to_owned(),
        _ if yes == no => yes.to_owned(),
        _ => format!("({condition} ? {yes} : {no})"),
    }
}

/// The value of the first case whose condition holds. Its length, and the time that it takes, grow with the cases' own.
pub(super) fn first(cases: impl IntoIterator<Item = (String, String)>, otherwise: &str) -> String {
    let mut counted: Vec<(String, String)> = Vec::new();
    let mut otherwise = otherwise.to_owned();
    for (condition, value) in cases {
        match condition.as_str() {
            "false" => {}
            "true" => {
                otherwise = value;
                break;
            }
            _ => counted.push((condition, value)),
        }
    }
    while counted.last().is_some_and(|(_, value)| *value == otherwise) {
        counted.pop();
    }
    let mut out = String::new();
    for (condition, value) in &counted {
        let _ = write!(out, "({condition} ? {value} : ");
    }
    out.push_str(&otherwise);
    out.extend(counted.iter().map(|_| ')'));
    out
}

/// The subject is one of these.
pub(super) fn one_of(subject: &str, values: &[String]) -> String {
    match values {
        [one] => format!("{subject} == {one}"),
        values => format!("{subject} in [{}]", values.join(", ")),
    }
}

/// Text literals.
pub(super) fn texts<'t>(values: impl IntoIterator<Item = &'t String>) -> Vec<String> {
    values.into_iter().map(|value| text(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::first;

    fn of(cases: &[(&str, &str)]) -> String {
        let cases = cases
            .iter()
            .map(|(condition, value)| ((*condition).to_owned(), (*value).to_owned()));
        first(cases, "z")
    }

    #[test]
    fn the_first_case_that_holds_gives_the_value() {
        assert_eq!(of(&[]), "z");
        assert_eq!(of(&[("a", "1"), ("b", "2")]), "(a ? 1 : (b ? 2 : z))");
    }

    #[test]
    fn cases_that_decide_nothing_are_left_out() {
        assert_eq!(of(&[("false", "1"), ("b", "2")]), "(b ? 2 : z)");
        assert_eq!(of(&[("a", "1"), ("true", "2"), ("c", "3")]), "(a ? 1 : 2)");
        assert_eq!(of(&[("a", "1"), ("b", "z")]), "(a ? 1 : z)");
        assert_eq!(of(&[("a", "z"), ("true", "z")]), "z");
        assert_eq!(of(&[("a", "z"), ("b", "1")]), "(a ? z : (b ? 1 : z))");
    }
}
