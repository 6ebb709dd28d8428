//! Plain scalars as kubectl reads them: YAML 1.1, by the rules of sigs.k8s.io/yaml. Envoy's own reader agrees on all
//! that people write.

use crate::config::Node;

/// What a scalar means. `tag` is the suffix of a core tag (`str` for `!!str`), or empty for any other.
pub(super) fn resolve(text: &str, plain: bool, tag: Option<&str>) -> Result<Node, String> {
    let Some(tag) = tag else {
        if !plain {
            return Ok(Node::Text(text.to_owned()));
        }
        return finite(text, untagged(text));
    };
    let kind = match tag {
        "bool" | "int" | "float" | "null" => tag,
        "binary" => {
            return Err(
                "Envoy and kubectl read !!binary differently: write the text itself".to_owned(),
            );
        }
        _ => return Ok(Node::Text(text.to_owned())),
    };
    let node = untagged(text);
    let fits = match (&node, kind) {
        (Node::Bool(_), "bool") | (Node::Null, "null") | (Node::Number(_), "float") => true,
        (Node::Number(number), "int") => number.fract() == 0.0 && !text.contains(['.', 'e', 'E']),
        _ => false,
    };
    if fits {
        finite(text, node)
    } else {
        Err(format!("this is no !!{kind}"))
    }
}

/// JSON has no infinity and no NaN.
fn finite(text: &str, node: Node) -> Result<Node, String> {
    match node {
        Node::Number(number) if !number.is_finite() => {
            Err(format!("{text} is a number that JSON doesn't have"))
        }
        node => Ok(node),
    }
}

/// A field's name: numbers and booleans become the text that JSON has for them.
pub(super) fn name(node: Node) -> Result<String, String> {
    match node {
        Node::Text(text) => Ok(text),
        Node::Bool(value) => Ok(value.to_string()),
        Node::Number(number) => Ok(number.to_string()),
        _ => Err("a field's name has to be a string".to_owned()),
    }
}

fn untagged(text: &str) -> Node {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Node::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Node::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Node::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Node::Number(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Node::Number(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Node::Number(f64::NEG_INFINITY),
        _ => {}
    }
    number(text).map_or_else(|| Node::Text(text.to_owned()), Node::Number)
}

fn number(text: &str) -> Option<f64> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    let plain = text.replace('_', "");
    integer(&plain).or_else(|| float(&plain))
}

/// As Go's `strconv.ParseInt` with base 0: the prefix tells the base, a leading 0 means octal.
fn integer(text: &str) -> Option<f64> {
    let (negative, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = if let Some(hex) = lower.strip_prefix("0x") {
        (hex, 16)
    } else if let Some(octal) = lower.strip_prefix("0o") {
        (octal, 8)
    } else if let Some(binary) = lower.strip_prefix("0b") {
        (binary, 2)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (lower.get(1..).unwrap_or_default(), 8)
    } else {
        (lower.as_str(), 10)
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    #[allow(clippy::cast_precision_loss)] // As in JSON, where every number is a double to Envoy.
    let value = match u128::from_str_radix(digits, radix) {
        Ok(value) => value as f64,
        // Longer than anything that is meant as a number.
        Err(_) => digits.chars().fold(0.0, |value, c| {
            value * f64::from(radix) + f64::from(c.to_digit(radix).unwrap_or(0))
        }),
    };
    Some(if negative { -value } else { value })
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (unsigned.get(..at)?, Some(unsigned.get(at + 1..)?)),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let has_digits = !whole.is_empty() || !fraction.is_empty();
    let good_exponent = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    if has_digits && digits(whole) && digits(fraction) && good_exponent {
        text.parse().ok()
    } else {
        None
    }
}
