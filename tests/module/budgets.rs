//! What a request costs, in numbers that don't depend on the machine: host calls, entries into the module (callbacks for
//! memory included) and executed instructions, for every case of the table and every workload of the benches.
//!
//! The numbers are in `tests/module/budgets.txt`, and may fall but not grow. If they were meant to change,
//! `./build.sh bless` writes the new ones.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::json;
use testkit::wasm_host::{Module, Outcome, Vm};
use testkit::{artifacts, cases, hcm, workloads};

fn module() -> &'static Module {
    static MODULE: OnceLock<Module> = OnceLock::new();
    MODULE.get_or_init(|| {
        Module::load_counting(artifacts::module()).expect("the built module is valid")
    })
}

/// Instructions differ a little from one compiler to another.
const TOLERANCE_PERCENT: u64 = 5;

/// What one request costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    calls: u64,
    /// Host calls left out, the module was entered this often; allocations included.
    entries: u64,
    allocations: u64,
    instructions: u64,
}

impl Cost {
    fn of(outcome: &Outcome) -> Self {
        let count = |number: usize| u64::try_from(number).expect("it is small");
        let allocations = outcome
            .entries
            .iter()
            .filter(|entry| **entry == "proxy_on_memory_allocate")
            .count();
        Self {
            calls: count(outcome.calls.len()),
            entries: count(outcome.entries.len()),
            allocations: count(allocations),
            instructions: outcome.instructions,
        }
    }
}

/// The second of two equal requests: what is done once in a VM's life is not counted.
fn warm(vm: &mut Vm, request: &testkit::wasm_host::Request) -> Outcome {
    vm.request(request.clone()).expect("no trap");
    vm.request(request.clone()).expect("no trap")
}

fn started(config: &serde_json::Value, environment: &BTreeMap<String, String>) -> Vm {
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let mut vm = Vm::new(module(), &environment);
    assert!(
        vm.start(config.to_string().as_bytes()).expect("no trap"),
        "{:?}",
        vm.take_logs()
    );
    vm
}

fn of_workload(name: &str) -> Outcome {
    let workload = workloads::named(name);
    let mut vm = started(&workload.config, &BTreeMap::new());
    warm(&mut vm, &workloads::request(workload.peer))
}

fn measured() -> Vec<(String, Cost)> {
    let mut costs = Vec::new();
    for workload in workloads::all() {
        costs.push((
            format!("workload: {}", workload.name),
            Cost::of(&of_workload(workload.name)),
        ));
    }
    for (file, groups) in cases::all() {
        for group in groups {
            let mut vm = started(&group.config, &group.environment);
            for case in &group.cases {
                let request = hcm::received(&case.request, &group.gateway, &group.environment);
                let name = format!("{file}: {}: {}", group.name, case.name);
                costs.push((name, Cost::of(&warm(&mut vm, &request))));
            }
        }
    }
    costs
}

const FILE: &str = "tests/module/budgets.txt";
const HEAD: &str =
    "# host calls, entries into the module, allocation callbacks among them, instructions \n";

fn written(costs: &[(String, Cost)]) -> String {
    let mut text = HEAD.to_owned();
    for (name, cost) in costs {
        text.push_str(&workloads::row(
            name,
            &[
                cost.calls,
                cost.entries,
                cost.allocations,
                cost.instructions,
            ],
        ));
        text.push('\n');
    }
    text
}

fn read(text: &str) -> BTreeMap<String, Cost> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut words: Vec<&str> = line.split_whitespace().collect();
            let numbers: Vec<u64> = words
                .split_off(words.len() - 4)
                .iter()
                .map(|number| number.parse().expect("a number"))
                .collect();
            let [calls, entries, allocations, instructions] = numbers[..] else {
                panic!("{line}");
            };
            (
                words.join(" "),
                Cost {
                    calls,
                    entries,
                    allocations,
                    instructions,
                },
            )
        })
        .collect()
}

#[test]
fn no_request_costs_more_than_it_did() {
    let costs = measured();
    let path = artifacts::repository().join(FILE);
    if std::env::var("BUDGETS").as_deref() == Ok("overwrite") {
        std::fs::write(&path, written(&costs)).expect("the budgets can be written");
    }
    let budgets = read(&std::fs::read_to_string(&path).expect("the budgets are there"));
    let mut wrong = Vec::new();
    for (name, cost) in &costs {
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        match budgets.get(&name) {
            None => wrong.push(format!("{name}: no budget yet; found {cost:?}")),
            Some(budget)
                if cost.calls > budget.calls
                    || cost.entries > budget.entries
                    || cost.allocations > budget.allocations
                    || cost.instructions
                        > budget.instructions * (100 + TOLERANCE_PERCENT) / 100 =>
            {
                wrong.push(format!("{name}: {budget:?} grew to {cost:?}"));
            }
            Some(_) => {}
        }
    }
    assert_eq!(
        budgets.len(),
        costs.len(),
        "there are budgets for cases that are gone"
    );
    assert!(
        wrong.is_empty(),
        "{}\n./build.sh bless takes over the new numbers",
        wrong.join("\n")
    );
}

