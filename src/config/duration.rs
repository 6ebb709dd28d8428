//! Durations as Istio writes them (Go's form): `15s`, `250ms`, `1m30s`, `1.5s`.

use super::declare::text;
use super::document::{Node, Shown, quoted};
use super::read::{At, Wrong};

/// A whole number of milliseconds, which is what Envoy's `x-envoy-*-ms` headers carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

text! {
    /// A duration of at least 1 ms and at most 24 days.
    Duration: Millis = "duration", "15s", duration, pattern();
}

fn duration(at: At<'_>) -> Option<Millis> {
    if let Node::Number(number) = at.node {
        let number = Shown(*number);
        at.error_with_help(
            &format_args!("{number} has no unit"),
            &format_args!("write {number}s for seconds, or {number}ms for milliseconds"),
        );
        return None;
    }
    at.reported(parse(at.text()?))
}

/// A unit: its name, its length, the most of it in 24 days, and how many make one of the next larger unit.
struct Unit {
    name: &'static str,
    millis: u32,
    most: u32,
    carry: u32,
}

/// From large to small, as a duration has them. Envoy reads its headers as integers and keeps them in a signed 32-bit
/// range in places, which ends a little above 24 days.
const UNITS: [Unit; 4] = [
    Unit {
        name: "h",
        millis: 3_600_000,
        most: 24 * 24,
        carry: 24,
    },
    Unit {
        name: "m",
        millis: 60_000,
        most: 24 * 24 * 60,
        carry: 60,
    },
    Unit {
        name: "s",
        millis: 1000,
        most: 24 * 24 * 3600,
        carry: 60,
    },
    Unit {
        name: "ms",
        millis: 1,
        most: 24 * 24 * 3_600_000,
        carry: 1000,
    },
];

/// The shortest part of a unit that is still whole milliseconds for each of them.
const MOST_DECIMALS: usize = 3;

/// Reads a duration.
///
/// # Errors
/// What is wrong, and what to write instead if that can be guessed.
pub(crate) fn parse(text: &str) -> Result<Millis, Wrong> {
    const NAMES: &str = "h, m, s or ms";
    let shown = quoted(text);
    let wrong = |why: &str| {
        Wrong::new(
            format!("{shown} is not a duration: {why}"),
            "write for example 15s, 250ms or 1m30s",
        )
    };
    if text.is_empty() {
        return Err(wrong("it is empty"));
    }
    if text.starts_with('-') {
        return Err(wrong("it is negative"));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::new(
            format!("{shown} has no unit"),
            format!("write {text}s for seconds, or {text}ms for milliseconds"),
        ));
    }
    let mut rest = text;
    let mut millis: u64 = 0;
    let mut smallest = None;
    let mut in_order = true;
    while !rest.is_empty() {
        let digits = length_of(rest, |b| b.is_ascii_digit() || *b == b'.');
        let (number, tail) = rest.split_at_checked(digits).unwrap_or((rest, ""));
        let unit_len = length_of(tail, u8::is_ascii_alphabetic);
        let (name, after) = tail.split_at_checked(unit_len).unwrap_or((tail, ""));
        let Some(position) = UNITS.iter().position(|unit| unit.name == name) else {
            return Err(match name {
                "" => wrong(&format!("a number needs a unit: {NAMES}")),
                "us" | "ns" => wrong("Envoy's timeouts are whole milliseconds"),
                "d" => wrong("there is no unit for days, write 24h"),
                other => wrong(&format!(
                    "{} is not a unit; units are {NAMES}",
                    quoted(other)
                )),
            });
        };
        let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || decimals.contains('.') || number.ends_with('.') {
            return Err(wrong(&format!("{} is not a number", quoted(number))));
        }
        let Some(unit) = UNITS.get(position) else {
            continue;
        };
        let most_decimals = if unit.millis == 1 { 0 } else { MOST_DECIMALS };
        if decimals.len() > most_decimals {
            return Err(wrong(
                "Envoy's timeouts are whole milliseconds: other units have three decimals at most",
            ));
        }
        let Some(whole) = whole
            .parse::<u64>()
            .ok()
            .filter(|whole| *whole <= u64::from(unit.most))
        else {
            return Err(wrong("the longest that can be written is 24 days (576h)"));
        };
        in_order &=
            smallest.is_none_or(|smallest| smallest < position && whole < u64::from(unit.carry));
        smallest = Some(position);
        // Three decimals at most, so that nothing is lost.
        let thousandths = format!("{decimals:0<MOST_DECIMALS$}").parse().unwrap_or(0);
        millis += (whole * 1000 + thousandths) * u64::from(unit.millis) / 1000;
        rest = after;
    }
    if millis == 0 {
        return Err(Wrong::new(
            format!("{shown} is zero, which Envoy reads as \"no limit\""),
            "write `inherit` to leave the route's own value alone, or a duration such as 15s",
        ));
    }
    let sum = u32::try_from(millis).map(Millis);
    if !in_order {
        let sum = sum.map_or_else(|_| "15s".to_owned(), |sum| sum.to_string());
        return Err(Wrong::new(
            format!(
                "{shown} is not a duration: its units don't go from large to small, each filling less than one of \
                 the one before"
            ),
            format!("write for example {sum}"),
        ));
    }
    sum.map_err(|_| wrong("the longest that can be written is 24 days (576h)"))
}

