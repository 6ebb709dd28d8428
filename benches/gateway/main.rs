//! What a request costs a real Envoy, with trusted-lb and with what it replaces: `./build.sh bench`.
//!
//! One Envoy with one worker, pinned to one core; one listener a variant, all of them the same but for the filter, and
//! answering by themselves. The load comes from the other core. Variants take turns in short slices and random order,
//! with a slice of the listener without a filter after every second one; what a slice costs is the processor time of
//! all Envoy threads by the scheduler's account, divided by the requests answered, less what the baselines beside it
//! cost. So neither the machine's mood nor the load generator enters.

// A bench ends where something is not as expected.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod floor;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::envoy::Envoy;
use testkit::gateway::{Listener, bootstrap, merge, plugin_of, typed};
use testkit::workloads::{self, HEADERS, LOAD_BALANCER, PATH};

const USAGE: &str =
    "usage: ./build.sh bench [--rounds N] [--seconds S] [--only NAME]... [--svg FILE]

  --rounds N     how often every variant gets a slice (default 9; quartiles need at least 5)
  --seconds S    how long a slice is (default 0.5)
  --connections N
                 how many requests are under way at once (default 16)
  --only NAME    this variant only; may be repeated
  --module NAME=FILE
                 one more variant: the full job's configuration with this module; may be repeated
  --svg FILE     write a picture of the result";

/// The listener without a filter.
const BASELINE: &str = "no filter";
/// The same with a route table of a size that platforms have.
const BASELINE_HOSTS: &str = "no filter, 500 virtual hosts";
const LUA: &str = "Lua one-liner";
const LUA_FULL: &str = "Lua full job";
const NATIVE: &str = "native header_mutation";
const EMPTY: &str = "trusted-lb, nothing configured";

/// What is said at the end: the first over the second.
const RATIOS: &[(&str, &str)] = &[
    ("full job", LUA_FULL),
    ("xfp only", LUA),
    ("untrusted", LUA),
    ("full job", NATIVE),
    ("calls of: full job", LUA_FULL),
    ("calls of: xfp only", LUA),
    (
        "full job, 500 virtual hosts",
        "Lua full job, 500 virtual hosts",
    ),
    (
        "xfp only, 500 virtual hosts",
        "Lua one-liner, 500 virtual hosts",
    ),
];

struct Options {
    rounds: usize,
    slice: Duration,
    connections: usize,
    only: Vec<String>,
    modules: Vec<(String, PathBuf)>,
    svg: Option<PathBuf>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        rounds: 9,
        slice: Duration::from_millis(500),
        connections: 16,
        only: Vec::new(),
        modules: Vec::new(),
        svg: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "--help" | "-h" => {
                println!("{USAGE}");
                std::process::exit(0);
            }
            "--rounds" => {
                let rounds: usize = value()?.parse().map_err(|_| "--rounds takes a number")?;
                options.rounds = rounds.max(1);
            }
            "--seconds" => {
                let seconds: f64 = value()?.parse().map_err(|_| "--seconds takes a number")?;
                options.slice = Duration::try_from_secs_f64(seconds)
                    .ok()
                    .filter(|slice| !slice.is_zero())
                    .ok_or("--seconds takes a number above 0")?;
            }
            "--connections" => {
                let count: usize = value()?
                    .parse()
                    .map_err(|_| "--connections takes a number")?;
                options.connections = count.max(1);
            }
            "--only" => options.only.push(value()?),
            "--module" => {
                let value = value()?;
                let (name, file) = value.split_once('=').ok_or("--module takes NAME=FILE")?;
                options.modules.push((name.to_owned(), file.into()));
            }
            "--svg" => options.svg = Some(value()?.into()),
            other => return Err(format!("{other} is not an option")),
        }
    }
    Ok(options)
}

/// One listener, and who sends to it.
struct Variant {
    name: String,
    baseline: &'static str,
    peer: &'static str,
    listener: Listener,
}

