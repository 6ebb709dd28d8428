//! What is fuzzed. `./build.sh fuzz` runs it under libFuzzer; `tests/native/fuzz_corpus.rs` replays the corpus and tries a little more.

mod files;
mod lua;
mod targets;

pub use files::files;
pub use lua::lua;
pub use targets::{configuration, decide, peer, signals};
