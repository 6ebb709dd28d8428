//! Where a request's instructions go, or those of taking a configuration: `./build.sh profile [--configure] WORKLOAD`.

use std::collections::BTreeMap;
use std::path::Path;

use testkit::wasm_host::{Module, Vm};
use testkit::workloads;

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
    let workload = workloads::named(workload);
    let mut vm = Vm::new(&module, &[]);
    let accepted = vm.start(workload.config.to_string().as_bytes());
    assert!(accepted.expect("no trap"), "{:?}", vm.take_logs());
    let mut before = BTreeMap::new();
    if !configure {
        let request = workloads::request(workload.peer);
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
