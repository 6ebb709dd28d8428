//! Scripts in Envoy's own Lua filter and in `migrate --compare`: each leaves the same headers behind.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use serde::Deserialize;
use serde_json::{Value, json};
use testkit::cases::ClientRequest;
use testkit::envoy::Envoy;
use testkit::gateway::{Listener, bootstrap, merge, typed};
use testkit::http;
use testkit::upstream::Upstream;
use trusted_lb::cli::lua_filter::{NOT_RUN, Seen, run_script};

#[derive(Deserialize)]
struct Script {
    name: String,
    #[serde(rename = "script")]
    code: String,
    /// Lines of every request, beside those that the script asks about.
    #[serde(default)]
    headers: Vec<(String, String)>,
}

impl Script {
    /// In which order `pairs` goes over a table is different from process to process.
    fn any_order(&self) -> bool {
        self.code.contains(" pairs(") || self.code.contains(" next,")
    }
}

/// Scripts that Envoy refuses, so that there is nothing to compare.
const REFUSED: &[&str] = &[
    "what isn't Lua",
    "a character that isn't Lua's",
    "an empty script",
    "a module and the environment",
];

fn scripts() -> Vec<Script> {
    [
        include_str!("lua/handle.yaml"),
        include_str!("../cli/migrate/scripts/forms.yaml"),
        include_str!("../cli/migrate/scripts/idioms.yaml"),
    ]
    .into_iter()
    .flat_map(|file| serde_saphyr::from_str::<Vec<Script>>(file).expect("the scripts are readable"))
    .filter(|script| !REFUSED.contains(&script.name.as_str()))
    .map(|script| Script {
        // The load balancer of the scripts, on this machine.
        code: script
            .code
            .replace("10%.0%.12%.", "127%.0%.0%.")
            .replace("10.0.12.", "127.0.0."),
        ..script
    })
    .collect()
}

/// Keeps what the request is before the script, in Envoy's dynamic metadata.
const BEFORE: &str = r#"
function envoy_on_request(handle)
  local lines = {}
  for name, value in pairs(handle:headers()) do table.insert(lines, name .. "\1" .. value) end
  handle:streamInfo():dynamicMetadata():set("before", "lines", table.concat(lines, "\2"))
end
"#;

/// Answers with what the request was before the script, what it is now, and whose it is.
const AFTER: &str = r#"
function envoy_on_request(handle)
  local lines = {}
  for name, value in pairs(handle:headers()) do table.insert(lines, name .. "\1" .. value) end
  local before = handle:streamInfo():dynamicMetadata():get("before")["lines"]
  local peer = handle:streamInfo():downstreamDirectRemoteAddress()
  handle:respond({[":status"] = "299"}, before .. "\3" .. table.concat(lines, "\2") .. "\3" .. peer)
end
"#;

fn lua(name: &str, script: &str) -> Value {
    let mut config = typed("extensions.filters.http.lua.v3.Lua");
    merge(
        &mut config,
        json!({"default_source_code": {"inline_string": script}}),
    );
    json!({"name": name, "typed_config": config})
}

/// The texts in quotes, of which those that a header is asked for by name are that name.
fn literals(script: &str) -> (Vec<String>, Vec<String>) {
    let (mut names, mut others) = (BTreeSet::new(), BTreeSet::new());
    let mut rest = script;
    while let Some(at) = rest.find(['"', '\'']) {
        let quote = rest.get(at..=at).expect("it is there").to_owned();
        let before = rest.get(..at).expect("it is in front of it").to_owned();
        rest = rest.get(at + 1..).expect("it is behind it");
        let Some(end) = rest.find(quote.as_str()) else {
            break;
        };
        let text = rest.get(..end).expect("it ends there");
        rest = rest.get(end + 1..).expect("it is behind it");
        let asked = ["get(", "getNumValues(", "getAtIndex("]
            .iter()
            .any(|method| before.ends_with(method));
        let plain = text
            .chars()
            .all(|c| c.is_ascii_graphic() && !"\\^$%()[]*+".contains(c));
        match (asked, plain && !text.is_empty()) {
            (true, true) => drop(names.insert(text.to_ascii_lowercase())),
            (false, true) => drop(others.insert(text.to_owned())),
            (_, false) => {}
        }
    }
    (names.into_iter().collect(), others.into_iter().collect())
}

/// Envoy answers in another form to gRPC.
const GRPC: &str = "application/grpc";

const MOST_REQUESTS: usize = 30;

