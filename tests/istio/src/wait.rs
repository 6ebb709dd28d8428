//! Waiting for something to become true.

use std::time::{Duration, Instant};

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

const GLANCE: Duration = Duration::from_millis(30);

/// Asks again and again until there is an answer.
///
/// # Panics
/// After a minute, with the last reason why there was none.
pub fn until<T>(what: &str, ask: impl FnMut() -> Result<T, String>) -> T {
    within(PATIENCE, ask).unwrap_or_else(|reason| panic!("{what}: {reason}"))
}

/// As [`until`], for a condition.
///
/// # Panics
/// As [`until`].
pub fn until_true(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, || {
        holds()
            .then_some(())
            .ok_or_else(|| "it never came".to_owned())
    });
}

/// As [`until`], with an answer where time runs out.
///
/// # Errors
/// The last reason.
pub fn within<T>(
    patience: Duration,
    mut ask: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let deadline = Instant::now() + patience;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(reason) if Instant::now() > deadline => return Err(reason),
            Err(_) => std::thread::sleep(GLANCE),
        }
    }
}
