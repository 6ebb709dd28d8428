//! Envoy's own HTTP filter.

use std::fmt::Write as _;

use super::{Subject, environment};
use crate::cli::args::{FailStrategy, FilterArgs};
use crate::cli::yaml;

/// The filter as Envoy takes it, each line indented.
pub(super) fn http_filter(args: &FilterArgs, subject: &Subject<'_>, indent: usize) -> String {
    let fail = match args.fail_strategy {
        FailStrategy::FailClose => "FAIL_CLOSED",
        FailStrategy::FailOpen => "FAIL_OPEN",
        FailStrategy::FailReload => "FAIL_RELOAD",
    };
    let mut out = format!(
        "name: {name}\ntyped_config:\n  \"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm\n  \
         config:\n    name: {name}\n    failure_policy: {fail}\n    vm_config:\n      runtime: envoy.wasm.runtime.v8\n      \
         code: {{local: {{filename: {file}}}}}\n",
        name = yaml::text(&args.common.name),
        file = yaml::text(&args.file_in_proxy),
    );
    let variables = environment(subject.config);
    if !variables.is_empty() {
        out.push_str("      environment_variables:\n        host_env_keys:\n");
        for name in variables {
            let _ = writeln!(out, "        - {}", yaml::text(name));
        }
    }
    out.push_str(
        "    configuration:\n      \"@type\": type.googleapis.com/google.protobuf.StringValue\n      value: |\n",
    );
    out.push_str(&subject.json(8));
    yaml::indented(&out, indent)
}
