//! The reader of cluster files, whatever the bytes.

use trusted_lb::cli;

/// More than any answer needs, which is bounded however many problems there are.
const LONGEST: usize = 4 << 20;

/// A file of any bytes is read or refused, with places that lie in it and an answer of a bounded length.
pub fn files(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let said = cli::check_text(&text);
    assert!(said.len() < LONGEST, "{} bytes", said.len());
    assert_eq!(said, cli::check_text(&text), "the same each time");
}
