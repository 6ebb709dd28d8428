//! The filter as Envoy runs it. Only this module knows proxy-wasm.
//!
//! The `proxy-wasm` crate carries the life cycle: it exports the callbacks, keeps one [`Root`] for each plugin
//! configuration and one [`stream::Stream`] for each request, and calls them. Calls in the other direction, from the
//! filter to Envoy, are in [`host`].
//!
//! Of the callbacks that the crate exports, Envoy needs the few that do something here. `scripts/wasm-linker` leaves the
//! others out of the module: Envoy would enter the module for each of them, with every response, body and log of every
//! request.

// Every file but `host` forbids unsafe code, here and in `lib.rs`: the compiler refuses it there, whatever a file allows
// for itself.
#[forbid(unsafe_code)]
mod counters;
#[allow(unsafe_code)]
mod host;
#[forbid(unsafe_code)]
mod log;
#[forbid(unsafe_code)]
mod pairs;
#[forbid(unsafe_code)]
mod rate_limit;
#[forbid(unsafe_code)]
mod report;
#[forbid(unsafe_code)]
mod root;
#[forbid(unsafe_code)]
mod shared;
#[forbid(unsafe_code)]
mod stream;

use root::Root;

// Runs once in each VM, before anything else. Few host calls are allowed in it.
proxy_wasm::main! {{
    log::install();
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}
