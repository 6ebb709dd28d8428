//! Istio's EnvoyFilter, in its present form and the old one.

use super::per_route::{per_filter_config, per_routes};
use super::{
    Filter, Istio, Note, PerRoute, Target, configuration, has_code, holder, lua_configuration,
    metadata, note, text_at, whole_number,
};
use crate::cli::files::Located;
use crate::cli::migrate::lua::{Condition, Is, Subject};
use crate::config::Node;

pub(super) fn envoy_filter(document: &Located, found: &mut Vec<Filter>) {
    let mut common = Vec::new();
    metadata(document, &mut common);
    let mut filters: Vec<Filter> = Vec::new();
    // Each of these is put in front of those before it.
    let mut in_front: Vec<Filter> = Vec::new();
    let mut elsewhere: Vec<PerRoute> = Vec::new();
    let mut peer_address = None;
    let Some(spec) = document.get("spec") else {
        return;
    };
    let istio = workloads(document, spec, &mut common);
    let name = text_at(document, &["metadata", "name"]);
    let new = |istio: Istio| {
        Filter::new(
            holder(document),
            name.clone(),
            Target::Istio(istio),
            Vec::new(),
        )
    };
    for patch in spec
        .get("configPatches")
        .map(Located::items)
        .unwrap_or_default()
    {
        let apply_to = patch
            .get("applyTo")
            .and_then(Located::text)
            .unwrap_or_default();
        let value = patch.at(&["patch", "value"]);
        let lua = value.and_then(lua_configuration);
        let per_route = value.and_then(per_filter_config);
        match (apply_to, lua, per_route) {
            ("HTTP_FILTER" | "EXTENSION_CONFIG" | "", Some(lua), _) => {
                let mut filter = new(istio.clone());
                configuration(lua, &mut filter);
                patch_match(patch, &mut filter);
                if goes_first(patch) {
                    in_front.push(filter);
                } else {
                    filters.push(filter);
                }
            }
            (_, _, Some((what, fields))) => {
                let condition = route_condition(patch, apply_to, &mut common);
                per_routes(&condition, what, fields, &mut elsewhere, &mut common);
            }
            ("NETWORK_FILTER", None, None) => {
                connection_manager(patch, value, &mut peer_address, &mut common);
            }
            (other, _, _) => note(
                &mut common,
                patch,
                format!("this patch ({other}) isn't Lua: keep it in an EnvoyFilter"),
            ),
        }
    }
    filters.splice(0..0, in_front.into_iter().rev());
    for old in spec.get("filters").map(Located::items).unwrap_or_default() {
        match old_configuration(old) {
            Some(lua) => {
                let mut filter = new(istio.clone());
                configuration(lua, &mut filter);
                old_place(old, &mut filter);
                filters.push(filter);
            }
            None => note(
                &mut common,
                old,
                "this filter isn't Lua: it isn't translated",
            ),
        }
    }
    // Per-route scripts belong to the first filter; without one they run nowhere.
    if filters.is_empty() && !elsewhere.is_empty() {
        let mut filter = new(istio);
        filter.notes.push(Note {
            at: document.start().start,
            text: "the Lua filter itself isn't in this file: its script for other requests isn't known".to_owned(),
        });
        filters.push(filter);
    }
    if let Some(first) = filters.first_mut() {
        first.elsewhere = elsewhere;
        first.notes.extend(common);
    }
    for filter in &mut filters {
        filter.peer_address.clone_from(&peer_address);
        if let Target::Istio(istio) = &filter.target
            && istio.selector.is_none()
            && istio.target_refs.is_none()
        {
            note(
                &mut filter.notes,
                spec,
                "the EnvoyFilter has no workload selector, so it applied everywhere: give the WasmPlugin the labels of the gateway \
                 that stands behind the load balancer",
            );
        }
    }
    found.extend(filters);
}

/// Which workloads an EnvoyFilter is for.
fn workloads(document: &Located, spec: &Located, common: &mut Vec<Note>) -> Istio {
    let mut istio = Istio {
        namespace: text_at(document, &["metadata", "namespace"]),
        ..Istio::default()
    };
    for field in spec.fields() {
        match field.name.as_str() {
            "workloadSelector" => {
                istio.selector = field.value.get("labels").map(Located::node);
            }
            "workloadLabels" => istio.selector = Some(field.value.node()),
            "targetRefs" => istio.target_refs = Some(field.value.node()),
            "configPatches" | "filters" => {}
            "priority" => common.push(Note {
                at: field.name_span.start,
                text: "priority puts EnvoyFilters in order; a WasmPlugin's place is its phase, and its own priority puts plugins \
                       of one phase in order"
                    .to_owned(),
            }),
            other => common.push(Note {
                at: field.name_span.start,
                text: format!("spec.{other} isn't translated"),
            }),
        }
    }
    istio
}

