//! Which Lua filters a file has.

use super::surroundings::{self, Filter, Note, Script};
use crate::cli::files::{Located, Source, SyntaxError};
use crate::cli::plugins::resources;

/// What is in a file.
#[derive(Default)]
pub(super) struct Input {
    pub(super) filters: Vec<Filter>,
    config_maps: Vec<Located>,
    /// Kinds of resources without a Lua filter, each with the line where the first of it begins.
    others: Vec<(String, usize)>,
}

impl Input {
    /// Reads a file.
    pub(super) fn of(source: &Source) -> Result<Self, SyntaxError> {
        let mut input = Self::default();
        for document in source.documents()? {
            input.document(source, &document, 0)?;
        }
        input.scripts_of_config_maps();
        Ok(input)
    }

    /// Why there is nothing to migrate.
    pub(super) fn nothing(&self, source: &Source) -> String {
        let name = &source.name;
        if self.others.is_empty() && source.text.contains("envoy_on_request") {
            return format!(
                "{name}: this is a script, or text with one in it: give the manifest or the Envoy configuration that holds it, which \
                 says where it runs"
            );
        }
        let found: Vec<String> = self
            .others
            .iter()
            .map(|(kind, line)| format!("{kind} in line {line}"))
            .collect();
        let found = if found.is_empty() {
            String::new()
        } else {
            format!("; it has {}", found.join(", "))
        };
        let is_route = |kind: &str| matches!(kind, "VirtualService" | "HTTPRoute" | "GRPCRoute");
        let routes = self.others.iter().any(|(kind, _)| is_route(kind))
            && source
                .text
                .to_ascii_lowercase()
                .contains("x-forwarded-proto");
        let instead = if routes {
            ". A route that writes x-forwarded-proto needs no translation: load trusted-lb with a rule for the load balancer, and take \
             the header out of the route"
        } else {
            ""
        };
        format!(
            "{name}: there is no Lua filter in it (an EnvoyFilter, TrafficExtension, EnvoyExtensionPolicy or EnvoyPatchPolicy with \
             Lua, or an Envoy configuration with envoy.filters.http.lua){found}{instead}"
        )
    }

    fn document(
        &mut self,
        source: &Source,
        document: &Located,
        depth: usize,
    ) -> Result<(), SyntaxError> {
        if document.get("kind").and_then(Located::text).is_none() {
            let resources = document
                .items()
                .iter()
                .any(|item| item.get("kind").is_some());
            if resources {
                for item in document.items() {
                    self.document(source, item, depth)?;
                }
            } else {
                surroundings::envoy(document, &mut self.filters);
            }
            return Ok(());
        }
        let mut inner = Vec::new();
        resources(document, None, &mut |resource, kind| {
            let before = self.filters.len();
            surroundings::of_resource(resource, kind, &mut self.filters);
            if kind == "ConfigMap" {
                self.config_maps.push(resource.clone());
                if depth == 0 {
                    inner.extend(
                        resource
                            .get("data")
                            .map(Located::fields)
                            .into_iter()
                            .flatten(),
                    );
                }
            }
            let known = self.others.iter().any(|(other, _)| other == kind);
            if self.filters.len() == before && !known && self.others.len() < MOST_KINDS {
                let line = source.line(resource.start().start);
                self.others.push((kind.to_owned(), line));
            }
        });
        for field in inner {
            // Other files in a ConfigMap are none of ours, readable or not; a script by itself is none of them.
            let text = field.value.text().unwrap_or_default().to_ascii_lowercase();
            if text.contains("lua") && HOLDERS.iter().any(|holder| text.contains(holder)) {
                for document in source.documents_within(&field.value)? {
                    self.document(source, &document, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    /// Puts scripts that stand in a `ConfigMap` of the same file into their filters.
    fn scripts_of_config_maps(&mut self) {
        for filter in &mut self.filters {
            let Some(wanted) = filter.config_map.take() else {
                continue;
            };
            let text = |document: &Located, path: &[&str]| {
                document.at(path).and_then(Located::text).map(str::to_owned)
            };
            let data = self
                .config_maps
                .iter()
                .find(|document| {
                    text(document, &["metadata", "name"]).as_ref() == Some(&wanted.name)
                        && text(document, &["metadata", "namespace"]) == wanted.namespace
                })
                .and_then(|document| document.get("data"));
            // As Envoy Gateway chooses it.
            let script = data.and_then(|data| {
                let first = || data.fields().next().map(|field| &field.value);
                data.get("lua").or_else(first)
            });
            filter.everywhere = script.and_then(|script| {
                Some(Script {
                    code: script.text()?.to_owned(),
                    place: script.clone(),
                })
            });
            if filter.everywhere.is_none() {
                filter.notes.push(Note {
                    at: wanted.at,
                    text: format!(
                        "the script is in the ConfigMap {}, which isn't in this file: put it beside the policy, or write the script \
                         as inline",
                        wanted.name
                    ),
                });
            }
        }
    }
}

/// What a file has that holds a Lua filter.
const HOLDERS: &[&str] = &[
    "http_filters",
    "httpfilters",
    "typed_config",
    "typedconfig",
    "envoyfilter",
    "envoyextensionpolicy",
    "trafficextension",
];

/// Kinds of other resources that are listed.
const MOST_KINDS: usize = 5;