const PAIRS: &str = "proxy_get_header_map_pairs";
const PROPERTY: &str = "proxy_get_property";
const SET: &str = "proxy_replace_header_map_value";
const REMOVE: &str = "proxy_remove_header_map_value";

/// Whatever is asked of Envoy is on these lists: all headers in one call, which find underscore variants and duplicates;
/// the peer; the protocol, where `:scheme` depends on it; whether the connection is TLS, where nobody is trusted.
#[test]
fn a_request_asks_and_writes_what_the_rules_of_trust_demand_and_nothing_else() {
    for (workload, calls) in [
        ("xfp only", &[PAIRS, PROPERTY, SET][..]),
        ("xfp only, auto", &[PAIRS, PROPERTY, SET]),
        ("xfp and :scheme", &[PAIRS, PROPERTY, PROPERTY, SET, SET]),
        // It sends an x-forwarded-port of its own.
        ("untrusted", &[PAIRS, PROPERTY, PROPERTY, REMOVE]),
        ("full job", &[PAIRS, PROPERTY, SET, SET, SET, SET, SET, SET]),
        (
            "full job, rewriteScheme: auto",
            &[PAIRS, PROPERTY, PROPERTY, SET, SET, SET, SET, SET, SET],
        ),
    ] {
        let outcome = of_workload(workload);
        assert_eq!(outcome.calls, calls, "{workload}");
        let cost = Cost::of(&outcome);
        assert!(cost.allocations <= 3, "{workload}: {cost:?}");
        // A stream begins, its headers come, it ends.
        assert_eq!(cost.entries, 3 + cost.allocations, "{workload}");
    }
}

/// Finding the block costs 350 instructions more, and libc's allocator 600 more, because a large configuration leaves it a
/// longer list of free blocks to look through.
#[test]
fn ten_thousand_blocks_and_a_thousand_routes_cost_what_one_does() {
    for (one, many) in [("1 block", "10,000 blocks"), ("1 route", "1,000 routes")] {
        let (one, many) = (Cost::of(&of_workload(one)), Cost::of(&of_workload(many)));
        assert!(
            many.instructions * 100 <= one.instructions * 115,
            "{many:?} is more than 15 % above {one:?}"
        );
        assert_eq!(one.calls, many.calls);
    }
}

/// Configurations of a size that nobody writes by hand. On a slow machine Envoy took up to 13 and 35 ms for these two
/// (`docs/performance.md`), in which that worker serves nobody.
#[test]
fn a_large_configuration_is_taken_in_less_than_150_million_instructions() {
    for (name, most) in [
        ("1 block", 400_000),
        ("10,000 blocks", 125_000_000),
        ("1,000 routes", 150_000_000),
    ] {
        let vm = started(&workloads::named(name).config, &BTreeMap::new());
        let spent = vm.instructions();
        assert!(spent > 0 && spent < most, "{name}: {spent}");
    }
}

/// Each rule and route is compared with those in front of it, for a warning, only as long as that is quick.
#[test]
fn four_times_the_rules_and_routes_take_no_more_than_eight_times_the_instructions() {
    let spent = |count: usize| {
        let all = || (0..count).map(|n| format!("h{n}.example.com"));
        let rule = |host: String| {
            json!({
                "name": host, "match": {"ipBlocks": ["10.0.0.0/8"], "hosts": [host]}, "forwardedProto": {"default": "https"},
            })
        };
        let route =
            |host: String| json!({"name": host, "match": {"hosts": [host]}, "timeout": "1s"});
        let rules: Vec<_> = all().map(rule).collect();
        let routes: Vec<_> = all().map(route).collect();
        let config = json!({"trustedLoadBalancers": rules, "routes": routes});
        started(&config, &BTreeMap::new()).instructions()
    };
    let (few, many) = (spent(500), spent(2_000));
    assert!(many < few * 8, "{few} and {many}");
}

#[test]
fn a_spelling_on_ninety_lines_is_removed_by_one_call() {
    let workload = workloads::named("untrusted");
    let mut vm = started(&workload.config, &BTreeMap::new());
    let mut request = workloads::request(workload.peer);
    let removals = |outcome: Outcome| {
        let calls = outcome.calls.into_iter();
        calls.filter(|call| *call == REMOVE).count()
    };
    let before = removals(vm.request(request.clone()).expect("no trap"));
    for _ in 0..90 {
        let line = (b"x_forwarded_proto".to_vec(), b"https".to_vec());
        request.headers.push(line);
    }
    let outcome = vm.request(request).expect("no trap");
    assert_eq!(outcome.values("x_forwarded_proto"), [b""; 0]);
    assert_eq!(removals(outcome), before + 1);
}
