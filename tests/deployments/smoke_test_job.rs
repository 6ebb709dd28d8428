//! The smoke test's own script, out of its manifest, against gateways with and without the filter.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use testkit::artifacts;
use testkit::envoy::Envoy;
use testkit::gateway::{Listener, bootstrap};

use crate::command::text;
use crate::{documents, read};

/// What the filter trusts here.
const LB: &str = "127.0.0.2";

/// The echo, as its manifest configures it.
fn echo() -> Envoy {
    let resources = documents(&read("examples/kubernetes/echo.yaml"));
    let configuration = resources
        .iter()
        .find_map(|resource| resource["data"]["envoy.yaml"].as_str())
        .expect("a ConfigMap has it");
    let here = configuration
        .replace("port_value: 8080", "port_value: 0")
        .replace("0.0.0.0", "127.0.0.1");
    Envoy::start(&documents(&here)[0])
}

/// A gateway, and a load balancer in front of it.
struct Deployment {
    gateway: Envoy,
    load_balancer: Envoy,
}

impl Deployment {
    fn start(plugin: Option<&Value>, service: SocketAddr) -> Self {
        let mut listener = Listener::new("gateway");
        if let Some(configuration) = plugin {
            listener = listener.plugin(configuration, &BTreeMap::new());
        }
        let gateway = Envoy::start(&bootstrap(&[listener], service));
        let mut in_front = bootstrap(
            &[Listener::new("load-balancer")],
            gateway.listener("gateway"),
        );
        in_front["static_resources"]["clusters"][0]["upstream_bind_config"] =
            json!({"source_address": {"address": LB, "port_value": 0}});
        Self {
            load_balancer: Envoy::start(&in_front),
            gateway,
        }
    }
}

/// Stands for a sidecar: ready when it is asked for the second time; it writes down what it was asked.
struct Sidecar {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Sidecar {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port can be had");
        let sidecar = Self {
            address: listener.local_addr().expect("it has an address"),
            asked: Arc::default(),
        };
        let asked = Arc::clone(&sidecar.asked);
        std::thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                let mut lines = BufReader::new(&connection).lines().map_while(Result::ok);
                let request = lines.next().unwrap_or_default();
                let _ = lines.find(String::is_empty);
                let mut asked = asked.lock().expect("no thread panicked");
                let status = if asked.is_empty() {
                    "503 Not Ready"
                } else {
                    "200 OK"
                };
                asked.push(request.replace(" HTTP/1.1", ""));
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = connection.write_all(answer.as_bytes());
            }
        });
        sidecar
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no thread panicked").clone()
    }
}

struct Verdict {
    passed: bool,
    said: String,
}

/// Runs the Job's container as its manifest says, some of its variables set otherwise.
fn run_the_job(variables: &[(&str, String)]) -> Verdict {
    let job = documents(&read("examples/kubernetes/smoke-test-job.yaml")).remove(0);
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    let command: Vec<&str> = container["command"]
        .as_array()
        .expect("it has a command")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let mut process = Command::new(command[0]);
    process.args(&command[1..]).env_clear();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = artifacts::path_with_curl(folder.path()).expect("the image has curl");
    process.env("PATH", path);
    let listed = container["env"].as_array().expect("it has variables");
    for variable in listed {
        let text = |field: &str| variable[field].as_str().expect("it is text");
        process.env(text("name"), text("value"));
    }
    for (name, value) in variables {
        assert!(
            listed.iter().any(|variable| variable["name"] == *name),
            "there is no {name}"
        );
        process.env(name, value);
    }
    let output = process.output().expect("a shell can be run");
    Verdict {
        passed: output.status.success(),
        said: text(&output),
    }
}

