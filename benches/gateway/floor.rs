//! Modules that make a workload's calls to Envoy and do nothing else: what no code of ours could be cheaper than.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// One call to Envoy.
#[derive(Clone, Copy)]
pub(crate) enum Call {
    /// All request headers.
    Headers,
    /// An attribute, by its path with NUL between the segments.
    Attribute(&'static str),
    /// A request header is written.
    Set(&'static str, &'static str),
}

const SOURCE: Call = Call::Attribute("source\0address");
const PROTO: Call = Call::Set("x-forwarded-proto", "https");

/// Their names, and the calls that they make.
pub(crate) const FLOORS: &[(&str, &[Call])] = &[
    ("module-empty", &[]),
    ("module-xfp-floor", &[Call::Headers, SOURCE, PROTO]),
    (
        "module-floor",
        &[
            Call::Headers,
            SOURCE,
            PROTO,
            Call::Set(":scheme", "https"),
            Call::Set("x-envoy-upstream-rq-timeout-ms", "15000"),
            Call::Set("x-envoy-max-retries", "2"),
            Call::Set("x-envoy-retry-on", "connect-failure,refused-stream"),
            Call::Set("x-envoy-upstream-rq-per-try-timeout-ms", "5000"),
        ],
    ),
];

/// Writes such a module into a folder.
pub(crate) fn write(folder: &Path, name: &str, calls: &[Call]) -> PathBuf {
    let path = folder.join(format!("{name}.wasm"));
    let bytes = wat::parse_str(text(calls)).expect("the module is well-formed");
    std::fs::write(&path, bytes).expect("the module can be written");
    path
}

/// Texts begin here, what the host allocates behind them; answers are written below.
const TEXTS: usize = 1024;

fn text(calls: &[Call]) -> String {
    let mut data = String::new();
    let mut size = 0;
    let mut place = |text: &str| {
        let place = format!("(i32.const {}) (i32.const {})", TEXTS + size, text.len());
        size += text.len();
        for byte in text.bytes() {
            let _ = write!(data, "\\{byte:02x}");
        }
        place
    };
    let mut body = String::new();
    for call in calls {
        let call = match call {
            Call::Headers => "call $headers (i32.const 0) (i32.const 16) (i32.const 20)".to_owned(),
            Call::Attribute(path) => {
                format!(
                    "call $attribute {} (i32.const 16) (i32.const 20)",
                    place(path)
                )
            }
            Call::Set(name, value) => {
                format!("call $set (i32.const 0) {} {}", place(name), place(value))
            }
        };
        let _ = writeln!(body, "    (drop ({call}))");
    }
    format!(
        r#"(module
  (import "env" "proxy_get_header_map_pairs" (func $headers (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_property" (func $attribute (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_replace_header_map_value" (func $set (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 4)
  (func (export "_initialize"))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_delete") (param i32))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
{body}    (i32.const 0))
  (data (i32.const {TEXTS}) "{data}"))
"#
    )
}
