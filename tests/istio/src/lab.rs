//! The whole set-up: cluster, control plane, registry, a gateway, and a service behind it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::upstream::Upstream;

use crate::authorizer;
use crate::cluster::Cluster;
use crate::gateway::{self, Gateway, Options};
use crate::istiod::{self, Istiod};
use crate::manifest::{NAMESPACE, file};
use crate::programs::Programs;
use crate::registry::{self, Image, Registry};
use crate::wait;

/// What `peerAddress: filterState` reads, which the usual plugin has.
pub const DIRECT_PEER: &str = "envoyfilter/direct-peer.yaml";

/// Kinds that tests and users bring, in the order in which they are taken away.
const KINDS: &str = "wasmplugins.extensions.istio.io,trafficextensions.extensions.istio.io,envoyfilters.networking.istio.io,\
    virtualservices.networking.istio.io,authorizationpolicies.security.istio.io,requestauthentications.security.istio.io,\
    httproutes.gateway.networking.k8s.io,gateways.gateway.networking.k8s.io,gateways.networking.istio.io,\
    serviceentries.networking.istio.io,services,pods";

/// What runs.
pub struct Lab {
    /// The gateway, where one was started.
    pub gateway: Option<Gateway>,
    /// The control plane, unless a test has taken it away.
    pub istiod: Option<Istiod>,
    /// The registry, unless a test has taken it away.
    pub registry: Option<Registry>,
    /// The API server.
    pub cluster: Cluster,
    /// The service behind the gateway.
    pub upstream: Upstream,
    /// The image in the registry, under the tag 0.1.0.
    pub image: Image,
    /// The programs that all of this is made of.
    pub programs: Programs,
    authorizer: u16,
    folder: TempDir,
}

impl Lab {
    /// Starts everything but a gateway.
    ///
    /// # Panics
    /// Where something doesn't start.
    #[must_use]
    pub fn start() -> Self {
        let programs = Programs::from_environment();
        let folder = tempfile::Builder::new()
            .prefix("istio-lab")
            .tempdir()
            .expect("a temporary folder can be made");
        registry::write_certificate(folder.path(), "registry", registry::HOST);
        registry::write_certificate(folder.path(), "tls", "app.example.com");
        let registry = Registry::start(&programs, folder.path());
        let image = Image::write(&programs, &programs.module, "0.1.0", folder.path());
        image.push(&programs, "0.1.0", &[]);
        let cluster = Cluster::start(&programs, folder.path());
        for namespace in ["istio-system", NAMESPACE] {
            cluster.run(&["create", "namespace", namespace]);
        }
        cluster.run(&[
            "create",
            "serviceaccount",
            gateway::SERVICE_ACCOUNT,
            "-n",
            NAMESPACE,
        ]);
        let mut lab = Self {
            gateway: None,
            istiod: None,
            registry: Some(registry),
            cluster,
            upstream: Upstream::start(),
            image,
            programs,
            authorizer: authorizer::start(),
            folder,
        };
        lab.start_istiod();
        lab
    }

    /// Where files of the set-up may go.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn mesh(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the control plane.
    pub fn start_istiod(&mut self) {
        let mesh = self.mesh("mesh.json");
        istiod::write_mesh(&mesh, &json!({}), &extension_providers());
        self.istiod = Some(Istiod::start(
            &self.programs,
            &self.cluster,
            &mesh,
            self.folder.path(),
        ));
    }

    /// Starts the registry again.
    pub fn start_registry(&mut self) {
        self.registry = Some(Registry::start(&self.programs, self.folder.path()));
    }

