//! The instructions of a whole Envoy for a request, counted by valgrind's callgrind.
//!
//! One process a variant. After a warm-up, in which nothing is counted, the counters are set to zero, requests are sent on
//! one connection, and the counters are read; the same with a new connection for each request. What the variant without a
//! filter needs is taken off. The count depends on the build of Envoy and not on the machine.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::artifacts;
use testkit::envoy::Envoy;
use testkit::gateway::bootstrap;

use crate::load::Load;
use crate::options::Options;
use crate::variants::Variant;

/// What is compared with.
const REFERENCE: &str = "lua-full-job";

/// How long an Envoy without requests is counted: what it does by the clock is taken off.
const IDLE: Duration = Duration::from_secs(3);

/// Requests between the switch to counting, which has valgrind translate all code anew, and the first count.
const SETTLE: u32 = 200;

/// Instructions above the variant without a filter; of that variant itself, in all.
pub(crate) struct Count {
    pub(crate) name: String,
    pub(crate) is_baseline: bool,
    /// For a request on a connection that is open.
    pub(crate) request: f64,
    /// For a new connection, without its request.
    pub(crate) connection: f64,
}

/// Counts every variant, as many at once as there are cores.
pub(crate) fn count(variants: &[Variant], options: &Options) -> Vec<Count> {
    let valgrind = Valgrind::find();
    let waiting: Mutex<VecDeque<(usize, &Variant)>> =
        Mutex::new(variants.iter().enumerate().collect());
    let counted = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().expect("no thread panicked").pop_front();
                    let Some((index, variant)) = next else {
                        return;
                    };
                    let raw = count_one(&valgrind, variant, options);
                    counted
                        .lock()
                        .expect("no thread panicked")
                        .push((index, raw));
                }
            });
        }
    });
    let mut counted = counted.into_inner().expect("no thread panicked");
    counted.sort_by_key(|(index, _)| *index);
    let raw_of = |name: &str| {
        counted
            .iter()
            .find(|(index, _)| variants[*index].name == name)
            .map_or([0.0, 0.0], |(_, raw)| *raw)
    };
    counted
        .iter()
        .map(|(index, raw)| {
            let variant = &variants[*index];
            let base = if variant.is_baseline() {
                [0.0, 0.0]
            } else {
                raw_of(variant.baseline)
            };
            Count {
                name: variant.name.clone(),
                is_baseline: variant.is_baseline(),
                request: raw[0] - base[0],
                connection: raw[1] - base[1],
            }
        })
        .collect()
}

/// Instructions of a request, and of a new connection.
fn count_one(valgrind: &Valgrind, variant: &Variant, options: &Options) -> [f64; 2] {
    let nowhere = ([127, 0, 0, 1], 9).into();
    let mut bootstrap = bootstrap(std::slice::from_ref(&variant.listener), nowhere);
    // As little as possible happens by the clock.
    bootstrap["stats_flush_on_admin"] = json!(true);
    let patient = json!({"miss_timeout": "3600s", "megamiss_timeout": "3600s"});
    bootstrap["watchdogs"] = json!({"main_thread_watchdog": patient, "worker_watchdog": patient});
    let envoy = CountedEnvoy::start(valgrind, &bootstrap);
    let load = Load::new(envoy.envoy.listener(&variant.name), variant.peer, 1);
    eprintln!("{:<36} sees {}", variant.name, load.check());
    let mut connection = load.connect();
    let mut send = |times: u32| {
        for _ in 0..times {
            load.ask(&mut connection);
        }
    };
    send(options.warm_up);
    envoy.tell(&["instrumentation", "on"]);
    send(SETTLE);
    envoy.tell(&["zero"]);
    let idle = envoy.counted(|| thread::sleep(IDLE));
    let by_the_clock = idle.instructions / idle.seconds;
    let above_idle = |counted: &Counted, times: u32| {
        (counted.instructions - by_the_clock * counted.seconds) / f64::from(times)
    };
    let request = envoy.counted(|| send(options.requests));
    let request = above_idle(&request, options.requests);
    let connections = (options.requests / 5).max(1);
    let with_connection = envoy.counted(|| {
        for _ in 0..connections {
            load.ask(&mut load.connect());
        }
    });
    [request, above_idle(&with_connection, connections) - request]
}

/// What was counted, and how long that took.
struct Counted {
    instructions: f64,
    seconds: f64,
}

