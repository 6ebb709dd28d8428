//! The fuzz target of the reader without a fuzzer: the whole corpus, and each input cut short. `./build.sh fuzz` does it
//! thoroughly.

#[allow(clippy::pedantic, unreachable_pub)]
#[path = "../../fuzz/src/files.rs"]
mod target;

use testkit::artifacts::repository;

#[test]
fn any_bytes_as_a_file_are_read_or_refused() {
    let folder = repository().join("fuzz/corpus/files");
    let mut inputs = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus is there") {
        let input = std::fs::read(entry.expect("a folder can be listed").path())
            .expect("an input can be read");
        for end in [input.len(), input.len() / 2, input.len() * 7 / 8] {
            target::files(&input[..end]);
        }
        inputs += 1;
    }
    assert!(inputs > 100, "{inputs}");
}
