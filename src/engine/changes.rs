//! What becomes of a request's headers, as it is being decided.

use super::decision::{Notes, Operation};

/// The operations so far, and what is worth counting about them.
#[derive(Debug)]
pub(crate) struct Changes<'a> {
    pub(crate) operations: Vec<Operation<'a>>,
    pub(crate) notes: Notes,
}

impl<'a> Changes<'a> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            operations: Vec::with_capacity(8),
            notes: Notes::default(),
        }
    }

    #[inline]
    pub(crate) fn set(&mut self, name: &'a str, value: &'a str) {
        self.operations.push(Operation::Set { name, value });
    }

    /// The request is refused, so that nothing is written.
    #[cold]
    pub(crate) fn refused(&mut self) {
        self.operations.clear();
        self.notes = Notes {
            forged_claim: self.notes.forged_claim,
            ..Notes::default()
        };
    }

    pub(crate) fn remove(&mut self, name: &'a [u8]) {
        self.operations.push(Operation::Remove { name });
    }
}
