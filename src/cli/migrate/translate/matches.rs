//! Conditions of a script as matches of a rule or an override.

use super::super::cases::Literal;
use super::super::lua::{Is, Subject, Test};
use super::{object, text, texts};
use crate::config::Node;

/// A match in the making.
#[derive(Debug, Default)]
pub(super) struct Match {
    pub(super) ip_blocks: Option<Vec<String>>,
    pub(super) not_ip_blocks: Vec<String>,
    hosts: Option<Vec<String>>,
    not_hosts: Vec<String>,
    paths: Option<Vec<(&'static str, String)>>,
    not_paths: Vec<(&'static str, String)>,
    methods: Option<Vec<String>>,
    not_methods: Vec<String>,
    headers: Vec<Node>,
    not_headers: Vec<Node>,
    virtual_hosts: Option<Vec<String>>,
    routes: Option<Vec<String>>,
    /// What the match doesn't say exactly as the script does.
    pub(super) differences: Vec<String>,
}

/// Why a test is no part of a match, if it isn't.
pub(super) fn unsupported(test: &Test, of_rule: bool) -> Option<String> {
    let reason = |why: &str| Some(why.to_owned());
    match (&test.subject, &test.is) {
        (Subject::Beyond(why), _) => Some(format!("trusted-lb can't ask about this ({why})")),
        (Subject::Peer, Is::Prefix(prefix)) if block_of_prefix(prefix).is_none() => {
            reason("this part of an address is no block of addresses")
        }
        (Subject::Peer, Is::Exact(address)) if block_of_address(address).is_none() => {
            reason("this is no address")
        }
        (Subject::Peer, Is::Exact(_) | Is::Prefix(_)) => {
            if of_rule {
                None
            } else {
                reason("an override can't go by the peer's address")
            }
        }
        (Subject::Peer, _) => reason("an address is matched by blocks of addresses"),
        (_, Is::Behind(..)) => {
            reason("trusted-lb matches the beginning or the end of a value, not its middle")
        }
        (Subject::Header(_), Is::Contains(_)) => in_the_middle(test),
        (_, Is::Other | Is::Contains(_)) => reason("trusted-lb has no match for this"),
        (Subject::Header(name), is) => match &**name {
            ":authority" | "host" => match is {
                Is::Exact(host) | Is::Folded(host) if host_of(host).is_some() => None,
                Is::Suffix(suffix) if suffix.starts_with('.') && suffix.len() > 1 => None,
                _ => reason("a host is matched whole or as *.example.com"),
            },
            ":path" => match is {
                Is::Exact(path) | Is::Prefix(path) if path.starts_with('/') => None,
                Is::Suffix(_) => None,
                _ => reason("a path is matched whole, by its beginning or by its end"),
            },
            ":method" => match is {
                Is::Exact(_) => None,
                _ => reason("a method is matched whole"),
            },
            ":scheme" | "x-forwarded-proto" => reason(
                "what Envoy wrote here is the connection's own scheme, which is no match of trusted-lb",
            ),
            name if name.starts_with(':') => {
                reason("trusted-lb has no match for this pseudo-header")
            }
            _ if matches!(is, Is::Prefix(value) | Is::Suffix(value) if value.is_empty()) => {
                reason("this is always true")
            }
            _ => None,
        },
        (Subject::VirtualHost | Subject::Route, _) => None,
    }
}

fn in_the_middle(test: &Test) -> Option<String> {
    let (Subject::Header(name), Is::Contains(part)) = (&test.subject, &test.is) else {
        return None;
    };
    Some(format!(
        "trusted-lb has no match for {part:?} somewhere in {name}, only for its beginning and its end"
    ))
}

/// Whether two tests go into one list of a match.
pub(super) fn listed(a: &Test, b: &Test) -> bool {
    let field = |test: &Test| match &test.subject {
        Subject::Header(name) => match &**name {
            ":authority" | "host" => Some(0),
            ":path" => Some(1),
            ":method" => Some(2),
            _ => None,
        },
        Subject::Peer => Some(3),
        Subject::VirtualHost => Some(4),
        Subject::Route => Some(5),
        Subject::Beyond(_) => None,
    };
    field(a).is_some() && field(a) == field(b)
}

/// `10.0.12.` is 10.0.12.0/24.
fn block_of_prefix(prefix: &str) -> Option<String> {
    let octets = prefix.strip_suffix('.')?;
    let parts: Vec<&str> = octets.split('.').collect();
    let count = parts.len();
    let bytes = parts.iter().map(|part| part.parse::<u8>().ok());
    if count > 3 || bytes.into_iter().any(|byte| byte.is_none()) {
        return None;
    }
    let zeros = ".0".repeat(4 - count);
    Some(format!("{octets}{zeros}/{}", count * 8))
}

/// An address, with or without its port.
fn block_of_address(text: &str) -> Option<String> {
    let address: std::net::IpAddr = text
        .parse()
        .or_else(|_| {
            text.parse::<std::net::SocketAddr>()
                .map(|socket| socket.ip())
        })
        .ok()?;
    Some(address.to_string())
}

/// The host without its port.
fn host_of(host: &str) -> Option<&str> {
    let host = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|b| b.is_ascii_digit()) {
            name
        } else {
            host
        }
    });
    (!host.is_empty()).then_some(host)
}

