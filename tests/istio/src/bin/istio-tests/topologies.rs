//! Who is trusted where Istio has trusted proxies, the PROXY protocol, or a load balancer on the gateway's own node; and the
//! table of attacks of tests/attacks in each of these.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use istio_lab::gateway::{ELSEWHERE, HTTP, LOAD_BALANCER, Options, POD, expect, get, outcome};
use istio_lab::lab::Lab;
use istio_lab::manifest::{documents, file, text};
use istio_lab::report::Test;
use istio_lab::wait;
use serde_json::{Value, json};
use testkit::http::{self, Response};
use testkit::raw::{self, RawRequest};
use testkit::{HeaderLines, latin1};

pub const TESTS: &[Test<Lab>] = &[
    (
        "no trusted proxies: the attack table under auto and filterState",
        |lab| attacks(lab, &json!({}), b""),
    ),
    (
        "one trusted proxy: the attack table under auto and filterState",
        |lab| attacks(lab, &json!({"numTrustedProxies": 1}), b""),
    ),
    (
        "two trusted proxies: the attack table under auto and filterState",
        |lab| attacks(lab, &json!({"numTrustedProxies": 2}), b""),
    ),
    (
        "the PROXY protocol: the attack table under filterState, from somebody who claims to be the load balancer",
        |lab| {
            attacks(
                lab,
                &json!({"proxyProtocol": {}}),
                b"PROXY TCP4 10.0.12.5 198.51.100.1 50000 443\r\n",
            );
        },
    ),
    (
        "trusted proxies: auto trusts nobody who comes with the load balancer's x-forwarded-for",
        auto_behind_trusted_proxies,
    ),
    (
        "the PROXY protocol: auto believes a claimed address, filterState doesn't",
        proxy_protocol,
    ),
    (
        "a load balancer on the gateway's own node is known by filterState and not by auto",
        same_node,
    ),
    (
        "filterState without direct-peer.yaml trusts nobody, and the log says what is missing",
        without_direct_peer,
    ),
];

/// Somebody whom no rule of tests/attacks/setups.yaml trusts.
const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 66));

fn options(topology: &Value) -> Options {
    Options {
        proxy_config: BTreeMap::from([("gatewayTopology".to_owned(), topology.clone())]),
        ..Options::default()
    }
}

/// The usual plugin with another source of the peer's address.
fn plugin(peer_address: &str) -> Value {
    let mut plugin = documents(&file("envoyfilter/wasmplugin.yaml")).remove(0);
    plugin["spec"]["pluginConfig"]["peerAddress"] = json!(peer_address);
    plugin
}

fn by_filter_state() -> String {
    text(&[plugin("filterState")])
}

fn auto_behind_trusted_proxies(lab: &mut Lab) {
    lab.serve(
        &text(&[plugin("auto")]),
        &options(&json!({"numTrustedProxies": 1})),
    );
    // Without one, the peer is told by its own address.
    expect(&get(LOAD_BALANCER, "/"), "200 https");
    expect(
        &get(LOAD_BALANCER, "/").with(&[("x-forwarded-for", "198.51.100.7")]),
        "200 http",
    );
    expect(
        &get(ELSEWHERE, "/").with(&[
            ("x-forwarded-for", "10.0.12.5"),
            ("x-forwarded-proto", "https"),
        ]),
        "200 http",
    );
}

/// Sends a request behind the beginning of a connection.
fn send_after(preamble: &str, peer: IpAddr) -> Result<Response, String> {
    let bytes = format!("{preamble}GET / HTTP/1.1\r\nhost: app.example.com\r\n\r\n");
    http::exchange(HTTP, peer, &http::Transport::Plain, bytes.as_bytes(), false)
        .map_err(|error| error.to_string())
}

fn expect_after(preamble: &str, peer: IpAddr, wanted: &str) {
    wait::until(
        &format!("expected {wanted} from {peer} after {preamble:?}"),
        || {
            let found = outcome(&send_after(preamble, peer)?);
            if found == wanted { Ok(()) } else { Err(found) }
        },
    );
}

fn proxy_protocol(lab: &mut Lab) {
    let client = "PROXY TCP4 198.51.100.7 198.51.100.1 50000 443\r\n";
    let forged = "PROXY TCP4 10.0.12.5 198.51.100.1 50000 443\r\n";
    let topology = options(&json!({"proxyProtocol": {}}));
    lab.serve(&text(&[plugin("auto")]), &topology);
    expect_after(client, LOAD_BALANCER, "200 http");
    // This is why auto is no setting behind the PROXY protocol: docs/peer-address.md.
    expect_after(forged, ELSEWHERE, "200 https");
    lab.clear();
    lab.serve(&by_filter_state(), &topology);
    expect_after(client, LOAD_BALANCER, "200 https");
    expect_after(forged, ELSEWHERE, "200 http");
}

fn without_direct_peer(lab: &mut Lab) {
    let options = Options {
        without_direct_peer: true,
        ..Options::default()
    };
    lab.serve(&text(&[plugin("filterState")]), &options);
    expect(&get(LOAD_BALANCER, "/"), "200 http");
    wait::until_true("the log says why", || {
        lab.gateway().log().contains("trusted_lb.peer")
    });
    lab.apply(&file("envoyfilter/direct-peer.yaml"));
    expect(&get(LOAD_BALANCER, "/"), "200 https");
}

