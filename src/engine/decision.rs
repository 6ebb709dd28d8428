//! What was decided about one request, as plain data.

use std::fmt;

use super::peer::Peer;
use crate::config::Scheme;

/// What becomes of one request, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// The direct peer, if a rule asked for it.
    pub peer: Option<Peer>,
    /// The position of the rule that trusts the peer. Absent if none does.
    pub rule: Option<usize>,
    /// The position of the override that applies. Absent if the defaults do.
    pub applied_override: Option<usize>,
    /// The client's scheme as the upstream is told it. Absent if x-forwarded-proto stays as it is.
    pub forwarded_proto: Option<Scheme>,
    /// Where that scheme comes from.
    pub source: SchemeSource<'a>,
    /// The status with which the filter answers instead of handing the request on. In shadow mode it is handed on.
    pub refusal: Option<u16>,
    /// What to do to the request's headers, in this order.
    pub operations: Vec<Operation<'a>>,
    /// What is worth counting.
    pub notes: Notes,
}

/// The scheme source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemeSource<'a> {
    /// A trusted load balancer's signal says so.
    Signal {
        /// The header that tells it.
        header: &'a str,
    },
    /// The rule's default: no signal is present, or the first that is present is unusable.
    Default {
        /// The signal that is present and unusable.
        unusable: Option<&'a str>,
    },
    /// The peer is not trusted: the scheme of its own connection.
    Connection,
    /// The peer is not trusted, and the configuration says `http` for untrusted peers.
    UntrustedHttp,
    /// The peer is not trusted, and the configuration keeps what is there.
    Kept,
    /// The configuration has no rule of trust and no `untrusted`: it leaves the scheme alone.
    NotJudged,
}

impl fmt::Display for SchemeSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SchemeSource::Signal { header } => write!(f, "{header} says so"),
            SchemeSource::Default { unusable: None } => f.write_str("that is the rule's default"),
            SchemeSource::Default {
                unusable: Some(header),
            } => write!(
                f,
                "{header} can't be understood and the rule's default applies"
            ),
            SchemeSource::Connection => {
                f.write_str("the peer is untrusted and that is its connection")
            }
            SchemeSource::UntrustedHttp => f.write_str("the peer is untrusted"),
            SchemeSource::Kept => {
                f.write_str("the peer is untrusted and x-forwarded-proto is kept")
            }
            SchemeSource::NotJudged => {
                f.write_str("the configuration says nothing about the scheme")
            }
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
    /// The header is removed, with all its lines.
    Remove {
        /// The header, as the request spells it.
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
