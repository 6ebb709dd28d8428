//! Where a request's instructions go, or those of taking a configuration: `./build.sh profile [--configure] WORKLOAD`. A
//! row of the budgets names a workload too, such as "policies: conditions of a route: a header".

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use testkit::wasm_host::{Module, Request, Vm};
use testkit::{cases, hcm, workloads};

/// A configuration, its environment and a request.
type Measured = (Value, BTreeMap<String, String>, Request);

/// The workload of the benches, or the case of the table, with this name.
fn measured(name: &str) -> Option<Measured> {
    for (file, groups) in cases::all() {
        for group in groups {
            for case in &group.cases {
                if name == format!("{file}: {}: {}", group.name, case.name) {
                    let request = hcm::received(&case.request, &group.gateway, &group.environment);
                    return Some((group.config, group.environment, request));
                }
            }
        }
    }
    let workload = workloads::all().into_iter().find(|one| one.name == name)?;
    let request = workloads::request(workload.peer);
    Some((workload.config, BTreeMap::new(), request))
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let all = arguments.len();
    arguments.retain(|argument| argument != "--configure");
    let configure = arguments.len() < all;
    let [module, workload] = arguments.as_slice() else {
        eprintln!("usage: ./build.sh profile [--configure] WORKLOAD\n");
        for workload in workloads::all() {
            eprintln!("  \"{}\"", workload.name);
        }
        std::process::exit(2);
    };
    let module = Module::load_profiling(Path::new(module)).expect("the module can be loaded");
    let Some((config, environment, request)) = measured(workload) else {
        eprintln!("error: there is no workload and no case named {workload:?}");
        std::process::exit(2);
    };
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let mut vm = Vm::new(&module, &environment);
    let accepted = vm.start(config.to_string().as_bytes());
    assert!(accepted.expect("no trap"), "{:?}", vm.take_logs());
    let mut before = BTreeMap::new();
    if !configure {
        vm.request(request.clone()).expect("no trap");
        before = vm.instructions_by_function();
        vm.request(request).expect("no trap");
    }
    let mut spent: Vec<(u64, String)> = vm
        .instructions_by_function()
        .into_iter()
        .map(|(name, count)| {
            let earlier = before.get(&name).copied().unwrap_or_default();
            (count - earlier, name)
        })
        .filter(|(count, _)| *count > 0)
        .collect();
    spent.sort_unstable_by(|a, b| b.cmp(a));
    let total: u64 = spent.iter().map(|(count, _)| count).sum();
    println!("{total:>8}  in all");
    for (count, name) in spent {
        println!(
            "{count:>8}  {}",
            name.split_once(':').map_or("", |(_, name)| name)
        );
    }
}
