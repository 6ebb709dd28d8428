//! `trusted-lb explain`: what becomes of a request, and why. The decision is the engine's own.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::{Value, json};

use super::plugins::Manager;
use crate::config::{Config, HeaderMatch, HeaderValueMatch, Mode, PeerAddress, Scheme, SignalForm};
use crate::engine::{Attribute, Because, Engine, Explanation, Operation, Peer, Reading, Request};

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
    /// The connection manager, where it is known.
    pub(super) manager: Option<Manager>,
    /// Istio's numTrustedProxies, where it is given.
    pub(super) trusted_hops: Option<u32>,
    pub(super) virtual_host: Option<String>,
    pub(super) route: Option<String>,
    pub(super) virtual_service: Option<String>,
}

/// What Envoy tells of a client certificate that it has verified.
#[derive(Default)]
pub(super) struct Certificate {
    pub(super) uri: Option<String>,
    pub(super) dns: Option<String>,
    pub(super) sha256: Option<String>,
}

impl Certificate {
    fn is_some(&self) -> bool {
        self.uri.is_some() || self.dns.is_some() || self.sha256.is_some()
    }
}

/// The request as the filter sees it, behind Envoy's connection manager.
pub(super) struct Seen {
    headers: Vec<(String, String)>,
    attributes: Vec<(Attribute, Vec<u8>)>,
}

impl Request for Seen {
    type Value = Vec<u8>;

    fn header_lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
    }

    fn attribute(&self, attribute: Attribute) -> Option<Vec<u8>> {
        self.attributes
            .iter()
            .find(|(known, _)| *known == attribute)
            .map(|(_, value)| value.clone())
    }
}

impl Described {
    /// What Envoy's connection manager makes of it: the one beside the configuration, or a gateway's usual one.
    pub(super) fn seen(&self, config: &Config) -> Seen {
        let manager = self.manager.unwrap_or(Manager::USUAL);
        let hops = self.trusted_hops.unwrap_or(manager.xff_num_trusted_hops);
        let connection = if self.is_tls() { "https" } else { "http" };
        let mut headers: Vec<(String, String)> = Vec::new();
        // Envoy joins the lines of these.
        let mut proto = None;
        let mut forwarded_for = self.forwarded_for.clone();
        let mut port = None;
        for (name, value) in &self.headers {
            let name = name.to_ascii_lowercase();
            match name.as_str() {
                "x-forwarded-proto" => join(&mut proto, value),
                "x-forwarded-for" => join(&mut forwarded_for, value),
                "x-forwarded-port" => join(&mut port, value),
                _ => headers.push((name, value.clone())),
            }
        }
        headers.extend(port.map(|list| ("x-forwarded-port".to_owned(), list)));
        if self
            .manager
            .is_none_or(|manager| manager.early_header_mutation)
        {
            self.early_mutation(config, proto.as_deref(), &mut headers);
        }
        let kept = proto.filter(|_| hops > 0 || !manager.use_remote_address);
        let proto = kept.unwrap_or_else(|| connection.to_owned());
        let peer = self.claimed.unwrap_or(self.peer);
        let entry = if manager.use_remote_address {
            hops.checked_sub(1)
        } else {
            Some(hops)
        };
        let source = entry
            .and_then(|skip| {
                let mut entries = forwarded_for.as_deref()?.rsplit(',');
                entries.nth(usize::try_from(skip).unwrap_or(usize::MAX))
            })
            .and_then(|entry| entry.trim().parse().ok())
            .map_or(SocketAddr::new(peer, PEER_PORT), |address| {
                SocketAddr::new(address, 0)
            });
        if manager.use_remote_address && !manager.skip_xff_append {
            // For a peer on these two Envoy appends its own address.
            let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].contains(&peer);
            let entry = if loopback { GATEWAY } else { peer };
            join(&mut forwarded_for, &entry.to_string());
        }
        let scheme = if self.http2 {
            self.scheme.clone()
        } else if proto == "https" || proto == "http" {
            proto.clone()
        } else {
            connection.to_owned()
        };
        let mut all: Vec<(String, String)> = [
            (":method", self.method.as_str()),
            (":scheme", scheme.as_str()),
            (":authority", self.authority.as_str()),
            (":path", self.path.as_str()),
            ("x-forwarded-proto", proto.as_str()),
        ]
        .into_iter()
        .chain(
            forwarded_for
                .iter()
                .map(|list| ("x-forwarded-for", list.as_str())),
        )
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        // From an external client Envoy removes x-envoy-*.
        headers.retain(|(name, _)| !name.starts_with("x-envoy-"));
        all.append(&mut headers);
        Seen {
            headers: all,
            attributes: self.attributes(source),
        }
    }

    fn is_tls(&self) -> bool {
        self.tls || self.certificate.is_some()
    }

    /// What Envoy tells of the connection and of the route.
    fn attributes(&self, source: SocketAddr) -> Vec<(Attribute, Vec<u8>)> {
        let mut attributes = vec![
            (Attribute::SourceAddress, source.to_string().into_bytes()),
            (
                Attribute::DestinationPort,
                u64::from(self.port).to_le_bytes().to_vec(),
            ),
            (
                Attribute::Protocol,
                if self.http2 { "HTTP/2" } else { "HTTP/1.1" }.into(),
            ),
        ];
        if self.is_tls() {
            attributes.push((Attribute::TlsVersion, b"TLSv1.3".to_vec()));
        }
        if self.certificate.is_some() {
            attributes.push((Attribute::MutualTls, vec![1]));
        }
        let mut named = |attribute, name: &Option<String>| {
            attributes.extend(
                name.as_ref()
                    .map(|name| (attribute, name.clone().into_bytes())),
            );
        };
        named(Attribute::UriSan, &self.certificate.uri);
        named(Attribute::DnsSan, &self.certificate.dns);
        named(Attribute::CertificateDigest, &self.certificate.sha256);
        named(Attribute::VirtualHostName, &self.virtual_host);
        named(Attribute::RouteName, &self.route);
        let istio = self.virtual_service.as_ref().and_then(|name| {
            let (namespace, name) = name.split_once('/')?;
            Some(format!(
                "/apis/networking.istio.io/v1/namespaces/{namespace}/virtual-service/{name}"
            ))
        });
        named(Attribute::RouteIstioConfig, &istio);
        attributes
    }
}

