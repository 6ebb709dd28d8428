//! What an operator sees of the filter in a real Envoy: counters, log lines, decisions in the access log.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::artifacts;
use testkit::cases::{ClientRequest, Gateway};
use testkit::discovery::{self, Discovery};
use testkit::envoy::Envoy;
use testkit::gateway::{Listener, bootstrap, merge, plugin, typed};
use testkit::http::{self, Response};
use testkit::upstream::Upstream;

const LB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const OTHER_LB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

fn get(peer: IpAddr, path: &str) -> ClientRequest {
    ClientRequest::get(peer, "app.example.com", path)
}

fn send(envoy: &Envoy, listener: &str, request: &ClientRequest) -> Response {
    http::send(envoy.listener(listener), request).expect("the gateway answers")
}

/// Waits until something holds, on a machine that may be busy.
fn wait_for<T>(what: &str, mut found: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match found() {
            Ok(found) => return found,
            Err(instead) => assert!(Instant::now() < deadline, "no {what}; instead:\n{instead}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The counters once they say that so many requests were decided.
fn counted(envoy: &Envoy, requests: u64) -> BTreeMap<String, u64> {
    wait_for("such number of requests", || {
        let all = envoy.prometheus("trusted_lb_");
        let of = |name| all.get(name).copied().unwrap_or_default();
        if of("trusted_lb_trusted") + of("trusted_lb_untrusted") == requests {
            Ok(all)
        } else {
            Err(format!("{all:#?}"))
        }
    })
}

/// A field that docs/operations.md gives to Envoy.
fn documented(field: &str) -> Value {
    let text = std::fs::read_to_string(artifacts::repository().join("docs/operations.md"))
        .expect("docs/operations.md can be read");
    let (_, rest) = text
        .split_once(&format!("```yaml\n{field}:\n"))
        .unwrap_or_else(|| panic!("no block for {field}"));
    let (yaml, _) = rest.split_once("```").expect("the block ends");
    serde_saphyr::from_str(yaml).expect("it is YAML")
}

fn two_load_balancers() -> Value {
    json!({
        "trustedLoadBalancers": [
            {"name": "lb", "match": {"ipBlocks": ["127.0.0.2"]}, "forwardedProto": {"default": "https"}},
            {"name": "other", "match": {"ipBlocks": ["127.0.0.3"]},
             "forwardedProto": {"from": ["x-forwarded-port"], "default": "https"}},
        ],
        "defaults": {"timeout": "15s", "retries": {"attempts": 2, "retryOn": ["connect-failure"]}, "requestHeaders": "cap"},
        "routes": [{"name": "left-alone", "match": {"paths": [{"prefix": "/left-alone"}]}, "timeout": "inherit", "retries": "inherit"}],
    })
}

#[test]
fn every_counter_shows_its_exact_value_to_prometheus() {
    let upstream = Upstream::start();
    let config = two_load_balancers();
    let plain = Listener::new("gateway").plugin(&config, &BTreeMap::new());
    let asking_for_more = Listener::new("asking-for-more")
        .plugin(&config, &BTreeMap::new())
        .gateway(&Gateway {
            earlier_filter: vec![("x-envoy-max-retries".to_owned(), "9".to_owned())],
            ..Gateway::default()
        });
    let hidden = Listener::new("hidden")
        .plugin(&config, &BTreeMap::new())
        .gateway(&Gateway {
            use_remote_address: false,
            ..Gateway::default()
        });
    let mut bootstrap = bootstrap(&[plain, asking_for_more, hidden], upstream.address());
    bootstrap["stats_config"] = documented("stats_config");
    let envoy = Envoy::start(&bootstrap);
    for _ in 0..3 {
        send(&envoy, "gateway", &get(LB, "/"));
    }
    let port = |value| get(OTHER_LB, "/").with(&[("x-forwarded-port", value)]);
    send(&envoy, "gateway", &port("80"));
    send(&envoy, "gateway", &port("http"));
    send(&envoy, "gateway", &get(ELSEWHERE, "/left-alone"));
    send(
        &envoy,
        "gateway",
        &get(ELSEWHERE, "/left-alone").with(&[("x-forwarded-ssl", "on")]),
    );
    send(&envoy, "asking-for-more", &get(LB, "/"));
    send(
        &envoy,
        "hidden",
        &get(ELSEWHERE, "/left-alone").with(&[("x-forwarded-for", "127.0.0.2")]),
    );
    let expected = [
        ("capped", 1),
        // The canary that Envoy tries it in, the main thread and one worker.
        ("configuration_accepted", 3),
        ("configuration_generation", 1),
        ("configuration_refused", 0),
        ("forged_claim", 1),
        ("forwarded_proto_rewritten", 5),
        ("host_call_error", 0),
        ("peer_ambiguous", 1),
        ("refused", 0),
        ("retries", 6),
        ("scheme_rewritten", 5),
        ("shadow", 0),
        ("shadow_disagreement", 0),
        ("signal_unusable", 1),
        ("timeout", 6),
        ("trusted", 6),
        ("trusted_rule{rule=\"0\"}", 4),
        ("trusted_rule{rule=\"1\"}", 2),
        ("untrusted", 3),
    ];
    let expected: BTreeMap<String, u64> = expected
        .into_iter()
        .map(|(name, value)| (format!("trusted_lb_{name}"), value))
        .collect();
    assert_eq!(counted(&envoy, 9), expected);
}

#[test]
fn counters_go_on_through_new_configurations_and_new_versions_of_the_module() {
    let upstream = Upstream::start();
    let updates = Discovery::new();
    let hand_over = |config: &Value, vm: &str| {
        let mut filter = plugin(config, &BTreeMap::new());
        filter["typed_config"]["config"]["vm_config"]["vm_id"] = vm.into();
        updates.hand_over("plugin", &[discovery::extension(&filter)]);
    };
    let waiting = |seconds: u32| json!({"untrusted": {"forwardedProto": "connection"}, "defaults": {"timeout": format!("{seconds}s")}});
    hand_over(&waiting(1), "first");
    let listener = Listener::new("gateway").filter(discovery::discovered(
        "trusted-lb",
        updates.source("plugin"),
    ));
    let mut bootstrap = bootstrap(&[listener], upstream.address());
    discovery::identify(&mut bootstrap);
    let envoy = Envoy::start(&bootstrap);
    let mut requests = 0;
    // Sends requests until the configuration in force shows, so that some are counted right before each change.
    let mut until = |timeout_ms: &str, accepted: u64, generation: u64| {
        wait_for("such a configuration", || {
            let response = send(&envoy, "gateway", &get(ELSEWHERE, "/"));
            requests += 1;
            let seen = response.received_one("x-seen-x-envoy-upstream-rq-timeout-ms");
            let counters = envoy.prometheus("trusted_lb_configuration_");
            let is =
                |name: &str, value| counters[&format!("trusted_lb_configuration_{name}")] == value;
            if seen.as_deref() == Some(timeout_ms)
                && is("accepted", accepted)
                && is("generation", generation)
            {
                Ok(())
            } else {
                Err(format!("{seen:?} {counters:?}"))
            }
        });
    };
    until("1000", 3, 1);
    hand_over(&waiting(2), "first");
    until("2000", 6, 2);
    hand_over(&json!({"defaults": {"timeout": "3"}}), "first");
    wait_for("a refusal", || {
        let refused = envoy.stat("wasmcustom.trusted_lb_configuration_refused");
        if refused == 1 {
            Ok(())
        } else {
            Err(refused.to_string())
        }
    });
    until("2000", 6, 2);
    hand_over(&waiting(2), "second");
    until("2000", 9, 1);
    hand_over(&waiting(4), "second");
    until("4000", 12, 2);
    assert_eq!(counted(&envoy, requests)["trusted_lb_untrusted"], requests);
}

/// The usual Lua filter: https for everybody.
const LUA: &str = r#"
function envoy_on_request(handle)
  handle:headers():replace("x-forwarded-proto", "https")
end
"#;

#[test]
fn shadow_mode_behind_the_lua_filter_counts_where_the_two_disagree_and_changes_nothing() {
    let upstream = Upstream::start();
    let mut config = two_load_balancers();
    config["mode"] = "shadow".into();
    let mut lua = typed("extensions.filters.http.lua.v3.Lua");
    merge(
        &mut lua,
        json!({"default_source_code": {"inline_string": LUA}}),
    );
    let listener = Listener::new("gateway")
        .filter(json!({"name": "lua", "typed_config": lua}))
        .plugin(&config, &BTreeMap::new());
    let envoy = Envoy::start(&bootstrap(&[listener], upstream.address()));
    for (peer, headers) in [
        (LB, &[][..]),
        (LB, &[]),
        (OTHER_LB, &[("x-forwarded-port", "443")]),
        (OTHER_LB, &[("x-forwarded-port", "80")]),
        (ELSEWHERE, &[]),
        (ELSEWHERE, &[]),
    ] {
        let response = send(&envoy, "gateway", &get(peer, "/").with(headers));
        assert_eq!(
            response.received_one("x-forwarded-proto").as_deref(),
            Some("https")
        );
    }
    let counters = counted(&envoy, 6);
    for (name, value) in [
        ("shadow", 6),
        // The other load balancer's client on plain HTTP, and the two that anybody sent.
        ("shadow_disagreement", 3),
        ("forwarded_proto_rewritten", 3),
        ("forged_claim", 2),
        ("trusted_rule_0", 2),
        ("trusted_rule_1", 2),
        ("timeout", 6),
    ] {
        assert_eq!(
            counters[&format!("trusted_lb_{name}")],
            value,
            "{name}: {counters:#?}"
        );
    }
}

#[test]
fn an_access_log_prints_what_was_decided_and_why() {
    let upstream = Upstream::start();
    let mut config = two_load_balancers();
    config["reportDecision"] = true.into();
    let listener = |name| {
        Listener::new(name)
            .plugin(&config, &BTreeMap::new())
            .setting("access_log", documented("access_log"))
    };
    let hidden = listener("hidden").gateway(&Gateway {
        use_remote_address: false,
        ..Gateway::default()
    });
    let envoy = Envoy::start(&bootstrap(
        &[listener("gateway"), hidden],
        upstream.address(),
    ));
    let port = |value| get(OTHER_LB, "/").with(&[("x-forwarded-port", value)]);
    send(&envoy, "gateway", &get(LB, "/left-alone"));
    send(&envoy, "gateway", &port("80"));
    send(&envoy, "gateway", &port("http"));
    send(&envoy, "gateway", &get(ELSEWHERE, "/"));
    send(
        &envoy,
        "hidden",
        &get(ELSEWHERE, "/").with(&[("x-forwarded-for", "127.0.0.2")]),
    );
    let expected = [
        ("lb", "left-alone", "https", "default"),
        ("other", "-", "http", "signal:x-forwarded-port"),
        ("other", "-", "https", "default,unusable:x-forwarded-port"),
        ("-", "-", "http", "connection"),
        ("-", "-", "http", "connection,peer:from-header"),
    ];
    let shown = |field: &Value| field.as_str().unwrap_or("-").to_owned();
    let lines = wait_for("five lines of the access log", || {
        let log = envoy.log();
        let lines: Vec<Value> = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        if lines.len() == expected.len() {
            Ok(lines)
        } else {
            Err(log)
        }
    });
    let printed: Vec<_> = lines
        .iter()
        .map(|line| {
            ["rule", "route", "scheme", "reason"]
                .map(|field| shown(&line[format!("trusted_lb_{field}")]))
        })
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(rule, route, scheme, reason)| {
            [rule, route, scheme, reason].map(|text| (*text).to_owned())
        })
        .collect();
    assert_eq!(printed, expected);
}

#[test]
fn the_start_up_line_tells_version_commit_and_configuration() {
    let upstream = Upstream::start();
    let listener = Listener::new("gateway").plugin(&two_load_balancers(), &BTreeMap::new());
    let envoy = Envoy::start(&bootstrap(&[listener], upstream.address()));
    let log = envoy.log();
    let lines: Vec<&str> = log
        .lines()
        .filter_map(|line| line.split("trusted-lb: ").nth(1))
        .collect();
    // The VM that tries the configuration, the main thread's and the worker's.
    assert_eq!(lines.len(), 3, "{log}");
    for line in lines {
        let (summary, version) = line.split_once("; version ").expect("a version");
        assert_eq!(
            summary,
            "loaded configuration (generation 1): mode enforce, peerAddress auto, trusted load balancers [lb, other], \
             default timeout 15000 ms, default retries 2, overrides 1"
        );
        let (version, commit) = version.split_once(" (").expect("a commit");
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
        let commit = commit.trim_end_matches(')');
        assert!(
            commit == "unknown"
                || commit.len() == 12 && commit.bytes().all(|c| c.is_ascii_hexdigit()),
            "{line}"
        );
    }
}

#[test]
fn no_secret_is_in_envoys_log_with_everything_about_wasm_traced() {
    let upstream = Upstream::start();
    let environment: BTreeMap<String, String> = [
        ("HELPER_TOKEN", "hush-token-hush"),
        ("SECRET", "hush-secret-hush"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    let config = json!({
        "peerAddress": "header:x-lb-peer",
        "helperToken": {"fromEnv": "HELPER_TOKEN"},
        "trustedLoadBalancers": [
            {"name": "cdn", "match": {"headers": [{"name": "x-origin-verify", "fromEnv": "SECRET"}]},
             "forwardedProto": {"default": "https"}},
            {"name": "lb", "match": {"ipBlocks": ["127.0.0.2"]},
             "forwardedProto": {"from": ["header:x-lb-proto"], "default": "https"}},
        ],
    });
    let listener = |name: &str, early_mutation| {
        Listener::new(name)
            .plugin(&config, &environment)
            .gateway(&Gateway {
                early_mutation,
                ..Gateway::default()
            })
    };
    let envoy = Envoy::start_with_arguments(
        &bootstrap(
            &[listener("gateway", true), listener("unprotected", false)],
            upstream.address(),
        ),
        &environment,
        &["--component-log-level", "wasm:trace"],
    );
    let scheme = |listener: &str, request: &ClientRequest| {
        send(&envoy, listener, request).received_one("x-forwarded-proto")
    };
    let https = Some("https".to_owned());
    let verified = |secret| get(ELSEWHERE, "/").with(&[("x-origin-verify", secret)]);
    assert_eq!(
        scheme(
            "gateway",
            &get(LB, "/").with(&[("x-forwarded-proto", "https")])
        ),
        https
    );
    assert_eq!(scheme("gateway", &verified("hush-secret-hush")), https);
    for (listener, request) in [
        ("gateway", verified("hush-guess-hush")),
        (
            "unprotected",
            get(ELSEWHERE, "/").with(&[("x-lb-peer", "hush-guess-hush 127.0.0.2")]),
        ),
    ] {
        assert_eq!(scheme(listener, &request).as_deref(), Some("http"));
    }
    counted(&envoy, 4);
    let log = envoy.log();
    for part in [
        "trusted: cdn",
        "trusted: lb",
        "doesn't begin with the token",
    ] {
        assert!(log.contains(part), "{part}\n{log}");
    }
    let telling: Vec<&str> = log.lines().filter(|line| line.contains("hush")).collect();
    assert!(telling.is_empty(), "{telling:#?}");
}

/// The texts of the log lines in the filter's source: level, and what stands between the inserted values.
fn log_lines() -> Vec<(String, String)> {
    let mut lines = Vec::new();
    let folder = artifacts::repository().join("src/filter");
    for entry in std::fs::read_dir(folder).expect("the folder can be listed") {
        let path = entry.expect("the folder can be listed").path();
        let source = std::fs::read_to_string(path).expect("a source file can be read");
        for call in source.split("log::").skip(1) {
            let Some((level, rest)) = call.split_once("!(") else {
                continue;
            };
            if !["error", "warn", "info"].contains(&level) {
                continue;
            }
            let text = rest.split('"').nth(1).expect("a log line has a text");
            lines.push((level.to_owned(), text.to_owned()));
        }
    }
    lines
}

#[test]
fn every_log_line_is_in_the_documentation_and_nothing_else_is() {
    let text = std::fs::read_to_string(artifacts::repository().join("docs/operations.md"))
        .expect("docs/operations.md can be read");
    let (_, section) = text.split_once("## Log lines").expect("a section");
    let section = section.split("\n## ").next().expect("it ends");
    // | `text … text` | level | …
    let documented: Vec<(Vec<&str>, &str)> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|line| {
            let mut cells = line.split(" | ");
            let parts = cells
                .next()
                .expect("a text")
                .trim_end_matches('`')
                .split('…');
            (parts.collect(), cells.next().expect("a level"))
        })
        .collect();
    let lines = log_lines();
    assert!(lines.len() > 5, "{lines:?}");
    let tells = |(parts, level): &(Vec<&str>, &str), line: &(String, String)| {
        *level == line.0 && parts.iter().all(|part| line.1.contains(part.trim()))
    };
    for line in &lines {
        // What a configuration's problems are is for configuration.md to tell.
        if line.1.trim() == "{problem}" || line.1 == "{warning}" {
            continue;
        }
        assert!(
            documented.iter().any(|row| tells(row, line)),
            "not documented: {line:?}"
        );
    }
    for row in &documented {
        assert!(
            lines.iter().any(|line| tells(row, line)),
            "no such line: {row:?}"
        );
    }
}

/// The words that begin with `trusted_lb_` in a text.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("trusted_lb_").map(|(start, _)| {
        let rest = &text[start..];
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        &rest[..end]
    })
}

#[test]
fn no_document_dashboard_or_rule_names_a_metric_that_does_not_exist() {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let root = artifacts::repository();
    let operations = read(&root.join("docs/operations.md"));
    let known: Vec<&str> = operations
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .map(|name| name.trim_start_matches("wasm."))
        .collect();
    let mut folders = ["docs", "examples", "envoyfilter"]
        .map(|name| root.join(name))
        .to_vec();
    let mut texts = vec![read(&root.join("README.md"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the folder can be listed") {
            let path = entry.expect("the folder can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                texts.push(read(&path));
            }
        }
    }
    let mut found = 0;
    for name in texts.iter().flat_map(|text| names(text)) {
        let of_a_rule = name
            .strip_prefix("trusted_lb_trusted_rule")
            .is_some_and(|rest| {
                rest.trim_matches(|c: char| c == '_' || c.is_ascii_digit())
                    .is_empty()
            });
        // What a regular expression begins with names none.
        let any = name == "trusted_lb_";
        assert!(any || of_a_rule || known.contains(&name), "{name}");
        found += 1;
    }
    assert!(found > 20, "only {found} names were found");
}
