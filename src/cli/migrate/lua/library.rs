//! Lua's own functions and operators on values that may depend on the request.

use std::rc::Rc;

use super::condition::{Condition, Is, Subject};
use super::evaluate::Run;
use super::syntax::Span;
use super::value::{Asked, Value};

/// Longer texts are made by no script that is meant well.
const LONGEST: usize = 64 << 10;

/// A global that the script doesn't set.
pub(super) fn global(name: &str) -> Value {
    const NAMES: &[&str] = &[
        "string",
        "table",
        "math",
        "os",
        "io",
        "bit",
        "_G",
        "pairs",
        "ipairs",
        "next",
        "type",
        "tostring",
        "tonumber",
        "select",
        "unpack",
        "pcall",
        "xpcall",
        "error",
        "assert",
        "print",
        "require",
        "setmetatable",
        "getmetatable",
        "rawget",
        "rawset",
        "rawequal",
        "collectgarbage",
        "load",
        "loadstring",
        "coroutine",
        "package",
        "debug",
        "jit",
    ];
    NAMES
        .iter()
        .find(|known| **known == name)
        .map_or(Value::Nil, |known| Value::Library(known))
}

/// A function of a library's table.
pub(super) fn member(library: &str, field: &str) -> Value {
    const NAMES: &[(&str, &str, &str)] = &[
        ("string", "lower", "string.lower"),
        ("string", "upper", "string.upper"),
        ("string", "find", "string.find"),
        ("string", "match", "string.match"),
        ("string", "gmatch", "string.gmatch"),
        ("string", "gsub", "string.gsub"),
        ("string", "sub", "string.sub"),
        ("string", "len", "string.len"),
        ("string", "format", "string.format"),
        ("string", "rep", "string.rep"),
        ("string", "byte", "string.byte"),
        ("string", "reverse", "string.reverse"),
        ("table", "insert", "table.insert"),
        ("table", "concat", "table.concat"),
        ("table", "getn", "table.getn"),
        ("table", "unpack", "unpack"),
    ];
    NAMES
        .iter()
        .find(|(table, name, _)| *table == library && *name == field)
        .map_or_else(
            || Value::unknown(format!("{library}.{field} isn't followed")),
            |(_, _, full)| Value::Library(full),
        )
}

/// A number as Lua writes it.
pub(super) fn number(value: f64) -> String {
    // As %.14g does for whole numbers and short fractions.
    if value.fract() == 0.0 && value.abs() < 1e14 {
        format!("{value:.0}")
    } else {
        format!("{value}")
    }
}

/// Whether a number is exactly this one, as `==` of Lua asks.
fn is(number: f64, wanted: f64) -> bool {
    number.total_cmp(&wanted).is_eq()
}

fn as_text(value: &Value) -> Option<Rc<str>> {
    match value {
        Value::Text(text) => Some(Rc::clone(text)),
        Value::Number(value) => Some(number(*value).into()),
        _ => None,
    }
}

/// `a .. b`.
pub(super) fn concat(a: &Value, b: &Value) -> Value {
    match (a, b) {
        (Value::Either(condition, yes, no), other) if as_text(other).is_some() => {
            Value::either(condition.clone(), concat(yes, other), concat(no, other))
        }
        (other, Value::Either(condition, yes, no)) if as_text(other).is_some() => {
            Value::either(condition.clone(), concat(other, yes), concat(other, no))
        }
        _ => match (as_text(a), as_text(b)) {
            (Some(a), Some(b)) if a.len() + b.len() <= LONGEST => Value::text(format!("{a}{b}")),
            _ => Value::unknown("a text that is put together from the request"),
        },
    }
}

