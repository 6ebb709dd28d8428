//! What was decided about one request, as plain data.

use std::fmt;

use super::matcher::Condition;
use super::peer::Peer;
use super::signal::Reading;
use crate::config::Scheme;

/// What becomes of one request, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Who sent it, where a rule had to know.
    pub peer: Option<Peer>,
    /// The position of the rule that trusts the peer; nothing where none does.
    pub rule: Option<usize>,
    /// The position of the route whose overrides apply; nothing where the defaults do.
    pub route: Option<usize>,
    /// The client's scheme as the upstream is told it; nothing where x-forwarded-proto stays as it is.
    pub forwarded_proto: Option<Scheme>,
    /// Where that scheme comes from.
    pub because: Because<'a>,
    /// What to do to the request's headers, in this order.
    pub operations: Vec<Operation<'a>>,
    /// What is worth counting.
    pub notes: Notes,
}

/// Where the scheme comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because<'a> {
    /// A trusted load balancer's signal says so.
    Signal {
        /// The header that spoke.
        header: &'a str,
    },
    /// The rule's default: no signal is present, or the one that is can't be understood.
    Default {
        /// The header that can't be understood.
        unusable: Option<&'a str>,
    },
    /// The peer is not trusted, and the connection to the gateway is what it is.
    Connection,
    /// The peer is not trusted, and the configuration says `http` for such.
    UntrustedHttp,
    /// The peer is not trusted, and the configuration keeps what is there.
    Kept,
}

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Because::Signal { header } => write!(f, "{header} says so"),
            Because::Default { unusable: None } => f.write_str("that is the rule's default"),
            Because::Default {
                unusable: Some(header),
            } => write!(
                f,
                "{header} can't be understood and the rule's default applies"
            ),
            Because::Connection => f.write_str("the peer is untrusted and that is its connection"),
            Because::UntrustedHttp => f.write_str("the peer is untrusted"),
            Because::Kept => f.write_str("the peer is untrusted and x-forwarded-proto is kept"),
        }
    }
}

/// One change to the request's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// The header has this value from now on, on one line, whether it was there or not.
    Set {
        /// The header.
        name: &'a str,
        /// Its value.
        value: &'a str,
    },
    /// The header is gone, all its lines.
    Remove {
        /// The header, as it came.
        name: &'a [u8],
    },
}

impl fmt::Display for Operation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::Set { name, value } => write!(f, "set {name}: {value}"),
            Operation::Remove { name } => write!(f, "remove {}", String::from_utf8_lossy(name)),
        }
    }
}

/// A decision, and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// What was decided.
    pub decision: Decision<'a>,
    /// For each rule, the first condition that doesn't hold.
    pub rules: Vec<Option<Condition>>,
    /// For each route, the first condition that doesn't hold.
    pub routes: Vec<Option<Condition>>,
    /// What each signal of the rule or route that applies says.
    pub signals: Vec<(&'a str, Reading)>,
}

/// What is worth counting about a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools)] // Independent yes-or-no answers, one counter each.
pub struct Notes {
    /// An untrusted peer claimed something about the scheme, and that was overridden or removed.
    pub forged_claim: bool,
    /// `x-forwarded-proto` has, or would have, another value than the request carries.
    pub forwarded_proto_rewritten: bool,
    /// `:scheme` changes.
    pub scheme_rewritten: bool,
    /// A timeout is written.
    pub timeout: bool,
    /// Retries are written, or switched off.
    pub retries: bool,
    /// A number that the request brought was larger than the configuration allows.
    pub capped: bool,
}
