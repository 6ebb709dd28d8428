//! What EnvoyFilters and Envoy Gateway's patches do to the connection manager.

use super::manager::{Manager, filter_state, reads_proxy_protocol};
use super::{Resource, has_proxy_protocol, route_headers};
use crate::cli::files::Located;

/// Applies an `EnvoyFilter` of Istio's. Tells whether it changed anything.
pub(super) fn istio(filter: &Resource, manager: &mut Manager) -> bool {
    let before = manager.clone();
    for patch in filter.items(&["spec", "configPatches"]) {
        let text = |path: &[&str]| patch.at(path).and_then(Located::text);
        let context = text(&["match", "context"]).unwrap_or("ANY");
        if context.starts_with("SIDECAR") || text(&["patch", "operation"]) == Some("REMOVE") {
            continue;
        }
        if let Some(value) = patch.at(&["patch", "value"]) {
            apply(value, manager, 0);
        }
    }
    *manager != before
}

/// Applies a policy of Envoy Gateway's with JSON patches.
pub(super) fn envoy_gateway(policy: &Resource, manager: &mut Manager) {
    for patch in policy.items(&["spec", "jsonPatches"]) {
        let Some(operation) = patch.get("operation") else {
            continue;
        };
        let text = |name: &str| operation.get(name).and_then(Located::text);
        if text("op") == Some("remove") {
            continue;
        }
        let Some(value) = operation.get("value") else {
            continue;
        };
        apply(value, manager, 0);
        // The path names the field that the value is for.
        let path = text("path")
            .or_else(|| text("jsonPath"))
            .unwrap_or_default();
        let added =
            path.contains("request_headers_to_add") && route_headers::added(value).is_some();
        manager.routes_change_scheme |= added || route_headers::changed(value).is_some();
        if path.contains("early_header_mutation_extensions") {
            manager.early_header_mutation = true;
        }
        if path.ends_with("/use_remote_address")
            && let Some(on) = value.boolean()
        {
            manager.use_remote_address = on;
        }
    }
}

/// Deeper than any filter stands in a listener.
const MOST_LEVELS: usize = 12;

/// Looks for the messages that matter in a patch's value.
fn apply(value: &Located, manager: &mut Manager, depth: usize) {
    if depth > MOST_LEVELS {
        return;
    }
    if let Some((
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        message,
    )) = value.any()
    {
        manager.merge(message);
    }
    manager.proxy_protocol |= reads_proxy_protocol(value)
        || value
            .proto("listener_filters")
            .is_some_and(has_proxy_protocol);
    manager.filter_state.extend(filter_state(value));
    for field in value.fields() {
        apply(&field.value, manager, depth + 1);
    }
    for item in value.items() {
        apply(item, manager, depth + 1);
    }
}
