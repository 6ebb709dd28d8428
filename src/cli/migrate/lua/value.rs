//! The values of a script that is run without a request: what doesn't depend on one is known, the rest is described.

use std::rc::Rc;

use super::condition::{Condition, Is, Subject};
use super::syntax::{Function, Span};

/// A value.
#[derive(Clone, Debug)]
pub(in crate::cli::migrate) enum Value {
    Nil,
    Bool(bool),
    Number(f64),
    Text(Rc<str>),
    /// The number of a table in the run's store.
    Table(usize),
    /// A function and the variables around it.
    Function(Rc<Function>, Scope),
    /// A function of the language's own library, by its full name.
    Library(&'static str),
    /// Something of Envoy's interface.
    Envoy(Envoy),
    /// A method of Envoy's interface, taken from its object: `headers.replace`.
    EnvoyMethod(Rc<str>),
    /// The request's value of something, or nil where it has none.
    Asked(Asked),
    /// The length of such a value.
    Length(Asked),
    /// How many lines of a header there are.
    Count(Asked),
    /// A boolean that depends on the request.
    Test(Condition),
    /// The place where a text was found, or nil.
    Found(Asked, Rc<str>, Condition),
    /// True where the condition holds, else nil; what it is exactly isn't known.
    Perhaps(Condition, Rc<str>),
    /// The first where the condition holds, else the second.
    Either(Condition, Rc<Value>, Rc<Value>),
    /// Not known: why.
    Unknown(Rc<str>),
}

/// Variables by name, innermost last: the number of each in the run's store.
pub(in crate::cli::migrate) type Scope = Option<Rc<Variable>>;

#[derive(Debug)]
pub(in crate::cli::migrate) struct Variable {
    pub(super) name: Rc<str>,
    pub(super) slot: usize,
    pub(super) outer: Scope,
}

/// Objects that Envoy hands to a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli::migrate) enum Envoy {
    Request,
    RequestHeaders,
    Response,
    ResponseHeaders,
    Trailers,
    /// Anything else, by the method that gave it.
    Other(&'static str),
}

/// Something that is read from the request.
#[derive(Clone, Debug)]
pub(in crate::cli::migrate) struct Asked {
    pub(in crate::cli::migrate) subject: Subject,
    /// Upper and lower case are made alike.
    pub(in crate::cli::migrate) folded: bool,
    /// What is made alike is upper case.
    pub(in crate::cli::migrate) upper: bool,
    /// Bytes at its beginning that are left out.
    pub(in crate::cli::migrate) skipped: usize,
    /// How many bytes are taken, counted from the end where that is negative.
    pub(in crate::cli::migrate) taken: Option<i64>,
    /// What is known to stand in those bytes.
    pub(in crate::cli::migrate) in_front: Option<Rc<str>>,
    /// It is read as a number.
    pub(in crate::cli::migrate) number: bool,
    pub(in crate::cli::migrate) span: Span,
}

impl Asked {
    pub(super) fn header(name: &str, span: Span) -> Self {
        Self {
            subject: Subject::Header(name.to_ascii_lowercase().into()),
            folded: false,
            upper: false,
            skipped: 0,
            taken: None,
            in_front: None,
            number: false,
            span,
        }
    }

    pub(super) fn peer(span: Span) -> Self {
        Self {
            subject: Subject::Peer,
            ..Self::header("", span)
        }
    }

    pub(super) fn is_same(&self, other: &Asked) -> bool {
        self.subject == other.subject
            && (
                self.folded,
                self.upper,
                self.skipped,
                self.taken,
                self.number,
            ) == (
                other.folded,
                other.upper,
                other.skipped,
                other.taken,
                other.number,
            )
    }

    pub(super) fn test(&self, is: Is, span: Span) -> Condition {
        Condition::test(self.subject.clone(), is, span)
    }

    /// Whether it is there.
    pub(in crate::cli::migrate) fn present(&self) -> Condition {
        match &self.subject {
            Subject::Header(name) if always_there(name) => Condition::Always,
            Subject::Peer => Condition::Always,
            _ => self.test(Is::Present, self.span.clone()),
        }
    }

