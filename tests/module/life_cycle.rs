//! The orders in which Envoy creates, configures, uses and deletes plugins and streams.

use std::sync::OnceLock;

use testkit::artifacts;
use testkit::wasm_host::{Module, Request, Vm};

fn module() -> &'static Module {
    static MODULE: OnceLock<Module> = OnceLock::new();
    MODULE.get_or_init(|| Module::load(artifacts::module()).expect("the built module is valid"))
}

/// Gives every request this timeout in seconds.
fn configuration(timeout: u32) -> Vec<u8> {
    format!(r#"{{"defaults": {{"timeout": "{timeout}s"}}}}"#).into_bytes()
}

fn started(timeout: u32) -> Vm {
    let mut vm = Vm::new(module(), &[]);
    assert!(vm.start(&configuration(timeout)).expect("no trap"));
    vm
}

/// The timeout in milliseconds that a stream gets, as text.
fn decided(vm: &mut Vm, stream: i32) -> String {
    let request = Request::default()
        .header(":method", "GET")
        .header(":path", "/")
        .header(":authority", "app.example.com");
    let outcome = vm.request_headers(stream, request).expect("no trap");
    assert!(outcome.continued);
    outcome
        .values("x-envoy-upstream-rq-timeout-ms")
        .into_iter()
        .map(|value| String::from_utf8_lossy(value).into_owned())
        .collect::<Vec<_>>()
        .join(",")
}

#[test]
fn a_stream_is_decided_by_the_configuration_that_it_began_with() {
    let mut vm = started(1);
    let before = vm.open().expect("no trap");
    assert!(vm.configure(&configuration(2)).expect("no trap"));
    let after = vm.open().expect("no trap");
    assert_eq!(decided(&mut vm, after), "2000");
    assert_eq!(decided(&mut vm, before), "1000");
}

#[test]
fn plugins_that_share_a_vm_decide_their_own_streams_in_any_order() {
    let mut vm = started(1);
    let (second, accepted) = vm.add_plugin(&configuration(2)).expect("no trap");
    assert!(accepted);
    let (unconfigured, accepted) = vm.add_plugin(b"{").expect("no trap");
    assert!(!accepted);
    let streams: Vec<(i32, &str)> = (0..30)
        .map(|index| match index % 3 {
            0 => (vm.open().expect("no trap"), "1000"),
            1 => (vm.open_under(second).expect("no trap"), "2000"),
            _ => (vm.open_under(unconfigured).expect("no trap"), ""),
        })
        .collect();
    for index in 0..streams.len() {
        let (stream, expected) = streams[index * 7 % streams.len()];
        assert_eq!(decided(&mut vm, stream), expected, "{index}");
    }
    for (stream, _) in streams {
        vm.close(stream).expect("no trap");
    }
}

#[test]
fn streams_may_end_before_their_headers_and_after_their_plugin() {
    let mut vm = started(1);
    let (second, _) = vm.add_plugin(&configuration(2)).expect("no trap");
    let early = vm.open_under(second).expect("no trap");
    vm.close(early).expect("no trap");
    let late = vm.open_under(second).expect("no trap");
    vm.close_plugin(second).expect("no trap");
    assert_eq!(decided(&mut vm, late), "2000");
    vm.close(late).expect("no trap");
    let other = vm.open().expect("no trap");
    assert_eq!(decided(&mut vm, other), "1000");
}

#[test]
fn a_stream_that_stays_open_does_not_keep_a_configuration_that_was_replaced() {
    // Each has some 100 KB of blocks. If sixteen of them were kept, memory would grow.
    let large = |timeout: u32| {
        let blocks: Vec<String> = (0..2000)
            .map(|block| format!(r#""10.{}.{}.0/24""#, block / 250, block % 250))
            .collect();
        format!(
            r#"{{"defaults": {{"timeout": "{timeout}s"}}, "trustedLoadBalancers": [{{"name": "lb",
                "match": {{"ipBlocks": [{}]}}, "forwardedProto": {{"default": "https"}}}}]}}"#,
            blocks.join(",")
        )
        .into_bytes()
    };
    let mut vm = started(1);
    let mut open = Vec::new();
    let mut round = |vm: &mut Vm, timeout: u32| {
        assert!(vm.configure(&large(timeout)).expect("no trap"));
        let stream = vm.open().expect("no trap");
        assert_eq!(decided(vm, stream), format!("{timeout}000"));
        open.push(stream);
    };
    for timeout in 1..4 {
        round(&mut vm, timeout);
    }
    let warm = vm.memory_bytes();
    for timeout in 4..20 {
        round(&mut vm, timeout);
    }
    assert_eq!(vm.memory_bytes(), warm);
}
