//! A real Istio on this machine's loopback: an API server, istiod, and the gateway's agent with its Envoy. README.md beside
//! this crate tells how it is made.

pub mod authorizer;
pub mod cluster;
pub mod envoy_gateway;
pub mod gateway;
pub mod istiod;
pub mod lab;
pub mod load;
pub mod manifest;
pub mod pod;
pub mod process;
pub mod programs;
pub mod registry;
pub mod report;
pub mod wait;
