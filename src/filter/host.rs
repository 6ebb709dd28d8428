//! Calls to the proxy-wasm host, ABI 0.2.1: the only file with unsafe code.
//!
//! Why not the SDK's own: those panic on every status that they don't expect, and a panic ends the VM for every later
//! request; their text accessors panic on a byte that isn't UTF-8; and header maps come as one allocation a header.
//! Here a failing call is a value, bytes stay bytes, and a header map is one buffer that is read in place.

#![allow(unsafe_code)]

use std::ptr::{null_mut, slice_from_raw_parts_mut};

/// What a host call answered instead of `Ok`: proxy-wasm's status number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status(u32);

impl Status {
    const OK: u32 = 0;
    const NOT_FOUND: Status = Status(1);
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.0 {
            1 => "NotFound",
            2 => "BadArgument",
            3 => "SerializationFailure",
            4 => "ParseFailure",
            6 => "InvalidMemoryAccess",
            7 => "Empty",
            8 => "CasMismatch",
            10 => "InternalFailure",
            12 => "Unimplemented",
            other => return write!(f, "status {other}"),
        };
        f.write_str(name)
    }
}

/// proxy-wasm's log levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Level {
    Trace = 0,
    Debug = 1,
    Info = 2,
    Warn = 3,
    Error = 4,
}

const HTTP_REQUEST_HEADERS: u32 = 0;
const PLUGIN_CONFIGURATION: u32 = 7;

/// proxy-wasm's kinds of metrics, as far as they are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Metric {
    Counter = 0,
    Gauge = 1,
}

#[cfg(target_family = "wasm")]
mod raw {
    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        pub(super) fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
        pub(super) fn proxy_get_log_level(level: *mut u32) -> u32;
        pub(super) fn proxy_get_property(
            path: *const u8,
            path_size: usize,
            value: *mut *mut u8,
            value_size: *mut usize,
        ) -> u32;
        pub(super) fn proxy_get_header_map_pairs(
            map: u32,
            pairs: *mut *mut u8,
            pairs_size: *mut usize,
        ) -> u32;
        pub(super) fn proxy_replace_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub(super) fn proxy_remove_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
        ) -> u32;
        pub(super) fn proxy_get_buffer_bytes(
            buffer: u32,
            start: usize,
            max_size: usize,
            data: *mut *mut u8,
            data_size: *mut usize,
        ) -> u32;
        pub(super) fn proxy_define_metric(
            kind: u32,
            name: *const u8,
            name_size: usize,
            id: *mut u32,
        ) -> u32;
        pub(super) fn proxy_increment_metric(id: u32, by: i64) -> u32;
        pub(super) fn proxy_record_metric(id: u32, value: u64) -> u32;
        pub(super) fn proxy_set_property(
            path: *const u8,
            path_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub(super) fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    }
}

/// Outside a proxy there is no host: every call answers `Unimplemented`.
#[cfg(not(target_family = "wasm"))]
#[allow(clippy::missing_const_for_fn)]
mod raw {
    const UNIMPLEMENTED: u32 = 12;

    macro_rules! absent {
        ($($name:ident($($kind:ty),*);)*) => {
            $(pub(super) unsafe fn $name($(_: $kind),*) -> u32 { UNIMPLEMENTED })*
        };
    }
    absent! {
        proxy_log(u32, *const u8, usize);
        proxy_get_log_level(*mut u32);
        proxy_get_property(*const u8, usize, *mut *mut u8, *mut usize);
        proxy_get_header_map_pairs(u32, *mut *mut u8, *mut usize);
        proxy_replace_header_map_value(u32, *const u8, usize, *const u8, usize);
        proxy_remove_header_map_value(u32, *const u8, usize);
        proxy_get_buffer_bytes(u32, usize, usize, *mut *mut u8, *mut usize);
        proxy_define_metric(u32, *const u8, usize, *mut u32);
        proxy_increment_metric(u32, i64);
        proxy_record_metric(u32, u64);
        proxy_set_property(*const u8, usize, *const u8, usize);
        proxy_set_tick_period_milliseconds(u32);
    }
}

fn check(status: u32) -> Result<(), Status> {
    if status == Status::OK {
        Ok(())
    } else {
        Err(Status(status))
    }
}

/// Takes over a buffer that the host had us allocate.
///
/// # Safety
/// `data` and `size` are what the host wrote after a call that answered `Ok`: null, or a block of exactly `size`
/// bytes from `proxy_on_memory_allocate`, which the SDK makes as a boxed slice, handed over to us alone.
unsafe fn taken(data: *mut u8, size: usize) -> Vec<u8> {
    if data.is_null() || size == 0 {
        return Vec::new();
    }
    // SAFETY: see above; this is the boxed slice that the SDK made.
    unsafe { Box::from_raw(slice_from_raw_parts_mut(data, size)) }.into_vec()
}

