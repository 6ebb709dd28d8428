//! The fuzz targets of the command's readers without a fuzzer: the whole corpus, and each input cut short. `./build.sh fuzz`
//! does it thoroughly.

#[allow(clippy::pedantic, unreachable_pub)]
#[path = "../../fuzz/src/files.rs"]
mod files;
#[allow(clippy::pedantic, unreachable_pub)]
#[path = "../../fuzz/src/lua.rs"]
mod lua;

use testkit::artifacts::repository;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = repository().join("fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus is there") {
        let input = std::fs::read(entry.expect("a folder can be listed").path())
            .expect("an input can be read");
        for end in [input.len(), input.len() / 2, input.len() * 7 / 8] {
            run(&input[..end]);
        }
        inputs += 1;
    }
    assert!(inputs > 100, "{inputs}");
}

#[test]
fn any_bytes_as_a_file_are_read_or_refused() {
    replay("files", files::files);
}

#[test]
fn any_bytes_as_a_script_are_translated_or_refused_and_what_is_printed_passes_the_check() {
    replay("lua", lua::lua);
}
