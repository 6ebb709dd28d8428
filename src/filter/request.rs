//! One request in Envoy: the engine's questions become host calls, its decision becomes header operations.

use std::cell::OnceCell;
use std::rc::Rc;

use super::counters::{self, Counter};
use super::host::{self, Buffer};
use super::pairs::pairs;
use super::report::report;
use super::root::Shared;
use crate::config::Mode;
use crate::engine::{Attribute, Because, Decision, Engine, Operation, Peer, Request};

/// A compiled configuration, and what its requests share.
pub(super) struct Configured {
    engine: Engine,
    shared: Rc<Shared>,
}

impl Configured {
    pub(super) fn new(engine: Engine, shared: Rc<Shared>) -> Self {
        Self { engine, shared }
    }

    /// Decides about the request whose headers Envoy has now, and applies the decision.
    pub(super) fn on_request_headers(&self) {
        let engine = &self.engine;
        let request = HostRequest {
            headers: OnceCell::new(),
            shared: &self.shared,
        };
        let decision = engine.decide(&request);
        self.count(&decision);
        if log::log_enabled!(log::Level::Debug) {
            log_decision(engine, &decision);
        }
        for operation in &decision.operations {
            if engine.carries_out(operation) {
                self.apply(operation);
            }
        }
        if engine.reports_decisions()
            && let Err(status) = report(engine, &decision)
        {
            self.shared.host_call_failed("reporting a decision", status);
        }
    }

    fn count(&self, decision: &Decision<'_>) {
        match decision.rule {
            Some(rule) => {
                counters::count(Counter::Trusted);
                counters::count_rule(rule);
            }
            None => counters::count(Counter::Untrusted),
        }
        let notes = decision.notes;
        counters::count_if(
            notes.forwarded_proto_rewritten,
            Counter::ForwardedProtoRewritten,
        );
        counters::count_if(notes.scheme_rewritten, Counter::SchemeRewritten);
        counters::count_if(notes.forged_claim, Counter::ForgedClaim);
        counters::count_if(notes.timeout, Counter::Timeout);
        counters::count_if(notes.retries, Counter::Retries);
        counters::count_if(notes.capped, Counter::Capped);
        if self.engine.mode() == Mode::Shadow {
            counters::count(Counter::Shadow);
            counters::count_if(notes.forwarded_proto_rewritten, Counter::ShadowDisagreement);
        }
        if let Some(Peer::Unknown(problem)) = decision.peer
            && problem.is_ambiguous()
        {
            self.shared.peer_is_ambiguous(problem);
        }
        if let (
            Some(rule),
            Because::Default {
                unusable: Some(header),
            },
        ) = (decision.rule, decision.because)
        {
            self.shared.signal_is_unusable(&self.engine, rule, header);
        }
    }

    fn apply(&self, operation: &Operation<'_>) {
        let result = match operation {
            Operation::Set { name, value } => host::set_request_header(name, value),
            Operation::Remove { name } => host::remove_request_header(name),
        };
        if let Err(status) = result {
            self.shared
                .host_call_failed("writing a request header", status);
        }
    }
}

#[cold]
fn log_decision(engine: &Engine, decision: &Decision<'_>) {
    let rule = decision
        .rule
        .map_or("nobody", |rule| engine.rule_name(rule));
    let route = decision
        .route
        .map_or("the defaults", |route| engine.route_name(route));
    log::debug!(
        "trusted: {rule}, because {}; route: {route}",
        decision.because
    );
    for operation in &decision.operations {
        log::debug!("  {operation}");
    }
}

/// The request that the host is calling us about.
///
/// What can't be read counts as absent, which nothing trusts.
struct HostRequest<'s> {
    headers: OnceCell<Buffer>,
    shared: &'s Shared,
}

impl Request for HostRequest<'_> {
    type Value = Buffer;

    fn header_lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let buffer = self.headers.get_or_init(|| {
            host::request_headers().unwrap_or_else(|status| {
                self.shared
                    .host_call_failed("reading the request headers", status);
                Buffer::default()
            })
        });
        pairs(buffer.as_ref())
    }

    fn attribute(&self, attribute: Attribute) -> Option<Buffer> {
        host::property(attribute.path()).unwrap_or_else(|status| {
            self.shared.host_call_failed("reading an attribute", status);
            None
        })
    }
}
