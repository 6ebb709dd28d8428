//! The whole configuration, and what spans several of its parts.

#[cfg(feature = "cli")]
use super::declare::Kind;
use super::declare::{Boolean, List, Name, Notation, Part, object, text, words};
use super::document::{Node, quoted};
use super::forwarded::FAMILY;
use super::headers::{COPY, EnvName, HeaderCopy, HeaderName, PORT, Variable};
use super::overrides::Route;
use super::path::Here;
use super::policy::Policy;
use super::problem::closest;
use super::read::{At, Fields};
use super::seen::Seen;
use super::signal_form::SignalForm;
use super::signals::{ForwardedProto, Signal};
use super::trust::{self, TrustedLoadBalancer};
use super::untrusted::{Untrusted, UntrustedProto};

object! {
    /// What stands under `pluginConfig` in a WasmPlugin.
    pub struct Config = "Configuration", "The configuration", "{trustedLoadBalancers: [...]}";
    derive Default;
    check across_parts;

    /// Where the direct peer's address is read; see [choosing peerAddress](peer-address.md).
    peer_address: PeerAddress = optional "peerAddress": PeerAddress, "auto", "forwardedFor";
    /// Proves that the gateway's own early header mutation wrote what `header:NAME` reads. Needed with `header:`, refused
    /// without it.
    helper_token: Option<HelperToken> = optional "helperToken": HelperToken, "none", "{fromEnv: TRUSTED_LB_TOKEN}";
    /// Who may speak for the client's scheme. The first whose `match` holds decides; if none does, the peer is untrusted.
    trusted_load_balancers: Vec<TrustedLoadBalancer> = optional "trustedLoadBalancers": List<TrustedLoadBalancer>, "[]",
        "[{name: public-alb, match: {ipBlocks: [10.0.12.0/24]}, forwardedProto: {default: https}}]";
    /// What becomes of requests from everybody else. A configuration without this and without rules says nothing about the
    /// scheme: it leaves x-forwarded-proto, `:scheme` and all other headers of that kind as they are.
    untrusted: Option<Untrusted> = optional "untrusted": Untrusted, "see there", "{forwardedProto: connection}";
    /// When `:scheme` follows a trusted peer's scheme; Envoy's redirects and OAuth2 use it. `auto`: on HTTP/1, as Envoy
    /// does itself for a trusted x-forwarded-proto. For an untrusted peer `:scheme` is always the connection's own. An
    /// upstream that is sent HTTP/2 without TLS may refuse `https`; see [troubleshooting](troubleshooting.md).
    rewrite_scheme: RewriteScheme = optional "rewriteScheme": RewriteScheme, "auto", "always";
    /// Also write `x-forwarded-port`, 443 or 80, unless that header itself told the scheme. Rules that read this header read
    /// 443 as https and 80 as http then, whatever other ports they name.
    forwarded_port: bool = optional "forwardedPort": Boolean, "false", "true";
    /// Timeouts and retries for requests that no route overrides, whoever sends them.
    defaults: Policy = optional "defaults": Policy, "none", "{timeout: 15s}";
    /// Overrides. In listed order, the first whose `match` holds applies.
    routes: Vec<Route> = optional "routes": List<Route>, "[]",
        "[{name: uploads, match: {paths: [{prefix: /upload}]}, timeout: 5m}]";
    /// `shadow`: decide, count and log, but change nothing; only helper headers are removed all the same.
    mode: Mode = optional "mode": Mode, "enforce", "shadow";
    /// Put each decision where an access log can print it: rule, route, scheme and reason; see
    /// [operations](operations.md#reportdecision). Two to four more host calls a request.
    report_decision: bool = optional "reportDecision": Boolean, "false", "true";
}

object! {
    /// The token that the gateway's own early header mutation writes in front of what it copies.
    pub struct HelperToken = "HelperToken", "helperToken", "{fromEnv: TRUSTED_LB_TOKEN}";
    derive Default;

    /// The variable of the Wasm VM's environment with the token, at least 8 characters. The early header mutation writes
    /// it, a space and the value.
    from_env: EnvName = required "fromEnv": Variable, "TRUSTED_LB_TOKEN";
}

