//! Which rule and which override apply, whatever they are.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};
use testkit::wasm_host;

use super::{engine, read};
use crate::plain::Plain;

const HOSTS: &[&str] = &[
    "a.example.com",
    "b.example.com",
    "c.b.example.com",
    "example.com",
    "*.example.com",
    "*.b.example.com",
    "*.com",
    "*",
    "localhost",
];
const PATHS: &[&str] = &["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/b/a", "/a.png"];

fn path_match() -> impl Strategy<Value = Value> {
    prop_oneof![
        select(PATHS).prop_map(|path| json!({"exact": path})),
        select(PATHS).prop_map(|path| json!({"prefix": path})),
        select(&[".png", "b", "/c"][..]).prop_map(|end| json!({"suffix": end})),
    ]
}

/// A non-empty selection.
fn some(of: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(of.to_vec(), 1..=3)
}

pub(super) fn route_match() -> impl Strategy<Value = Value> {
    let paths = prop::collection::vec(path_match(), 1..3).prop_map(|mut paths| {
        paths.dedup();
        paths
    });
    let methods = some(&["GET", "POST", "PUT"]);
    let virtual_hosts = some(&["one", "two", "t*"]);
    let services = some(&["shop/checkout", "shop/cart", "web/cart"]);
    let optional = (
        prop::option::of(some(HOSTS)),
        prop::option::of(some(HOSTS)),
        prop::option::of(paths),
        prop::option::of(methods),
        prop::option::of(virtual_hosts),
        prop::option::of(services),
    );
    optional.prop_map(
        |(hosts, not_hosts, paths, methods, virtual_hosts, services)| {
            let mut fields = serde_json::Map::new();
            let mut put = |name: &str, value: Option<Value>| {
                fields.extend(value.map(|value| (name.to_owned(), value)));
            };
            put("hosts", hosts.map(|list| json!(list)));
            put("notHosts", not_hosts.map(|list| json!(list)));
            put("paths", paths.map(|list| json!(list)));
            put("methods", methods.map(|list| json!(list)));
            put("virtualHosts", virtual_hosts.map(|list| json!(list)));
            put("virtualServices", services.map(|list| json!(list)));
            if fields.is_empty() {
                fields.insert("methods".to_owned(), json!(["DELETE"]));
            }
            Value::Object(fields)
        },
    )
}

fn request() -> impl Strategy<Value = Plain> {
    let host = prop_oneof![
        4 => select(HOSTS).prop_map(|host| host.replace('*', "x")),
        1 => "[A-Za-z.:@-]{0,12}",
        1 => Just("A.EXAMPLE.com:8080".to_owned()),
    ];
    let path = prop_oneof![
        4 => select(PATHS).prop_map(str::to_owned),
        2 => "(/[ab]{0,2}){0,4}(\\?x=/a)?",
        1 => "[/a-c.?#]{0,10}",
    ];
    (
        host,
        path,
        select(&["GET", "POST", "PUT", "DELETE"][..]),
        prop::option::of(select(&["one", "two", "three", ""][..])),
        prop::option::of(select(
            &["shop/checkout", "shop/cart", "web/cart", "web/"][..],
        )),
    )
        .prop_map(|(host, path, method, virtual_host, service)| {
            let headers = [
                (":method", method),
                (":scheme", "http"),
                (":authority", &host),
                (":path", &path),
                ("x-forwarded-proto", "http"),
            ];
            let mut request = wasm_host::Request {
                headers: headers
                    .map(|(name, value)| (name.into(), value.into()))
                    .into(),
                properties: BTreeMap::new(),
            };
            if let Some(name) = virtual_host {
                request = request.property("xds.virtual_host_name", name);
            }
            if let Some((namespace, name)) = service.and_then(|service| service.split_once('/')) {
                let config = format!(
                    "/apis/networking.istio.io/v1/namespaces/{namespace}/virtual-service/{name}"
                );
                request =
                    request.property("xds.route_metadata.filter_metadata.istio.config", config);
            }
            Plain(request)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_first_listed_route_that_matches_wins(
        matches in prop::collection::vec(route_match(), 0..40),
        requests in prop::collection::vec(request(), 1..8),
    ) {
        let routes: Vec<Value> = matches
            .iter()
            .enumerate()
            .map(|(index, one)| json!({"name": format!("{index}"), "match": one, "timeout": "1s"}))
            .collect();
        let engine = engine(&json!({"routes": routes}));
        for request in &requests {
            let explanation = engine.explain(request);
            let listed = explanation.overrides.iter().position(Option::is_none);
            prop_assert_eq!(explanation.decision.applied_override, listed, "{:?}", request);
        }
    }
}

/// A block, as text and as what it is.
fn block() -> impl Strategy<Value = IpNet> {
    // Few distinct bits, so that blocks overlap, touch and repeat.
    let v4 = (
        select(
            &[
                0_u32,
                0x0a00_0000,
                0x0a01_0000,
                0x7fff_ffff,
                0x8000_0000,
                0xffff_ffff,
            ][..],
        ),
        0..4_u32,
        1..=32_u8,
    )
        .prop_map(|(base, more, length)| {
            let address = Ipv4Addr::from_bits(base.wrapping_add(more));
            IpNet::from(Ipv4Net::new(address, length).expect("a length").trunc())
        });
    let v6 = (
        select(
            &[
                0_u128,
                0xfd00_u128 << 112,
                0x2001_0db8_u128 << 96,
                u128::MAX,
            ][..],
        ),
        0..4_u128,
        4..=128_u8,
    )
        .prop_map(|(base, more, length)| {
            let address = Ipv6Addr::from_bits(base.wrapping_add(more));
            IpNet::from(Ipv6Net::new(address, length).expect("a length").trunc())
        });
    prop_oneof![3 => v4, 2 => v6]
}

/// Some blocks; the configuration refuses one that is listed twice.
fn blocks(most: usize) -> impl Strategy<Value = Vec<IpNet>> {
    prop::collection::btree_set(block(), 1..=most).prop_map(|nets| nets.into_iter().collect())
}

fn address_near(nets: &[IpNet]) -> impl Strategy<Value = IpAddr> + use<> {
    let edges: Vec<IpAddr> = nets
        .iter()
        .flat_map(|net| match net {
            IpNet::V4(net) => {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                    .map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits)))
            }
            IpNet::V6(net) => {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
                    .map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits)))
            }
        })
        .collect();
    prop_oneof![
        4 => select(edges),
        1 => any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
        1 => any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
    ]
}

