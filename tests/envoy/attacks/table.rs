//! The attacks and the ways to set a gateway up, as `tests/attacks/` has them.

// No authority is another thing than none that is said.
#![allow(clippy::option_option)]

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Value, json};
use testkit::cases::{Gateway, Protocol};
use testkit::raw::RawRequest;
use testkit::{artifacts, latin1};
use trusted_lb::config::FAMILY;

use super::native;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Attack {
    pub(super) name: String,
    #[serde(default)]
    pub(super) headers: Vec<Line>,
    #[serde(default)]
    pub(super) method: Option<String>,
    #[serde(default)]
    pub(super) target: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub(super) authority: Option<Option<String>>,
    #[serde(default)]
    pub(super) version: Option<String>,
    #[serde(default)]
    pub(super) scheme: Option<String>,
    #[serde(default)]
    http1: Option<String>,
    #[serde(default)]
    http2: Option<String>,
    #[serde(default = "yes")]
    pub(super) routed: bool,
    /// Made from one that names `{name}`: there are many of these.
    #[serde(skip)]
    pub(super) general: bool,
}

/// Tells `null` from what isn't there.
pub(super) fn given<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(from).map(Some)
}

pub(super) fn yes() -> bool {
    true
}

/// A text, or one that is repeated.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Text {
    Once(String),
    Repeated(String, usize),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    Once(String, String),
    Repeated(String, String, usize),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    pub(super) environment: BTreeMap<String, String>,
    pub(super) configuration: Value,
    pub(super) setups: Vec<Setup>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Setup {
    pub(super) name: String,
    #[serde(default)]
    pub(super) gateway: Gateway,
    #[serde(default)]
    pub(super) transport: Transport,
    #[serde(default)]
    pub(super) claims: Option<IpAddr>,
    #[serde(default)]
    pub(super) request_headers: Option<String>,
    /// The configuration's `untrusted`.
    #[serde(default)]
    pub(super) untrusted: Option<Value>,
    #[serde(default)]
    pub(super) serves: Vec<String>,
    #[serde(default)]
    pub(super) fools: Vec<PeerAddress>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Transport {
    #[default]
    Tcp,
    Unix,
    Internal,
    Mapped,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) enum PeerAddress {
    Auto,
    Source,
    ForwardedFor,
    /// `header:`, with the early header mutation in front.
    Header,
    /// `header:`, the early header mutation forgotten.
    HeaderAlone,
    /// `filterState`, with the network filter in front.
    FilterState,
    /// `filterState`, the network filter forgotten.
    FilterStateAlone,
    /// Envoy's own filters in place of the module: one filter chain.
    #[serde(skip)]
    NativeChain,
    /// The same, a filter chain for each load balancer.
    #[serde(skip)]
    NativeChains,
}

pub(super) const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

pub(super) const PEER_ADDRESSES: [PeerAddress; 7] = [
    PeerAddress::Auto,
    PeerAddress::Source,
    PeerAddress::ForwardedFor,
    PeerAddress::Header,
    PeerAddress::HeaderAlone,
    PeerAddress::FilterState,
    PeerAddress::FilterStateAlone,
];

pub(super) fn read<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = artifacts::repository().join("tests/attacks").join(name);
    let text = std::fs::read_to_string(&path).expect("the file can be read");
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

impl Table {
    /// The plugin's configuration for one set-up and `peerAddress`.
    pub(super) fn configuration(&self, setup: &Setup, peer: PeerAddress) -> Value {
        let mut configuration = self.configuration.clone();
        let signals = configuration["trustedLoadBalancers"][0]["forwardedProto"]["from"]
            .as_array_mut()
            .expect("the first rule has signals");
        let word = match peer {
            PeerAddress::NativeChain | PeerAddress::NativeChains => {
                return native::configuration(configuration, setup, peer);
            }
            PeerAddress::Auto => "auto",
            PeerAddress::Source => "source",
            PeerAddress::ForwardedFor => {
                // Elsewhere Envoy has overwritten it; the default, https, is what an attacker is after.
                if setup.gateway.xff_num_trusted_hops > 0 {
                    signals.push(json!("x-forwarded-proto"));
                }
                "forwardedFor"
            }
            PeerAddress::Header | PeerAddress::HeaderAlone => {
                signals.insert(0, json!("header:x-lb-proto"));
                configuration["helperToken"] = json!({"fromEnv": "HELPER_TOKEN"});
                "header:x-lb-peer"
            }
            PeerAddress::FilterState | PeerAddress::FilterStateAlone => {
                // Envoy keeps it here.
                if setup.gateway.xff_num_trusted_hops > 0 {
                    signals.push(json!("x-forwarded-proto"));
                }
                "filterState"
            }
        };
        configuration["peerAddress"] = json!(word);
        if let Some(untrusted) = &setup.untrusted {
            configuration["untrusted"] = untrusted.clone();
        }
        if let Some(word) = &setup.request_headers {
            configuration["defaults"]["requestHeaders"] = json!(word);
        }
        configuration
    }

    /// Every header that the configuration reads or writes, of whatever kind.
    pub(super) fn headers(&self) -> Vec<String> {
        let mut names: Vec<String> = FAMILY.iter().map(|name| (*name).to_owned()).collect();
        let rules = self.configuration["trustedLoadBalancers"]
            .as_array()
            .expect("rules");
        let routes = self.configuration["routes"].as_array().expect("routes");
        for one in rules.iter().chain(routes) {
            for signal in one["forwardedProto"]["from"]
                .as_array()
                .into_iter()
                .flatten()
            {
                names.extend(
                    signal
                        .as_str()
                        .or(signal["header"].as_str())
                        .map(str::to_owned),
                );
            }
            for list in ["headers", "notHeaders"] {
                for header in one["match"][list].as_array().into_iter().flatten() {
                    names.extend(header["name"].as_str().map(str::to_owned));
                }
            }
        }
        names.extend(
            [
                "idempotency-key",
                "x-forwarded-proto",
                "x-forwarded-for",
                "x-real-client",
                "x-lb-peer",
                "x-lb-proto",
                "x-envoy-upstream-rq-timeout-ms",
                "x-envoy-upstream-rq-per-try-timeout-ms",
                "x-envoy-max-retries",
                "x-envoy-retry-on",
                "x-envoy-retry-grpc-on",
                "x-envoy-retriable-status-codes",
                "x-envoy-retriable-header-names",
                "x-envoy-hedge-on-per-try-timeout",
                "x-envoy-expected-rq-timeout-ms",
                "x-envoy-upstream-stream-duration-ms",
                "x-envoy-upstream-rq-timeout-alt-response",
                "x-envoy-upstream-alt-stat-name",
            ]
            .map(str::to_owned),
        );
        names.sort();
        names.dedup();
        names
    }

    pub(super) fn environment(&self) -> Vec<(&str, &str)> {
        self.environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }
}

impl Setup {
    pub(super) fn refuses(&self) -> bool {
        let action = self
            .untrusted
            .as_ref()
            .map(|untrusted| &untrusted["action"]);
        action == Some(&json!("refuse"))
    }

    pub(super) fn gateway(&self, peer: PeerAddress) -> Gateway {
        let mut gateway = self.gateway.clone();
        gateway.early_mutation = peer == PeerAddress::Header;
        gateway.filter_state = peer == PeerAddress::FilterState;
        gateway
    }
}

/// Every attack; one with `{name}` once for each header.
pub(super) fn attacks(setups: &Table) -> Vec<Attack> {
    let mut all = Vec::new();
    for attack in read::<Vec<Attack>>("requests.yaml") {
        let general = attack.headers.iter().any(|line| line.name().contains('{'));
        if !general {
            all.push(attack);
            continue;
        }
        for name in setups.headers() {
            let mut one = attack.clone();
            one.name = format!("{}: {name}", attack.name);
            one.general = true;
            for line in &mut one.headers {
                *line.name_mut() = (line.name())
                    .replace("{name}", &name)
                    .replace("{underscored}", &name.replace('-', "_"))
                    .replace("{upper}", &name.to_uppercase());
            }
            all.push(one);
        }
    }
    all
}

impl Line {
    pub(super) fn name(&self) -> &str {
        match self {
            Line::Once(name, _) | Line::Repeated(name, ..) => name,
        }
    }

    pub(super) fn name_mut(&mut self) -> &mut String {
        match self {
            Line::Once(name, _) | Line::Repeated(name, ..) => name,
        }
    }

    pub(super) fn value(&self) -> String {
        match self {
            Line::Once(_, value) => value.clone(),
            Line::Repeated(_, value, times) => value.repeat(*times),
        }
    }
}

impl Attack {
    pub(super) fn headers(&self) -> Vec<(String, String)> {
        self.headers
            .iter()
            .map(|line| (line.name().to_owned(), line.value()))
            .collect()
    }

    pub(super) fn target(&self) -> String {
        match &self.target {
            None => "/".to_owned(),
            Some(Text::Once(text)) => text.clone(),
            Some(Text::Repeated(text, times)) => text.repeat(*times),
        }
    }

    pub(super) fn authority(&self) -> Option<String> {
        self.authority
            .clone()
            .unwrap_or_else(|| Some("app.example.com".to_owned()))
    }

    pub(super) fn method(&self) -> &str {
        self.method.as_deref().unwrap_or("GET")
    }

    /// What Envoy is to answer; nothing where the protocol can't say such a thing.
    pub(super) fn expected<'a>(&'a self, protocol: Protocol, setup: &'a Setup) -> Option<&'a str> {
        let listed = match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        };
        match listed.as_deref() {
            None => Some("200"),
            Some("never") => None,
            Some(_) if protocol == Protocol::Http1 && setup.serves.contains(&self.name) => {
                Some("200")
            }
            Some(status) => Some(status),
        }
    }

    /// The bytes to send, to this authority where the attack doesn't choose its own.
    pub(super) fn raw(&self, authority: Option<&str>, preamble: &[u8]) -> RawRequest {
        RawRequest {
            preamble: preamble.to_vec(),
            method: latin1(self.method()),
            target: latin1(&self.target()),
            authority: authority
                .map(str::to_owned)
                .or_else(|| self.authority())
                .map(|text| latin1(&text)),
            version: latin1(self.version.as_deref().unwrap_or("HTTP/1.1")),
            scheme: latin1(self.scheme.as_deref().unwrap_or("http")),
            headers: self
                .headers()
                .iter()
                .map(|(name, value)| (latin1(name), latin1(value)))
                .collect(),
        }
    }
}
