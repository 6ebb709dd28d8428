//! Searches with patterns, which may take longer than the instructions that are counted.

use mlua::{Error, Lua, MultiValue, Table, Value};

use super::NOT_RUN;

/// What a search with a pattern may take: the text's length by the repetitions in the pattern.
const MOST_TRIES: f64 = 2e7;

/// Whether a search might take for ever: each repetition is tried with every length of what it takes.
pub(in crate::cli::migrate) fn takes_long(text: usize, pattern: &[u8]) -> bool {
    // A search without an anchor begins at every byte of the text.
    let mut power = i32::from(pattern.first() != Some(&b'^'));
    let (mut bytes, mut in_class) = (pattern.iter(), false);
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => power += i32::from(bytes.next() == Some(&b'b')),
            b'[' => in_class = true,
            b']' => in_class = false,
            b'*' | b'+' | b'-' if !in_class => power += 1,
            _ => {}
        }
    }
    #[allow(clippy::cast_precision_loss)] // A bound.
    let text = text.max(2) as f64;
    power > 1 && text.powi(power) > MOST_TRIES
}

/// Puts a look at the pattern in front of the functions that search with one.
pub(super) fn searches_bounded(lua: &Lua, string: &Table) -> mlua::Result<()> {
    for name in ["find", "match", "gmatch", "gsub"] {
        let inner: mlua::Function = string.get(name)?;
        let look = lua.create_function(move |_, arguments: MultiValue| {
            let bytes = |index: usize| match arguments.get(index) {
                Some(Value::String(text)) => text.as_bytes().to_vec(),
                _ => Vec::new(),
            };
            if takes_long(bytes(0).len(), &bytes(1)) {
                return Err(Error::runtime(format!(
                    "a search that may take so long {NOT_RUN}"
                )));
            }
            inner.call::<MultiValue>(arguments)
        })?;
        string.set(name, look)?;
    }
    Ok(())
}
