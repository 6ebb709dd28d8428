//! `trusted-lb migrate`: from Lua filters that write x-forwarded-proto, timeouts and retries to the plugin that replaces
//! them.
//!
//! Scripts are read as Lua ([`lua`]) and translated as far as a configuration can say what they do ([`translate`]).
//! Everything else, in the script or around it ([`surroundings`]), is named with its place.

mod cases;
mod compare;
mod group;
mod input;
mod lua;
mod manifest;
mod requests;
mod sandbox;
mod surroundings;
mod translate;

use std::cell::Cell;

use super::args::MigrateArgs;
use super::files::{self, Source};
use super::{Failure, INVALID, usage};
use crate::config::{self, Node};
use group::{Group, by_exactness, cut};
use input::Input;
use lua::{Condition, Is, Meaning, Subject};
use surroundings::{Filter, Runs, Target};
use translate::{Wishes, combined, translate};

pub use sandbox::{NOT_RUN, Ran, Seen, run as run_script};

/// A pattern of Lua can take for ever, and nothing inside of Lua ends it.
const MOST_SECONDS: u64 = 60;

/// What is printed.
#[derive(Default)]
struct Answer {
    manifests: Vec<String>,
    /// What stays and what changes.
    tables: Vec<String>,
    remarks: Vec<String>,
    /// Why there is no answer at all.
    failure: Option<(u8, String)>,
}

/// Migrates the Lua filters of all files, and prints what replaces them.
pub(super) fn run(arguments: &MigrateArgs) -> Result<u8, Failure> {
    checked_options(arguments).map_err(usage)?;
    let mut texts: Vec<(String, String)> = Vec::new();
    for path in &arguments.files {
        let source = files::one(path).map_err(usage)?;
        texts.push((source.name, source.text));
    }
    let answer = lua::bounded(MOST_SECONDS, {
        let arguments = arguments.clone();
        move || answer(&texts, &arguments)
    })
    .unwrap_or_else(|why| Answer {
        failure: Some((INVALID, why)),
        ..Answer::default()
    });
    let printed = if arguments.compare {
        answer.tables.join("\n")
    } else {
        answer.manifests.join("---\n")
    };
    super::print(&printed)?;
    for remark in &answer.remarks {
        eprintln!("note: {remark}");
    }
    match answer.failure {
        Some((code, message)) => Err(Failure { code, message }),
        None => Ok(0),
    }
}

/// What is made of a text with the options' usual values.
pub(super) fn of_text(text: &str) -> (String, String) {
    let arguments = MigrateArgs {
        files: Vec::new(),
        ip_blocks: vec!["10.0.12.0/24".to_owned()],
        url: "oci://registry.example.com/trusted-lb:0".to_owned(),
        shadow: false,
        compare: false,
    };
    let texts = [("file".to_owned(), text.to_owned())];
    let answer = lua::bounded(MOST_SECONDS, move || answer(&texts, &arguments));
    let Ok(answer) = answer else {
        return Default::default();
    };
    let mut said = answer.remarks.join("\n");
    if let Some((_, why)) = answer.failure {
        said.push_str(&why);
    }
    (answer.manifests.join("---\n"), said)
}

/// Whether a script may change a request header. One that can't be read, or takes too long, is taken not to.
pub(super) fn writes(code: &str, header: &str) -> bool {
    const MOST_SECONDS: u64 = 5;
    // The name may be put together from parts.
    let last = header.rsplit('-').next().unwrap_or(header);
    if !code.to_ascii_lowercase().contains(last) {
        return false;
    }
    let (code, header) = (code.to_owned(), header.to_owned());
    let writes = lua::bounded(MOST_SECONDS, move || {
        lua::meaning(&code).is_ok_and(|meaning| {
            meaning
                .writes
                .iter()
                .any(|write| write.header.eq_ignore_ascii_case(&header))
        })
    });
    writes.unwrap_or(false)
}

