//! A real Envoy with a listener for each way to set a gateway up.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::cases::Protocol;
use testkit::envoy::Envoy;
use testkit::gateway::{Listener, bootstrap, merge, typed, usual_virtual_hosts};
use testkit::http;
use testkit::raw::{self, Answer, RawRequest};
use testkit::upstream::Upstream;

use super::table::{Attack, PEER_ADDRESSES, PeerAddress, Setup, Table, Transport, attacks, read};

/// How one listener is reached.
pub(super) struct Way {
    pub(super) setup: usize,
    pub(super) peer: PeerAddress,
    pub(super) name: String,
    pub(super) socket: PathBuf,
}

pub(super) struct World {
    pub(super) setups: Table,
    pub(super) attacks: Vec<Attack>,
    pub(super) ways: Vec<Way>,
    /// Requests so far.
    pub(super) sent: AtomicUsize,
    pub(super) envoy: Envoy,
    pub(super) _upstream: Upstream,
    pub(super) _folder: tempfile::TempDir,
}

impl World {
    /// With the module.
    pub(super) fn start() -> Self {
        Self::of(&PEER_ADDRESSES, |setups, setup, peer| {
            let is_alone = matches!(
                peer,
                PeerAddress::HeaderAlone | PeerAddress::FilterStateAlone
            );
            let is_first = setups
                .setups
                .first()
                .is_some_and(|first| first.name == setup.name);
            if is_alone && !is_first && setup.fools.is_empty() {
                return None;
            }
            let configuration = setups.configuration(setup, peer);
            let listener = Listener::new("").gateway(&setup.gateway(peer));
            Some(listener.plugin(&configuration, &setups.environment))
        })
    }

    /// With these listeners for each set-up.
    pub(super) fn of(
        peers: &[PeerAddress],
        listener: impl Fn(&Table, &Setup, PeerAddress) -> Option<Listener>,
    ) -> Self {
        let setups: Table = read("setups.yaml");
        let attacks = attacks(&setups);
        let upstream = Upstream::start();
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut listeners = Vec::new();
        let mut ways = Vec::new();
        let mut entrances = Vec::new();
        for (index, setup) in setups.setups.iter().enumerate() {
            for &peer in peers {
                let Some(listener) = listener(&setups, setup, peer) else {
                    continue;
                };
                let name = format!("{index}-{peer:?}");
                let socket = folder.path().join(&name);
                let listener = listener.named(&name).virtual_hosts(usual_virtual_hosts());
                listeners.push(match setup.transport {
                    Transport::Tcp => listener,
                    Transport::Unix => listener.at(json!({"address": {"pipe": {"path": socket}}})),
                    Transport::Internal => {
                        entrances.push(name.clone());
                        listener.at(json!({"internal_listener": {}}))
                    }
                    Transport::Mapped => listener.at(json!({"address": {"socket_address": {
                        "address": "::", "port_value": 0, "ipv4_compat": true,
                    }}})),
                });
                ways.push(Way {
                    setup: index,
                    peer,
                    name,
                    socket,
                });
            }
        }
        let mut bootstrap = bootstrap(&listeners, upstream.address());
        for name in entrances {
            add_entrance(&mut bootstrap, &name);
        }
        let envoy = Envoy::start_with_environment(&bootstrap, &setups.environment);
        Self {
            setups,
            attacks,
            ways,
            sent: AtomicUsize::new(0),
            envoy,
            _upstream: upstream,
            _folder: folder,
        }
    }

