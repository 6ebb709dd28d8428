//! Lua's own functions on values that may depend on the request.

use std::rc::Rc;

use super::condition::{Condition, Subject};
use super::evaluate::Run;
use super::operators::as_text;
use super::patterns::{find, is_host, match_text, sub};
use super::syntax::Span;
use super::value::{Asked, Value};

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
        ("string", "char", "string.char"),
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
        ("bit", "band", "bit.band"),
        ("bit", "bor", "bit.bor"),
        ("bit", "bxor", "bit.bxor"),
        ("bit", "lshift", "bit.lshift"),
        ("bit", "rshift", "bit.rshift"),
        ("math", "abs", "math.abs"),
        ("math", "ceil", "math.ceil"),
        ("math", "floor", "math.floor"),
        ("math", "fmod", "math.fmod"),
        ("math", "max", "math.max"),
        ("math", "min", "math.min"),
        ("table", "remove", "table.remove"),
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
    if (name.starts_with("string.")
        || name.starts_with("math.")
        || name.starts_with("bit.")
        || matches!(name, "tostring" | "tonumber"))
        && arguments.iter().all(is_constant)
    {
        let Some(results) = run.constants.call(name, arguments) else {
            return Value::unknown(format!("{name} of these values isn't followed"));
        };
        let mut results = results.into_iter();
        let first = results.next().unwrap_or(Value::Nil);
        run.also_returns(results.collect());
        return first;
    }
    let first = arguments.first();
    match (name, arguments) {
        ("string.lower", [Value::Asked(asked), ..]) => Value::Asked(Asked {
            folded: true,
            upper: false,
            ..asked.clone()
        }),
        ("string.upper", [Value::Asked(asked), ..]) => Value::Asked(Asked {
            folded: true,
            upper: true,
            ..asked.clone()
        }),
        ("string.len", [Value::Asked(asked), ..]) => Value::Length(asked.clone()),
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
        ("tostring", [Value::Asked(asked)]) => Value::either(
            asked.present(),
            Value::Asked(asked.clone()),
            Value::text("nil"),
        ),
        ("tostring", [_]) => Value::unknown("the text of something that isn't known"),
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
        // The handler gets an error, of which nothing is known.
        ("xpcall", [function, _, rest @ ..]) => {
            let mut all = vec![function.clone()];
            all.extend_from_slice(rest);
            called(run, "pcall", &all, span)
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
        ("unpack", [list @ Value::Table(_)]) => run.all_of(list),
        ("select", [Value::Text(what), rest @ ..]) if &**what == "#" => {
            if run.more_is_open {
                Value::unknown("how many results a call has")
            } else {
                count(rest.len())
            }
        }
        ("select", [Value::Number(from), rest @ ..]) if *from >= 1.0 && *from <= 1e4 => {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Bounded above.
            let mut all = rest.iter().skip(*from as usize - 1).cloned();
            let first = all.next().unwrap_or(Value::Nil);
            if !run.more_is_open {
                run.also_returns(all.collect());
            }
            first
        }
        ("setmetatable", [object, meta, ..]) => {
            let number = match meta {
                Value::Table(meta) => Some(*meta),
                _ => None,
            };
            if let Value::Table(table) = object
                && let Some(table) = run.tables.get_mut(*table)
            {
                table.meta = number;
            }
            object.clone()
        }
        ("next", [list @ Value::Table(_)]) => match run.entries(list, false) {
            (Some(rounds), _) => {
                let mut first = rounds.into_iter().next().unwrap_or_default().into_iter();
                let key = first.next().unwrap_or(Value::Nil);
                run.also_returns(first.collect());
                key
            }
            (None, why) => Value::unknown(why),
        },
        ("table.remove", [Value::Table(table)]) => {
            let last = count(run.length(*table));
            let value = run.entry(*table, &last);
            run.set_entry(*table, &last, Value::Nil);
            value
        }
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
        _ => {
            // What it is given may be called or changed.
            let objects = arguments.iter().any(|argument| {
                matches!(
                    argument,
                    Value::Function(..) | Value::Envoy(_) | Value::EnvoyMethod(_) | Value::Table(_)
                )
            });
            if objects && !name.starts_with("string.") && !matches!(name, "type" | "tostring") {
                run.remark(span, format!("{name} isn't followed here"));
            }
            match first {
                Some(Value::Unknown(why)) => Value::Unknown(Rc::clone(why)),
                _ => Value::unknown(format!("{name} isn't followed here")),
            }
        }
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
        Value::Number(_) | Value::Length(_) | Value::Count(_) => "number",
        Value::Text(_) => "string",
        Value::Table(_) => "table",
        Value::Function(..) | Value::Library(_) | Value::EnvoyMethod(_) => "function",
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

/// Whether a value is the same for every request, and no object.
fn is_constant(value: &Value) -> bool {
    matches!(
        value,
        Value::Nil | Value::Bool(_) | Value::Number(_) | Value::Text(_)
    )
}
