//! Configuration that changes while Envoy runs: files that Envoy watches, in place of a control plane.

use std::cell::Cell;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder of resources that Envoy follows.
pub struct Discovery {
    folder: TempDir,
    version: Cell<u32>,
}

impl Default for Discovery {
    fn default() -> Self {
        Self::new()
    }
}

impl Discovery {
    /// An empty folder.
    ///
    /// # Panics
    /// Where no temporary folder can be made.
    #[must_use]
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
            version: Cell::new(0),
        }
    }

    /// A `ConfigSource` that follows a file of this folder.
    #[must_use]
    pub fn source(&self, file: &str) -> Value {
        json!({
            "path_config_source": {
                "path": self.path(file),
                "watched_directory": {"path": self.folder.path()},
            },
            "resource_api_version": "V3",
            // As Istio: serve nothing until the first configuration is there, however long that takes.
            "initial_fetch_timeout": "0s",
        })
    }

    /// Hands resources to Envoy, all at once: it never sees half a file.
    ///
    /// # Panics
    /// Where the file can't be written.
    pub fn hand_over(&self, file: &str, resources: &[Value]) {
        self.version.set(self.version.get() + 1);
        let response =
            json!({"version_info": self.version.get().to_string(), "resources": resources});
        let part = self.folder.path().join("part");
        std::fs::write(&part, response.to_string()).expect("the file can be written");
        std::fs::rename(&part, self.path(file)).expect("the file can be put in place");
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }
}

/// Lets Envoy take configuration from files: it wants to know who asks.
pub fn identify(bootstrap: &mut Value) {
    bootstrap["node"] = json!({"id": "gateway", "cluster": "gateway"});
}

/// An HTTP filter whose configuration comes from a [`ConfigSource`](Discovery::source) under its own name, as Istio lists
/// a `WasmPlugin` in a gateway's listener.
#[must_use]
pub fn discovered(name: &str, source: Value) -> Value {
    json!({
        "name": name,
        "config_discovery": {
            "config_source": source,
            "type_urls": [
                "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
                "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            ],
        },
    })
}

/// A filter as the resource that is discovered.
///
/// # Panics
/// Where it isn't an object.
#[must_use]
pub fn extension(filter: &Value) -> Value {
    let mut resource = filter.clone();
    resource["@type"] = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig".into();
    resource
}

/// A listener as the resource that is discovered.
#[must_use]
pub fn listener(listener: &Value) -> Value {
    let mut resource = listener.clone();
    resource["@type"] = "type.googleapis.com/envoy.config.listener.v3.Listener".into();
    resource
}
