//! The short form of `./build.sh soak`.

use std::time::Duration;

use testkit::soak::{self, Routes};

#[test]
fn under_load_configurations_and_endpoints_come_and_go_without_a_fault() {
    let report = soak::run(Duration::from_secs(16), Routes::Istio);
    println!("{report}");
    assert!(report.faults().is_empty(), "{report}");
}
