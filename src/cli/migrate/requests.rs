//! Requests that a script and its translation may treat in different ways.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::lua::{Is, Meaning, Subject, Test, Value};
use super::sandbox::Seen;
use crate::config::{self, Node};

/// Requests that are compared at most.
const MOST_REQUESTS: usize = 240;
/// Conditions of the script that are tried together in pairs.
const MOST_PAIRED: usize = 6;

/// A request that is compared.
pub(super) struct Tried {
    /// What is special about it.
    pub(super) what: String,
    pub(super) trusted: bool,
    pub(super) seen: Seen,
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
pub(super) fn requests(meaning: &Meaning, configuration: &Node) -> Vec<Tried> {
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