/// Writes a line to the proxy's log. What can't be logged can't be reported either.
pub(super) fn log(level: Level, message: &str) {
    // SAFETY: pointer and size describe `message`, which the host only reads.
    let _ = unsafe { raw::proxy_log(level as u32, message.as_ptr(), message.len()) };
}

/// The least level that the proxy's log shows, as a number of [`Level`].
pub(super) fn log_level() -> Result<u32, Status> {
    let mut level = 0;
    // SAFETY: the host writes one u32.
    check(unsafe { raw::proxy_get_log_level(&raw mut level) })?;
    Ok(level)
}

/// The value of an attribute, by its path with NUL between the segments; nothing where it has none.
pub(super) fn property(path: &str) -> Result<Option<Vec<u8>>, Status> {
    let mut data = null_mut();
    let mut size = 0;
    // SAFETY: `path` is only read; the host writes one pointer and one size.
    let status =
        unsafe { raw::proxy_get_property(path.as_ptr(), path.len(), &raw mut data, &raw mut size) };
    match check(status) {
        // SAFETY: the call answered `Ok`.
        Ok(()) => Ok(Some(unsafe { taken(data, size) })),
        Err(Status::NOT_FOUND) => Ok(None),
        Err(status) => Err(status),
    }
}

/// All request headers, in proxy-wasm's serialized form; see [`super::pairs`].
pub(super) fn request_headers() -> Result<Vec<u8>, Status> {
    let mut data = null_mut();
    let mut size = 0;
    // SAFETY: the host writes one pointer and one size.
    check(unsafe {
        raw::proxy_get_header_map_pairs(HTTP_REQUEST_HEADERS, &raw mut data, &raw mut size)
    })?;
    // SAFETY: the call answered `Ok`.
    Ok(unsafe { taken(data, size) })
}

/// Gives a request header this value, on one line.
pub(super) fn set_request_header(name: &str, value: &str) -> Result<(), Status> {
    // SAFETY: `name` and `value` are only read.
    check(unsafe {
        raw::proxy_replace_header_map_value(
            HTTP_REQUEST_HEADERS,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

/// Removes all lines of a request header.
pub(super) fn remove_request_header(name: &[u8]) -> Result<(), Status> {
    // SAFETY: `name` is only read.
    check(unsafe {
        raw::proxy_remove_header_map_value(HTTP_REQUEST_HEADERS, name.as_ptr(), name.len())
    })
}

/// The plugin configuration's text; empty where there is none.
pub(super) fn plugin_configuration(size: usize) -> Result<Vec<u8>, Status> {
    let mut data = null_mut();
    let mut taken_size = 0;
    // SAFETY: the host writes one pointer and one size.
    let status = unsafe {
        raw::proxy_get_buffer_bytes(
            PLUGIN_CONFIGURATION,
            0,
            size,
            &raw mut data,
            &raw mut taken_size,
        )
    };
    match check(status) {
        // SAFETY: the call answered `Ok`.
        Ok(()) => Ok(unsafe { taken(data, taken_size) }),
        Err(Status::NOT_FOUND) => Ok(Vec::new()),
        Err(status) => Err(status),
    }
}

/// The number of a metric, defined now or before.
pub(super) fn define_metric(metric: Metric, name: &str) -> Result<u32, Status> {
    let mut id = 0;
    // SAFETY: `name` is only read; the host writes one u32.
    check(unsafe {
        raw::proxy_define_metric(metric as u32, name.as_ptr(), name.len(), &raw mut id)
    })?;
    Ok(id)
}

/// Adds to a counter.
pub(super) fn increment_counter(id: u32, by: u64) -> Result<(), Status> {
    // SAFETY: no memory is passed.
    check(unsafe { raw::proxy_increment_metric(id, by.cast_signed()) })
}

/// Sets a gauge.
pub(super) fn record_gauge(id: u32, value: u64) -> Result<(), Status> {
    // SAFETY: no memory is passed.
    check(unsafe { raw::proxy_record_metric(id, value) })
}

/// Puts a text into the stream's filter state, where Envoy keeps it under `wasm.` and this name.
pub(super) fn set_filter_state(name: &str, value: &str) -> Result<(), Status> {
    // SAFETY: `name` and `value` are only read.
    check(unsafe {
        raw::proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

/// Has `on_tick` called at this period.
pub(super) fn set_tick_period(milliseconds: u32) -> Result<(), Status> {
    // SAFETY: no memory is passed.
    check(unsafe { raw::proxy_set_tick_period_milliseconds(milliseconds) })
}
