//! What stands beside a plugin in the same connection manager.

use crate::cli::files::Located;

/// The HTTP filters of a connection manager. Two plugins have the same one if they are in the same list.
#[derive(Debug)]
pub(in crate::cli) struct Chain {
    /// The Lua of its filters.
    pub(in crate::cli) scripts: Vec<Located>,
}

impl Chain {
    /// Reads an `HttpConnectionManager`.
    pub(super) fn read(manager: &Located) -> Self {
        let filters = manager.proto("http_filters");
        Self {
            scripts: filters
                .map(scripts)
                .unwrap_or_default()
                .into_iter()
                .cloned()
                .collect(),
        }
    }
}

/// Deeper than any script stands in a filter.
const MOST_LEVELS: usize = 8;

/// The Lua of filters of Envoy's, anywhere in a value.
pub(in crate::cli) fn scripts(value: &Located) -> Vec<&Located> {
    let mut found = Vec::new();
    collect(value, 0, &mut found);
    found
}

fn collect<'l>(value: &'l Located, depth: usize, found: &mut Vec<&'l Located>) {
    if depth >= MOST_LEVELS {
        return;
    }
    found.extend(value.proto("inline_code"));
    let is_script = value
        .any()
        .is_some_and(|(kind, _)| kind == "envoy.extensions.filters.http.lua.v3.Lua");
    if is_script {
        found.extend(value.proto_at(&["default_source_code", "inline_string"]));
    }
    for field in value.fields() {
        collect(&field.value, depth + 1, found);
    }
    for item in value.items() {
        collect(item, depth + 1, found);
    }
}