fn variants() -> Vec<Variant> {
    let mut variants = Vec::new();
    let mut add = |name: &str, peer: &'static str, filter: Option<Value>, hosts: bool| {
        let name = if hosts && name != BASELINE {
            format!("{name}, 500 virtual hosts")
        } else if hosts {
            BASELINE_HOSTS.to_owned()
        } else {
            name.to_owned()
        };
        let mut listener = Listener::new(&name)
            .unobserved()
            .virtual_hosts(virtual_hosts(if hosts { 500 } else { 1 }));
        if let Some(filter) = filter {
            listener = listener.filter(filter);
        }
        variants.push(Variant {
            name,
            baseline: if hosts { BASELINE_HOSTS } else { BASELINE },
            peer,
            listener,
        });
    };
    let plugin = |config: &Value| {
        Some(testkit::gateway::plugin(
            config,
            &BTreeMap::<String, String>::new(),
        ))
    };
    for hosts in [false, true] {
        add(BASELINE, LOAD_BALANCER, None, hosts);
        add(
            LUA,
            LOAD_BALANCER,
            Some(lua(include_str!("one-liner.lua"))),
            hosts,
        );
        add(
            LUA_FULL,
            LOAD_BALANCER,
            Some(lua(include_str!("full-job.lua"))),
            hosts,
        );
        if !hosts {
            add(NATIVE, LOAD_BALANCER, Some(native()), hosts);
            let nothing = json!({"untrusted": {"forwardedProto": "keep"}});
            add(EMPTY, LOAD_BALANCER, plugin(&nothing), hosts);
        }
        for workload in workloads::all() {
            if !hosts || matches!(workload.name, "xfp only" | "full job") {
                add(
                    workload.name,
                    workload.peer,
                    plugin(&workload.config),
                    hosts,
                );
            }
        }
    }
    variants
}

/// Virtual hosts that answer by themselves; the request's is the last.
fn virtual_hosts(count: usize) -> Value {
    let answer = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "ok"}}}]);
    let mut hosts: Vec<Value> = (1..count)
        .map(|index| {
            json!({"name": format!("tenant-{index}"), "domains": [format!("tenant-{index}.example.com")], "routes": answer})
        })
        .collect();
    hosts.push(json!({"name": "app", "domains": ["app.example.com"], "routes": answer}));
    // Shows before the measurement that the filter does its work.
    hosts.push(json!({
        "name": "check", "domains": ["check.example.com"], "routes": answer,
        "response_headers_to_add": [{"header": {
            "key": "x-seen",
            "value": "%REQ(x-forwarded-proto)% %REQ(:scheme)% %REQ(x-envoy-max-retries)%",
        }}],
    }));
    json!(hosts)
}

fn lua(script: &str) -> Value {
    let mut filter = typed("extensions.filters.http.lua.v3.Lua");
    merge(
        &mut filter,
        json!({"default_source_code": {"inline_string": script}}),
    );
    json!({"name": "envoy.filters.http.lua", "typed_config": filter})
}

/// What Envoy can do without any decision.
fn native() -> Value {
    let set = |key: &str, value: &str, action: &str| json!({"append": {"header": {"key": key, "value": value}, "append_action": action}});
    let mut filter = typed("extensions.filters.http.header_mutation.v3.HeaderMutation");
    merge(
        &mut filter,
        json!({"mutations": {"request_mutations": [
            set("x-forwarded-proto", "https", "OVERWRITE_IF_EXISTS_OR_ADD"),
            set("x-envoy-upstream-rq-timeout-ms", "15000", "ADD_IF_ABSENT"),
            set("x-envoy-max-retries", "2", "ADD_IF_ABSENT"),
            set("x-envoy-upstream-rq-per-try-timeout-ms", "5000", "ADD_IF_ABSENT"),
            set("x-envoy-retry-on", "connect-failure,refused-stream", "ADD_IF_ABSENT"),
        ]}}),
    );
    json!({"name": "native", "typed_config": filter})
}

