//! What becomes of one header, as a list of cases: the first whose condition holds decides.

use std::rc::Rc;

use super::lua::{Asked, Condition, Is, Span, Subject, Test, Value, implied};

/// What a header becomes.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// This text.
    Text(Rc<str>),
    /// What it was.
    Kept,
    /// It is gone.
    Removed,
    /// What something else of the request is.
    Copied(Asked),
    /// Nobody can say before a request comes: why.
    Unclear(Rc<str>),
}

/// One case.
#[derive(Clone, Debug)]
pub(super) struct Case<T> {
    pub(super) condition: Condition,
    pub(super) outcome: T,
}

/// More cases are a program, not a configuration.
const MOST_CASES: usize = 256;

/// The cases of a header's value. `Err` where there are too many.
pub(super) fn of(header: &str, value: &Value) -> Result<Vec<Case<Outcome>>, ()> {
    let mut cases = Vec::new();
    flatten(header, value, &Condition::Always, &mut cases)?;
    Ok(first_matches(cases))
}

fn flatten(
    header: &str,
    value: &Value,
    under: &Condition,
    cases: &mut Vec<Case<Outcome>>,
) -> Result<(), ()> {
    let outcome = match value {
        Value::Either(condition, yes, no) => {
            flatten(header, yes, &under.clone().and(condition.clone()), cases)?;
            // The cases before cover the condition, so that the others needn't deny it.
            return flatten(header, no, under, cases);
        }
        Value::Nil => Outcome::Removed,
        Value::Text(text) => Outcome::Text(Rc::clone(text)),
        Value::Asked(asked) => {
            let itself = matches!(&asked.subject, Subject::Header(name) if &**name == header);
            if itself && asked.skipped == 0 && asked.taken.is_none() && !asked.folded {
                Outcome::Kept
            } else {
                Outcome::Copied(asked.clone())
            }
        }
        Value::Unknown(why) | Value::Perhaps(_, why) => Outcome::Unclear(Rc::clone(why)),
        _ => Outcome::Unclear("a value that isn't a text".into()),
    };
    cases.push(Case {
        condition: under.clone(),
        outcome,
    });
    if cases.len() > MOST_CASES {
        Err(())
    } else {
        Ok(())
    }
}

/// Cases without those that earlier ones cover.
pub(super) fn first_matches<T>(cases: Vec<Case<T>>) -> Vec<Case<T>> {
    let worlds = Worlds::of(&cases);
    let mut kept: Vec<Case<T>> = Vec::new();
    for case in cases {
        if case.condition == Condition::Never
            || kept
                .iter()
                .any(|earlier| earlier.condition == case.condition)
            || worlds.as_ref().is_some_and(|worlds| {
                let earlier: Vec<&Condition> = kept.iter().map(|case| &case.condition).collect();
                worlds.covered(&case.condition, &earlier)
            })
        {
            continue;
        }
        let last = case.condition == Condition::Always;
        kept.push(case);
        if last {
            break;
        }
    }
    kept
}

/// Every combination of answers to some tests that a request can give.
struct Worlds {
    tests: Vec<Rc<Test>>,
    /// A bit a test.
    answers: Vec<u64>,
}

/// With more tests, combinations or cases than these, cases are compared one by one only.
const MOST_TESTS: usize = 40;
const MOST_WORLDS: usize = 256;
const MOST_COMPARED: usize = 64;

impl Worlds {
    fn of<T>(cases: &[Case<T>]) -> Option<Self> {
        let mut tests: Vec<Rc<Test>> = Vec::new();
        for case in cases {
            case.condition.tests(&mut |test| {
                if tests.len() <= MOST_TESTS && !tests.contains(test) {
                    tests.push(Rc::clone(test));
                }
            });
        }
        if tests.len() > MOST_TESTS || cases.len() > MOST_COMPARED {
            return None;
        }
        let mut answers = vec![0_u64];
        for (index, test) in tests.iter().enumerate() {
            let earlier = tests.get(..index).unwrap_or_default();
            let mut more = Vec::new();
            for world in answers {
                for holds in [false, true] {
                    if fits(test, holds, earlier, world) {
                        more.push(world | u64::from(holds) << index);
                    }
                }
            }
            answers = more;
            if answers.len() > MOST_WORLDS {
                return None;
            }
        }
        Some(Self { tests, answers })
    }

    /// Whether one of the earlier conditions holds wherever this one does.
    fn covered(&self, condition: &Condition, earlier: &[&Condition]) -> bool {
        self.answers.iter().all(|world| {
            let answer = |test: &Test| {
                let index = self.tests.iter().position(|known| **known == *test);
                index.map(|index| world >> index & 1 == 1)
            };
            let holds = |condition: &Condition| condition.with(&answer) == Condition::Always;
            !holds(condition) || earlier.iter().any(|condition| holds(condition))
        })
    }
}

