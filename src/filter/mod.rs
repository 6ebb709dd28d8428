//! The glue to Envoy: the only place that knows proxy-wasm.
//!
//! `abi` is what Envoy calls, `host` what is called in Envoy.

#[cfg(target_family = "wasm")]
mod abi;
mod counters;
mod host;
mod log;
mod pairs;
mod report;
mod request;
mod root;
mod streams;
mod trouble;
