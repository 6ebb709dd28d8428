//! What Envoy's own filters can't say of a configuration, and what would have to go.

use std::collections::HashSet;

use crate::config::{Path, Problem, Severity};

/// One thing that can't be said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::cli) struct Refusal {
    /// The field, as it is written in the configuration.
    pub(in crate::cli) place: String,
    /// Why it can't be said.
    pub(in crate::cli) reason: String,
    /// What to write instead, or to leave out.
    pub(in crate::cli) instead: String,
}

impl Refusal {
    /// As an error of the configuration.
    pub(in crate::cli) fn problem(&self) -> Problem {
        Problem {
            severity: Severity::Error,
            path: path(&self.place),
            message: self.reason.clone(),
            help: Some(self.instead.clone()),
        }
    }
}

/// A place as it is written, such as `routes[2].match`.
fn path(text: &str) -> Path {
    text.split('.').fold(Path::root(), |path, part| {
        let mut steps = part.split('[');
        let path = path.field(steps.next().unwrap_or_default());
        steps
            .filter_map(|index| index.trim_end_matches(']').parse().ok())
            .fold(path, |path, index| path.item(index))
    })
}

impl Refusal {
    pub(super) fn new(place: &str, reason: &str, instead: &str) -> Self {
        Self {
            place: place.to_owned(),
            reason: reason.to_owned(),
            instead: instead.to_owned(),
        }
    }

    pub(super) fn secret(place: &str) -> Self {
        Self::new(
            place,
            "a secret from the environment can't be compared by Envoy's own filters",
            "trust by address or client certificate, or keep the module",
        )
    }

    pub(super) fn lines(place: &str) -> Self {
        Self::new(
            place,
            "Envoy's match trees can't tell a list on one line from several lines of the header",
            "match by present, or by exact with a value without a comma, or keep the module",
        )
    }

    pub(super) fn json(place: &str) -> Self {
        Self::new(
            place,
            "Envoy's own filters can't read JSON in a header",
            "take a signal with one value, such as x-forwarded-port, or keep the module",
        )
    }

    pub(super) fn forwarded(place: &str) -> Self {
        Self::new(
            place,
            "Envoy's own filters can't read the structure of a Forwarded header",
            "take a signal with one value, such as x-forwarded-port, or keep the module",
        )
    }
}

/// All of them, each once, in the order in which they were found.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals {
    list: Vec<Refusal>,
    known: HashSet<Refusal>,
}

impl Refusals {
    pub(super) fn add(&mut self, refusal: Refusal) {
        if self.known.insert(refusal.clone()) {
            self.list.push(refusal);
        }
    }

    pub(super) fn refuse(&mut self, place: &str, reason: &str, instead: &str) {
        self.add(Refusal::new(place, reason, instead));
    }

    pub(super) fn into_vec(self) -> Vec<Refusal> {
        self.list
    }
}
