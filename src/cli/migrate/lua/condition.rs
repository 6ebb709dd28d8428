//! What a script's branches depend on, as far as it can be told before a request comes.

use std::rc::Rc;

use super::syntax::Span;

/// A condition on the request.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli::migrate) enum Condition {
    Always,
    Never,
    Test(Rc<Test>),
    Not(Rc<Condition>),
    All(Rc<Condition>, Rc<Condition>),
    Any(Rc<Condition>, Rc<Condition>),
}

/// One question about the request.
#[derive(Clone, Debug)]
pub(in crate::cli::migrate) struct Test {
    pub(in crate::cli::migrate) subject: Subject,
    pub(in crate::cli::migrate) is: Is,
    /// Where the script asks it.
    pub(in crate::cli::migrate) span: Span,
}

/// What is asked about.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli::migrate) enum Subject {
    /// A header of the request as it reached the script, pseudo-headers too; lower-case.
    Header(Rc<str>),
    /// The address at the other end of the connection.
    Peer,
    /// The virtual host's name that Envoy chose; of `LuaPerRoute`, not of a script.
    VirtualHost,
    /// The route's name that Envoy chose.
    Route,
    /// Something that trusted-lb has no match for: why.
    Beyond(Rc<str>),
}

/// What must be true of it.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli::migrate) enum Is {
    Present,
    Exact(Rc<str>),
    Prefix(Rc<str>),
    Suffix(Rc<str>),
    /// What is left behind this many bytes is this; only understood together with a prefix of that length.
    Behind(usize, Rc<str>),
    /// `Exact`, upper and lower case alike.
    Folded(Rc<str>),
    Contains(Rc<str>),
    /// Anything else.
    Other,
}

impl PartialEq for Test {
    /// The same question, wherever it is asked; two questions that aren't understood may be two.
    fn eq(&self, other: &Self) -> bool {
        let placed = matches!(self.subject, Subject::Beyond(_));
        self.subject == other.subject && self.is == other.is && (!placed || self.span == other.span)
    }
}

impl Condition {
    pub(in crate::cli::migrate) fn test(subject: Subject, is: Is, span: Span) -> Self {
        Condition::Test(Rc::new(Test { subject, is, span }))
    }

    pub(in crate::cli::migrate) fn beyond(why: impl Into<Rc<str>>, span: Span) -> Self {
        Self::test(Subject::Beyond(why.into()), Is::Other, span)
    }

    pub(in crate::cli::migrate) fn known(value: bool) -> Self {
        if value {
            Condition::Always
        } else {
            Condition::Never
        }
    }

    pub(in crate::cli::migrate) fn not(self) -> Self {
        match self {
            Condition::Always => Condition::Never,
            Condition::Never => Condition::Always,
            Condition::Not(inner) => (*inner).clone(),
            other => Condition::Not(Rc::new(other)),
        }
    }

    pub(in crate::cli::migrate) fn and(self, other: Condition) -> Self {
        let (a, b) = match (self, other) {
            (Condition::Never, _) | (_, Condition::Never) => return Condition::Never,
            (Condition::Always, one) | (one, Condition::Always) => return one,
            (a, b) => (a, b),
        };
        match (a.says_of(&b), b.says_of(&a)) {
            (Some(true), _) => return a,
            (_, Some(true)) => return b,
            (Some(false), _) | (_, Some(false)) => return Condition::Never,
            (None, None) => {}
        }
        // What one of the two answers needn't be asked by the other.
        let (a, b) = if b.is_literal() {
            (a.with(&|test| implied(&b, test)), b)
        } else if a.is_literal() {
            let b = b.with(&|test| implied(&a, test));
            (a, b)
        } else {
            (a, b)
        };
        a.both(b)
    }

    /// As [`Condition::and`], without a look at what one says of the other: that would be taken again at every level.
    fn both(self, other: Condition) -> Self {
        match (self, other) {
            (Condition::Never, _) | (_, Condition::Never) => Condition::Never,
            (Condition::Always, one) | (one, Condition::Always) => one,
            (a, b) if a == b => a,
            (Condition::Test(a), Condition::Test(b)) => joined(&a, &b).unwrap_or_else(|| {
                Condition::All(Rc::new(Condition::Test(a)), Rc::new(Condition::Test(b)))
            }),
            (a, b) => Condition::All(Rc::new(a), Rc::new(b)),
        }
    }

    /// Whether a test, or its opposite, is settled by this.
    fn says_of(&self, literal: &Condition) -> Option<bool> {
        match literal {
            Condition::Test(test) => implied(self, test),
            Condition::Not(inner) => match &**inner {
                Condition::Test(test) => implied(self, test).map(|holds| !holds),
                _ => None,
            },
            _ => None,
        }
    }

    fn is_literal(&self) -> bool {
        match self {
            Condition::Test(_) => true,
            Condition::Not(inner) => matches!(&**inner, Condition::Test(_)),
            _ => false,
        }
    }

