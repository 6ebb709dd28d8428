//! Durations as Istio writes them (Go's form): `15s`, `250ms`, `1m30s`, `1.5s`.

use super::document::quoted;

/// A whole number of milliseconds, which is what Envoy's `x-envoy-*-ms` headers carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u32);

impl std::fmt::Display for Millis {
    /// The shortest form that [`parse`] reads back: `90s` rather than `90000ms`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            ms if ms % 3_600_000 == 0 && ms > 0 => write!(f, "{}h", ms / 3_600_000),
            ms if ms % 60_000 == 0 && ms > 0 => write!(f, "{}m", ms / 60_000),
            ms if ms % 1000 == 0 => write!(f, "{}s", ms / 1000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

const UNITS: &str = "h, m, s or ms";

/// Reads a duration of at least 1 ms and at most 24 days (2^31 - 1 ms).
///
/// # Errors
/// What is wrong, and what to write instead where that can be guessed.
pub(crate) fn parse(text: &str) -> Result<Millis, (String, String)> {
    let shown = quoted(text);
    let wrong = |why: &str| (format!("{shown} is not a duration: {why}"), example());
    if text.is_empty() {
        return Err(wrong("it is empty"));
    }
    if text.starts_with('-') {
        return Err(wrong("it is negative"));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err((
            format!("{shown} has no unit"),
            format!("write {text}s for seconds, or {text}ms for milliseconds"),
        ));
    }
    let mut rest = text;
    let mut micros: u64 = 0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at_checked(digits).unwrap_or((rest, ""));
        let unit_len = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, after) = tail.split_at_checked(unit_len).unwrap_or((tail, ""));
        let micros_per_unit: u64 = match unit {
            "h" => 3_600_000_000,
            "m" => 60_000_000,
            "s" => 1_000_000,
            "ms" => 1_000,
            "" => return Err(wrong(&format!("a number needs a unit: {UNITS}"))),
            "us" | "µs" | "ns" => {
                return Err(wrong("Envoy's timeouts are whole milliseconds"));
            }
            "d" => return Err(wrong("there is no unit for days, write 24h")),
            other => {
                return Err(wrong(&format!(
                    "{} is not a unit; units are {UNITS}",
                    quoted(other)
                )));
            }
        };
        let part = scaled(number, micros_per_unit)
            .ok_or_else(|| wrong(&format!("{} is not a number", quoted(number))))?;
        micros = micros
            .checked_add(part)
            .ok_or_else(|| wrong("it is too long"))?;
        rest = after;
    }
    if !micros.is_multiple_of(1000) {
        return Err(wrong("Envoy's timeouts are whole milliseconds"));
    }
    let ms = micros / 1000;
    if ms == 0 {
        return Err((
            format!("{shown} is zero, which Envoy reads as \"no limit\""),
            "write `inherit` to leave the route's own value alone, or a duration such as 15s"
                .to_owned(),
        ));
    }
    // Envoy reads these headers as integers and keeps them in a signed 32-bit range in places.
    i32::try_from(ms)
        .map(|ms| Millis(ms.unsigned_abs()))
        .map_err(|_| wrong("the longest that can be written is 24 days (576h)"))
}

fn example() -> String {
    "write for example 15s, 250ms or 1m30s".to_owned()
}

/// `number` (digits with at most one dot) times `unit`, exactly, or nothing where that isn't a whole number.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || fraction.len() > 9 || number.ends_with('.') {
        return None;
    }
    let mut total = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    if !fraction.is_empty() {
        let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let scaled = fraction.parse::<u64>().ok()?.checked_mul(unit)?;
        if scaled % scale != 0 {
            return None;
        }
        total = total.checked_add(scaled / scale)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_forms_are_read() {
        for (text, ms) in [
            ("15s", 15_000),
            ("250ms", 250),
            ("1m30s", 90_000),
            ("1.5s", 1500),
            ("0.25s", 250),
            ("2h", 7_200_000),
            ("1h0m0.5s", 3_600_500),
        ] {
            assert_eq!(parse(text), Ok(Millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_a_reason() {
        for (text, part) in [
            ("15", "has no unit"),
            ("", "it is empty"),
            ("-1s", "negative"),
            ("15 s", "needs a unit"),
            ("abc", "is not a unit"),
            ("1.2.3s", "is not a number"),
            (".5s", "is not a number"),
            ("1.s", "is not a number"),
            ("5us", "whole milliseconds"),
            ("0.0001s", "whole milliseconds"),
            ("0s", "no limit"),
            ("1d", "24h"),
            ("600h", "longest"),
            ("99999999999999999999s", "is not a number"),
        ] {
            let (message, _) = parse(text).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        for ms in [1, 250, 1000, 1500, 60_000, 90_000, 3_600_000, 2_147_483_647] {
            assert_eq!(parse(&Millis(ms).to_string()), Ok(Millis(ms)));
        }
    }
}