/// Where the direct peer's address is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum PeerAddress {
    /// `source.address`, believed only if the right-most x-forwarded-for entry agrees and the port isn't 0.
    #[default]
    Auto,
    /// `source.address`, believed if its port isn't 0.
    Source,
    /// The right-most x-forwarded-for entry, which Envoy appended.
    ForwardedFor,
    /// A header that the gateway's own early header mutation writes, as `TOKEN ADDRESS`.
    Header(HeaderName),
    /// The connection's filter state, under this key: a network filter of the gateway's own writes it.
    FilterState(String),
}

/// The key of the filter state, unless the configuration names another.
pub const DEFAULT_PEER_KEY: &str = "trusted_lb.peer";

/// The word for the filter state.
const FILTER_STATE: &str = "filterState";

impl PeerAddress {
    const WORDS: [(&'static str, PeerAddress); 3] = [
        ("auto", PeerAddress::Auto),
        ("source", PeerAddress::Source),
        ("forwardedFor", PeerAddress::ForwardedFor),
    ];
}

impl std::fmt::Display for PeerAddress {
    /// As it is written in a configuration.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PeerAddress::Header(name) => return write!(f, "{COPY}{}", name.as_str()),
            PeerAddress::FilterState(key) => return write!(f, "{FILTER_STATE}:{key}"),
            _ => {}
        }
        let word = Self::WORDS.iter().find(|(_, known)| known == self);
        f.write_str(word.map_or("", |(word, _)| word))
    }
}

impl Notation for PeerAddress {
    type Value = Self;
    const EXAMPLE: &'static str = "auto, source, forwardedFor, filterState or header:x-lb-peer";
    #[cfg(feature = "cli")]
    const KIND: Kind = Kind::Either(&[
        Kind::Words(&super::declare::words_of(&PeerAddress::WORDS)),
        Kind::Words(&[FILTER_STATE]),
        FilterStateKey::KIND,
        HeaderCopy::KIND,
    ]);

    fn read(at: At<'_>) -> Option<Self> {
        let Node::Text(text) = at.node else {
            at.wrong_kind("a word");
            return None;
        };
        if text.starts_with(COPY) {
            return HeaderCopy::read(at).map(PeerAddress::Header);
        }
        if text == FILTER_STATE {
            return Some(PeerAddress::FilterState(DEFAULT_PEER_KEY.to_owned()));
        }
        if text.starts_with(FILTER_STATE) && text.contains(':') {
            return FilterStateKey::read(at).map(PeerAddress::FilterState);
        }
        at.word_of(&Self::WORDS, &[FILTER_STATE, "header:NAME"])
    }
}

text! {
    /// The filter state under a key, as `filterState:KEY`.
    FilterStateKey: String = "filterState:KEY", "filterState:trusted_lb.peer", filter_state_key,
        r"^filterState:[!-~]{1,128}$";
}

fn filter_state_key(at: At<'_>) -> Option<String> {
    let text = at.text()?;
    let key = text
        .strip_prefix(FILTER_STATE)
        .and_then(|rest| rest.strip_prefix(':'));
    let key = key
        .filter(|key| (1..=128).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()));
    if key.is_none() {
        at.error_with_help(
            &format_args!("{} names no key of the filter state", quoted(text)),
            &format_args!("write {FILTER_STATE}:KEY with the key of the network filter, or {FILTER_STATE} for {DEFAULT_PEER_KEY}"),
        );
    }
    key.map(str::to_owned)
}

words! {
    /// When `:scheme` follows a trusted peer's scheme.
    pub enum RewriteScheme;

    /// On HTTP/1, as Envoy does for a trusted x-forwarded-proto.
    Auto = "auto";
    /// On every protocol.
    Always = "always";
    /// On none.
    Never = "never";
}

words! {
    /// Whether decisions are applied.
    pub enum Mode;

    /// Decide and apply.
    Enforce = "enforce";
    /// Decide, count and log; change nothing but for the removal of helper headers.
    Shadow = "shadow";
}

/// The names of the fields of a whole configuration, by which a document is known as one.
#[must_use]
pub fn top_fields() -> Vec<&'static str> {
    let mut names = Vec::new();
    Name::list(Config::NAMES, &mut names);
    names
}

fn across_parts(config: &Config, fields: &Fields<'_>) {
    for list in ["trustedLoadBalancers", "routes"] {
        unique_names(list, fields.at());
    }
    helpers_have_a_token(config, fields);
    overwritten_signals(config, fields.at());
    contradicted_signals(config, fields.at());
    trust::trust_of_everybody(&config.trusted_load_balancers, fields);
    kept_headers(config, fields.at());
}

