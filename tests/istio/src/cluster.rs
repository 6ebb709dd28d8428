//! An API server with its etcd: a cluster without nodes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::process::Process;
use crate::programs::Programs;

const PORT: u16 = 16443;
const ETCD: &str = "http://127.0.0.1:12379";
const ETCD_PEERS: &str = "http://127.0.0.1:12380";
/// The administrator's token. Nobody but this machine reaches the API server.
const TOKEN: &str = "lab";

/// A running API server.
pub struct Cluster {
    _api: Process,
    _etcd: Process,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
}

impl Cluster {
    /// Starts it with Istio's and the Gateway API's resource definitions.
    ///
    /// # Panics
    /// Where something doesn't start.
    #[must_use]
    pub fn start(programs: &Programs, folder: &Path) -> Self {
        let file = |name: &str| folder.join(name);
        let write =
            |name: &str, text: &str| std::fs::write(file(name), text).expect("it can be written");
        write(
            "tokens.csv",
            &format!("{TOKEN},admin,admin,\"system:masters\"\n"),
        );
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        write("accounts.key", &key.serialize_pem());
        write("accounts.pub", &key.public_key_pem());
        write(
            "kubeconfig",
            &serde_json::json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "lab",
                "clusters": [{"name": "lab", "cluster": {
                    "server": format!("https://127.0.0.1:{PORT}"), "insecure-skip-tls-verify": true,
                }}],
                "users": [{"name": "admin", "user": {"token": TOKEN}}],
                "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "admin"}}],
            })
            .to_string(),
        );
        let etcd = Process::start(
            "etcd",
            Command::new(&programs.etcd)
                .arg("--data-dir")
                .arg(file("etcd"))
                .args([
                    "--listen-client-urls",
                    ETCD,
                    "--advertise-client-urls",
                    ETCD,
                ])
                .args([
                    "--listen-peer-urls",
                    ETCD_PEERS,
                    "--initial-advertise-peer-urls",
                    ETCD_PEERS,
                ])
                .args(["--initial-cluster", &format!("default={ETCD_PEERS}")])
                // Nothing here has to survive a power cut.
                .arg("--unsafe-no-fsync"),
            folder,
        );
        let accounts = file("accounts.key");
        let api = Process::start(
            "kube-apiserver",
            Command::new(programs.built("kube-apiserver"))
                .args([
                    &format!("--etcd-servers={ETCD}"),
                    &format!("--secure-port={PORT}"),
                ])
                .args(["--bind-address=127.0.0.1", "--advertise-address=10.0.20.2"])
                .arg(format!("--cert-dir={}", file("certificates").display()))
                .arg("--service-account-issuer=https://kubernetes.default.svc")
                .arg(format!(
                    "--service-account-signing-key-file={}",
                    accounts.display()
                ))
                .arg(format!(
                    "--service-account-key-file={}",
                    file("accounts.pub").display()
                ))
                .arg("--api-audiences=istio-ca,https://kubernetes.default.svc")
                .arg(format!(
                    "--token-auth-file={}",
                    file("tokens.csv").display()
                ))
                .args([
                    "--authorization-mode=AlwaysAllow",
                    "--service-cluster-ip-range=10.96.0.0/16",
                ])
                .args([
                    "--disable-admission-plugins=ServiceAccount",
                    "--endpoint-reconciler-type=none",
                ]),
            folder,
        );
        let mut cluster = Self {
            _api: api,
            _etcd: etcd,
            kubectl: programs.built("kubectl"),
            kubeconfig: file("kubeconfig"),
        };
        cluster.wait_until_ready();
        for definitions in ["crd-all.gen.yaml", "gateway-api-crd.yaml"] {
            let path = programs.share(definitions).display().to_string();
            cluster.run(&["apply", "--server-side", "-f", &path]);
        }
        cluster.run(&[
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "crd",
            "--all",
        ]);
        cluster
    }

    fn wait_until_ready(&mut self) {
        let (kubectl, kubeconfig) = (self.kubectl.clone(), self.kubeconfig.clone());
        self._api.wait_until_ready(|| {
            kubectl_output(&kubectl, &kubeconfig, &["get", "--raw", "/readyz"], "").map(|_| ())
        });
    }

    /// The kubectl of this cluster and its configuration.
    #[must_use]
    pub fn client(&self) -> (&Path, &Path) {
        (&self.kubectl, &self.kubeconfig)
    }

    /// Runs kubectl.
    ///
    /// # Panics
    /// Where it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        self.try_run(arguments, "")
            .unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
    }

    /// Runs kubectl with a text on its standard input.
    ///
    /// # Errors
    /// What it printed to standard error.
    pub fn try_run(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        kubectl_output(&self.kubectl, &self.kubeconfig, arguments, input)
    }

    /// Asks the API server to create resources, which it doesn't keep. Answers the names of those that it would take, and
    /// what it says of the others.
    ///
    /// # Panics
    /// Where kubectl can't be run.
    #[must_use]
    pub fn would_create(&self, manifests: &str) -> (Vec<String>, String) {
        let arguments = ["create", "--dry-run=server", "-f", "-", "-o", "name"];
        let output = kubectl_run(&self.kubectl, &self.kubeconfig, &arguments, manifests)
            .expect("kubectl can be run");
        let names = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| line.split_once('/'))
            .map(|(_, name)| name.to_owned())
            .collect();
        (names, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Applies a manifest, as a user does.
    ///
    /// # Panics
    /// Where the API server refuses it.
    pub fn apply(&self, manifest: &str) {
        self.try_apply(manifest)
            .unwrap_or_else(|error| panic!("kubectl apply: {error}\n{manifest}"));
    }

    /// As [`Cluster::apply`].
    ///
    /// # Errors
    /// What kubectl says.
    pub fn try_apply(&self, manifest: &str) -> Result<String, String> {
        self.try_run(&["apply", "-f", "-"], manifest)
    }

    /// A resource, or nothing.
    #[must_use]
    pub fn get(&self, arguments: &[&str]) -> Option<Value> {
        let text = self
            .try_run(&[&["get", "-o", "json"], arguments].concat(), "")
            .ok()?;
        serde_json::from_str(&text).ok()
    }
}

fn kubectl_output(
    kubectl: &Path,
    kubeconfig: &Path,
    arguments: &[&str],
    input: &str,
) -> Result<String, String> {
    let output = kubectl_run(kubectl, kubeconfig, arguments, input)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

fn kubectl_run(
    kubectl: &Path,
    kubeconfig: &Path,
    arguments: &[&str],
    input: &str,
) -> Result<Output, String> {
    use std::io::Write;
    let mut child = Command::new(kubectl)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        // Discovery answers are kept beside it.
        .arg("--cache-dir")
        .arg(kubeconfig.with_file_name("kubectl-cache"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may end without reading it.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output().map_err(|error| error.to_string())
}
