//! `migrate --compare`: the script and the configuration on the same requests, side by side.
//!
//! The script runs in [`super::sandbox`], the configuration in the engine itself; what each makes of a request is what the
//! upstream, or Envoy's router, would see.

use std::cell::Cell;
use std::fmt::Write as _;

use super::lua::Meaning;
use super::requests::{Tried, requests};
use super::sandbox::{self, Ran, Seen};
use crate::config::{self, Node};
use crate::engine::{Attribute, Engine, Operation, Request};

/// Runs of scripts in all, for every filter that is given.
pub(super) const MOST_RUNS: usize = 4_000;

/// One header that isn't the same after both.
struct Difference {
    header: String,
    lua: String,
    ours: String,
    why: &'static str,
    /// Nothing that this filter is for, and nothing that it doesn't do at all.
    unexplained: bool,
}

/// What became of one request.
struct Row {
    request: String,
    same: Vec<String>,
    differences: Vec<Difference>,
    error: Option<String>,
}

/// What the comparison is made of.
pub(super) struct Comparison {
    rows: Vec<Row>,
}

/// The request as the engine asks about it.
struct Asked<'s> {
    seen: &'s Seen,
}

impl Request for Asked<'_> {
    type Value = Vec<u8>;

    fn header_lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.seen
            .headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
    }

    fn attribute(&self, path: &str) -> Option<Vec<u8>> {
        let seen = self.seen;
        let attribute = Attribute::ALL
            .into_iter()
            .find(|attribute| attribute.path() == path)?;
        match attribute {
            Attribute::SourceAddress => Some(seen.peer.clone().into_bytes()),
            Attribute::DestinationPort => Some(8080_u64.to_le_bytes().to_vec()),
            Attribute::Protocol => Some(if seen.http2 {
                "HTTP/2".into()
            } else {
                "HTTP/1.1".into()
            }),
            Attribute::TlsVersion if seen.tls => Some("TLSv1.3".into()),
            Attribute::VirtualHostName if !seen.virtual_host.is_empty() => {
                Some(seen.virtual_host.clone().into_bytes())
            }
            Attribute::RouteName if !seen.route.is_empty() => Some(seen.route.clone().into_bytes()),
            _ => None,
        }
    }
}

/// Compares scripts and a configuration. `script` says which code runs for a request.
pub(super) fn compare(
    meaning: &Meaning,
    configuration: &Node,
    translated_in_part: &[String],
    scripts: &dyn Fn(&Seen) -> Vec<String>,
    left: &Cell<usize>,
) -> Result<Comparison, String> {
    if left.get() == 0 {
        return Err("too much has been compared already: give it in a file of its own".to_owned());
    }
    let loaded = config::load_document(configuration);
    let config = loaded.config.ok_or("the configuration isn't valid")?;
    let environment = |_: &str| Some("a secret that is not given here".to_owned());
    let engine = Engine::new(&config, &environment).map_err(|problems| {
        problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    })?;
    let mut rows = Vec::new();
    for tried in requests(meaning, configuration) {
        let mut lua = Ran {
            headers: tried.seen.headers.clone(),
            ..Ran::default()
        };
        for code in scripts(&tried.seen) {
            left.set(left.get().saturating_sub(1));
            let seen = Seen {
                headers: lua.headers.clone(),
                ..tried.seen.clone()
            };
            let ran = sandbox::run(&code, &seen);
            // One that runs on and on costs as much as many others.
            if ran
                .error
                .as_ref()
                .is_some_and(|error| error.contains(sandbox::NOT_RUN))
            {
                left.set(left.get().saturating_sub(MOST_RUNS / 100));
            }
            let error = lua.error.take().or(ran.error.clone());
            lua = Ran { error, ..ran };
            if lua.answered.is_some() {
                break;
            }
        }
        let asked = Asked { seen: &tried.seen };
        let decision = engine.decide(&asked);
        let mut ours = tried.seen.headers.clone();
        for operation in &decision.operations {
            match operation {
                Operation::Set { name, value } => {
                    ours.retain(|(known, _)| known != name);
                    ours.push(((*name).to_owned(), (*value).to_owned()));
                }
                Operation::Remove { name } => {
                    ours.retain(|(known, _)| known.as_bytes() != *name);
                }
            }
        }
        rows.push(row(&tried, &lua, &ours, translated_in_part));
        if left.get() == 0 {
            break;
        }
    }
    Ok(Comparison { rows })
}

