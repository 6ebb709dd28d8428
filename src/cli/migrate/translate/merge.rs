//! Several scripts on one request: one after the other, or one instead of another.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::super::lua::{Condition, Is, Meaning, Subject, Test, Value};

type Headers = BTreeMap<Rc<str>, Value>;

/// What several scripts do, one after the other.
pub(in crate::cli::migrate) fn combined(earlier: Meaning, later: Meaning) -> Meaning {
    let mut headers = earlier.headers.clone();
    for (name, value) in &later.headers {
        headers.insert(Rc::clone(name), behind(value, &earlier.headers));
    }
    let answers = later
        .answers
        .into_iter()
        .map(|(condition, span)| (asked_behind(&condition, &earlier.headers), span));
    Meaning {
        headers,
        writes: [earlier.writes, later.writes].concat(),
        answers: earlier.answers.into_iter().chain(answers).collect(),
        remarks: [earlier.remarks, later.remarks].concat(),
        on_request: earlier.on_request || later.on_request,
        read: [earlier.read, later.read].concat(),
    }
}

/// A value of a later script, which read what the earlier one wrote.
fn behind(value: &Value, earlier: &Headers) -> Value {
    match value {
        Value::Either(condition, yes, no) => Value::either(
            asked_behind(condition, earlier),
            behind(yes, earlier),
            behind(no, earlier),
        ),
        Value::Asked(asked) => {
            let Subject::Header(name) = &asked.subject else {
                return value.clone();
            };
            let Some(written) = earlier.get(name) else {
                return value.clone();
            };
            if asked.skipped == 0 && asked.taken.is_none() && !asked.folded && !asked.number {
                written.clone()
            } else if untouched(name, written) {
                value.clone()
            } else {
                Value::Unknown("a part of what an earlier script wrote".into())
            }
        }
        other => other.clone(),
    }
}

/// A condition of a later script on the request as it was before the earlier one.
fn asked_behind(condition: &Condition, earlier: &Headers) -> Condition {
    condition.replaced(&|test| {
        let Subject::Header(name) = &test.subject else {
            return None;
        };
        Some(holds(test, name, earlier.get(name)?))
    })
}

/// When a test holds for a value.
fn holds(test: &Rc<Test>, name: &str, value: &Value) -> Condition {
    match value {
        Value::Either(condition, yes, no) => {
            condition.choose(&holds(test, name, yes), &holds(test, name, no))
        }
        Value::Nil => Condition::Never,
        Value::Text(written) => Condition::known(match &test.is {
            Is::Present => true,
            Is::Exact(wanted) => written == wanted,
            Is::Prefix(wanted) => written.starts_with(&**wanted),
            Is::Suffix(wanted) => written.ends_with(&**wanted),
            Is::Contains(wanted) => written.contains(&**wanted),
            Is::Folded(wanted) => written.eq_ignore_ascii_case(wanted),
            Is::Behind(skipped, wanted) => written.get(*skipped..) == Some(&**wanted),
            Is::Other => {
                return Condition::beyond("what an earlier script wrote", test.span.clone());
            }
        }),
        other if untouched(name, other) => Condition::Test(Rc::clone(test)),
        _ => Condition::beyond("what an earlier script wrote", test.span.clone()),
    }
}

/// Whether a value is what the request had under that name.
fn untouched(name: &str, value: &Value) -> bool {
    value.is_same(&Value::untouched(name))
}

/// What a script does where a condition holds, and another one where it doesn't.
pub(in crate::cli::migrate) fn instead(
    condition: &Condition,
    there: Meaning,
    elsewhere: Meaning,
) -> Meaning {
    let mut names: Vec<Rc<str>> = there
        .headers
        .keys()
        .chain(elsewhere.headers.keys())
        .cloned()
        .collect();
    names.sort();
    names.dedup();
    let mut headers = BTreeMap::new();
    for name in names {
        let untouched = || Value::untouched(&name);
        let yes = there.headers.get(&name).cloned().unwrap_or_else(untouched);
        let no = elsewhere
            .headers
            .get(&name)
            .cloned()
            .unwrap_or_else(untouched);
        headers.insert(
            Rc::clone(&name),
            Value::Either(condition.clone(), Rc::new(yes), Rc::new(no)),
        );
    }
    Meaning {
        headers,
        writes: [there.writes, elsewhere.writes].concat(),
        answers: [there.answers, elsewhere.answers].concat(),
        remarks: [there.remarks, elsewhere.remarks].concat(),
        on_request: there.on_request || elsewhere.on_request,
        read: [there.read, elsewhere.read].concat(),
    }
}
