//! Istio's control plane.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use testkit::http;

use crate::cluster::Cluster;
use crate::process::Process;
use crate::programs::Programs;

/// Where proxies get their configuration and certificates.
pub const DISCOVERY: &str = "istiod.istio-system.svc:15012";
/// Readiness and what Istio shows for debugging.
const STATUS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15080);

/// A running istiod.
pub struct Istiod(Process);

impl Istiod {
    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// Where it doesn't get ready.
    #[must_use]
    pub fn start(programs: &Programs, cluster: &Cluster, mesh: &Path, folder: &Path) -> Self {
        let (_, kubeconfig) = cluster.client();
        let mut process = Process::start(
            "istiod",
            Command::new(programs.built("pilot-discovery"))
                .args(["discovery", "--httpAddr=127.0.0.1:15080", "--kubeconfig"])
                .arg(kubeconfig)
                .arg("--meshConfig")
                .arg(mesh)
                .env("KUBECONFIG", kubeconfig)
                .envs([
                    ("POD_NAMESPACE", "istio-system"),
                    ("POD_NAME", "istiod"),
                    ("REVISION", "default"),
                    ("CLUSTER_ID", "Kubernetes"),
                    // Filters that only Istio's own build of Envoy has.
                    ("PILOT_ENABLE_ALPN_FILTER", "false"),
                    ("PILOT_ENABLE_METADATA_EXCHANGE", "false"),
                    ("PILOT_ENABLE_QUIC_LISTENERS", "true"),
                    ("INJECT_ENABLED", "false"),
                    ("VALIDATION_WEBHOOK_CONFIG_NAME", ""),
                    // Tests wait for each push.
                    ("PILOT_DEBOUNCE_AFTER", "10ms"),
                ])
                .current_dir(folder),
            folder,
        );
        process.wait_until_ready(|| match http::try_get(STATUS, "/ready") {
            Ok(response) if response.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        });
        Self(process)
    }

    /// The resources that it knows, as `KIND/NAMESPACE/NAME`.
    ///
    /// # Errors
    /// Where it doesn't answer.
    pub fn resources(&self) -> Result<Vec<String>, String> {
        let response =
            http::try_get(STATUS, "/debug/configz").map_err(|error| error.to_string())?;
        let all: Value =
            serde_json::from_slice(&response.body).map_err(|error| error.to_string())?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(all
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| {
                let metadata = &one["metadata"];
                format!(
                    "{}/{}/{}",
                    text(&one["kind"]),
                    text(&metadata["namespace"]),
                    text(&metadata["name"])
                )
            })
            .collect())
    }

    /// Everything that it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        self.0.log()
    }

    /// The end of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        self.0.tail()
    }
}

/// Writes the mesh's configuration, with `gatewayTopology` and other settings of the proxies.
///
/// # Panics
/// Where the file can't be written.
pub fn write_mesh(path: &PathBuf, proxies: &Value, extension_providers: &Value) {
    let mut defaults = json!({"discoveryAddress": DISCOVERY});
    if let (Some(all), Some(more)) = (defaults.as_object_mut(), proxies.as_object()) {
        all.extend(more.clone());
    }
    let mesh = json!({
        "accessLogFile": "/dev/stdout",
        "enableAutoMtls": false,
        "rootNamespace": "istio-system",
        "defaultConfig": defaults,
        "extensionProviders": extension_providers,
    });
    std::fs::write(path, mesh.to_string()).expect("it can be written");
}
