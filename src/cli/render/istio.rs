//! Istio's resources.

use std::fmt::Write as _;

use super::{Subject, environment, envoy, metadata};
use crate::cli::args::{EnvoyFilterArgs, FailStrategy, IstioPluginArgs, Phase};
use crate::cli::setup::GATEWAY_LABEL;
use crate::cli::yaml;
use crate::config::PeerAddress;

pub(super) fn wasm_plugin(args: &IstioPluginArgs, subject: &Subject<'_>) -> String {
    let mut out = head("WasmPlugin", args);
    let _ = writeln!(out, "  url: {}", yaml::text(&args.url));
    sha256(args, "  ", &mut out);
    let _ = writeln!(out, "  phase: {}", phase(args.phase));
    rest(args, subject, 2, &mut out);
    plugins_direct_peer(args, subject, &mut out);
    out
}

pub(super) fn traffic_extension(args: &IstioPluginArgs, subject: &Subject<'_>) -> String {
    let mut out = head("TrafficExtension", args);
    let _ = writeln!(
        out,
        "  phase: {}\n  wasm:\n    url: {}",
        phase(args.phase),
        yaml::text(&args.url)
    );
    sha256(args, "    ", &mut out);
    rest(args, subject, 4, &mut out);
    plugins_direct_peer(args, subject, &mut out);
    out
}

/// Everything down to who it is for.
fn head(kind: &str, args: &IstioPluginArgs) -> String {
    let mut out = format!("apiVersion: extensions.istio.io/v1alpha1\nkind: {kind}\n");
    out.push_str(&metadata(&args.common.name, &args.namespace));
    out.push_str("spec:\n");
    if let Some(gateway) = &args.target_ref {
        let _ = write!(
            out,
            "  targetRefs:\n  - group: gateway.networking.k8s.io\n    kind: Gateway\n    name: {}\n",
            yaml::text(gateway)
        );
    } else {
        out.push_str("  selector:\n    matchLabels:\n");
        labels(&args.selector, &mut out);
    }
    out
}

fn sha256(args: &IstioPluginArgs, pad: &str, out: &mut String) {
    if let Some(sha256) = &args.sha256 {
        let _ = writeln!(out, "{pad}sha256: {}", yaml::text(sha256));
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Authn => "AUTHN",
        Phase::Authz => "AUTHZ",
        Phase::Stats => "STATS",
    }
}

/// From the failure strategy to the configuration.
fn rest(args: &IstioPluginArgs, subject: &Subject<'_>, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    let fail = match args.fail_strategy {
        FailStrategy::FailClose => "FAIL_CLOSE",
        FailStrategy::FailOpen => "FAIL_OPEN",
        FailStrategy::FailReload => "FAIL_RELOAD",
    };
    let _ = writeln!(out, "{pad}failStrategy: {fail}");
    let variables = environment(subject.config);
    if !variables.is_empty() {
        let _ = writeln!(
            out,
            "{pad}vmConfig:\n{pad}  env: # from the environment of the gateway's proxy container"
        );
        for name in variables {
            let _ = writeln!(
                out,
                "{pad}  - name: {}\n{pad}    valueFrom: HOST",
                yaml::text(name)
            );
        }
    }
    let _ = writeln!(out, "{pad}pluginConfig:");
    out.push_str(&subject.yaml(indent + 2));
}

pub(super) fn envoy_filter(args: &EnvoyFilterArgs, subject: &Subject<'_>) -> String {
    let mut out = String::from("apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\n");
    out.push_str(&metadata(&args.filter.common.name, &args.namespace));
    out.push_str("spec:\n  workloadSelector:\n    labels:\n");
    labels(&args.selector, &mut out);
    out.push_str(
        "  configPatches:\n  - applyTo: HTTP_FILTER\n    match:\n      context: GATEWAY\n      listener:\n        \
         filterChain:\n          filter:\n            name: envoy.filters.network.http_connection_manager\n    patch:\n      \
         operation: INSERT_FIRST\n      value:\n",
    );
    out.push_str(&envoy::http_filter(&args.filter, subject, 8));
    let name = &args.filter.common.name;
    direct_peer(name, &args.namespace, &args.selector, subject, &mut out);
    out
}

fn plugins_direct_peer(args: &IstioPluginArgs, subject: &Subject<'_>, out: &mut String) {
    let target = args.target_ref.iter();
    let gateway: Vec<_> = target
        .map(|name| (GATEWAY_LABEL.to_owned(), name.clone()))
        .collect();
    let labels = if gateway.is_empty() {
        &args.selector
    } else {
        &gateway
    };
    direct_peer(&args.common.name, &args.namespace, labels, subject, out);
}

/// The EnvoyFilter that `peerAddress: filterState` needs, as envoyfilter/direct-peer.yaml has it.
fn direct_peer(
    name: &str,
    namespace: &str,
    selector: &[(String, String)],
    subject: &Subject<'_>,
    out: &mut String,
) {
    let PeerAddress::FilterState(key) = &subject.config.peer_address else {
        return;
    };
    out.push_str(
        "---\n# Writes down who opened the connection. Where it is missing, nobody is trusted by address.\n\
         apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\n",
    );
    out.push_str(&metadata(&format!("{name}-direct-peer"), namespace));
    out.push_str("spec:\n  workloadSelector:\n    labels:\n");
    labels(selector, out);
    let _ = write!(
        out,
        "  configPatches:\n  - applyTo: NETWORK_FILTER\n    match:\n      context: GATEWAY\n      listener:\n        \
         filterChain:\n          filter:\n            name: envoy.filters.network.http_connection_manager\n    patch:\n      \
         operation: INSERT_BEFORE\n      value:\n        name: envoy.filters.network.set_filter_state\n        typed_config:\n          \
         \"@type\": type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config\n          \
         on_new_connection:\n          - object_key: {}\n            factory_key: envoy.string\n            read_only: true\n            \
         format_string:\n              text_format_source:\n                inline_string: \
         \"%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%\"\n",
        yaml::text(key)
    );
}

fn labels(labels: &[(String, String)], out: &mut String) {
    for (name, value) in labels {
        let _ = writeln!(out, "      {}: {}", yaml::text(name), yaml::text(value));
    }
}
