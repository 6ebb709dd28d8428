//! Envoy Gateway without a cluster: it reads its resources from files and runs Envoy as a process of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::upstream::Upstream;

use crate::gateway::{SECRET, TOKEN};
use crate::process::Process;
use crate::programs::Programs;
use crate::registry::{self, Image, Registry};

/// Where the Gateway listens.
pub const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 20, 3)), 8080);

/// What runs.
pub struct Lab {
    gateway: Option<Process>,
    _registry: Registry,
    upstream: Upstream,
    programs: Programs,
    folder: TempDir,
}

impl Lab {
    /// Starts everything but Envoy Gateway itself.
    ///
    /// # Panics
    /// Where something doesn't start.
    #[must_use]
    pub fn start() -> Self {
        let programs = Programs::from_environment();
        let folder = tempfile::Builder::new()
            .prefix("envoy-gateway-lab")
            .tempdir()
            .expect("a temporary folder can be made");
        registry::write_certificate(folder.path(), "registry", registry::HOST);
        let registry = Registry::start(&programs, folder.path());
        Image::write(&programs, &programs.module, "0.1.0", folder.path()).push(
            &programs,
            "0.1.0",
            &[],
        );
        let lab = Self {
            gateway: None,
            _registry: registry,
            upstream: Upstream::start(),
            programs,
            folder,
        };
        lab.prepare();
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its configuration, certificates, and the Envoy that it would download.
    fn prepare(&self) {
        std::fs::create_dir_all(self.path("resources")).expect("a folder can be made");
        let configuration = json!({
            "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyGateway",
            "gateway": {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"},
            "provider": {"type": "Custom", "custom": {
                "resource": {"type": "File", "file": {"paths": [self.path("resources")]}},
                "infrastructure": {"type": "Host", "host": {
                    "configHome": self.path("config"), "dataHome": self.path("data"), "stateHome": self.path("state"), "runtimeDir": self.path("run"),
                }},
            }},
            "logging": {"level": {"default": "info"}},
            "extensionApis": {"enableBackend": true, "enableEnvoyPatchPolicy": true},
        });
        std::fs::write(self.path("configuration.yaml"), configuration.to_string())
            .expect("it can be written");
        let envoy = self
            .path("data/envoy-versions")
            .join(ENVOY_VERSION)
            .join("bin");
        std::fs::create_dir_all(&envoy).expect("a folder can be made");
        std::os::unix::fs::symlink(&self.programs.envoy, envoy.join("envoy"))
            .expect("a link can be made");
        let made = self
            .command(&["certgen", "--local", "--config-home"])
            .arg(self.path("config"))
            .output()
            .expect("it can be run");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let certificates = find(self.folder.path(), "envoy-gateway").expect("certgen makes them");
        for entry in std::fs::read_dir(&certificates).expect("it can be listed") {
            let file = entry.expect("it can be listed").path();
            let name = file.file_name().expect("it has a name");
            std::fs::copy(&file, Path::new("/certs").join(name))
                .expect("/certs is this namespace's own");
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.built("envoy-gateway"));
        command
            .args(arguments)
            .env("HOME", self.folder.path())
            .env("SSL_CERT_FILE", self.path("registry.crt"))
            .env("TRUSTED_LB_TOKEN", TOKEN)
            .env("ORIGIN_SECRET", SECRET)
            .current_dir(self.folder.path());
        command
    }

    /// The resources that every test has: a Gateway, a route, a service, and how Envoy is run.
    fn base(&self) -> Vec<Value> {
        let certificates = find(self.folder.path(), "envoy").expect("certgen makes them");
        let read = |name: &str| {
            BASE64.encode(std::fs::read(certificates.join(name)).expect("it can be read"))
        };
        vec![
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "lab"},
                "spec": {
                    "controllerName": "gateway.envoyproxy.io/gatewayclass-controller",
                    "parametersRef": {"group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": "lab", "namespace": "default"},
                },
            }),
            json!({
                "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyProxy",
                "metadata": {"name": "lab", "namespace": "default"},
                "spec": {"provider": {"type": "Host", "host": {"envoyVersion": ENVOY_VERSION}}},
            }),
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
                "metadata": {"name": "public", "namespace": "default"},
                "spec": {"gatewayClassName": "lab", "listeners": [{"name": "http", "protocol": "HTTP", "port": HTTP.port()}]},
            }),
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                "metadata": {"name": "echo", "namespace": "default"},
                "spec": {"parentRefs": [{"name": "public"}], "rules": [{
                    "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                    "backendRefs": [{"group": "gateway.envoyproxy.io", "kind": "Backend", "name": "echo"}],
                }]},
            }),
            json!({
                "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "Backend",
                "metadata": {"name": "echo", "namespace": "default"},
                "spec": {"endpoints": [{"ip": {"address": "127.0.0.1", "port": self.upstream.address().port()}}]},
            }),
            // What the proxies fetch modules from Envoy Gateway with.
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
                "metadata": {"name": "envoy", "namespace": "envoy-gateway-system"},
                "data": {"ca.crt": read("ca.crt"), "tls.crt": read("tls.crt"), "tls.key": read("tls.key")},
            }),
        ]
    }

    /// Writes the resources into the file that Envoy Gateway watches.
    ///
    /// # Panics
    /// Where it can't be written.
    pub fn write(&self, manifests: &str) {
        let base = crate::manifest::text(&self.base());
        // Written beside and moved, so that it is never read half.
        let file = self.path("resources.part");
        std::fs::write(&file, format!("{base}\n---\n{manifests}")).expect("it can be written");
        std::fs::rename(file, self.path("resources/all.yaml")).expect("it can be moved");
    }

    /// Starts Envoy Gateway with these resources over the base.
    pub fn serve(&mut self, manifests: &str) {
        self.gateway = None;
        self.write(manifests);
        let configuration = self.path("configuration.yaml").display().to_string();
        let mut command = self.command(&["server", "--config-path", &configuration]);
        self.gateway = Some(Process::start(
            "envoy-gateway",
            &mut command,
            self.folder.path(),
        ));
    }

    /// Ends it, with its Envoy.
    pub fn clear(&mut self) {
        self.gateway = None;
    }

    /// What it has printed, its Envoy included.
    #[must_use]
    pub fn log(&self) -> String {
        self.gateway.as_ref().map(Process::log).unwrap_or_default()
    }

    /// The end of that.
    #[must_use]
    pub fn tail(&self) -> String {
        self.gateway.as_ref().map(Process::tail).unwrap_or_default()
    }
}

/// The name under which Envoy Gateway finds the Envoy of the tests.
const ENVOY_VERSION: &str = "1.39.1";

/// The folder of that name that has a certificate in it.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        if !path.is_dir() || path.is_symlink() {
            continue;
        }
        if path.file_name().is_some_and(|found| found == name) && path.join("tls.crt").is_file() {
            return Some(path);
        }
        if let Some(found) = find(&path, name) {
            return Some(found);
        }
    }
    None
}
