//! What the tests, the demo and the benches of trusted-lb stand on: an in-process proxy-wasm host, a real Envoy, HTTP
//! clients that choose their own source address, and an upstream that shows what it received.

pub mod artifacts;
pub mod cases;
pub mod discovery;
pub mod docker;
pub mod endpoint;
pub mod envoy;
pub mod faulty_module;
pub mod gateway;
pub mod hcm;
pub mod http;
pub mod raw;
pub mod soak;
pub mod upstream;
pub mod wasm_host;
pub mod workloads;

/// Header lines in order: name and value, as bytes.
pub type HeaderLines = Vec<(Vec<u8>, Vec<u8>)>;

/// A text in which each character up to `\xff` stands for that byte, as in HTTP's ISO-8859-1.
#[must_use]
pub fn latin1(text: &str) -> Vec<u8> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).expect("only characters up to \\xff"))
        .collect()
}