fn main() {
    let options = options().unwrap_or_else(|error| {
        eprintln!("error: {error}\n{USAGE}");
        std::process::exit(2);
    });
    let mut variants = variants();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let floors = floor::FLOORS
        .iter()
        .map(|(name, calls)| ((*name).to_owned(), floor::write(&folder, name, calls)));
    for (name, file) in floors
        .chain(options.modules.iter().cloned())
        .collect::<Vec<_>>()
    {
        let plugin = plugin_of(&file, &workloads::full_job("source"), &BTreeMap::new());
        variants.push(Variant {
            name: name.clone(),
            baseline: BASELINE,
            peer: LOAD_BALANCER,
            listener: Listener::new(&name)
                .unobserved()
                .virtual_hosts(virtual_hosts(1))
                .filter(plugin),
        });
    }
    if !options.only.is_empty() {
        for name in &options.only {
            assert!(
                variants.iter().any(|variant| variant.name == *name),
                "there is no variant {name}"
            );
        }
        variants.retain(|variant| {
            variant.name == variant.baseline
                || options.only.contains(&variant.name)
                || options
                    .modules
                    .iter()
                    .any(|(name, _)| *name == variant.name)
        });
        let needed: Vec<&str> = variants
            .iter()
            .filter(|variant| variant.name != variant.baseline)
            .map(|variant| variant.baseline)
            .collect();
        variants.retain(|variant| needed.contains(&variant.baseline));
    }
    let costs = measure(&variants, &options);
    print_table(&costs);
    if let Some(file) = &options.svg {
        fs::write(file, picture(&costs, &options)).expect("the picture can be written");
        println!("\npicture: {}", file.display());
    }
}

/// Median and quartiles of a variant, µs a request above its baseline; of a baseline, in all.
struct Cost {
    name: String,
    is_baseline: bool,
    quartiles: [f64; 3],
}

fn measure(variants: &[Variant], options: &Options) -> Vec<Cost> {
    let listeners: Vec<Listener> = variants
        .iter()
        .map(|variant| variant.listener.clone())
        .collect();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let envoy = Envoy::start(&bootstrap(&listeners, nowhere));
    pin(&envoy);
    let mut loads: Vec<Load> = variants
        .iter()
        .map(|variant| {
            Load::new(
                envoy.listener(&variant.name),
                variant.peer,
                options.connections,
            )
        })
        .collect();
    for (variant, load) in variants.iter().zip(&loads) {
        eprintln!("{:<40} sees {}", variant.name, load.check());
    }
    for load in &mut loads {
        load.run(Duration::from_millis(300), &envoy);
    }
    let index_of = |name: &str| {
        variants
            .iter()
            .position(|variant| variant.name == name)
            .expect("a variant")
    };
    let mut random = Random(u64::from(std::process::id()) | 1);
    let mut costs: Vec<Vec<f64>> = vec![Vec::new(); variants.len()];
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        for baseline in [BASELINE, BASELINE_HOSTS] {
            let mut order: Vec<usize> = (0..variants.len())
                .filter(|index| {
                    variants[*index].baseline == baseline && variants[*index].name != baseline
                })
                .collect();
            if order.is_empty() {
                continue;
            }
            random.shuffle(&mut order);
            let base = index_of(baseline);
            let mut before = loads[base].run(options.slice, &envoy);
            for two in order.chunks(2) {
                let raw: Vec<f64> = two
                    .iter()
                    .map(|index| loads[*index].run(options.slice, &envoy))
                    .collect();
                let after = loads[base].run(options.slice, &envoy);
                for (index, raw) in two.iter().zip(raw) {
                    costs[*index].push(raw - f64::midpoint(before, after));
                }
                costs[base].push(f64::midpoint(before, after));
                before = after;
            }
        }
    }
    variants
        .iter()
        .zip(costs)
        .map(|(variant, mut list)| {
            list.sort_by(f64::total_cmp);
            Cost {
                name: variant.name.clone(),
                is_baseline: variant.name == variant.baseline,
                quartiles: [0.25, 0.5, 0.75].map(|part| quantile(&list, part)),
            }
        })
        .collect()
}

