//! Reads what Envoy's `/config_dump`, `istioctl proxy-config` and `egctl config` print.

use std::rc::Rc;

use super::{Content, Extension, Listed, Listener, Node, Refused, Running};
use crate::cli::files::{Located, Source};
use crate::cli::plugins::envoy::{self, Met, Place};
use crate::cli::setup::Manager;

/// What a document tells of running Envoys.
pub(in crate::cli::plugins) fn read(source: &Rc<Source>, document: &Located) -> Vec<Running> {
    if let Some(running) = one(source, document) {
        return vec![running];
    }
    if document.get("kind").is_some() {
        return Vec::new();
    }
    // egctl config envoy-proxy prints them by namespace and pod.
    let namespaces = document.fields();
    namespaces
        .flat_map(|namespace| namespace.value.fields())
        .filter(|pod| pod.value.is_object())
        .filter_map(|pod| one(source, &pod.value))
        .collect()
}

/// Reads what Envoy's `/config_dump` or `istioctl proxy-config` prints.
fn one(source: &Rc<Source>, document: &Located) -> Option<Running> {
    let mut running = Running {
        source: Rc::clone(source),
        place: document.start(),
        node: None,
        listeners: None,
        extensions: None,
    };
    let is_admins = |part: &Located| {
        part.any()
            .is_some_and(|(kind, _)| kind.starts_with("envoy.admin.v3."))
    };
    let items = document.items();
    if !items.is_empty() {
        // istioctl proxy-config listeners
        if !items.iter().all(is_listener) {
            return None;
        }
        let listeners = items.iter().map(|item| listener(source, item, false));
        running.listeners = Some(listeners.collect());
        running.recognise_envoy_gateway();
        return Some(running);
    }
    let parts = document.proto("configs").map(Located::items);
    if let Some(parts) = parts.filter(|parts| parts.iter().any(is_admins)) {
        for part in parts {
            running.take(part);
        }
        running.recognise_envoy_gateway();
        // Of a whole dump what isn't there isn't in Envoy either.
        if running.node.is_some() && running.listeners.is_some() {
            running.extensions.get_or_insert_default();
        }
        return Some(running);
    }
    // One part of it, or what istioctl proxy-config ecds and bootstrap print.
    let has = |path: &[&str]| document.proto_at(path).is_some();
    let is_part = document.get("kind").is_none()
        && (has(&["ecds_filters"]) || has(&["dynamic_listeners"]) || has(&["bootstrap", "node"]));
    if is_admins(document) || is_part {
        running.take(document);
        running.recognise_envoy_gateway();
        return Some(running);
    }
    None
}

fn is_listener(item: &Located) -> bool {
    ["filter_chains", "default_filter_chain"]
        .iter()
        .any(|name| item.proto(name).is_some())
        || item.get("name").is_some() && item.proto("address").is_some()
}

impl Running {
    /// Takes what a part of a dump says.
    fn take(&mut self, part: &Located) {
        let source = Rc::clone(&self.source);
        let list = |name: &str| part.proto(name).map(Located::items);
        if let Some(bootstrap) = part.proto("bootstrap") {
            self.node = bootstrap.proto("node").map(Node::read);
            // Where the dump has listeners of its own, those of the file are among them.
            let of_file = bootstrap.proto_at(&["static_resources", "listeners"]);
            if let (None, Some(of_file)) = (&self.listeners, of_file) {
                let listeners = of_file.items().iter();
                self.listeners = Some(
                    listeners
                        .map(|item| listener(&source, item, true))
                        .collect(),
                );
            }
        }
        let kind = part.any().map_or("", |(kind, _)| kind);
        let is_static = kind.ends_with(".StaticListener");
        let is_dynamic = kind.ends_with(".DynamicListener");
        if kind.ends_with(".ListenersConfigDump")
            || part.proto("dynamic_listeners").is_some()
            || is_static
            || is_dynamic
        {
            let known = self.listeners.get_or_insert_default();
            if !(is_static || is_dynamic) {
                known.clear();
            }
            let alone = std::slice::from_ref(part);
            let fixed = if is_static { Some(alone) } else { None };
            let fixed = fixed.or(list("static_listeners")).unwrap_or_default();
            known.extend(
                fixed
                    .iter()
                    .filter_map(|one| Some(listener(&source, one.proto("listener")?, true))),
            );
            let moving = if is_dynamic { Some(alone) } else { None };
            let moving = moving.or(list("dynamic_listeners")).unwrap_or_default();
            known.extend(moving.iter().map(|one| dynamic(&source, one)));
        }
        let alone = part
            .proto("ecds_filter")
            .map(|_| std::slice::from_ref(part));
        if kind.ends_with(".EcdsConfigDump") || alone.is_some() || list("ecds_filters").is_some() {
            let known = self.extensions.get_or_insert_default();
            let filters = alone.or(list("ecds_filters")).unwrap_or_default();
            known.extend(filters.iter().map(|one| extension(&source, one)));
        }
    }