/// Whether one answer more can be true together with those before it.
fn fits(test: &Rc<Test>, holds: bool, earlier: &[Rc<Test>], world: u64) -> bool {
    let literal = |test: &Rc<Test>, holds: bool| {
        let one = Condition::Test(Rc::clone(test));
        if holds { one } else { one.not() }
    };
    let this = literal(test, holds);
    earlier.iter().enumerate().all(|(index, other)| {
        let other_holds = world >> index & 1 == 1;
        implied(&this, other).is_none_or(|said| said == other_holds)
            && implied(&literal(other, other_holds), test).is_none_or(|said| said == holds)
    })
}

/// A condition in which only tests are negated. Those that `allowed` refuses count as never true; they are collected.
pub(super) fn understood(
    condition: &Condition,
    negated: bool,
    refused: &mut Vec<Rc<Test>>,
    allowed: &dyn Fn(&Test) -> bool,
) -> Condition {
    match condition {
        Condition::Always => Condition::known(!negated),
        Condition::Never => Condition::known(negated),
        Condition::Test(test) => {
            if !allowed(test) {
                refused.push(Rc::clone(test));
                return Condition::known(negated);
            }
            let one = Condition::Test(Rc::clone(test));
            if negated { one.not() } else { one }
        }
        Condition::Not(inner) => understood(inner, !negated, refused, allowed),
        Condition::All(a, b) | Condition::Any(a, b) => {
            let both = matches!(condition, Condition::All(..)) != negated;
            let a = understood(a, negated, refused, allowed);
            let b = understood(b, negated, refused, allowed);
            if both { a.and(b) } else { a.or(b) }
        }
    }
}

/// One test, or its opposite.
#[derive(Clone, Debug)]
pub(super) struct Literal {
    pub(super) test: Rc<Test>,
    pub(super) holds: bool,
}

impl Literal {
    fn condition(&self) -> Condition {
        let one = Condition::Test(Rc::clone(&self.test));
        if self.holds { one } else { one.not() }
    }
}

/// More alternatives are written by nobody.
const MOST_ALTERNATIVES: usize = 64;

/// A condition as alternatives: of one of them everything has to hold. Within one, a list of tests of which one has to
/// hold stays a list where `listed` says that the tests go into one list of a match.
pub(super) fn alternatives(
    condition: &Condition,
    listed: &dyn Fn(&Test, &Test) -> bool,
) -> Result<Vec<Vec<Vec<Literal>>>, ()> {
    let all = match condition {
        Condition::Never => Vec::new(),
        Condition::Always => vec![Vec::new()],
        Condition::Test(test) => vec![vec![vec![Literal {
            test: Rc::clone(test),
            holds: true,
        }]]],
        Condition::Not(inner) => match &**inner {
            Condition::Test(test) => vec![vec![vec![Literal {
                test: Rc::clone(test),
                holds: false,
            }]]],
            _ => return Err(()),
        },
        Condition::All(a, b) => {
            let (a, b) = (alternatives(a, listed)?, alternatives(b, listed)?);
            if a.len() * b.len() > MOST_ALTERNATIVES {
                return Err(());
            }
            let mut all = Vec::new();
            for one in &a {
                for other in &b {
                    let mut both = one.clone();
                    both.extend(other.iter().cloned());
                    if !contradictory(&both) {
                        all.push(both);
                    }
                }
            }
            all
        }
        Condition::Any(a, b) => {
            let mut all = alternatives(a, listed)?;
            for other in alternatives(b, listed)? {
                // `host == a or host == b` is one list.
                let joined = match (all.last_mut().map(Vec::as_mut_slice), other.as_slice()) {
                    (Some([list]), [more]) => {
                        let fits = list
                            .iter()
                            .zip(more.iter())
                            .all(|(a, b)| a.holds && b.holds && listed(&a.test, &b.test));
                        if fits && list.len() < MOST_ALTERNATIVES * 16 {
                            list.extend(more.iter().cloned());
                        }
                        fits
                    }
                    _ => false,
                };
                if !joined {
                    all.push(other);
                }
            }
            all
        }
    };
    if all.len() > MOST_ALTERNATIVES {
        Err(())
    } else {
        Ok(all)
    }
}

/// Whether what is asked for can't be true together: a list of which each test is ruled out by another condition.
fn contradictory(all: &[Vec<Literal>]) -> bool {
    let singles: Vec<Condition> = all
        .iter()
        .filter_map(|list| match list.as_slice() {
            [one] => Some(one.condition()),
            _ => None,
        })
        .collect();
    all.iter().any(|list| {
        list.iter().all(|literal| {
            singles.iter().any(|single| {
                implied(single, &literal.test).is_some_and(|said| said != literal.holds)
            })
        })
    })
}

/// A test on an equal value of a header.
pub(super) fn exact(test: &Test) -> Option<(&str, &Rc<str>, bool)> {
    match (&test.subject, &test.is) {
        (Subject::Header(name), Is::Exact(value)) => Some((name, value, false)),
        (Subject::Header(name), Is::Folded(value)) => Some((name, value, true)),
        _ => None,
    }
}

/// The place of a test, for a remark.
pub(super) fn place(test: &Test) -> Span {
    test.span.clone()
}
