//! `./build.sh test --istio`: what the manifests and documents say, shown in a real Istio.

mod admission;
mod listeners;
mod loading;
mod manifests;
mod policies;
mod recipes;
mod smoke_test;
mod topologies;

use std::process::ExitCode;

use istio_lab::lab::Lab;
use istio_lab::report::{self, Test};

fn main() -> ExitCode {
    istio_lab::process::end_with_signals();
    let tests: Vec<Test<Lab>> = [
        manifests::TESTS,
        recipes::TESTS,
        loading::TESTS,
        listeners::TESTS,
        policies::TESTS,
        topologies::TESTS,
        smoke_test::TESTS,
        admission::TESTS,
    ]
    .concat();
    let mut lab = Lab::start();
    println!("Istio and an API server run; the tests begin");
    report::run(&tests, &mut lab, |lab, good| {
        if !good {
            println!("{}", lab.tails());
        }
        lab.clear();
    })
}
