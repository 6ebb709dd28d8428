//! An ingress gateway: Istio's agent with its Envoy.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, ExitStatus};

use serde_json::{Value, json};
use testkit::cases::ClientRequest;
use testkit::http::{self, Response};

use crate::cluster::Cluster;
use crate::istiod::DISCOVERY;
use crate::manifest::NAMESPACE;
use crate::process::Process;
use crate::programs::Programs;
use crate::wait;

/// The gateway pod's address.
pub const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 20, 3));

const fn here(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Envoy's admin interface.
pub const ADMIN: SocketAddr = here(15000);
/// What Prometheus scrapes, and `/quitquitquit`.
pub const AGENT: SocketAddr = here(15020);
/// What Kubernetes asks for readiness.
pub const STATUS: SocketAddr = here(15021);
/// The plain listener of the lab's Gateway, on the port that Istio's gateways have.
pub const HTTP: SocketAddr = SocketAddr::new(POD, 8080);
/// Its listener with TLS.
pub const HTTPS: SocketAddr = SocketAddr::new(POD, 8443);

/// A load balancer, in the subnet that the manifests trust.
pub const LOAD_BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 12, 5));
/// Somebody else.
pub const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 40, 9));

/// The secrets in the proxy container's environment, under the names that the manifests use.
pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// As [`TOKEN`], for `ORIGIN_SECRET`.
pub const SECRET: &str = "correct-horse-battery";

/// Whose identity the gateway has.
pub const SERVICE_ACCOUNT: &str = "istio-ingressgateway";

/// Its pod's labels, by which plugins and Gateways find it.
pub const LABELS: &[(&str, &str)] = &[
    ("istio", "ingressgateway"),
    ("gateway.networking.k8s.io/gateway-name", "public"),
];

/// What a gateway is started with.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// More of its `ProxyConfig`.
    pub proxy_config: BTreeMap<String, Value>,
    /// More variables of its container.
    pub environment: BTreeMap<String, String>,
    /// Whether envoyfilter/direct-peer.yaml is left out, which goes with every manifest otherwise.
    pub without_direct_peer: bool,
}

/// A running gateway.
pub struct Gateway(Process);

impl Gateway {
    /// Starts one without waiting for it.
    ///
    /// # Panics
    /// Where it can't be run.
    #[must_use]
    pub fn launch(
        programs: &Programs,
        cluster: &Cluster,
        mesh: &Path,
        folder: &Path,
        options: &Options,
    ) -> Self {
        let work = folder.join("gateway");
        std::fs::create_dir_all(&work).expect("a folder can be made");
        give_identity(cluster, &work);
        let mut proxy = json!({
            "discoveryAddress": DISCOVERY,
            "binaryPath": programs.envoy,
            "configPath": work.join("proxy"),
            "proxyBootstrapTemplatePath": programs.share("envoy_bootstrap.json"),
            "terminationDrainDuration": "2s",
            "concurrency": 1,
        });
        for (name, value) in &options.proxy_config {
            proxy[name] = value.clone();
        }
        let labels: serde_json::Map<String, Value> = LABELS
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        let process = Process::start(
            "gateway",
            Command::new(programs.built("pilot-agent"))
                .args([
                    "proxy",
                    "router",
                    "--domain",
                    &format!("{NAMESPACE}.svc.cluster.local"),
                ])
                .args([
                    "--proxyLogLevel=warning",
                    "--proxyComponentLogLevel=wasm:info",
                    "--meshConfig",
                ])
                .arg(mesh)
                .envs([
                    ("POD_NAME", "gateway-1"),
                    ("POD_NAMESPACE", NAMESPACE),
                    ("INSTANCE_IP", &POD.to_string()),
                    ("SERVICE_ACCOUNT", SERVICE_ACCOUNT),
                    ("ISTIO_META_CLUSTER_ID", "Kubernetes"),
                    ("ISTIO_META_WORKLOAD_NAME", "istio-ingressgateway"),
                    ("CA_ADDR", DISCOVERY),
                    // The lab's registry has a certificate of an authority of its own.
                    (
                        "SSL_CERT_FILE",
                        &folder.join("registry.crt").display().to_string(),
                    ),
                    ("TRUSTED_LB_TOKEN", TOKEN),
                    ("ORIGIN_SECRET", SECRET),
                ])
                .env("ISTIO_METAJSON_LABELS", Value::from(labels).to_string())
                .env("PROXY_CONFIG", proxy.to_string())
                .envs(&options.environment)
                .current_dir(&work),
            folder,
        );
        Self(process)
    }

    /// Waits until Kubernetes would send it requests.
    ///
    /// # Panics
    /// Where it doesn't get ready.
    pub fn wait_until_ready(&mut self) {
        self.0
            .wait_until_ready(|| match http::try_get(STATUS, "/healthz/ready") {
                Ok(response) if response.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            });
    }

    /// Asks the agent to end, as Kubernetes does.
    pub fn terminate(&self) {
        self.0.terminate();
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        self.0.wait()
    }

