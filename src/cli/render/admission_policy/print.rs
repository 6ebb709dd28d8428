//! The policy as a manifest.

use std::fmt::Write as _;

use super::{Policy, text};
use crate::cli::args::AdmissionArgs;
use crate::cli::yaml;

impl Policy {
    pub(super) fn print(&self, args: &AdmissionArgs) -> String {
        let name = yaml::text(&args.name);
        let word = text(&args.plugin);
        let version = env!("CARGO_PKG_VERSION");
        let mut out = format!(
            "# Made by trusted-lb {version}, render admission-policy, from the declaration of its configuration. The API server refuses\n\
             # plugins of ours that the gateway would refuse, as far as it can tell; trusted-lb check tells more. Apply it with\n\
             # kubectl apply --server-side, and render it anew with every version of trusted-lb.\n\
             apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nmetadata:\n  name: {name}\nspec:\n  \
             failurePolicy: Fail\n  matchConstraints:\n    resourceRules:\n    - apiGroups: [extensions.istio.io]\n      \
             apiVersions: [v1alpha1]\n      operations: [CREATE, UPDATE]\n      resources: [wasmplugins, trafficextensions]\n"
        );
        let has_word = |field: &str| {
            let (parent, last) = field.rsplit_once('.').unwrap_or(("", field));
            let parents = if parent == "object.spec.wasm" {
                "has(object.spec.wasm) && "
            } else {
                ""
            };
            format!("({parents}has({parent}.{last}) && {field}.contains({word}))")
        };
        let ours = format!(
            "!has(object.spec.lua) && ({} || {} || {})",
            has_word("object.metadata.name"),
            has_word("object.spec.url"),
            has_word("object.spec.wasm.url")
        );
        let _ = writeln!(
            out,
            "  matchConditions:\n  - name: ours\n    expression: {}\n  variables:",
            yaml::text(&ours)
        );
        let mut variable = |name: &str, expression: &str| {
            let _ = writeln!(
                out,
                "  - name: {name}\n    expression: {}",
                yaml::text(expression)
            );
        };
        variable(
            "plugin",
            "has(object.spec.wasm) ? object.spec.wasm : object.spec",
        );
        variable("given", "has(variables.plugin.pluginConfig)");
        variable("c", "variables.given ? variables.plugin.pluginConfig : {}");
        for (index, constant) in self.constants.iter().enumerate() {
            variable(&format!("k{index}"), constant);
        }
        out.push_str("  validations:\n");
        for validation in &self.validations {
            let _ = writeln!(
                out,
                "  - expression: {}\n    message: {}",
                yaml::text(&validation.expression),
                yaml::text(&validation.message)
            );
            if let Some(expression) = &validation.message_expression {
                let _ = writeln!(out, "    messageExpression: {}", yaml::text(expression));
            }
        }
        let _ = write!(
            out,
            "---\napiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicyBinding\nmetadata:\n  name: {name}\nspec:\n  \
             policyName: {name}\n  # Warn in place of Deny tells who applies it, and lets it pass.\n  validationActions: [Deny]\n"
        );
        out
    }
}
