//! The filter's calls to the proxy-wasm host, ABI 0.2.1. This is the only file with unsafe code.
//!
//! The `proxy-wasm` crate has functions for the same calls. The filter doesn't use them, for two reasons:
//!
//! - **They can trap, and a trap ends the VM for every later request.** Their C declarations return the crate's
//!   `Status`, an enum that lists eight of proxy-wasm's statuses: any other number is undefined behaviour. Most of
//!   them also panic on a status that they don't expect, and so does the crate's logger.
//! - **They cost.** They return a header map as a list of allocated strings, join an attribute's path from its parts
//!   for every call, and panic on a name or value that isn't UTF-8.
//!
//! Here a status is a number, a call that fails is an `Err`, bytes stay bytes, and what the host hands out is read in
//! place. Each function says what its counterpart in the crate would do. The crate's types for the parameters are used.
//! `docs/decisions/0001-proxy-wasm-crate-and-raw-calls.md` has the figures.

use std::ptr::{null_mut, slice_from_raw_parts_mut};

use proxy_wasm::types::{BufferType, Bytes, LogLevel, MapType, MetricType};

/// A host call's answer other than `Ok`: proxy-wasm's status number.
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

#[cfg(target_family = "wasm")]
mod raw {
    use super::{BufferType, LogLevel, MapType, MetricType};

    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        pub(super) fn proxy_log(level: LogLevel, message: *const u8, size: usize) -> u32;
        pub(super) fn proxy_get_log_level(level: *mut u32) -> u32;
        pub(super) fn proxy_get_property(
            path: *const u8,
            path_size: usize,
            value: *mut *mut u8,
            value_size: *mut usize,
        ) -> u32;
        pub(super) fn proxy_get_header_map_pairs(
            map: MapType,
            pairs: *mut *mut u8,
            pairs_size: *mut usize,
        ) -> u32;
        pub(super) fn proxy_replace_header_map_value(
            map: MapType,
            name: *const u8,
            name_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub(super) fn proxy_remove_header_map_value(
            map: MapType,
            name: *const u8,
            name_size: usize,
        ) -> u32;
        pub(super) fn proxy_get_buffer_bytes(
            buffer: BufferType,
            start: usize,
            max_size: usize,
            data: *mut *mut u8,
            data_size: *mut usize,
        ) -> u32;
        pub(super) fn proxy_define_metric(
            kind: MetricType,
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
        pub(super) fn proxy_send_local_response(
            status: u32,
            details: *const u8,
            details_size: usize,
            body: *const u8,
            body_size: usize,
            headers: *const u8,
            headers_size: usize,
            grpc_status: i32,
        ) -> u32;
    }
}

/// Unit tests run without a host: every call answers `Unimplemented`.
#[cfg(not(target_family = "wasm"))]
#[allow(clippy::missing_const_for_fn)]
mod raw {
    use super::{BufferType, LogLevel, MapType, MetricType};

    const UNIMPLEMENTED: u32 = 12;

