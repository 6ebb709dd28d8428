//! What a gateway of Istio's gets of a manifest: its listener, with the filters in place, and what comes by discovery.

use kcr_extensions_istio_io::v1alpha1::wasmplugins::{
    WasmPlugin, WasmPluginFailStrategy, WasmPluginVmConfigEnvValueFrom,
};
use kcr_networking_istio_io::v1alpha3::envoyfilters::{
    EnvoyFilter, EnvoyFilterConfigPatches, EnvoyFilterConfigPatchesApplyTo as ApplyTo,
    EnvoyFilterConfigPatchesMatchContext, EnvoyFilterConfigPatchesPatchOperation as Operation,
};
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use testkit::artifacts;
use testkit::discovery::{self, Discovery};
use testkit::gateway::{Listener, bootstrap, typed};

const CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";
const ROUTER: &str = "envoy.filters.http.router";

/// A gateway of Istio's, as its Envoy is configured.
pub struct Gateway {
    bootstrap: Value,
    discovery: Discovery,
    extensions: Vec<Value>,
}

impl Gateway {
    /// A gateway without a filter of ours, in front of an upstream.
    #[must_use]
    pub fn new(upstream: SocketAddr) -> Self {
        let mut bootstrap = bootstrap(&[Listener::new("gateway")], upstream);
        discovery::identify(&mut bootstrap);
        Self {
            bootstrap,
            discovery: Discovery::new(),
            extensions: Vec::new(),
        }
    }

    /// A CUSTOM authorization policy: Istio's external authorization, in front of everything that it puts there itself.
    pub fn authorize_by(&mut self, service: SocketAddr) {
        let endpoint = json!({"endpoint": {"address": {"socket_address": {
            "address": service.ip().to_string(), "port_value": service.port(),
        }}}});
        let cluster = json!({
            "name": "authorization", "type": "STATIC",
            "load_assignment": {"cluster_name": "authorization", "endpoints": [{"lb_endpoints": [endpoint]}]},
        });
        let clusters = &mut self.bootstrap["static_resources"]["clusters"];
        clusters.as_array_mut().expect("a list").push(cluster);
        let mut config = typed("extensions.filters.http.ext_authz.v3.ExtAuthz");
        config["allowed_headers"] = json!({"patterns": [{"exact": "x-forwarded-proto"}]});
        config["http_service"] = json!({
            "server_uri": {"uri": "http://authorization", "cluster": "authorization", "timeout": "10s"},
        });
        let filter = json!({"name": "envoy.filters.http.ext_authz", "typed_config": config});
        self.http_filters().insert(0, filter);
    }

    /// What Istio makes of a `WasmPlugin` in phase AUTHN: behind CUSTOM authorization, in front of the rest.
    ///
    /// # Panics
    /// Where the resource lacks a name or a namespace.
    pub fn load(&mut self, plugin: &WasmPlugin) {
        let part = |text: &Option<String>| text.clone().expect("it has a name and a namespace");
        let name = format!(
            "{}.{}",
            part(&plugin.metadata.namespace),
            part(&plugin.metadata.name)
        );
        let spec = &plugin.spec;
        let mut values = Map::new();
        let mut host_keys = Vec::new();
        for variable in spec.vm_config.iter().flat_map(|vm| vm.env.iter().flatten()) {
            if variable.value_from == Some(WasmPluginVmConfigEnvValueFrom::Host) {
                host_keys.push(variable.name.clone());
            } else {
                values.insert(variable.name.clone(), variable.value.clone().into());
            }
        }
        let mut config = typed("extensions.filters.http.wasm.v3.Wasm");
        config["config"] = json!({
            "name": name,
            "failure_policy": match spec.fail_strategy {
                None | Some(WasmPluginFailStrategy::FailClose) => "FAIL_CLOSED",
                Some(WasmPluginFailStrategy::FailOpen) => "FAIL_OPEN",
                Some(WasmPluginFailStrategy::FailReload) => "FAIL_RELOAD",
            },
            "vm_config": {
                "runtime": "envoy.wasm.runtime.v8",
                "code": remote(&spec.url),
                "environment_variables": {"key_values": values, "host_env_keys": host_keys},
            },
        });
        if let Some(plugin_config) = &spec.plugin_config {
            config["config"]["configuration"] = json!({
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": json!(plugin_config).to_string(),
            });
        }
        self.extensions
            .push(json!({"name": name, "typed_config": config}));
        let at = self
            .http_filters()
            .iter()
            .take_while(|filter| filter["name"] == "envoy.filters.http.ext_authz")
            .count();
        let filter = discovery::discovered(&name, json!({"ads": {}}));
        self.http_filters().insert(at, filter);
    }

    /// Applies the patches of an `EnvoyFilter`, as far as our manifests have them.
    ///
    /// # Panics
    /// At a patch that isn't known here.
    pub fn patch(&mut self, filter: &EnvoyFilter) {
        for patch in filter.spec.config_patches.iter().flatten() {
            self.apply(patch);
        }
    }

