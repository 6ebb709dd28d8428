//! Bootstraps for Envoy as a gateway: a connection manager, our filter, and an observer behind it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::artifacts;
use crate::cases::{CLIENT_CA, Gateway};
use trusted_lb::config::DEFAULT_PEER_KEY;

use crate::hcm::{ISTIO_CONFIG, PEER_HELPER, PROTO_HELPER, VIRTUAL_HOST};

/// Headers that Envoy's router takes away; the observer shows each under `x-seen-`.
const OBSERVED: &[&str] = &[
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-max-retries",
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-upstream-stream-duration-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-alt-stat-name",
];

/// A listener with an HTTP connection manager.
#[derive(Clone, Debug)]
pub struct Listener {
    name: String,
    gateway: Gateway,
    tls: bool,
    at: Value,
    observed: bool,
    network_filters: Vec<Value>,
    filters: Vec<Value>,
    virtual_hosts: Value,
    settings: Value,
    router: Value,
    rendered: Option<Value>,
}

impl Listener {
    /// A gateway's plain listener, without a filter, one virtual host that routes everything to the upstream.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            gateway: Gateway::default(),
            tls: false,
            at: json!({"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}),
            observed: true,
            network_filters: Vec::new(),
            filters: Vec::new(),
            settings: json!({}),
            rendered: None,
            router: typed("extensions.filters.http.router.v3.Router"),
            virtual_hosts: json!([{
                "name": VIRTUAL_HOST,
                "domains": ["*"],
                "routes": [
                    {
                        "name": "checkout",
                        "match": {"prefix": "/checkout"},
                        "route": {"cluster": "upstream"},
                        "metadata": {"filter_metadata": {"istio": {"config": ISTIO_CONFIG}}},
                    },
                    {"name": "named-route", "match": {"prefix": "/named"}, "route": {"cluster": "upstream"}},
                    {"match": {"prefix": "/"}, "route": {"cluster": "upstream"}},
                ],
            }]),
        }
    }

    /// Gives the listener another name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Settings of the connection manager.
    #[must_use]
    pub fn gateway(mut self, gateway: &Gateway) -> Self {
        self.gateway = gateway.clone();
        self
    }

    /// Terminates TLS, with a certificate made up here.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Where it listens, instead of a free port of 127.0.0.1: fields of Envoy's `Listener`.
    #[must_use]
    pub fn at(mut self, fields: Value) -> Self {
        self.at = fields;
        self
    }

    /// Leaves out the filter that shows the upstream what only filters can see: for benches.
    #[must_use]
    pub fn unobserved(mut self) -> Self {
        self.observed = false;
        self
    }

    /// Adds a network filter in front of the connection manager, behind those before.
    #[must_use]
    pub fn network_filter(mut self, filter: Value) -> Self {
        self.network_filters.push(filter);
        self
    }

    /// Adds an HTTP filter behind those before.
    #[must_use]
    pub fn filter(mut self, filter: Value) -> Self {
        self.filters.push(filter);
        self
    }

    /// Takes the fields of a listener that `trusted-lb render native` prints. What they say of the connection manager counts
    /// more than the gateway's settings.
    #[must_use]
    pub fn rendered(mut self, fields: Value) -> Self {
        self.rendered = Some(fields);
        self
    }

    /// Adds our filter with this plugin configuration.
    #[must_use]
    pub fn plugin(self, configuration: &Value, environment: &BTreeMap<String, String>) -> Self {
        self.filter(plugin(configuration, environment))
    }

    /// Replaces the virtual hosts.
    #[must_use]
    pub fn virtual_hosts(mut self, virtual_hosts: Value) -> Self {
        self.virtual_hosts = virtual_hosts;
        self
    }

    /// Replaces the router's configuration.
    #[must_use]
    pub fn router(mut self, configuration: Value) -> Self {
        self.router = configuration;
        self
    }

    /// Adds a field to the connection manager, or replaces it.
    #[must_use]
    pub fn setting(mut self, name: &str, value: Value) -> Self {
        self.settings[name] = value;
        self
    }

    fn json(&self) -> Value {
        let chains: Vec<Value> = match &self.rendered {
            None => vec![self.chain(&json!({"filters": [{"typed_config": {}}]}))],
            Some(fields) => (fields["filter_chains"]
                .as_array()
                .expect("filter chains")
                .iter())
            .map(|chain| self.chain(chain))
            .collect(),
        };
        let mut listener = json!({"name": self.name, "filter_chains": chains});
        if self.gateway.proxy_protocol {
            listener["listener_filters"] = json!([{
                "name": "envoy.filters.listener.proxy_protocol",
                "typed_config": typed("extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"),
            }]);
        }
        merge(&mut listener, self.at.clone());
        listener
    }

