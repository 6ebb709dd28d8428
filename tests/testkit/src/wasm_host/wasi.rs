//! As much of WASI preview 1 as Rust's standard library uses.

use wasmi::{Caller, Error, Val};

use super::Host;
use super::calls::{bytes, bytes_mut, write_u32};

const SUCCESS: u32 = 0;
const BAD_DESCRIPTOR: u32 = 8;
const FAULT: u32 = 21;
const NOT_IMPLEMENTED: u32 = 52;

/// Answers a WASI call with its error number. An `Err` is a trap.
pub(super) fn call(
    name: &str,
    caller: &mut Caller<'_, Host>,
    parameters: &[Val],
) -> Result<u32, Error> {
    let p = |index: usize| match parameters.get(index) {
        Some(Val::I32(value)) => value.cast_unsigned(),
        _ => 0,
    };
    if name == "proc_exit" {
        return Err(Error::new(format!("proc_exit({})", p(0))));
    }
    let answer = match name {
        "environ_sizes_get" => {
            let entries = entries(caller.data());
            let size: usize = entries.iter().map(Vec::len).sum();
            write(caller, p(0), entries.len()).and_then(|()| write(caller, p(1), size))
        }
        "environ_get" => environ_get(caller, p(0), p(1)),
        "fd_write" => return Ok(fd_write(caller, p(0), p(1), p(2), p(3)).unwrap_or(FAULT)),
        "clock_time_get" => bytes_mut(caller, p(2), 8).map(|bytes| bytes.fill(0)),
        "random_get" => bytes_mut(caller, p(0), p(1) as usize).map(|bytes| bytes.fill(7)),
        _ if name.starts_with("fd_") => return Ok(BAD_DESCRIPTOR),
        _ => return Ok(NOT_IMPLEMENTED),
    };
    Ok(answer.map_or(FAULT, |()| SUCCESS))
}

/// `NAME=value` with the NUL that ends it.
fn entries(host: &Host) -> Vec<Vec<u8>> {
    host.environment
        .iter()
        .map(|(name, value)| format!("{name}={value}\0").into_bytes())
        .collect()
}

fn environ_get(caller: &mut Caller<'_, Host>, pointers: u32, buffer: u32) -> Option<()> {
    let mut at = buffer;
    for (index, entry) in entries(caller.data()).into_iter().enumerate() {
        write_u32(caller, pointers + 4 * u32::try_from(index).ok()?, at)?;
        bytes_mut(caller, at, entry.len())?.copy_from_slice(&entry);
        at += u32::try_from(entry.len()).ok()?;
    }
    Some(())
}

/// Standard output and error become log lines, as in Envoy.
fn fd_write(
    caller: &mut Caller<'_, Host>,
    descriptor: u32,
    vectors: u32,
    count: u32,
    written: u32,
) -> Option<u32> {
    if !matches!(descriptor, 1 | 2) {
        return Some(BAD_DESCRIPTOR);
    }
    let mut text = Vec::new();
    for index in 0..count {
        let vector = bytes(caller, vectors + 8 * index, 8)?;
        let number = |at: usize| Some(u32::from_le_bytes(vector.get(at..at + 4)?.try_into().ok()?));
        let (pointer, size) = (number(0)?, number(4)?);
        text.extend_from_slice(bytes(caller, pointer, size)?);
    }
    write(caller, written, text.len())?;
    let level = if descriptor == 2 { 4 } else { 2 };
    let line = String::from_utf8_lossy(&text).into_owned();
    caller.data_mut().logs.push((level, line));
    Some(SUCCESS)
}

fn write(caller: &mut Caller<'_, Host>, pointer: u32, value: usize) -> Option<()> {
    write_u32(caller, pointer, u32::try_from(value).ok()?).map(drop)
}
