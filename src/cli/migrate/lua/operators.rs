//! Lua's operators on values that may depend on the request.

use std::rc::Rc;

use super::condition::{Condition, Is};
use super::constants::LONGEST;
use super::syntax::Span;
use super::value::Value;

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
pub(super) fn is(number: f64, wanted: f64) -> bool {
    number.total_cmp(&wanted).is_eq()
}

pub(super) fn as_text(value: &Value) -> Option<Rc<str>> {
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
        (Value::Count(asked), Value::Number(count))
        | (Value::Number(count), Value::Count(asked))
            if is(*count, 0.0) =>
        {
            asked.present().not()
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
        (
            Value::Asked(_)
            | Value::Length(_)
            | Value::Count(_)
            | Value::Test(_)
            | Value::Found(..),
            _,
        )
        | (
            _,
            Value::Asked(_)
            | Value::Length(_)
            | Value::Count(_)
            | Value::Test(_)
            | Value::Found(..),
        ) => Condition::beyond("a comparison that isn't understood", span.clone()),
        // Of another kind, or constants; Envoy's objects are never nil.
        (a, b) => Condition::known(a.is_same(b)),
    }
}

/// Arithmetic, and comparisons of order.
pub(super) fn arithmetic(operator: &str, a: &Value, b: &Value, span: &Span) -> Value {
    // Lua makes numbers of texts, but compares no text with a number.
    let coerced = |value: &Value| match value {
        Value::Text(text) if matches!(operator, "+" | "-" | "*" | "/" | "%") => {
            text.trim().parse().ok().map(Value::Number)
        }
        _ => None,
    };
    let (own_a, own_b) = (coerced(a), coerced(b));
    let (a, b) = (own_a.as_ref().unwrap_or(a), own_b.as_ref().unwrap_or(b));
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
    let none = match (a, operator, b) {
        (Value::Count(asked), ">", Value::Number(n)) if is(*n, 0.0) => Some((asked, false)),
        (Value::Count(asked), ">=", Value::Number(n)) if is(*n, 1.0) => Some((asked, false)),
        (Value::Count(asked), "<", Value::Number(n)) if is(*n, 1.0) => Some((asked, true)),
        (Value::Count(asked), "<=", Value::Number(n)) if is(*n, 0.0) => Some((asked, true)),
        _ => None,
    };
    if let Some((asked, wanted)) = none {
        let condition = asked.present();
        return Value::Test(if wanted { condition.not() } else { condition });
    }
    Value::unknown("a comparison or a sum with what isn't known before a request comes")
}
