//! The built module in an in-process proxy-wasm host.

use std::sync::OnceLock;

use testkit::wasm_host::{Fault, Module, Outcome, Request, Vm};
use testkit::{artifacts, cases, hcm};

fn module() -> &'static Module {
    static MODULE: OnceLock<Module> = OnceLock::new();
    MODULE.get_or_init(|| Module::load(artifacts::module()).expect("the built module is valid"))
}

const LB: &str = r#"{"trustedLoadBalancers": [{"name": "lb", "match": {"ipBlocks": ["10.0.0.0/8"]},
    "forwardedProto": {"default": "https"}}]}"#;

fn request(peer: &str) -> Request {
    Request::default()
        .header(":method", "GET")
        .header(":path", "/")
        .header(":authority", "app.example.com")
        .header(":scheme", "http")
        .header("x-forwarded-proto", "http")
        .header("x-forwarded-for", peer)
        .property("source.address", format!("{peer}:40000"))
        .property("request.protocol", "HTTP/1.1")
}

fn started(config: &str) -> Vm {
    let mut vm = Vm::new(module(), &[]);
    assert!(
        vm.start(config.as_bytes()).expect("no trap"),
        "{:?}",
        vm.take_logs()
    );
    vm
}

fn proto(outcome: &Outcome) -> Vec<&[u8]> {
    outcome.values("x-forwarded-proto")
}

