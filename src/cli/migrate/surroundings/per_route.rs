//! `LuaPerRoute`: scripts of virtual hosts and routes.

use super::{Note, PerRoute, Runs, data_source, snake};
use crate::cli::files::Located;
use crate::cli::migrate::lua::Condition;

/// The Lua filter's configuration for a virtual host or a route: the fields of `LuaPerRoute`, and whether there are any.
pub(super) fn per_filter_config(value: &Located) -> Option<(&Located, Vec<&Located>)> {
    let map = value
        .proto("typed_per_filter_config")
        .or_else(|| value.proto("per_filter_config"))?;
    let lua: Vec<&Located> = map
        .fields()
        .map(|field| &field.value)
        .filter(|configuration| {
            let kind = configuration.get("@type").and_then(Located::text);
            kind.is_some_and(|kind| kind.ends_with("lua.v3.LuaPerRoute"))
        })
        .collect();
    (!lua.is_empty()).then_some((map, lua))
}

pub(super) fn per_routes(
    condition: &Condition,
    map: &Located,
    configurations: Vec<&Located>,
    elsewhere: &mut Vec<PerRoute>,
    notes: &mut Vec<Note>,
) {
    for configuration in configurations {
        let at = configuration.start().start;
        let runs = if configuration.proto("disabled").and_then(Located::boolean) == Some(true) {
            Some(Runs::Nothing)
        } else if let Some(name) = configuration.get("name").and_then(Located::text) {
            Some(Runs::Named(name.to_owned()))
        } else if let Some(code) = configuration.proto("source_code") {
            data_source(code, notes).map(Runs::Script)
        } else {
            None
        };
        for field in configuration.fields() {
            if !matches!(
                snake(&field.name).as_str(),
                "@type" | "disabled" | "name" | "source_code"
            ) {
                notes.push(Note {
                    at: field.name_span.start,
                    text: format!("{} of LuaPerRoute isn't translated", field.name),
                });
            }
        }
        if let Some(runs) = runs {
            elsewhere.push(PerRoute {
                condition: condition.clone(),
                runs,
                at,
            });
        }
    }
    for field in map.fields() {
        let kind = field
            .value
            .get("@type")
            .and_then(Located::text)
            .unwrap_or_default();
        if !kind.ends_with("lua.v3.LuaPerRoute") {
            notes.push(Note {
                at: field.name_span.start,
                text: format!(
                    "the configuration of {} for this route isn't Lua: keep it in an EnvoyFilter",
                    field.name
                ),
            });
        }
    }
}
