//! A request without an Envoy.

use std::collections::BTreeMap;

use trusted_lb::engine::{Operation, Request};

/// A request as filters see it.
#[derive(Clone, Debug, Default)]
pub(super) struct Plain {
    pub(super) headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) attributes: BTreeMap<String, Vec<u8>>,
}

impl Request for Plain {
    type Value = Vec<u8>;

    fn header_lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    fn attribute(&self, path: &str) -> Option<Vec<u8>> {
        self.attributes.get(path).cloned()
    }
}

impl Plain {
    pub(super) fn with(mut self, name: &str, value: &[u8]) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(super) fn values(&self, name: &str) -> Vec<&[u8]> {
        self.headers
            .iter()
            .filter(|(line, _)| line == name.as_bytes())
            .map(|(_, value)| value.as_slice())
            .collect()
    }

    pub(super) fn after(&self, operations: &[Operation<'_>]) -> Self {
        let mut after = self.clone();
        for operation in operations {
            match operation {
                Operation::Set { name, value } => {
                    after.headers.retain(|(line, _)| line != name.as_bytes());
                    after
                        .headers
                        .push((name.as_bytes().into(), value.as_bytes().into()));
                }
                Operation::Remove { name } => after.headers.retain(|(line, _)| line != name),
            }
        }
        after
    }
}
