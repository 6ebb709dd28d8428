//! `reportDecision`: puts the decision where an access log can print it.
//!
//! These texts have nothing from the request: names come from the configuration, and everything else is a fixed word.

use super::host::{self, Status};
use crate::engine::{Decision, Engine, Peer, SchemeSource};

/// Puts a decision into the stream's filter state. An access log prints it with
/// `%FILTER_STATE(wasm.trusted_lb_rule:PLAIN)%`, and prints `-` for what is absent: the rule if none trusts the peer, the
/// route if the defaults apply, the scheme if x-forwarded-proto is kept.
///
/// # Errors
/// The host's status.
pub(super) fn report(engine: &Engine, decision: &Decision<'_>) -> Result<(), Status> {
    if let Some(rule) = decision.rule {
        host::set_filter_state("trusted_lb_rule", engine.rule_name(rule))?;
    }
    if let Some(route) = decision.applied_override {
        host::set_filter_state("trusted_lb_route", engine.override_name(route))?;
    }
    if let Some(scheme) = decision.forwarded_proto {
        host::set_filter_state("trusted_lb_scheme", scheme.as_str())?;
    }
    host::set_filter_state("trusted_lb_reason", &reason(decision))
}

/// The source of the scheme, in words without spaces.
fn reason(decision: &Decision<'_>) -> String {
    let mut reason = String::with_capacity(48);
    match decision.source {
        SchemeSource::Signal { header } => {
            reason.push_str("signal:");
            reason.push_str(header);
        }
        SchemeSource::Default { unusable: None } => reason.push_str("default"),
        SchemeSource::Default {
            unusable: Some(header),
        } => {
            reason.push_str("default,unusable:");
            reason.push_str(header);
        }
        SchemeSource::Connection => reason.push_str("connection"),
        SchemeSource::UntrustedHttp => reason.push_str("http"),
        SchemeSource::Kept => reason.push_str("keep"),
        SchemeSource::NotJudged => reason.push_str("not-judged"),
    }
    if decision.rule.is_none()
        && let Some(Peer::Unknown(problem)) = decision.peer
    {
        reason.push_str(",peer:");
        reason.push_str(problem.word());
    }
    if decision.refusal.is_some() {
        reason.push_str(",refused");
    }
    reason
}

#[cfg(test)]
mod tests {
    use crate::engine::PeerProblem;

    #[test]
    fn every_word_for_a_peer_that_cannot_be_told_is_in_the_documentation() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
        let text = std::fs::read_to_string(path).expect("docs/operations.md can be read");
        for problem in [
            PeerProblem::NotAnAddress,
            PeerProblem::FromHeader,
            PeerProblem::NoForwardedFor,
            PeerProblem::BadForwardedFor,
            PeerProblem::Disagreement,
            PeerProblem::NoHelper,
            PeerProblem::SeveralHelpers,
            PeerProblem::WrongToken,
            PeerProblem::BadHelper,
            PeerProblem::NoFilterState,
            PeerProblem::BadFilterState,
        ] {
            let row = format!("\n| `{}` | {problem} |\n", problem.word());
            assert!(text.contains(&row), "{row}");
        }
    }
}
