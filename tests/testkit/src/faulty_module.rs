//! The built module with a fault that it doesn't have, to see what Envoy makes of such faults.

use walrus::ir::BinaryOp;

/// Requests with more header lines than this end the VM; see [`trapping`].
pub const MOST_HEADERS: i32 = 40;

/// The module, ending in a trap on any request with more than [`MOST_HEADERS`] header lines.
///
/// # Panics
/// Where the bytes are no module of this filter.
#[must_use]
pub fn trapping(module: &[u8]) -> Vec<u8> {
    let mut module = walrus::Module::from_buffer(module).expect("it is a module");
    let decide = module
        .exports
        .get_func("proxy_on_request_headers")
        .expect("it takes request headers");
    module
        .replace_exported_func(decide, |(body, arguments)| {
            body.local_get(arguments[1])
                .i32_const(MOST_HEADERS)
                .binop(BinaryOp::I32GtS)
                .if_else(None, |then| _ = then.unreachable(), |_| {});
            for argument in arguments {
                body.local_get(*argument);
            }
            body.call(decide);
        })
        .expect("the function is the module's own");
    module.emit_wasm()
}
