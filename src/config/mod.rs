//! The plugin configuration: its text, what is wrong with it, and what it means.
//!
//! ```
//! use trusted_lb::config;
//!
//! let text = r#"{"trustedLoadBalancers": [{
//!     "name": "public-alb",
//!     "match": {"ipBlocks": ["10.0.12.0/24"]},
//!     "forwardedProto": {"default": "https"}
//! }]}"#;
//! let loaded = config::load(text.as_bytes());
//! assert!(loaded.config.is_some());
//!
//! let wrong = config::load(br#"{"trustedLoadBalancer": []}"#);
//! assert_eq!(
//!     wrong.problems[0].to_string(),
//!     "trustedLoadBalancer: there is no such field (did you mean trustedLoadBalancers?)",
//! );
//! ```

mod address;
mod configuration;
pub(crate) mod covers;
pub(crate) mod declare;
mod document;
mod duration;
mod forwarded;
mod headers;
mod overrides;
mod path;
mod policy;
mod port;
mod problem;
mod read;
mod requests;
mod seen;
mod signal_form;
mod signals;
mod trust;
mod untrusted;
mod warnings;

#[cfg(feature = "cli")]
pub(crate) use address::Block;
pub(crate) use address::Ranges;
pub use address::{IpBlock, NAMED_SETS, NamedSet, named};
pub use configuration::{
    Config, DEFAULT_PEER_KEY, HelperToken, Mode, PeerAddress, RewriteScheme, top_fields,
};
pub use document::Node;
pub use duration::Millis;
pub use forwarded::FAMILY;
#[cfg(feature = "cli")]
pub(crate) use forwarded::FAMILY_TEXTS;
pub use headers::{EnvName, HeaderName};
pub use overrides::{NamePattern, Route, RouteMatch};
pub use path::{Path, PathPart};
pub use policy::{
    IDEMPOTENT_METHODS, OtherMethods, Policy, RequestHeaders, Retries, RetryFields, Streams,
    Timeout,
};
pub use problem::{Problem, Severity};
pub use requests::{HeaderMatch, HeaderValueMatch, HostPattern, PathPattern, RequestMatch};
pub use signal_form::SignalForm;
pub use signals::{DefaultScheme, ForwardedProto, Scheme, Signal};
pub use trust::{ClientCertificate, LoadBalancerMatch, TrustedLoadBalancer};
pub use untrusted::{Exception, Untrusted, UntrustedAction, UntrustedProto};

use declare::Notation;
#[cfg(feature = "cli")]
pub(crate) use document::quoted;
use path::Here;
use problem::Problems;
#[cfg(feature = "cli")]
pub(crate) use problem::closest;
pub(crate) use problem::joined;
use read::At;

/// What became of a configuration's text.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration, unless it has an error.
    pub config: Option<Config>,
    /// Everything that is wrong with it, errors and warnings, in the order of the text.
    pub problems: Vec<Problem>,
}

impl Loaded {
    /// The problems that refuse the configuration.
    pub fn errors(&self) -> impl Iterator<Item = &Problem> {
        self.of(Severity::Error)
    }

    /// The problems that don't.
    pub fn warnings(&self) -> impl Iterator<Item = &Problem> {
        self.of(Severity::Warning)
    }

    fn of(&self, severity: Severity) -> impl Iterator<Item = &Problem> {
        self.problems
            .iter()
            .filter(move |problem| problem.severity == severity)
    }
}

/// The first byte of an encoded message whose first field is a message or a text.
const PROTOBUF_FIELD_1: u8 = 0x0a;

/// Reads a configuration from JSON text, as Envoy hands it over.
#[must_use]
pub fn load(text: &[u8]) -> Loaded {
    let problems = Problems::default();
    if text.iter().all(u8::is_ascii_whitespace) {
        problems.error_with_help(
            &Here::Root,
            &"the configuration is empty",
            &"write at least `trustedLoadBalancers` or `defaults`; in a WasmPlugin they belong under `pluginConfig`",
        );
    } else {
        match serde_json::from_slice::<Node>(text) {
            Ok(node) => return load_document(&node),
            Err(error) => problems.error_with_help(
                &Here::Root,
                &format_args!("the configuration is not valid JSON: {error}"),
                // A Struct is handed over as it is encoded, which begins with the number of its first field.
                if text.first() == Some(&PROTOBUF_FIELD_1) {
                    &"Envoy doesn't turn a google.protobuf.Struct into JSON: write JSON text into a google.protobuf.StringValue"
                } else {
                    &"Envoy hands over the text of a google.protobuf.StringValue as it is: write JSON there, not YAML"
                },
            ),
        }
    }
    Loaded {
        config: None,
        problems: problems.into_vec(),
    }
}

/// Reads a configuration from a document that is parsed already.
#[must_use]
pub fn load_document(node: &Node) -> Loaded {
    let problems = Problems::default();
    let mut config = Config::read(At {
        node,
        here: &Here::Root,
        problems: &problems,
        example: Config::EXAMPLE,
    });
    if let Some(config) = &config
        && problems.errors() == 0
    {
        warnings::find(config, &problems);
    }
    if let Some(config) = &mut config {
        config.read_back();
    }
    let refused = problems.errors() > 0;
    Loaded {
        config: config.filter(|_| !refused),
        problems: problems.into_vec(),
    }
}