/// The configuration in which each list of blocks is a rule's.
fn rules_of_blocks(rules: &[Vec<IpNet>]) -> Value {
    let rules: Vec<Value> = rules
        .iter()
        .enumerate()
        .map(|(index, nets)| {
            json!({
                "name": format!("{index}"),
                "match": {"ipBlocks": nets.iter().map(ToString::to_string).collect::<Vec<_>>()},
                "forwardedProto": {"default": "https"},
                // Arbitrary blocks may be everybody's.
                "insecureTrustAnyone": true,
            })
        })
        .collect();
    json!({"peerAddress": "source", "trustedLoadBalancers": rules})
}

fn from(peer: IpAddr) -> Plain {
    let request = wasm_host::Request::default().header("x-forwarded-proto", "http");
    Plain(request.property("source.address", SocketAddr::new(peer, 4711).to_string()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_address_is_in_a_set_where_it_is_in_one_of_its_blocks(
        (nets, peers) in blocks(40).prop_flat_map(|nets| {
            let peers = prop::collection::vec(address_near(&nets), 1..20);
            (Just(nets), peers)
        }),
    ) {
        let engine = engine(&rules_of_blocks(std::slice::from_ref(&nets)));
        for peer in peers {
            let canonical = peer.to_canonical();
            // Blocks of IPv4-mapped addresses are the IPv4 blocks they equal.
            let inside = nets.iter().any(|net| match net {
                IpNet::V6(v6) if v6.prefix_len() >= 96 && v6.addr().to_ipv4_mapped().is_some() => net.contains(&peer),
                net => net.contains(&canonical),
            });
            prop_assert_eq!(engine.decide(&from(peer)).rule.is_some(), inside, "{} {:?}", peer, nets);
        }
    }

    #[test]
    fn of_rules_that_match_the_first_listed_decides_whatever_the_others_are(
        (rules, peers) in prop::collection::vec(blocks(3), 1..8).prop_flat_map(|rules| {
            let peers = prop::collection::vec(address_near(&rules.concat()), 1..12);
            (Just(rules), peers)
        }),
    ) {
        let together = engine(&rules_of_blocks(&rules));
        let turned: Vec<_> = rules.iter().rev().cloned().collect();
        let turned = engine(&rules_of_blocks(&turned));
        let alone: Vec<_> = rules.iter().map(|rule| engine(&rules_of_blocks(std::slice::from_ref(rule)))).collect();
        for peer in peers {
            let request = from(peer);
            let matching: Vec<usize> =
                (0..alone.len()).filter(|index| alone[*index].decide(&request).rule.is_some()).collect();
            prop_assert_eq!(together.decide(&request).rule, matching.first().copied());
            prop_assert_eq!(turned.decide(&request).rule, matching.last().map(|last| alone.len() - 1 - last));
        }
    }

    #[test]
    fn blocks_and_hosts_are_read_back_as_they_are_printed(
        nets in blocks(8),
        hosts in some(HOSTS),
    ) {
        let document = |nets: &[String], hosts: &[String]| json!({"trustedLoadBalancers": [{
            "name": "lb",
            "match": {"ipBlocks": nets, "hosts": hosts},
            "forwardedProto": {"default": "https"},
            "insecureTrustAnyone": true,
        }]}).to_string();
        let nets: Vec<String> = nets.iter().map(ToString::to_string).collect();
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let once = read(&document(&nets, &hosts));
        let matches = &once.trusted_load_balancers[0].matches;
        let nets: Vec<String> = matches.ip_blocks.iter().map(ToString::to_string).collect();
        let hosts: Vec<String> = matches.request.hosts.iter().map(ToString::to_string).collect();
        prop_assert_eq!(&read(&document(&nets, &hosts)), &once);
    }
}
