//! `trusted-lb explain`: what becomes of a request, and why. The decision is the engine's own.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde::Serialize;

use super::connection_manager::{
    Certificate, Connection, ConnectionManager, EarlyMutation, Message, Received,
};
use super::setup::Manager;
use crate::config::{
    Config, ForwardedProto, HeaderMatch, HeaderValueMatch, Mode, PeerAddress, RequestMatch, Scheme,
    SignalForm,
};
use crate::engine::{
    Attribute, Condition, Decision, Engine, Operation, Peer, Reading, SchemeSource,
};

/// A request as an operator describes it.
pub(super) struct Described {
    pub(super) peer: IpAddr,
    pub(super) forwarded_for: Option<String>,
    pub(super) port: u16,
    pub(super) method: String,
    /// The scheme in the URL: what an HTTP/2 client says itself.
    pub(super) scheme: String,
    pub(super) authority: String,
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) http2: bool,
    pub(super) tls: bool,
    /// The client certificate that the peer presents.
    pub(super) certificate: Certificate,
    /// The client's address that a PROXY protocol header claims.
    pub(super) claimed: Option<IpAddr>,
    /// The connection manager, if the file shows it.
    pub(super) manager: Option<Manager>,
    /// Istio's numTrustedProxies, if it is given.
    pub(super) trusted_hops: Option<u32>,
    pub(super) virtual_host: Option<String>,
    pub(super) route: Option<String>,
    pub(super) virtual_service: Option<String>,
}

impl Described {
    /// Whether the request has x-envoy-* headers. Who describes it so wants to know what becomes of them, as if Envoy took
    /// the client for an internal one: it removes them from others.
    fn brings_router_headers(&self) -> bool {
        let is_envoys = |name: &str| name.to_ascii_lowercase().starts_with("x-envoy-");
        self.headers.iter().any(|(name, _)| is_envoys(name))
    }

    /// The request as the filter sees it, behind the connection manager beside the configuration, or a usual one.
    pub(super) fn received(&self, config: &Config) -> Received {
        let manager = self.manager.clone().unwrap_or(Manager::USUAL);
        let mutated = self
            .manager
            .as_ref()
            .is_none_or(|manager| manager.early_header_mutation);
        let manager = ConnectionManager {
            use_remote_address: manager.use_remote_address,
            xff_num_trusted_hops: self.trusted_hops.unwrap_or(manager.xff_num_trusted_hops),
            skip_xff_append: manager.skip_xff_append,
            early_mutation: mutated.then(|| early_mutation(config)),
            peer_key: match &config.peer_address {
                PeerAddress::FilterState(key) => Some(key.clone()),
                _ => None,
            },
            client_is_internal: self.brings_router_headers(),
            ..ConnectionManager::default()
        };
        let certificate = Some(&self.certificate).filter(|certificate| {
            certificate.uri.is_some() || certificate.dns.is_some() || certificate.sha256.is_some()
        });
        let connection = Connection {
            direct_peer: self.peer,
            claimed_peer: self.claimed,
            port: self.port,
            tls: self.tls || certificate.is_some(),
            certificate: certificate.cloned(),
        };
        let forwarded_for = self
            .forwarded_for
            .iter()
            .map(|list| ("x-forwarded-for", list));
        let headers = forwarded_for.chain(
            self.headers
                .iter()
                .map(|(name, value)| (name.as_str(), value)),
        );
        let message = Message {
            protocol: if self.http2 { "HTTP/2" } else { "HTTP/1.1" },
            method: self.method.clone().into(),
            scheme: self.http2.then(|| self.scheme.clone().into()),
            authority: self.authority.clone().into(),
            path: self.path.clone().into(),
            headers: headers
                .map(|(name, value)| (name.into(), value.clone().into()))
                .collect(),
        };
        let mut received = manager.receive(&connection, &message);
        let istio = self.virtual_service.as_ref().and_then(|name| {
            let (namespace, name) = name.split_once('/')?;
            Some(format!(
                "/apis/networking.istio.io/v1/namespaces/{namespace}/virtual-service/{name}"
            ))
        });
        for (attribute, name) in [
            (Attribute::VirtualHostName, &self.virtual_host),
            (Attribute::RouteName, &self.route),
            (Attribute::RouteIstioConfig, &istio),
        ] {
            if let Some(name) = name {
                received.set(attribute, name.as_str());
            }
        }
        received
    }
}

