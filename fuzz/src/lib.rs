//! What is fuzzed. `./build.sh fuzz` runs it under libFuzzer; `tests/native/fuzz_corpus.rs` and `tests/cli/fuzz_corpus.rs` replay the
//! corpus and try a little more.

mod files;
mod filter;
mod lua;

pub use files::files;
pub use filter::{configuration, decide, peer, signals};
pub use lua::lua;
