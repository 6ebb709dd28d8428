//! The decision: who the peer is, whether it may speak for the client's scheme, and which headers follow.
//!
//! Pure: it asks a [`Request`] and answers with a [`Decision`]. It knows no host, does no input or output, can't fail
//! and doesn't panic; what it can't make sense of, it doesn't trust.

mod compile;
mod decision;
mod facts;
mod matcher;
mod names;
mod net;
mod peer;
mod policy;
mod request;
mod route;
mod route_table;
mod secret;
mod signal;

pub use compile::Environment;
pub use decision::{Because, Decision, Explanation, Notes, Operation};
pub use matcher::Condition;
pub use peer::{Peer, PeerProblem};
pub use request::{Attribute, Request};
pub use signal::Reading;

use facts::{Facts, Lines};
use matcher::{ConnectionMatch, RequestMatch};
use names::{HeaderId, HeaderNames};
use policy::Policy;
use route_table::RouteTable;
use secret::Secret;
use signal::Signal;

use crate::config::{DefaultScheme, Mode, RewriteScheme, Scheme, UntrustedProto};

/// A compiled configuration: immutable, shared by all requests.
#[derive(Clone, Debug)]
pub struct Engine {
    names: HeaderNames,
    peer: PeerSource,
    rules: Vec<Rule>,
    untrusted_proto: UntrustedProto,
    rewrite_scheme: RewriteScheme,
    forwarded_port: bool,
    defaults: Policy,
    routes: RouteTable,
    mode: Mode,
    reports_decisions: bool,
}

/// Where the peer's address is read; see [`crate::config::PeerAddress`].
#[derive(Clone, Debug)]
enum PeerSource {
    Auto,
    Source,
    ForwardedFor,
    Helper { header: HeaderId, token: Secret },
}

/// A compiled rule of trust.
#[derive(Clone, Debug)]
struct Rule {
    name: String,
    connection: ConnectionMatch,
    request: RequestMatch,
    forwarded_proto: ForwardedProto,
}

impl Rule {
    /// The first condition that doesn't hold, if any.
    fn unmet<R: Request>(&self, facts: &Facts<'_, R>) -> Option<Condition> {
        self.connection
            .unmet(facts)
            .or_else(|| self.request.unmet(facts))
    }
}

/// How a trusted load balancer tells the scheme.
#[derive(Clone, Debug)]
struct ForwardedProto {
    from: Vec<Signal>,
    default: DefaultScheme,
}

