//! A real Envoy on this machine's loopback, started from a bootstrap and ended with its handle.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::artifacts;
use crate::http::{self, Response};

/// How long Envoy may take to start on a busy machine.
const START: Duration = Duration::from_secs(30);

/// A running Envoy.
pub struct Envoy {
    child: Child,
    folder: TempDir,
    admin: SocketAddr,
    listeners: BTreeMap<String, SocketAddr>,
}

impl Envoy {
    /// Starts Envoy and waits until it serves.
    ///
    /// # Panics
    /// Where it doesn't, with the end of its log.
    #[must_use]
    pub fn start(bootstrap: &Value) -> Self {
        Self::start_with_environment(bootstrap, &BTreeMap::new())
    }

    /// As [`Envoy::start`], with variables in the process's environment.
    ///
    /// # Panics
    /// As [`Envoy::start`].
    #[must_use]
    pub fn start_with_environment(
        bootstrap: &Value,
        environment: &BTreeMap<String, String>,
    ) -> Self {
        Self::start_with_arguments(bootstrap, environment, &[])
    }

    /// As [`Envoy::start_with_environment`], with more arguments on the command line; there is one worker unless they say
    /// otherwise.
    ///
    /// # Panics
    /// As [`Envoy::start`].
    #[must_use]
    pub fn start_with_arguments(
        bootstrap: &Value,
        environment: &BTreeMap<String, String>,
        arguments: &[&str],
    ) -> Self {
        let envoy = Command::new(artifacts::envoy());
        Self::launch(envoy, bootstrap, environment, arguments, START)
    }

    /// Starts Envoy as the last argument of another program, such as a profiler, which may take ten times as long. The
    /// other program has to become Envoy's process.
    ///
    /// # Panics
    /// As [`Envoy::start`].
    #[must_use]
    pub fn start_under(mut program: Command, bootstrap: &Value, arguments: &[&str]) -> Self {
        program.arg(artifacts::envoy());
        Self::launch(program, bootstrap, &BTreeMap::new(), arguments, START * 10)
    }

    fn launch(
        envoy: Command,
        bootstrap: &Value,
        environment: &BTreeMap<String, String>,
        arguments: &[&str],
        patience: Duration,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut bootstrap = bootstrap.clone();
        bootstrap["admin"] =
            json!({"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}});
        let admin_file = folder.path().join("admin");
        let workers: &[&str] = if arguments.contains(&"--concurrency") {
            &[]
        } else {
            &["--concurrency", "1"]
        };
        let child = configured(envoy, &bootstrap, folder.path())
            .args(["--drain-time-s", "1"])
            .args(["--file-flush-interval-msec", "50"])
            .args(workers)
            .args(arguments)
            .arg("--admin-address-path")
            .arg(&admin_file)
            .envs(environment)
            .spawn()
            .expect("Envoy can be run");
        let mut envoy = Self {
            child,
            folder,
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            listeners: BTreeMap::new(),
        };
        envoy.wait_until_ready(&admin_file, patience);
        envoy
    }

    fn wait_until_ready(&mut self, admin_file: &Path, patience: Duration) {
        let deadline = Instant::now() + patience;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("Envoy ended with {status}:\n{}", self.log_tail());
            }
            if let Ok(text) = std::fs::read_to_string(admin_file)
                && let Ok(admin) = text.trim().parse()
            {
                self.admin = admin;
                let ready = http::try_get(admin, "/ready");
                if ready.is_ok_and(|response| response.status == 200) {
                    break;
                }
            }
            assert!(
                Instant::now() < deadline,
                "Envoy isn't ready:\n{}",
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        let listing: Value = serde_json::from_slice(&self.admin("/listeners?format=json").body)
            .expect("the admin interface answers in JSON");
        for status in listing["listener_statuses"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let address = &status["local_address"]["socket_address"];
            let name = status["name"].as_str().unwrap_or_default();
            if let (Some(ip), Some(port)) =
                (address["address"].as_str(), address["port_value"].as_u64())
            {
                let address = SocketAddr::new(
                    ip.parse().expect("an address"),
                    u16::try_from(port).expect("a port"),
                );
                self.listeners.insert(name.to_owned(), address);
            }
        }
    }

    /// Where a listener listens.
    ///
    /// # Panics
    /// Where there is no listener of that name.
    #[must_use]
    pub fn listener(&self, name: &str) -> SocketAddr {
        *self
            .listeners
            .get(name)
            .unwrap_or_else(|| panic!("no listener {name}:\n{}", self.log_tail()))
    }

    /// Asks the admin interface.
    #[must_use]
    pub fn admin(&self, path: &str) -> Response {
        http::try_get(self.admin, path).unwrap_or_else(|error| panic!("admin {path}: {error}"))
    }

    /// The value of a counter or gauge; 0 where there is none.
    #[must_use]
    pub fn stat(&self, name: &str) -> u64 {
        let text = String::from_utf8_lossy(&self.admin(&format!("/stats?filter=^{name}$")).body)
            .into_owned();
        text.lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .strip_prefix(": ")?
                    .trim()
                    .parse()
                    .ok()
            })
            .unwrap_or(0)
    }

    /// The metrics at `/stats/prometheus` whose name begins so: value by name, labels included where there are any.
    #[must_use]
    pub fn prometheus(&self, prefix: &str) -> BTreeMap<String, u64> {
        String::from_utf8_lossy(&self.admin("/stats/prometheus").body)
            .lines()
            .filter(|line| line.starts_with(prefix))
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(' ')?;
                let name = name.strip_suffix("{}").unwrap_or(name);
                Some((name.to_owned(), value.parse().ok()?))
            })
            .collect()
    }

    /// Everything that Envoy logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        read_log(self.folder.path())
    }

    fn log_tail(&self) -> String {
        tail(&self.log())
    }

    /// The process's resident size in bytes; 0 where the system doesn't tell.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let kib = status.lines().find_map(|line| {
            let rest = line.strip_prefix("VmRSS:")?.trim_start();
            rest.split(' ').next()?.parse::<u64>().ok()
        });
        kib.unwrap_or(0) * 1024
    }

    /// The process's number, for reading what it costs.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has Envoy check a bootstrap, the module's own `on_configure` included.
///
/// # Errors
/// Envoy's log, where it refuses.
///
/// # Panics
/// Where Envoy can't be run.
pub fn validate(bootstrap: &Value) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let status = configured(Command::new(artifacts::envoy()), bootstrap, folder.path())
        .args(["--mode", "validate"])
        .status()
        .expect("Envoy can be run");
    if status.success() {
        Ok(())
    } else {
        Err(read_log(folder.path()))
    }
}

fn configured(mut command: Command, bootstrap: &Value, folder: &Path) -> Command {
    let file = folder.join("bootstrap.json");
    std::fs::write(&file, bootstrap.to_string()).expect("the bootstrap can be written");
    let log = std::fs::File::create(folder.join("log")).expect("a log can be written");
    command
        .arg("--config-path")
        .arg(file)
        .args(["--use-dynamic-base-id", "--log-level", "info"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command
}

fn read_log(folder: &Path) -> String {
    let bytes = std::fs::read(folder.join("log")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The end of a log, without the long lists that Envoy begins with.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| line.len() < 400).collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
