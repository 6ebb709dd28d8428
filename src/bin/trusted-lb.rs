//! Checks and explains configurations of trusted-lb.

fn main() -> std::process::ExitCode {
    trusted_lb::cli::run()
}
