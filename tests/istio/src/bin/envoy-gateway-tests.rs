//! `./build.sh test --envoy-gateway`: examples/envoy-gateway in a real Envoy Gateway.

use std::process::ExitCode;

use istio_lab::envoy_gateway::{HTTP, Lab};
use istio_lab::gateway::{ELSEWHERE, LOAD_BALANCER, get, outcome, try_send};
use istio_lab::manifest::{documents, file, text};
use istio_lab::report::{self, Test};
use istio_lab::wait;
use serde_json::{Value, json};
use testkit::cases::ClientRequest;

const TESTS: &[Test<Lab>] = &[
    (
        "trusted-lb.yaml corrects the load balancer's requests and nobody else's",
        by_patch_policy,
    ),
    (
        "trusted-lb.yaml is right behind trusted addresses and hops",
        behind_client_ip_detection,
    ),
    (
        "with-a-token.yaml does without EnvoyPatchPolicy",
        with_a_token,
    ),
    (
        "auto trusts nobody behind clientIPDetection, and the log says what would fit",
        auto,
    ),
    (
        "a refused configuration has a proxy that starts answer 503, and one that serves keep its whole listener as it was",
        refused,
    ),
];

fn main() -> ExitCode {
    istio_lab::process::end_with_signals();
    let mut lab = Lab::start();
    report::run(TESTS, &mut lab, |lab, good| {
        if !good {
            println!("{}", lab.tail());
        }
        lab.clear();
    })
}

fn outcome_of(request: &ClientRequest) -> String {
    match try_send(HTTP, request) {
        Ok(response) => outcome(&response),
        Err(error) => error,
    }
}

fn expect(request: &ClientRequest, wanted: &str) {
    wait::until(&format!("expected {wanted:?} for {request:?}"), || {
        let found = outcome_of(request);
        if found == wanted {
            Ok(())
        } else {
            Err(format!("found {found:?}"))
        }
    });
}

const CLIENT: (&str, &str) = ("x-forwarded-for", "198.51.100.7");
const FORGED: &[(&str, &str)] = &[
    ("x-forwarded-proto", "https"),
    ("x-forwarded-for", "10.0.12.5"),
];

fn strangers_are_http() {
    expect(&get(ELSEWHERE, "/").with(FORGED), "200 http");
    let token = [("x-lb-peer", "0123456789abcdef0123456789abcdef 10.0.12.5")];
    expect(&get(ELSEWHERE, "/").with(&token), "200 http");
}

fn by_patch_policy(lab: &mut Lab) {
    lab.serve(&file("examples/envoy-gateway/trusted-lb.yaml"));
    expect(&get(LOAD_BALANCER, "/").with(&[CLIENT]), "200 https");
    strangers_are_http();
}

/// A ClientTrafficPolicy with this `clientIPDetection`.
fn detection(settings: &Value) -> Value {
    json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "ClientTrafficPolicy",
        "metadata": {"name": "addresses", "namespace": "default"},
        "spec": {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "public"}],
            "clientIPDetection": settings,
        },
    })
}

fn behind_client_ip_detection(lab: &mut Lab) {
    for settings in [
        json!({"xForwardedFor": {"trustedCIDRs": ["10.0.12.0/24"]}}),
        json!({"xForwardedFor": {"numTrustedHops": 1}}),
        json!({"customHeader": {"name": "x-real-client", "failClosed": false}}),
    ] {
        lab.clear();
        let policy = text(&[detection(&settings)]);
        lab.serve(&format!(
            "{}\n{policy}",
            file("examples/envoy-gateway/trusted-lb.yaml")
        ));
        expect(&get(LOAD_BALANCER, "/").with(&[CLIENT]), "200 https");
        expect(
            &get(LOAD_BALANCER, "/").with(&[CLIENT, ("x-real-client", "198.51.100.7")]),
            "200 https",
        );
        strangers_are_http();
        expect(
            &get(ELSEWHERE, "/").with(&[
                ("x-real-client", "10.0.12.5"),
                ("x-forwarded-proto", "https"),
            ]),
            "200 http",
        );
    }
}

fn with_a_token(lab: &mut Lab) {
    lab.serve(&file("examples/envoy-gateway/with-a-token.yaml"));
    expect(&get(LOAD_BALANCER, "/").with(&[CLIENT]), "200 https");
    strangers_are_http();
    let response = try_send(HTTP, &get(LOAD_BALANCER, "/")).expect("the gateway answers");
    assert_eq!(
        response.received("x-lb-peer"),
        Some(vec![]),
        "the token stays here"
    );
}

/// The policy that loads the filter, with this source of the peer's address.
fn extension(peer_address: &str) -> Value {
    let mut policy = documents(&file("examples/envoy-gateway/trusted-lb.yaml")).remove(0);
    policy["spec"]["wasm"][0]["config"]["peerAddress"] = json!(peer_address);
    policy
}

fn auto(lab: &mut Lab) {
    lab.serve(&text(&[extension("auto")]));
    // As Envoy Gateway is by default, auto is right.
    expect(&get(LOAD_BALANCER, "/").with(&[CLIENT]), "200 https");
    strangers_are_http();
    lab.clear();
    let settings = json!({"xForwardedFor": {"trustedCIDRs": ["10.0.12.0/24"]}});
    lab.serve(&text(&[extension("auto"), detection(&settings)]));
    wait::until("nobody is trusted", || {
        let found =
            outcome_of(&get(LOAD_BALANCER, "/").with(&[CLIENT, ("x-forwarded-proto", "http")]));
        if found == "200 http" {
            Ok(())
        } else {
            Err(found)
        }
    });
    wait::until_true("the log says so", || {
        lab.log()
            .contains("the direct peer of a request can't be determined")
    });
}

fn refused(lab: &mut Lab) {
    let right = extension("auto");
    let mut wrong = right.clone();
    // What the API server takes and the filter doesn't: a number without a unit.
    wrong["spec"]["wasm"][0]["config"]["defaults"]["timeout"] = json!(15);
    lab.serve(&text(std::slice::from_ref(&wrong)));
    expect(&get(LOAD_BALANCER, "/"), "503");
    assert!(
        lab.log()
            .contains("defaults.timeout: 15 has no unit (write 15s"),
        "the proxy's log says what to write"
    );
    lab.write(&text(std::slice::from_ref(&right)));
    expect(&get(LOAD_BALANCER, "/"), "200 https");
    // Now as an update, together with another change of the listener: the old one serves on, with neither.
    let rejected = "config rejected: Unable to create Wasm plugin";
    assert!(!lab.log().contains(rejected), "no listener was refused yet");
    let settings = json!({"xForwardedFor": {"numTrustedHops": 1}});
    lab.write(&text(&[wrong, detection(&settings)]));
    wait::until_true("Envoy refuses the listener", || {
        lab.log().contains(rejected)
    });
    let client_with = |header: (&str, &str)| get(LOAD_BALANCER, "/").with(&[header]);
    for _ in 0..20 {
        assert_eq!(outcome_of(&client_with(CLIENT)), "200 https");
    }
    // With the configuration right again the other change comes too: auto can't tell the peer behind a trusted hop.
    lab.write(&text(&[right, detection(&settings)]));
    expect(&client_with(CLIENT), "200 http");
}