/// An Envoy whose instructions are counted.
struct CountedEnvoy<'v> {
    valgrind: &'v Valgrind,
    envoy: Envoy,
    folder: TempDir,
    dumps: Cell<u32>,
}

/// In the folder of an Envoy: where its valgrind writes counts, and where it takes orders.
const COUNTS: &str = "counts";
const ORDERS: &str = "orders";

impl<'v> CountedEnvoy<'v> {
    fn start(valgrind: &'v Valgrind, bootstrap: &Value) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let option =
            |name: &str, file: &str| format!("--{name}={}", folder.path().join(file).display());
        let mut command = valgrind.command();
        command.args([
            "--tool=callgrind",
            "--instr-atstart=no",
            // V8 writes code while it runs.
            "--smc-check=all-non-file",
            &option("callgrind-out-file", COUNTS),
            &option("vgdb-prefix", ORDERS),
        ]);
        let envoy = Envoy::start_under(command, bootstrap, &[]);
        Self {
            valgrind,
            envoy,
            folder,
            dumps: Cell::new(0),
        }
    }

    /// Has valgrind do something.
    fn tell(&self, order: &[&str]) {
        let output = Command::new(&self.valgrind.vgdb)
            .arg(format!(
                "--vgdb-prefix={}",
                self.folder.path().join(ORDERS).display()
            ))
            .arg(format!("--pid={}", self.envoy.pid()))
            .args(order)
            .output()
            .expect("vgdb can be run");
        assert!(output.status.success(), "vgdb {order:?}: {output:?}");
    }

    /// Instructions since the last count, or since zero.
    #[allow(clippy::cast_precision_loss)]
    fn counted(&self, work: impl FnOnce()) -> Counted {
        let began = Instant::now();
        work();
        let seconds = began.elapsed().as_secs_f64();
        Counted {
            instructions: self.total() as f64,
            seconds,
        }
    }

    fn total(&self) -> u64 {
        self.tell(&["dump"]);
        self.dumps.set(self.dumps.get() + 1);
        let file = self
            .folder
            .path()
            .join(format!("{COUNTS}.{}", self.dumps.get()));
        let text = fs::read_to_string(&file).expect("valgrind wrote its counts");
        text.lines()
            .find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok())
            .unwrap_or_else(|| panic!("{} has no total", file.display()))
    }
}

/// Valgrind, and the program that gives orders to a running one.
struct Valgrind {
    valgrind: PathBuf,
    vgdb: PathBuf,
    /// Where it finds its tools, if not where it was built for.
    library: Option<PathBuf>,
}

impl Valgrind {
    /// The installed one, or Debian's, unpacked.
    fn find() -> Self {
        let installed = |program: &str, question: &str| {
            let output = Command::new(program).arg(question).output();
            output.is_ok_and(|output| output.status.success())
        };
        if installed("valgrind", "--version") && installed("vgdb", "--help") {
            return Self {
                valgrind: "valgrind".into(),
                vgdb: "vgdb".into(),
                library: None,
            };
        }
        let tool = artifacts::tool("valgrind")
            .unwrap_or_else(|error| panic!("valgrind is needed to count instructions: {error}"));
        Self {
            // The program itself: Debian's script around it looks for it where it would be installed.
            valgrind: tool.root.join("usr/bin/valgrind.bin"),
            vgdb: tool.root.join("usr/bin/vgdb"),
            library: Some(tool.root.join("usr/libexec/valgrind")),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.valgrind);
        if let Some(library) = &self.library {
            command.env("VALGRIND_LIB", library);
        }
        command
    }
}

/// For people and programs: one line a variant.
pub(crate) fn print_table(counts: &[Count]) {
    let against = counts
        .iter()
        .find(|count| count.name == REFERENCE)
        .map(|count| (count.request, count.connection));
    println!("# instructions of a request, above no filter, and against {REFERENCE}");
    for count in counts {
        if count.is_baseline {
            println!("baseline {} {:.0}", count.name, count.request);
        } else {
            let ratio = ratio(count.request, against.map(|(request, _)| request));
            println!("variant {} {:.0} {ratio}", count.name, count.request);
        }
    }
    println!("# instructions of a new connection, above no filter, without its request");
    for count in counts {
        let what = if count.is_baseline {
            "baseline-connection"
        } else {
            "connection"
        };
        println!("{what} {} {:.0}", count.name, count.connection);
    }
}

fn ratio(cost: f64, against: Option<f64>) -> String {
    against.map_or_else(
        || "-".to_owned(),
        |against| format!("{:.2}", cost / against),
    )
}
