//! Envoy's own configurations: bootstraps, parts of them, and dumps.

use super::per_route::{per_filter_config, per_routes};
use super::{
    Filter, Note, Target, configuration, has_code, lua_configuration, note, snake, whole_number,
};
use crate::cli::files::Located;
use crate::cli::migrate::lua::{Condition, Is, Subject};

/// Lua in an Envoy configuration: in connection managers, or a filter by itself.
pub(in crate::cli::migrate) fn envoy(located: &Located, found: &mut Vec<Filter>) {
    if let Some(list) = located.proto("http_filters") {
        let number = found.len();
        let lua: Vec<(&Located, &Located)> = list
            .items()
            .iter()
            .filter_map(|filter| Some((filter, lua_configuration(filter)?)))
            .collect();
        for (index, (_, lua)) in lua.iter().enumerate() {
            let mut filter = in_envoy(number);
            configuration(lua, &mut filter);
            if index == 0 {
                manager(located, &mut filter);
                routes(located, &mut filter);
            }
            found.push(filter);
        }
        return;
    }
    if (has_code(located) || located.proto("typed_config").is_some())
        && let Some(lua) = lua_configuration(located)
    {
        let mut filter = in_envoy(found.len());
        configuration(lua, &mut filter);
        found.push(filter);
        return;
    }
    for field in located.fields() {
        envoy(&field.value, found);
    }
    for item in located.items() {
        envoy(item, found);
    }
}

fn in_envoy(number: usize) -> Filter {
    let holder = "an Envoy configuration".to_owned();
    Filter::new(holder, None, Target::Envoy(number), Vec::new())
}

/// What the connection manager around the filter says about addresses.
fn manager(located: &Located, filter: &mut Filter) {
    let remote = located
        .proto("use_remote_address")
        .and_then(Located::boolean)
        == Some(true);
    let hops = located
        .proto("xff_num_trusted_hops")
        .and_then(whole_number)
        .unwrap_or(0);
    let skips = located.proto("skip_xff_append").and_then(Located::boolean) == Some(true);
    if !remote || skips {
        note(
            &mut filter.notes,
            located,
            "this connection manager doesn't set use_remote_address: true, so that Envoy takes x-forwarded-proto and addresses from \
             clients: set it, or choose peerAddress (docs/peer-address.md)",
        );
    } else if hops > 0 {
        filter.peer_address = Some("forwardedFor".to_owned());
    }
}

/// `LuaPerRoute` in the connection manager's own routes.
fn routes(located: &Located, filter: &mut Filter) {
    let hosts = located
        .proto("route_config")
        .and_then(|routes| routes.proto("virtual_hosts"));
    for host in hosts.map(Located::items).unwrap_or_default() {
        let mut of_host = Condition::Never;
        let subject = || Subject::Header(":authority".into());
        for domain in host.get("domains").map(Located::items).unwrap_or_default() {
            let one = match domain.text().unwrap_or_default() {
                "*" => Condition::Always,
                text => match text.strip_prefix('*') {
                    Some(suffix) => Condition::test(subject(), Is::Suffix(suffix.into()), 0..0),
                    None => Condition::test(subject(), Is::Exact(text.into()), 0..0),
                },
            };
            of_host = of_host.or(one);
        }
        for route in host.get("routes").map(Located::items).unwrap_or_default() {
            if let Some((map, fields)) = per_filter_config(route) {
                let condition = of_host
                    .clone()
                    .and(path_condition(route, &mut filter.notes));
                per_routes(
                    &condition,
                    map,
                    fields,
                    &mut filter.elsewhere,
                    &mut filter.notes,
                );
            }
        }
        if let Some((map, fields)) = per_filter_config(host) {
            per_routes(
                &of_host,
                map,
                fields,
                &mut filter.elsewhere,
                &mut filter.notes,
            );
        }
    }
}

fn path_condition(route: &Located, notes: &mut Vec<Note>) -> Condition {
    let mut condition = Condition::Always;
    let subject = || Subject::Header(":path".into());
    for field in route
        .get("match")
        .map(Located::fields)
        .into_iter()
        .flatten()
    {
        let value = field.value.text().unwrap_or_default();
        let one = match snake(&field.name).as_str() {
            "prefix" if value == "/" => Condition::Always,
            "prefix" | "path_separated_prefix" => {
                Condition::test(subject(), Is::Prefix(value.into()), 0..0)
            }
            "path" => Condition::test(subject(), Is::Exact(value.into()), 0..0),
            other => {
                notes.push(Note {
                    at: field.name_span.start,
                    text: format!("a route's match by {other} isn't translated: what stands there is taken for more requests"),
                });
                Condition::Always
            }
        };
        condition = condition.and(one);
    }
    condition
}
