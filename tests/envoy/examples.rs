//! The examples, run as their READMEs say. That what they configure is right is tested with the command, in `tests/cli`.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::artifacts::{self, repository};
use testkit::cases::ClientRequest;
use testkit::envoy::Envoy;
use testkit::gateway::{Listener, bootstrap, usual_virtual_hosts};
use testkit::http::{self, Transport};
use testkit::upstream::Upstream;

/// The documents of a YAML text.
fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Loopback ports that nobody uses now.
fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let held: Vec<TcpListener> = (0..COUNT)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)).expect("a port can be had"))
        .collect();
    std::array::from_fn(|index| held[index].local_addr().expect("it has an address").port())
}

#[test]
fn the_standalone_example_does_what_its_readme_says() {
    let folder = repository().join("examples/standalone");
    let readme = std::fs::read_to_string(folder.join("README.md")).expect("it is there");
    let mut blocks = readme.split("```").skip(1).step_by(2);
    let mut block = |language: &str| {
        let block = blocks.next().and_then(|block| block.strip_prefix(language));
        block.expect("such a block").trim().to_owned()
    };
    let (commands, from_the_load_balancer, from_elsewhere) =
        (block("sh"), block("text"), block("text"));
    if Command::new("curl").arg("--version").output().is_err() {
        println!("SKIPPED: there is no curl to run the README's commands with");
        return;
    }
    let [gateway, service] = free_ports();
    let on_free_ports = |text: &str| {
        text.replace("10080", &gateway.to_string())
            .replace("10081", &service.to_string())
            .replace(
                "dist/trusted_lb.wasm",
                &artifacts::module().display().to_string(),
            )
    };
    let text = std::fs::read_to_string(folder.join("envoy.yaml")).expect("it is there");
    let moved = tempfile::NamedTempFile::with_suffix(".yaml").expect("a file");
    std::fs::write(moved.path(), on_free_ports(&text)).expect("it can be written");
    // What is built and fetched already, and a second Envoy on this machine.
    let commands = on_free_ports(&commands)
        .replacen("./build.sh\n", "", 1)
        .replace(
            "\"$(./build.sh envoy)\"",
            &format!("{} --use-dynamic-base-id", artifacts::envoy().display()),
        )
        .replace(
            "examples/standalone/envoy.yaml",
            &moved.path().display().to_string(),
        );
    let output = Command::new("bash")
        // Whatever goes wrong, no Envoy stays behind.
        .args([
            "-euc",
            &format!("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{commands}"),
        ])
        .current_dir(repository())
        .output()
        .expect("there is a bash");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{commands}\n{errors}");
    let shown = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let expected = format!("{from_the_load_balancer}\n{from_elsewhere}\n");
    assert_eq!(shown, expected, "{errors}");
}

/// What an EnvoyFilter of this repository patches in, by what it applies to.
fn patched(file: &str, apply_to: &str) -> Value {
    let text = std::fs::read_to_string(repository().join(file)).expect("it is there");
    documents(&text)
        .iter()
        .flat_map(|document| {
            document["spec"]["configPatches"]
                .as_array()
                .expect("patches")
                .clone()
        })
        .find(|patch| patch["applyTo"] == apply_to)
        .unwrap_or_else(|| panic!("{file} patches no {apply_to}"))["patch"]["value"]
        .clone()
}

