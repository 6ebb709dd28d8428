//! `./build.sh soak SECONDS`: see [`testkit::soak`].

use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let Some(seconds) = seconds else {
        eprintln!("usage: soak SECONDS");
        return ExitCode::from(2);
    };
    let report = testkit::soak::run(Duration::from_secs(seconds));
    print!("{report}");
    if report.faults().is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
