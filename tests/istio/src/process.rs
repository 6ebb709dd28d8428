//! A program that runs in the background, with its log in a file, and ends with its handle.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::wait;

/// A running program.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program in a process group of its own; what it prints goes into `NAME.log` in the folder.
    ///
    /// # Panics
    /// Where it can't be run.
    #[must_use]
    pub fn start(name: &str, command: &mut Command, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).expect("a log can be written");
        let errors = file.try_clone().expect("it can be opened twice");
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} can't be run: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log,
        }
    }

    /// Everything that it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The end of its log, for people.
    #[must_use]
    pub fn tail(&self) -> String {
        tail(&self.name, &self.log())
    }

    /// Why it no longer runs, if so.
    ///
    /// # Errors
    /// Its status and the end of its log.
    pub fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(format!(
                "{} ended with {status}\n{}",
                self.name,
                self.tail()
            )),
            _ => Ok(()),
        }
    }

    /// Waits until something answers that shows it is ready.
    ///
    /// # Panics
    /// Where it ends before, or takes more than a minute.
    pub fn wait_until_ready(&mut self, mut ready: impl FnMut() -> Result<(), String>) {
        let what = format!("{} isn't ready", self.name);
        let result = wait::within(wait::PATIENCE, || {
            // What ended won't answer any more: a reason to stop, not to ask again.
            if let Err(reason) = self.check() {
                return Ok(Err(reason));
            }
            ready().map(Ok)
        });
        match result {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => panic!("{reason}"),
            Err(reason) => panic!("{what}: {reason}\n{}", self.tail()),
        }
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// Where it takes more than a minute.
    pub fn wait(&mut self) -> ExitStatus {
        let name = self.name.clone();
        wait::until(&name, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}")),
        })
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()).ok()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn tail(name: &str, log: &str) -> String {
    // A waiting test sends many requests: what they leave in the access log would hide everything else.
    let (requests, others): (Vec<&str>, Vec<&str>) = log
        .lines()
        .filter(|line| line.len() < 2000)
        .partition(|line| line.starts_with('['));
    let end = |lines: &[&str], count: usize| lines[lines.len().saturating_sub(count)..].join("\n");
    format!(
        "---- the end of {name}.log ----\n{}\n{}",
        end(&others, 25),
        end(&requests, 3)
    )
}

/// Has SIGINT and SIGTERM end this process: as the first of its namespace it would ignore them otherwise. What it started
/// ends with the namespace.
///
/// # Panics
/// Where signals can't be handled.
pub fn end_with_signals() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
        .expect("signals can be handled");
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            std::process::exit(130);
        }
    });
}