    /// A filter chain: this one, whose last filter is the connection manager, with everything else that a gateway has.
    fn chain(&self, rendered: &Value) -> Value {
        let mut chain = rendered.clone();
        let rendered = chain["filters"].as_array_mut().expect("filters");
        let mut manager_fields =
            rendered.pop().expect("the connection manager")["typed_config"].clone();
        let rendered_network_filters = rendered.clone();
        let mut filters = Vec::new();
        if !self.gateway.earlier_filter.is_empty() {
            let added = self
                .gateway
                .earlier_filter
                .iter()
                .map(|(name, value)| append(name, value, "OVERWRITE_IF_EXISTS_OR_ADD"))
                .collect();
            filters.push(header_mutation("earlier", added));
        }
        let rendered_filters = manager_fields
            .as_object_mut()
            .and_then(|fields| fields.remove("http_filters"));
        filters.extend(
            rendered_filters
                .iter()
                .flat_map(Value::as_array)
                .flatten()
                .cloned(),
        );
        filters.extend(self.filters.iter().cloned());
        if self.observed {
            filters.push(observer());
        }
        filters.push(json!({
            "name": "envoy.filters.http.router",
            "typed_config": self.router,
        }));
        let mut manager =
            typed("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager");
        merge(
            &mut manager,
            json!({
                "stat_prefix": self.name,
                "codec_type": "AUTO",
                "use_remote_address": self.gateway.use_remote_address,
                "xff_num_trusted_hops": self.gateway.xff_num_trusted_hops,
                "skip_xff_append": self.gateway.skip_xff_append,
                // A client that was refused need not be waited for: the tests' clients read what they are sent.
                "delayed_close_timeout": "0.01s",
                "upgrade_configs": [{"upgrade_type": "websocket"}],
                "http_filters": filters,
                "route_config": {"name": self.name, "virtual_hosts": self.virtual_hosts},
            }),
        );
        if let Some(header) = &self.gateway.original_ip_header {
            let mut detection =
                typed("extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig");
            merge(
                &mut detection,
                json!({"header_name": header, "allow_extension_to_set_address_as_trusted": true}),
            );
            manager["original_ip_detection_extensions"] = json!([{
                "name": "envoy.http.original_ip_detection.custom_header", "typed_config": detection,
            }]);
        }
        if !self.gateway.internal_addresses.is_empty() {
            let ranges: Vec<Value> = (self.gateway.internal_addresses.iter())
                .map(|(prefix, length)| json!({"address_prefix": prefix, "prefix_len": length}))
                .collect();
            manager["internal_address_config"] = json!({"cidr_ranges": ranges});
        }
        if self.gateway.accept_http10 {
            manager["http_protocol_options"] =
                json!({"accept_http_10": true, "default_host_for_http_10": "app.example.com"});
        }
        if self.gateway.early_mutation {
            manager["early_header_mutation_extensions"] = json!([early_mutation()]);
        }
        merge(&mut manager, self.settings.clone());
        merge(&mut manager, manager_fields);
        if manager["use_remote_address"] == json!(true)
            && let Some(fields) = manager.as_object_mut()
        {
            // Envoy refuses both.
            fields.remove("original_ip_detection_extensions");
        }
        let mut network_filters = rendered_network_filters;
        network_filters.extend(self.network_filters.iter().cloned());
        network_filters.push(json!({
            "name": "envoy.filters.network.http_connection_manager", "typed_config": manager,
        }));
        if self.gateway.filter_state {
            network_filters.insert(0, direct_peer());
        }
        chain["filters"] = json!(network_filters);
        if self.tls {
            chain["transport_socket"] = tls_socket();
        }
        chain
    }
}

/// Virtual hosts as a gateway has them: `secure.example.com` with httpsRedirect, `old.example.com` with a path redirect,
/// everything else routed to the upstream.
#[must_use]
pub fn usual_virtual_hosts() -> Value {
    let routed = json!([{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}]);
    json!([
        {"name": "secure", "domains": ["secure.example.com"], "require_tls": "ALL", "routes": routed},
        {"name": "old", "domains": ["old.example.com"], "routes": [
            {"match": {"prefix": "/"}, "redirect": {"path_redirect": "/new"}},
        ]},
        {"name": "app", "domains": ["*"], "routes": routed},
    ])
}

/// A bootstrap with these listeners and the upstream as its cluster.
#[must_use]
pub fn bootstrap(listeners: &[Listener], upstream: SocketAddr) -> Value {
    let endpoint = json!({"endpoint": {"address": {"socket_address": {
        "address": upstream.ip().to_string(), "port_value": upstream.port(),
    }}}});
    json!({"static_resources": {
        "listeners": listeners.iter().map(Listener::json).collect::<Vec<_>>(),
        "clusters": [{
            "name": "upstream",
            "type": "STATIC",
            "connect_timeout": "2s",
            "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [endpoint]}]},
        }],
    }})
}

/// Our filter, as a standalone Envoy loads it.
#[must_use]
pub fn plugin(configuration: &Value, environment: &BTreeMap<String, String>) -> Value {
    plugin_of(artifacts::module(), configuration, environment)
}

