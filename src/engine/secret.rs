//! Secrets from the environment: compared in constant time, never printed.

use std::fmt;
use std::hint::black_box;

/// A secret text.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Vec<u8>);

impl Secret {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }

    /// Whether `value` is the secret. The time taken depends on the length of the secret only.
    pub(crate) fn is(&self, value: &[u8]) -> bool {
        let mut difference = (self.0.len() ^ value.len()) as u64;
        for at in (0..self.0.len()).step_by(WORD) {
            difference |= black_box(word(&self.0, at) ^ word(value, at));
        }
        black_box(difference) == 0
    }

    /// What follows `SECRET ` in `value`, where it begins with that.
    pub(crate) fn strip_from<'v>(&self, value: &'v [u8]) -> Option<&'v [u8]> {
        let (head, rest) = value.split_at_checked(self.0.len())?;
        let rest = rest.strip_prefix(b" ")?;
        self.is(head).then_some(rest)
    }
}

/// Bytes that are compared at once.
const WORD: usize = 8;

/// The bytes from there on, zeros behind the end.
fn word(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes.get(at..).unwrap_or_default();
    if let Some(word) = bytes.first_chunk::<WORD>() {
        return u64::from_le_bytes(*word);
    }
    let last = bytes.iter().rev();
    last.fold(0, |word, byte| word << 8 | u64::from(*byte))
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_itself_is_equal() {
        let secret = Secret::new("correct horse");
        assert!(secret.is(b"correct horse"));
        for wrong in [
            &b""[..],
            b"correct hors",
            b"correct horsf",
            b"correct horse ",
            b"Correct horse",
        ] {
            assert!(!secret.is(wrong));
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", Secret::new("hush")), "Secret(…)");
    }
}