/// Requests that differ in what the script asks about.
fn requests(script: &Script) -> Vec<ClientRequest> {
    let peer = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let plain = ClientRequest::get(peer, "shop.example.com", "/");
    let with = |headers: &[(String, String)]| {
        let mut request = plain.clone();
        request.headers.clone_from(&script.headers);
        request.headers.extend(headers.iter().cloned());
        request
    };
    let mut all = vec![with(&[])];
    let mut encrypted = with(&[]);
    encrypted.tls = true;
    all.push(encrypted);
    let (names, texts) = literals(&script.code);
    let host = |text: &String| text.contains(".example.com") && !text.contains('/');
    for text in &texts {
        let mut request = with(&[]);
        if text.starts_with('/') {
            request.path = format!("{text}below");
            all.push(request.clone());
            request.path.clone_from(text);
        } else if host(text) {
            request.authority = format!("shop{text}").replace("shops", "s");
            if !text.starts_with('.') {
                request.authority.clone_from(text);
            }
        } else if text.bytes().all(|byte| byte.is_ascii_uppercase()) && text.len() < 8 {
            request.method.clone_from(text);
        } else {
            continue;
        }
        all.push(request);
    }
    let fixed = ["https", "http", "1", "443"].map(str::to_owned);
    // Envoy writes some itself, so that what is sent isn't what the script gets.
    let wanted = |name: &&String| {
        !name.starts_with(':')
            && !name.starts_with("x-envoy-")
            && !matches!(
                name.as_str(),
                "host" | "x-forwarded-for" | "x-forwarded-proto"
            )
    };
    for name in names.iter().filter(wanted) {
        for value in fixed
            .iter()
            .chain(texts.iter().filter(|text| text.len() < 30 && *text != GRPC))
        {
            all.push(with(&[(name.clone(), value.clone())]));
        }
    }
    let spread = all.len().div_ceil(MOST_REQUESTS).max(1);
    all.into_iter()
        .enumerate()
        .filter(|(index, _)| *index < 2 || index % spread == 0)
        .map(|(_, request)| request)
        .collect()
}

type Lines = Vec<(String, String)>;

fn lines(text: &str) -> Lines {
    text.split('\u{2}')
        .filter_map(|line| line.split_once('\u{1}'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn a_comparison_runs_scripts_as_envoys_lua_filter_does() {
    let scripts = scripts();
    let upstream = Upstream::start();
    let mut listeners = Vec::new();
    for (index, script) in scripts.iter().enumerate() {
        let listener = Listener::new(&format!("{index}"))
            .filter(lua("before", BEFORE))
            .filter(lua("script", &script.code))
            .filter(lua("after", AFTER));
        listeners.push(listener.clone().named(&format!("{index}-tls")).tls());
        listeners.push(listener);
    }
    let envoy = Envoy::start(&bootstrap(&listeners, upstream.address()));
    let (mut wrong, mut compared, mut answered, mut failed) = (Vec::new(), 0, 0, 0);
    for (index, script) in scripts.iter().enumerate() {
        for request in requests(script) {
            let place = format!("{}: {request:?}", script.name);
            let listener = format!("{index}{}", if request.tls { "-tls" } else { "" });
            let response = http::send(envoy.listener(&listener), &request)
                .unwrap_or_else(|error| panic!("{place}: {error}"));
            let body = String::from_utf8_lossy(&response.body).into_owned();
            let mut parts = body.split('\u{3}');
            let own = response.status == 299;
            // What the script got is known from another request, if it answered itself.
            let before = if own {
                lines(parts.next().unwrap_or_default())
            } else {
                asked_for(&request)
            };
            let mut after = lines(parts.next().unwrap_or_default());
            let seen = Seen {
                headers: before,
                peer: parts.next().unwrap_or("127.0.0.2:40000").to_owned(),
                tls: request.tls,
                ..Seen::default()
            };
            let mut ran = run_script(&script.code, &seen);
            if script.any_order() {
                ran.headers.sort();
                after.sort();
            }
            if ran
                .error
                .as_ref()
                .is_some_and(|error| error.contains(NOT_RUN))
            {
                continue;
            }
            compared += 1;
            failed += usize::from(ran.error.is_some());
            match (&ran.answered, own) {
                (None, true) => {
                    if ran.headers != after {
                        wrong.push(format!(
                            "{place}: {}\n{:?}",
                            difference(&after, &ran.headers),
                            ran.error
                        ));
                    }
                }
                (Some((status, location)), false) => {
                    answered += 1;
                    let known = (response.status.to_string(), response.header("location"));
                    if known != (status.clone(), location.clone()) {
                        wrong.push(format!(
                            "{place}: Envoy answers {known:?}, the comparison {status} {location:?}"
                        ));
                    }
                }
                (ours, _) => wrong.push(format!(
                    "{place}: Envoy: {}, the comparison: {ours:?} {:?}",
                    response.status, ran.error
                )),
            }
        }
    }
    let shown: Vec<String> = wrong.iter().take(60).cloned().collect();
    assert!(
        wrong.is_empty(),
        "{} of {compared}:\n{}",
        wrong.len(),
        shown.join("\n\n")
    );
    assert!(
        compared >= 450 && answered >= 5 && failed >= 5,
        "{compared} {answered} {failed}"
    );
}

/// The request as filters get it, for scripts that let nothing behind them see it.
fn asked_for(request: &ClientRequest) -> Lines {
    let scheme = if request.tls { "https" } else { "http" };
    let mut all: Lines = [
        (":authority", request.authority.as_str()),
        (":path", &request.path),
        (":method", &request.method),
        (":scheme", scheme),
        ("x-forwarded-proto", scheme),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    all.extend(request.headers.iter().cloned());
    all
}

/// Lines that only one of two has.
fn difference(envoy: &Lines, ours: &Lines) -> String {
    let only = |a: &Lines, b: &Lines| -> Vec<String> {
        a.iter()
            .filter(|line| !b.contains(line))
            .map(|(name, value)| format!("{name}: {value}"))
            .collect()
    };
    let (theirs, mine) = (only(envoy, ours), only(ours, envoy));
    if theirs.is_empty() && mine.is_empty() {
        return format!("another order: Envoy {envoy:?}, the comparison {ours:?}");
    }
    format!("only in Envoy {theirs:?}, only in the comparison {mine:?}")
}
