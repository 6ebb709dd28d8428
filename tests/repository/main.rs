//! The repository's own rules: which layer may name what, which dependencies are allowed, what its workflows run.

// A test ends when something is not as expected.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod layers;
mod security;
mod workflows;
