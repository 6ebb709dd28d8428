//! The engine, the configuration and the fuzz targets as plain Rust: no module, no Envoy.

// A test ends when something is not as expected.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod cases;
mod fuzz_corpus;
mod plain;
mod properties;
mod second_pass;
