//! The table of request cases; `tests/cases/README.md` describes its fields.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use crate::{HeaderLines, artifacts, latin1};

/// A plugin configuration, the connection manager in front of it, and requests that go through both.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Group {
    /// What the group is about.
    pub name: String,
    /// The plugin configuration.
    pub config: serde_json::Value,
    /// The Wasm VM's environment.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// The connection manager.
    #[serde(default)]
    pub gateway: Gateway,
    /// The requests.
    pub cases: Vec<Case>,
}

/// Settings of the connection manager in front of the filter.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)] // Envoy's own names; see tests/cases/README.md.
pub struct Gateway {
    pub use_remote_address: bool,
    pub xff_num_trusted_hops: u32,
    pub skip_xff_append: bool,
    pub original_ip_header: Option<String>,
    pub early_mutation: bool,
    pub filter_state: bool,
    pub earlier_filter: Vec<(String, String)>,
    pub proxy_protocol: bool,
    pub internal_addresses: Vec<(String, u8)>,
    pub accept_http10: bool,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            use_remote_address: true,
            xff_num_trusted_hops: 0,
            skip_xff_append: false,
            original_ip_header: None,
            early_mutation: false,
            filter_state: false,
            earlier_filter: Vec::new(),
            proxy_protocol: false,
            internal_addresses: Vec::new(),
            accept_http10: false,
        }
    }
}

/// One request, and what is expected of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    /// What the case shows.
    pub name: String,
    /// What the client sends.
    pub request: ClientRequest,
    /// What comes of it.
    pub expect: Expect,
    /// Why a real Envoy can't run it.
    #[serde(default)]
    pub not_in_envoy: Option<String>,
}

/// What a client sends.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ClientRequest {
    pub peer: IpAddr,
    #[serde(default)]
    pub protocol: Protocol,
    #[serde(default)]
    pub tls: bool,
    /// The client's certificate, which goes with `tls`.
    #[serde(default)]
    pub certificate: Option<Certificate>,
    #[serde(default = "get")]
    pub method: String,
    #[serde(default = "app")]
    pub authority: String,
    #[serde(default = "slash")]
    pub path: String,
    /// HTTP/2 only.
    #[serde(default)]
    pub scheme: Option<String>,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}

impl ClientRequest {
    /// A plain GET over HTTP/1.1.
    #[must_use]
    pub fn get(peer: IpAddr, authority: &str, path: &str) -> Self {
        Self {
            peer,
            protocol: Protocol::Http1,
            tls: false,
            certificate: None,
            method: get(),
            authority: authority.to_owned(),
            path: path.to_owned(),
            scheme: None,
            headers: Vec::new(),
        }
    }

    /// Adds header lines.
    #[must_use]
    pub fn with(mut self, headers: &[(&str, &str)]) -> Self {
        self.headers.extend(
            headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        self
    }

    /// The header lines as bytes.
    #[must_use]
    pub fn header_bytes(&self) -> HeaderLines {
        self.headers
            .iter()
            .map(|(name, value)| (latin1(name), latin1(value)))
            .collect()
    }
}

fn get() -> String {
    "GET".to_owned()
}

fn app() -> String {
    "app.example.com".to_owned()
}

fn slash() -> String {
    "/".to_owned()
}

/// A client certificate of `tests/testkit/certificates`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Certificate {
    Edge,
    Stranger,
}

impl Certificate {
    /// The certificate and its key.
    #[must_use]
    pub fn pem(self) -> (&'static str, &'static str) {
        match self {
            Certificate::Edge => (
                include_str!("../certificates/edge.pem"),
                include_str!("../certificates/edge.key"),
            ),
            Certificate::Stranger => (
                include_str!("../certificates/stranger.pem"),
                include_str!("../certificates/stranger.key"),
            ),
        }
    }

    /// URI SAN, DNS SAN and SHA-256 digest, as Envoy shows them.
    #[must_use]
    pub fn attributes(self) -> [&'static str; 3] {
        match self {
            Certificate::Edge => [
                "spiffe://edge",
                "lb.example.com",
                "6beed68d783eb0729495339309a70430ff282f02f87f26be7aeb8135dd65962b",
            ],
            Certificate::Stranger => [
                "spiffe://stranger",
                "stranger.example.com",
                "7ace4a32e038fa375dbd29442a984abbe1f412aea350a82e076e0b0b68f44d70",
            ],
        }
    }
}

/// Who signed them.
pub const CLIENT_CA: &str = include_str!("../certificates/ca.pem");

/// The protocol between client and gateway.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Protocol {
    #[default]
    Http1,
    Http2,
}

impl Protocol {
    /// The value of Envoy's `request.protocol`.
    #[must_use]
    pub fn attribute(self) -> &'static str {
        match self {
            Protocol::Http1 => "HTTP/1.1",
            Protocol::Http2 => "HTTP/2",
        }
    }
}

/// What comes of a request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expect {
    /// The rule that trusts the peer, by name.
    #[serde(default)]
    pub rule: Option<String>,
    /// The route whose overrides apply, by name.
    #[serde(default)]
    pub route: Option<String>,
    /// The status with which the filter answers it itself. Nothing reaches the upstream then.
    #[serde(default)]
    pub refused: Option<u16>,
    /// Headers after the filter; null where one must be gone.
    #[serde(default)]
    pub upstream: BTreeMap<String, Option<String>>,
}

impl Expect {
    /// What differs from the expectation; `values` gives the lines of a header as they are after the filter.
    #[must_use]
    pub fn differences(&self, values: impl Fn(&str) -> Vec<Vec<u8>>) -> Vec<String> {
        let mut differences = Vec::new();
        for (name, expected) in &self.upstream {
            let found = values(name);
            let wanted: Vec<Vec<u8>> = expected.iter().map(|value| latin1(value)).collect();
            if found != wanted {
                let shown: Vec<String> = found
                    .iter()
                    .map(|value| value.escape_ascii().to_string())
                    .collect();
                differences.push(format!("{name}: expected {expected:?}, found {shown:?}"));
            }
        }
        differences
    }
}

/// Every file of the table, by name.
///
/// # Panics
/// Where a file can't be read.
#[must_use]
pub fn all() -> Vec<(String, Vec<Group>)> {
    let folder = artifacts::repository().join("tests/cases");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("tests/cases is there")
        .map(|entry| entry.expect("a folder can be listed").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let name = path
                .file_stem()
                .expect("files have names")
                .to_string_lossy()
                .into_owned();
            let text = std::fs::read_to_string(&path).expect("a case file can be read");
            let groups = serde_saphyr::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (name, groups)
        })
        .collect()
}
