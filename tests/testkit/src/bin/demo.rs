//! `./build.sh demo`: what a gateway does behind a load balancer without a filter, with the usual Lua filter, and with
//! trusted-lb, in a real Envoy.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use serde_json::Value;
use testkit::artifacts::repository;
use testkit::cases::ClientRequest;
use testkit::envoy::Envoy;
use testkit::gateway::{Listener, bootstrap, usual_virtual_hosts};
use testkit::http;
use testkit::upstream::Upstream;

const LOAD_BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

/// What a client sends that wants to pass for the load balancer.
const SPOOFED: &[(&str, &str)] = &[
    ("x-forwarded-proto", "https"),
    ("x-forwarded-for", "127.0.0.2"),
    ("x_forwarded_proto", "https"),
    ("x-forwarded-ssl", "on"),
];

const CONFIGURATION: &str = "    trustedLoadBalancers:
    - name: demo-lb
      match: {ipBlocks: [127.0.0.2]}
      forwardedProto: {default: https}
    defaults:
      timeout: 1s
      retries: {attempts: 2, retryOn: [connect-failure, gateway-error]}
";

/// A listener each: the name, and the heading of its column.
const COLUMNS: [(&str, &str); 3] = [
    ("plain", "no filter"),
    ("lua", "the usual Lua"),
    ("trusted-lb", "trusted-lb"),
];

