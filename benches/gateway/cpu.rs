//! What a request costs in processor time, and how much that varies.
//!
//! One Envoy with one worker, pinned to one core; one listener a variant. The load comes from the other core. Variants take
//! turns in short slices and random order, with a slice of the listener without a filter after every second one; what a
//! slice costs is the processor time of all Envoy threads by the scheduler's account, divided by the requests answered,
//! less what the baselines beside it cost. So neither the machine's mood nor the load generator enters.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use testkit::envoy::Envoy;
use testkit::gateway::{Listener, bootstrap};

use crate::load::Load;
use crate::options::Options;
use crate::variants::{BASELINE, BASELINE_HOSTS, Variant};

/// What is said at the end: the first over the second.
const RATIOS: &[(&str, &str)] = &[
    ("module-full", "lua-full-job"),
    ("module-xfp", "lua-one-liner"),
    ("module-untrusted", "lua-one-liner"),
    ("module-full", "module-floor"),
    ("native-full", "lua-full-job"),
    ("native-xfp", "lua-one-liner"),
    ("module-full-500-hosts", "lua-full-job-500-hosts"),
    ("module-xfp-500-hosts", "lua-one-liner-500-hosts"),
];

/// Median and quartiles of a variant, µs a request above its baseline; of a baseline, in all.
pub(crate) struct Cost {
    pub(crate) name: String,
    pub(crate) is_baseline: bool,
    pub(crate) quartiles: [f64; 3],
}

/// Measures every variant in turns.
pub(crate) fn measure(variants: &[Variant], options: &Options) -> Vec<Cost> {
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
        run(load, Duration::from_millis(300), &envoy);
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
            let mut before = run(&mut loads[base], options.slice, &envoy);
            for two in order.chunks(2) {
                let raw: Vec<f64> = two
                    .iter()
                    .map(|index| run(&mut loads[*index], options.slice, &envoy))
                    .collect();
                let after = run(&mut loads[base], options.slice, &envoy);
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
                is_baseline: variant.is_baseline(),
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

/// Repeats the request on every connection for a while. What one cost, in µs.
fn run(load: &mut Load, time: Duration, envoy: &Envoy) -> f64 {
    let mut answered = 0;
    let began = Instant::now();
    let before = processor_time(envoy);
    while began.elapsed() < time {
        answered += load.ask_all();
    }
    let spent = processor_time(envoy).saturating_sub(before);
    spent.as_secs_f64() * 1e6 / f64::from(answered)
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

/// A row for each variant, and the ratios.
pub(crate) fn print_table(costs: &[Cost]) {
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