    /// Envoy Gateway gives its proxies no node that the dump shows, but a listener of its own for their readiness, and
    /// most others a name of `namespace/gateway/listener`.
    fn recognise_envoy_gateway(&mut self) {
        let listeners = self.listeners.iter().flatten();
        let names: Vec<&str> = listeners.map(|one| one.name.as_str()).collect();
        if matches!(self.node, Some(Node::Istio { .. }))
            || !names
                .iter()
                .any(|name| name.starts_with("envoy-gateway-proxy-ready"))
        {
            return;
        }
        let mut gateways = Vec::new();
        for name in names {
            let parts: Vec<&str> = name.split('/').collect();
            if let [namespace, gateway, _] = parts.as_slice() {
                let gateway = format!("{namespace}/{gateway}");
                if !gateways.contains(&gateway) {
                    gateways.push(gateway);
                }
            }
        }
        self.node = Some(Node::EnvoyGateway { gateways });
    }
}

/// The place of a plugin in a dump, for people.
const DUMP: &str = "a config dump";

/// An entry of `dynamic_listeners`. What warms up serves soon, what drains doesn't.
fn dynamic(source: &Rc<Source>, one: &Located) -> Listener {
    let state = one.proto("active_state").or(one.proto("warming_state"));
    let own = state.and_then(|state| state.proto("listener"));
    let mut read = match own {
        Some(own) => listener(source, own, false),
        None => Listener::new(source, false),
    };
    if let Some(name) = one.get("name").and_then(Located::text) {
        name.clone_into(&mut read.name);
    }
    read.refused = one.proto("error_state").map(Refused::read);
    read
}

/// An `envoy.config.listener.v3.Listener`.
fn listener(source: &Rc<Source>, message: &Located, is_static: bool) -> Listener {
    let mut read = Listener::new(source, is_static);
    let port = message.proto_at(&["address", "socket_address", "port_value"]);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Ports are small.
    if let Some(port) = port.and_then(Located::proto_number) {
        read.port = Some(port as u64);
    }
    if let Some(name) = message.get("name").and_then(Located::text) {
        name.clone_into(&mut read.name);
    }
    envoy::walk(message, Place::new(DUMP), &mut |met| match met {
        Met::Manager(manager, place) => {
            read.is_http = true;
            let filters = manager.proto("http_filters").map(Located::items);
            for filter in filters.unwrap_or_default() {
                if let (Some(_), Some(name), Some(manager)) = (
                    filter.proto("config_discovery"),
                    filter.get("name"),
                    &place.manager,
                ) {
                    read.filters.push(Listed {
                        name: name.text().unwrap_or_default().to_owned(),
                        place: name.span.clone(),
                        manager: manager.clone(),
                        content: None,
                    });
                }
            }
        }
        Met::Wasm(wasm, place) => {
            let name = place.name;
            read.filters.push(Listed {
                name: name.and_then(Located::text).unwrap_or_default().to_owned(),
                place: name.map_or(wasm.start(), |name| name.span.clone()),
                manager: place.manager.clone().unwrap_or(Manager::USUAL),
                content: Some(Content::read(source, wasm, place)),
            });
        }
    });
    read
}

/// An `envoy.admin.v3.EcdsConfigDump.EcdsFilterConfig`.
fn extension(source: &Rc<Source>, one: &Located) -> Extension {
    let filter = one.proto("ecds_filter").unwrap_or(one);
    let name = filter.get("name");
    let mut content = Content::Other;
    envoy::walk(filter, Place::new(DUMP), &mut |met| {
        if let Met::Wasm(wasm, place) = met {
            content = Content::read(source, wasm, place);
        }
    });
    if let Some(("envoy.extensions.filters.http.rbac.v3.RBAC", rbac)) =
        filter.proto("typed_config").and_then(Located::any)
    {
        match rbac.proto("rules_stat_prefix").and_then(Located::text) {
            Some("wasm-default-deny") => content = Content::Closed,
            Some("wasm-default-allow") => content = Content::Open,
            _ => {}
        }
    }
    let text = |name: &str| one.proto(name).and_then(Located::text).map(str::to_owned);
    Extension {
        name: name.and_then(Located::text).unwrap_or_default().to_owned(),
        place: name.map_or(filter.start(), |name| name.span.clone()),
        content,
        since: text("last_updated"),
        refused: one.proto("error_state").map(Refused::read),
        source: Rc::clone(source),
    }
}

impl Refused {
    /// Reads `envoy.admin.v3.UpdateFailureState`.
    fn read(state: &Located) -> Refused {
        let text = |name: &str| state.proto(name).and_then(Located::text).map(str::to_owned);
        let mut filters = Vec::new();
        if let Some(failed) = state.proto("failed_configuration") {
            envoy::walk(failed, Place::new(DUMP), &mut |met| {
                if let Met::Manager(manager, _) = met {
                    let names = manager.proto("http_filters").map(Located::items);
                    let names = names.unwrap_or_default().iter();
                    filters
                        .extend(names.filter_map(|one| one.get("name")?.text().map(str::to_owned)));
                }
            });
        }
        Refused {
            details: text("details").unwrap_or_default(),
            when: text("last_update_attempt"),
            filters,
        }
    }
}
