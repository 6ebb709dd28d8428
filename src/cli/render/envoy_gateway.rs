//! Envoy Gateway's resources.

use std::fmt::Write as _;

use super::{Subject, environment, metadata};
use crate::cli::args::PolicyArgs;
use crate::cli::yaml;

pub(super) fn extension_policy(args: &PolicyArgs, subject: &Subject<'_>) -> String {
    let mut out =
        String::from("apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyExtensionPolicy\n");
    out.push_str(&metadata(&args.common.name, &args.namespace));
    let _ = write!(
        out,
        "spec:\n  targetRefs:\n  - group: gateway.networking.k8s.io\n    kind: Gateway\n    name: {}\n  wasm:\n  - name: {}\n",
        yaml::text(&args.target_ref),
        yaml::text(&args.common.name)
    );
    let (kind, field, url) = match args.url.split_once("://") {
        Some(("http" | "https", _)) => ("HTTP", "http", args.url.as_str()),
        Some(("oci", image)) => ("Image", "image", image),
        _ => ("Image", "image", args.url.as_str()),
    };
    let _ = writeln!(
        out,
        "    code:\n      type: {kind}\n      {field}:\n        url: {}",
        yaml::text(url)
    );
    if let Some(sha256) = &args.sha256 {
        let _ = writeln!(out, "        sha256: {}", yaml::text(sha256));
    }
    let _ = writeln!(out, "    failOpen: {}", args.fail_open);
    let variables = environment(subject.config);
    if !variables.is_empty() {
        out.push_str("    env:\n      hostKeys: # from the environment of Envoy's container\n");
        for name in variables {
            let _ = writeln!(out, "      - {}", yaml::text(name));
        }
    }
    out.push_str("    config:\n");
    out.push_str(&subject.yaml(6));
    out
}
