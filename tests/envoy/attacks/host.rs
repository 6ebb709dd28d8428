//! The same attacks on the module in the in-process host.

use testkit::cases::{ClientRequest, Protocol};
use testkit::wasm_host::{self, Module, Vm};
use testkit::{artifacts, hcm};

use super::ELSEWHERE;
use super::judge::{Seen, faults, lines_of, none_is_wrong, overdrawn};
use super::table::{
    Attack, PEER_ADDRESSES, PROTOCOLS, PeerAddress, Setup, Table, Transport, attacks, read,
};

/// The request as filters see it: what the connection manager would make of it, had it let it pass.
fn arriving(
    attack: &Attack,
    setups: &Table,
    setup: &Setup,
    peer: PeerAddress,
    protocol: Protocol,
) -> wasm_host::Request {
    let mut gateway = setup.gateway(peer);
    let without_address = matches!(setup.transport, Transport::Unix | Transport::Internal);
    // Envoy appends nothing for a peer without an IP address.
    gateway.skip_xff_append |= without_address;
    let authority = attack.authority();
    let request = ClientRequest {
        peer: setup.claims.unwrap_or(ELSEWHERE),
        protocol,
        tls: false,
        certificate: None,
        method: attack.method().to_owned(),
        authority: authority.clone().unwrap_or_default(),
        path: attack.target(),
        scheme: attack.scheme.clone(),
        headers: attack.headers(),
    };
    let mut request = hcm::received(&request, &gateway, &setups.environment);
    if authority.is_none() {
        request.headers.retain(|(name, _)| name != b":authority");
    }
    // The early header mutation writes the connection's own address, whatever is claimed; or none.
    let direct = if without_address {
        String::new()
    } else {
        ELSEWHERE.to_string()
    };
    if let Some(value) = request.properties.get_mut("filter_state\0trusted_lb.peer") {
        *value = direct.clone().into();
    }
    for (name, value) in &mut request.headers {
        if peer == PeerAddress::Header && name == b"x-lb-peer" {
            *value = format!("{} {direct}", setups.environment["HELPER_TOKEN"]).into();
        }
    }
    let from_header = request
        .properties
        .get("source\0address")
        .is_some_and(|source| source.ends_with(b":0"));
    match setup.transport {
        Transport::Tcp => {}
        Transport::Unix | Transport::Internal => {
            request.properties.remove("destination\0port");
            if !from_header {
                request = request.property("source.address", "/run/gateway.sock");
            }
        }
        Transport::Mapped => {
            if !from_header {
                request = request.property("source.address", format!("[::ffff:{ELSEWHERE}]:40000"));
            }
        }
    }
    request
}

#[test]
fn in_the_host_no_untrusted_client_gets_https_or_its_own_limits() {
    let module = Module::load(artifacts::module()).expect("the built module is valid");
    let setups: Table = read("setups.yaml");
    let attacks = attacks(&setups);
    let mut wrong = Vec::new();
    for setup in &setups.setups {
        for peer in PEER_ADDRESSES {
            let mut vm = Vm::new(&module, &setups.environment());
            let configuration = setups.configuration(setup, peer).to_string();
            assert!(
                vm.start(configuration.as_bytes()).expect("no trap"),
                "{:?}",
                vm.take_logs()
            );
            let fools = setup.fools.contains(&peer);
            for attack in attacks
                .iter()
                .filter(|attack| !attack.general || peer == PeerAddress::Auto)
            {
                for protocol in PROTOCOLS {
                    let place = format!("{}: {peer:?}: {protocol:?}: {}", setup.name, attack.name);
                    let request = arriving(attack, &setups, setup, peer, protocol);
                    let outcome = vm
                        .request(request)
                        .unwrap_or_else(|trap| panic!("{place}: {trap}"));
                    if setup.refuses() && !fools {
                        let status = outcome.local_response.map(|response| response.status);
                        if outcome.continued || status != Some(403) {
                            wrong.push(format!("{place}: answered {status:?}"));
                        }
                        continue;
                    }
                    if !outcome.continued {
                        wrong.push(format!("{place}: it didn't go on"));
                    }
                    let inner = |name: &str| {
                        outcome
                            .values(name)
                            .into_iter()
                            .map(<[u8]>::to_vec)
                            .collect()
                    };
                    let seen = Seen {
                        headers: &outcome.headers,
                        inner: &inner,
                    };
                    if !fools {
                        wrong.extend(
                            faults(&seen, peer)
                                .into_iter()
                                .map(|fault| format!("{place}: {fault}")),
                        );
                    }
                    // An upgrade that Envoy refuses itself would have no timeout.
                    if lines_of(&outcome.headers, "upgrade").is_empty()
                        && attack.method() != "CONNECT"
                    {
                        wrong.extend(
                            overdrawn(&seen)
                                .into_iter()
                                .map(|fault| format!("{place}: {fault}")),
                        );
                    }
                }
            }
        }
    }
    none_is_wrong(&wrong);
}
