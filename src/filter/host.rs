//! Calls to the proxy-wasm host, ABI 0.2.1: the only file with unsafe code.
//!
//! Why not an SDK's: the Rust one panics on every status that it doesn't expect, and a panic ends the VM for every later
//! request; its text accessors panic on a byte that isn't UTF-8; and header maps come as one allocation a header. Here a
//! failing call is a value, bytes stay bytes, and a header map is one buffer that is read in place.

#![allow(unsafe_code)]

use std::alloc::Layout;
use std::cell::{Cell, UnsafeCell};
use std::ptr::null_mut;
use std::slice::from_raw_parts;

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

/// Bytes that the host had us allocate and wrote.
///
/// Most lie in one arena: a request needs a few of them for a moment, and one after the other there costs next to
/// nothing.
#[derive(Debug)]
pub(super) struct Buffer {
    data: *mut u8,
    size: usize,
}

/// More than the headers of nearly every request take.
const ARENA_SIZE: usize = 16 * 1024;

#[repr(align(8))]
struct Arena {
    bytes: UnsafeCell<[u8; ARENA_SIZE]>,
    /// What is given out of it, from its beginning.
    used: Cell<usize>,
    /// How many buffers lie in it.
    buffers: Cell<usize>,
}

thread_local! {
    static ARENA: Arena = const {
        Arena {
            bytes: UnsafeCell::new([0; ARENA_SIZE]),
            used: Cell::new(0),
            buffers: Cell::new(0),
        }
    };
}

impl Arena {
    fn start(&self) -> *mut u8 {
        self.bytes.get().cast()
    }

    fn holds(&self, data: *mut u8) -> bool {
        data.addr().wrapping_sub(self.start().addr()) < ARENA_SIZE
    }

    /// Room for that many bytes, where there is.
    fn allocate(&self, size: usize) -> Option<*mut u8> {
        // Nobody has what was given out before: the host calls that it was for failed.
        if self.buffers.get() == 0 {
            self.used.set(0);
        }
        let from = self.used.get();
        let to = from.checked_add(size)?.checked_next_multiple_of(8)?;
        if to > ARENA_SIZE {
            return None;
        }
        self.used.set(to);
        Some(self.start().wrapping_add(from))
    }
}

/// The host is about to write that many bytes for us, and to tell us where in the call that it is answering. Null where
/// there is no memory.
#[cfg_attr(target_family = "wasm", unsafe(no_mangle))]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    ARENA.with(|arena| match arena.allocate(size) {
        Some(data) => data,
        None => match Layout::array::<u8>(size) {
            // SAFETY: it isn't of size 0, for which there is always room in the arena.
            Ok(layout) => unsafe { std::alloc::alloc(layout) },
            Err(_) => null_mut(),
        },
    })
}

impl Buffer {
    /// Takes over what the host wrote.
    ///
    /// # Safety
    /// `data` and `size` are what the host wrote after a call that answered `Ok`: null, or a block of exactly `size`
    /// bytes from [`proxy_on_memory_allocate`], handed over to us alone.
    unsafe fn taken(data: *mut u8, size: usize) -> Self {
        if data.is_null() || size == 0 {
            return Self::default();
        }
        ARENA.with(|arena| {
            if arena.holds(data) {
                arena.buffers.set(arena.buffers.get() + 1);
            }
        });
        Self { data, size }
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self {
            data: null_mut(),
            size: 0,
        }
    }
}

impl AsRef<[u8]> for Buffer {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        if self.data.is_null() {
            return &[];
        }
        // SAFETY: `size` bytes from there are ours until `self` is dropped; nobody writes to them.
        unsafe { from_raw_parts(self.data, self.size) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.data.is_null() {
            return;
        }
        ARENA.with(|arena| {
            if arena.holds(self.data) {
                arena.buffers.set(arena.buffers.get().saturating_sub(1));
            } else if let Ok(layout) = Layout::array::<u8>(self.size) {
                // SAFETY: outside the arena it is from `alloc` with this layout.
                unsafe { std::alloc::dealloc(self.data, layout) };
            }
        });
    }
}