    /// The Gateway of every test but those that bring their own, and the service behind it.
    #[must_use]
    pub fn base(&self) -> String {
        let port = self.upstream.address().port();
        let tls = json!({
            "mode": "SIMPLE",
            "serverCertificate": self.mesh("tls.crt"),
            "privateKey": self.mesh("tls.key"),
        });
        let gateway = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
            "metadata": {"name": "lab", "namespace": NAMESPACE},
            "spec": {"selector": {"istio": "ingressgateway"}, "servers": [
                {"port": {"number": gateway::HTTP.port(), "name": "http", "protocol": "HTTP"}, "hosts": ["*"]},
                {"port": {"number": gateway::HTTPS.port(), "name": "https", "protocol": "HTTPS"}, "hosts": ["*"], "tls": tls},
            ]},
        });
        let service = service_entry("echo", port);
        let authorizer = service_entry("authorizer", self.authorizer);
        let routes = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "lab", "namespace": NAMESPACE},
            "spec": {"hosts": ["*"], "gateways": ["lab"], "http": [{"route": [to_echo()]}]},
        });
        [gateway, service, authorizer, routes]
            .iter()
            .map(|one| format!("---\n{one}\n"))
            .collect()
    }

    /// Applies manifests over the base, and waits until istiod knows them.
    ///
    /// # Panics
    /// Where they are refused.
    pub fn apply(&self, manifests: &str) {
        self.cluster.apply(manifests);
    }

    /// Applies the base and manifests, then starts a gateway that has them, and waits until it is ready.
    ///
    /// # Panics
    /// Where something doesn't come.
    pub fn serve(&mut self, manifests: &str, options: &Options) {
        let mut base = self.base();
        if !options.without_direct_peer {
            base = format!("{base}\n---\n{}", file(DIRECT_PEER));
        }
        self.cluster.apply(&format!("{base}\n---\n{manifests}"));
        self.wait_for_istiod(&format!("{base}\n---\n{manifests}"));
        self.launch(options);
        self.gateway().wait_until_ready();
    }

    /// Starts a gateway in place of the one that runs.
    pub fn launch(&mut self, options: &Options) {
        self.gateway = None;
        let mesh = self.mesh("gateway-mesh.json");
        istiod::write_mesh(&mesh, &json!({}), &extension_providers());
        let folder = self.folder.path();
        self.gateway = Some(Gateway::launch(
            &self.programs,
            &self.cluster,
            &mesh,
            folder,
            options,
        ));
    }

    /// The running gateway.
    ///
    /// # Panics
    /// Where there is none.
    pub fn gateway(&mut self) -> &mut Gateway {
        self.gateway.as_mut().expect("a gateway was started")
    }

    /// Waits until istiod has read every resource of Istio's in these manifests.
    ///
    /// # Panics
    /// Where it doesn't.
    pub fn wait_for_istiod(&self, manifests: &str) {
        let Some(istiod) = &self.istiod else { return };
        for one in crate::manifest::documents(manifests) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            if !text(&one["apiVersion"]).contains("istio.io/") {
                continue;
            }
            let metadata = &one["metadata"];
            let wanted = format!(
                "{}/{}/{}",
                text(&one["kind"]),
                text(&metadata["namespace"]),
                text(&metadata["name"])
            );
            wait::until(&format!("istiod has {wanted}"), || {
                let known = istiod.resources()?;
                // A WasmPlugin is kept as the TrafficExtension that it becomes.
                if known.contains(&wanted) || wanted.starts_with("WasmPlugin/") {
                    Ok(())
                } else {
                    Err(format!("{known:?}"))
                }
            });
        }
    }

    /// Ends the gateway, takes away what tests have brought, and brings back what they have taken away.
    ///
    /// # Panics
    /// Where that fails.
    pub fn clear(&mut self) {
        self.gateway = None;
        for namespace in [NAMESPACE, "istio-system"] {
            self.cluster.run(&[
                "delete",
                KINDS,
                "--all",
                "--wait=false",
                "--grace-period=0",
                "--force",
                "-n",
                namespace,
            ]);
        }
        if self.registry.is_none() {
            self.start_registry();
        }
        if self.istiod.is_none() {
            self.start_istiod();
        }
        if let Some(istiod) = &self.istiod {
            wait::until("istiod forgets what was deleted", || {
                let left: Vec<String> = istiod
                    .resources()?
                    .into_iter()
                    .filter(|one| {
                        ["WasmPlugin/", "TrafficExtension/", "EnvoyFilter/"]
                            .iter()
                            .any(|kind| one.starts_with(kind))
                    })
                    .collect();
                if left.is_empty() {
                    Ok(())
                } else {
                    Err(format!("{left:?}"))
                }
            });
        }
    }

    /// What to look at where a test has failed.
    #[must_use]
    pub fn tails(&self) -> String {
        let gateway = self.gateway.as_ref().map(Gateway::tail);
        let istiod = self.istiod.as_ref().map(Istiod::tail);
        [gateway, istiod]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// What CUSTOM authorization may ask.
fn extension_providers() -> Value {
    json!([{"name": "authorizer", "envoyExtAuthzHttp": {
        "service": "authorizer.internal", "port": 80,
        "includeRequestHeadersInCheck": ["x-forwarded-proto"],
        "headersToUpstreamOnAllow": ["x-asked"],
    }}])
}

/// A host name that Istio knows, for a port of this machine.
fn service_entry(name: &str, port: u16) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "hosts": [format!("{name}.internal")], "location": "MESH_EXTERNAL", "resolution": "STATIC",
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
            "endpoints": [{"address": "127.0.0.1", "ports": {"http": port}}],
        },
    })
}

/// A route's destination: the service behind the gateway.
#[must_use]
pub fn to_echo() -> Value {
    json!({"destination": {"host": "echo.internal", "port": {"number": 80}}})
}
