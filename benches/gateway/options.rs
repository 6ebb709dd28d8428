//! The command line of the bench.

use std::path::PathBuf;
use std::time::Duration;

const USAGE: &str = "usage: ./build.sh bench [--instructions [--budgets]] [OPTIONS]

  --instructions count the instructions of a whole Envoy with valgrind, in place of processor time
  --budgets      with --instructions: only what has a budget, and fail if one is exceeded
  --requests N   with --instructions: how many requests are counted (default 1000)
  --warm-up N    with --instructions: how many requests go before (default 20000)
  --rounds N     how often every variant gets a slice (default 9; quartiles need at least 5)
  --seconds S    how long a slice is (default 0.5)
  --connections N
                 how many requests are under way at once (default 16)
  --only NAME    this variant only; may be repeated
  --module NAME=FILE
                 one more variant: module-full's configuration with this module; may be repeated
  --svg FILE     write a picture of the result";

/// What was asked for.
pub(crate) struct Options {
    pub(crate) instructions: bool,
    pub(crate) budgets: bool,
    pub(crate) requests: u32,
    pub(crate) warm_up: u32,
    pub(crate) rounds: usize,
    pub(crate) slice: Duration,
    pub(crate) connections: usize,
    pub(crate) only: Vec<String>,
    pub(crate) modules: Vec<(String, PathBuf)>,
    pub(crate) svg: Option<PathBuf>,
}

impl Options {
    /// Those of the command line; ends the process if it asks for help or can't be understood.
    pub(crate) fn from_command_line() -> Self {
        Self::read(std::env::args().skip(1)).unwrap_or_else(|error| {
            eprintln!("error: {error}\n{USAGE}");
            std::process::exit(2);
        })
    }

    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            instructions: false,
            budgets: false,
            requests: 1_000,
            warm_up: 20_000,
            rounds: 9,
            slice: Duration::from_millis(500),
            connections: 16,
            only: Vec::new(),
            modules: Vec::new(),
            svg: None,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .ok_or_else(|| format!("{argument} needs a value"))
            };
            match argument.as_str() {
                "--help" | "-h" => {
                    println!("{USAGE}");
                    std::process::exit(0);
                }
                "--instructions" => options.instructions = true,
                "--budgets" => options.budgets = true,
                "--requests" => options.requests = number::<u32>(&argument, &value()?)?.max(1),
                "--warm-up" => options.warm_up = number(&argument, &value()?)?,
                "--rounds" => options.rounds = number::<usize>(&argument, &value()?)?.max(1),
                "--seconds" => {
                    let seconds: f64 = number(&argument, &value()?)?;
                    options.slice = Duration::try_from_secs_f64(seconds)
                        .ok()
                        .filter(|slice| !slice.is_zero())
                        .ok_or("--seconds takes a number above 0")?;
                }
                "--connections" => {
                    options.connections = number::<usize>(&argument, &value()?)?.max(1);
                }
                "--only" => options.only.push(value()?),
                "--module" => {
                    let value = value()?;
                    let (name, file) = value.split_once('=').ok_or("--module takes NAME=FILE")?;
                    options.modules.push((name.to_owned(), file.into()));
                }
                "--svg" => options.svg = Some(value()?.into()),
                other => return Err(format!("{other} is not an option")),
            }
        }
        if options.budgets && !options.instructions {
            return Err("--budgets are of --instructions".to_owned());
        }
        Ok(options)
    }
}

fn number<N: std::str::FromStr>(argument: &str, value: &str) -> Result<N, String> {
    value
        .parse()
        .map_err(|_| format!("{argument} takes a number"))
}