/// `a == b`.
pub(super) fn equal(a: &Value, b: &Value, span: &Span) -> Condition {
    match (a, b) {
        (Value::Either(condition, yes, no), other) | (other, Value::Either(condition, yes, no)) => {
            condition.choose(&equal(yes, other, span), &equal(no, other, span))
        }
        (Value::Asked(asked), Value::Text(text)) | (Value::Text(text), Value::Asked(asked)) => {
            if asked.number {
                return Condition::Never;
            }
            asked.equals(text, span.clone())
        }
        (Value::Asked(asked), Value::Number(wanted))
        | (Value::Number(wanted), Value::Asked(asked)) => {
            if !asked.number {
                return Condition::Never;
            }
            asked.equals(&number(*wanted), span.clone())
        }
        (Value::Asked(asked), Value::Nil) | (Value::Nil, Value::Asked(asked)) => {
            asked.present().not()
        }
        (Value::Asked(a), Value::Asked(b)) if a.is_same(b) => Condition::Always,
        (Value::Length(asked), Value::Number(length))
        | (Value::Number(length), Value::Length(asked))
            if is(*length, 0.0) =>
        {
            asked.equals("", span.clone())
        }
        (Value::Test(condition), Value::Bool(wanted))
        | (Value::Bool(wanted), Value::Test(condition)) => {
            if *wanted {
                condition.clone()
            } else {
                condition.clone().not()
            }
        }
        (Value::Found(asked, literal, _), Value::Number(place))
        | (Value::Number(place), Value::Found(asked, literal, _))
            if is(*place, 1.0) =>
        {
            asked.test(Is::Prefix(Rc::clone(literal)), span.clone())
        }
        (Value::Perhaps(condition, _) | Value::Found(_, _, condition), Value::Nil)
        | (Value::Nil, Value::Perhaps(condition, _) | Value::Found(_, _, condition)) => {
            condition.clone().not()
        }
        (Value::Perhaps(_, why) | Value::Unknown(why), _)
        | (_, Value::Perhaps(_, why) | Value::Unknown(why)) => {
            Condition::beyond(Rc::clone(why), span.clone())
        }
        (Value::Asked(_) | Value::Length(_) | Value::Test(_) | Value::Found(..), _)
        | (_, Value::Asked(_) | Value::Length(_) | Value::Test(_) | Value::Found(..)) => {
            Condition::beyond("a comparison that isn't understood", span.clone())
        }
        // Of another kind, or constants; Envoy's objects are never nil.
        (a, b) => Condition::known(a.is_same(b)),
    }
}

/// Arithmetic, and comparisons of order.
pub(super) fn arithmetic(operator: &str, a: &Value, b: &Value, span: &Span) -> Value {
    if let (Value::Number(a), Value::Number(b)) = (a, b) {
        return match operator {
            "+" => Value::Number(a + b),
            "-" => Value::Number(a - b),
            "*" => Value::Number(a * b),
            "/" => Value::Number(a / b),
            "%" => Value::Number(a - (a / b).floor() * b),
            "<" => Value::Bool(a < b),
            "<=" => Value::Bool(a <= b),
            ">" => Value::Bool(a > b),
            ">=" => Value::Bool(a >= b),
            _ => Value::unknown("arithmetic that isn't followed"),
        };
    }
    match (a, b) {
        (Value::Either(condition, yes, no), other) if !matches!(other, Value::Either(..)) => {
            return Value::either(
                condition.clone(),
                arithmetic(operator, yes, other, span),
                arithmetic(operator, no, other, span),
            );
        }
        (other, Value::Either(condition, yes, no)) if !matches!(other, Value::Either(..)) => {
            return Value::either(
                condition.clone(),
                arithmetic(operator, other, yes, span),
                arithmetic(operator, other, no, span),
            );
        }
        (Value::Unknown(why), _) | (_, Value::Unknown(why)) => {
            return Value::Unknown(Rc::clone(why));
        }
        _ => {}
    }
    // Whether a text is empty.
    let empty = match (a, operator, b) {
        (Value::Length(asked), ">", Value::Number(n)) if is(*n, 0.0) => Some((asked, false)),
        (Value::Length(asked), ">=", Value::Number(n)) if is(*n, 1.0) => Some((asked, false)),
        (Value::Length(asked), "<", Value::Number(n)) if is(*n, 1.0) => Some((asked, true)),
        (Value::Length(asked), "<=", Value::Number(n)) if is(*n, 0.0) => Some((asked, true)),
        _ => None,
    };
    if let Some((asked, wanted)) = empty {
        let condition = asked.equals("", span.clone());
        return Value::Test(if wanted { condition } else { condition.not() });
    }
    Value::unknown("a comparison or a sum with what isn't known before a request comes")
}

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
    let text: Rc<str> = plain.text.as_str().into();
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