impl Match {
    /// Adds what has to hold. `Err` where two such can't stand in one match.
    pub(super) fn require(&mut self, alternatives: &[Literal]) -> Result<(), String> {
        let Some(first) = alternatives.first() else {
            return Ok(());
        };
        if alternatives.iter().any(|literal| !literal.holds) {
            // Of a list that is denied, each entry is denied by itself: such a list has one entry.
            return self.deny(&first.test);
        }
        // As a signal it would be understood; beside other conditions it would have to be a match.
        if let Some(why) = alternatives
            .iter()
            .find_map(|literal| in_the_middle(&literal.test))
        {
            return Err(why);
        }
        match &first.test.subject {
            Subject::Peer => {
                let blocks: Vec<String> = alternatives
                    .iter()
                    .filter_map(|one| block(&one.test))
                    .collect();
                set_once(&mut self.ip_blocks, blocks, "addresses")
            }
            Subject::VirtualHost => {
                let names = alternatives
                    .iter()
                    .filter_map(|one| word(&one.test))
                    .collect();
                set_once(&mut self.virtual_hosts, names, "virtual hosts")
            }
            Subject::Route => {
                let names = alternatives
                    .iter()
                    .filter_map(|one| word(&one.test))
                    .collect();
                set_once(&mut self.routes, names, "routes")
            }
            Subject::Header(name) => match &**name {
                ":authority" | "host" => {
                    let hosts = alternatives
                        .iter()
                        .filter_map(|one| host(&one.test))
                        .collect();
                    set_once(&mut self.hosts, hosts, "hosts")
                }
                ":path" => {
                    let mut paths = Vec::new();
                    for one in alternatives {
                        paths.extend(self.path(&one.test));
                    }
                    set_once(&mut self.paths, paths, "paths")
                }
                ":method" => {
                    let methods = alternatives
                        .iter()
                        .filter_map(|one| word(&one.test))
                        .collect();
                    set_once(&mut self.methods, methods, "methods")
                }
                name => {
                    let node = self.header(name, &first.test);
                    if !self.headers.contains(&node) {
                        self.headers.push(node);
                    }
                    Ok(())
                }
            },
            Subject::Beyond(why) => Err(why.to_string()),
        }
    }

    fn deny(&mut self, test: &Test) -> Result<(), String> {
        if let Some(why) = in_the_middle(test) {
            return Err(why);
        }
        match &test.subject {
            Subject::Peer => self.not_ip_blocks.extend(block(test)),
            Subject::VirtualHost | Subject::Route => {
                return Err(
                    "a match has no list of virtual hosts or routes that it leaves out".to_owned(),
                );
            }
            Subject::Header(name) => match &**name {
                ":authority" | "host" => self.not_hosts.extend(host(test)),
                ":path" => {
                    let path = self.path(test);
                    self.not_paths.extend(path);
                }
                ":method" => self.not_methods.extend(word(test)),
                name if matches!(&test.is, Is::Exact(value) if value.is_empty()) => {
                    self.differences
                        .push(format!("an empty {name} counts as one that is there"));
                }
                name => {
                    let node = self.header(name, test);
                    if !self.not_headers.contains(&node) {
                        self.not_headers.push(node);
                    }
                }
            },
            Subject::Beyond(why) => return Err(why.to_string()),
        }
        Ok(())
    }

    fn path(&mut self, test: &Test) -> Option<(&'static str, String)> {
        match &test.is {
            Is::Exact(path) => {
                if path.contains('?') {
                    self.differences.push(format!(
                        "the path {path:?} has a query, which trusted-lb leaves out"
                    ));
                }
                let path = path.split('?').next().unwrap_or_default();
                Some(("exact", path.to_owned()))
            }
            // `prefix` ends where a segment ends.
            Is::Prefix(prefix) if prefix.ends_with('/') => Some(("prefix", prefix.to_string())),
            Is::Prefix(prefix) => Some(("startsWith", prefix.to_string())),
            Is::Suffix(suffix) => Some(("suffix", suffix.to_string())),
            _ => None,
        }
    }

