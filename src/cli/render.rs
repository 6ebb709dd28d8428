//! `trusted-lb render`: a complete manifest around a configuration.

use std::fmt::Write as _;

use super::args::{FailStrategy, Phase, RenderArgs, Target};
use super::yaml;
use crate::config::{Config, HeaderMatch, HeaderValueMatch, Node};

/// The manifest. `text` is the configuration as its author wrote it, where it stands alone in its file.
pub(super) fn manifest(
    args: &RenderArgs,
    config: &Config,
    node: &Node,
    text: Option<&str>,
) -> String {
    match args.target {
        Target::Wasmplugin => wasm_plugin(args, config, node, text),
        Target::Envoyfilter => envoy_filter(args, config, node),
        Target::Envoy => http_filter(args, config, node, 0),
    }
}

fn wasm_plugin(args: &RenderArgs, config: &Config, node: &Node, text: Option<&str>) -> String {
    let mut out = String::from("apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\n");
    metadata(args, &mut out);
    out.push_str("spec:\n");
    if let Some(gateway) = &args.target_ref {
        let _ = write!(
            out,
            "  targetRefs:\n  - group: gateway.networking.k8s.io\n    kind: Gateway\n    name: {}\n",
            yaml::text(gateway)
        );
    } else {
        out.push_str("  selector:\n    matchLabels:\n");
        labels(args, 6, &mut out);
    }
    let _ = writeln!(out, "  url: {}", yaml::text(&args.url));
    if let Some(sha256) = &args.sha256 {
        let _ = writeln!(out, "  sha256: {}", yaml::text(sha256));
    }
    let phase = match args.phase {
        Phase::Authn => "AUTHN",
        Phase::Authz => "AUTHZ",
        Phase::Stats => "STATS",
    };
    let _ = writeln!(out, "  phase: {phase}");
    let fail = match args.fail_strategy {
        FailStrategy::FailClose => "FAIL_CLOSE",
        FailStrategy::FailOpen => "FAIL_OPEN",
        FailStrategy::FailReload => "FAIL_RELOAD",
    };
    let _ = writeln!(out, "  failStrategy: {fail}");
    let variables = environment(config);
    if !variables.is_empty() {
        out.push_str(
            "  vmConfig:\n    env: # from the environment of the gateway's proxy container\n",
        );
        for name in variables {
            let _ = writeln!(out, "    - name: {name}\n      valueFrom: HOST");
        }
    }
    out.push_str("  pluginConfig:\n");
    out.push_str(&match text {
        Some(text) => yaml::indented(text, 4),
        None => yaml::block(node, 4),
    });
    out
}

fn envoy_filter(args: &RenderArgs, config: &Config, node: &Node) -> String {
    let mut out = String::from("apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\n");
    metadata(args, &mut out);
    out.push_str("spec:\n  workloadSelector:\n    labels:\n");
    labels(args, 6, &mut out);
    out.push_str(
        "  configPatches:\n  - applyTo: HTTP_FILTER\n    match:\n      context: GATEWAY\n      listener:\n        \
         filterChain:\n          filter:\n            name: envoy.filters.network.http_connection_manager\n    patch:\n      \
         operation: INSERT_FIRST\n      value:\n",
    );
    out.push_str(&http_filter(args, config, node, 8));
    out
}

/// The filter as Envoy takes it.
fn http_filter(args: &RenderArgs, config: &Config, node: &Node, indent: usize) -> String {
    let fail = match args.fail_strategy {
        FailStrategy::FailClose => "FAIL_CLOSED",
        FailStrategy::FailOpen => "FAIL_OPEN",
        FailStrategy::FailReload => "FAIL_RELOAD",
    };
    let mut out = format!(
        "name: {name}\ntyped_config:\n  \"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm\n  \
         config:\n    name: {name}\n    failure_policy: {fail}\n    vm_config:\n      runtime: envoy.wasm.runtime.v8\n      \
         code: {{local: {{filename: {file}}}}}\n",
        name = yaml::text(&args.name),
        file = yaml::text(&args.file_in_proxy),
    );
    let variables = environment(config);
    if !variables.is_empty() {
        out.push_str("      environment_variables:\n        host_env_keys:\n");
        for name in variables {
            let _ = writeln!(out, "        - {name}");
        }
    }
    out.push_str(
        "    configuration:\n      \"@type\": type.googleapis.com/google.protobuf.StringValue\n      value: |\n",
    );
    let json = format!("{:#}", yaml::json(node));
    out.push_str(&yaml::indented(&json, 8));
    yaml::indented(&out, indent)
}

fn metadata(args: &RenderArgs, out: &mut String) {
    let _ = write!(
        out,
        "metadata:\n  name: {}\n  namespace: {}\n",
        yaml::text(&args.name),
        yaml::text(&args.namespace)
    );
}

fn labels(args: &RenderArgs, indent: usize, out: &mut String) {
    for (name, value) in &args.selector {
        let _ = writeln!(
            out,
            "{}{}: {}",
            " ".repeat(indent),
            yaml::text(name),
            yaml::text(value)
        );
    }
}

/// The environment variables that a configuration reads, each once.
pub(super) fn environment(config: &Config) -> Vec<&str> {
    fn of<'c>(headers: &'c [HeaderMatch], names: &mut Vec<&'c str>) {
        for header in headers {
            if let HeaderValueMatch::FromEnv(variables) = &header.value {
                names.extend(variables.iter().map(crate::config::EnvName::as_str));
            }
        }
    }
    let mut names: Vec<&str> = Vec::new();
    names.extend(
        config
            .helper_token
            .iter()
            .map(crate::config::EnvName::as_str),
    );
    let rules = config
        .trusted_load_balancers
        .iter()
        .map(|rule| &rule.matches.request);
    let routes = config.routes.iter().map(|route| &route.matches.request);
    for request in rules.chain(routes) {
        of(&request.headers, &mut names);
        of(&request.not_headers, &mut names);
    }
    let mut seen = Vec::new();
    names.retain(|name| {
        let new = !seen.contains(name);
        seen.push(*name);
        new
    });
    names
}
