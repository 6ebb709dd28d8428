//! What is fuzzed. `./build.sh fuzz` runs it under libFuzzer; `tests/native/fuzz_corpus.rs` replays the corpus and tries a little more.

mod files;
mod targets;

pub use files::files;
pub use targets::{configuration, decide, peer, signals};