/// Keeping what isn't removed says nothing: it is a name misspelled.
fn kept_headers(config: &Config, at: At<'_>) {
    let Some(untrusted) = &config.untrusted else {
        return;
    };
    let removable = config.removable_headers();
    let here = Here::Field(at.here, "untrusted");
    let list = Here::Field(&here, "keepHeaders");
    for (index, name) in untrusted.keep_headers.iter().enumerate() {
        if removable.contains(&name.as_str()) {
            continue;
        }
        let name = name.as_str();
        let help = match closest(name, &mut removable.iter().copied()) {
            Some(word) => format!("did you mean {word}?"),
            None => "take it out".to_owned(),
        };
        at.problems.error_with_help(
            &Here::Item(&list, index),
            &format_args!(
                "{} is neither in the built-in list nor in a from, so that it stays anyway",
                quoted(name)
            ),
            &help,
        );
    }
}

/// Names of rules and routes are how logs and `explain` speak of them.
fn unique_names(list: &str, at: At<'_>) {
    fn name_of(item: &Node) -> Option<&str> {
        match item.get("name") {
            Some(Node::Text(name)) => Some(name),
            _ => None,
        }
    }
    let mut seen = Seen::default();
    let items = at.node.items_of(list);
    for (index, item) in items.iter().enumerate() {
        let Some(name) = name_of(item).filter(|name| seen.again(name)) else {
            continue;
        };
        // Of too many mistakes the rest is only counted.
        let first = if at.problems.is_full() {
            Some(0)
        } else {
            let mut earlier = items.iter().take(index);
            earlier.position(|other| name_of(other) == Some(name))
        };
        if let Some(first) = first {
            at.problems.error_with_help(
                &Here::Field(&Here::Item(&Here::Field(at.here, list), index), "name"),
                &format_args!("{} is the name of {list}[{first}] already", quoted(name)),
                &"choose another name",
            );
        }
    }
}

/// A helper header without a token fails open if the early header mutation is missing: anybody could send it.
fn helpers_have_a_token(config: &Config, fields: &Fields<'_>) {
    let in_peer = matches!(config.peer_address, PeerAddress::Header(_));
    let in_signals = config
        .signals()
        .any(|signal| signal.form == SignalForm::Helper);
    if fields.has("helperToken") {
        let is_read = in_peer || in_signals;
        // What is wrong in another part may be what reads it.
        if !is_read && fields.at().problems.errors() == 0 {
            fields.error_at(
                "helperToken",
                &"no helper header is read in this configuration",
                &"take it out, or read one with peerAddress: header:NAME or header:NAME in from",
            );
        }
    } else if in_peer || in_signals {
        fields.error_at(
            "helperToken",
            &"a helper header is read, and nothing proves that the gateway's own early header mutation wrote it",
            &"write helperToken: {fromEnv: TRUSTED_LB_TOKEN} and let the mutation write that token in front of the value",
        );
    }
}

/// With `auto` and `source` the connection manager has overwritten x-forwarded-proto before this filter sees it, so
/// that reading it would only ever tell the connection's own scheme.
fn overwritten_signals(config: &Config, at: At<'_>) {
    if !matches!(config.peer_address, PeerAddress::Auto | PeerAddress::Source) {
        return;
    }
    for list in ["trustedLoadBalancers", "routes"] {
        for (index, item) in at.node.items_of(list).iter().enumerate() {
            let Some(proto) = item.get("forwardedProto") else {
                continue;
            };
            for (position, signal) in proto.items_of("from").iter().enumerate() {
                let Some(Node::Text(name)) = signal.get("header").or(Some(signal)) else {
                    continue;
                };
                if !name.eq_ignore_ascii_case("x-forwarded-proto") {
                    continue;
                }
                let item = Here::Item(&Here::Field(at.here, list), index);
                at.problems.error_with_help(
                    &Here::Item(&Here::Field(&Here::Field(&item, "forwardedProto"), "from"), position),
                    &"Envoy has overwritten x-forwarded-proto before this filter sees it, with this peerAddress",
                    &"take it out and use default: https or another signal; where numTrustedProxies is at least 1 \
                      write peerAddress: filterState or forwardedFor; else copy it with an early header mutation and read \
                      header:x-lb-proto",
                );
            }
        }
    }
}

