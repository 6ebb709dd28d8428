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
// Only Envoy calls it.
#[cfg_attr(not(target_family = "wasm"), allow(dead_code))]
pub mod filter;
