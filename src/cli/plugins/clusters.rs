//! Envoy's clusters: how they are spoken to, and which routes lead to them.

use std::collections::HashSet;

use crate::cli::files::Located;

/// The name of a cluster that is sent HTTP/2 without TLS, whatever the downstream speaks.
pub(super) fn plain_http2(cluster: &Located) -> Option<&str> {
    let is_there = |field: &str| cluster.proto(field).is_some_and(|field| !field.is_null());
    if is_there("transport_socket") || is_there("transport_socket_matches") {
        return None;
    }
    let explicit = || {
        cluster
            .proto("typed_extension_protocol_options")?
            .get("envoy.extensions.upstreams.http.v3.HttpProtocolOptions")?
            .proto_at(&["explicit_http_config", "http2_protocol_options"])
    };
    (is_there("http2_protocol_options") || explicit().is_some())
        .then(|| cluster.get("name")?.text())
        .flatten()
}

/// The first of these clusters to which a route of the connection manager leads, as far as its routes are there.
pub(super) fn routed_to(manager: &Located, clusters: &HashSet<&str>) -> Option<String> {
    if clusters.is_empty() {
        return None;
    }
    let hosts = manager.proto_at(&["route_config", "virtual_hosts"])?;
    let routes = hosts.items().iter().filter_map(|host| host.get("routes"));
    let actions = routes
        .flat_map(Located::items)
        .filter_map(|route| route.get("route"));
    actions
        .flat_map(|action| {
            let weighted = action.proto_at(&["weighted_clusters", "clusters"]);
            let names = weighted.map(Located::items).unwrap_or_default().iter();
            names
                .filter_map(|cluster| cluster.get("name"))
                .chain(action.get("cluster"))
        })
        .filter_map(Located::text)
        .find(|name| clusters.contains(name))
        .map(str::to_owned)
}
