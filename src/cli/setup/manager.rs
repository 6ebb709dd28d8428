//! Settings of Envoy's HTTP connection manager, and of what stands in front of it, that decide which `peerAddress` tells
//! the truth.

use super::route_headers;
use crate::cli::files::Located;

/// What is known of the connection manager around a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // Independent settings, under Envoy's own names.
pub(in crate::cli) struct Manager {
    pub(in crate::cli) use_remote_address: bool,
    pub(in crate::cli) xff_num_trusted_hops: u32,
    pub(in crate::cli) skip_xff_append: bool,
    pub(in crate::cli) original_ip_detection: bool,
    /// Whether the address comes from x-forwarded-for by an extension that appends the peer all the same.
    pub(in crate::cli) detection_appends: bool,
    pub(in crate::cli) proxy_protocol: bool,
    pub(in crate::cli) early_header_mutation: bool,
    /// The setting by which Envoy writes the scheme itself.
    pub(in crate::cli) writes_scheme: Option<&'static str>,
    /// Whether the router tells each upstream the scheme of the connection to it.
    pub(in crate::cli) match_upstream: bool,
    /// Whether one of its routes changes x-forwarded-proto itself.
    pub(in crate::cli) routes_change_scheme: bool,
    /// A cluster of its routes that is sent HTTP/2 without TLS.
    pub(in crate::cli) plain_http2: Option<String>,
    /// What network filters write into the connection's filter state, by key.
    pub(in crate::cli) filter_state: Vec<(String, Written)>,
}

/// A value in the filter state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Written {
    /// The address that opened the connection.
    DirectPeer,
    /// The client's address: behind the PROXY protocol the one that its header claims.
    Client,
    /// Anything else.
    Other,
}

impl Manager {
    /// As on Istio's gateways, and on any that clients reach.
    pub(in crate::cli) const USUAL: Manager = Manager {
        use_remote_address: true,
        xff_num_trusted_hops: 0,
        skip_xff_append: false,
        original_ip_detection: false,
        detection_appends: false,
        proxy_protocol: false,
        early_header_mutation: false,
        writes_scheme: None,
        match_upstream: false,
        routes_change_scheme: false,
        plain_http2: None,
        filter_state: Vec::new(),
    };

    /// Reads an `HttpConnectionManager`.
    pub(in crate::cli) fn read(message: &Located) -> Manager {
        let mut manager = Manager {
            use_remote_address: false,
            ..Manager::USUAL
        };
        manager.merge(message);
        manager
    }

    /// Sets what an `HttpConnectionManager`, or a part of one, says.
    pub(super) fn merge(&mut self, message: &Located) {
        for (name, setting) in [
            ("use_remote_address", &mut self.use_remote_address),
            ("skip_xff_append", &mut self.skip_xff_append),
        ] {
            if let Some(value) = message.proto(name).and_then(Located::boolean) {
                *setting = value;
            }
        }
        let hops = message.proto("xff_num_trusted_hops");
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // Saturates; hops are few.
        if let Some(hops) = hops.and_then(Located::proto_number) {
            self.xff_num_trusted_hops = hops as u32;
        }
        let list = |name: &str| message.proto(name).map(Located::items).unwrap_or_default();
        self.early_header_mutation |= !list("early_header_mutation_extensions").is_empty();
        let detection = list("original_ip_detection_extensions");
        if !detection.is_empty() {
            self.original_ip_detection = true;
            self.detection_appends = detection.iter().all(appends);
        }
        if message.proto("forward_proto_config").is_some() {
            self.writes_scheme = Some("forward_proto_config");
        }
        if let Some(scheme) = message.proto("scheme_header_transformation") {
            if scheme.proto("scheme_to_overwrite").is_some() {
                self.writes_scheme = Some("scheme_header_transformation");
            }
            let matches = scheme.proto("match_upstream").and_then(Located::boolean);
            self.match_upstream = matches == Some(true);
        }
        let routes = message.proto("route_config");
        self.routes_change_scheme |=
            routes.is_some_and(|routes| route_headers::changed(routes).is_some());
    }
}

/// Whether an original IP detection is the one by x-forwarded-for, told to append.
fn appends(extension: &Located) -> bool {
    let config = extension.proto("typed_config").and_then(Located::any);
    config.is_some_and(|(kind, config)| {
        kind == "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig"
            && config.proto("skip_xff_append").and_then(Located::boolean) == Some(false)
    })
}

/// Whether one of a listener's filters reads the PROXY protocol.
pub(in crate::cli) fn has_proxy_protocol(listener_filters: &Located) -> bool {
    listener_filters.items().iter().any(reads_proxy_protocol)
}

pub(super) fn reads_proxy_protocol(filter: &Located) -> bool {
    let name = filter.get("name").and_then(Located::text);
    let kind = filter
        .proto("typed_config")
        .and_then(Located::any)
        .map(|(kind, _)| kind);
    match kind {
        Some(kind) => kind.ends_with(".proxy_protocol.v3.ProxyProtocol"),
        None => name.is_some_and(|name| name.contains("proxy_protocol")),
    }
}

/// What a network filter writes into the filter state when a connection opens.
pub(in crate::cli) fn filter_state(filter: &Located) -> Vec<(String, Written)> {
    let config = filter.proto("typed_config").and_then(Located::any);
    let Some((kind, config)) = config else {
        return Vec::new();
    };
    if kind != "envoy.extensions.filters.network.set_filter_state.v3.Config" {
        return Vec::new();
    }
    let values = config.proto("on_new_connection").map(Located::items);
    values
        .unwrap_or_default()
        .iter()
        .filter_map(|value| {
            let key = value.proto("object_key")?.text()?.to_owned();
            let format = value
                .proto_at(&["format_string", "text_format_source", "inline_string"])
                .or_else(|| value.proto_at(&["format_string", "text_format"]))
                .and_then(Located::text);
            let is_text =
                value.proto("factory_key").and_then(Located::text) == Some("envoy.string");
            let written = match format.map(str::trim) {
                Some("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%") if is_text => {
                    Written::DirectPeer
                }
                Some("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%") if is_text => Written::Client,
                _ => Written::Other,
            };
            Some((key, written))
        })
        .collect()
}
