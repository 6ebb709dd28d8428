//! trusted-lb makes an Envoy or Istio gateway behave correctly behind a TLS-terminating load balancer.
//!
//! A request is decided in three steps. Each has a module:
//!
//! - [`config`] reads the plugin configuration. It is strict, and reports every problem with its place.
//! - [`engine`] decides who the direct peer is, whether it may speak for the client's scheme, and which headers follow
//!   from that. It is pure: it knows no host and no SDK.
//! - `filter` connects the engine to Envoy through the `proxy-wasm` crate. It gives requests to the engine and carries
//!   out its decisions. It is part of the Wasm module only.
//!
//! The feature `cli` adds the command, which checks and explains configurations with the same code.

// Unsafe code is in `filter::host` only. Every other module forbids it, so that no file can allow it for itself.
#![deny(unsafe_code)]

#[cfg(feature = "cli")]
#[forbid(unsafe_code)]
pub mod cli;
#[forbid(unsafe_code)]
pub mod config;
#[forbid(unsafe_code)]
pub mod engine;
// Only Envoy can call it.
#[cfg(any(target_family = "wasm", test))]
mod filter;