/// The early header mutation that this configuration counts on.
fn early_mutation(config: &Config) -> EarlyMutation {
    let of_routes = config
        .routes
        .iter()
        .filter_map(|route| route.forwarded_proto.as_ref());
    let of_rules = config
        .trusted_load_balancers
        .iter()
        .map(|rule| &rule.forwarded_proto);
    let copies = |proto: &ForwardedProto| -> Vec<String> {
        let copies = proto.from.iter();
        let copies = copies.filter(|signal| signal.form == SignalForm::Helper);
        copies
            .map(|signal| signal.name.as_str().to_owned())
            .collect()
    };
    let mut forwarded_proto: Vec<String> = of_rules.chain(of_routes).flat_map(copies).collect();
    forwarded_proto.sort_unstable();
    forwarded_proto.dedup();
    let peer: Vec<String> = match &config.peer_address {
        PeerAddress::Header(name) => vec![name.as_str().to_owned()],
        _ => Vec::new(),
    };
    forwarded_proto.retain(|name| !peer.contains(name));
    EarlyMutation {
        token: super::HELPER_TOKEN.to_owned(),
        peer,
        forwarded_proto,
    }
}

/// What becomes of a request, and why: printed for people, serialized for machines.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    mode: &'static str,
    peer: Option<String>,
    peer_problem: Option<String>,
    rule: Option<String>,
    route: Option<String>,
    forwarded_proto: Option<&'static str>,
    because: String,
    /// The status with which the filter answers.
    refused: Option<u16>,
    rules: Vec<Matched>,
    routes: Vec<Matched>,
    signals: Vec<Said>,
    headers: Vec<Change>,
    #[serde(skip)]
    peer_advice: Option<&'static str>,
    /// `:scheme` after the filter.
    #[serde(skip)]
    scheme: Option<String>,
    /// The request has x-envoy-* headers.
    #[serde(skip)]
    router_headers: bool,
    /// Where the network filter writes the direct peer.
    #[serde(skip)]
    peer_key: Option<String>,
    /// The command that writes the configuration as Envoy's own filters, if they can say it.
    native: Option<String>,
    /// Trusted hops that resources around the plugin set.
    #[serde(skip)]
    hops_of_file: Option<u32>,
    /// Headers that an early header mutation has to write for this configuration.
    #[serde(skip)]
    early_mutation_headers: Vec<String>,
}

/// A rule or a route, and the first of its conditions that doesn't hold.
#[derive(Serialize)]
struct Matched {
    name: String,
    matches: bool,
    unmet: Option<&'static str>,
    #[serde(skip)]
    applies: bool,
}

/// What a signal says.
#[derive(Serialize)]
struct Said {
    header: String,
    reading: &'static str,
}

/// What becomes of one header.
#[derive(Serialize)]
struct Change {
    name: String,
    before: Option<String>,
    after: Option<String>,
}

