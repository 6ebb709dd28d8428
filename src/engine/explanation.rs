//! A decision and how it came about, for people.

use super::decision::Decision;
use super::facts::Facts;
use super::matcher::Condition;
use super::peer_source::DirectPeer;
use super::request::Request;
use super::signal::Reading;
use super::{Engine, ForwardedProto};

/// A decision, and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// What was decided.
    pub decision: Decision<'a>,
    /// For each rule, the first condition that doesn't hold.
    pub rules: Vec<Option<Condition>>,
    /// For each override, the first condition that doesn't hold.
    pub overrides: Vec<Option<Condition>>,
    /// What each signal says of those that apply: the override's, else the rule's.
    pub signals: Vec<(&'a str, Reading)>,
}

impl Engine {
    /// Decides as [`Engine::decide`] does, by the same functions, and says how it came to that.
    pub fn explain<'a, R: Request>(&'a self, request: &'a R) -> Explanation<'a> {
        let arrived = Facts::new(&self.names, request);
        let mut facts = Facts::new(&self.names, request);
        let peer = DirectPeer::new(&self.peer);
        let decision = self.decide_on(&mut facts, &peer);
        let own = decision
            .applied_override
            .and_then(|index| self.overrides.get(index));
        let read = |proto: &ForwardedProto| proto.readings(&facts, &self.names, &self.helper_token);
        Explanation {
            signals: self
                .forwarded_proto(decision.rule, own)
                .map(read)
                .unwrap_or_default(),
            rules: self
                .rules
                .iter()
                .map(|rule| rule.matches.unmet(&arrived, &peer))
                .collect(),
            overrides: self.overrides.unmet(&facts),
            decision,
        }
    }
}
