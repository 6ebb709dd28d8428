//! Numbers and texts as scripts write them.

use full_moon::tokenizer::{StringLiteralQuoteType, TokenReference, TokenType};

use super::{Expression, ExpressionKind, span};

#[allow(clippy::cast_precision_loss)] // Lua's numbers are doubles.
pub(super) fn number(text: &str) -> Option<f64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok().map(|n| n as f64),
        None => text.parse().ok(),
    }
}

pub(super) fn text(token: &TokenReference) -> Expression {
    let value = match token.token_type() {
        TokenType::StringLiteral {
            literal,
            quote_type: StringLiteralQuoteType::Brackets,
            ..
        } => {
            let text = literal.as_str();
            // The first line break of a long string isn't part of it.
            let text = text
                .strip_prefix("\r\n")
                .or_else(|| text.strip_prefix('\n'))
                .unwrap_or(text);
            text.to_owned()
        }
        TokenType::StringLiteral { literal, .. } => unescaped(literal.as_str()),
        _ => token.token().to_string(),
    };
    Expression {
        kind: ExpressionKind::Text(value.into()),
        span: span(token),
    }
}

/// A quoted string's value, by `LuaJIT`'s escapes.
fn unescaped(literal: &str) -> String {
    let mut out: Vec<u8> = Vec::with_capacity(literal.len());
    let mut rest = literal.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'\\' {
            out.push(first);
            continue;
        }
        let Some((&escape, after)) = rest.split_first() else {
            break;
        };
        rest = after;
        match escape {
            b'a' => out.push(7),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(11),
            b'x' => {
                let digits = rest.get(..2).and_then(|two| std::str::from_utf8(two).ok());
                if let Some(byte) = digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
                    out.push(byte);
                    rest = rest.get(2..).unwrap_or_default();
                }
            }
            b'z' => rest = rest.trim_ascii_start(),
            b'u' => {
                let end = rest.iter().position(|byte| *byte == b'}').unwrap_or(0);
                let digits = rest
                    .get(1..end)
                    .and_then(|digits| std::str::from_utf8(digits).ok());
                let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
                if let Some(c) = code.and_then(char::from_u32) {
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    rest = rest.get(end + 1..).unwrap_or_default();
                }
            }
            b'0'..=b'9' => {
                let more = rest
                    .iter()
                    .take(2)
                    .take_while(|byte| byte.is_ascii_digit())
                    .count();
                let mut code = u32::from(escape - b'0');
                for digit in rest.get(..more).unwrap_or_default() {
                    code = code * 10 + u32::from(digit - b'0');
                }
                rest = rest.get(more..).unwrap_or_default();
                out.push(u8::try_from(code).unwrap_or(b'?'));
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