impl Report {
    pub(super) fn new(config: &Config, engine: &Engine, received: &Received) -> Self {
        let explanation = engine.explain(received);
        let decision = &explanation.decision;
        let unknown = match decision.peer {
            Some(Peer::Unknown(problem)) => Some(problem),
            _ => None,
        };
        let matched =
            |list: &[Option<Condition>], applies: Option<usize>, name: &dyn Fn(usize) -> String| {
                list.iter()
                    .enumerate()
                    .map(|(index, unmet)| Matched {
                        name: name(index),
                        matches: unmet.is_none(),
                        unmet: unmet.map(|condition| condition.0),
                        applies: applies == Some(index),
                    })
                    .collect()
            };
        let rule_name = |index: usize| engine.rule_name(index).to_owned();
        let override_name = |index: usize| engine.override_name(index).to_owned();
        let mutation = early_mutation(config);
        let mut early_mutation_headers = mutation.forwarded_proto;
        early_mutation_headers.extend(mutation.peer);
        early_mutation_headers.sort_unstable();
        let hidden = secret_headers(config, &early_mutation_headers);
        Self {
            mode: match config.mode {
                Mode::Enforce => "enforce",
                Mode::Shadow => "shadow",
            },
            peer: decision
                .peer
                .and_then(Peer::address)
                .map(|address| address.to_string()),
            peer_problem: unknown.map(|problem| problem.to_string()),
            peer_advice: unknown.map(crate::engine::PeerProblem::advice),
            rule: decision.rule.map(rule_name),
            route: decision.applied_override.map(override_name),
            forwarded_proto: decision.forwarded_proto.map(Scheme::as_str),
            because: decision.source.to_string(),
            refused: decision.refusal,
            scheme: scheme_after(decision, received),
            router_headers: received
                .headers
                .iter()
                .any(|(name, _)| name.starts_with(b"x-envoy-")),
            peer_key: match &config.peer_address {
                PeerAddress::FilterState(key) => Some(key.clone()),
                _ => None,
            },
            rules: matched(&explanation.rules, decision.rule, &rule_name),
            routes: matched(
                &explanation.overrides,
                decision.applied_override,
                &override_name,
            ),
            signals: explanation
                .signals
                .iter()
                .map(|(header, reading)| Said {
                    header: (*header).to_owned(),
                    reading: in_words(*reading),
                })
                .collect(),
            headers: decision
                .operations
                .iter()
                .map(|operation| change(operation, received, &hidden))
                .collect(),
            native: None,
            hops_of_file: None,
            early_mutation_headers,
        }
    }

    /// With the command that writes the configuration as Envoy's own filters, if they can say it.
    pub(super) fn natively(mut self, command: Option<String>) -> Self {
        self.native = command;
        self
    }

    /// With the trusted hops that resources around the plugin set.
    pub(super) fn with_hops_of_file(mut self, hops: Option<u32>) -> Self {
        self.hops_of_file = hops;
        self
    }

    /// The report for people.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        let _ = match (&self.peer, &self.peer_problem) {
            (Some(address), _) => writeln!(out, "peer: {address}"),
            (None, Some(problem)) => writeln!(
                out,
                "peer: can't be told: {problem}\n  {}",
                self.peer_advice.unwrap_or_default()
            ),
            (None, None) => writeln!(out, "peer: its address isn't needed"),
        };
        out.push_str("\nrules:\n");
        for rule in &self.rules {
            rule.line("decides", &mut out);
        }
        if !self.signals.is_empty() {
            out.push_str("\nsignals:\n");
            for said in &self.signals {
                let _ = writeln!(out, "  {}: {}", said.header, said.reading);
            }
        }
        let _ = writeln!(out, "\ndecision: {}", self.decision());
        out.push_str("\nroute:\n");
        for route in &self.routes {
            route.line("overrides", &mut out);
        }
        if self.route.is_none() {
            out.push_str("  the defaults apply\n");
        }
        let helpers = &self.early_mutation_headers;
        out.push_str(match self.mode {
            "enforce" => "\nheaders:\n",
            _ if helpers.is_empty() => "\nheaders (mode: shadow changes none; enforced, they would be):\n",
            _ => {
                "\nheaders (mode: shadow removes the helper headers and changes no other; enforced, they would be):\n"
            }
        });
        if self.headers.is_empty() {
            out.push_str("  nothing changes\n");
        }
        for change in &self.headers {
            let before = change.before.as_deref().unwrap_or("(absent)");
            let after = change.after.as_deref().unwrap_or("(removed)");
            let _ = writeln!(out, "  {}: {before} -> {after}", change.name);
        }
        for note in self.notes() {
            let _ = writeln!(out, "\nnote: {note}");
        }
        if !helpers.is_empty() {
            let _ = writeln!(
                out,
                "\nnote: {} taken to be written by an early header mutation, as envoyfilter/preserve-lb-proto.yaml does",
                match helpers.as_slice() {
                    [one] => format!("{one} is"),
                    several => format!("{} are", several.join(" and ")),
                }
            );
        }
        out
    }

    /// What somebody who reads the headers may miss.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let (Some(proto), Some(scheme), None) =
            (self.forwarded_proto, &self.scheme, self.refused)
            && proto != scheme
        {
            notes.push(format!(
                "x-forwarded-proto says {proto} and :scheme says {scheme}, from which Envoy builds redirects; \
                 see rewriteScheme"
            ));
        }
        if self.router_headers {
            notes.push(
                "the x-envoy-* headers are taken to reach the filter, as a client's do whom Envoy counts as internal; \
                 it removes them from others"
                    .to_owned(),
            );
        }
        if let Some(command) = &self.native {
            notes.push(format!(
                "Envoy's own filters can decide this, for less: {command}"
            ));
        }
        if let Some(hops) = self.hops_of_file {
            notes.push(format!(
                "numTrustedProxies is {hops}, as the file says; --num-trusted-proxies says otherwise"
            ));
        }
        if let Some(key) = &self.peer_key {
            notes.push(format!(
                "the network filter is taken to write the direct peer under {key}, as envoyfilter/direct-peer.yaml does"
            ));
        }
        notes
    }

    fn decision(&self) -> String {
        let who = match &self.rule {
            Some(rule) => format!("trusted as {rule}"),
            None if self.because == SchemeSource::NotJudged.to_string() => {
                return "x-forwarded-proto and :scheme are left alone: the configuration has neither rules nor untrusted"
                    .to_owned();
            }
            None => "not trusted".to_owned(),
        };
        if let Some(status) = self.refused {
            return match self.mode {
                "shadow" => format!("{who}; enforced, the filter would refuse it with {status}"),
                _ => format!("{who}; the filter refuses it with {status}"),
            };
        }
        match self.forwarded_proto {
            Some(scheme) => format!("{who}; the service is told {scheme}: {}", self.because),
            None => format!("{who}; x-forwarded-proto is kept as it is"),
        }
    }
}

