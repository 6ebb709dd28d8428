//! Takes out of the linked module what Envoy would call for nothing.
//!
//! The SDK exports every callback of the proxy-wasm ABI, and Envoy enters the module for each one that is exported:
//! for response headers, bodies and the log of every request, although this filter has nothing to do there. An export
//! can't be left out when linking, since the SDK marks them all as such; so they are removed here, with the code that
//! only they lead to.

use std::path::Path;
use std::process::ExitCode;

use walrus::{Module, ModuleConfig};

/// What Envoy needs of this filter.
const EXPORTS: &[&str] = &[
    "memory",
    "_initialize",
    "proxy_abi_version_0_2_1",
    "proxy_on_memory_allocate",
    "proxy_on_context_create",
    "proxy_on_vm_start",
    "proxy_on_configure",
    "proxy_on_tick",
    "proxy_on_request_headers",
    "proxy_on_delete",
];

/// Where Envoy has functions to import; a module that asks for others isn't loaded.
const IMPORT_MODULES: &[&str] = &["env", "wasi_snapshot_preview1"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = arguments.as_slice() else {
        eprintln!("usage: trim-module LINKED.wasm TRIMMED.wasm");
        return ExitCode::from(2);
    };
    match trim(Path::new(from), Path::new(to)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {from}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn trim(from: &Path, to: &Path) -> Result<(), String> {
    let mut module = ModuleConfig::new()
        .generate_name_section(false)
        .generate_producers_section(false)
        .parse_file(from)
        .map_err(|error| format!("not a module: {error:#}"))?;
    for import in module.imports.iter() {
        if !IMPORT_MODULES.contains(&import.module.as_str()) {
            return Err(format!(
                "imports {}.{}, which Envoy doesn't have",
                import.module, import.name
            ));
        }
    }
    for name in EXPORTS {
        if !module.exports.iter().any(|export| export.name == *name) {
            return Err(format!("doesn't export {name}"));
        }
    }
    remove_other_exports(&mut module);
    walrus::passes::gc::run(&mut module);
    module
        .emit_wasm_file(to)
        .map_err(|error| format!("can't be written to {}: {error:#}", to.display()))
}

fn remove_other_exports(module: &mut Module) {
    let unused: Vec<_> = module
        .exports
        .iter()
        .filter(|export| !EXPORTS.contains(&export.name.as_str()))
        .map(walrus::Export::id)
        .collect();
    for export in unused {
        module.exports.delete(export);
    }
}
