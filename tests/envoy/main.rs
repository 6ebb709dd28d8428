//! The built module in a real Envoy.

// A test ends when something is not as expected.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod applications;
mod attacks;
mod examples;
mod fail_modes;
mod hot_configuration;
mod lua;
mod native_forms;
mod operations;
mod requests;
mod soak;
mod trust;
