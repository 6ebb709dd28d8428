//! One HTTP stream in Envoy: the engine's questions become host calls, and its decision becomes header operations.

use std::cell::OnceCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, Bytes};

use super::counters::{self, Counter};
use super::host;
use super::pairs::pairs;
use super::report::report;
use super::shared::Shared;
use crate::config::Mode;
use crate::engine::{Decision, Engine, Operation, Peer, Request, SchemeSource};

/// What an access log prints as `%RESPONSE_CODE_DETAILS%` for a refused request.
const REFUSAL_DETAILS: &str = "trusted_lb_untrusted_refused";

/// What a refused client reads.
const REFUSAL_BODY: &str = "not from a trusted load balancer\n";

/// A compiled configuration, and what the requests that it decides share.
pub(super) struct Configured {
    engine: Engine,
    shared: Rc<Shared>,
}

/// The HTTP context. Envoy creates one for each stream.
///
/// It holds the configuration that its plugin had when the stream began, until the request headers come. If the plugin
/// has no configuration, it does nothing.
pub(super) struct Stream(pub(super) Option<Rc<Configured>>);

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        // The headers come once. A stream that stays open doesn't keep a configuration that was replaced.
        match self.0.take() {
            Some(configured) => configured.on_request_headers(),
            None => Action::Continue,
        }
    }
}

impl Configured {
    pub(super) fn new(engine: Engine, shared: Rc<Shared>) -> Self {
        Self { engine, shared }
    }

    /// Decides about the request whose headers Envoy has now, and applies the decision.
    fn on_request_headers(&self) -> Action {
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
        match decision.refusal {
            Some(status) if engine.mode() == Mode::Enforce => self.refuse(status),
            _ => Action::Continue,
        }
    }

    /// Answers the request with a status. If Envoy doesn't take the answer, the request waits until Envoy's timeouts end
    /// it: it isn't served.
    #[cold]
    fn refuse(&self, status: u16) -> Action {
        if let Err(status) = host::send_local_response(status, REFUSAL_DETAILS, REFUSAL_BODY) {
            self.shared.host_call_failed("refusing a request", status);
        }
        Action::Pause
    }

    fn count(&self, decision: &Decision<'_>) {
        match decision.rule {
            Some(rule) => {
                counters::count(Counter::Trusted);
                counters::count_rule(rule);
            }
            None if decision.source == SchemeSource::NotJudged => {}
            None => counters::count(Counter::Untrusted),
        }
        counters::count_if(decision.refusal.is_some(), Counter::Refused);
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
            SchemeSource::Default {
                unusable: Some(header),
            },
        ) = (decision.rule, decision.source)
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
        .applied_override
        .map_or("the defaults", |route| engine.override_name(route));
    log::debug!(
        "trusted: {rule}, because {}; route: {route}",
        decision.source
    );
    if let Some(status) = decision.refusal {
        log::debug!("  refused with {status}");
    }
    for operation in &decision.operations {
        log::debug!("  {operation}");
    }
}

/// The request that Envoy is calling the filter about.
///
/// What can't be read counts as absent, and nothing that is absent makes a peer trusted.
struct HostRequest<'s> {
    headers: OnceCell<Bytes>,
    shared: &'s Shared,
}

impl Request for HostRequest<'_> {
    type Value = Bytes;

    fn header_lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let buffer = self.headers.get_or_init(|| {
            host::request_headers().unwrap_or_else(|status| {
                self.shared
                    .host_call_failed("reading the request headers", status);
                Bytes::new()
            })
        });
        pairs(buffer)
    }

    fn attribute(&self, path: &str) -> Option<Bytes> {
        host::property(path).unwrap_or_else(|status| {
            self.shared.host_call_failed("reading an attribute", status);
            None
        })
    }
}
