//! Sends the lines of the `log` crate to the proxy's log.
//!
//! The `proxy-wasm` crate has a logger too, but it panics if the host refuses a line.

use log::{Level, LevelFilter, Log, Metadata, Record};
use proxy_wasm::types::LogLevel;

use super::host;

struct HostLog;

static HOST_LOG: HostLog = HostLog;

/// Sends log lines to the host from now on, at level info and above.
///
/// The host's own level can't be asked for yet: while a module initializes, Envoy ends it for any host call but
/// a few.
pub(super) fn install() {
    // This fails only if a logger is installed already.
    let _ = log::set_logger(&HOST_LOG);
    log::set_max_level(LevelFilter::Info);
}

/// Takes over the level of the host's log, so that lines below it cost nothing.
///
/// Envoy's level can change while it runs. It is enough to ask again at every tick.
pub(super) fn follow_host_level() {
    let level = match host::log_level() {
        Ok(0) => LevelFilter::Trace,
        Ok(1) => LevelFilter::Debug,
        Ok(2) | Err(_) => LevelFilter::Info,
        Ok(3) => LevelFilter::Warn,
        Ok(4) => LevelFilter::Error,
        Ok(_) => LevelFilter::Off,
    };
    log::set_max_level(level);
}

impl Log for HostLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = match record.level() {
            Level::Error => LogLevel::Error,
            Level::Warn => LogLevel::Warn,
            Level::Info => LogLevel::Info,
            Level::Debug => LogLevel::Debug,
            Level::Trace => LogLevel::Trace,
        };
        host::log(level, &format!("trusted-lb: {}", record.args()));
    }

    fn flush(&self) {}
}
