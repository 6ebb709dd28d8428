//! Why a text can't be read, and where.

use std::ops::Range;

/// Why a text can't be read, and where.
#[derive(Debug)]
pub(in crate::cli) struct SyntaxError {
    pub(in crate::cli) message: String,
    /// What to do instead, if that is known.
    pub(in crate::cli) help: Option<String>,
    /// Bytes of the source.
    pub(in crate::cli) span: Range<usize>,
}