fn is_host(asked: &Asked) -> bool {
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

/// Functions of which somebody may use another result than the first.
fn has_more(name: &str) -> bool {
    matches!(
        name,
        "string.find"
            | "string.match"
            | "string.gsub"
            | "string.byte"
            | "unpack"
            | "select"
            | "next"
            | "xpcall"
    )
}

/// Calls one of Lua's functions.
pub(super) fn call(
    run: &mut Run<'_>,
    name: &'static str,
    arguments: &[Value],
    span: &Span,
) -> Value {
    if !has_more(name) {
        run.also_returns(Vec::new());
    }
    called(run, name, arguments, span)
}

#[allow(clippy::too_many_lines)] // One arm a function of Lua's.
fn called(run: &mut Run<'_>, name: &'static str, arguments: &[Value], span: &Span) -> Value {
    if let Some(Value::Either(condition, yes, no)) = arguments.first()
        && (name.starts_with("string.") || matches!(name, "tostring" | "tonumber"))
    {
        let with = |first: &Value| {
            let mut all = arguments.to_vec();
            if let Some(place) = all.first_mut() {
                *place = first.clone();
            }
            all
        };
        // Of nil it is an error, unless that can't happen here; constants and questions are worked out each.
        let yes = called(run, name, &with(yes), span);
        let no = called(run, name, &with(no), span);
        return Value::either(condition.clone(), yes, no);
    }
    let first = arguments.first();
    match (name, arguments) {
        ("string.lower", [Value::Text(text), ..]) => Value::text(text.to_ascii_lowercase()),
        ("string.upper", [Value::Text(text), ..]) => Value::text(text.to_ascii_uppercase()),
        ("string.lower", [Value::Asked(asked), ..]) => Value::Asked(Asked {
            folded: true,
            ..asked.clone()
        }),
        ("string.len", [Value::Text(text), ..]) => count(text.len()),
        ("string.len", [Value::Asked(asked), ..]) => Value::Length(asked.clone()),
        ("string.reverse", [Value::Text(text)]) => {
            Value::text(text.chars().rev().collect::<String>())
        }
        ("string.rep", [Value::Text(text), Value::Number(times)]) if times.is_finite() => {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            // Bounded right after.
            let times = times.clamp(0.0, 1e6) as usize;
            if text.len().saturating_mul(times) > LONGEST {
                return Value::unknown("a very long text");
            }
            Value::text(text.repeat(times))
        }
        ("string.sub", [value, Value::Number(from)]) => sub(run, value, *from, None),
        ("string.sub", [value, Value::Number(from), Value::Number(to)]) => {
            sub(run, value, *from, Some(*to))
        }
        ("string.find", [value, Value::Text(pattern), rest @ ..]) => {
            find(value, pattern, rest, span)
        }
        ("string.match", [value, Value::Text(pattern)]) => match_text(value, pattern, span),
        ("string.gsub", [Value::Asked(asked), Value::Text(pattern), Value::Text(with)])
            if with.is_empty()
                && ((is_host(asked) || asked.subject == Subject::Peer)
                    && matches!(&**pattern, ":%d+$" | ":%d+" | ":.*" | ":.*$" | ":.+$")
                    || matches!(&asked.subject, Subject::Header(name) if &**name == ":path")
                        && matches!(&**pattern, "?.*" | "%?.*" | "?.*$" | "%?.*$")) =>
        {
            Value::Asked(asked.clone())
        }
        ("string.format", [Value::Text(format), rest @ ..]) => formatted(format, rest),
        ("tostring", [Value::Bool(value)]) => Value::text(value.to_string()),
        ("tostring", [Value::Nil]) => Value::text("nil"),
        ("tostring", [value]) => match (as_text(value), value) {
            (Some(text), _) => Value::Text(text),
            (None, Value::Asked(asked)) => Value::either(
                asked.present(),
                Value::Asked(asked.clone()),
                Value::text("nil"),
            ),
            _ => Value::unknown("the text of something that isn't known"),
        },
        ("tonumber", [Value::Number(number), ..]) => Value::Number(*number),
        ("tonumber", [Value::Text(text)]) => text.trim().parse().map_or(Value::Nil, Value::Number),
        ("tonumber", [Value::Asked(asked)]) => Value::Asked(Asked {
            number: true,
            ..asked.clone()
        }),
        ("type", [value]) => kind(value),
        ("pcall", [function, rest @ ..]) => {
            let before = run.take_ended();
            let value = run.apply(function.clone(), rest.to_vec(), span);
            let failed = run.take_ended();
            run.caught(before);
            run.also_returns(vec![value]);
            match failed.not() {
                Condition::Always => Value::Bool(true),
                Condition::Never => Value::Bool(false),
                other => Value::Test(other),
            }
        }
        ("error", _) => {
            run.end(Condition::Always);
            Value::Nil
        }
        ("assert", [value, ..]) => {
            run.end(value.truth(span).not());
            value.clone()
        }
        ("table.insert", [Value::Table(table), value]) => {
            let next = run.length(*table) + 1;
            run.set_entry(*table, &count(next), value.clone());
            Value::Nil
        }
        ("table.concat", [Value::Table(table), rest @ ..]) => {
            let between = rest.first().and_then(as_text).unwrap_or_default();
            let mut whole = String::new();
            for index in 1..=run.length(*table) {
                let Some(text) = as_text(&run.entry(*table, &count(index))) else {
                    return Value::unknown("a text that is put together from the request");
                };
                if index > 1 {
                    whole.push_str(&between);
                }
                whole.push_str(&text);
            }
            Value::text(whole)
        }
        ("table.getn", [Value::Table(table)]) => count(run.length(*table)),
        ("setmetatable", [table, ..]) => table.clone(),
        ("rawget", [Value::Table(table), key]) => run.entry(*table, key),
        ("print", _) => {
            run.remark(span, "a line on standard output");
            Value::Nil
        }
        ("collectgarbage", _) => Value::Number(0.0),
        ("require", _) => {
            run.remark(span, "modules of Lua aren't followed");
            Value::unknown("a module of Lua that isn't followed")
        }
        _ => match first {
            Some(Value::Unknown(why)) => Value::Unknown(Rc::clone(why)),
            _ => Value::unknown(format!("{name} isn't followed here")),
        },
    }
}

fn count(number: usize) -> Value {
    #[allow(clippy::cast_precision_loss)] // Far below what a double holds.
    Value::Number(number as f64)
}

fn kind(value: &Value) -> Value {
    let name = match value {
        Value::Nil => "nil",
        Value::Bool(_) | Value::Test(_) => "boolean",
        Value::Number(_) | Value::Length(_) => "number",
        Value::Text(_) => "string",
        Value::Table(_) => "table",
        Value::Function(..) | Value::Library(_) => "function",
        Value::Envoy(_) => "userdata",
        Value::Asked(asked) => {
            let there = if asked.number { "number" } else { "string" };
            return Value::either(asked.present(), Value::text(there), Value::text("nil"));
        }
        Value::Either(condition, yes, no) => {
            return Value::either(condition.clone(), kind(yes), kind(no));
        }
        _ => return Value::unknown("the type of something that isn't known"),
    };
    Value::text(name)
}

/// `string.sub`.
#[allow(clippy::cast_possible_truncation)] // Indices that were typed.
fn sub(run: &Run<'_>, value: &Value, from: f64, to: Option<f64>) -> Value {
    let (from, to) = (from as i64, to.map(|to| to as i64));
    match value {
        Value::Text(text) => {
            let length = i64::try_from(text.len()).unwrap_or(i64::MAX);
            let place = |at: i64| if at < 0 { length + at + 1 } else { at };
            let start = usize::try_from(place(from).max(1) - 1).unwrap_or(0);
            let end = usize::try_from(place(to.unwrap_or(-1)).clamp(0, length)).unwrap_or(0);
            Value::text(text.get(start..end.max(start)).unwrap_or_default())
        }
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
fn find(value: &Value, pattern: &str, rest: &[Value], span: &Span) -> Value {
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
        Value::Text(text) => {
            let place = match (plain.from_start, plain.to_end) {
                (true, true) => (**text == plain.text).then_some(0),
                (true, false) => text.starts_with(&plain.text).then_some(0),
                (false, true) => text.strip_suffix(plain.text.as_str()).map(str::len),
                (false, false) => text.find(&plain.text),
            };
            place.map_or(Value::Nil, |place| count(place + 1))
        }
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
fn match_text(value: &Value, pattern: &str, span: &Span) -> Value {
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
        Value::Text(text) => match plain(pattern) {
            Some(plain) => {
                let there = match (plain.from_start, plain.to_end) {
                    (true, true) => **text == plain.text,
                    (true, false) => text.starts_with(&plain.text),
                    (false, true) => text.ends_with(&plain.text),
                    (false, false) => text.contains(&plain.text),
                };
                if there {
                    Value::text(plain.text)
                } else {
                    Value::Nil
                }
            }
            None => Value::unknown(format!("what the pattern {pattern:?} takes out of a text")),
        },
        Value::Unknown(why) => Value::Unknown(Rc::clone(why)),
        _ => Value::unknown("a search in a text that isn't known"),
    }
}

/// `string.format` of constants, with `%s` and `%d`.
fn formatted(format: &str, values: &[Value]) -> Value {
    let mut out = String::new();
    let mut values = values.iter();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => out.push('%'),
            Some('s' | 'd') => match values.next().and_then(as_text) {
                Some(text) => out.push_str(&text),
                None => return Value::unknown("a text that is put together from the request"),
            },
            _ => return Value::unknown("a format that isn't followed"),
        }
    }
    Value::text(out)
}
