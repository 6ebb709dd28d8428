//! The `trusted-lb` command and the documents, as people use them.

// A test ends when something is not as expected.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod around;
mod as_envoy;
mod command;
mod commands;
mod documentation;
mod files;
mod findings;
mod fuzz_corpus;
mod language;
mod loaded;
mod migrate;
mod overridden;
mod where_people_check;