    /// Whether agent and Envoy still run.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&mut self) -> Result<(), String> {
        self.0.check()
    }

    /// What agent and Envoy have printed.
    #[must_use]
    pub fn log(&self) -> String {
        self.0.log()
    }

    /// The end of that.
    #[must_use]
    pub fn tail(&self) -> String {
        self.0.tail()
    }
}

/// What a pod finds at these places below its root, which the agent names relative to where it runs.
fn give_identity(cluster: &Cluster, work: &Path) {
    let write = |path: &str, text: &str| {
        let path = work.join("var/run/secrets").join(path);
        std::fs::create_dir_all(path.parent().expect("it is in a folder"))
            .expect("a folder can be made");
        std::fs::write(path, text).expect("it can be written");
    };
    let token = cluster.run(&[
        "create",
        "token",
        SERVICE_ACCOUNT,
        "-n",
        NAMESPACE,
        "--audience",
        "istio-ca",
    ]);
    write("tokens/istio-token", token.trim());
    let map = wait::until("istiod writes its authority's certificate", || {
        cluster
            .get(&["configmap", "istio-ca-root-cert", "-n", NAMESPACE])
            .ok_or_else(|| "it isn't there".to_owned())
    });
    write(
        "istio/root-cert.pem",
        map["data"]["root-cert.pem"].as_str().expect("it is text"),
    );
}

/// Asks Envoy's admin interface for JSON; null where it doesn't answer.
#[must_use]
pub fn admin(path: &str) -> Value {
    http::try_get(ADMIN, path)
        .ok()
        .and_then(|response| serde_json::from_slice(&response.body).ok())
        .unwrap_or_default()
}

/// Every extension that Envoy has by discovery: name, and its configuration.
#[must_use]
pub fn extensions() -> BTreeMap<String, Value> {
    let dump = admin("/config_dump?resource=ecds_filters");
    dump["configs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| {
            let filter = &one["ecds_filter"];
            Some((
                filter["name"].as_str()?.to_owned(),
                filter["typed_config"].clone(),
            ))
        })
        .collect()
}

/// The HTTP filters of a listener's first filter chain, by name, in their order.
#[must_use]
pub fn http_filters(port: u16) -> Vec<String> {
    let dump = admin("/config_dump?resource=dynamic_listeners");
    let listeners = dump["configs"].as_array().cloned().unwrap_or_default();
    let listener = listeners
        .iter()
        .map(|one| &one["active_state"]["listener"])
        .find(|listener| listener["address"]["socket_address"]["port_value"] == port);
    let Some(listener) = listener else {
        return Vec::new();
    };
    let filters = listener["filter_chains"][0]["filters"].as_array();
    let manager = filters.and_then(|filters| {
        filters
            .iter()
            .find(|filter| filter["typed_config"]["http_filters"].is_array())
    });
    manager
        .and_then(|manager| manager["typed_config"]["http_filters"].as_array())
        .into_iter()
        .flatten()
        .filter_map(|filter| Some(filter["name"].as_str()?.to_owned()))
        .collect()
}

/// A Prometheus page as values by name and labels.
#[must_use]
pub fn metrics(address: SocketAddr, path: &str) -> BTreeMap<String, f64> {
    let text = http::try_get(address, path)
        .map(|response| response.body)
        .unwrap_or_default();
    String::from_utf8_lossy(&text)
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.trim_end_matches("{}").to_owned(), value.parse().ok()?))
        })
        .collect()
}

/// A metric of the agent's page; 0 where there is none.
#[must_use]
pub fn metric(name: &str) -> f64 {
    metrics(AGENT, "/stats/prometheus")
        .get(name)
        .copied()
        .unwrap_or(0.0)
}

/// Sends a request to a listener.
///
/// # Errors
/// Where there is no answer.
pub fn try_send(address: SocketAddr, request: &ClientRequest) -> Result<Response, String> {
    http::send(address, request).map_err(|error| error.to_string())
}

/// As [`try_send`].
///
/// # Panics
/// Where there is no answer.
#[must_use]
pub fn send(address: SocketAddr, request: &ClientRequest) -> Response {
    try_send(address, request).unwrap_or_else(|error| panic!("{request:?}: {error}"))
}

/// A plain GET.
#[must_use]
pub fn get(peer: IpAddr, path: &str) -> ClientRequest {
    ClientRequest::get(peer, "app.example.com", path)
}

/// What becomes of a request: `200 https` with the scheme that the service was told, or the status alone.
#[must_use]
pub fn outcome(response: &Response) -> String {
    match response.received_one("x-forwarded-proto") {
        Some(scheme) => format!("{} {scheme}", response.status),
        None => response.status.to_string(),
    }
}

/// The outcome of a request to the plain listener, or why there is no answer.
#[must_use]
pub fn outcome_of(request: &ClientRequest) -> String {
    match try_send(HTTP, request) {
        Ok(response) => outcome(&response),
        Err(error) => error,
    }
}

/// Waits until a request has this outcome.
///
/// # Panics
/// After a minute, with the last outcome.
pub fn expect(request: &ClientRequest, wanted: &str) {
    wait::until(&format!("expected {wanted:?} for {request:?}"), || {
        let found = outcome_of(request);
        if found == wanted {
            Ok(())
        } else {
            Err(format!("found {found:?}"))
        }
    });
}