/// What one thing is in each column. The last is what is right.
type Expected = [&'static str; COLUMNS.len()];

struct Row {
    what: &'static str,
    load_balancer: Expected,
    spoofing_client: Expected,
    show: fn(&Demo, Request) -> String,
}

const ROWS: &[Row] = &[
    Row {
        what: "x-forwarded-proto at the service",
        load_balancer: ["http", "https", "https"],
        spoofing_client: ["http", "https", "http"],
        show: |demo, request| demo.received(request, "x-forwarded-proto"),
    },
    Row {
        what: ":scheme in Envoy",
        load_balancer: ["http", "http", "https"],
        spoofing_client: ["http", "http", "http"],
        show: |demo, request| demo.received(request, "x-seen-scheme"),
    },
    Row {
        what: "x_forwarded_proto at the service",
        load_balancer: ["-", "-", "-"],
        spoofing_client: ["https", "https", "-"],
        show: |demo, request| demo.received(request, "x_forwarded_proto"),
    },
    Row {
        what: "x-forwarded-ssl at the service",
        load_balancer: ["-", "-", "-"],
        spoofing_client: ["on", "on", "-"],
        show: |demo, request| demo.received(request, "x-forwarded-ssl"),
    },
    Row {
        what: "host with httpsRedirect",
        load_balancer: ["301 (a loop)", "200", "200"],
        spoofing_client: ["301", "200", "301"],
        show: |demo, request| {
            let status = demo.send(request, "secure.example.com", "/").status;
            // The client did use https: the redirect leads it back to the same place.
            let is_loop = status == 301 && request.peer == LOAD_BALANCER;
            format!("{status}{}", if is_loop { " (a loop)" } else { "" })
        },
    },
    Row {
        what: "Location of a path redirect",
        load_balancer: ["http://…/new", "http://…/new", "https://…/new"],
        spoofing_client: ["http://…/new", "http://…/new", "http://…/new"],
        show: |demo, request| {
            let location = demo
                .send(request, "old.example.com", "/")
                .header("location");
            location.unwrap_or_default().replace("old.example.com", "…")
        },
    },
    Row {
        what: "upstream that takes 3 s",
        load_balancer: ["200", "504 after 1 s", "504 after 1 s"],
        spoofing_client: ["200", "504 after 1 s", "504 after 1 s"],
        show: |demo, request| {
            let status = demo
                .send(request, "app.example.com", "/slow?ms=3000")
                .status;
            // Envoy's own answer, when the timeout of the configuration has passed.
            let cut = status == 504;
            format!("{status}{}", if cut { " after 1 s" } else { "" })
        },
    },
    Row {
        what: "upstream that fails twice",
        load_balancer: ["503, 1 try", "200, 3 tries", "200, 3 tries"],
        spoofing_client: ["503, 1 try", "200, 3 tries", "200, 3 tries"],
        show: |demo, request| {
            let key = format!("{}-{}", request.listener, request.peer);
            let path = format!("/fail?times=2&key={key}");
            let status = demo.send(request, "app.example.com", &path).status;
            let tries = demo.upstream.attempts(&key);
            let word = if tries == 1 { "try" } else { "tries" };
            format!("{status}, {tries} {word}")
        },
    },
];

/// Who sends, and to which listener.
#[derive(Clone, Copy)]
struct Request {
    listener: &'static str,
    peer: IpAddr,
}

struct Demo {
    upstream: Upstream,
    envoy: Envoy,
}

impl Demo {
    fn start(configuration: &Value) -> Self {
        let upstream = Upstream::start();
        let [plain, lua, trusted_lb] = COLUMNS
            .map(|(listener, _)| Listener::new(listener).virtual_hosts(usual_virtual_hosts()));
        let listeners = [
            plain,
            lua.filter(usual_lua_filter()),
            trusted_lb.plugin(configuration, &BTreeMap::new()),
        ];
        let envoy = Envoy::start(&bootstrap(&listeners, upstream.address()));
        Self { upstream, envoy }
    }

    fn send(&self, request: Request, authority: &str, path: &str) -> http::Response {
        let mut sent = ClientRequest::get(request.peer, authority, path);
        if request.peer == ELSEWHERE {
            sent = sent.with(SPOOFED);
        }
        http::send(self.envoy.listener(request.listener), &sent).expect("the gateway answers")
    }

    fn received(&self, request: Request, header: &str) -> String {
        let response = self.send(request, "app.example.com", "/");
        response
            .received_one(header)
            .unwrap_or_else(|| "-".to_owned())
    }
}

/// The filter that `envoyfilter/legacy-lua.yaml` patches in, with the timeout and the retry conditions of the demo.
fn usual_lua_filter() -> Value {
    let path = repository().join("envoyfilter/legacy-lua.yaml");
    let mut text = std::fs::read_to_string(path).expect("it is in the repository");
    for (theirs, ours) in [
        (r#""15000""#, r#""1000""#),
        (
            "connect-failure,refused-stream",
            "connect-failure,gateway-error",
        ),
    ] {
        assert!(text.contains(theirs), "{theirs}");
        text = text.replace(theirs, ours);
    }
    let manifest: Value = serde_saphyr::from_str(&text).expect("it is YAML");
    manifest["spec"]["configPatches"][0]["patch"]["value"].clone()
}

fn main() -> ExitCode {
    let configuration = serde_saphyr::from_str(CONFIGURATION).expect("the configuration is YAML");
    let demo = Demo::start(&configuration);
    println!(
        "A gateway (Envoy, on this machine's loopback) behind a load balancer that terminates TLS."
    );
    println!("What reaches the gateway is plain HTTP, from both of these:\n");
    let mut right = print_table(
        &demo,
        &format!("The load balancer ({LOAD_BALANCER}), whose client used https"),
        LOAD_BALANCER,
    );
    let sent: Vec<String> = SPOOFED
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    right &= print_table(
        &demo,
        &format!(
            "A spoofing client ({ELSEWHERE}), which connects to the gateway directly, with plain HTTP, and sends\n  {}",
            sent.join("   ")
        ),
        ELSEWHERE,
    );
    println!("The configuration of trusted-lb:\n\n{CONFIGURATION}");
    if right {
        println!("Everything is as it should be.");
        ExitCode::SUCCESS
    } else {
        println!(
            "Not everything is as it should be. The gateway's log:\n{}",
            demo.envoy.log()
        );
        ExitCode::FAILURE
    }
}

/// Prints what this peer gets. Answers whether every cell is as expected.
fn print_table(demo: &Demo, title: &str, peer: IpAddr) -> bool {
    const WHAT: usize = 34;
    const CELL: usize = 18;
    let colours = std::io::stdout().is_terminal();
    let paint = |text: &str, code: &str| {
        if colours {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    };
    println!("{title}");
    let heads: String = COLUMNS
        .iter()
        .map(|(_, head)| format!("  {head:width$}", width = CELL - 2))
        .collect();
    println!("{:WHAT$}{}", "", heads.trim_end());
    let mut as_expected = true;
    for row in ROWS {
        let expected = if peer == LOAD_BALANCER {
            row.load_balancer
        } else {
            row.spoofing_client
        };
        // The columns at once: the slow row would take its time three times over.
        let cells: Vec<String> = std::thread::scope(|scope| {
            let columns: Vec<_> = COLUMNS
                .iter()
                .map(|(listener, _)| {
                    scope.spawn(move || (row.show)(demo, Request { listener, peer }))
                })
                .collect();
            columns
                .into_iter()
                .map(|column| column.join().expect("the gateway answers"))
                .collect()
        });
        print!("{:WHAT$}", row.what);
        let right = expected.last().copied().unwrap_or_default();
        for cell in &cells {
            let mark = if cell == right {
                paint("✓", "32")
            } else {
                paint("✗", "31")
            };
            print!("{mark} {cell:width$}", width = CELL - 2);
        }
        println!();
        for ((cell, expected), (_, head)) in cells.iter().zip(expected).zip(COLUMNS) {
            if cell != expected {
                as_expected = false;
                println!("  {}", paint(&format!("{head}: expected {expected}"), "31"));
            }
        }
    }
    println!();
    as_expected
}
