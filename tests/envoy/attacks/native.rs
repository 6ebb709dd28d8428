//! The attacks on what `trusted-lb render native` prints.

use serde_json::{Value, json};
use testkit::cases::Protocol;
use testkit::gateway::{Listener, seen_as};
use testkit::http::Response;

use super::ELSEWHERE;
use super::judge::{Seen, faults, lines_of, none_is_wrong, or_judged, overdrawn};
use super::table::{Attack, PeerAddress, Setup};
use super::world::{World, in_all_ways};
use crate::native_forms::{render, version};

/// The attacks' configuration without what is refused.
pub(super) fn configuration(mut configuration: Value, setup: &Setup, peer: PeerAddress) -> Value {
    let rules = configuration["trustedLoadBalancers"]
        .as_array_mut()
        .expect("rules");
    rules.retain(|rule| {
        if peer == PeerAddress::NativeChains {
            rule["name"] == "by-address"
        } else {
            rule["name"] != "by-secret"
        }
    });
    rules[0]["forwardedProto"]["from"]
        .as_array_mut()
        .expect("signals")
        .retain(|signal| signal != "cf-visitor" && signal != "forwarded");
    if peer == PeerAddress::NativeChains {
        let conditions = rules[0]["match"].as_object_mut().expect("conditions");
        conditions.remove("notPaths");
    }
    configuration["defaults"]["retries"]
        .as_object_mut()
        .expect("retries")
        .remove("idempotencyKey");
    if let Some(untrusted) = &setup.untrusted {
        configuration["untrusted"] = untrusted.clone();
    }
    if let Some(word) = &setup.request_headers {
        configuration["defaults"]["requestHeaders"] = json!(word);
    }
    // Whatever peerAddress says, and whether Envoy keeps x-forwarded-proto.
    configuration
}

/// One filter chain needs Envoy 1.38, and so do signals in filter chains.
fn listener(configuration: &Value, setup: &Setup, peer: PeerAddress) -> Option<Listener> {
    if setup.request_headers.as_deref() == Some("cap") {
        return None;
    }
    let form = match peer {
        PeerAddress::NativeChain => "connection",
        _ => "chains",
    };
    let rendered = render(configuration, &["--form", form, "--http2", "deny"]);
    let fields = rendered.unwrap_or_else(|refusal| panic!("{}: {refusal}", setup.name));
    Some(Listener::new("").gateway(&setup.gateway).rendered(fields))
}

/// Whether a scheme that isn't the connection's is refused. Over HTTP/1 Envoy itself refuses it if it trusts no hop, as in
/// the filter chain for everybody else.
fn is_denied(peer: PeerAddress, attack: &Attack, protocol: Protocol) -> bool {
    match protocol {
        Protocol::Http2 => {
            let scheme = attack.scheme.as_deref().unwrap_or("http");
            peer == PeerAddress::NativeChain && scheme != "http"
        }
        Protocol::Http1 => attack.target().to_ascii_lowercase().starts_with("https://"),
    }
}

#[test]
fn native_forms_give_no_untrusted_client_https_or_its_own_limits() {
    if ["1.36", "1.37"].contains(&version()) {
        println!("SKIPPED: Envoy {} has no such forms", version());
        return;
    }
    let peers = [PeerAddress::NativeChain, PeerAddress::NativeChains];
    let world = World::of(&peers, |setups, setup, peer| {
        listener(&setups.configuration(setup, peer), setup, peer)
    });
    let wrong = in_all_ways(&world, |way| {
        let setup = &world.setups.setups[way.setup];
        let mut wrong = Vec::new();
        for attack in world.attacks.iter().filter(|attack| way.concerns(attack)) {
            for protocol in super::PROTOCOLS {
                let Some(expected) = attack.expected(protocol, setup) else {
                    continue;
                };
                let place = format!(
                    "{}: {:?}: {protocol:?}: {}",
                    setup.name, way.peer, attack.name
                );
                let answer = world.send(way, ELSEWHERE, attack, None, protocol);
                let headers = answer.response().and_then(Response::received_lines);
                let mut expected = or_judged(expected, &answer);
                if setup.refuses() && answer.status() == "403" && headers.is_none() {
                    continue;
                }
                if expected == "200" && (setup.refuses() || is_denied(way.peer, attack, protocol)) {
                    expected = "403";
                }
                if answer.status() != expected || headers.is_some() != (expected == "200") {
                    wrong.push(format!(
                        "{place}: expected {expected}, answered {}",
                        answer.status()
                    ));
                    continue;
                }
                let Some(headers) = headers else { continue };
                let inner = |name: &str| lines_of(&headers, &seen_as(name));
                let seen = Seen {
                    headers: &headers,
                    inner: &inner,
                };
                let faults = faults(&seen, way.peer).into_iter();
                wrong.extend(
                    faults
                        .chain(overdrawn(&seen))
                        .map(|fault| format!("{place}: {fault}")),
                );
            }
        }
        wrong
    });
    none_is_wrong(&wrong);
}
