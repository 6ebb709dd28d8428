//! `./build.sh soak SECONDS [plain]`: see [`testkit::soak`].

use std::process::ExitCode;
use std::time::Duration;

use testkit::soak::{self, Routes};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (seconds, routes) = match arguments[..] {
        [seconds] => (seconds.parse(), Routes::Istio),
        [seconds, "plain"] => (seconds.parse(), Routes::Plain),
        _ => {
            eprintln!("usage: soak SECONDS [plain]");
            return ExitCode::from(2);
        }
    };
    let Ok(seconds) = seconds else {
        eprintln!("soak: {} is not a number of seconds", arguments[0]);
        return ExitCode::from(2);
    };
    let report = soak::run(Duration::from_secs(seconds), routes);
    print!("{report}");
    if report.faults().is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