    /// Whether it is this text.
    pub(in crate::cli::migrate) fn equals(&self, text: &str, span: Span) -> Condition {
        let folds = |text: &str| self.folded && text.bytes().any(|b| b.is_ascii_alphabetic());
        let other_case = |byte: u8| {
            if self.upper {
                byte.is_ascii_lowercase()
            } else {
                byte.is_ascii_uppercase()
            }
        };
        if self.folded && text.bytes().any(other_case) {
            return Condition::Never;
        }
        // Tests that fold compare with lower case.
        let lower = text.to_ascii_lowercase();
        let text = if self.folded { lower.as_str() } else { text };
        match (self.skipped, self.taken) {
            (0, None) if folds(text) => self.test(Is::Folded(text.into()), span),
            (0, None) => self.test(Is::Exact(text.into()), span),
            (_, None) if self.in_front.is_some() => {
                let front = self.in_front.as_deref().unwrap_or_default();
                self.test(Is::Exact(format!("{front}{text}").into()), span)
            }
            (skipped, None) => self.test(Is::Behind(skipped, text.into()), span),
            (0, Some(count)) if usize::try_from(count) == Ok(text.len()) => {
                self.test(Is::Prefix(text.into()), span)
            }
            (0, Some(count)) if usize::try_from(-count) == Ok(text.len()) => {
                self.test(Is::Suffix(text.into()), span)
            }
            _ => Condition::beyond("a part of a value", span),
        }
    }
}

/// Headers that every request has when it reaches an HTTP filter: Envoy sees to it.
fn always_there(name: &str) -> bool {
    matches!(
        name,
        ":authority" | ":path" | ":method" | ":scheme" | "x-forwarded-proto" | "x-request-id"
    )
}

impl Value {
    /// A header that nothing has changed.
    pub(in crate::cli::migrate) fn untouched(name: &str) -> Self {
        Value::Asked(Asked::header(name, 0..0))
    }

    pub(super) fn text(text: impl Into<Rc<str>>) -> Self {
        Value::Text(text.into())
    }

    pub(super) fn unknown(why: impl Into<Rc<str>>) -> Self {
        Value::Unknown(why.into())
    }

    pub(in crate::cli::migrate) fn either(condition: Condition, yes: Value, no: Value) -> Self {
        match condition {
            Condition::Always => yes,
            Condition::Never => no,
            _ if yes.is_same(&no) => yes,
            Condition::Not(inner) => Value::Either((*inner).clone(), Rc::new(no), Rc::new(yes)),
            other => Value::Either(other, Rc::new(yes), Rc::new(no)),
        }
    }

    /// Whether two values are certainly one.
    pub(in crate::cli::migrate) fn is_same(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Nil, Value::Nil) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Number(a), Value::Number(b)) => a.to_bits() == b.to_bits(),
            (Value::Text(a), Value::Text(b)) | (Value::EnvoyMethod(a), Value::EnvoyMethod(b)) => {
                a == b
            }
            (Value::Table(a), Value::Table(b)) => a == b,
            (Value::Function(a, _), Value::Function(b, _)) => Rc::ptr_eq(a, b),
            (Value::Library(a), Value::Library(b)) => a == b,
            (Value::Envoy(a), Value::Envoy(b)) => a == b,
            (Value::Asked(a), Value::Asked(b)) => a.is_same(b),
            (Value::Either(asked, yes, no), Value::Either(other, other_yes, other_no)) => {
                asked == other && Rc::ptr_eq(yes, other_yes) && Rc::ptr_eq(no, other_no)
            }
            _ => false,
        }
    }

    /// When Lua takes it for true.
    pub(super) fn truth(&self, span: &Span) -> Condition {
        match self {
            Value::Nil | Value::Bool(false) => Condition::Never,
            Value::Asked(asked) => asked.present(),
            Value::Test(condition)
            | Value::Perhaps(condition, _)
            | Value::Found(_, _, condition) => condition.clone(),
            Value::Either(condition, yes, no) => {
                condition.choose(&yes.truth(span), &no.truth(span))
            }
            Value::Unknown(why) => Condition::beyond(why.clone(), span.clone()),
            _ => Condition::Always,
        }
    }
}
