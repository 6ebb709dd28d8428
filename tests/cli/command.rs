//! The built command, and the repository's files.

// Not every test uses all of it.
#![allow(dead_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use testkit::artifacts::repository;

/// The built command.
pub(crate) const COMMAND: &str = env!("CARGO_BIN_EXE_trusted-lb");

/// Runs the command in the repository, with something on its standard input.
pub(crate) fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(COMMAND)
        .args(arguments)
        .current_dir(repository())
        .env_remove("ORIGIN_SECRET")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut stdin = child.stdin.take().expect("its input is a pipe");
    stdin.write_all(input.as_bytes()).ok();
    drop(stdin);
    child.wait_with_output().expect("the command ends")
}

pub(crate) fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8(both).expect("its output is text")
}

/// Files right in a folder with an ending, by name.
pub(crate) fn listed(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(repository().join(folder))
        .expect("the folder can be listed")
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    found.sort();
    found
}

/// Files anywhere below a folder with an ending.
pub(crate) fn below(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = listed(folder, ending);
    for entry in std::fs::read_dir(repository().join(folder)).expect("the folder can be listed") {
        let path = entry.expect("the folder can be listed").path();
        if path.is_dir() {
            let inner = path.strip_prefix(repository()).expect("it lies in here");
            found.extend(below(&inner.to_string_lossy(), ending));
        }
    }
    found
}

pub(crate) fn relative(path: &Path) -> String {
    let path = path.strip_prefix(repository()).unwrap_or(path);
    path.display().to_string()
}

pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
