//! The built module where its host fails: no call, property, buffer or order of events ends the VM or fills its memory.

use std::sync::OnceLock;

use testkit::artifacts;
use testkit::wasm_host::{Fault, Module, Outcome, Request, Vm};

/// Every status of proxy-wasm's, and numbers that are none.
const STATUSES: &[u32] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, u32::MAX];

const CONFIGURATION: &str = r#"{
    "trustedLoadBalancers": [
        {"name": "by-port", "match": {"ipBlocks": ["10.1.0.0/16"], "ports": [8443]}, "forwardedProto": {"default": "https"}},
        {"name": "by-certificate", "match": {"clientCertificate": {"uriSans": ["spiffe://edge"], "dnsSans": ["edge"],
            "sha256": ["0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]}}, "forwardedProto": {"default": "https"}},
        {"name": "lb", "match": {"ipBlocks": ["10.0.0.0/16"]}, "forwardedProto": {"from": ["x-forwarded-port"], "default": "https"}}
    ],
    "defaults": {"timeout": "15s", "retries": {"attempts": 2, "retryOn": ["reset"]}},
    "routes": [
        {"name": "a", "match": {"virtualHosts": ["v"]}, "timeout": "1s"},
        {"name": "b", "match": {"routes": ["r"]}, "timeout": "2s"},
        {"name": "c", "match": {"virtualServices": ["ns/name"]}, "timeout": "3s"}
    ],
    "reportDecision": true
}"#;

/// The attributes that this configuration asks for.
const ATTRIBUTES: &[&str] = &[
    "source.address",
    "destination.port",
    "request.protocol",
    "connection.tls_version",
    "connection.mtls",
    "connection.uri_san_peer_certificate",
    "connection.dns_san_peer_certificate",
    "connection.sha256_peer_certificate_digest",
    "xds.virtual_host_name",
    "xds.route_name",
    "xds.route_metadata.filter_metadata.istio.config",
];

fn module() -> &'static Module {
    static MODULE: OnceLock<Module> = OnceLock::new();
    MODULE.get_or_init(|| Module::load(artifacts::module()).expect("the built module is valid"))
}

fn request(peer: &str) -> Request {
    Request::default()
        .header(":method", "GET")
        .header(":path", "/")
        .header(":authority", "app.example.com")
        .header(":scheme", "http")
        .header("x-forwarded-proto", "http")
        .header("x-forwarded-for", peer)
        .header("x-forwarded-ssl", "on")
        .property("source.address", format!("{peer}:40000"))
        .property("destination.port", 8080_u64.to_le_bytes())
        .property("request.protocol", "HTTP/1.1")
}

fn started() -> Vm {
    let mut vm = Vm::new(module(), &[]);
    let taken = vm.start(CONFIGURATION.as_bytes()).expect("no trap");
    assert!(taken, "{:?}", vm.take_logs());
    vm
}

fn proto(outcome: &Outcome) -> Vec<&[u8]> {
    outcome.values("x-forwarded-proto")
}

fn serves(vm: &mut Vm) {
    let trusted = vm.request(request("10.0.0.7")).expect("no trap");
    assert_eq!(proto(&trusted), [b"https"]);
    assert_eq!(trusted.values("x-envoy-upstream-rq-timeout-ms"), [b"15000"]);
    let untrusted = vm.request(request("192.0.2.9")).expect("no trap");
    assert_eq!(proto(&untrusted), [b"http"]);
    assert!(untrusted.values("x-forwarded-ssl").is_empty());
}

/// The module's imports that Envoy itself defines.
fn host_calls() -> Vec<&'static str> {
    module()
        .imports()
        .into_iter()
        .filter(|(space, _)| space == "env")
        .map(|(_, name)| &*String::leak(name))
        .collect()
}

#[test]
fn any_host_call_may_answer_any_status_at_any_time() {
    let calls = host_calls();
    assert!(calls.len() >= 9, "{calls:?}");
    for call in calls {
        for status in STATUSES {
            let place = format!("{call} answers {status}");
            let mut vm = Vm::new(module(), &[]);
            vm.set_log_level(0);
            vm.fail(call, Some(Fault::Status(*status)));
            let taken = vm
                .start(CONFIGURATION.as_bytes())
                .unwrap_or_else(|trap| panic!("{place}: {trap}"));
            assert_eq!(taken, call != "proxy_get_buffer_bytes", "{place}");
            for peer in ["10.0.0.7", "192.0.2.9"] {
                let outcome = vm
                    .request(request(peer))
                    .unwrap_or_else(|trap| panic!("{place}: {trap}"));
                assert!(outcome.continued, "{place}");
                assert!(
                    peer == "10.0.0.7" || proto(&outcome) == [b"http"],
                    "{place}"
                );
            }
            vm.tick().unwrap_or_else(|trap| panic!("{place}: {trap}"));
            assert_eq!(
                vm.configure(CONFIGURATION.as_bytes())
                    .unwrap_or_else(|trap| panic!("{place}: {trap}")),
                taken,
                "{place}"
            );
            vm.fail(call, None);
            assert!(
                vm.configure(CONFIGURATION.as_bytes()).expect("no trap"),
                "{place}"
            );
            serves(&mut vm);
        }
    }
}

#[test]
fn each_failing_call_of_a_request_is_counted() {
    for call in [
        "proxy_get_header_map_pairs",
        "proxy_get_property",
        "proxy_replace_header_map_value",
        "proxy_remove_header_map_value",
    ] {
        let mut vm = started();
        vm.fail(call, Some(Fault::Status(10)));
        let failed = |vm: &mut Vm| {
            let outcome = vm.request(request("192.0.2.9")).expect("no trap");
            outcome.calls.iter().filter(|made| **made == call).count()
        };
        let expected = failed(&mut vm) + failed(&mut vm);
        assert!(expected >= 2, "{call}");
        vm.fail(call, None);
        vm.tick().expect("no trap");
        assert_eq!(
            vm.metric("trusted_lb_host_call_error"),
            Some(i64::try_from(expected).expect("it is small")),
            "{call}"
        );
        serves(&mut vm);
    }
}

#[test]
fn counters_that_the_host_does_not_take_are_handed_over_later() {
    for call in ["proxy_define_metric", "proxy_increment_metric"] {
        let mut vm = Vm::new(module(), &[]);
        vm.fail(call, Some(Fault::Status(2)));
        assert!(vm.start(CONFIGURATION.as_bytes()).expect("no trap"));
        for _ in 0..3 {
            vm.request(request("10.0.0.7")).expect("no trap");
            vm.tick().expect("no trap");
        }
        vm.fail(call, None);
        vm.tick().expect("no trap");
        assert_eq!(vm.metric("trusted_lb_trusted"), Some(3), "{call}");
        assert_eq!(
            vm.metric("trusted_lb_configuration_accepted"),
            Some(1),
            "{call}"
        );
    }
}

#[test]
fn properties_of_any_size_and_content_trust_nobody() {
    let mut vm = started();
    let mut contents: Vec<Vec<u8>> = Vec::new();
    for size in [0, 1, 2, 3, 4, 7, 8, 9, 16, 255, 4096, 65536] {
        contents.extend([
            vec![0; size],
            vec![0xff; size],
            vec![b'1'; size],
            vec![b':'; size],
        ]);
    }
    for attribute in ATTRIBUTES {
        for content in &contents {
            let odd = request("192.0.2.9").property(attribute, content);
            let outcome = vm
                .request(odd)
                .unwrap_or_else(|trap| panic!("{attribute}: {trap}"));
            assert!(outcome.continued);
            let tls = *attribute == "connection.tls_version" && !content.is_empty();
            let connection: &[u8] = if tls { b"https" } else { b"http" };
            assert_eq!(
                proto(&outcome),
                [connection],
                "{attribute}: {} bytes",
                content.len()
            );
        }
    }
    // The same answer to every question.
    for content in contents {
        vm.fail("proxy_get_property", Some(Fault::Bytes(content)));
        assert!(vm.request(request("192.0.2.9")).expect("no trap").continued);
    }
    vm.fail("proxy_get_property", None);
    serves(&mut vm);
}

#[test]
fn header_buffers_cut_short_or_garbled_are_read_as_far_as_they_go() {
    let mut whole = 2_u32.to_le_bytes().to_vec();
    for (name, value) in [("x-forwarded-proto", "https"), (":scheme", "https")] {
        for text in [name, value] {
            whole.extend(
                u32::try_from(text.len())
                    .expect("it is small")
                    .to_le_bytes(),
            );
        }
    }
    for text in ["x-forwarded-proto", "https", ":scheme", "https"] {
        whole.extend(text.as_bytes());
        whole.push(0);
    }
    let mut vm = started();
    let mut try_buffer = |buffer: Vec<u8>| {
        vm.fail("proxy_get_header_map_pairs", Some(Fault::Bytes(buffer)));
        let outcome = vm.request(request("192.0.2.9")).expect("no trap");
        assert!(outcome.continued);
        assert_eq!(proto(&outcome), [b"http"]);
    };
    for size in 0..=whole.len() {
        try_buffer(whole[..size].to_vec());
    }
    for place in 0..whole.len() {
        for byte in [0, 1, 0x7f, 0x80, 0xff] {
            let mut garbled = whole.clone();
            garbled[place] = byte;
            try_buffer(garbled);
        }
    }
    vm.fail("proxy_get_header_map_pairs", None);
    serves(&mut vm);
}

#[test]
fn without_a_configuration_requests_pass_unchanged_until_one_comes() {
    for fault in [
        Fault::Status(1),
        Fault::Status(10),
        Fault::Bytes(Vec::new()),
        Fault::Bytes(vec![0xff; 64]),
    ] {
        let mut vm = Vm::new(module(), &[]);
        vm.fail("proxy_get_buffer_bytes", Some(fault));
        assert!(!vm.start(b"{}").expect("no trap"));
        let before = request("10.0.0.7");
        let outcome = vm.request(before.clone()).expect("no trap");
        assert!(outcome.continued);
        assert_eq!(outcome.headers, before.headers);
        vm.tick().expect("no trap");
        assert_eq!(vm.metric("trusted_lb_configuration_refused"), Some(1));
        vm.fail("proxy_get_buffer_bytes", None);
        for empty in [&b""[..], b" ", b"\n\t"] {
            assert!(!vm.configure(empty).expect("no trap"));
        }
        assert!(vm.configure(CONFIGURATION.as_bytes()).expect("no trap"));
        serves(&mut vm);
    }
}

#[test]
fn configurations_may_come_again_and_again_without_memory_growing() {
    let mut vm = started();
    let round = |vm: &mut Vm| {
        for bad in ["{", "{\"trustedLoadBalancers\": 7}", "", "[]"] {
            assert!(!vm.configure(bad.as_bytes()).expect("no trap"));
            serves(vm);
        }
        assert!(vm.configure(CONFIGURATION.as_bytes()).expect("no trap"));
        serves(vm);
        vm.take_logs();
    };
    // The allocator's blocks take some rounds until they fit.
    for _ in 0..25 {
        round(&mut vm);
    }
    let warm = vm.memory_bytes();
    for _ in 0..40 {
        round(&mut vm);
    }
    assert_eq!(vm.memory_bytes(), warm);
    vm.tick().expect("no trap");
    assert_eq!(vm.metric("trusted_lb_configuration_accepted"), Some(66));
    assert_eq!(vm.metric("trusted_lb_configuration_refused"), Some(260));
    assert_eq!(vm.metric("trusted_lb_configuration_generation"), Some(66));
}

#[test]
fn thousands_of_streams_may_be_open_and_end_in_any_order() {
    const STREAMS: usize = 4000;
    let mut vm = started();
    let mut sizes = Vec::new();
    for round in 0..3 {
        let mut open = Vec::new();
        for index in 0..STREAMS {
            let context = vm.open().expect("no trap");
            // Some end before their headers came.
            if index % 7 != 0 {
                let outcome = vm
                    .request_headers(context, request("10.0.0.7"))
                    .expect("no trap");
                assert_eq!(proto(&outcome), [b"https"]);
            }
            open.push(context);
            if index == STREAMS / 2 {
                assert!(vm.configure(CONFIGURATION.as_bytes()).expect("no trap"));
            }
        }
        // Every stream once, in an order that is neither theirs nor its reverse.
        let step = [1, STREAMS - 1, 1237][round];
        for index in 0..STREAMS {
            vm.close(open[index * step % STREAMS]).expect("no trap");
        }
        sizes.push(vm.memory_bytes());
    }
    assert_eq!(sizes[0], sizes[2], "{sizes:?}");
    serves(&mut vm);
}

#[test]
fn memory_does_not_grow_with_requests() {
    let mut vm = started();
    let kinds = |index: usize| {
        let peer = ["10.0.0.7", "192.0.2.9", "10.1.0.1"][index % 3];
        let big = "y".repeat(index % 5 * 2000);
        request(peer)
            .header("x-big", big)
            .header("x_forwarded_proto", "https")
            .header("x-forwarded-port", "junk")
    };
    for index in 0..200 {
        vm.request(kinds(index)).expect("no trap");
    }
    vm.tick().expect("no trap");
    let warm = vm.memory_bytes();
    for index in 0..3000 {
        vm.request(kinds(index)).expect("no trap");
        if index % 100 == 0 {
            vm.tick().expect("no trap");
        }
    }
    vm.tick().expect("no trap");
    assert_eq!(vm.memory_bytes(), warm);
    assert_eq!(vm.metric("trusted_lb_untrusted"), Some(2133));
}