fn variables(deployment: &Deployment, sidecar: &Sidecar) -> Vec<(&'static str, String)> {
    vec![
        (
            "GATEWAY",
            format!("http://{}", deployment.gateway.listener("gateway")),
        ),
        (
            "LOAD_BALANCER",
            format!(
                "http://{}",
                deployment.load_balancer.listener("load-balancer")
            ),
        ),
        (
            "SIDECAR",
            format!("http://{}/healthz/ready", sidecar.address),
        ),
        (
            "SIDECAR_QUIT",
            format!("http://{}/quitquitquit", sidecar.address),
        ),
    ]
}

fn trusting(peers: &[&str]) -> Value {
    json!({"trustedLoadBalancers": [{
        "name": "lb", "match": {"ipBlocks": peers}, "forwardedProto": {"default": "https"},
    }]})
}

#[test]
fn the_smoke_test_passes_a_gateway_with_the_filter_and_ends_its_sidecar() {
    let echo = echo();
    let deployment = Deployment::start(Some(&trusting(&[LB])), echo.listener("echo"));
    let sidecar = Sidecar::start();
    let verdict = run_the_job(&variables(&deployment, &sidecar));
    assert!(verdict.passed, "{}", verdict.said);
    assert_eq!(
        verdict.said.matches("ok      ").count(),
        5,
        "{}",
        verdict.said
    );
    let asked = [
        "GET /healthz/ready",
        "GET /healthz/ready",
        "POST /quitquitquit",
    ];
    assert_eq!(sidecar.asked(), asked, "{}", verdict.said);
}

#[test]
fn the_smoke_test_prints_what_its_readme_shows() {
    let echo = echo();
    let deployment = Deployment::start(Some(&trusting(&[LB])), echo.listener("echo"));
    let sidecar = Sidecar::start();
    let mut variables = variables(&deployment, &sidecar);
    variables.retain(|(name, _)| *name != "LOAD_BALANCER");
    let verdict = run_the_job(&variables);
    assert!(verdict.passed, "{}", verdict.said);
    let readme = read("examples/kubernetes/README.md");
    assert!(
        readme.contains(&format!("```text\n{}```", verdict.said)),
        "{}",
        verdict.said
    );
}

#[test]
fn the_smoke_test_fails_a_gateway_without_the_filter_and_ends_its_sidecar() {
    let echo = echo();
    let deployment = Deployment::start(None, echo.listener("echo"));
    let sidecar = Sidecar::start();
    let mut variables = variables(&deployment, &sidecar);
    let verdict = run_the_job(&variables);
    assert!(!verdict.passed, "{}", verdict.said);
    for failed in [
        "FAILED  its underscore variant does not reach the service",
        "FAILED  a forged x-forwarded-ssl does not reach the service",
        "FAILED  through the load balancer a client is on https",
    ] {
        assert!(verdict.said.contains(failed), "{}", verdict.said);
    }
    assert_eq!(
        sidecar.asked().last().map(String::as_str),
        Some("POST /quitquitquit")
    );
    variables.retain(|(name, _)| *name != "LOAD_BALANCER");
    assert!(
        !run_the_job(&variables).passed,
        "without asking the load balancer"
    );
}

#[test]
fn the_smoke_test_fails_a_gateway_that_trusts_others_and_one_that_does_not_answer() {
    let echo = echo();
    let everybody = json!({"peerAddress": "source", "trustedLoadBalancers": [{
        "name": "lb", "match": {"ipBlocks": ["127.0.0.0/8"]}, "forwardedProto": {"default": "https"},
    }]});
    let deployment = Deployment::start(Some(&everybody), echo.listener("echo"));
    let sidecar = Sidecar::start();
    let mut variables = variables(&deployment, &sidecar);
    let verdict = run_the_job(&variables);
    assert!(
        !verdict.passed && verdict.said.contains("FAILED  a forged"),
        "{}",
        verdict.said
    );
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port can be had");
    let address = nobody.local_addr().expect("it has an address");
    drop(nobody);
    for (name, value) in &mut variables {
        if *name == "GATEWAY" {
            *value = format!("http://{address}");
        }
    }
    assert!(!run_the_job(&variables).passed);
}