/// Headers that say something even if they didn't change.
const SHOWN: &str = "x-forwarded-proto";

fn row(tried: &Tried, lua: &Ran, ours: &[(String, String)], translated_in_part: &[String]) -> Row {
    let before = &tried.seen.headers;
    let value = |headers: &[(String, String)], name: &str| {
        let all: Vec<&str> = headers
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .collect();
        (!all.is_empty()).then(|| all.join(","))
    };
    let mut names: Vec<&str> = before
        .iter()
        .chain(&lua.headers)
        .chain(ours)
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    let mut same = Vec::new();
    let mut differences = Vec::new();
    let absent = || "(absent)".to_owned();
    if let Some((status, location)) = &lua.answered {
        differences.push(Difference {
            header: "(answer)".to_owned(),
            lua: location
                .as_ref()
                .map_or_else(|| status.clone(), |to| format!("{status} {to}")),
            ours: "(passed on)".to_owned(),
            why: "the script answers itself",
            unexplained: false,
        });
        return Row {
            request: tried.what.clone(),
            same,
            differences,
            error: None,
        };
    }
    // What can't be run here says nothing about the translation.
    if lua
        .error
        .as_ref()
        .is_some_and(|error| error.contains(sandbox::NOT_RUN))
    {
        names.clear();
    }
    for name in names {
        let (was, theirs, mine) = (
            value(before, name),
            value(&lua.headers, name),
            value(ours, name),
        );
        let alike = match (&theirs, &mine) {
            (Some(a), Some(b)) if name.starts_with("x-envoy-") => words(a) == words(b),
            (a, b) => a == b,
        };
        if alike {
            if name == SHOWN || theirs != was {
                same.push(format!("{name}: {}", theirs.unwrap_or_else(absent)));
            }
            continue;
        }
        let (why, mut unexplained) = reason(
            tried,
            name,
            theirs.as_deref(),
            mine.as_deref(),
            was.as_deref(),
        );
        unexplained &= !translated_in_part.iter().any(|known| known == name);
        differences.push(Difference {
            header: name.to_owned(),
            lua: theirs.unwrap_or_else(absent),
            ours: mine.unwrap_or_else(absent),
            why,
            unexplained,
        });
    }
    Row {
        request: tried.what.clone(),
        same,
        differences,
        error: lua.error.clone(),
    }
}

/// The entries of a list, as Envoy reads them.
fn words(list: &str) -> Vec<String> {
    let mut words: Vec<String> = list
        .split(',')
        .map(|word| word.trim().to_ascii_lowercase())
        .filter(|word| !word.is_empty())
        .collect();
    words.sort();
    words
}

