//! `./build.sh demo`: what a gateway does behind a load balancer, without and with trusted-lb, in a real Envoy.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::time::Instant;

use testkit::cases::ClientRequest;
use testkit::envoy::Envoy;
use testkit::gateway::{Listener, bootstrap, usual_virtual_hosts};
use testkit::http;
use testkit::upstream::Upstream;

const LOAD_BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

/// What somebody sends who would like to pass for the load balancer.
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

/// The listener, and who sends.
const COLUMNS: [(&str, &str, IpAddr); 4] = [
    ("without", "load balancer", LOAD_BALANCER),
    ("without", "spoofing client", ELSEWHERE),
    ("with", "load balancer", LOAD_BALANCER),
    ("with", "spoofing client", ELSEWHERE),
];

struct Row {
    what: &'static str,
    expected: [&'static str; 4],
    show: fn(&Demo, usize) -> String,
}

const ROWS: &[Row] = &[
    Row {
        what: "x-forwarded-proto at the service",
        expected: ["http", "http", "https", "http"],
        show: |demo, column| demo.received(column, "x-forwarded-proto"),
    },
    Row {
        what: ":scheme in Envoy",
        expected: ["http", "http", "https", "http"],
        show: |demo, column| demo.received(column, "x-seen-scheme"),
    },
    Row {
        what: "x_forwarded_proto at the service",
        expected: ["-", "https", "-", "-"],
        show: |demo, column| demo.received(column, "x_forwarded_proto"),
    },
    Row {
        what: "x-forwarded-ssl at the service",
        expected: ["-", "on", "-", "-"],
        show: |demo, column| demo.received(column, "x-forwarded-ssl"),
    },
    Row {
        what: "host with httpsRedirect",
        expected: ["301 (a loop)", "301", "200", "301"],
        show: |demo, column| {
            let status = demo.send(column, "secure.example.com", "/").status;
            // The client did use https: the redirect leads it back to the same place.
            let is_loop = status == 301 && COLUMNS[column].2 == LOAD_BALANCER;
            format!("{status}{}", if is_loop { " (a loop)" } else { "" })
        },
    },
    Row {
        what: "Location of a path redirect",
        expected: [
            "http://…/new",
            "http://…/new",
            "https://…/new",
            "http://…/new",
        ],
        show: |demo, column| {
            let location = demo.send(column, "old.example.com", "/").header("location");
            location.unwrap_or_default().replace("old.example.com", "…")
        },
    },
    Row {
        what: "upstream that takes 3 s",
        expected: [
            "200 after 3 s",
            "200 after 3 s",
            "504 after 1 s",
            "504 after 1 s",
        ],
        show: |demo, column| {
            let began = Instant::now();
            let status = demo.send(column, "app.example.com", "/slow?ms=3000").status;
            format!("{status} after {:.0} s", began.elapsed().as_secs_f64())
        },
    },
    Row {
        what: "upstream that fails twice",
        expected: ["503, 1 try", "503, 1 try", "200, 3 tries", "200, 3 tries"],
        show: |demo, column| {
            let key = format!("column{column}");
            let status = demo
                .send(
                    column,
                    "app.example.com",
                    &format!("/fail?times=2&key={key}"),
                )
                .status;
            let tries = demo.upstream.attempts(&key);
            format!(
                "{status}, {tries} {}",
                if tries == 1 { "try" } else { "tries" }
            )
        },
    },
];

struct Demo {
    upstream: Upstream,
    envoy: Envoy,
}

impl Demo {
    fn send(&self, column: usize, authority: &str, path: &str) -> http::Response {
        let (listener, _, peer) = COLUMNS[column];
        let mut request = ClientRequest::get(peer, authority, path);
        if peer == ELSEWHERE {
            request = request.with(SPOOFED);
        }
        http::send(self.envoy.listener(listener), &request).expect("the gateway answers")
    }

    fn received(&self, column: usize, header: &str) -> String {
        let response = self.send(column, "app.example.com", "/");
        response
            .received_one(header)
            .unwrap_or_else(|| "-".to_owned())
    }
}

fn main() -> ExitCode {
    let configuration = serde_saphyr::from_str(CONFIGURATION).expect("the configuration is YAML");
    let upstream = Upstream::start();
    let without = Listener::new("without").virtual_hosts(usual_virtual_hosts());
    let with = Listener::new("with")
        .plugin(&configuration, &BTreeMap::new())
        .virtual_hosts(usual_virtual_hosts());
    let envoy = Envoy::start(&bootstrap(&[without, with], upstream.address()));
    let demo = Demo { upstream, envoy };

    println!(
        "A gateway (Envoy, on this machine's loopback) behind a load balancer that terminates TLS."
    );
    println!(
        "The client of the load balancer ({LOAD_BALANCER}) used https; what reaches the gateway is plain HTTP."
    );
    println!(
        "The spoofing client ({ELSEWHERE}) connects to the gateway directly, with plain HTTP, and sends"
    );
    let lines: Vec<String> = SPOOFED
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    println!("  {}\n", lines.join("   "));

    let right = print_table(&demo);
    println!("\nThe plugin's configuration:\n\n{CONFIGURATION}");
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

/// Prints the table. Answers whether every cell is as expected.
fn print_table(demo: &Demo) -> bool {
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
    let group = 2 * CELL - 2;
    println!(
        "{:WHAT$}{:group$}  with trusted-lb",
        "", "without the filter"
    );
    let heads: String = COLUMNS
        .iter()
        .map(|(_, who, _)| format!("{who:CELL$}"))
        .collect();
    println!("{:WHAT$}{heads}", "");
    let mut right = true;
    for row in ROWS {
        // The columns at once: the slow row would take its time four times over.
        let cells: Vec<String> = std::thread::scope(|scope| {
            let columns: Vec<_> = (0..COLUMNS.len())
                .map(|column| scope.spawn(move || (row.show)(demo, column)))
                .collect();
            columns
                .into_iter()
                .map(|column| column.join().expect("the gateway answers"))
                .collect()
        });
        print!("{:WHAT$}", row.what);
        for (cell, expected) in cells.iter().zip(row.expected) {
            let good = cell == expected;
            right &= good;
            let mark = if good {
                paint("✓", "32")
            } else {
                paint("✗", "31")
            };
            print!("{mark} {cell:width$}", width = CELL - 2);
        }
        println!();
        for (index, (cell, expected)) in cells.iter().zip(row.expected).enumerate() {
            if cell != expected {
                let (listener, who, _) = COLUMNS[index];
                println!(
                    "  {}",
                    paint(&format!("{listener}, {who}: {expected} was expected"), "31")
                );
            }
        }
    }
    right
}
