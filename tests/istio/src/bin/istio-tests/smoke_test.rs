//! The smoke-test Job's own script, against the real agent.

use std::process::Command;

use istio_lab::gateway::{self, AGENT, HTTP, LOAD_BALANCER, Options, STATUS, expect, get};
use istio_lab::lab::Lab;
use istio_lab::manifest::{NAMESPACE, documents, file, text};
use istio_lab::report::Test;
use istio_lab::wait;
use serde_json::{Value, json};
use testkit::envoy::Envoy;

pub const TESTS: &[Test<Lab>] = &[(
    "the smoke test passes, finds the agent ready, and ends it",
    smoke_test,
)];

/// The echo of echo.yaml, run as its ConfigMap says.
fn echo(resources: &[Value]) -> Envoy {
    let configuration = resources
        .iter()
        .find_map(|one| one["data"]["envoy.yaml"].as_str())
        .expect("it has one");
    let here = configuration
        .replace("port_value: 8080", "port_value: 0")
        .replace("0.0.0.0", "127.0.0.1");
    Envoy::start(&documents(&here)[0])
}

fn smoke_test(lab: &mut Lab) {
    let resources = documents(&file("examples/kubernetes/echo.yaml"));
    let echo = echo(&resources);
    // Its service runs in no pod here; the Gateway and the VirtualService are as they lie there, but for the namespace's
    // selector and the port that this gateway has.
    let mut service = documents(&lab.base()).remove(1);
    service["metadata"]["name"] = json!("smoke");
    service["spec"]["hosts"] = json!(["smoke.internal"]);
    service["spec"]["endpoints"][0]["ports"]["http"] = json!(echo.listener("echo").port());
    let mut routes = resources
        .iter()
        .find(|one| one["kind"] == "VirtualService")
        .expect("it is there")
        .clone();
    routes["metadata"]["namespace"] = json!(NAMESPACE);
    routes["spec"]["gateways"] = json!(["lab"]);
    routes["spec"]["http"][0]["route"][0]["destination"]["host"] = json!("smoke.internal");
    let manifests = format!(
        "{}\n---\n{}",
        text(&[service, routes]),
        file("envoyfilter/wasmplugin.yaml")
    );
    lab.serve(&manifests, &Options::default());
    expect(&get(LOAD_BALANCER, "/"), "200 https");
    wait::until_true("the echo is routed to", || {
        let mut request = get(LOAD_BALANCER, "/");
        "echo.smoke-test.example.com".clone_into(&mut request.authority);
        gateway::try_send(HTTP, &request)
            .is_ok_and(|response| response.body.starts_with(b"x-forwarded-proto: https"))
    });
    let job = documents(&file("examples/kubernetes/smoke-test-job.yaml")).remove(0);
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    let words: Vec<&str> = container["command"]
        .as_array()
        .expect("a command")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    for variable in container["env"].as_array().expect("variables") {
        command.env(
            variable["name"].as_str().expect("a name"),
            variable["value"].as_str().expect("a value"),
        );
    }
    let output = command
        .env("GATEWAY", format!("http://{HTTP}"))
        .output()
        .expect("a shell can be run");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("ok      ").count(), 4, "{said}");
    assert!(
        container["env"]
            .to_string()
            .contains(&STATUS.port().to_string())
    );
    assert!(
        container["env"]
            .to_string()
            .contains(&AGENT.port().to_string())
    );
    // /quitquitquit has ended the agent.
    let status = lab.gateway().wait();
    assert!(status.success(), "{status}");
}