#[test]
fn the_network_load_balancer_is_known_behind_the_proxy_protocol_and_no_claim_is_believed() {
    let folder = "examples/load-balancers/aws-nlb-tls";
    let plugin = std::fs::read_to_string(repository().join(folder).join("wasmplugin.yaml"))
        .expect("it is there")
        .replace("10.0.12.0/24, 10.0.13.0/24", "127.0.0.2");
    let envoyfilter = format!("{folder}/envoyfilter.yaml");
    let listener = Listener::new("gateway")
        .plugin(
            &documents(&plugin)[0]["spec"]["pluginConfig"],
            &BTreeMap::new(),
        )
        .network_filter(patched(&envoyfilter, "NETWORK_FILTER"));
    let upstream = Upstream::start();
    let mut bootstrap = bootstrap(&[listener], upstream.address());
    bootstrap["static_resources"]["listeners"][0]["listener_filters"] =
        patched(&envoyfilter, "LISTENER")["listener_filters"].clone();
    let envoy = Envoy::start(&bootstrap);
    let told = |peer: [u8; 4], claim: &str, port: u16| {
        let request = format!(
            "PROXY TCP4 {claim} 10.0.12.9 50000 {port}\r\nGET / HTTP/1.1\r\nhost: app.example.com\r\n\
             x-forwarded-proto: https\r\nx-forwarded-for: 127.0.0.2\r\n\r\n"
        );
        let address = envoy.listener("gateway");
        let response = http::exchange(
            address,
            peer.into(),
            &Transport::Plain,
            request.as_bytes(),
            false,
        )
        .expect("the gateway answers");
        response
            .received_one("x-forwarded-proto")
            .expect("it is never removed")
    };
    assert_eq!(told([127, 0, 0, 2], "198.51.100.7", 443), "https");
    assert_eq!(told([127, 0, 0, 2], "198.51.100.7", 80), "http");
    assert_eq!(told([127, 0, 0, 9], "127.0.0.2", 443), "http");
}

/// The filter in this mode in front of the Lua filter that it replaces; 127.0.0.2 is the load balancer.
fn in_front_of_lua(mode: &str, upstream: &Upstream) -> Envoy {
    let listener = Listener::new("gateway")
        .plugin(
            &json!({
                "mode": mode,
                "trustedLoadBalancers": [{
                    "name": "load-balancer",
                    "match": {"ipBlocks": ["127.0.0.2"]},
                    "forwardedProto": {"default": "https"},
                }],
            }),
            &BTreeMap::new(),
        )
        .filter(patched("envoyfilter/legacy-lua.yaml", "HTTP_FILTER"))
        .virtual_hosts(usual_virtual_hosts());
    Envoy::start(&bootstrap(&[listener], upstream.address()))
}

const LB: [u8; 4] = [127, 0, 0, 2];
const ELSEWHERE: [u8; 4] = [127, 0, 0, 9];

#[test]
fn shadow_mode_in_front_of_the_lua_filter_counts_where_both_say_https_and_changes_nothing() {
    let upstream = Upstream::start();
    let envoy = in_front_of_lua("shadow", &upstream);
    for peer in [LB, LB, LB, ELSEWHERE, ELSEWHERE] {
        let request = ClientRequest::get(peer.into(), "app.example.com", "/");
        let response = http::send(envoy.listener("gateway"), &request).expect("it answers");
        let told = response.received_one("x-forwarded-proto");
        assert_eq!(
            told.as_deref(),
            Some("https"),
            "the Lua filter says so to everybody"
        );
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while envoy.stat("wasmcustom.trusted_lb_shadow") < 5 {
        assert!(
            Instant::now() < deadline,
            "{:?}",
            envoy.prometheus("trusted_lb_")
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let counted = |name: &str| envoy.stat(&format!("wasmcustom.trusted_lb_{name}"));
    assert_eq!(counted("shadow_disagreement"), 3);
    assert_eq!(counted("untrusted"), 2);
}

#[test]
fn enforced_in_front_of_the_lua_filter_envoys_redirects_are_right_while_services_see_what_they_saw()
{
    let upstream = Upstream::start();
    let envoy = in_front_of_lua("enforce", &upstream);
    for (peer, scheme) in [(LB, "https"), (ELSEWHERE, "http")] {
        let send = |host: &str| {
            let request = ClientRequest::get(peer.into(), host, "/");
            http::send(envoy.listener("gateway"), &request).expect("it answers")
        };
        let told = send("app.example.com").received_one("x-forwarded-proto");
        assert_eq!(told.as_deref(), Some("https"));
        let location = send("old.example.com").header("location");
        assert_eq!(
            location.as_deref(),
            Some(format!("{scheme}://old.example.com/new").as_str())
        );
    }
}