/// Linear between the two values beside it.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * place.fract()
}

/// Envoy on the first core, this process on the second, where there are two.
fn pin(envoy: &Envoy) {
    use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};
    let allowed = sched_getaffinity(None).expect("the cores can be asked for");
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .collect();
    let [first, second, ..] = cores[..] else {
        eprintln!("only one core: Envoy and the load share it");
        return;
    };
    let only = |core| {
        let mut set = CpuSet::new();
        set.set(core);
        set
    };
    for thread in threads(envoy) {
        let thread = Pid::from_raw(thread).expect("a thread");
        sched_setaffinity(Some(thread), &only(first)).expect("Envoy can be pinned");
    }
    sched_setaffinity(None, &only(second)).expect("the load can be pinned");
}

fn threads(envoy: &Envoy) -> Vec<i32> {
    fs::read_dir(format!("/proc/{}/task", envoy.pid()))
        .expect("Envoy runs")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// The processor time of all Envoy threads so far.
fn processor_time(envoy: &Envoy) -> Duration {
    let nanoseconds = threads(envoy)
        .into_iter()
        .filter_map(|thread| {
            let path = format!("/proc/{}/task/{thread}/schedstat", envoy.pid());
            let text = fs::read_to_string(path).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum();
    Duration::from_nanos(nanoseconds)
}

/// Connections to one listener, and the request that they repeat.
struct Load {
    address: SocketAddr,
    peer: IpAddr,
    connections: Vec<TcpStream>,
    request: Vec<u8>,
}

impl Load {
    fn new(address: SocketAddr, peer: &str, connections: usize) -> Self {
        let peer = peer.parse().expect("an address");
        Self {
            address,
            peer,
            connections: (0..connections).map(|_| connect(address, peer)).collect(),
            request: request("app.example.com"),
        }
    }

    /// What the filter made of a request.
    fn check(&self) -> String {
        let mut connection = connect(self.address, self.peer);
        connection
            .write_all(&request("check.example.com"))
            .expect("the listener takes a request");
        let mut answer = Vec::new();
        read_answer(&mut connection, &mut answer);
        let text = String::from_utf8_lossy(&answer);
        text.lines()
            .find_map(|line| line.strip_prefix("x-seen: "))
            .unwrap_or("nothing")
            .to_owned()
    }

    /// Repeats the request for a while: on every connection one, then every answer. What one cost, in µs.
    fn run(&mut self, time: Duration, envoy: &Envoy) -> f64 {
        let mut buffer = Vec::new();
        let mut answered = 0_u32;
        let began = Instant::now();
        let before = processor_time(envoy);
        while began.elapsed() < time {
            for connection in &mut self.connections {
                connection
                    .write_all(&self.request)
                    .expect("the listener takes a request");
            }
            for connection in &mut self.connections {
                read_answer(connection, &mut buffer);
                assert!(
                    buffer.starts_with(b"HTTP/1.1 200"),
                    "{}",
                    String::from_utf8_lossy(&buffer)
                );
                answered += 1;
            }
        }
        let spent = processor_time(envoy).saturating_sub(before);
        spent.as_secs_f64() * 1e6 / f64::from(answered)
    }
}

fn connect(address: SocketAddr, from: IpAddr) -> TcpStream {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket
        .bind(&SocketAddr::new(from, 0).into())
        .expect("the source address is this machine's");
    socket
        .connect(&address.into())
        .expect("the listener listens");
    socket.set_tcp_nodelay(true).expect("an option");
    socket.into()
}

fn request(host: &str) -> Vec<u8> {
    let mut text = format!("GET {PATH} HTTP/1.1\r\nhost: {host}\r\n");
    for (name, value) in HEADERS {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// Reads one answer, whose body is `ok`.
fn read_answer(connection: &mut TcpStream, buffer: &mut Vec<u8>) {
    buffer.clear();
    let mut chunk = [0; 4096];
    while !buffer.ends_with(b"\r\n\r\nok") {
        let size = connection.read(&mut chunk).expect("the listener answers");
        assert!(size > 0, "the listener closed the connection");
        buffer.extend_from_slice(&chunk[..size]);
    }
}

/// Enough chance to take turns fairly.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn shuffle(&mut self, list: &mut [usize]) {
        for end in (1..list.len()).rev() {
            let bound = u64::try_from(end + 1).expect("a small number");
            let other = usize::try_from(self.next() % bound).expect("a small number");
            list.swap(end, other);
        }
    }
}

fn print_table(costs: &[Cost]) {
    println!(
        "{:<40} {:>9}   quartiles",
        "µs of CPU a request, above no filter", "median"
    );
    for cost in costs {
        let [low, median, high] = cost.quartiles;
        let in_all = if cost.is_baseline { "  in all" } else { "" };
        println!(
            "{:<40} {median:>9.2}   {low:.2} to {high:.2}{in_all}",
            cost.name
        );
    }
    println!();
    let median = |name: &str| {
        costs
            .iter()
            .find(|cost| cost.name == name)
            .map(|cost| cost.quartiles[1])
    };
    for (one, other) in RATIOS {
        if let (Some(ours), Some(theirs)) = (median(one), median(other)) {
            println!("{:<64} {:.2}", format!("{one} / {other}"), ours / theirs);
        }
    }
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpu.lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or_else(
            || "unknown processor".to_owned(),
            |(_, name)| name.trim().to_owned(),
        )
}

fn today() -> String {
    Command::new("date")
        .arg("+%Y-%m-%d")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(String::new, |date| date.trim().to_owned())
}

/// A bar for each variant, quartiles as a line over its end.
fn picture(costs: &[Cost], options: &Options) -> String {
    const ROW: usize = 26;
    const LEFT: usize = 270;
    const WIDTH: f64 = 400.0;
    let shown: Vec<&Cost> = costs.iter().filter(|cost| !cost.is_baseline).collect();
    let most = shown
        .iter()
        .map(|cost| cost.quartiles[2])
        .fold(1.0, f64::max);
    let height = 70 + ROW * shown.len();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"15\" font-weight=\"bold\">CPU a request above no filter, µs: medians and quartiles</text>\n"
    );
    for (index, cost) in shown.iter().enumerate() {
        let y = 40 + index * ROW;
        let [low, median, high] = cost.quartiles.map(|value| value.max(0.0) / most * WIDTH);
        let colour = if cost.name.starts_with("Lua") {
            "#e07a3f"
        } else if cost.name == NATIVE
            || cost.name.contains("calls of")
            || cost.name.contains("module")
        {
            "#9aa5b1"
        } else {
            "#3b7dd8"
        };
        let (text_y, line_y) = (y + 15, y + 10);
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{text_y}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{median:.1}\" height=\"20\" fill=\"{colour}\"/>\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{line_y}\" y2=\"{line_y}\" stroke=\"#222\"/>\
             <text x=\"{:.1}\" y=\"{text_y}\">{:.2}</text>",
            LEFT - 8,
            cost.name,
            low + 270.0,
            high + 270.0,
            high.max(median) + 278.0,
            cost.quartiles[1],
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"16\" y=\"{}\" fill=\"#555\" font-size=\"11\">{}, {}, {} rounds</text>\n</svg>",
        height - 12,
        machine(),
        today(),
        options.rounds
    );
    svg
}
