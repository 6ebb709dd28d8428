//! Test support for trusted-lb: an in-process proxy-wasm host, a real Envoy, HTTP clients and an upstream.
