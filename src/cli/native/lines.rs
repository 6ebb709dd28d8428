//! Whether a header came on one line: two lines and a list on one line are the same to Envoy's expressions and matchers.

use serde_json::Value;

use super::cel::text;
use super::filters::{Existing, remove, write};
use crate::config::HeaderName;

/// Headers whose lines Envoy joins as they arrive, so that filters and upstreams see one.
const JOINED: [&str; 9] = [
    "connection",
    "content-type",
    "upgrade",
    "user-agent",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
];

/// Whether nobody ever sees this header on several lines.
pub(super) fn is_joined(name: &str) -> bool {
    JOINED.contains(&name)
}

/// The headers of which expressions ask whether they came on one line. The early header mutation copies the first line of
/// each, to be compared with all lines joined.
#[derive(Debug, Default)]
pub(super) struct Lines {
    names: Vec<String>,
}

impl Lines {
    /// Whether a header that is there came on one line, as an expression.
    pub(super) fn one(&mut self, name: &HeaderName) -> String {
        self.one_of(name.as_str())
    }

    pub(super) fn one_of(&mut self, name: &str) -> String {
        if is_joined(name) {
            return "true".to_owned();
        }
        let known = self.names.iter().position(|known| known == name);
        let index = known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        let copy = text(&copy(index));
        format!(
            "({copy} in request.headers && request.headers[{copy}] == request.headers[{}])",
            text(name)
        )
    }

    /// Writes the copies; what a client sent under their names goes first.
    pub(super) fn copies(&self) -> Vec<Value> {
        let mut mutations = Vec::new();
        for (index, name) in self.names.iter().enumerate() {
            let copy = copy(index);
            mutations.push(remove(&copy));
            mutations.push(write(&copy, &format!("%REQ({name})%"), Existing::Overwrite));
        }
        mutations
    }

    /// Removes them again.
    pub(super) fn removals(&self) -> Vec<Value> {
        (0..self.names.len())
            .map(|index| remove(&copy(index)))
            .collect()
    }
}

fn copy(index: usize) -> String {
    format!("x-trusted-lb-line-{index}")
}
