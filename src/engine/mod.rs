//! The decision: whether the direct peer may speak for the client's scheme, and which headers follow.
//!
//! Pure: it asks a [`Request`] and answers with a [`Decision`]. It knows no host, does no input or output, can't fail
//! and doesn't panic. What it can't make sense of, it doesn't trust.

mod changes;
mod cidr_set;
mod compile;
mod decision;
mod explanation;
mod facts;
mod forwarded_proto;
mod header_values;
mod matcher;
mod names;
mod override_table;
mod overrides;
mod peer;
mod peer_source;
mod policy;
mod request;
mod rule;
mod secret;
mod signal;
mod untrusted;

pub use compile::Environment;
pub use decision::{Decision, Notes, Operation, SchemeSource};
pub use explanation::Explanation;
pub use matcher::Condition;
pub use peer::{Peer, PeerProblem};
pub use request::{Attribute, Request};
pub use signal::Reading;

use changes::Changes;
use facts::Facts;
use forwarded_proto::ForwardedProto;
use names::{HeaderId, HeaderNames};
use override_table::OverrideTable;
use overrides::Override;
use peer_source::{DirectPeer, PeerSource};
use policy::{Policy, Sender};
use rule::Rule;
use secret::Secret;
use untrusted::Untrusted;

use crate::config::{Mode, RewriteScheme, Scheme, UntrustedProto};

/// A compiled configuration: immutable, shared by all requests.
#[derive(Clone, Debug)]
pub struct Engine {
    names: HeaderNames,
    peer: PeerSource,
    /// What early-mutation headers begin with.
    helper_token: Secret,
    rules: Vec<Rule>,
    untrusted: Untrusted,
    /// Headers that overrides and policies read, and that are removed from untrusted requests: absent there for whatever
    /// is decided once nobody is trusted, as they are for the upstream.
    forgotten: Vec<HeaderId>,
    rewrite_scheme: RewriteScheme,
    forwarded_port: bool,
    defaults: Policy,
    overrides: OverrideTable,
    mode: Mode,
    reports_decisions: bool,
}

impl Engine {
    /// Decides what becomes of a request.
    pub fn decide<'a, R: Request>(&'a self, request: &'a R) -> Decision<'a> {
        let mut facts = Facts::new(&self.names, request);
        let peer = DirectPeer::new(&self.peer);
        self.decide_on(&mut facts, &peer)
    }

