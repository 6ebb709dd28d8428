//! Envoy Gateway's `EnvoyExtensionPolicy` and `EnvoyPatchPolicy` with Lua.

use super::{
    ConfigMapScript, Filter, Note, Script, Target, configuration, holder, lua_configuration,
    metadata, note, text_at,
};
use crate::cli::files::Located;

const PEER_FIRST: &str = "on Envoy Gateway the peer's address has to be right first: with clientIPDetection `auto` trusts \
                          nobody (docs/peer-address.md)";

/// Lua filters that patches put into Envoy Gateway's configuration.
pub(super) fn patch_policy(document: &Located, found: &mut Vec<Filter>) {
    let Some(spec) = document.get("spec") else {
        return;
    };
    let mut notes = Vec::new();
    metadata(document, &mut notes);
    let targets = spec
        .get("targetRef")
        .map(|target| {
            let list = crate::config::Node::List(vec![target.node()]);
            ("targetRefs".to_owned(), list)
        })
        .into_iter()
        .collect();
    let target = Target::EnvoyGateway {
        namespace: text_at(document, &["metadata", "namespace"]),
        targets,
    };
    let mut filters: Vec<Filter> = Vec::new();
    let patches = spec.get("jsonPatches").map(Located::items);
    for patch in patches.unwrap_or_default() {
        let operation = patch.get("operation").unwrap_or(patch);
        let Some(lua) = operation.get("value").and_then(lua_configuration) else {
            note(
                &mut notes,
                patch,
                "this patch isn't Lua: keep it in an EnvoyPatchPolicy",
            );
            continue;
        };
        let mut filter = Filter::new(
            holder(document),
            text_at(document, &["metadata", "name"]),
            target.clone(),
            Vec::new(),
        );
        if let Some(path) = operation.get("path").or_else(|| operation.get("jsonPath")) {
            note(
                &mut filter.notes,
                path,
                "a filter's place in the list and its listener are Envoy Gateway's own in an EnvoyExtensionPolicy, which is for the \
                 whole target",
            );
        }
        configuration(lua, &mut filter);
        filters.push(filter);
    }
    if let Some(first) = filters.first_mut() {
        note(&mut notes, spec, PEER_FIRST);
        first.notes.append(&mut notes);
    }
    found.extend(filters);
}

pub(super) fn extension_policy(document: &Located, found: &mut Vec<Filter>) {
    let Some(spec) = document.get("spec") else {
        return;
    };
    let scripts = spec.get("lua").map(Located::items).unwrap_or_default();
    if scripts.is_empty() {
        return;
    }
    let mut notes = Vec::new();
    metadata(document, &mut notes);
    let mut targets = Vec::new();
    for field in spec.fields() {
        match field.name.as_str() {
            "lua" => {}
            "targetRef" | "targetRefs" | "targetSelectors" => {
                targets.push((field.name.clone(), field.value.node()));
            }
            other => notes.push(Note {
                at: field.name_span.start,
                text: format!(
                    "spec.{other} isn't Lua: keep it beside what is printed here, in one policy"
                ),
            }),
        }
    }
    note(&mut notes, spec, PEER_FIRST);
    let target = Target::EnvoyGateway {
        namespace: text_at(document, &["metadata", "namespace"]),
        targets,
    };
    for lua in scripts {
        let mut filter = Filter::new(
            holder(document),
            text_at(document, &["metadata", "name"]),
            target.clone(),
            std::mem::take(&mut notes),
        );
        for field in lua.fields() {
            match field.name.as_str() {
                "type" => {}
                "inline" => {
                    filter.everywhere = field.value.text().map(|code| Script {
                        code: code.to_owned(),
                        place: field.value.clone(),
                    });
                }
                "valueRef" => {
                    filter.config_map =
                        field.value.get("name").and_then(Located::text).map(|name| {
                            ConfigMapScript {
                                namespace: text_at(document, &["metadata", "namespace"]),
                                name: name.to_owned(),
                                at: field.name_span.start,
                            }
                        });
                }
                other => filter.notes.push(Note {
                    at: field.name_span.start,
                    text: format!("lua[].{other} isn't translated"),
                }),
            }
        }
        found.push(filter);
    }
}
