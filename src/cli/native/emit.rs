//! A plan as what people apply: fields of a listener, an EnvoyFilter, an `EnvoyPatchPolicy`.

use serde_json::{Map, Value, json};

use super::filter_chain::Chain;
use super::filters::{MANAGER, MANAGER_NAME, named, typed};
use super::options::{NativeArgs, Output};
use super::plan::{Form, Plan};
use crate::cli::yaml;
use crate::config::Node;

/// The whole text, with remarks in front.
pub(super) fn manifest(args: &NativeArgs, plan: &Plan, wishes: &[String]) -> String {
    let document = match (args.output, &plan.form) {
        (Output::Envoyfilter, Form::Connection(chain)) => envoy_filter(args, chain),
        (Output::Envoypatchpolicy, Form::Connection(chain)) => patch_policy(args, chain),
        _ => listener(plan),
    };
    let mut out = format!(
        "# What trusted-lb decides, by Envoy's own filters: written by `trusted-lb render native` for Envoy 1.{}.\n",
        args.envoy.minor
    );
    remarks(
        &mut out,
        "It differs from the module in this",
        &plan.differences,
    );
    remarks(&mut out, "It relies on this", wishes);
    out.push_str(&yaml::block(&node(&document), 0));
    out
}

fn remarks(out: &mut String, what: &str, list: &[String]) {
    if list.is_empty() {
        return;
    }
    out.push_str("# ");
    out.push_str(what);
    out.push_str(":\n");
    for remark in list {
        out.push_str("# - ");
        out.push_str(remark);
        out.push('\n');
    }
}

/// Fields of a listener. Routes, other HTTP filters and transport sockets are its owner's.
pub(super) fn listener(plan: &Plan) -> Value {
    let chains: Vec<Value> = match &plan.form {
        Form::Connection(chain) => vec![json!({"filters": filters(chain)})],
        Form::Chains(chains) => chains
            .iter()
            .map(|source| {
                let mut fields = Map::new();
                fields.insert("name".to_owned(), json!(source.name));
                if !source.networks.is_empty() {
                    let ranges: Vec<Value> = source
                        .networks
                        .iter()
                        .map(|net| json!({"address_prefix": net.network().to_string(), "prefix_len": net.prefix_len()}))
                        .collect();
                    fields.insert("filter_chain_match".to_owned(), json!({"direct_source_prefix_ranges": ranges}));
                }
                fields.insert("filters".to_owned(), json!(filters(&source.chain)));
                Value::Object(fields)
            })
            .collect(),
    };
    json!({"filter_chains": chains})
}

fn filters(chain: &Chain) -> Vec<Value> {
    let mut filters = chain.network_filters.clone();
    let mut fields = chain.manager.clone();
    if !chain.http_filters.is_empty() {
        fields.insert("http_filters".to_owned(), json!(chain.http_filters));
    }
    filters.push(named(MANAGER_NAME, typed(MANAGER, Value::Object(fields))));
    filters
}

fn envoy_filter(args: &NativeArgs, chain: &Chain) -> Value {
    let in_manager = json!({
        "context": "GATEWAY",
        "listener": {"filterChain": {"filter": {"name": MANAGER_NAME}}},
    });
    let patch = |apply_to: &str, operation: &str, value: &Value| json!({"applyTo": apply_to, "match": in_manager, "patch": {"operation": operation, "value": value}});
    let mut patches = Vec::new();
    for filter in &chain.network_filters {
        patches.push(patch("NETWORK_FILTER", "INSERT_BEFORE", filter));
    }
    let manager = json!({"name": MANAGER_NAME, "typed_config": typed(MANAGER, Value::Object(chain.manager.clone()))});
    patches.push(patch("NETWORK_FILTER", "MERGE", &manager));
    // Each goes in front of those before it.
    for filter in chain.http_filters.iter().rev() {
        patches.push(patch("HTTP_FILTER", "INSERT_FIRST", filter));
    }
    let labels: Map<String, Value> = args
        .selector
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": args.name, "namespace": args.namespace},
        "spec": {"workloadSelector": {"labels": labels}, "configPatches": patches},
    })
}

fn patch_policy(args: &NativeArgs, chain: &Chain) -> Value {
    let chain_path = if args.tls {
        "/filter_chains/0"
    } else {
        "/default_filter_chain"
    };
    let manager_path = format!(
        "{chain_path}/filters/{}/typed_config",
        chain.network_filters.len()
    );
    let add = |path: &str, value: &Value| {
        json!({
            "type": "type.googleapis.com/envoy.config.listener.v3.Listener",
            "name": format!("{}/{}/{}", args.namespace, args.gateway, args.listener),
            "operation": {"op": "add", "path": path, "value": value},
        })
    };
    let mut patches = Vec::new();
    for filter in chain.network_filters.iter().rev() {
        patches.push(add(&format!("{chain_path}/filters/0"), filter));
    }
    for (field, value) in &chain.manager {
        match (field.as_str(), value) {
            // Envoy Gateway has other options in there.
            ("common_http_protocol_options", Value::Object(options)) => {
                for (option, value) in options {
                    patches.push(add(&format!("{manager_path}/{field}/{option}"), value));
                }
            }
            _ => patches.push(add(&format!("{manager_path}/{field}"), value)),
        }
    }
    for filter in chain.http_filters.iter().rev() {
        patches.push(add(&format!("{manager_path}/http_filters/0"), filter));
    }
    json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "EnvoyPatchPolicy",
        "metadata": {"name": args.name, "namespace": args.namespace},
        "spec": {
            "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": args.gateway},
            "type": "JSONPatch",
            "jsonPatches": patches,
        },
    })
}

/// As the YAML writer takes it.
fn node(value: &Value) -> Node {
    match value {
        Value::Null => Node::Null,
        Value::Bool(value) => Node::Bool(*value),
        Value::Number(value) => Node::Number(value.as_f64().unwrap_or_default()),
        Value::String(text) => Node::Text(text.clone()),
        Value::Array(items) => Node::List(items.iter().map(node).collect()),
        Value::Object(fields) => Node::Object(
            fields
                .iter()
                .map(|(name, value)| (name.clone(), node(value)))
                .collect(),
        ),
    }
}
