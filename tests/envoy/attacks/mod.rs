//! What an untrusted client may send, crossed with every way to set a gateway up: tests/attacks/README.md.

mod host;
mod judge;
mod native;
mod table;
mod world;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering;

use testkit::cases::Protocol;
use testkit::gateway::seen_as;
use testkit::http::Response;

use judge::{Seen, faults, lines_of, none_is_wrong, or_judged, overdrawn};
use table::{PROTOCOLS, PeerAddress};
use world::{World, in_all_ways};

const LB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

fn no_trap(world: &World) {
    for way in &world.ways {
        let answer = world.send(way, ELSEWHERE, &world.attacks[0], None, Protocol::Http1);
        let refuses = world.setups.setups[way.setup].refuses();
        assert_eq!(
            answer.status(),
            if refuses { "403" } else { "200" },
            "{}:\n{}",
            way.name,
            world.envoy.log()
        );
    }
    let log = world.envoy.log();
    let trapped = log
        .lines()
        .find(|line| line.contains("Function: proxy_") || line.contains("panicked"));
    assert_eq!(trapped, None);
}

#[test]
fn in_envoy_no_untrusted_client_gets_https_or_its_own_limits() {
    let world = World::start();
    let wrong = in_all_ways(&world, |way| {
        let setup = &world.setups.setups[way.setup];
        let fools = setup.fools.contains(&way.peer);
        let mut wrong = Vec::new();
        let mut fooled = 0;
        for attack in world.attacks.iter().filter(|attack| way.concerns(attack)) {
            for protocol in PROTOCOLS {
                let Some(expected) = attack.expected(protocol, setup) else {
                    continue;
                };
                let place = format!(
                    "{}: {:?}: {protocol:?}: {}",
                    setup.name, way.peer, attack.name
                );
                let answer = world.send(way, ELSEWHERE, attack, None, protocol);
                let headers = answer.response().and_then(Response::received_lines);
                let expected = or_judged(expected, &answer);
                if setup.refuses() {
                    // Envoy may have refused it before the filter.
                    let status = answer.status();
                    let is_refused = status == "403" || expected != "200" && status == expected;
                    if !is_refused || headers.is_some() {
                        wrong.push(format!("{place}: {status} instead of a refusal"));
                    }
                    continue;
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
                let faults = faults(&seen, way.peer);
                fooled += usize::from(!faults.is_empty());
                let faults = if fools { Vec::new() } else { faults };
                wrong.extend(
                    faults
                        .into_iter()
                        .chain(overdrawn(&seen))
                        .map(|fault| format!("{place}: {fault}")),
                );
            }
        }
        if fools && fooled == 0 {
            wrong.push(format!(
                "{}: {:?}: nothing got through, although setups.yaml says so",
                setup.name, way.peer
            ));
        }
        wrong
    });
    // For docs/reliability.md, with --nocapture.
    let sent = world.sent.load(Ordering::Relaxed);
    println!("{sent} requests, {} listeners", world.ways.len());
    none_is_wrong(&wrong);
    no_trap(&world);
}

#[test]
fn in_envoy_no_untrusted_client_is_redirected_to_https_or_spared_the_redirect() {
    let world = World::start();
    let wrong = in_all_ways(&world, |way| {
        let setup = &world.setups.setups[way.setup];
        let mut wrong = Vec::new();
        if !matches!(
            (way.peer, way.setup),
            (PeerAddress::Auto, 0) | (PeerAddress::ForwardedFor, 2 | 11)
        ) {
            return wrong;
        }
        let attacks = world
            .attacks
            .iter()
            .filter(|attack| attack.routed && !attack.general);
        for attack in attacks.filter(|attack| attack.authority.is_none()) {
            for protocol in PROTOCOLS {
                if attack.expected(protocol, setup) != Some("200") {
                    continue;
                }
                let place = format!(
                    "{}: {:?}: {protocol:?}: {}",
                    setup.name, way.peer, attack.name
                );
                let secure =
                    world.send(way, ELSEWHERE, attack, Some("secure.example.com"), protocol);
                if secure.status() != "301" {
                    wrong.push(format!(
                        "{place}: httpsRedirect answered {}",
                        secure.status()
                    ));
                }
                let old = world.send(way, ELSEWHERE, attack, Some("old.example.com"), protocol);
                let location = old
                    .response()
                    .and_then(|response| response.header("location"));
                // Over HTTP/2 the raw client doesn't decode headers; tests/envoy/requests.rs has that case.
                let right = protocol == Protocol::Http2
                    || location
                        .as_deref()
                        .is_some_and(|place| place.starts_with("http://old.example.com/new"));
                if old.status() != "301" || !right {
                    wrong.push(format!(
                        "{place}: path_redirect answered {} {location:?}",
                        old.status()
                    ));
                }
            }
        }
        wrong
    });
    none_is_wrong(&wrong);
}

#[test]
fn in_envoy_the_load_balancer_itself_may_pass_on_anything() {
    let world = World::start();
    let way = world
        .ways
        .iter()
        .find(|way| way.setup == 0 && way.peer == PeerAddress::Auto)
        .expect("the first way");
    let setup = &world.setups.setups[way.setup];
    let mut wrong = Vec::new();
    let mut https = 0;
    for attack in &world.attacks {
        for protocol in PROTOCOLS {
            let Some(expected) = attack.expected(protocol, setup) else {
                continue;
            };
            let place = format!("{protocol:?}: {}", attack.name);
            let answer = world.send(way, LB, attack, None, protocol);
            let expected = or_judged(expected, &answer);
            if answer.status() != expected {
                wrong.push(format!(
                    "{place}: expected {expected}, answered {}",
                    answer.status()
                ));
            }
            let Some(headers) = answer.response().and_then(Response::received_lines) else {
                continue;
            };
            let proto = lines_of(&headers, "x-forwarded-proto");
            if proto != [b"http".to_vec()] && proto != [b"https".to_vec()] {
                wrong.push(format!("{place}: {proto:?}"));
            }
            https += usize::from(proto == [b"https".to_vec()]);
            for variant in [
                "x_forwarded_proto",
                "x-forwarded_proto",
                "x_forwarded-proto",
            ] {
                if !lines_of(&headers, variant).is_empty() {
                    wrong.push(format!("{place}: {variant}"));
                }
            }
            let inner = |name: &str| lines_of(&headers, &seen_as(name));
            let seen = Seen {
                headers: &headers,
                inner: &inner,
            };
            wrong.extend(
                overdrawn(&seen)
                    .into_iter()
                    .map(|fault| format!("{place}: {fault}")),
            );
        }
    }
    none_is_wrong(&wrong);
    assert!(https > 100, "the load balancer is trusted");
    no_trap(&world);
}
