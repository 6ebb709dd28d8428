//! Tests that run one after the other in one set-up, and what came of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// A test: a sentence, and what shows it.
pub type Test<World> = (&'static str, fn(&mut World));

/// Runs the tests whose sentence contains one of the words given on the command line, or all of them.
///
/// `after` tidies up, and tells more about the set-up where a test has failed.
pub fn run<World>(
    tests: &[Test<World>],
    world: &mut World,
    mut after: impl FnMut(&mut World, bool),
) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, test) in tests {
        if !words.is_empty() && !words.iter().any(|word| name.contains(word)) {
            continue;
        }
        let began = Instant::now();
        let good = catch_unwind(AssertUnwindSafe(|| test(world))).is_ok();
        let took = began.elapsed().as_secs_f64();
        println!(
            "{} {name} ({took:.1} s)",
            if good { "ok     " } else { "FAILED " }
        );
        if good {
            passed += 1;
        } else {
            failed.push(*name);
        }
        if catch_unwind(AssertUnwindSafe(|| after(world, good))).is_err() {
            println!("FAILED  tidying up after {name}; what follows isn't run");
            failed.push("tidying up");
            break;
        }
    }
    for name in &failed {
        println!("failed: {name}");
    }
    println!("{passed} passed, {} failed", failed.len());
    if failed.is_empty() && passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