    fn decide_on<'a, R: Request>(
        &'a self,
        facts: &mut Facts<'a, R>,
        peer: &DirectPeer<'_>,
    ) -> Decision<'a> {
        let mut rules = self.rules.iter();
        let rule = rules.position(|rule| rule.matches.unmet(facts, peer).is_none());
        let sender = self.sender(rule);
        let trusted = sender != Sender::Untrusted;
        let refusal = if trusted {
            None
        } else {
            self.untrusted.refuses(facts, peer)
        };
        if !trusted {
            facts.forget(&self.forgotten);
        }
        let facts = &*facts;
        let applied_override = self.overrides.find(facts);
        let own = applied_override.and_then(|index| self.overrides.get(index));
        let (scheme, source) = self.scheme(facts, rule, own);

        let mut changes = Changes::new();
        self.write_forwarded_proto(facts, trusted, scheme, &mut changes);
        self.remove_headers(facts, trusted, &mut changes);
        self.write_scheme(facts, trusted, scheme, &mut changes);
        self.write_port(facts, scheme, source, &mut changes);
        if refusal.is_some() && self.mode == Mode::Enforce {
            changes.refused();
        } else {
            let policy = own.map_or(&self.defaults, |own| &own.policy);
            policy.apply(facts, &self.names, sender, &mut changes);
        }
        Decision {
            peer: peer.if_asked(),
            rule,
            applied_override,
            forwarded_proto: scheme,
            source,
            refusal,
            operations: changes.operations,
            notes: changes.notes,
        }
    }

    /// Who sent a request that this rule trusts, or none.
    fn sender(&self, rule: Option<usize>) -> Sender {
        match (rule, self.untrusted.forwarded_proto) {
            (Some(_), _) => Sender::Trusted,
            (None, Some(_)) => Sender::Untrusted,
            (None, None) => Sender::NotJudged,
        }
    }

    /// The client's scheme, and where that comes from.
    fn scheme<'a, R: Request>(
        &'a self,
        facts: &Facts<'a, R>,
        rule: Option<usize>,
        own: Option<&Override>,
    ) -> (Option<Scheme>, SchemeSource<'a>) {
        if let Some(proto) = self.forwarded_proto(rule, own) {
            let (scheme, source) = proto.scheme(facts, &self.names, &self.helper_token);
            return (Some(scheme), source);
        }
        match self.untrusted.forwarded_proto {
            Some(UntrustedProto::Connection) => {
                (Some(facts.connection()), SchemeSource::Connection)
            }
            Some(UntrustedProto::Http) => (Some(Scheme::Http), SchemeSource::UntrustedHttp),
            Some(UntrustedProto::Keep) => (None, SchemeSource::Kept),
            None => (None, SchemeSource::NotJudged),
        }
    }

    /// How a trusted peer tells the scheme: as the override says, else as its rule does. Nothing for an untrusted peer.
    fn forwarded_proto<'s>(
        &'s self,
        rule: Option<usize>,
        own: Option<&'s Override>,
    ) -> Option<&'s ForwardedProto> {
        let rule = self.rules.get(rule?)?;
        let own = own.and_then(|own| own.forwarded_proto.as_ref());
        Some(own.unwrap_or(&rule.forwarded_proto))
    }

    fn write_forwarded_proto<'a, R: Request>(
        &'a self,
        facts: &Facts<'a, R>,
        trusted: bool,
        scheme: Option<Scheme>,
        changes: &mut Changes<'a>,
    ) {
        let before = facts.header(HeaderId::FORWARDED_PROTO);
        if let Some(scheme) = scheme
            && !before.is(scheme.as_str())
        {
            changes.set(self.names.name(HeaderId::FORWARDED_PROTO), scheme.as_str());
            changes.notes.forwarded_proto_rewritten = true;
            changes.notes.forged_claim = !trusted && before.is_present();
        }
    }

    /// Removes early-mutation headers and the variants of headers that are written, whoever sent them, and from
    /// untrusted peers what only a load balancer may say.
    fn remove_headers<'a, R: Request>(
        &'a self,
        facts: &Facts<'a, R>,
        trusted: bool,
        changes: &mut Changes<'a>,
    ) {
        for removable in &facts.removable {
            let removal = self.names.removal(removable.of);
            let whoever_sent_it = if removable.is_variant {
                removal.variants
            } else {
                removal.always
            };
            if whoever_sent_it || (removal.untrusted && !trusted) {
                changes.remove(removable.name);
                changes.notes.forged_claim |= !trusted;
            }
        }
    }

    fn write_scheme<'a, R: Request>(
        &'a self,
        facts: &Facts<'a, R>,
        trusted: bool,
        forwarded_proto: Option<Scheme>,
        changes: &mut Changes<'a>,
    ) {
        // A plain CONNECT has no :scheme, and must not get one (RFC 9113, 8.5).
        let now = facts.header(HeaderId::SCHEME);
        if !now.is_present() {
            return;
        }
        // Over HTTP/2 the client chooses :scheme freely, and redirects are built from it.
        let scheme = if trusted {
            forwarded_proto
        } else {
            Some(facts.connection())
        };
        if let Some(scheme) = scheme
            && !now.is(scheme.as_str())
            && (!trusted || self.rewrites_scheme(facts))
        {
            changes.set(self.names.name(HeaderId::SCHEME), scheme.as_str());
            changes.notes.scheme_rewritten = true;
        }
    }

    /// Whether `:scheme` follows a trusted peer's scheme.
    fn rewrites_scheme<R: Request>(&self, facts: &Facts<'_, R>) -> bool {
        match self.rewrite_scheme {
            RewriteScheme::Always => true,
            RewriteScheme::Never => false,
            RewriteScheme::Auto => facts.is_http1(),
        }
    }

    /// Writes x-forwarded-port, unless that header itself told the scheme.
    fn write_port<'a, R: Request>(
        &'a self,
        facts: &Facts<'a, R>,
        scheme: Option<Scheme>,
        source: SchemeSource<'a>,
        changes: &mut Changes<'a>,
    ) {
        let name = self.names.name(HeaderId::FORWARDED_PORT);
        if let Some(scheme) = scheme.filter(|_| self.forwarded_port)
            && source != (SchemeSource::Signal { header: name })
            && !facts
                .header(HeaderId::FORWARDED_PORT)
                .is(scheme.default_port())
        {
            changes.set(name, scheme.default_port());
        }
    }

    /// Whether decisions are to be applied.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether an operation is to be carried out. In shadow mode only early-mutation headers are removed: the upstream
    /// must not see the token in them.
    #[must_use]
    pub fn carries_out(&self, operation: &Operation<'_>) -> bool {
        match (self.mode, operation) {
            (Mode::Enforce, _) => true,
            (Mode::Shadow, Operation::Set { .. }) => false,
            (Mode::Shadow, Operation::Remove { name }) => {
                let known = self.names.id(name);
                known.is_some_and(|id| self.names.removal(id).always)
            }
        }
    }

    /// Whether each decision is to be put where an access log can print it.
    #[must_use]
    pub fn reports_decisions(&self) -> bool {
        self.reports_decisions
    }

    /// The name of the rule at a position.
    #[must_use]
    pub fn rule_name(&self, index: usize) -> &str {
        self.rules.get(index).map_or("", |rule| &rule.name)
    }

    /// How many rules there are.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// The name of the override at a position.
    #[must_use]
    pub fn override_name(&self, index: usize) -> &str {
        self.overrides.get(index).map_or("", |own| &own.name)
    }

    /// How many overrides there are.
    #[must_use]
    pub fn override_count(&self) -> usize {
        self.overrides.len()
    }
}
