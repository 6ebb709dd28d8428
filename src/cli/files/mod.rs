//! The files that people have, read as kubectl and Envoy read them, with the place of every value.
//!
//! ```text
//! text → events (yaml, json) → builder (bounds, anchors, merge keys) → Located
//! ```
//!
//! Every span is bytes of the outer file, also for what is read from inside a string ([`within`]).

mod builder;
mod input;
mod json;
mod proto;
mod scalar;
mod source;
mod syntax_error;
mod template;
mod tree;
mod within;
mod yaml;

pub(super) use input::{Inputs, STDIN, inputs, one};
pub(super) use proto::is_spelling_of;
pub(super) use source::Source;
pub(super) use syntax_error::SyntaxError;
pub(super) use tree::{Field, Located, Value};
pub(super) use within::Within;

/// Objects and lists inside each other. Envoy's protobuf reader ends at 100, the module's JSON reader at 128.
pub(super) const MOST_DEPTH: usize = 128;

/// Values in one file, copies by aliases included.
pub(super) const MOST_VALUES: usize = 1_000_000;

/// Bytes of one file.
pub(super) const MOST_BYTES: usize = 64 << 20;
