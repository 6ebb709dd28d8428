//! The built module in an in-process proxy-wasm host.

// A test ends when something is not as expected.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod behaviour;
mod budgets;
mod faults;
mod life_cycle;