    pub(super) fn send(
        &self,
        way: &Way,
        from: IpAddr,
        attack: &Attack,
        authority: Option<&str>,
        protocol: Protocol,
    ) -> Answer {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let setup = &self.setups.setups[way.setup];
        let preamble = match setup.claims {
            Some(claimed) => format!("PROXY TCP4 {claimed} 127.0.0.1 4711 80\r\n"),
            None => String::new(),
        };
        let request = attack.raw(authority, preamble.as_bytes());
        let result = match setup.transport {
            Transport::Unix => {
                let stream = UnixStream::connect(&way.socket).expect("the socket can be opened");
                let patience = Some(Duration::from_secs(20));
                stream
                    .set_read_timeout(patience)
                    .expect("a timeout can be set");
                exchange(stream, &request, protocol)
            }
            Transport::Tcp | Transport::Internal | Transport::Mapped => {
                let entrance = match setup.transport {
                    Transport::Internal => format!("{}-entrance", way.name),
                    _ => way.name.clone(),
                };
                let address = SocketAddr::new(
                    Ipv4Addr::LOCALHOST.into(),
                    self.envoy.listener(&entrance).port(),
                );
                let stream = http::connect(address, from).expect("a connection can be opened");
                exchange(stream, &request, protocol)
            }
        };
        result.unwrap_or_else(|error| {
            panic!("{}: {}: {protocol:?}: {error}", setup.name, attack.name)
        })
    }
}

pub(super) fn exchange(
    mut stream: impl Read + Write,
    request: &RawRequest,
    protocol: Protocol,
) -> std::io::Result<Answer> {
    match protocol {
        Protocol::Http1 => raw::http1(&mut stream, request),
        Protocol::Http2 => raw::http2(&mut stream, request),
    }
}

/// A TCP listener whose connections go to an internal listener.
pub(super) fn add_entrance(bootstrap: &mut Value, name: &str) {
    let entrance = format!("{name}-entrance");
    let mut proxy = typed("extensions.filters.network.tcp_proxy.v3.TcpProxy");
    merge(
        &mut proxy,
        json!({"stat_prefix": entrance, "cluster": entrance}),
    );
    let resources = &mut bootstrap["static_resources"];
    resources["listeners"].as_array_mut().expect("listeners").push(json!({
        "name": entrance,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}],
    }));
    resources["clusters"].as_array_mut().expect("clusters").push(json!({
        "name": entrance,
        "load_assignment": {"cluster_name": entrance, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
            "envoy_internal_address": {"server_listener_name": name, "endpoint_id": name},
        }}}]}]},
    }));
    bootstrap["bootstrap_extensions"] = json!([{
        "name": "envoy.bootstrap.internal_listener",
        "typed_config": typed("extensions.bootstrap.internal_listener.v3.InternalListener"),
    }]);
}

/// Everything in every way, when asked for: some 110,000 requests.
pub(super) fn thorough() -> bool {
    std::env::var_os("TRUSTED_LB_ATTACKS").is_some_and(|value| value == "all")
}

impl Way {
    /// Whether an attack is tried here: else where another way differs in nothing that the attack is about. The
    /// in-process host is given all of them in any case.
    pub(super) fn concerns(&self, attack: &Attack) -> bool {
        let shape =
            attack.target.is_some() || attack.authority.is_some() || attack.version.is_some();
        thorough()
            || match self.peer {
                PeerAddress::Auto | PeerAddress::ForwardedFor if attack.general => self.setup == 2,
                PeerAddress::Auto if shape => matches!(self.setup, 0 | 2 | 15),
                PeerAddress::Source => {
                    !attack.general && !shape && matches!(self.setup, 1 | 2 | 4..=6 | 8)
                }
                PeerAddress::HeaderAlone | PeerAddress::FilterStateAlone => {
                    !attack.general && !shape && self.setup == 0
                }
                PeerAddress::NativeChain | PeerAddress::NativeChains => {
                    self.setup == 0 || !attack.general
                }
                PeerAddress::Auto
                | PeerAddress::ForwardedFor
                | PeerAddress::Header
                | PeerAddress::FilterState => !attack.general && !shape,
            }
    }
}

/// Each way through these attacks, several at a time.
pub(super) fn in_all_ways(world: &World, run: impl Fn(&Way) -> Vec<String> + Sync) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut wrong = Vec::new();
        while let Some(way) = world.ways.get(next.fetch_add(1, Ordering::Relaxed)) {
            wrong.extend(run(way));
        }
        wrong
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("no thread panicked"))
            .collect()
    })
}