/// How many bytes at the beginning are such.
fn length_of(text: &str, such: fn(&u8) -> bool) -> usize {
    text.bytes().take_while(such).count()
}

/// A pattern of what [`parse`] reads.
#[cfg(feature = "cli")]
fn pattern() -> String {
    let decimals = |unit: &Unit| {
        if unit.millis == 1 {
            String::new()
        } else {
            format!("(\\.[0-9]{{1,{MOST_DECIMALS}}})?")
        }
    };
    let part = |unit: &Unit, most: u32| format!("{}{}{}", at_most(most), decimals(unit), unit.name);
    let mut forms = Vec::new();
    for (position, first) in UNITS.iter().enumerate() {
        let mut form = part(first, first.most);
        for unit in UNITS.iter().skip(position + 1) {
            form = format!("{form}({})?", part(unit, unit.carry - 1));
        }
        forms.push(form);
    }
    format!("^(?=.*[1-9])({})$", forms.join("|"))
}

/// A pattern of the whole numbers up to this one, with any zeros in front.
#[cfg(feature = "cli")]
fn at_most(most: u32) -> String {
    let digits = most.to_string();
    let length = digits.len();
    let mut forms = vec![digits.clone()];
    if length > 1 {
        forms.push(format!("[0-9]{{1,{}}}", length - 1));
    }
    for (position, digit) in digits.char_indices() {
        let Some(below) = digit.to_digit(10).and_then(|digit| digit.checked_sub(1)) else {
            continue;
        };
        let same = digits.get(..position).unwrap_or_default();
        let after = length - position - 1;
        forms.push(format!("{same}[0-{below}][0-9]{{{after}}}"));
    }
    format!("0*({})", forms.join("|"))
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
            ("007s", 7000),
            ("0.001h", 3600),
            ("576h", 2_073_600_000),
            ("575h59m59s999ms", 2_073_599_999),
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
            ("99999999999999999999s", "longest"),
            ("577h", "longest"),
            ("34561m", "longest"),
            ("2147483647ms", "longest"),
            ("1.5ms", "whole milliseconds"),
            ("0h0m0.0s", "no limit"),
            ("30s1m", "large to small"),
            ("1m90s", "large to small"),
            ("1s1s", "large to small"),
        ] {
            let wrong = parse(text).expect_err(text);
            assert!(wrong.message.contains(part), "{text}: {wrong:?}");
        }
    }

    #[test]
    fn a_sum_is_suggested_for_units_out_of_order() {
        let wrong = parse("1m90s").expect_err("out of order");
        assert_eq!(wrong.help.as_deref(), Some("write for example 150s"));
    }

    #[test]
    fn what_is_printed_reads_back() {
        for ms in [1, 250, 1000, 1500, 60_000, 90_000, 3_600_000, 2_073_600_000] {
            assert_eq!(parse(&Millis(ms).to_string()), Ok(Millis(ms)));
        }
    }
}
