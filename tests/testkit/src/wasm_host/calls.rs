//! The functions of `env`: proxy-wasm ABI 0.2.1, as Envoy 1.40 answers them.

use wasmi::{Caller, Error, Val};

use super::{Fault, Host, LocalResponse};

pub(super) const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;
const INVALID_MEMORY: u32 = 6;
const UNIMPLEMENTED: u32 = 12;

const REQUEST_HEADERS: u32 = 0;
const PLUGIN_CONFIGURATION: u32 = 7;

/// Answers a host call with its status. An `Err` is a trap.
pub(super) fn call(
    name: &'static str,
    caller: &mut Caller<'_, Host>,
    parameters: &[Val],
) -> Result<u32, Error> {
    caller.data_mut().calls.push(name);
    let arguments = Arguments(parameters);
    match caller.data().faults.get(name).cloned() {
        Some(Fault::Status(status)) => return Ok(status),
        // The calls that hand out bytes write them through their last two parameters.
        Some(Fault::Bytes(bytes)) => {
            let last = parameters.len() - 1;
            return Ok(hand_out(
                caller,
                &bytes,
                arguments.get(last - 1),
                arguments.get(last),
            ));
        }
        None => {}
    }
    Ok(answer(name, caller, arguments).unwrap_or(INVALID_MEMORY))
}

#[derive(Clone, Copy)]
struct Arguments<'p>(&'p [Val]);

impl Arguments<'_> {
    fn get(self, index: usize) -> u32 {
        match self.0.get(index) {
            Some(Val::I32(value)) => value.cast_unsigned(),
            _ => 0,
        }
    }

    fn long(self, index: usize) -> i64 {
        match self.0.get(index) {
            Some(Val::I64(value)) => *value,
            _ => 0,
        }
    }
}

/// The status of a call; nothing where it points outside the module's memory.
fn answer(name: &str, caller: &mut Caller<'_, Host>, p: Arguments<'_>) -> Option<u32> {
    Some(match name {
        "proxy_log" => {
            let message = text(caller, p.get(1), p.get(2))?;
            let host = caller.data_mut();
            if p.get(0) >= host.log_level {
                host.logs.push((p.get(0), message));
            }
            OK
        }
        "proxy_get_log_level" => write_u32(caller, p.get(0), caller.data().log_level)?,
        "proxy_get_property" => {
            let path = text(caller, p.get(0), p.get(1))?;
            match caller.data().properties.get(&path).cloned() {
                Some(value) => hand_out(caller, &value, p.get(2), p.get(3)),
                None => NOT_FOUND,
            }
        }
        "proxy_get_buffer_bytes" => {
            if p.get(0) != PLUGIN_CONFIGURATION {
                return Some(NOT_FOUND);
            }
            let configuration = caller.data().configuration.clone();
            hand_out(caller, &configuration, p.get(3), p.get(4))
        }
        "proxy_define_metric" => {
            let metric = text(caller, p.get(1), p.get(2))?;
            let metrics = &mut caller.data_mut().metrics;
            let position = metrics.iter().position(|(known, _)| *known == metric);
            let id = position.unwrap_or_else(|| {
                metrics.push((metric, 0));
                metrics.len() - 1
            });
            write_u32(caller, p.get(3), u32::try_from(id).ok()?)?
        }
        "proxy_increment_metric" => match caller.data_mut().metrics.get_mut(p.get(0) as usize) {
            Some((_, value)) => {
                *value += p.long(1);
                OK
            }
            None => NOT_FOUND,
        },
        "proxy_record_metric" => match caller.data_mut().metrics.get_mut(p.get(0) as usize) {
            Some((_, value)) => {
                *value = p.long(1);
                OK
            }
            None => NOT_FOUND,
        },
        "proxy_set_property" => {
            let name = text(caller, p.get(0), p.get(1))?;
            let value = text(caller, p.get(2), p.get(3))?;
            caller.data_mut().filter_state.insert(name, value);
            OK
        }
        "proxy_set_tick_period_milliseconds" => {
            caller.data_mut().tick_period = Some(p.get(0));
            OK
        }
        "proxy_send_local_response" => {
            let text = |at, size| {
                Some(String::from_utf8_lossy(bytes(caller, p.get(at), p.get(size))?).into_owned())
            };
            let response = LocalResponse {
                status: p.get(0),
                details: text(1, 2)?,
                body: text(3, 4)?,
            };
            // The headers are a list like any other.
            if bytes(caller, p.get(5), p.get(6))?.len() < 4 {
                return Some(BAD_ARGUMENT);
            }
            caller.data_mut().local_response = Some(response);
            OK
        }
        "proxy_set_effective_context" => OK,
        "proxy_get_current_time_nanoseconds" => {
            bytes_mut(caller, p.get(0), 8)?.copy_from_slice(&0_u64.to_le_bytes());
            OK
        }
        _ if name.contains("_header_map_") => return header_map(name, caller, p),
        _ => UNIMPLEMENTED,
    })
}

