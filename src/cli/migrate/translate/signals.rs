//! Headers by which a script tells the scheme, as `forwardedProto.from` has them.

use std::rc::Rc;

use super::super::cases::{self, Case};
use super::super::lua::{Condition, Is, Subject, Test};
use super::told::{Told, ToldCases, simplified};
use super::{object, text, texts};
use crate::config::Node;

/// A header that tells the scheme, by its values.
pub(super) struct Signal {
    pub(super) header: Rc<str>,
    https: Vec<Rc<str>>,
    http: Vec<Rc<str>>,
}

/// The field `forwardedProto`.
pub(super) fn from_default(signals: &[Signal], default: Told) -> Node {
    let mut fields = Vec::new();
    if !signals.is_empty() {
        fields.push(("from", Node::List(signals.iter().map(signal).collect())));
    }
    fields.push(("default", text(default.word())));
    object(fields)
}

fn signal(signal: &Signal) -> Node {
    let values = |list: &[Rc<str>]| {
        list.iter()
            .map(std::string::ToString::to_string)
            .collect::<Vec<_>>()
    };
    let (https, http) = (values(&signal.https), values(&signal.http));
    let only = |list: &[String], value: &str| list.iter().all(|one| one == value);
    let plain = match &*signal.header {
        "x-forwarded-scheme" | "x-url-scheme" | "x-client-proto" | "cloudfront-forwarded-proto" => {
            only(&https, "https") && only(&http, "http")
        }
        "x-forwarded-ssl" | "front-end-https" => only(&https, "on") && only(&http, "off"),
        "x-forwarded-port" => only(&https, "443") && only(&http, "80"),
        "cf-visitor" | "forwarded" => true,
        _ => false,
    };
    if plain {
        return text(&signal.header);
    }
    let ports = &*signal.header == "x-forwarded-port";
    let list = |values: &[String]| {
        if ports {
            Node::List(
                values
                    .iter()
                    .map(|value| value.parse().map_or_else(|_| text(value), Node::Number))
                    .collect(),
            )
        } else {
            texts(values.iter().map(String::as_str))
        }
    };
    let mut fields = vec![("header", text(&signal.header))];
    if !https.is_empty() {
        fields.push(("https", list(&https)));
    }
    if !http.is_empty() {
        fields.push(("http", list(&http)));
    }
    object(fields)
}

/// The scheme that a header of several fields tells if it has this text in it.
pub(super) fn said(header: &str, part: &str) -> Option<Rc<str>> {
    let part = part.replace(' ', "");
    let scheme = match (header, part.trim_end_matches([';', ',', '}'])) {
        (
            "cf-visitor",
            "https" | "\"https\"" | ":\"https\"" | "\"scheme\":\"https\"" | "{\"scheme\":\"https\"",
        )
        | ("forwarded", "https" | "=https" | "proto=https") => "https",
        (
            "cf-visitor",
            "\"http\"" | ":\"http\"" | "\"scheme\":\"http\"" | "{\"scheme\":\"http\"",
        ) => "http",
        _ => return None,
    };
    Some(scheme.into())
}

/// The headers that tell the scheme, one after the other, and what is told without any of them. Nothing where something
/// else has a part in it.
pub(super) fn signals(cases: &ToldCases) -> Option<(Vec<Signal>, Told)> {
    let mut header: Option<Rc<str>> = None;
    let mut foreign = false;
    for case in cases {
        case.condition
            .tests(&mut |test| match (&test.subject, &test.is) {
                (Subject::Header(name), is)
                    if !name.starts_with(':') && !matches!(is, Is::Other | Is::Behind(..)) =>
                {
                    if header.is_none() {
                        header = Some(Rc::clone(name));
                    }
                }
                _ => foreign = true,
            });
    }
    if foreign {
        return None;
    }
    let outcome = |cases: &ToldCases| match cases.first() {
        Some(first) if first.condition == Condition::Always => Some(first.outcome),
        _ => cases
            .iter()
            .all(|case| case.outcome == Told::Connection)
            .then_some(Told::Connection),
    };
    let Some(header) = header else {
        return outcome(cases).map(|told| (Vec::new(), told));
    };
    let mut values: Vec<Rc<str>> = Vec::new();
    for case in cases {
        case.condition.tests(&mut |test| {
            let value = match (&test.subject, &test.is) {
                (Subject::Header(name), Is::Contains(part)) if *name == header => said(name, part),
                _ => cases::exact(test)
                    .filter(|(name, ..)| **name == *header)
                    .map(|(_, value, _)| Rc::clone(value)),
            };
            if let Some(value) = value.filter(|value| !values.contains(value)) {
                values.push(value);
            }
        });
    }
    let with = |value: Option<Result<&str, bool>>| answered(cases, &header, value);
    let (rest, default) = signals(&simplified(with(None), Told::Connection))?;
    for part in [false, true] {
        let other = outcome(&with(Some(Err(part))))?;
        if other != default && other != Told::Junk {
            // Present, but none of the values: `default` says it, if without the header it is the same.
            return None;
        }
    }
    if values.is_empty() {
        return None;
    }
    let (mut https, mut http) = (Vec::new(), Vec::new());
    for value in values {
        match outcome(&with(Some(Ok(&value))))? {
            Told::Https => https.push(value),
            Told::Http => http.push(value),
            other if other == default || other == Told::Junk => {}
            _ => return None,
        }
    }
    let mut all = Vec::new();
    if !(https.is_empty() && http.is_empty()) {
        all.push(Signal {
            header,
            https,
            http,
        });
    }
    all.extend(rest);
    Some((all, default))
}

/// The cases without the header, with one of its values, or with another value, of which parts may be asked.
fn answered(cases: &ToldCases, header: &str, value: Option<Result<&str, bool>>) -> ToldCases {
    let answer = |test: &Test| {
        let Subject::Header(name) = &test.subject else {
            return None;
        };
        if **name != *header {
            return None;
        }
        Some(match (&test.is, value) {
            (Is::Contains(part), value) if said(header, part).is_some() => {
                matches!(value, Some(Ok(value)) if said(header, part).as_deref() == Some(value))
            }
            (Is::Present, Some(_)) => true,
            (Is::Exact(wanted), Some(Ok(value))) => **wanted == *value,
            (Is::Folded(wanted), Some(Ok(value))) => wanted.eq_ignore_ascii_case(value),
            (Is::Prefix(wanted), Some(Ok(value))) => value.starts_with(&**wanted),
            (Is::Suffix(wanted), Some(Ok(value))) => value.ends_with(&**wanted),
            (Is::Contains(wanted), Some(Ok(value))) => value.contains(&**wanted),
            (is, Some(Err(part))) if !matches!(is, Is::Exact(_) | Is::Folded(_)) => part,
            _ => false,
        })
    };
    cases::first_matches(
        cases
            .iter()
            .map(|case| Case {
                condition: case.condition.with(&answer),
                outcome: case.outcome,
            })
            .collect(),
    )
}
