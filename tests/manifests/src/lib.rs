//! Istio's part in the tests: reads manifests as its types, and makes of them what a gateway of Istio's gets.

pub mod gateway;
pub mod resource;
