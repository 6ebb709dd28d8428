//! The reader of Lua, whatever the script.

use serde_json::json;
use trusted_lb::cli;

/// More than any answer needs, which is bounded however much a script does.
const LONGEST: usize = 4 << 20;

/// A script of any bytes is translated or refused; what is printed passes the check.
pub fn lua(data: &[u8]) {
    let script = String::from_utf8_lossy(data);
    let file = json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "edge", "namespace": "istio-system"},
        "spec": {"workloadSelector": {"labels": {"istio": "ingressgateway"}}, "configPatches": [{
            "applyTo": "HTTP_FILTER",
            "match": {"context": "GATEWAY"},
            "patch": {"operation": "INSERT_BEFORE", "value": {"name": "lua", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
                "inline_code": script,
            }}},
        }]},
    })
    .to_string();
    let (manifests, said) = cli::migrate_text(&file);
    assert!(manifests.len() + said.len() < LONGEST);
    assert!(
        manifests.is_empty() == said.ends_with("nothing could be translated"),
        "{said}"
    );
    if !manifests.is_empty() {
        let checked = cli::check_text(&manifests);
        assert!(!checked.contains("\"severity\": \"error\""), "{checked}");
    }
    assert_eq!(
        (manifests, said),
        cli::migrate_text(&file),
        "the same each time"
    );
}
