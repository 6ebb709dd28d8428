//! Istio's `TrafficExtension` with Lua.

use super::{Filter, Istio, Note, Target, configuration, holder, metadata, note, text_at};
use crate::cli::files::Located;

pub(super) fn traffic_extension(document: &Located, found: &mut Vec<Filter>) {
    let Some(spec) = document.get("spec") else {
        return;
    };
    let Some(lua) = spec.get("lua") else {
        return;
    };
    let mut notes = Vec::new();
    metadata(document, &mut notes);
    let mut istio = Istio {
        namespace: text_at(document, &["metadata", "namespace"]),
        traffic_extension: true,
        ..Istio::default()
    };
    for field in spec.fields() {
        match field.name.as_str() {
            "lua" => {}
            "selector" => istio.selector = field.value.get("matchLabels").map(Located::node),
            "targetRefs" => istio.target_refs = Some(field.value.node()),
            "match" => istio.matches = Some(field.value.node()),
            "phase" => istio.phase = field.value.text().map(str::to_owned),
            "priority" => istio.priority = Some(field.value.node()),
            other => notes.push(Note {
                at: field.name_span.start,
                text: format!("spec.{other} isn't translated"),
            }),
        }
    }
    if istio.selector.is_none() && istio.target_refs.is_none() {
        note(
            &mut notes,
            spec,
            "the TrafficExtension has no selector, so it applied everywhere: give it the labels of the gateway that stands behind \
             the load balancer",
        );
    }
    let mut filter = Filter::new(
        holder(document),
        text_at(document, &["metadata", "name"]),
        Target::Istio(istio),
        notes,
    );
    configuration(lua, &mut filter);
    found.push(filter);
}