/// Options whose values would make a translation that nothing loads.
fn checked_options(arguments: &MigrateArgs) -> Result<(), String> {
    for block in &arguments.ip_blocks {
        let tried = translate::object(vec![(
            "trustedLoadBalancers",
            Node::List(vec![translate::object(vec![
                ("name", translate::text("load-balancer")),
                (
                    "match",
                    translate::object(vec![("ipBlocks", Node::List(vec![translate::text(block)]))]),
                ),
                (
                    "forwardedProto",
                    translate::object(vec![("default", translate::text("https"))]),
                ),
            ])]),
        )]);
        if let Some(problem) = config::load_document(&tried).errors().next() {
            let help = problem
                .help
                .as_ref()
                .map(|help| format!(" ({help})"))
                .unwrap_or_default();
            return Err(format!("--ip-block: {}{help}", problem.message));
        }
    }
    let url = &arguments.url;
    let known = ["oci://", "http://", "https://", "file://"];
    let rest = known
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme))
        .unwrap_or(url);
    let plain = rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/' || c == '[')
        && !rest.contains("://")
        && rest.chars().all(|c| c.is_ascii_graphic());
    if !plain {
        return Err(format!(
            "--url: {url:?} is no place that Istio can get a module from; write oci://REGISTRY/IMAGE:TAG or https://…"
        ));
    }
    Ok(())
}

/// Lua filters that are translated at once.
const MOST_FILTERS: usize = 1_000;

fn answer(texts: &[(String, String)], arguments: &MigrateArgs) -> Answer {
    let mut answer = Answer::default();
    let mut places: Vec<(usize, Vec<Filter>)> = Vec::new();
    let sources: Vec<Source> = texts
        .iter()
        .map(|(name, text)| Source::new(name.as_str(), text.as_str()))
        .collect();
    for (index, source) in sources.iter().enumerate() {
        let input = match Input::of(source) {
            Ok(input) => input,
            Err(error) => {
                let at = error.span.start;
                let help = error
                    .help
                    .map(|help| format!(" ({help})"))
                    .unwrap_or_default();
                answer.failure = Some((
                    INVALID,
                    format!(
                        "{}:{}:{}: {}{help}",
                        source.name,
                        source.line(at),
                        source.column(at),
                        error.message
                    ),
                ));
                return answer;
            }
        };
        if input.filters.is_empty() {
            answer.failure = Some((INVALID, input.nothing(source)));
            return answer;
        }
        places.push((index, input.filters));
    }
    let number: usize = places.iter().map(|(_, filters)| filters.len()).sum();
    if number > MOST_FILTERS {
        answer.failure = Some((
            INVALID,
            format!(
                "there are {number} Lua filters here, of which {MOST_FILTERS} can be translated at once: give them in parts"
            ),
        ));
        return answer;
    }
    // Filters in one place are one plugin: of two plugins on a gateway the last would win.
    let mut groups: Vec<(usize, Vec<Filter>)> = Vec::new();
    for (index, filters) in places {
        for filter in filters {
            let known = groups.iter_mut().find(|(source, group)| {
                *source == index
                    && group
                        .first()
                        .is_some_and(|first| first.target == filter.target)
            });
            match known {
                Some((_, group)) => group.push(filter),
                None => groups.push((index, vec![filter])),
            }
        }
    }
    let left = Cell::new(compare::MOST_RUNS);
    let several = groups.len() > 1;
    let mut names: Vec<String> = Vec::new();
    for (index, group) in &groups {
        let Some(source) = sources.get(*index) else {
            continue;
        };
        let mut wanted = "trusted-lb".to_owned();
        if several && let Some(name) = group.first().and_then(|filter| filter.name.as_deref()) {
            wanted = format!("trusted-lb-{name}");
        }
        let mut name = wanted.clone();
        let mut number = 1;
        while names.contains(&name) {
            number += 1;
            name = format!("{wanted}-{number}");
        }
        names.push(name.clone());
        let migrated = migrated(source, group, &name, arguments, &left);
        answer.tables.extend(migrated.table);
        answer.manifests.extend(migrated.manifest);
        answer.remarks.extend(migrated.remarks);
    }
    if answer.manifests.is_empty() {
        let files: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
        answer.failure = Some((
            INVALID,
            format!("{}: nothing could be translated", files.join(", ")),
        ));
    }
    answer
}