/// What is written into a header that tells the scheme would be read as the other scheme, by a second plugin and after an
/// internal redirect.
fn contradicted_signals(config: &Config, at: At<'_>) {
    // Items with mistakes are left out, so that the others' positions are wrong.
    if at.problems.errors() > 0 {
        return;
    }
    let rules = config.trusted_load_balancers.iter();
    let of_rules = rules.map(|rule| Some(&rule.forwarded_proto));
    let routes = config.routes.iter();
    let of_routes = routes.map(|route| route.forwarded_proto.as_ref());
    contradictions(
        "trustedLoadBalancers",
        config,
        &mut of_rules.enumerate(),
        at,
    );
    contradictions("routes", config, &mut of_routes.enumerate(), at);
}

fn contradictions(
    list: &str,
    config: &Config,
    all: &mut dyn Iterator<Item = (usize, Option<&ForwardedProto>)>,
    at: At<'_>,
) {
    for (index, proto) in all {
        for (position, signal) in proto.into_iter().flat_map(|proto| &proto.from).enumerate() {
            let Some((written, meant)) = signal.contradicts(config.forwarded_port) else {
                continue;
            };
            let item = Here::Item(&Here::Field(at.here, list), index);
            at.problems.error_with_help(
                &Here::Item(
                    &Here::Field(&Here::Field(&item, "forwardedProto"), "from"),
                    position,
                ),
                &format_args!(
                    "{written} means {meant} here, but this filter writes it for the other scheme"
                ),
                &"take it out of the list: what the filter wrote is read again after an internal redirect and by a second plugin",
            );
        }
    }
}

impl Config {
    /// Reads what the filter itself writes as what is meant by it, whatever other values the configuration names: a second
    /// plugin sees it, and this one after an internal redirect.
    pub(super) fn read_back(&mut self) {
        let of_rules = self
            .trusted_load_balancers
            .iter_mut()
            .map(|rule| &mut rule.forwarded_proto);
        let of_routes = self
            .routes
            .iter_mut()
            .filter_map(|route| route.forwarded_proto.as_mut());
        for proto in of_rules.chain(of_routes) {
            for signal in &mut proto.from {
                signal.read_back(self.forwarded_port);
            }
        }
    }

    /// Every signal of the configuration.
    pub(crate) fn signals(&self) -> impl Iterator<Item = &Signal> {
        let of_rules = self
            .trusted_load_balancers
            .iter()
            .map(|rule| &rule.forwarded_proto);
        let of_routes = self
            .routes
            .iter()
            .filter_map(|route| route.forwarded_proto.as_ref());
        of_rules.chain(of_routes).flat_map(|proto| &proto.from)
    }

    /// The headers that are removed from an untrusted peer's request: those that only a proxy may write, those that any
    /// `from` names, and the configuration's own, but for those that it keeps.
    #[must_use]
    pub fn removed_headers(&self) -> Vec<&str> {
        if !self.judges_schemes() {
            return Vec::new();
        }
        let mut names = self.removable_headers();
        let untrusted = self.untrusted.as_ref();
        let added = untrusted.map(|untrusted| &untrusted.remove_headers);
        names.extend(added.into_iter().flatten().map(HeaderName::as_str));
        let kept = untrusted.map_or(&[][..], |untrusted| &untrusted.keep_headers);
        // What is written for every request needn't be removed from it first.
        let is_written = |name: &str| {
            name == PORT
                && self.forwarded_port
                && untrusted
                    .is_none_or(|untrusted| untrusted.forwarded_proto != UntrustedProto::Keep)
        };
        names.retain(|name| !kept.iter().any(|kept| kept.as_str() == *name) && !is_written(name));
        names
    }

    /// Whether the configuration says anything about the scheme: without a rule of trust and without `untrusted` the
    /// headers that tell it are left alone.
    #[must_use]
    pub fn judges_schemes(&self) -> bool {
        !self.trusted_load_balancers.is_empty() || self.untrusted.is_some()
    }

    /// The headers that are removed without being listed.
    fn removable_headers(&self) -> Vec<&str> {
        let family = FAMILY
            .iter()
            .copied()
            .filter(|name| *name != "x-forwarded-proto");
        // A helper is removed from every request.
        let of_signals = self
            .signals()
            .filter(|signal| signal.form != SignalForm::Helper && !signal.name.is_owned());
        family
            .chain(of_signals.map(|signal| signal.name.as_str()))
            .collect()
    }
}
