//! Envoy Gateway's `EnvoyExtensionPolicy` with Lua.

use super::{Filter, Note, Script, Target, holder, metadata, note, text_at};
use crate::cli::files::Located;

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
    note(
        &mut notes,
        spec,
        "on Envoy Gateway the peer's address has to be right first: with clientIPDetection `auto` trusts nobody \
         (docs/peer-address.md)",
    );
    let target = Target::EnvoyGateway {
        namespace: text_at(document, &["metadata", "namespace"]),
        targets,
    };
    for (index, lua) in scripts.iter().enumerate() {
        let mut filter = Filter {
            holder: holder(document),
            name: text_at(document, &["metadata", "name"]),
            target: target.clone(),
            everywhere: None,
            named: Vec::new(),
            elsewhere: Vec::new(),
            peer_address: None,
            notes: if index == 0 {
                std::mem::take(&mut notes)
            } else {
                Vec::new()
            },
        };
        for field in lua.fields() {
            match field.name.as_str() {
                "type" => {}
                "inline" => {
                    filter.everywhere = field.value.text().map(|code| Script {
                        code: code.to_owned(),
                        place: field.value.clone(),
                    });
                }
                "valueRef" => filter.notes.push(Note {
                    at: field.name_span.start,
                    text: "the script is in a ConfigMap: write it as inline to have it translated"
                        .to_owned(),
                }),
                other => filter.notes.push(Note {
                    at: field.name_span.start,
                    text: format!("lua[].{other} isn't translated"),
                }),
            }
        }
        found.push(filter);
    }
}