fn header_map(name: &str, caller: &mut Caller<'_, Host>, p: Arguments<'_>) -> Option<u32> {
    if p.get(0) != REQUEST_HEADERS {
        return Some(BAD_ARGUMENT);
    }
    if name == "proxy_get_header_map_pairs" {
        let pairs = serialized(&caller.data().headers);
        return Some(hand_out(caller, &pairs, p.get(1), p.get(2)));
    }
    // Envoy compares names in lower case.
    let key = bytes(caller, p.get(1), p.get(2))?.to_ascii_lowercase();
    Some(match name {
        "proxy_get_header_map_value" => {
            let first = caller.data().headers.iter().find(|(line, _)| *line == key);
            match first.map(|(_, value)| value.clone()) {
                Some(value) => hand_out(caller, &value, p.get(3), p.get(4)),
                None => NOT_FOUND,
            }
        }
        "proxy_replace_header_map_value" => {
            let value = bytes(caller, p.get(3), p.get(4))?.to_vec();
            let host = caller.data_mut();
            host.route_cache_cleared += 1;
            // The first line gets the value, the others go.
            match host.headers.iter().position(|(line, _)| *line == key) {
                Some(first) => {
                    host.headers[first].1 = value;
                    let mut index = 0;
                    host.headers.retain(|(line, _)| {
                        index += 1;
                        index - 1 <= first || *line != key
                    });
                }
                None => host.headers.push((key, value)),
            }
            OK
        }
        "proxy_add_header_map_value" => {
            let value = bytes(caller, p.get(3), p.get(4))?.to_vec();
            let host = caller.data_mut();
            host.route_cache_cleared += 1;
            host.headers.push((key, value));
            OK
        }
        "proxy_remove_header_map_value" => {
            let host = caller.data_mut();
            host.route_cache_cleared += 1;
            host.headers.retain(|(line, _)| *line != key);
            OK
        }
        _ => UNIMPLEMENTED,
    })
}

/// Copies bytes into memory that the module allocates for them, and tells it where they are.
fn hand_out(caller: &mut Caller<'_, Host>, data: &[u8], pointer_at: u32, size_at: u32) -> u32 {
    let place = || -> Option<u32> {
        let pointer = if data.is_empty() {
            0
        } else {
            let allocate = caller.data().allocate?;
            caller.data_mut().entries.push("proxy_on_memory_allocate");
            let size = i32::try_from(data.len()).ok()?;
            let pointer = allocate.call(&mut *caller, size).ok()?.cast_unsigned();
            bytes_mut(caller, pointer, data.len())?.copy_from_slice(data);
            pointer
        };
        write_u32(caller, pointer_at, pointer)?;
        write_u32(caller, size_at, u32::try_from(data.len()).ok()?)
    };
    let mut place = place;
    place().unwrap_or(INVALID_MEMORY)
}

fn serialized(headers: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let size = |length: usize| {
        u32::try_from(length)
            .expect("headers are small")
            .to_le_bytes()
    };
    let mut pairs = size(headers.len()).to_vec();
    for (name, value) in headers {
        pairs.extend(size(name.len()));
        pairs.extend(size(value.len()));
    }
    for (name, value) in headers {
        pairs.extend(name);
        pairs.push(0);
        pairs.extend(value);
        pairs.push(0);
    }
    pairs
}

pub(super) fn bytes<'c>(caller: &'c Caller<'_, Host>, pointer: u32, size: u32) -> Option<&'c [u8]> {
    let memory = caller.data().memory?;
    let start = pointer as usize;
    memory
        .data(caller)
        .get(start..start.checked_add(size as usize)?)
}

pub(super) fn bytes_mut<'c>(
    caller: &'c mut Caller<'_, Host>,
    pointer: u32,
    size: usize,
) -> Option<&'c mut [u8]> {
    let memory = caller.data().memory?;
    let start = pointer as usize;
    memory
        .data_mut(caller)
        .get_mut(start..start.checked_add(size)?)
}

fn text(caller: &Caller<'_, Host>, pointer: u32, size: u32) -> Option<String> {
    bytes(caller, pointer, size).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

pub(super) fn write_u32(caller: &mut Caller<'_, Host>, pointer: u32, value: u32) -> Option<u32> {
    bytes_mut(caller, pointer, 4)?.copy_from_slice(&value.to_le_bytes());
    Some(OK)
}
