//! The `log` crate's lines, sent to the proxy's log.
//!
//! The SDK has a logger too; it panics where the host doesn't take a line.

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::host;

struct HostLog;

static HOST_LOG: HostLog = HostLog;

/// Sends log lines to the host from now on. Its level can't be asked yet: while the module initializes, Envoy ends
/// it for any call but a few.
pub(super) fn install() {
    // Fails only where it is installed already.
    let _ = log::set_logger(&HOST_LOG);
    log::set_max_level(LevelFilter::Info);
}

/// Takes over the level that the host's log has now, so that lines below it cost nothing. Envoy's level can change
/// while it runs; asking again on every tick is enough.
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
            Level::Error => host::Level::Error,
            Level::Warn => host::Level::Warn,
            Level::Info => host::Level::Info,
            Level::Debug => host::Level::Debug,
            Level::Trace => host::Level::Trace,
        };
        host::log(level, &format!("trusted-lb: {}", record.args()));
    }

    fn flush(&self) {}
}