    fn apply(&mut self, patch: &EnvoyFilterConfigPatches) {
        let matched = patch.r#match.as_ref().expect("a match");
        assert_eq!(
            matched.context,
            Some(EnvoyFilterConfigPatchesMatchContext::Gateway)
        );
        let filter = matched
            .listener
            .as_ref()
            .and_then(|listener| listener.filter_chain.as_ref()?.filter.as_ref());
        let named = filter.and_then(|filter| filter.name.as_deref());
        let inner = filter.and_then(|filter| filter.sub_filter.as_ref()?.name.as_deref());
        let change = patch.patch.as_ref().expect("a patch");
        let value = json!(change.value.as_ref().expect("a value"));
        let (place, operation) = (
            patch.apply_to.as_ref().expect("applyTo"),
            change.operation.as_ref().expect("operation"),
        );
        if *place != ApplyTo::ExtensionConfig {
            assert_eq!(named, Some(CONNECTION_MANAGER));
        }
        match (place, operation, inner) {
            (ApplyTo::ExtensionConfig, Operation::Add, None) => self.extensions.push(value),
            (ApplyTo::HttpFilter, Operation::InsertFirst, None) => {
                self.http_filters().insert(0, value);
            }
            (ApplyTo::HttpFilter, Operation::InsertBefore, Some(ROUTER)) => {
                let at = self.http_filters().len() - 1;
                self.http_filters().insert(at, value);
            }
            (ApplyTo::NetworkFilter, Operation::InsertBefore, None) => {
                network_filters(&mut self.bootstrap).insert(0, value);
            }
            (ApplyTo::NetworkFilter, Operation::Merge, None) => {
                merge(self.connection_manager(), &value["typed_config"]);
            }
            other => panic!("not known here: {other:?}"),
        }
    }

    /// The configuration that Envoy starts with, after Istio's agent has downloaded the module and put its file in place.
    ///
    /// # Panics
    /// Where a filter is to be discovered and no extension has its name.
    #[must_use]
    pub fn bootstrap(&self) -> Value {
        self.filled_in(|filter, extension| {
            let name = filter["name"].as_str().expect("a name").to_owned();
            let source = &mut filter["config_discovery"]["config_source"];
            assert_eq!(source["ads"], json!({}), "it comes with the rest");
            *source = self.discovery.source(&name);
            self.discovery
                .hand_over(&name, &[discovery::extension(&extension)]);
        })
    }

    /// The same, with each extension right in its place: Envoy checks it without discovering anything.
    ///
    /// # Panics
    /// As [`Gateway::bootstrap`].
    #[must_use]
    pub fn bootstrap_at_once(&self) -> Value {
        self.filled_in(|filter, extension| *filter = extension)
    }

    fn filled_in(&self, discovered: impl Fn(&mut Value, Value)) -> Value {
        let mut bootstrap = self.bootstrap.clone();
        for filter in http_filters(&mut bootstrap) {
            if filter.get("config_discovery").is_none() {
                mounted(filter);
                continue;
            }
            let mut named = self.extensions.iter();
            let extension = named
                .find(|extension| extension["name"] == filter["name"])
                .unwrap_or_else(|| panic!("no extension is named {}", filter["name"]));
            let mut extension = extension.clone();
            downloaded(&mut extension);
            discovered(filter, extension);
        }
        bootstrap
    }

    /// The names of the filters, in order.
    #[must_use]
    pub fn filter_names(&mut self) -> Vec<String> {
        let names = self.http_filters().iter();
        names
            .map(|filter| filter["name"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    fn connection_manager(&mut self) -> &mut Value {
        connection_manager(&mut self.bootstrap)
    }

    fn http_filters(&mut self) -> &mut Vec<Value> {
        http_filters(&mut self.bootstrap)
    }
}

fn network_filters(bootstrap: &mut Value) -> &mut Vec<Value> {
    bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
        .as_array_mut()
        .expect("a list")
}

fn connection_manager(bootstrap: &mut Value) -> &mut Value {
    let last = network_filters(bootstrap).last_mut();
    &mut last.expect("a network filter")["typed_config"]
}

fn http_filters(bootstrap: &mut Value) -> &mut Vec<Value> {
    connection_manager(bootstrap)["http_filters"]
        .as_array_mut()
        .expect("a list")
}

/// A module that the agent is to download, as Istio writes it.
fn remote(url: &str) -> Value {
    json!({"remote": {"http_uri": {"uri": url, "timeout": "30s", "cluster": "_"}}})
}

const CODE: &str = "/typed_config/config/vm_config/code";

/// Istio's agent downloads what is remote, and tells Envoy the file.
fn downloaded(extension: &mut Value) {
    let code = extension.pointer_mut(CODE).expect("the plugin has code");
    if let Some(uri) = code.pointer("/remote/http_uri/uri") {
        let uri = uri.as_str().expect("a URL");
        assert!(uri.starts_with("oci://"), "{uri}");
        *code = json!({"local": {"filename": artifacts::module()}});
    }
}

/// The module's file, where the manifest says that it is mounted.
fn mounted(filter: &mut Value) {
    if let Some(code) = filter.pointer_mut(CODE)
        && code["local"]["filename"] == "/etc/trusted-lb/trusted_lb.wasm"
    {
        *code = json!({"local": {"filename": artifacts::module()}});
    }
}

/// As messages are merged: lists are joined, single fields replaced.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(from)) => into.extend(from.iter().cloned()),
        (into, from) => *into = from.clone(),
    }
}
