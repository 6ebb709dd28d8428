//! The short form of `./build.sh soak`.

use std::time::Duration;

use testkit::soak;

#[test]
fn under_load_configurations_and_endpoints_come_and_go_without_a_fault() {
    let report = soak::run(Duration::from_secs(16));
    println!("{report}");
    assert!(report.faults().is_empty(), "{report}");
}