/// Why a header differs.
fn reason(
    tried: &Tried,
    name: &str,
    lua: Option<&str>,
    ours: Option<&str>,
    before: Option<&str>,
) -> (&'static str, bool) {
    let of_scheme = matches!(name, "x-forwarded-proto" | "x-forwarded-port" | ":scheme");
    if of_scheme && !tried.trusted {
        return ("not a trusted load balancer", false);
    }
    if name == ":scheme" && lua == before {
        return ("follows x-forwarded-proto (rewriteScheme)", false);
    }
    if name == "x-forwarded-proto" && lua.is_some_and(|value| value.contains(',')) {
        return ("the script's add makes a list", false);
    }
    if name == "x-forwarded-proto" && lua.is_none() {
        return ("never removed: Envoy finds no route without it", false);
    }
    if name == "x-forwarded-proto" && !lua.is_some_and(|value| matches!(value, "http" | "https")) {
        return ("neither http nor https", false);
    }
    if name.starts_with("x-envoy-") {
        let stream = tried.seen.headers.iter().any(|(name, _)| name == "upgrade");
        let post = tried
            .seen
            .headers
            .iter()
            .any(|(name, value)| name == ":method" && value == "POST");
        if stream && ours.is_none() {
            return ("upgrades have no timeout (streams)", false);
        }
        if post && ours.is_none() {
            return ("a POST isn't sent twice (retries.methods)", false);
        }
        if name == "x-envoy-retry-on" {
            return ("words that Envoy ignores are left out", false);
        }
        return ("not translated, see the notes", true);
    }
    if of_scheme {
        return ("not translated, see the notes", true);
    }
    if ours == before {
        return ("not written by trusted-lb", false);
    }
    if ours.is_none() && !tried.trusted {
        return ("removed from what isn't trusted", false);
    }
    ("not translated, see the notes", true)
}

impl Comparison {
    /// What is to be said if requests differ in a way that this filter isn't for.
    pub(super) fn doubt(&self) -> Option<String> {
        let differ = self
            .rows
            .iter()
            .filter(|row| {
                row.differences
                    .iter()
                    .any(|difference| difference.unexplained)
            })
            .count();
        (differ > 0).then(|| {
            format!(
                "the translation differs from the script in {differ} of {} requests that were tried: --compare shows which",
                self.rows.len()
            )
        })
    }

    /// The table.
    pub(super) fn table(&self) -> String {
        let heads = ["request", "header", "Lua filter", "trusted-lb", ""];
        let mut lines: Vec<[String; 5]> = vec![heads.map(str::to_owned)];
        let (mut stays, mut not_run) = (0, 0);
        for row in &self.rows {
            let mut first = Some(row.request.clone());
            let error = row.error.as_deref();
            if error.is_some_and(|error| error.contains(sandbox::NOT_RUN)) {
                not_run += 1;
                lines.push([
                    row.request.clone(),
                    "(error)".to_owned(),
                    shortened(error.unwrap_or_default()),
                    String::new(),
                    "can't be compared".to_owned(),
                ]);
                continue;
            }
            if row.differences.is_empty() {
                stays += 1;
            }
            for header in &row.same {
                let (name, value) = header.split_once(": ").unwrap_or((header, ""));
                lines.push([
                    first.take().unwrap_or_default(),
                    name.to_owned(),
                    shortened(value),
                    shortened(value),
                    "stays".to_owned(),
                ]);
            }
            for difference in &row.differences {
                lines.push([
                    first.take().unwrap_or_default(),
                    difference.header.clone(),
                    shortened(&difference.lua),
                    shortened(&difference.ours),
                    format!("changes: {}", difference.why),
                ]);
            }
            if let Some(request) = first {
                lines.push([
                    request,
                    "(nothing)".to_owned(),
                    String::new(),
                    String::new(),
                    "stays".to_owned(),
                ]);
            }
            if let Some(error) = error {
                lines.push([
                    String::new(),
                    "(error)".to_owned(),
                    shortened(error),
                    String::new(),
                    "the script stops here, as in Envoy".to_owned(),
                ]);
            }
        }
        let mut widths = [0; 4];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut out = String::new();
        for line in &lines {
            let mut text = String::new();
            for (index, cell) in line.iter().enumerate() {
                let width = widths.get(index).copied().unwrap_or(0);
                let _ = write!(text, "{cell:width$}  ");
            }
            out.push_str(text.trim_end());
            out.push('\n');
        }
        let all = self.rows.len();
        let _ = write!(
            out,
            "\n{all} requests: {stays} stay as they are, {} change",
            all - stays - not_run
        );
        if not_run > 0 {
            let _ = write!(out, ", {not_run} can't be compared");
        }
        out.push('\n');
        out
    }
}

fn shortened(text: &str) -> String {
    super::cut(text, 60)
}