impl Matched {
    fn line(&self, verb: &str, out: &mut String) {
        let name = &self.name;
        let _ = match self.unmet {
            Some(condition) => writeln!(out, "  {name}: doesn't match: {condition}"),
            None if self.applies => writeln!(out, "  {name}: matches, and {verb}"),
            None => writeln!(out, "  {name}: would match, but an earlier one {verb}"),
        };
    }
}

/// `:scheme` after the decision.
fn scheme_after(decision: &Decision<'_>, received: &Received) -> Option<String> {
    let written = decision
        .operations
        .iter()
        .find_map(|operation| match operation {
            Operation::Set {
                name: ":scheme",
                value,
            } => Some((*value).to_owned()),
            _ => None,
        });
    written.or_else(|| {
        let mut headers = received.headers.iter();
        let (_, value) = headers.find(|(name, _)| name == b":scheme")?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

fn in_words(reading: Reading) -> &'static str {
    match reading {
        Reading::Says(Scheme::Https) => "says https",
        Reading::Says(Scheme::Http) => "says http",
        Reading::Absent => "absent",
        Reading::Unusable => "there, but can't be understood",
    }
}

fn change(operation: &Operation<'_>, received: &Received, hidden: &[&str]) -> Change {
    let (name, after) = match operation {
        Operation::Set { name, value } => (name.as_bytes(), Some((*value).to_owned())),
        Operation::Remove { name } => (*name, None),
    };
    let lines: Vec<String> = received
        .headers
        .iter()
        .filter(|(known, _)| known == name)
        .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        .collect();
    let name = String::from_utf8_lossy(name).into_owned();
    let before = (!lines.is_empty()).then(|| {
        if hidden.contains(&name.as_str()) {
            "(not shown)".to_owned()
        } else {
            lines.join(" | ")
        }
    });
    Change {
        name,
        before,
        after,
    }
}

/// Headers whose values are secrets, or begin with one.
fn secret_headers<'c>(config: &'c Config, early_mutation_headers: &'c [String]) -> Vec<&'c str> {
    fn secrets(matches: &RequestMatch) -> impl Iterator<Item = &str> {
        let all = matches.headers.iter().chain(&matches.not_headers);
        all.filter(|header: &&HeaderMatch| matches!(header.value, HeaderValueMatch::FromEnv(_)))
            .map(|header| header.name.as_str())
    }
    let of_rules = config
        .trusted_load_balancers
        .iter()
        .flat_map(|rule| secrets(&rule.matches.request));
    let of_routes = config
        .routes
        .iter()
        .flat_map(|route| secrets(&route.matches.request));
    of_rules
        .chain(of_routes)
        .chain(early_mutation_headers.iter().map(String::as_str))
        .collect()
}
