//! What Envoy calls: the callbacks of proxy-wasm ABI 0.2.1 that this filter has something to do in.
//!
//! Envoy enters the module for every callback that it exports, for each response, body and log of every request too. The
//! usual SDK exports them all, finds the stream in a map each time, and panics where Envoy's order isn't what it
//! expects; without it the filter has these few and is smaller by a tenth. What that saved is in `docs/performance.md`.

// Exporting a symbol counts as unsafe: two of the same name would clash.
#![allow(unsafe_code)]

use super::{host, log, streams};

/// Runs once, before everything else; only a few host calls are allowed in it.
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    host::construct();
    log::install();
}

/// Tells Envoy the ABI. It is looked for, never called.
#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

/// The VM starts. It has no configuration of its own.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(_root: u32, _configuration_size: usize) -> bool {
    true
}

/// A stream begins, or, without a root, a plugin configuration does.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(context: u32, root: u32) {
    streams::create(context, root);
}

/// There is a plugin configuration of that many bytes. False refuses it.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(root: u32, configuration_size: usize) -> bool {
    streams::root(root).is_some_and(|root| root.configure(configuration_size))
}

/// A period has passed, as asked for when configured.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(root: u32) {
    if let Some(root) = streams::root(root) {
        root.tick();
    }
}

/// The request headers are there. 0 lets the request go on.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(stream: u32, _headers: usize, _end: bool) -> u32 {
    if let Some(configured) = streams::take(stream) {
        configured.on_request_headers();
    }
    0
}

/// A stream or a plugin configuration is gone.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context: u32) {
    streams::delete(context);
}