const SUB_FILTER: &[&str] = &[
    "match",
    "listener",
    "filterChain",
    "filter",
    "subFilter",
    "name",
];

/// Whether a patch puts its filter in front of every other.
fn goes_first(patch: &Located) -> bool {
    let operation = patch
        .at(&["patch", "operation"])
        .and_then(Located::text)
        .unwrap_or("INSERT_BEFORE");
    operation == "INSERT_FIRST" || (operation == "INSERT_BEFORE" && patch.at(SUB_FILTER).is_none())
}

/// Where an `HTTP_FILTER` patch puts its filter.
fn patch_match(patch: &Located, filter: &mut Filter) {
    let mut mode = None;
    let mut ports: Vec<Node> = Vec::new();
    let notes = &mut filter.notes;
    let operation = patch.at(&["patch", "operation"]);
    let sub_filter = patch.at(SUB_FILTER);
    if let Some(matches) = patch.get("match") {
        for field in matches.fields() {
            match field.name.as_str() {
                "context" => mode = context(&field.value, notes),
                "listener" => listener_match(&field.value, &mut ports, notes),
                "proxy" => {
                    for inner in field.value.fields() {
                        notes.push(Note {
                            at: inner.name_span.start,
                            text: format!("a WasmPlugin can't choose proxies by {}", inner.name),
                        });
                    }
                }
                other => notes.push(Note {
                    at: field.name_span.start,
                    text: format!("match.{other} isn't translated"),
                }),
            }
        }
    }
    let before = sub_filter.and_then(Located::text).unwrap_or_default();
    let how = operation.and_then(Located::text).unwrap_or_default();
    match (how, before) {
        (_, name) if name.contains("ext_authz") => {
            let at = sub_filter.unwrap_or(patch);
            note(
                notes,
                at,
                "the script's place is beside external authorization. A WasmPlugin of phase AUTHN stands behind the ext_authz of \
                 CUSTOM policies, which then sees the uncorrected x-forwarded-proto: docs/ext-authz.md has an EnvoyFilter that \
                 is inserted first",
            );
        }
        ("INSERT_FIRST", _) | ("INSERT_BEFORE" | "", "") => {
            let at = operation.unwrap_or(patch);
            note(
                notes,
                at,
                "the script ran in front of every other filter. A WasmPlugin of phase AUTHN stands behind the ext_authz of CUSTOM \
                 policies, if there are any (docs/ext-authz.md)",
            );
        }
        ("MERGE" | "REPLACE" | "REMOVE", _) => {
            let at = operation.unwrap_or(patch);
            note(
                notes,
                at,
                format!(
                    "{how} changes a filter that is elsewhere; the script is translated as if it stood alone"
                ),
            );
        }
        (_, "envoy.filters.http.router" | "envoy.router" | "") => {}
        (_, name) => {
            let at = sub_filter.unwrap_or(patch);
            note(
                notes,
                at,
                format!("the script's place is beside {name}; a WasmPlugin's place is its phase"),
            );
        }
    }
    set_match(filter, mode, ports);
}

fn set_match(filter: &mut Filter, mode: Option<&'static str>, ports: Vec<Node>) {
    let mut fields = Vec::new();
    if let Some(mode) = mode {
        fields.push(("mode".to_owned(), Node::Text(mode.to_owned())));
    }
    if !ports.is_empty() {
        let ports = ports
            .into_iter()
            .map(|number| Node::Object(vec![("number".to_owned(), number)]))
            .collect();
        fields.push(("ports".to_owned(), Node::List(ports)));
    }
    if let Target::Istio(istio) = &mut filter.target
        && !fields.is_empty()
    {
        istio.matches = Some(Node::List(vec![Node::Object(fields)]));
    }
}

fn context(value: &Located, notes: &mut Vec<Note>) -> Option<&'static str> {
    match value.text().unwrap_or_default() {
        "GATEWAY" => None,
        word @ ("SIDECAR_INBOUND" | "SIDECAR_OUTBOUND") => {
            note(
                notes,
                value,
                format!(
                    "the script ran in sidecars ({word}), behind the gateway: rules go by the address of whoever connects to the \
                     sidecar. Better put trusted-lb on the gateway, and let sidecars keep what it writes"
                ),
            );
            Some(if word == "SIDECAR_INBOUND" {
                "SERVER"
            } else {
                "CLIENT"
            })
        }
        _ => {
            note(
                notes,
                value,
                "the script ran on gateways and in sidecars; a gateway that stands behind the load balancer is what needs it",
            );
            None
        }
    }
}

fn listener_match(listener: &Located, ports: &mut Vec<Node>, notes: &mut Vec<Note>) {
    for field in listener.fields() {
        match field.name.as_str() {
            "portNumber" => ports.push(field.value.node()),
            "filterChain" => {
                for inner in field.value.fields() {
                    if inner.name != "filter" {
                        notes.push(Note {
                            at: inner.name_span.start,
                            text: format!("filterChain.{} isn't translated: the plugin applies to every filter chain", inner.name),
                        });
                    }
                }
            }
            other => notes.push(Note {
                at: field.name_span.start,
                text: format!("listener.{other} isn't translated: a WasmPlugin chooses listeners by port (match[].ports)"),
            }),
        }
    }
}