impl Engine {
    /// Whether decisions are to be applied.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether an operation is to be carried out. In shadow mode nothing is, but for the removal of helper headers: the
    /// token in them is no business of the upstream's.
    #[must_use]
    pub fn carries_out(&self, operation: &Operation<'_>) -> bool {
        match (self.mode, operation) {
            (Mode::Enforce, _) => true,
            (Mode::Shadow, Operation::Set { .. }) => false,
            (Mode::Shadow, Operation::Remove { name }) => {
                let known = self.names.look_up(name).id;
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

    /// The name of the route at a position.
    #[must_use]
    pub fn route_name(&self, index: usize) -> &str {
        self.routes.get(index).map_or("", |route| &route.name)
    }

    /// How many routes there are.
    #[must_use]
    pub fn route_count(&self) -> usize {
        self.routes.len()
    }

    /// Decides what becomes of a request.
    pub fn decide<'a, R: Request>(&'a self, request: &'a R) -> Decision<'a> {
        self.decide_on(&Facts::new(self, request))
    }

    /// Decides, and says how it came to that: for people, by the same functions.
    pub fn explain<'a, R: Request>(&'a self, request: &'a R) -> Explanation<'a> {
        let facts = Facts::new(self, request);
        let decision = self.decide_on(&facts);
        let rules = self.rules.iter().map(|rule| rule.unmet(&facts)).collect();
        let routes = self.routes.unmet(&facts);
        let signals = self
            .proto_for(decision.rule, decision.route)
            .map(|proto| {
                proto
                    .from
                    .iter()
                    .map(|signal| {
                        (
                            self.names.name(signal.header),
                            signal.read(facts.header(signal.header)),
                        )
                    })
                    .collect()
            })
            .unwrap_or_default();
        Explanation {
            decision,
            rules,
            routes,
            signals,
        }
    }

    fn decide_on<'a, R: Request>(&'a self, facts: &Facts<'a, R>) -> Decision<'a> {
        let rule = self
            .rules
            .iter()
            .position(|rule| rule.unmet(facts).is_none());
        let route = self.routes.find(facts);
        let mut operations = Vec::with_capacity(8);
        let mut notes = Notes::default();
        let (forwarded_proto, because) = self.forwarded_proto(facts, rule, route);

        let before = facts.header(HeaderId::FORWARDED_PROTO);
        if let Some(scheme) = forwarded_proto
            && before != Lines::One(scheme.as_str().as_bytes())
        {
            operations.push(Operation::Set {
                name: self.names.name(HeaderId::FORWARDED_PROTO),
                value: scheme.as_str(),
            });
            notes.forwarded_proto_rewritten = true;
            notes.forged_claim = rule.is_none() && before.is_present();
        }
        self.remove_headers(facts, rule.is_some(), &mut operations, &mut notes);
        if let Some(value) = self.scheme_to_write(facts, rule.is_some(), forwarded_proto) {
            operations.push(Operation::Set {
                name: self.names.name(HeaderId::SCHEME),
                value: value.as_str(),
            });
            notes.scheme_rewritten = true;
        }
        self.write_port(facts, forwarded_proto, because, &mut operations);
        let policy = route
            .and_then(|index| self.routes.get(index))
            .map_or(&self.defaults, |route| &route.policy);
        policy.apply(facts, &mut operations, &mut notes);
        Decision {
            peer: facts.peer_if_asked(),
            rule,
            route,
            forwarded_proto,
            because,
            operations,
            notes,
        }
    }

    /// How a trusted peer tells the scheme: as its route says, else as its rule does; nothing for an untrusted peer.
    fn proto_for(&self, rule: Option<usize>, route: Option<usize>) -> Option<&ForwardedProto> {
        let rule = self.rules.get(rule?)?;
        let of_route = route
            .and_then(|index| self.routes.get(index))
            .and_then(|route| route.forwarded_proto.as_ref());
        Some(of_route.unwrap_or(&rule.forwarded_proto))
    }

    /// The client's scheme, and where that comes from.
    fn forwarded_proto<'a, R: Request>(
        &'a self,
        facts: &Facts<'a, R>,
        rule: Option<usize>,
        route: Option<usize>,
    ) -> (Option<Scheme>, Because<'a>) {
        let Some(proto) = self.proto_for(rule, route) else {
            return match self.untrusted_proto {
                UntrustedProto::Connection => (Some(facts.connection()), Because::Connection),
                UntrustedProto::Http => (Some(Scheme::Http), Because::UntrustedHttp),
                UntrustedProto::Keep => (None, Because::Kept),
            };
        };
        let mut unusable = None;
        for signal in &proto.from {
            let header = self.names.name(signal.header);
            match signal.read(facts.header(signal.header)) {
                Reading::Absent => {}
                Reading::Says(scheme) => return (Some(scheme), Because::Signal { header }),
                Reading::Unusable => {
                    unusable = Some(header);
                    break;
                }
            }
        }
        let scheme = match proto.default {
            DefaultScheme::Scheme(scheme) => scheme,
            DefaultScheme::Connection => facts.connection(),
        };
        (Some(scheme), Because::Default { unusable })
    }

    /// Removes helper headers and the underscore twins of what is written, whoever sent them, and from untrusted
    /// peers what only a load balancer may say.
    fn remove_headers<'a, R: Request>(
        &'a self,
        facts: &Facts<'a, R>,
        trusted: bool,
        operations: &mut Vec<Operation<'a>>,
        notes: &mut Notes,
    ) {
        for (id, removal) in self.names.removed() {
            if facts.header(*id).is_present() && (removal.always || (removal.untrusted && !trusted))
            {
                operations.push(Operation::Remove {
                    name: self.names.name(*id).as_bytes(),
                });
                notes.forged_claim |= !trusted;
            }
        }
        for twin in &facts.twins {
            let removal = self.names.removal(twin.of);
            if removal.twins || (removal.untrusted && !trusted) {
                operations.push(Operation::Remove { name: twin.name });
                notes.forged_claim |= !trusted;
            }
        }
    }

    /// What `:scheme` is to become, where it isn't that already.
    fn scheme_to_write<R: Request>(
        &self,
        facts: &Facts<'_, R>,
        trusted: bool,
        forwarded_proto: Option<Scheme>,
    ) -> Option<Scheme> {
        // A plain CONNECT has no :scheme, and must not get one (RFC 9113, 8.5).
        let now = facts.header(HeaderId::SCHEME);
        if !now.is_present() {
            return None;
        }
        let differs = |scheme: Scheme| now != Lines::One(scheme.as_str().as_bytes());
        if !trusted {
            // Over HTTP/2 the client chooses :scheme freely, and redirects are built from it.
            return Some(facts.connection()).filter(|scheme| differs(*scheme));
        }
        let wanted = forwarded_proto.filter(|scheme| differs(*scheme))?;
        let rewrite = match self.rewrite_scheme {
            RewriteScheme::Always => true,
            RewriteScheme::Never => false,
            RewriteScheme::Auto => facts.is_http1(),
        };
        rewrite.then_some(wanted)
    }

    /// Writes x-forwarded-port, unless that header itself told the scheme.
    fn write_port<'a, R: Request>(
        &'a self,
        facts: &Facts<'a, R>,
        forwarded_proto: Option<Scheme>,
        because: Because<'a>,
        operations: &mut Vec<Operation<'a>>,
    ) {
        if !self.forwarded_port {
            return;
        }
        let name = self.names.name(HeaderId::FORWARDED_PORT);
        if because == (Because::Signal { header: name }) {
            return;
        }
        if let Some(scheme) = forwarded_proto {
            let value = scheme.default_port();
            if facts.header(HeaderId::FORWARDED_PORT) != Lines::One(value.as_bytes()) {
                operations.push(Operation::Set { name, value });
            }
        }
    }
}