    macro_rules! absent {
        ($($name:ident($($kind:ty),*);)*) => {
            $(#[allow(clippy::too_many_arguments)] // As the ABI has them.
            pub(super) unsafe fn $name($(_: $kind),*) -> u32 { UNIMPLEMENTED })*
        };
    }
    absent! {
        proxy_log(LogLevel, *const u8, usize);
        proxy_get_log_level(*mut u32);
        proxy_get_property(*const u8, usize, *mut *mut u8, *mut usize);
        proxy_get_header_map_pairs(MapType, *mut *mut u8, *mut usize);
        proxy_replace_header_map_value(MapType, *const u8, usize, *const u8, usize);
        proxy_remove_header_map_value(MapType, *const u8, usize);
        proxy_get_buffer_bytes(BufferType, usize, usize, *mut *mut u8, *mut usize);
        proxy_define_metric(MetricType, *const u8, usize, *mut u32);
        proxy_increment_metric(u32, i64);
        proxy_record_metric(u32, u64);
        proxy_set_property(*const u8, usize, *const u8, usize);
        proxy_set_tick_period_milliseconds(u32);
        proxy_send_local_response(u32, *const u8, usize, *const u8, usize, *const u8, usize, i32);
    }
}

fn check(status: u32) -> Result<(), Status> {
    if status == Status::OK {
        Ok(())
    } else {
        Err(Status(status))
    }
}

/// Takes over the bytes that a host call handed out.
///
/// # Safety
/// `data` and `size` are what the host wrote in a call that answered `Ok`: null, or a block of exactly `size` bytes
/// that it got from the crate's `proxy_on_memory_allocate`, handed over to us alone. That function gives out boxed
/// slices.
unsafe fn taken(data: *mut u8, size: usize) -> Bytes {
    if data.is_null() {
        return Bytes::new();
    }
    // SAFETY: as above; nobody else has the block.
    unsafe { Box::from_raw(slice_from_raw_parts_mut(data, size)) }.into_vec()
}

/// Writes a line to the proxy's log. If the host refuses the line, there is nobody else to tell.
///
/// The crate's `log` panics then, and so does its logger.
pub(super) fn log(level: LogLevel, message: &str) {
    // SAFETY: pointer and size describe `message`, which the host only reads.
    let _ = unsafe { raw::proxy_log(level, message.as_ptr(), message.len()) };
}

/// The lowest level that the proxy's log shows, as the number of a [`LogLevel`].
///
/// The crate's `get_log_level` has the host write into an enum: a level that isn't listed is undefined behaviour.
///
/// # Errors
/// The host's status.
pub(super) fn log_level() -> Result<u32, Status> {
    let mut level = 0;
    // SAFETY: the host writes one u32.
    check(unsafe { raw::proxy_get_log_level(&raw mut level) })?;
    Ok(level)
}

/// The value of an attribute, by its path with NUL between the segments, or nothing if it has none.
///
/// The crate's `get_property` builds the path from its parts for every call, and panics on a status that it doesn't
/// expect.
///
/// # Errors
/// The host's status.
pub(super) fn property(path: &str) -> Result<Option<Bytes>, Status> {
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
///
/// The crate's `get_map_bytes` copies each name and each value into an allocation of its own, panics on a name that
/// isn't UTF-8, and panics if the buffer is shorter than it says.
///
/// # Errors
/// The host's status.
pub(super) fn request_headers() -> Result<Bytes, Status> {
    let mut data = null_mut();
    let mut size = 0;
    // SAFETY: the host writes one pointer and one size.
    check(unsafe {
        raw::proxy_get_header_map_pairs(MapType::HttpRequestHeaders, &raw mut data, &raw mut size)
    })?;
    // SAFETY: the call answered `Ok`.
    Ok(unsafe { taken(data, size) })
}

/// Sets a request header to this one value.
///
/// The crate's `set_map_value` panics on any status but `Ok`.
///
/// # Errors
/// The host's status.
pub(super) fn set_request_header(name: &str, value: &str) -> Result<(), Status> {
    // SAFETY: `name` and `value` are only read.
    check(unsafe {
        raw::proxy_replace_header_map_value(
            MapType::HttpRequestHeaders,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

/// Removes all values of a request header.
///
/// The crate's `remove_map_value` takes text, but a name may have any byte. It panics on any status but `Ok`.
///
/// # Errors
/// The host's status.
pub(super) fn remove_request_header(name: &[u8]) -> Result<(), Status> {
    // SAFETY: `name` is only read.
    check(unsafe {
        raw::proxy_remove_header_map_value(MapType::HttpRequestHeaders, name.as_ptr(), name.len())
    })
}

/// The first `size` bytes of the plugin configuration; empty if there is none.
///
/// The crate's `get_buffer` panics on a status that it doesn't expect.
///
/// # Errors
/// The host's status.
pub(super) fn plugin_configuration(size: usize) -> Result<Bytes, Status> {
    let mut data = null_mut();
    let mut taken_size = 0;
    // SAFETY: the host writes one pointer and one size.
    let status = unsafe {
        raw::proxy_get_buffer_bytes(
            BufferType::PluginConfiguration,
            0,
            size,
            &raw mut data,
            &raw mut taken_size,
        )
    };
    match check(status) {
        // SAFETY: the call answered `Ok`.
        Ok(()) => Ok(unsafe { taken(data, taken_size) }),
        Err(Status::NOT_FOUND) => Ok(Bytes::new()),
        Err(status) => Err(status),
    }
}

/// The number of a metric, which is defined if it wasn't.
///
/// The crate's `define_metric` panics on any status but `Ok`.
///
/// # Errors
/// The host's status.
pub(super) fn define_metric(kind: MetricType, name: &str) -> Result<u32, Status> {
    let mut id = 0;
    // SAFETY: `name` is only read; the host writes one u32.
    check(unsafe { raw::proxy_define_metric(kind, name.as_ptr(), name.len(), &raw mut id) })?;
    Ok(id)
}

/// Adds to a counter.
///
/// The crate's `increment_metric` panics on a status that it doesn't expect.
///
/// # Errors
/// The host's status.
pub(super) fn increment_counter(id: u32, by: u64) -> Result<(), Status> {
    // SAFETY: no memory is passed.
    check(unsafe { raw::proxy_increment_metric(id, by.cast_signed()) })
}

/// Sets a gauge.
///
/// The crate's `record_metric` panics on a status that it doesn't expect.
///
/// # Errors
/// The host's status.
pub(super) fn record_gauge(id: u32, value: u64) -> Result<(), Status> {
    // SAFETY: no memory is passed.
    check(unsafe { raw::proxy_record_metric(id, value) })
}

/// Puts a text into the stream's filter state. Envoy keeps it under `wasm.` and this name.
///
/// The crate's `set_property` panics on any status but `Ok`.
///
/// # Errors
/// The host's status.
pub(super) fn set_filter_state(name: &str, value: &str) -> Result<(), Status> {
    // SAFETY: `name` and `value` are only read.
    check(unsafe {
        raw::proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

/// Answers the request instead of the upstream. gRPC clients get the status that Envoy maps this one to.
///
/// The crate's `send_http_response` panics on any status but `Ok`, and has no parameter for the details.
///
/// # Errors
/// The host's status.
pub(super) fn send_local_response(status: u16, details: &str, body: &str) -> Result<(), Status> {
    /// No gRPC status of our own.
    const NONE: i32 = -1;
    // Four zero bytes are an empty list of headers.
    let headers = [0; 4];
    // SAFETY: `details`, `body` and `headers` are only read.
    check(unsafe {
        raw::proxy_send_local_response(
            status.into(),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            NONE,
        )
    })
}

/// Asks for `on_tick` to be called at this period.
///
/// The crate's `set_tick_period` panics on any status but `Ok`.
///
/// # Errors
/// The host's status.
pub(super) fn set_tick_period(milliseconds: u32) -> Result<(), Status> {
    // SAFETY: no memory is passed.
    check(unsafe { raw::proxy_set_tick_period_milliseconds(milliseconds) })
}