/// Runs what the linker has for the start of a module: the libc's constructors.
#[cfg(target_family = "wasm")]
pub(super) fn construct() {
    unsafe extern "C" {
        fn __wasm_call_ctors();
    }
    // SAFETY: called once, from `_initialize`, before anything else runs.
    unsafe { __wasm_call_ctors() };
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
pub(super) fn property(path: &str) -> Result<Option<Buffer>, Status> {
    let mut data = null_mut();
    let mut size = 0;
    // SAFETY: `path` is only read; the host writes one pointer and one size.
    let status =
        unsafe { raw::proxy_get_property(path.as_ptr(), path.len(), &raw mut data, &raw mut size) };
    match check(status) {
        // SAFETY: the call answered `Ok`.
        Ok(()) => Ok(Some(unsafe { Buffer::taken(data, size) })),
        Err(Status::NOT_FOUND) => Ok(None),
        Err(status) => Err(status),
    }
}

/// All request headers, in proxy-wasm's serialized form; see [`super::pairs`].
pub(super) fn request_headers() -> Result<Buffer, Status> {
    let mut data = null_mut();
    let mut size = 0;
    // SAFETY: the host writes one pointer and one size.
    check(unsafe {
        raw::proxy_get_header_map_pairs(HTTP_REQUEST_HEADERS, &raw mut data, &raw mut size)
    })?;
    // SAFETY: the call answered `Ok`.
    Ok(unsafe { Buffer::taken(data, size) })
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
pub(super) fn plugin_configuration(size: usize) -> Result<Buffer, Status> {
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
        Ok(()) => Ok(unsafe { Buffer::taken(data, taken_size) }),
        Err(Status::NOT_FOUND) => Ok(Buffer::default()),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What the host does: allocates, writes, hands over.
    fn written(bytes: &[u8]) -> Buffer {
        let data = proxy_on_memory_allocate(bytes.len());
        assert!(!data.is_null());
        // SAFETY: the block is that large, and nobody else has it.
        unsafe {
            data.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            Buffer::taken(data, bytes.len())
        }
    }

    fn in_arena() -> (usize, usize) {
        ARENA.with(|arena| (arena.buffers.get(), arena.used.get()))
    }

    #[test]
    fn buffers_keep_their_bytes_until_they_are_dropped_wherever_they_lie() {
        let long = vec![7; ARENA_SIZE + 1];
        let buffers: Vec<(Vec<u8>, Buffer)> = (0..300_u16)
            .map(|n| {
                let bytes = vec![n.to_le_bytes()[0]; usize::from(n)];
                let buffer = written(&bytes);
                (bytes, buffer)
            })
            .chain([(long.clone(), written(&long))])
            .collect();
        for (bytes, buffer) in &buffers {
            assert_eq!(bytes, buffer.as_ref());
        }
        assert!(in_arena().0 > 100);
        drop(buffers);
        assert_eq!(in_arena().0, 0);
    }

    #[test]
    fn the_arena_is_used_from_its_beginning_again_once_nobody_has_any_of_it() {
        let first = written(b"first");
        let second = written(b"second");
        drop(first);
        assert_eq!(in_arena(), (1, 16));
        assert_eq!(second.as_ref(), b"second");
        drop(second);
        let third = written(b"third");
        assert_eq!(in_arena(), (1, 8));
        assert_eq!(third.as_ref(), b"third");
    }

    #[test]
    fn room_that_a_failed_call_asked_for_comes_back() {
        for _ in 0..10 {
            assert!(!proxy_on_memory_allocate(ARENA_SIZE / 2).is_null());
        }
        drop(written(b"x"));
        assert_eq!(in_arena(), (0, 8));
    }

    #[test]
    fn nothing_is_an_empty_buffer() {
        // SAFETY: null is allowed.
        let nothing = unsafe { Buffer::taken(null_mut(), 0) };
        assert!(nothing.as_ref().is_empty());
        assert!(written(b"").as_ref().is_empty());
        assert!(Buffer::default().as_ref().is_empty());
    }
}
