//! `migrate --compare`: the script and the configuration on the same requests, side by side.
//!
//! The script runs in [`super::sandbox`], the configuration in the engine itself; what each makes of a request is what the
//! upstream, or Envoy's router, would see.

use std::cell::Cell;
use std::fmt::Write as _;
use std::net::IpAddr;

use super::lua::{Is, Meaning, Subject, Test, Value};
use super::sandbox::{self, Ran, Seen};
use crate::config::{self, Node};
use crate::engine::{Attribute, Engine, Operation, Request};

/// Requests that are compared at most.
const MOST_REQUESTS: usize = 240;
/// Runs of scripts in all, for every filter that is given.
pub(super) const MOST_RUNS: usize = 4_000;
/// Conditions of the script that are tried together in pairs.
const MOST_PAIRED: usize = 6;

/// A request that is compared.
struct Tried {
    /// What is special about it.
    what: String,
    trusted: bool,
    seen: Seen,
}

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
        let mut stays = 0;
        for row in &self.rows {
            let mut first = Some(row.request.clone());
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
            if let Some(error) = &row.error {
                lines.push([
                    String::new(),
                    "(error)".to_owned(),
                    shortened(error),
                    String::new(),
                    if error.contains(sandbox::NOT_RUN) {
                        "can't be compared".to_owned()
                    } else {
                        "the script stops here, as in Envoy".to_owned()
                    },
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
        let _ = writeln!(
            out,
            "\n{all} requests: {stays} stay as they are, {} change",
            all - stays
        );
        out
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("{}…", text.get(..cut).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Something that is changed about a plain request.
#[derive(Clone)]
enum Change {
    Header(String, Option<String>),
    Peer(String),
    VirtualHost(String),
    Route(String),
}

/// The address of somebody whom nothing trusts.
const STRANGER: &str = "203.0.113.9";

/// Requests that the script treats in different ways, from the load balancer and from others.
fn requests(meaning: &Meaning, configuration: &Node) -> Vec<Tried> {
    let changes = changes(meaning);
    let mut sets: Vec<Vec<Change>> = vec![Vec::new()];
    sets.extend(changes.iter().map(|change| vec![change.clone()]));
    if changes.len() <= MOST_PAIRED {
        for (index, a) in changes.iter().enumerate() {
            for b in changes.iter().skip(index + 1) {
                if subject(a) != subject(b) {
                    sets.push(vec![a.clone(), b.clone()]);
                }
            }
        }
    }
    if configuration.get("defaults").is_some() || configuration.get("routes").is_some() {
        sets.push(vec![Change::Header(
            ":method".to_owned(),
            Some("POST".to_owned()),
        )]);
        sets.push(vec![
            Change::Header("connection".to_owned(), Some("upgrade".to_owned())),
            Change::Header("upgrade".to_owned(), Some("websocket".to_owned())),
        ]);
    }
    let trusts = configuration.get("trustedLoadBalancers").is_some();
    let mut all = Vec::new();
    for set in sets {
        let peers: &[bool] = if trusts { &[true, false] } else { &[false] };
        for trusted in peers {
            for tls in [false, true] {
                // TLS up to the gateway is tried once a peer.
                if (tls && !set.is_empty()) || all.len() >= MOST_REQUESTS {
                    continue;
                }
                all.push(request(&set, *trusted, tls, configuration, trusts));
            }
        }
    }
    all
}

fn subject(change: &Change) -> &str {
    match change {
        Change::Header(name, _) => name,
        Change::Peer(_) => "peer",
        Change::VirtualHost(_) => "virtual host",
        Change::Route(_) => "route",
    }
}

fn request(set: &[Change], trusted: bool, tls: bool, configuration: &Node, trusts: bool) -> Tried {
    let mut peer = if trusted {
        trusted_address(configuration).unwrap_or_else(|| STRANGER.to_owned())
    } else {
        STRANGER.to_owned()
    };
    let scheme = if tls { "https" } else { "http" };
    let mut headers: Vec<(String, String)> = [
        (":method", "GET"),
        (":scheme", scheme),
        (":authority", "app.example.com"),
        (":path", "/"),
        ("x-forwarded-proto", scheme),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    let who = match (trusts, trusted) {
        (false, _) => "anybody",
        (true, true) => "load balancer",
        (true, false) => "anybody else",
    };
    let mut what = format!("{who}, {scheme}");
    let (mut virtual_host, mut route) = (String::new(), String::new());
    for change in set {
        match change {
            Change::Header(name, value) => {
                headers.retain(|(known, _)| known != name);
                if let Some(value) = value {
                    headers.push((name.clone(), value.clone()));
                    let _ = write!(what, ", {name}: {value}");
                } else {
                    let _ = write!(what, ", no {name}");
                }
            }
            Change::Peer(address) => {
                peer.clone_from(address);
                let _ = write!(what, ", from {address}");
            }
            Change::VirtualHost(name) => {
                virtual_host.clone_from(name);
                let host = name.split(':').next().unwrap_or_default();
                headers.retain(|(known, _)| known != ":authority");
                headers.push((":authority".to_owned(), host.to_owned()));
                let _ = write!(what, ", virtual host {name}");
            }
            Change::Route(name) => {
                route.clone_from(name);
                let _ = write!(what, ", route {name}");
            }
        }
    }
    headers.push(("x-forwarded-for".to_owned(), format!("198.51.100.7,{peer}")));
    let port = if peer.contains(':') {
        format!("[{peer}]:40000")
    } else {
        format!("{peer}:40000")
    };
    Tried {
        what,
        trusted,
        seen: Seen {
            headers,
            peer: port,
            tls,
            http2: false,
            route,
            virtual_host,
        },
    }
}

/// An address that the first rule trusts.
fn trusted_address(configuration: &Node) -> Option<String> {
    let Node::List(rules) = configuration.get("trustedLoadBalancers")? else {
        return None;
    };
    let Node::List(blocks) = rules.first()?.get("match")?.get("ipBlocks")? else {
        return None;
    };
    let Node::Text(block) = blocks.first()? else {
        return None;
    };
    if block.starts_with('@') {
        let known = config::named(block)?;
        return known.blocks.first().and_then(|block| inside(block));
    }
    inside(block)
}

/// An address inside of a block.
fn inside(block: &str) -> Option<String> {
    let address: IpAddr = block.split('/').next()?.parse().ok()?;
    let whole = !block.contains('/')
        || block.ends_with("/32")
        || block.ends_with("/31")
        || block.ends_with("/128");
    Some(match address {
        _ if whole => address.to_string(),
        IpAddr::V4(v4) => std::net::Ipv4Addr::from(u32::from(v4).saturating_add(1)).to_string(),
        IpAddr::V6(v6) => std::net::Ipv6Addr::from(u128::from(v6).saturating_add(1)).to_string(),
    })
}

/// What the script looks at, as changes of a request that it would treat in another way.
fn changes(meaning: &Meaning) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    let mut tests: Vec<std::rc::Rc<Test>> = Vec::new();
    let mut copied: Vec<String> = meaning.read.iter().map(ToString::to_string).collect();
    for value in meaning.headers.values() {
        visit(value, &mut tests, &mut copied, 0);
    }
    for (condition, _) in &meaning.answers {
        condition.tests(&mut |test| tests.push(std::rc::Rc::clone(test)));
    }
    let mut add = |change: Change| {
        let known = changes.iter().any(|other| match (other, &change) {
            (Change::Header(a, b), Change::Header(c, d)) => a == c && b == d,
            (Change::Peer(a), Change::Peer(b))
            | (Change::VirtualHost(a), Change::VirtualHost(b))
            | (Change::Route(a), Change::Route(b)) => a == b,
            _ => false,
        });
        if !known {
            changes.push(change);
        }
    };
    for test in &tests {
        match (&test.subject, &test.is) {
            (Subject::Header(name), _)
                if matches!(&**name, ":scheme" | "x-forwarded-proto" | ":method") =>
            {
                if let (":method", Is::Exact(method)) = (&**name, &test.is) {
                    add(Change::Header(name.to_string(), Some(method.to_string())));
                }
            }
            (Subject::Header(name), is) => {
                let header = |value: String| Change::Header(name.to_string(), Some(value));
                match is {
                    Is::Exact(value) | Is::Folded(value) => add(header(value.to_string())),
                    Is::Prefix(value) if &**name == ":path" => {
                        add(header(format!(
                            "{value}{}below",
                            if value.ends_with('/') { "" } else { "/" }
                        )));
                        if !value.ends_with('/') {
                            add(header(format!("{value}x")));
                        }
                    }
                    Is::Prefix(value) => add(header(format!("{value}x"))),
                    Is::Suffix(value) => {
                        let front = if &**name == ":path" { "/x" } else { "x" };
                        add(header(format!("{front}{value}")));
                    }
                    Is::Contains(_) if well_formed(name).is_some() => {}
                    Is::Contains(value) => {
                        let front = if &**name == ":path" { "/a" } else { "a" };
                        add(header(format!("{front}{value}b")));
                    }
                    _ => {}
                }
            }
            (Subject::Peer, Is::Exact(address)) => {
                let address = address
                    .parse::<std::net::SocketAddr>()
                    .map_or_else(|_| address.to_string(), |socket| socket.ip().to_string());
                add(Change::Peer(address));
            }
            (Subject::Peer, Is::Prefix(prefix)) => {
                let count = prefix.matches('.').count();
                add(Change::Peer(format!(
                    "{prefix}{}1",
                    "0.".repeat(3_usize.saturating_sub(count))
                )));
            }
            (Subject::VirtualHost, Is::Exact(name)) => add(Change::VirtualHost(name.to_string())),
            (Subject::Route, Is::Exact(name)) => add(Change::Route(name.to_string())),
            _ => {}
        }
    }
    for name in copied {
        if name.starts_with(':') || name == "x-forwarded-proto" || name == "x-forwarded-for" {
            continue;
        }
        let values = match well_formed(&name) {
            Some(values) => values,
            None if name.starts_with("x-envoy-") => &["1000"],
            None => &["https", "http", "1"],
        };
        for value in values {
            add(Change::Header(name.clone(), Some((*value).to_owned())));
        }
    }
    changes
}

/// Values of a header that has a form of its own.
fn well_formed(name: &str) -> Option<&'static [&'static str]> {
    match name {
        "cf-visitor" => Some(&[r#"{"scheme":"https"}"#, r#"{"scheme":"http"}"#]),
        "forwarded" => Some(&["for=192.0.2.43;proto=https", "for=192.0.2.43;proto=http"]),
        _ => None,
    }
}

fn visit(
    value: &Value,
    tests: &mut Vec<std::rc::Rc<Test>>,
    copied: &mut Vec<String>,
    depth: usize,
) {
    // Values share their parts: what is found this deep was found before.
    if tests.len() > 400 || depth > 400 {
        return;
    }
    match value {
        Value::Either(condition, yes, no) => {
            condition.tests(&mut |test| {
                if !tests.contains(test) {
                    tests.push(std::rc::Rc::clone(test));
                }
            });
            visit(yes, tests, copied, depth + 1);
            visit(no, tests, copied, depth + 1);
        }
        Value::Asked(asked) => {
            if let Subject::Header(name) = &asked.subject
                && asked.span != (0..0)
                && !copied.iter().any(|known| **known == **name)
            {
                copied.push(name.to_string());
            }
        }
        _ => {}
    }
}