    fn header(&mut self, name: &str, test: &Test) -> Node {
        let value = match &test.is {
            Is::Exact(value) => ("exact", text(value)),
            Is::Folded(value) => {
                self.differences.push(format!(
                    "{name} has to be {value:?} in lower case here; the script took upper case too"
                ));
                ("exact", text(value))
            }
            Is::Prefix(value) => ("prefix", text(value)),
            Is::Suffix(value) => ("suffix", text(value)),
            _ => ("present", Node::Bool(true)),
        };
        object(vec![("name", text(name)), value])
    }

    /// The fields as a configuration has them.
    pub(super) fn fields(&self) -> Vec<(&'static str, Node)> {
        let mut fields = Vec::new();
        let mut list = |name: &'static str, list: Option<&Vec<String>>| {
            if let Some(list) = list.filter(|list| !list.is_empty()) {
                fields.push((name, texts(list.iter().map(String::as_str))));
            }
        };
        list("ipBlocks", self.ip_blocks.as_ref());
        list("notIpBlocks", Some(&self.not_ip_blocks));
        list("hosts", self.hosts.as_ref());
        list("notHosts", Some(&self.not_hosts));
        list("methods", self.methods.as_ref());
        list("notMethods", Some(&self.not_methods));
        list("virtualHosts", self.virtual_hosts.as_ref());
        list("routes", self.routes.as_ref());
        let paths = |paths: &[(&'static str, String)]| {
            Node::List(
                paths
                    .iter()
                    .map(|(kind, path)| object(vec![(kind, text(path))]))
                    .collect(),
            )
        };
        if let Some(some) = self.paths.as_ref().filter(|paths| !paths.is_empty()) {
            fields.push(("paths", paths(some)));
        }
        if !self.not_paths.is_empty() {
            fields.push(("notPaths", paths(&self.not_paths)));
        }
        if !self.headers.is_empty() {
            fields.push(("headers", Node::List(self.headers.clone())));
        }
        if !self.not_headers.is_empty() {
            fields.push(("notHeaders", Node::List(self.not_headers.clone())));
        }
        fields
    }

    /// Something of the match that names it.
    pub(super) fn hint(&self) -> Option<String> {
        let first =
            |list: &Option<Vec<String>>| list.as_ref().and_then(|list| list.first().cloned());
        first(&self.hosts)
            .or_else(|| first(&self.routes))
            .or_else(|| first(&self.virtual_hosts))
            .or_else(|| {
                let paths = self.paths.as_ref()?;
                paths
                    .first()
                    .map(|(_, path)| path.trim_matches('/').to_owned())
            })
            .or_else(|| first(&self.methods).map(|method| method.to_ascii_lowercase()))
            .or_else(
                || match self.headers.first().and_then(|header| header.get("name")) {
                    Some(Node::Text(name)) => Some(name.clone()),
                    _ => None,
                },
            )
            .filter(|hint| hint.chars().any(|c| c.is_ascii_alphanumeric()))
    }
}

fn set_once<T: PartialEq>(
    place: &mut Option<Vec<T>>,
    list: Vec<T>,
    what: &str,
) -> Result<(), String> {
    match place {
        Some(before) if *before == list => Ok(()),
        Some(before) => {
            before.retain(|one| list.contains(one));
            if before.is_empty() {
                return Err(format!("two conditions on {what} at once"));
            }
            Ok(())
        }
        None => {
            *place = Some(list);
            Ok(())
        }
    }
}

fn word(test: &Test) -> Option<String> {
    match &test.is {
        Is::Exact(word) => Some(word.to_string()),
        _ => None,
    }
}

fn host(test: &Test) -> Option<String> {
    match &test.is {
        Is::Exact(host) | Is::Folded(host) => host_of(host).map(str::to_ascii_lowercase),
        Is::Suffix(suffix) => Some(format!("*{}", host_of(suffix)?.to_ascii_lowercase())),
        _ => None,
    }
}

fn block(test: &Test) -> Option<String> {
    match &test.is {
        Is::Exact(address) => block_of_address(address),
        Is::Prefix(prefix) => block_of_prefix(prefix),
        _ => None,
    }
}
