//! One request in Envoy: the engine's questions become host calls, its decision becomes header operations.

use std::cell::OnceCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::counters::{self, Counter};
use super::host;
use super::pairs::pairs;
use super::report::report;
use super::root::Shared;
use crate::config::Mode;
use crate::engine::{Attribute, Because, Decision, Engine, Operation, Peer, Request};

/// The filter's view of one HTTP stream.
pub(super) struct RequestFilter {
    engine: Option<Rc<Engine>>,
    shared: Rc<Shared>,
}

impl RequestFilter {
    pub(super) fn new(engine: Option<Rc<Engine>>, shared: Rc<Shared>) -> Self {
        Self { engine, shared }
    }

    fn count(&self, engine: &Engine, decision: &Decision<'_>) {
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
        if engine.mode() == Mode::Shadow {
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
            self.shared.signal_is_unusable(engine, rule, header);
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

impl Context for RequestFilter {}

impl HttpContext for RequestFilter {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let Some(engine) = &self.engine else {
            return Action::Continue;
        };
        let request = HostRequest {
            headers: OnceCell::new(),
            shared: &self.shared,
        };
        let decision = engine.decide(&request);
        self.count(engine, &decision);
        if log::log_enabled!(log::Level::Debug) {
            log_decision(engine, &decision);
        }
        if engine.mode() == Mode::Enforce {
            for operation in &decision.operations {
                self.apply(operation);
            }
        }
        if engine.reports_decisions()
            && let Err(status) = report(engine, &decision)
        {
            self.shared.host_call_failed("reporting a decision", status);
        }
        Action::Continue
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
    headers: OnceCell<Vec<u8>>,
    shared: &'s Shared,
}

impl Request for HostRequest<'_> {
    fn header_lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let buffer = self.headers.get_or_init(|| {
            host::request_headers().unwrap_or_else(|status| {
                self.shared
                    .host_call_failed("reading the request headers", status);
                Vec::new()
            })
        });
        pairs(buffer)
    }

    fn attribute(&self, attribute: Attribute) -> Option<Vec<u8>> {
        host::property(attribute.path()).unwrap_or_else(|status| {
            self.shared.host_call_failed("reading an attribute", status);
            None
        })
    }
}