impl Described {
    /// What `envoyfilter/preserve-lb-proto.yaml` does, for the headers that the configuration counts on: it removes
    /// what the client sent under their names, then writes its own.
    fn early_mutation(
        &self,
        config: &Config,
        proto: Option<&str>,
        headers: &mut Vec<(String, String)>,
    ) {
        let written = mutated(config);
        headers.retain(|(name, _)| !written.contains(&name.as_str()));
        for name in written {
            let value = match &config.peer_address {
                PeerAddress::Header(peer) if peer.as_str() == name => self.peer.to_string(),
                _ => proto.unwrap_or("-").to_owned(),
            };
            headers.push((name.to_owned(), format!("{} {value}", super::HELPER_TOKEN)));
        }
    }
}

/// Headers that an early header mutation has to write for this configuration.
fn mutated(config: &Config) -> Vec<&str> {
    let of_routes = config
        .routes
        .iter()
        .filter_map(|route| route.forwarded_proto.as_ref());
    let of_rules = config
        .trusted_load_balancers
        .iter()
        .map(|rule| &rule.forwarded_proto);
    let mut names: Vec<&str> = of_rules
        .chain(of_routes)
        .flat_map(|proto| helpers(&proto.from))
        .collect();
    if let PeerAddress::Header(name) = &config.peer_address {
        names.push(name.as_str());
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// Another line of a header whose lines Envoy joins.
fn join(list: &mut Option<String>, value: &str) {
    *list = Some(match list.take() {
        Some(before) => format!("{before},{value}"),
        None => value.to_owned(),
    });
}

/// The gateway's own address, which no rule names.
const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8));

/// Any port but 0: a direct connection has one.
const PEER_PORT: u16 = 40_000;

