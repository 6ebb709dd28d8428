//! What a Lua script does to requests, told without running it.
//!
//! The script is followed as Lua would run it, helper functions and constants included. Where it asks about the request,
//! both answers are followed, and what they change is brought together again: at the end every header has one value that
//! says under which conditions it is what.

mod condition;
mod constants;
mod evaluate;
mod expressions;
mod flow;
mod globals;
mod interface;
mod library;
mod loops;
mod operators;
mod patterns;
mod syntax;
mod tables;
mod unreached;
mod value;

use std::collections::BTreeMap;
use std::rc::Rc;

pub(super) use condition::{Condition, Is, Subject, Test, implied};
pub(super) use syntax::{Span, Unreadable};
pub(super) use value::{Asked, Value};

/// What a script does.
#[derive(Debug, Default)]
pub(super) struct Meaning {
    /// The headers that it may change, by name, with what becomes of them.
    pub(super) headers: BTreeMap<Rc<str>, Value>,
    /// Every call that changes a request header, in the order they run.
    pub(super) writes: Vec<Write>,
    /// When the script answers the request itself, and where it says so.
    pub(super) answers: Vec<(Condition, Span)>,
    /// What it does besides, or what couldn't be followed.
    pub(super) remarks: Vec<Remark>,
    /// Whether there is a function for requests.
    pub(super) on_request: bool,
    /// Names of the headers that it reads.
    pub(super) read: Vec<Rc<str>>,
}

/// A call that changes a request header.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) header: Rc<str>,
    pub(super) method: &'static str,
    pub(super) span: Span,
}

/// Something to say about a place of the script.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Remark {
    pub(super) span: Span,
    pub(super) why: String,
    /// Whether reading ended here: that is said whatever else there is to say.
    pub(super) is_end: bool,
}

/// Stack for a parser and a walk that recurse.
const STACK: usize = 256 << 20;

/// Runs something that recurses over scripts and runs them. `Err` says why there is no answer.
pub(super) fn bounded<T: Send + 'static>(
    seconds: u64,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || sender.send(work()))
        .map_err(|error| format!("a thread can't be started: {error}"))?;
    receiver
        .recv_timeout(std::time::Duration::from_secs(seconds))
        .map_err(|error| match error {
            std::sync::mpsc::RecvTimeoutError::Timeout => {
                format!("the script takes longer than {seconds} seconds")
            }
            std::sync::mpsc::RecvTimeoutError::Disconnected => {
                "the script can't be followed".to_owned()
            }
        })
}

/// Follows a script.
pub(super) fn meaning(code: &str) -> Result<Meaning, Unreadable> {
    let script = syntax::parse(code)?;
    Ok(evaluate::script(code, &script))
}
