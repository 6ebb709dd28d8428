//! The glue to Envoy: the only place that knows proxy-wasm.

mod counters;
mod host;
mod log;
mod pairs;
mod report;
mod request;
mod root;
mod trouble;

/// Registers the plugin with the SDK; called once when the VM starts.
pub fn start() {
    log::install();
    proxy_wasm::set_root_context(|_| Box::new(root::Root::default()));
}