#[test]
fn the_module_decides_every_case_as_expected() {
    let mut wrong = Vec::new();
    for (file, groups) in cases::all() {
        for group in groups {
            let environment: Vec<(&str, &str)> = group
                .environment
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            let mut vm = Vm::new(module(), &environment);
            assert!(
                vm.start(group.config.to_string().as_bytes())
                    .expect("no trap"),
                "{:?}",
                vm.take_logs()
            );
            for case in &group.cases {
                let request = hcm::received(&case.request, &group.gateway, &group.environment);
                let outcome = vm
                    .request(request)
                    .unwrap_or_else(|trap| panic!("{file}: {}: {trap}", case.name));
                let answered = outcome.local_response.as_ref().map(|answer| answer.status);
                assert_eq!(
                    answered,
                    case.expect.refused.map(u32::from),
                    "{}",
                    case.name
                );
                assert_eq!(outcome.continued, answered.is_none(), "{}", case.name);
                for difference in case.expect.differences(|name| {
                    outcome
                        .values(name)
                        .into_iter()
                        .map(<[u8]>::to_vec)
                        .collect()
                }) {
                    wrong.push(format!(
                        "{file}: {}: {}: {difference}",
                        group.name, case.name
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_module_is_small_and_exports_only_what_envoy_needs() {
    let bytes = std::fs::metadata(artifacts::module())
        .expect("the module is there")
        .len();
    assert!(bytes <= 320_000, "the module has {bytes} bytes");
    let mut exports = module().exports();
    exports.sort();
    assert_eq!(
        exports,
        [
            "_initialize",
            "memory",
            "proxy_abi_version_0_2_1",
            "proxy_on_configure",
            "proxy_on_context_create",
            "proxy_on_delete",
            "proxy_on_memory_allocate",
            "proxy_on_request_headers",
            "proxy_on_tick",
            "proxy_on_vm_start",
        ]
    );
    for (space, name) in module().imports() {
        assert!(
            matches!(space.as_str(), "env" | "wasi_snapshot_preview1"),
            "{space}.{name}"
        );
    }
}

#[test]
fn the_module_names_no_path_of_the_machine_that_built_it() {
    let bytes = std::fs::read(artifacts::module()).expect("the module can be read");
    let text = String::from_utf8_lossy(&bytes);
    let root = artifacts::repository();
    assert!(!text.contains(root.to_str().expect("the repository's path is text")));
    if let Some(home) = std::env::var_os("HOME").and_then(|home| home.into_string().ok()) {
        assert!(
            home.len() < 2 || !text.contains(&format!("{home}/")),
            "the module names {home}"
        );
    }
}

#[test]
fn a_byte_that_is_not_text_passes_in_any_header() {
    let mut vm = started(LB);
    for name in [
        ":path",
        ":authority",
        "x-forwarded-for",
        "x-forwarded-proto",
        "forwarded",
        "x-any",
        "cookie",
    ] {
        let mut odd = request("10.0.0.7");
        odd.headers.retain(|(line, _)| line != name.as_bytes());
        let odd = odd.header(name, b"\xff\xfe\x80");
        let outcome = vm.request(odd).expect("no trap");
        assert!(outcome.continued, "{name}");
    }
    let outcome = vm.request(request("10.0.0.7")).expect("no trap");
    assert_eq!(proto(&outcome), [b"https"]);
}

#[test]
fn a_bad_configuration_is_refused_with_every_fault_in_the_log() {
    let mut vm = Vm::new(module(), &[]);
    let bad = br#"{"trustedLoadBalancers": [{"name": "lb", "match": {"ipBlocks": ["10.0.0.1/8", "nonsense"]},
        "forwardedProto": {"default": "tls"}}], "defaults": {"timeout": 15, "retries": {"retry_on": []}}, "route": []}"#;
    assert!(!vm.start(bad).expect("no trap"));
    let logs: Vec<String> = vm.take_logs().into_iter().map(|(_, line)| line).collect();
    for part in [
        "6 errors",
        "trustedLoadBalancers[0].match.ipBlocks[0]: \"10.0.0.1/8\" has host bits set (did you mean 10.0.0.0/8?",
        "trustedLoadBalancers[0].match.ipBlocks[1]: \"nonsense\" is not an address",
        "trustedLoadBalancers[0].forwardedProto.default: \"tls\" is not understood",
        "defaults.timeout: 15 has no unit (write 15s for seconds",
        "defaults.retries.retry_on: there is no such field (did you mean retryOn?)",
        "route: there is no such field (did you mean routes?)",
    ] {
        assert!(
            logs.iter().any(|line| line.contains(part)),
            "{part}\n{logs:#?}"
        );
    }
}

#[test]
fn after_a_refused_configuration_the_one_before_goes_on() {
    let mut vm = started(LB);
    assert!(!vm.configure(b"{").expect("no trap"));
    assert_eq!(
        proto(&vm.request(request("10.0.0.7")).expect("no trap")),
        [b"https"]
    );
    assert!(
        vm.configure(br#"{"mode": "shadow", "defaults": {"timeout": "1s"}}"#)
            .expect("no trap")
    );
    assert_eq!(
        proto(&vm.request(request("10.0.0.7")).expect("no trap")),
        [b"http"]
    );
}

#[test]
fn in_shadow_mode_the_token_does_not_reach_the_upstream_and_nothing_else_changes() {
    let config = br#"{"mode": "shadow", "peerAddress": "header:x-lb-peer", "helperToken": {"fromEnv": "TOKEN"},
        "trustedLoadBalancers": [{"name": "lb", "match": {"ipBlocks": ["10.0.0.7"]}, "forwardedProto": {"default": "https"}}],
        "defaults": {"timeout": "1s"}}"#;
    let mut vm = Vm::new(module(), &[("TOKEN", "hush-hush-hush")]);
    assert!(vm.start(config).expect("no trap"));
    let before = request("10.0.0.7").header("x-forwarded-ssl", "on");
    let sent = before
        .clone()
        .header("x-lb-peer", "hush-hush-hush 10.0.0.7");
    let outcome = vm.request(sent).expect("no trap");
    assert_eq!(outcome.headers, before.headers);
}

#[test]
fn a_missing_secret_refuses_the_configuration_and_is_never_logged() {
    let config = br#"{"trustedLoadBalancers": [{"name": "lb",
        "match": {"headers": [{"name": "x-origin-verify", "fromEnv": "SECRET"}]}, "forwardedProto": {"default": "https"}}]}"#;
    let mut vm = Vm::new(module(), &[]);
    assert!(!vm.start(config).expect("no trap"));
    let logs = format!("{:?}", vm.take_logs());
    assert!(
        logs.contains("the environment variable SECRET is not set"),
        "{logs}"
    );
    let mut vm = Vm::new(module(), &[("SECRET", "hush-hush-hush")]);
    vm.set_log_level(0);
    assert!(vm.start(config).expect("no trap"));
    let outcome = vm
        .request(request("10.0.0.7").header("x-origin-verify", "hush-hush-hush"))
        .expect("no trap");
    assert_eq!(proto(&outcome), [b"https"]);
    assert!(!format!("{:?}", vm.take_logs()).contains("hush"));
}

#[test]
fn what_was_counted_reaches_the_host_on_the_next_tick() {
    let mut vm = started(LB);
    for peer in ["10.0.0.7", "192.0.2.9", "192.0.2.9"] {
        vm.request(request(peer)).expect("no trap");
    }
    assert_eq!(vm.metric("trusted_lb_untrusted"), Some(0));
    let calls = vm.tick().expect("no trap");
    assert_eq!(vm.metric("trusted_lb_trusted"), Some(1));
    assert_eq!(vm.metric("trusted_lb_trusted_rule_0"), Some(1));
    assert_eq!(vm.metric("trusted_lb_untrusted"), Some(2));
    assert_eq!(vm.metric("trusted_lb_configuration_accepted"), Some(1));
    assert_eq!(vm.metric("trusted_lb_configuration_generation"), Some(1));
    // trusted, its rule, untrusted, x-forwarded-proto and :scheme rewritten; then the log's level.
    let increments = ["proxy_increment_metric"; 5];
    assert_eq!(calls, [&increments[..], &["proxy_get_log_level"]].concat());
}

#[test]
fn a_tick_with_nothing_to_tell_makes_no_host_call() {
    let mut vm = started(LB);
    assert_eq!(vm.tick().expect("no trap"), [""; 0]);
    vm.request(request("10.0.0.7")).expect("no trap");
    vm.tick().expect("no trap");
    assert_eq!(vm.tick().expect("no trap"), [""; 0]);
}

#[test]
fn what_the_host_does_not_take_is_counted_later() {
    let mut vm = started(LB);
    vm.request(request("10.0.0.7")).expect("no trap");
    vm.fail("proxy_increment_metric", Some(Fault::Status(10)));
    vm.tick().expect("no trap");
    assert_eq!(vm.metric("trusted_lb_trusted"), Some(0));
    vm.fail("proxy_increment_metric", None);
    vm.request(request("10.0.0.7")).expect("no trap");
    vm.tick().expect("no trap");
    assert_eq!(vm.metric("trusted_lb_trusted"), Some(2));
}

#[test]
fn what_was_counted_is_not_lost_where_the_configuration_is_replaced() {
    let mut vm = started(LB);
    vm.request(request("10.0.0.7")).expect("no trap");
    vm.end().expect("no trap");
    assert_eq!(vm.metric("trusted_lb_trusted"), Some(1));
}

#[test]
fn the_generation_rises_with_each_accepted_configuration_only() {
    let mut vm = started(LB);
    assert!(!vm.configure(b"{").expect("no trap"));
    assert_eq!(vm.metric("trusted_lb_configuration_generation"), Some(1));
    assert_eq!(vm.metric("trusted_lb_configuration_refused"), Some(1));
    assert!(
        vm.configure(br#"{"defaults": {"timeout": "1s"}}"#)
            .expect("no trap")
    );
    assert_eq!(vm.metric("trusted_lb_configuration_generation"), Some(2));
    assert_eq!(vm.metric("trusted_lb_configuration_accepted"), Some(2));
}

#[test]
fn the_rules_beyond_the_thirty_second_have_no_counter_of_their_own() {
    let rules: Vec<String> = (0..40)
        .map(|rule| {
            format!(
                r#"{{"name": "lb-{rule}", "match": {{"ipBlocks": ["10.0.{rule}.0/24"]}}, "forwardedProto": {{"default": "https"}}}}"#
            )
        })
        .collect();
    let mut vm = started(&format!(
        r#"{{"trustedLoadBalancers": [{}]}}"#,
        rules.join(",")
    ));
    for peer in ["10.0.0.7", "10.0.31.7", "10.0.32.7", "10.0.39.7"] {
        vm.request(request(peer)).expect("no trap");
    }
    vm.tick().expect("no trap");
    assert_eq!(vm.metric("trusted_lb_trusted"), Some(4));
    assert_eq!(vm.metric("trusted_lb_trusted_rule_0"), Some(1));
    assert_eq!(vm.metric("trusted_lb_trusted_rule_31"), Some(1));
    assert_eq!(vm.metric("trusted_lb_trusted_rule_32"), None);
}

#[test]
fn a_failing_host_call_is_counted_each_time_and_logged_once() {
    let mut vm = started(LB);
    vm.fail("proxy_get_header_map_pairs", Some(Fault::Status(10)));
    for _ in 0..3 {
        vm.request(request("10.0.0.7")).expect("no trap");
    }
    vm.fail("proxy_get_header_map_pairs", None);
    vm.fail("proxy_replace_header_map_value", Some(Fault::Status(2)));
    for _ in 0..2 {
        vm.request(request("10.0.0.7")).expect("no trap");
    }
    vm.tick().expect("no trap");
    // In each of the latter two :scheme and x-forwarded-proto couldn't be written; the former three found no header at
    // all, and x-forwarded-proto was written nevertheless.
    assert_eq!(vm.metric("trusted_lb_host_call_error"), Some(3 + 2 * 2));
    let errors: Vec<String> = vm
        .take_logs()
        .into_iter()
        .filter(|(level, _)| *level == 4)
        .map(|(_, line)| line)
        .collect();
    assert_eq!(errors.len(), 2, "{errors:#?}");
    assert!(
        errors[0].contains("reading the request headers failed: Envoy answered InternalFailure (logged at most every 10 min, see counter trusted_lb_host_call_error)"),
        "{errors:#?}"
    );
    assert!(
        errors[1].contains("writing a request header failed: Envoy answered BadArgument (logged at most every 10 min"),
        "{errors:#?}"
    );
}

#[test]
fn decisions_are_reported_only_where_that_is_asked_for() {
    let mut silent = started(LB);
    let outcome = silent.request(request("10.0.0.7")).expect("no trap");
    assert!(outcome.filter_state.is_empty());
    assert!(!outcome.calls.contains(&"proxy_set_property"));

    let mut vm = started(&LB.replacen('{', r#"{"reportDecision": true, "#, 1));
    let outcome = vm.request(request("10.0.0.7")).expect("no trap");
    let reported = |entries: &[(&str, &str)]| {
        entries
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    assert_eq!(
        outcome.filter_state,
        reported(&[
            ("trusted_lb_rule", "lb"),
            ("trusted_lb_scheme", "https"),
            ("trusted_lb_reason", "default"),
        ])
    );
    let outcome = vm.request(request("192.0.2.9")).expect("no trap");
    assert_eq!(
        outcome.filter_state,
        reported(&[
            ("trusted_lb_scheme", "http"),
            ("trusted_lb_reason", "connection"),
        ])
    );
}

#[test]
fn a_peer_that_cannot_be_determined_is_counted_each_time_and_logged_once_in_ten_minutes() {
    let mut vm = started(LB);
    let warnings = |vm: &mut Vm| {
        let logs = vm.take_logs().into_iter();
        logs.filter(|(level, _)| *level == 3)
            .map(|(_, line)| line)
            .collect::<Vec<_>>()
    };
    let hidden = |vm: &mut Vm| {
        let hidden = request("10.0.0.7").property("source.address", "10.0.0.7:0");
        assert_eq!(proto(&vm.request(hidden).expect("no trap")), [b"http"]);
    };
    for _ in 0..3 {
        hidden(&mut vm);
    }
    for _ in 0..599 {
        vm.tick().expect("no trap");
    }
    hidden(&mut vm);
    let first = warnings(&mut vm);
    assert_eq!(first.len(), 1, "{first:?}");
    assert!(first[0].contains("peerAddress: forwardedFor"), "{first:?}");
    vm.tick().expect("no trap");
    hidden(&mut vm);
    let second = warnings(&mut vm);
    assert_eq!(second.len(), 1, "{second:?}");
    assert!(
        second[0].contains(
            "(3 suppressed; logged at most every 10 min, see counter trusted_lb_peer_ambiguous)"
        ),
        "{second:?}"
    );
    vm.tick().expect("no trap");
    assert_eq!(vm.metric("trusted_lb_peer_ambiguous"), Some(5));
}

/// Everything that has a secret in it, or that one is compared with.
const SECRETIVE: &str = r#"{"peerAddress": "header:x-lb-peer", "helperToken": {"fromEnv": "TOKEN"},
    "trustedLoadBalancers": [
        {"name": "cdn", "match": {"headers": [{"name": "x-origin-verify", "fromEnv": ["SECRET", "NEXT"]}]},
         "forwardedProto": {"default": "https"}},
        {"name": "lb", "match": {"ipBlocks": ["10.0.0.0/8"]},
         "forwardedProto": {"from": ["header:x-lb-proto"], "default": "https"}}],
    "reportDecision": true}"#;

#[test]
fn no_secret_and_no_guess_at_one_is_logged_or_reported() {
    let secrets = ["hush-1-hush", "hush-2-hush", "hush-3-hush"];
    let mut vm = Vm::new(
        module(),
        &[
            ("TOKEN", secrets[0]),
            ("SECRET", secrets[1]),
            ("NEXT", secrets[2]),
        ],
    );
    vm.set_log_level(0);
    assert!(vm.start(SECRETIVE.as_bytes()).expect("no trap"));
    let helper = |token: &str| {
        request("10.0.0.7")
            .header("x-lb-peer", format!("{token} 10.0.0.7"))
            .header("x-lb-proto", format!("{token} https"))
    };
    let verified = |secret: &str| request("10.0.0.7").header("x-origin-verify", secret);
    let mut reported = Vec::new();
    for request in [
        helper(secrets[0]),
        helper("hush-0-hush"),
        helper(secrets[0]).header("x-lb-peer", format!("{} 10.0.0.8", secrets[0])),
        helper(secrets[0]).header("x_lb_peer", format!("{} 10.0.0.8", secrets[0])),
        verified(secrets[1]),
        verified(secrets[2]),
        verified("hush-0-hush"),
        verified(secrets[1]).header("x-origin-verify", secrets[2]),
    ] {
        let outcome = vm.request(request.clone()).expect("no trap");
        reported.push(outcome.filter_state);
        vm.fail("proxy_remove_header_map_value", Some(Fault::Status(10)));
        vm.request(request).expect("no trap");
        vm.fail("proxy_remove_header_map_value", None);
    }
    let reported = format!("{reported:?}");
    assert!(reported.contains("cdn") && reported.contains("lb"));
    let logs = format!("{:?}", vm.take_logs());
    assert!(logs.contains("trusted: cdn"), "{logs}");
    assert!(logs.contains("trusted: lb"), "{logs}");
    assert!(!logs.contains("hush"), "{logs}");
    assert!(!reported.contains("hush"), "{reported}");
}

#[test]
fn requests_leave_lines_at_debug_only_and_the_level_is_followed() {
    let mut vm = started(LB);
    let start = vm.take_logs();
    assert_eq!(start.len(), 1, "{start:?}");
    assert!(
        start[0]
            .1
            .contains("mode enforce, peerAddress auto, trusted load balancers [lb]"),
        "{start:?}"
    );
    for _ in 0..20 {
        vm.request(request("10.0.0.7")).expect("no trap");
    }
    assert_eq!(vm.take_logs(), []);
    vm.set_log_level(1);
    vm.tick().expect("no trap");
    vm.request(request("10.0.0.7")).expect("no trap");
    let details: Vec<String> = vm.take_logs().into_iter().map(|(_, line)| line).collect();
    assert_eq!(
        details,
        [
            "trusted-lb: trusted: lb, because that is the rule's default; route: the defaults",
            "trusted-lb:   set x-forwarded-proto: https",
            "trusted-lb:   set :scheme: https",
        ]
    );
}