fn same_node(lab: &mut Lab) {
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let trusting = |mut plugin: Value| {
        plugin["spec"]["pluginConfig"]["trustedLoadBalancers"][0]["match"]["ipBlocks"] =
            json!(["127.0.0.1/32"]);
        plugin
    };
    lab.serve(&text(&[trusting(plugin("auto"))]), &Options::default());
    let response = http::send(HTTP, &get(here, "/")).expect("the gateway answers");
    assert_eq!(
        response.received_one("x-forwarded-for"),
        Some(POD.to_string()),
        "Envoy writes the gateway's own address"
    );
    assert_eq!(outcome(&response), "200 http");
    lab.clear();
    lab.serve(
        &text(&[trusting(plugin("filterState"))]),
        &Options::default(),
    );
    expect(&get(here, "/"), "200 https");
    expect(&get(ELSEWHERE, "/"), "200 http");
}

/// Sends the table's requests from somebody whom no rule trusts.
fn attacks(lab: &mut Lab, topology: &Value, preamble: &[u8]) {
    // Under auto a claimed address is believed behind the PROXY protocol; the table would show that and nothing else.
    let peer_addresses: &[&str] = if preamble.is_empty() {
        &["auto", "filterState"]
    } else {
        &["filterState"]
    };
    let setups: Value =
        serde_saphyr::from_str(&file("tests/attacks/setups.yaml")).expect("it is YAML");
    for peer_address in peer_addresses {
        let mut plugin = plugin(peer_address);
        let mut configuration = setups["configuration"].clone();
        configuration["peerAddress"] = json!(peer_address);
        plugin["spec"]["pluginConfig"] = configuration;
        plugin["spec"]["vmConfig"] =
            json!({"env": [{"name": "ORIGIN_SECRET", "valueFrom": "HOST"}]});
        lab.clear();
        lab.serve(&text(&[plugin]), &options(topology));
        // That the rules are in force is seen by somebody whom they trust.
        let trusted = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        expect_after(&String::from_utf8_lossy(preamble), trusted, "200 https");
        let (mut served, mut wrong) = (0, Vec::new());
        for attack in table() {
            let mut connection = http::connect(HTTP, ATTACKER).expect("the gateway listens");
            let request = RawRequest {
                preamble: preamble.to_vec(),
                ..attack.request
            };
            let answer = raw::http1(&mut connection, &request);
            let Ok(Some(response)) = answer.as_ref().map(raw::Answer::response) else {
                continue;
            };
            let Some(headers) = response.received_lines() else {
                continue;
            };
            served += 1;
            let faults = faults(&headers);
            if !faults.is_empty() {
                wrong.push(format!("{peer_address}: {}: {faults:?}", attack.name));
            }
        }
        assert!(
            wrong.is_empty(),
            "{} wrong:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
        assert!(served > 40, "only {served} requests reached the service");
    }
}

struct Attack {
    name: String,
    request: RawRequest,
}

/// The attacks that HTTP/1 can carry. Those for each header in turn go through an Envoy of their own in tests/attacks.
fn table() -> Vec<Attack> {
    let table: Vec<Value> =
        serde_saphyr::from_str(&file("tests/attacks/requests.yaml")).expect("it is YAML");
    let repeated = |value: &Value| match value {
        Value::Array(parts) => {
            let times = parts[1]
                .as_u64()
                .and_then(|times| usize::try_from(times).ok())
                .expect("a number");
            parts[0].as_str().expect("a text").repeat(times)
        }
        other => other.as_str().unwrap_or("/").to_owned(),
    };
    table
        .iter()
        .filter(|one| one["http1"] != "never")
        .filter(|one| {
            !one["headers"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|line| line[0].as_str().unwrap_or_default().contains('{'))
        })
        .map(|one| {
            let lines = one["headers"].as_array().cloned().unwrap_or_default();
            let headers: HeaderLines = lines
                .iter()
                .map(|line| {
                    let times = line[2]
                        .as_u64()
                        .and_then(|times| usize::try_from(times).ok())
                        .unwrap_or(1);
                    (
                        latin1(line[0].as_str().unwrap_or_default()),
                        latin1(&line[1].as_str().unwrap_or_default().repeat(times)),
                    )
                })
                .collect();
            let authority = match one.get("authority") {
                None => Some("app.example.com"),
                Some(value) => value.as_str(),
            };
            let text = |name: &str, usual: &str| latin1(one[name].as_str().unwrap_or(usual));
            Attack {
                name: one["name"].as_str().unwrap_or_default().to_owned(),
                request: RawRequest {
                    preamble: Vec::new(),
                    method: text("method", "GET"),
                    target: latin1(&repeated(&one["target"])),
                    authority: authority.map(latin1),
                    version: text("version", "HTTP/1.1"),
                    scheme: Vec::new(),
                    headers,
                },
            }
        })
        .collect()
}

/// What the service may not have been told about somebody on a plain connection.
fn faults(headers: &HeaderLines) -> Vec<String> {
    // Frameworks of the CGI family take underscores for hyphens.
    let spelled = |name: &[u8]| -> Vec<u8> {
        name.to_ascii_lowercase()
            .into_iter()
            .map(|byte| if byte == b'_' { b'-' } else { byte })
            .collect()
    };
    let mut faults = Vec::new();
    let mut schemes = Vec::new();
    for (name, value) in headers {
        let line = format!("{}: {}", name.escape_ascii(), value.escape_ascii());
        match spelled(name).as_slice() {
            b"x-forwarded-proto" => schemes.push(line),
            b"x-forwarded-ssl"
            | b"x-forwarded-scheme"
            | b"x-forwarded-protocol"
            | b"x-url-scheme"
            | b"front-end-https"
            | b"forwarded" => faults.push(line),
            _ => {}
        }
    }
    if schemes != ["x-forwarded-proto: http"] {
        faults.extend(schemes);
    }
    faults
}
