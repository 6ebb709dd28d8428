//! Requests as plain data, given to the engine without any host.

use testkit::{HeaderLines, wasm_host};
use trusted_lb::engine::{Operation, Request};

/// A request as filters see it, asked by the engine.
#[derive(Clone, Debug)]
pub(crate) struct Plain(pub(crate) wasm_host::Request);

impl Request for Plain {
    type Value = Vec<u8>;

    fn header_lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0
            .headers
            .iter()
            .map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    fn attribute(&self, path: &str) -> Option<Vec<u8>> {
        self.0.properties.get(path).cloned()
    }
}

impl Plain {
    /// The request with these operations applied.
    #[must_use]
    pub(crate) fn after(&self, operations: &[Operation<'_>]) -> Self {
        let mut request = self.0.clone();
        request.headers = applied(request.headers, operations);
        Self(request)
    }
}

fn applied(mut headers: HeaderLines, operations: &[Operation<'_>]) -> HeaderLines {
    for operation in operations {
        match operation {
            Operation::Set { name, value } => {
                headers.retain(|(line, _)| line != name.as_bytes());
                headers.push((name.as_bytes().into(), value.as_bytes().into()));
            }
            Operation::Remove { name } => headers.retain(|(line, _)| line != name),
        }
    }
    headers
}
