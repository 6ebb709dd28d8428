//! trusted-lb makes an Envoy or Istio gateway behave correctly behind a TLS-terminating load balancer.
//!
//! A request is decided in three steps, one module each:
//!
//! - [`config`] reads the plugin configuration: strictly, with every problem named at its place.
//! - [`engine`] decides: who the peer is, whether it may speak for the client's scheme, which headers follow from
//!   that. It is pure: it knows no host and no SDK.
//! - [`filter`] is the glue to Envoy: it hands requests to the engine and applies what was decided.
//!
//! With the feature `cli` there is also the command, which checks and explains configurations by the same code.

#![deny(unsafe_code)]

#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod engine;
pub mod filter;

// The SDK's macro defines `_initialize` with `#[no_mangle]`, which counts as unsafe.
#[cfg(target_family = "wasm")]
#[allow(unsafe_code, missing_docs)]
mod entry {
    proxy_wasm::main! {{ crate::filter::start(); }}
}
