//! What the upstream is told about the scheme, case by case.

use super::super::cases::{self, Case};
use super::super::lua::{Condition, Subject};
use super::matches;

/// What the upstream is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Https,
    Http,
    /// What the connection to the gateway is: Envoy has written that.
    Connection,
    /// A value that the script copies from somewhere and that is neither.
    Junk,
}

impl Told {
    pub(super) fn word(self) -> &'static str {
        match self {
            Told::Https => "https",
            Told::Http => "http",
            Told::Connection | Told::Junk => "connection",
        }
    }
}

pub(super) type ToldCases = Vec<Case<Told>>;

/// Cases that go by Envoy's route are overrides, the others rules.
pub(super) fn by_route(cases: ToldCases) -> (ToldCases, ToldCases) {
    let asks_route = |case: &Case<Told>| {
        let mut found = false;
        case.condition
            .tests(&mut |test| found |= test.subject == Subject::Route);
        found
    };
    cases.into_iter().partition(asks_route)
}

/// Cases without those at the end that say what is so anyway.
pub(super) fn simplified(cases: ToldCases, own: Told) -> ToldCases {
    let mut cases = cases::first_matches(cases);
    while cases.last().is_some_and(|last| {
        last.outcome == own || (own == Told::Connection && last.outcome == Told::Junk)
    }) {
        cases.pop();
    }
    cases
}

/// `connection where c, else https` as `https where not c`, if one rule can say that.
pub(super) fn positive(cases: ToldCases) -> ToldCases {
    let Some((last, first)) = cases.split_last() else {
        return cases;
    };
    let plain = first.iter().all(|case| case.outcome == Told::Connection);
    if !plain || first.is_empty() || last.condition != Condition::Always {
        return cases;
    }
    let any = first
        .iter()
        .fold(Condition::Never, |any, case| any.or(case.condition.clone()));
    let opposite = cases::understood(&any, true, &mut Vec::new(), &|_| true);
    match cases::alternatives(&opposite, &matches::listed) {
        Ok(all) if all.len() == 1 => vec![Case {
            condition: opposite,
            outcome: last.outcome,
        }],
        _ => cases,
    }
}
