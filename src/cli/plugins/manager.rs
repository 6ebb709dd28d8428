//! Settings of Envoy's HTTP connection manager that decide which `peerAddress` tells the truth.

use crate::cli::files::Located;

/// What a file says of the connection manager around a plugin.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools)] // Independent settings, under Envoy's own names.
pub(in crate::cli) struct Manager {
    pub(in crate::cli) use_remote_address: bool,
    pub(in crate::cli) xff_num_trusted_hops: u32,
    pub(in crate::cli) skip_xff_append: bool,
    pub(in crate::cli) original_ip_detection: bool,
    pub(in crate::cli) proxy_protocol: bool,
    pub(in crate::cli) early_header_mutation: bool,
}

impl Manager {
    /// As on Istio's gateways, and on any that clients reach.
    pub(in crate::cli) const USUAL: Manager = Manager {
        use_remote_address: true,
        xff_num_trusted_hops: 0,
        skip_xff_append: false,
        original_ip_detection: false,
        proxy_protocol: false,
        early_header_mutation: false,
    };

    /// Reads an `HttpConnectionManager`.
    pub(super) fn read(message: &Located, proxy_protocol: bool) -> Manager {
        let on = |name: &str| {
            message
                .proto(name)
                .and_then(Located::boolean)
                .unwrap_or(false)
        };
        let some = |name: &str| {
            message
                .proto(name)
                .is_some_and(|list| !list.items().is_empty())
        };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // Saturates; hops are few.
        let hops = message
            .proto("xff_num_trusted_hops")
            .and_then(Located::proto_number)
            .unwrap_or(0.0) as u32;
        Manager {
            use_remote_address: on("use_remote_address"),
            xff_num_trusted_hops: hops,
            skip_xff_append: on("skip_xff_append"),
            original_ip_detection: some("original_ip_detection_extensions"),
            proxy_protocol,
            early_header_mutation: some("early_header_mutation_extensions"),
        }
    }
}

/// Whether one of a listener's filters reads the PROXY protocol.
pub(super) fn has_proxy_protocol(listener_filters: &Located) -> bool {
    listener_filters.items().iter().any(|filter| {
        let name = filter.get("name").and_then(Located::text);
        let kind = filter
            .proto("typed_config")
            .and_then(Located::any)
            .map(|(kind, _)| kind);
        match kind {
            Some(kind) => kind.ends_with(".ProxyProtocol"),
            None => name.is_some_and(|name| name.contains("proxy_protocol")),
        }
    })
}
