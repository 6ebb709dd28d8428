//! Envoy's own filters and messages, as JSON.

// Values are handed over to become parts of others.
#![allow(clippy::needless_pass_by_value)]

use serde_json::{Map, Value, json};

/// The connection manager's message.
pub(super) const MANAGER: &str =
    "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
/// The name under which the connection manager stands in a filter chain.
pub(super) const MANAGER_NAME: &str = "envoy.filters.network.http_connection_manager";

/// A message of Envoy's, by its name below `envoy.`, with these fields.
pub(super) fn typed(message: &str, fields: Value) -> Value {
    let mut object = Map::new();
    object.insert(
        "@type".to_owned(),
        format!("type.googleapis.com/envoy.{message}").into(),
    );
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    Value::Object(object)
}

pub(super) fn named(name: &str, typed_config: Value) -> Value {
    json!({"name": name, "typed_config": typed_config})
}

/// The network filter that writes filter state once a connection, in this order.
pub(super) fn set_filter_state(objects: &[(String, String)]) -> Value {
    let objects: Vec<Value> = objects
        .iter()
        .map(|(key, format)| {
            json!({
                "object_key": key,
                "factory_key": "envoy.string",
                "format_string": {"text_format_source": {"inline_string": format}},
            })
        })
        .collect();
    named(
        "envoy.filters.network.set_filter_state",
        typed(
            "extensions.filters.network.set_filter_state.v3.Config",
            json!({"on_new_connection": objects}),
        ),
    )
}

/// What a mutation does where the header is there already.
#[derive(Clone, Copy)]
pub(super) enum Existing {
    Overwrite,
    Keep,
}

pub(super) fn write(name: &str, format: &str, existing: Existing) -> Value {
    let action = match existing {
        Existing::Overwrite => "OVERWRITE_IF_EXISTS_OR_ADD",
        Existing::Keep => "ADD_IF_ABSENT",
    };
    json!({"append": {"header": {"key": name, "value": format}, "append_action": action}})
}

/// Text that the formatter leaves as it is.
pub(super) fn literal(text: &str) -> String {
    text.replace('%', "%%")
}

pub(super) fn remove(name: &str) -> Value {
    json!({"remove": name})
}

/// Removes every header whose name is matched as a whole: one pass over the headers, however many names.
pub(super) fn remove_matching(pattern: &str) -> Value {
    json!({"remove_on_match": {"key_matcher": {"safe_regex": {"regex": pattern}}}})
}

pub(super) fn early_mutation(mutations: &[Value]) -> Value {
    named(
        "envoy.http.early_header_mutation.header_mutation",
        typed(
            "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            json!({"mutations": mutations}),
        ),
    )
}

pub(super) fn header_mutation(name: &str, mutations: &[Value]) -> Value {
    named(
        name,
        typed(
            "extensions.filters.http.header_mutation.v3.HeaderMutation",
            json!({"mutations": {"request_mutations": mutations}}),
        ),
    )
}

/// A filter that refuses every request with 403.
pub(super) fn deny(name: &str) -> Value {
    named(
        name,
        typed(
            "extensions.filters.http.rbac.v3.RBAC",
            json!({"rules": {"action": "ALLOW", "policies": {}}}),
        ),
    )
}

/// A filter that has the route chosen again: what was decided now counts for redirects.
pub(super) fn choose_route_again(name: &str) -> Value {
    named(
        name,
        typed(
            "extensions.filters.http.set_filter_state.v3.Config",
            json!({
                "clear_route_cache": true,
                "on_request_headers": [{
                    "object_key": "trusted-lb.route",
                    "factory_key": "envoy.string",
                    "format_string": {"text_format_source": {"inline_string": "again"}},
                }],
            }),
        ),
    )
}

/// A filter that runs another one, or none, as a match tree says.
///
/// As `ExtensionWithMatcher`: Envoy 1.38 takes a matcher inside of `Composite` and ignores it.
pub(super) fn composite(name: &str, matcher: &Value) -> Value {
    let composite = typed("extensions.filters.http.composite.v3.Composite", json!({}));
    named(
        name,
        typed(
            "extensions.common.matching.v3.ExtensionWithMatcher",
            json!({"extension_config": named(name, composite), "xds_matcher": matcher}),
        ),
    )
}

/// The action of a [`composite`]'s tree.
pub(super) fn execute(filter: &Value) -> Value {
    json!({"action": named(
        "trusted-lb",
        typed("extensions.filters.http.composite.v3.ExecuteFilterAction", json!({"typed_config": filter})),
    )})
}

pub(super) fn header_input(name: &str) -> Value {
    named(
        "header",
        typed(
            "type.matcher.v3.HttpRequestHeaderMatchInput",
            json!({"header_name": name}),
        ),
    )
}

pub(super) fn filter_state_input(key: &str) -> Value {
    named(
        "filter-state",
        typed(
            "extensions.matching.common_inputs.network.v3.FilterStateInput",
            json!({"key": key}),
        ),
    )
}

/// A match tree by the exact value of an input.
pub(super) fn tree(input: &Value, map: Map<String, Value>, otherwise: Option<Value>) -> Value {
    let mut matcher = json!({"matcher_tree": {"input": input, "exact_match_map": {"map": map}}});
    if let (Some(otherwise), Value::Object(fields)) = (otherwise, &mut matcher) {
        fields.insert("on_no_match".to_owned(), otherwise);
    }
    matcher
}

/// What happens on a match: a tree further down, as `on_match` and `on_no_match` take it.
pub(super) fn go_on(matcher: Value) -> Value {
    json!({"matcher": matcher})
}