/// The Lua filter's configuration in the old form.
fn old_configuration(old: &Located) -> Option<&Located> {
    let kind = old.get("filterType").and_then(Located::text);
    old.get("filterConfig")
        .filter(|configuration| has_code(configuration))
        .filter(|_| matches!(kind, Some("HTTP" | "INVALID") | None))
}

/// The old form's place.
fn old_place(old: &Located, filter: &mut Filter) {
    let mut mode = None;
    let mut ports = Vec::new();
    let notes = &mut filter.notes;
    for field in old.fields() {
        match field.name.as_str() {
            "filterType" | "filterName" | "filterConfig" => {}
            "listenerMatch" => {
                for inner in field.value.fields() {
                    match inner.name.as_str() {
                        "listenerType" => mode = context(&inner.value, notes),
                        "listenerProtocol" => {}
                        "portNumber" => ports.push(inner.value.node()),
                        other => notes.push(Note {
                            at: inner.name_span.start,
                            text: format!("listenerMatch.{other} isn't translated"),
                        }),
                    }
                }
            }
            "insertPosition" => {
                let index = field.value.get("index").and_then(Located::text);
                let relative = field.value.get("relativeTo").and_then(Located::text);
                let text = match (index, relative) {
                    (_, Some(name)) => {
                        format!("the script's place is beside {name}; a WasmPlugin's place is its phase")
                    }
                    (Some("FIRST"), None) => {
                        "the script ran in front of every other filter. A WasmPlugin of phase AUTHN stands behind the ext_authz \
                         of CUSTOM policies, if there are any (docs/ext-authz.md)"
                            .to_owned()
                    }
                    _ => continue,
                };
                notes.push(Note {
                    at: field.name_span.start,
                    text,
                });
            }
            other => notes.push(Note {
                at: field.name_span.start,
                text: format!("{other} isn't translated"),
            }),
        }
    }
    set_match(filter, mode, ports);
}

/// A patch of the connection manager.
fn connection_manager(
    patch: &Located,
    value: Option<&Located>,
    peer_address: &mut Option<String>,
    notes: &mut Vec<Note>,
) {
    let settings = value.and_then(|value| value.proto("typed_config"));
    note(
        notes,
        patch,
        "this patch of a network filter isn't Lua: keep it in an EnvoyFilter of its own",
    );
    let Some(settings) = settings else { return };
    let hops = settings.proto("xff_num_trusted_hops");
    let number = hops.and_then(whole_number).unwrap_or(0);
    let off = |name: &str, unusual: bool| {
        settings.proto(name).and_then(Located::boolean) == Some(unusual)
    };
    if let Some(hops) = hops
        && number > 0
        && !off("use_remote_address", false)
        && !off("skip_xff_append", true)
    {
        *peer_address = Some("forwardedFor".to_owned());
        note(
            notes,
            hops,
            "with trusted hops the peer's address is the right-most entry of x-forwarded-for: peerAddress: forwardedFor is written",
        );
    } else if off("use_remote_address", false) || off("skip_xff_append", true) {
        note(
            notes,
            settings,
            "with this connection manager Envoy doesn't tell the peer's address: choose peerAddress first (docs/peer-address.md)",
        );
    }
}

/// The virtual host or route that a patch is about.
fn route_condition(patch: &Located, apply_to: &str, notes: &mut Vec<Note>) -> Condition {
    let exact =
        |subject: Subject, name: &str| Condition::test(subject, Is::Exact(name.into()), 0..0);
    let mut condition = Condition::Always;
    if let Some(matches) = patch.get("match") {
        if let Some(value) = matches.get("context") {
            context(value, notes);
        }
        let route = matches.get("routeConfiguration");
        for field in route.map(Located::fields).into_iter().flatten() {
            match (field.name.as_str(), field.value.text()) {
                ("vhost", _) => {
                    if let Some(name) = field.value.get("name").and_then(Located::text) {
                        condition = condition.and(exact(Subject::VirtualHost, name));
                    }
                    if let Some(name) = field.value.at(&["route", "name"]).and_then(Located::text) {
                        condition = condition.and(exact(Subject::Route, name));
                    }
                }
                (other, _) => notes.push(Note {
                    at: field.name_span.start,
                    text: format!("routeConfiguration.{other} isn't translated"),
                }),
            }
        }
    }
    if condition == Condition::Always {
        let what = if apply_to == "HTTP_ROUTE" {
            "route"
        } else {
            "virtual host"
        };
        note(
            notes,
            patch,
            format!("this patch names no {what}: it is taken for all of them"),
        );
    }
    condition
}
