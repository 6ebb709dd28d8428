//! `./build.sh demo`, which newcomers run first.

use std::process::Command;

#[test]
fn the_demo_shows_what_it_promises() {
    let output = Command::new(env!("CARGO_BIN_EXE_demo")).output();
    let output = output.expect("the demo can be started");
    let shown = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}\n{errors}");
    assert!(shown.contains("Everything is as it should be."), "{shown}");
    // What the demo is for: the usual Lua filter tells the spoofing client https.
    let (_, spoofing) = shown.split_once("A spoofing client").expect("a table");
    let row = spoofing
        .lines()
        .find(|line| line.starts_with("x-forwarded-proto at the service"))
        .expect("a row");
    let cells: Vec<&str> = row.split_whitespace().skip(5).collect();
    assert_eq!(cells, ["http", "✗", "https", "✓", "http"], "{row}");
}