    pub(in crate::cli::migrate) fn or(self, other: Condition) -> Self {
        match (self, other) {
            (Condition::Always, _) | (_, Condition::Always) => Condition::Always,
            (Condition::Never, one) | (one, Condition::Never) => one,
            (a, b) if a == b => a,
            (a, b) => Condition::Any(Rc::new(a), Rc::new(b)),
        }
    }

    /// `yes` where this holds, `no` where it doesn't.
    pub(in crate::cli::migrate) fn choose(&self, yes: &Condition, no: &Condition) -> Self {
        let denied = self.clone().not();
        let yes = if yes == self {
            Condition::Always
        } else {
            yes.with(&|test| implied(self, test))
        };
        let no = if no == self {
            Condition::Never
        } else {
            no.with(&|test| implied(&denied, test))
        };
        match (&yes, &no) {
            _ if yes == no => yes,
            (Condition::Always, _) => self.clone().or(no),
            (_, Condition::Always) => denied.or(yes),
            (_, Condition::Never) => self.clone().and(yes),
            (Condition::Never, _) => denied.and(no),
            _ => self.clone().and(yes).or(denied.and(no)),
        }
    }

    /// The condition with answers put in for some of its tests.
    pub(in crate::cli::migrate) fn with(&self, answer: &dyn Fn(&Test) -> Option<bool>) -> Self {
        match self {
            Condition::Always | Condition::Never => self.clone(),
            Condition::Test(test) => answer(test).map_or_else(|| self.clone(), Condition::known),
            Condition::Not(inner) => inner.with(answer).not(),
            Condition::All(a, b) => a.with(answer).both(b.with(answer)),
            Condition::Any(a, b) => a.with(answer).or(b.with(answer)),
        }
    }

    /// The condition with others put in for some of its tests.
    pub(in crate::cli::migrate) fn replaced(
        &self,
        other: &dyn Fn(&Rc<Test>) -> Option<Condition>,
    ) -> Self {
        match self {
            Condition::Always | Condition::Never => self.clone(),
            Condition::Test(test) => other(test).unwrap_or_else(|| self.clone()),
            Condition::Not(inner) => inner.replaced(other).not(),
            Condition::All(a, b) => a.replaced(other).and(b.replaced(other)),
            Condition::Any(a, b) => a.replaced(other).or(b.replaced(other)),
        }
    }

    /// Every test in it.
    pub(in crate::cli::migrate) fn tests(&self, visit: &mut dyn FnMut(&Rc<Test>)) {
        match self {
            Condition::Always | Condition::Never => {}
            Condition::Test(test) => visit(test),
            Condition::Not(inner) => inner.tests(visit),
            Condition::All(a, b) | Condition::Any(a, b) => {
                a.tests(visit);
                b.tests(visit);
            }
        }
    }
}

/// Two tests of one header that are one together: `v` in front and `https` behind it is `vhttps`.
fn joined(a: &Test, b: &Test) -> Option<Condition> {
    if a.subject != b.subject {
        return None;
    }
    let (Is::Prefix(prefix), Is::Behind(skipped, rest)) = (&a.is, &b.is) else {
        return match (&a.is, &b.is) {
            (Is::Behind(..), Is::Prefix(_)) => joined(b, a),
            _ => None,
        };
    };
    (prefix.len() == *skipped).then(|| {
        Condition::test(
            a.subject.clone(),
            Is::Exact(format!("{prefix}{rest}").into()),
            b.span.clone(),
        )
    })
}

/// What a condition that holds says about a test.
pub(in crate::cli::migrate) fn implied(condition: &Condition, test: &Test) -> Option<bool> {
    match condition {
        Condition::Test(known) if **known == *test => Some(true),
        Condition::Test(known) if known.subject == test.subject => match (&known.is, &test.is) {
            (
                Is::Exact(_)
                | Is::Prefix(_)
                | Is::Suffix(_)
                | Is::Folded(_)
                | Is::Contains(_)
                | Is::Behind(..),
                Is::Present,
            ) => Some(true),
            (Is::Exact(a), Is::Exact(b)) => Some(a == b),
            (Is::Exact(a), Is::Prefix(b)) => Some(a.starts_with(&**b)),
            (Is::Exact(a), Is::Suffix(b)) => Some(a.ends_with(&**b)),
            (Is::Exact(a), Is::Contains(b)) => Some(a.contains(&**b)),
            (Is::Exact(a), Is::Folded(b)) => Some(a.eq_ignore_ascii_case(b)),
            (Is::Prefix(a), Is::Prefix(b)) if a.starts_with(&**b) => Some(true),
            _ => None,
        },
        Condition::Not(inner) => match &**inner {
            Condition::Test(known) if **known == *test => Some(false),
            Condition::Test(known) if known.subject == test.subject && known.is == Is::Present => {
                Some(false)
            }
            Condition::Any(a, b) => {
                implied(&(**a).clone().not(), test).or_else(|| implied(&(**b).clone().not(), test))
            }
            _ => None,
        },
        Condition::All(a, b) => implied(a, test).or_else(|| implied(b, test)),
        _ => None,
    }
}