struct Migrated {
    manifest: Option<String>,
    table: Option<String>,
    remarks: Vec<String>,
}

fn migrated(
    source: &Source,
    filters: &[Filter],
    name: &str,
    arguments: &MigrateArgs,
    left: &Cell<usize>,
) -> Migrated {
    let mut group = Group::new(source);
    let mut whole = Meaning::default();
    let mut wishes = Wishes {
        ip_blocks: arguments.ip_blocks.clone(),
        shadow: arguments.shadow,
        peer_address: None,
    };
    for filter in filters {
        group.note(&filter.notes);
        if wishes.peer_address.is_none() {
            wishes.peer_address.clone_from(&filter.peer_address);
        }
        let meaning = group.of_filter(filter);
        whole = combined(whole, meaning);
    }
    let translation = translate(&whole, &wishes);
    let mut remarks = group.remarks(&translation.remarks);
    let mut notes = translation.notes;
    notes.dedup();
    let (mut manifest, mut table) = (None, None);
    match (&translation.configuration, filters.first()) {
        (Some(configuration), Some(first)) => {
            match manifest::print(&first.target, name, &arguments.url, configuration) {
                Ok(printed) => manifest = Some(printed),
                Err(why) => notes.push(format!("the translation can't be written: {why}")),
            }
            if matches!(first.target, Target::Envoy(_)) {
                notes.push("this replaces the Lua filter in http_filters".to_owned());
            }
            let running = |seen: &Seen| running(filters, seen);
            let compared =
                compare::compare(&whole, configuration, &translation.named, &running, left);
            match compared {
                Ok(comparison) => {
                    notes.extend(comparison.doubt());
                    table = Some(format!(
                        "{}: {}\n\n{}",
                        source.name,
                        first.holder,
                        comparison.table()
                    ));
                }
                Err(why) => {
                    notes.push(format!(
                        "the translation can't be compared with the script: {why}"
                    ));
                }
            }
        }
        (None, Some(first)) => {
            notes.push(format!(
                "{}: nothing of it could be translated",
                first.holder
            ));
        }
        (_, None) => {}
    }
    remarks.extend(
        notes
            .into_iter()
            .map(|note| format!("{}: {note}", source.name)),
    );
    Migrated {
        manifest,
        table,
        remarks,
    }
}

/// The scripts that Envoy runs for a request, in their order.
fn running(filters: &[Filter], seen: &Seen) -> Vec<String> {
    let mut all = Vec::new();
    for filter in filters {
        let mut script = filter.everywhere.as_ref();
        for one in by_exactness(filter) {
            if !holds(&one.condition, seen) {
                continue;
            }
            script = match &one.runs {
                Runs::Nothing => None,
                Runs::Script(script) => Some(script),
                Runs::Named(name) => filter
                    .named
                    .iter()
                    .find(|(known, _)| known == name)
                    .map(|(_, script)| script),
            };
        }
        all.extend(script.map(|script| script.code.clone()));
    }
    all
}

/// Whether a virtual host's or route's condition holds for a request.
fn holds(condition: &Condition, seen: &Seen) -> bool {
    let header = |name: &str| {
        let found = seen.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    };
    let settled = condition.with(&|test| {
        let value = match &test.subject {
            Subject::VirtualHost => seen.virtual_host.as_str(),
            Subject::Route => seen.route.as_str(),
            Subject::Header(name) => header(name),
            _ => return Some(false),
        };
        Some(match &test.is {
            Is::Exact(wanted) => **wanted == *value,
            Is::Prefix(wanted) => value.starts_with(&**wanted),
            Is::Suffix(wanted) => value.ends_with(&**wanted),
            _ => false,
        })
    });
    settled == Condition::Always
}