/// The decision in words.
pub(super) fn text(config: &Config, engine: &Engine, seen: &Seen) -> String {
    let explanation = engine.explain(seen);
    let secret = secret_headers(config);
    let mut out = String::new();
    let decision = &explanation.decision;
    let _ = match decision.peer {
        Some(Peer::Known(address)) => writeln!(out, "peer: {address}"),
        Some(Peer::Unknown(problem)) => {
            writeln!(
                out,
                "peer: can't be told: {problem}\n  {}",
                problem.advice()
            )
        }
        None => writeln!(out, "peer: its address isn't needed"),
    };
    out.push_str("\nrules:\n");
    for (index, unmet) in explanation.rules.iter().enumerate() {
        let name = engine.rule_name(index);
        let _ = match unmet {
            Some(condition) => writeln!(out, "  {name}: doesn't match: {}", condition.0),
            None if decision.rule == Some(index) => writeln!(out, "  {name}: matches, and decides"),
            None => writeln!(out, "  {name}: would match, but an earlier one decides"),
        };
    }
    if !explanation.signals.is_empty() {
        out.push_str("\nsignals:\n");
        for (header, reading) in &explanation.signals {
            let _ = writeln!(out, "  {header}: {}", reading_in_words(*reading));
        }
    }
    let _ = writeln!(
        out,
        "\ndecision: {}",
        decision_in_words(engine, &explanation)
    );
    out.push_str("\nroute:\n");
    for (index, unmet) in explanation.routes.iter().enumerate() {
        let name = engine.route_name(index);
        let _ = match unmet {
            Some(condition) => writeln!(out, "  {name}: doesn't match: {}", condition.0),
            None if decision.route == Some(index) => {
                writeln!(out, "  {name}: matches, and overrides")
            }
            None => writeln!(out, "  {name}: would match, but an earlier one overrides"),
        };
    }
    if decision.route.is_none() {
        out.push_str("  the defaults apply\n");
    }
    let helpers = mutated(config);
    out.push_str(match config.mode {
        Mode::Enforce => "\nheaders:\n",
        Mode::Shadow if helpers.is_empty() => {
            "\nheaders (mode: shadow changes none; enforced, they would be):\n"
        }
        Mode::Shadow => {
            "\nheaders (mode: shadow removes the helper headers and changes no other; enforced, they would be):\n"
        }
    });
    if decision.operations.is_empty() {
        out.push_str("  nothing changes\n");
    }
    for change in changes(seen, &explanation, &secret) {
        let before = change.before.as_deref().unwrap_or("(absent)");
        let after = change.after.as_deref().unwrap_or("(removed)");
        let _ = writeln!(out, "  {}: {before} -> {after}", change.name);
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

/// The decision for machines.
pub(super) fn json(config: &Config, engine: &Engine, seen: &Seen) -> Value {
    let explanation = engine.explain(seen);
    let decision = &explanation.decision;
    let secret = secret_headers(config);
    let unmet = |list: &[Option<crate::engine::Condition>],
                 name: &dyn Fn(usize) -> String|
     -> Value {
        list.iter()
            .enumerate()
            .map(|(index, unmet)| {
                json!({"name": name(index), "matches": unmet.is_none(), "unmet": unmet.map(|condition| condition.0)})
            })
            .collect()
    };
    json!({
        "mode": match config.mode { Mode::Enforce => "enforce", Mode::Shadow => "shadow" },
        "peer": decision.peer.and_then(Peer::address).map(|address| address.to_string()),
        "peerProblem": match decision.peer {
            Some(Peer::Unknown(problem)) => Some(problem.to_string()),
            _ => None,
        },
        "rule": decision.rule.map(|rule| engine.rule_name(rule)),
        "route": decision.route.map(|route| engine.route_name(route)),
        "forwardedProto": decision.forwarded_proto.map(Scheme::as_str),
        "because": decision.because.to_string(),
        "rules": unmet(&explanation.rules, &|index| engine.rule_name(index).to_owned()),
        "routes": unmet(&explanation.routes, &|index| engine.route_name(index).to_owned()),
        "signals": explanation.signals.iter()
            .map(|(header, reading)| json!({"header": header, "reading": reading_in_words(*reading)}))
            .collect::<Value>(),
        "headers": changes(seen, &explanation, &secret).into_iter()
            .map(|change| json!({"name": change.name, "before": change.before, "after": change.after}))
            .collect::<Value>(),
    })
}

fn decision_in_words(engine: &Engine, explanation: &Explanation<'_>) -> String {
    let decision = &explanation.decision;
    let who = match decision.rule {
        Some(rule) => format!("trusted as {}", engine.rule_name(rule)),
        None => "not trusted".to_owned(),
    };
    let scheme = match (decision.forwarded_proto, decision.because) {
        (Some(scheme), because) => format!("the service is told {}: {because}", scheme.as_str()),
        (None, Because::Kept) => "x-forwarded-proto is kept as it is".to_owned(),
        (None, because) => because.to_string(),
    };
    format!("{who}; {scheme}")
}

fn reading_in_words(reading: Reading) -> &'static str {
    match reading {
        Reading::Says(Scheme::Https) => "says https",
        Reading::Says(Scheme::Http) => "says http",
        Reading::Absent => "absent",
        Reading::Unusable => "there, but can't be understood",
    }
}

/// What becomes of one header.
struct Change {
    name: String,
    before: Option<String>,
    after: Option<String>,
}

fn changes(seen: &Seen, explanation: &Explanation<'_>, secret: &[&str]) -> Vec<Change> {
    explanation
        .decision
        .operations
        .iter()
        .map(|operation| {
            let (name, after) = match operation {
                Operation::Set { name, value } => ((*name).to_owned(), Some((*value).to_owned())),
                Operation::Remove { name } => (String::from_utf8_lossy(name).into_owned(), None),
            };
            let lines: Vec<&str> = seen
                .headers
                .iter()
                .filter(|(known, _)| *known == name)
                .map(|(_, value)| value.as_str())
                .collect();
            let before = (!lines.is_empty()).then(|| {
                if secret.contains(&name.as_str()) {
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
        })
        .collect()
}

/// Headers whose values are secrets, or begin with one.
fn secret_headers(config: &Config) -> Vec<&str> {
    fn secrets(headers: &[HeaderMatch]) -> impl Iterator<Item = &str> {
        headers
            .iter()
            .filter(|header| matches!(header.value, HeaderValueMatch::FromEnv(_)))
            .map(|header| header.name.as_str())
    }
    let mut names: Vec<&str> = Vec::new();
    for rule in &config.trusted_load_balancers {
        names.extend(secrets(&rule.matches.request.headers));
        names.extend(secrets(&rule.matches.request.not_headers));
    }
    for route in &config.routes {
        names.extend(secrets(&route.matches.request.headers));
        names.extend(secrets(&route.matches.request.not_headers));
    }
    names.extend(mutated(config));
    names
}

fn helpers(signals: &[crate::config::Signal]) -> impl Iterator<Item = &str> {
    signals
        .iter()
        .filter(|signal| signal.form == SignalForm::Helper)
        .map(|signal| signal.name.as_str())
}