/// As [`plugin`], from another module's file.
#[must_use]
pub fn plugin_of(
    module: &Path,
    configuration: &Value,
    environment: &BTreeMap<String, String>,
) -> Value {
    let mut wasm = typed("extensions.filters.http.wasm.v3.Wasm");
    merge(
        &mut wasm,
        json!({"config": {
            "name": "trusted-lb",
            "fail_open": false,
            "configuration": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": configuration.to_string(),
            },
            "vm_config": {
                // A VM of its own for each environment: whether it is part of the VM's key is Envoy's business.
                "vm_id": fingerprint(environment),
                "runtime": "envoy.wasm.runtime.v8",
                "code": {"local": {"filename": module}},
                "environment_variables": {"key_values": environment},
            },
        }}),
    );
    json!({"name": "trusted-lb", "typed_config": wasm})
}

fn fingerprint(environment: &BTreeMap<String, String>) -> String {
    let mut hasher = DefaultHasher::new();
    environment.hash(&mut hasher);
    format!("{:x}", hasher.finish())
}

/// The early header mutation that saves what Envoy is about to overwrite.
fn early_mutation() -> Value {
    let mut mutation =
        typed("extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation");
    let token = "%ENVIRONMENT(HELPER_TOKEN)%";
    merge(
        &mut mutation,
        json!({"mutations": [
            {"remove": PEER_HELPER},
            {"remove": PROTO_HELPER},
            append(PEER_HELPER, &format!("{token} %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"), "APPEND_IF_EXISTS_OR_ADD"),
            append(PROTO_HELPER, &format!("{token} %REQ(x-forwarded-proto)%"), "APPEND_IF_EXISTS_OR_ADD"),
        ]}),
    );
    json!({"name": "envoy.http.early_header_mutation.header_mutation", "typed_config": mutation})
}

/// The network filter that writes the direct peer into the connection's filter state.
fn direct_peer() -> Value {
    let mut config = typed("extensions.filters.network.set_filter_state.v3.Config");
    let peer = "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%";
    merge(
        &mut config,
        json!({"on_new_connection": [{
            "object_key": DEFAULT_PEER_KEY,
            "factory_key": "envoy.string",
            "format_string": {"text_format_source": {"inline_string": peer}},
            "read_only": true,
        }]}),
    );
    json!({"name": "envoy.filters.network.set_filter_state", "typed_config": config})
}

/// A filter that copies what only filters can see into headers that reach the upstream.
fn observer() -> Value {
    let mut copies = vec![append(
        "x-seen-scheme",
        "%REQ(:SCHEME)%",
        "OVERWRITE_IF_EXISTS_OR_ADD",
    )];
    for name in OBSERVED {
        copies.push(append(
            &format!("x-seen-{name}"),
            &format!("%REQ({name})%"),
            "OVERWRITE_IF_EXISTS_OR_ADD",
        ));
    }
    header_mutation("observer", copies)
}

/// The header under which the upstream sees one that the observer copies.
#[must_use]
pub fn seen_as(name: &str) -> String {
    if name == ":scheme" {
        "x-seen-scheme".to_owned()
    } else if OBSERVED.contains(&name) {
        format!("x-seen-{name}")
    } else {
        name.to_owned()
    }
}

fn header_mutation(name: &str, mutations: Vec<Value>) -> Value {
    let mut config = typed("extensions.filters.http.header_mutation.v3.HeaderMutation");
    merge(
        &mut config,
        json!({"mutations": {"request_mutations": mutations}}),
    );
    json!({"name": name, "typed_config": config})
}

fn append(name: &str, value: &str, action: &str) -> Value {
    json!({"append": {"header": {"key": name, "value": value}, "append_action": action}})
}

fn tls_socket() -> Value {
    let certified = rcgen::generate_simple_self_signed(vec!["app.example.com".to_owned()])
        .expect("a certificate can be made");
    let mut context = typed("extensions.transport_sockets.tls.v3.DownstreamTlsContext");
    merge(
        &mut context,
        json!({"common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": [{
                "certificate_chain": {"inline_string": certified.cert.pem()},
                "private_key": {"inline_string": certified.signing_key.serialize_pem()},
            }],
            // Client certificates are asked for, not demanded.
            "validation_context": {"trusted_ca": {"inline_string": CLIENT_CA}},
        }}),
    );
    json!({"name": "envoy.transport_sockets.tls", "typed_config": context})
}

/// A message of Envoy's, by its name below `envoy.`.
#[must_use]
pub fn typed(name: &str) -> Value {
    json!({"@type": format!("type.googleapis.com/envoy.{name}")})
}

/// Adds the fields of one object to another.
///
/// # Panics
/// Where either isn't an object.
pub fn merge(into: &mut Value, from: Value) {
    let (Value::Object(into), Value::Object(from)) = (into, from) else {
        panic!("only objects can be merged");
    };
    into.extend(from);
}
