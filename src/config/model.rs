//! The configuration once it is read and checked: values with their meaning, still in the operator's terms.
//!
//! [`crate::engine`] compiles this into what requests are decided with. `docs/configuration.md` describes each field.

pub use super::address::{IpBlock, NamedSet};
pub use super::duration::Millis;

/// The scheme a client used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// The value as it is written into headers: always lower-case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The scheme's default port, as `x-forwarded-port` carries it.
    #[must_use]
    pub fn default_port(self) -> &'static str {
        match self {
            Scheme::Http => "80",
            Scheme::Https => "443",
        }
    }
}

/// A whole plugin configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where the direct peer's address is read.
    pub peer_address: PeerAddress,
    /// The environment variable with the token that the gateway's early header mutation writes in front of what it
    /// copies. Needed where `header:` is used.
    pub helper_token: Option<EnvName>,
    /// Who may speak for the client's scheme, in order: the first whose match holds decides.
    pub trusted_load_balancers: Vec<TrustedLoadBalancer>,
    /// What becomes of requests from everybody else.
    pub untrusted: Untrusted,
    /// When `:scheme` follows a trusted peer's scheme.
    pub rewrite_scheme: RewriteScheme,
    /// Whether `x-forwarded-port` is written too.
    pub forwarded_port: bool,
    /// Timeouts and retries for requests that no route overrides.
    pub defaults: Policy,
    /// Overrides, in order: the first whose match holds applies.
    pub routes: Vec<Route>,
    /// Whether decisions are applied.
    pub mode: Mode,
    /// Whether each decision is put where an access log can print it.
    pub report_decision: bool,
}

/// Where the direct peer's address is read.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum PeerAddress {
    /// `source.address`, believed only where the right-most x-forwarded-for entry agrees and the port isn't 0.
    #[default]
    Auto,
    /// `source.address`, believed where its port isn't 0.
    Source,
    /// The right-most x-forwarded-for entry, which Envoy appended.
    ForwardedFor,
    /// A header that the gateway's own early header mutation writes, as `TOKEN ADDRESS`.
    Header(HeaderName),
}

/// A header name: a lower-case token (RFC 9110, 5.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeaderName(pub(crate) String);

impl HeaderName {
    /// The name, lower-case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of an environment variable of the Wasm VM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EnvName(pub(crate) String);

impl EnvName {
    /// The variable's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One rule: who is trusted, and how that load balancer tells the client's scheme.
#[derive(Clone, Debug, PartialEq)]
pub struct TrustedLoadBalancer {
    /// For logs and `explain`; unique.
    pub name: String,
    /// Every condition given must hold.
    pub matches: LoadBalancerMatch,
    /// How the client's scheme is told.
    pub forwarded_proto: ForwardedProto,
    /// The operator has typed that everybody may be trusted.
    pub insecure_trust_anyone: bool,
}

/// The conditions of a [`TrustedLoadBalancer`]. An empty list is no condition.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct LoadBalancerMatch {
    /// The peer's address lies in one of these.
    pub ip_blocks: Vec<IpBlock>,
    /// The peer's address lies in none of these.
    pub not_ip_blocks: Vec<IpBlock>,
    /// The connection's destination port is one of these.
    pub ports: Vec<u16>,
    /// The connection's destination port is none of these.
    pub not_ports: Vec<u16>,
    /// The request itself.
    pub request: RequestMatch,
    /// The client certificate of a verified mTLS connection.
    pub client_certificate: Option<ClientCertificate>,
}

/// Conditions on a request's own headers. An empty list is no condition; within a list one entry must hold.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct RequestMatch {
    /// `:authority` is one of these.
    pub hosts: Vec<HostPattern>,
    /// `:authority` is none of these.
    pub not_hosts: Vec<HostPattern>,
    /// The path is one of these.
    pub paths: Vec<PathPattern>,
    /// The path is none of these.
    pub not_paths: Vec<PathPattern>,
    /// The method is one of these.
    pub methods: Vec<String>,
    /// The method is none of these.
    pub not_methods: Vec<String>,
    /// Every one of these headers matches.
    pub headers: Vec<HeaderMatch>,
    /// None of these headers matches.
    pub not_headers: Vec<HeaderMatch>,
}

/// A host to match `:authority` with: without case, port and trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host; lower-case.
    Exact(String),
    /// `*.example.com`: hosts with at least one label more. The stored text is `.example.com`, lower-case.
    Suffix(String),
    /// `*`: any host.
    Any,
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HostPattern::Exact(host) => f.write_str(host),
            HostPattern::Suffix(suffix) => write!(f, "*{suffix}"),
            HostPattern::Any => f.write_str("*"),
        }
    }
}

/// A path to match with, query and fragment left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// The path is this.
    Exact(String),
    /// The path is this or lies below it: `/upload` holds `/upload` and `/upload/x`, not `/uploads`.
    Prefix(String),
    /// The path ends in this.
    Suffix(String),
}

/// A condition on one header.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderMatch {
    /// Which header.
    pub name: HeaderName,
    /// What its value must be. A header on several lines matches nothing but `Present`.
    pub value: HeaderValueMatch,
}

/// What a header's value must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HeaderValueMatch {
    /// Exactly this.
    Exact(String),
    /// Begins with this.
    Prefix(String),
    /// Ends in this.
    Suffix(String),
    /// The header is there (`true`) or not (`false`).
    Present(bool),
    /// The value of one of these environment variables, compared in constant time.
    FromEnv(Vec<EnvName>),
}

/// Conditions on the client certificate of a verified mTLS connection; one entry of each given list must hold.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ClientCertificate {
    /// The first URI subject alternative name is one of these.
    pub uri_sans: Vec<String>,
    /// The first DNS subject alternative name is one of these.
    pub dns_sans: Vec<String>,
    /// The SHA-256 digest of the certificate, lower-case hex, is one of these.
    pub sha256: Vec<String>,
}

/// How a trusted load balancer tells the client's scheme.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardedProto {
    /// Signals, in this order: an absent one passes the question on, the first present one answers it.
    pub from: Vec<Signal>,
    /// The answer where every signal is absent, or the present one is unusable.
    pub default: DefaultScheme,
}

/// What a trusted load balancer's request is taken for where no signal tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DefaultScheme {
    /// This scheme.
    Scheme(Scheme),
    /// What the connection to the gateway is.
    Connection,
}

/// A header by which a load balancer tells the client's scheme.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Signal {
    /// The header.
    pub name: HeaderName,
    /// How its value reads.
    pub form: SignalForm,
}

/// How a signal's value reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SignalForm {
    /// `http` or `https`, also `ws` and `wss`, in any case; of a list the right-most.
    Scheme,
    /// A port; which ports mean https and which http.
    Port {
        /// Ports that mean https.
        https: Vec<u16>,
        /// Ports that mean http.
        http: Vec<u16>,
    },
    /// Cloudflare's JSON: `{"scheme":"https"}`.
    CfVisitor,
    /// `on` or `off`.
    OnOff,
    /// Present means https.
    Present,
    /// RFC 7239; the right-most element's `proto`.
    Forwarded,
    /// Exactly these values.
    Values {
        /// Values that mean https.
        https: Vec<String>,
        /// Values that mean http.
        http: Vec<String>,
    },
    /// A copy of x-forwarded-proto made by the gateway's own early header mutation: `TOKEN VALUE`.
    Helper,
}

/// What becomes of requests from peers that no rule trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untrusted {
    /// What is written to x-forwarded-proto.
    pub forwarded_proto: UntrustedProto,
    /// Headers that nobody but a trusted load balancer may send. Their underscore twins go with them.
    pub remove_headers: Vec<HeaderName>,
}

/// What is written to x-forwarded-proto for an untrusted peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum UntrustedProto {
    /// What the connection to the gateway is.
    #[default]
    Connection,
    /// `http`.
    Http,
    /// Nothing: what is there stays.
    Keep,
}

/// The headers that an untrusted peer can't send unless the configuration says otherwise: each makes some
/// framework believe in https.
pub const DEFAULT_REMOVED_HEADERS: &[&str] = &[
    "x-forwarded-ssl",
    "x-forwarded-scheme",
    "x-forwarded-protocol",
    "x-url-scheme",
    "front-end-https",
    "forwarded",
];

impl Default for Untrusted {
    fn default() -> Self {
        Self {
            forwarded_proto: UntrustedProto::default(),
            remove_headers: DEFAULT_REMOVED_HEADERS
                .iter()
                .map(|name| HeaderName((*name).to_owned()))
                .collect(),
        }
    }
}

/// When `:scheme` follows a trusted peer's scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RewriteScheme {
    /// On HTTP/1, as Envoy does for a trusted x-forwarded-proto.
    #[default]
    Auto,
    /// On every protocol.
    Always,
    /// On none.
    Never,
}

/// Whether decisions are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Decide and apply.
    #[default]
    Enforce,
    /// Decide, count and log; change nothing but for the removal of helper headers.
    Shadow,
}

/// Timeouts and retries. What is not given is taken from the defaults, or left to Envoy's own route.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Policy {
    /// The request timeout.
    pub timeout: Option<Timeout>,
    /// Retries.
    pub retries: Option<Retries>,
    /// Whether upgrades and CONNECT get timeouts.
    pub streams: Option<Streams>,
    /// What becomes of x-envoy-* headers that the request already carries.
    pub request_headers: Option<RequestHeaders>,
}

/// The request timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Leave the route's own timeout alone.
    Inherit,
    /// `x-envoy-upstream-rq-timeout-ms`.
    After(Millis),
}

/// Retries.
#[derive(Clone, Debug, PartialEq)]
pub enum Retries {
    /// Leave the route's own retry policy alone.
    Inherit,
    /// Write retry headers. Boxed: most routes have none.
    Set(Box<RetryFields>),
}

/// The fields of `retries`. What is not given is taken from the defaults.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct RetryFields {
    /// `x-envoy-max-retries`: tries after the first. 0 switches retries off for every method.
    pub attempts: Option<u32>,
    /// `x-envoy-upstream-rq-per-try-timeout-ms`.
    pub per_try_timeout: Option<Millis>,
    /// `x-envoy-retry-on`.
    pub retry_on: Option<Vec<String>>,
    /// `x-envoy-retry-grpc-on`.
    pub retry_grpc_on: Option<Vec<String>>,
    /// `x-envoy-retriable-status-codes`; implies `retriable-status-codes` in retryOn.
    pub status_codes: Option<Vec<u16>>,
    /// `x-envoy-retriable-header-names`; implies `retriable-headers` in retryOn.
    pub header_names: Option<Vec<HeaderName>>,
    /// `x-envoy-hedge-on-per-try-timeout`.
    pub hedge_on_per_try_timeout: Option<bool>,
    /// Methods whose requests may be sent twice.
    pub methods: Option<Vec<String>>,
    /// A header that makes a request with any other method safe to send twice.
    pub idempotency_key: Option<Option<HeaderName>>,
    /// What becomes of requests with other methods.
    pub other_methods: Option<OtherMethods>,
}

/// The methods whose requests may be sent twice unless the configuration says otherwise (RFC 9110, 9.2.2).
pub const IDEMPOTENT_METHODS: &[&str] = &["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"];

/// What becomes of the retries of requests with a method that isn't listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OtherMethods {
    /// The route's own retry policy applies.
    #[default]
    Inherit,
    /// `x-envoy-max-retries: 0`: not even the route's own policy retries them.
    Disable,
}

/// Whether upgrades (WebSocket) and CONNECT get timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Streams {
    /// They don't.
    #[default]
    Skip,
    /// They do, up to the answer that starts the stream.
    Apply,
}

/// What becomes of x-envoy-* headers that the request already carries when it reaches the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RequestHeaders {
    /// They stay, and ours are added where they are absent.
    #[default]
    Keep,
    /// Numbers stay where they are valid and no larger than ours; everything else is replaced.
    Cap,
    /// Ours replace them.
    Replace,
}

/// Overrides for some requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// For logs and `explain`; unique.
    pub name: String,
    /// Every condition given must hold.
    pub matches: RouteMatch,
    /// What replaces the defaults.
    pub policy: Policy,
    /// What replaces a trusted load balancer's own signals on this route.
    pub forwarded_proto: Option<ForwardedProto>,
}

/// The conditions of a [`Route`]. An empty list is no condition.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct RouteMatch {
    /// The request itself.
    pub request: RequestMatch,
    /// Envoy's virtual host name (`xds.virtual_host_name`).
    pub virtual_hosts: Vec<NamePattern>,
    /// Envoy's route name (`xds.route_name`).
    pub routes: Vec<NamePattern>,
    /// Istio's VirtualService, `namespace/name`.
    pub virtual_services: Vec<String>,
}

/// A name to match with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NamePattern {
    /// This name.
    Exact(String),
    /// `name*`: names that begin with this.
    Prefix(String),
}

impl std::fmt::Display for NamePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NamePattern::Exact(name) => f.write_str(name),
            NamePattern::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl RetryFields {
    /// These fields, and those of `defaults` where these are not given.
    #[must_use]
    pub fn merged_over(&self, defaults: &RetryFields) -> RetryFields {
        RetryFields {
            attempts: self.attempts.or(defaults.attempts),
            per_try_timeout: self.per_try_timeout.or(defaults.per_try_timeout),
            retry_on: self.retry_on.clone().or(defaults.retry_on.clone()),
            retry_grpc_on: self
                .retry_grpc_on
                .clone()
                .or(defaults.retry_grpc_on.clone()),
            status_codes: self.status_codes.clone().or(defaults.status_codes.clone()),
            header_names: self.header_names.clone().or(defaults.header_names.clone()),
            hedge_on_per_try_timeout: self
                .hedge_on_per_try_timeout
                .or(defaults.hedge_on_per_try_timeout),
            methods: self.methods.clone().or(defaults.methods.clone()),
            idempotency_key: self
                .idempotency_key
                .clone()
                .or(defaults.idempotency_key.clone()),
            other_methods: self.other_methods.or(defaults.other_methods),
        }
    }

    /// Whether anything is said to retry on.
    #[must_use]
    pub fn has_conditions(&self) -> bool {
        fn some<T>(list: Option<&Vec<T>>) -> bool {
            list.is_some_and(|list| !list.is_empty())
        }
        some(self.retry_on.as_ref())
            || some(self.retry_grpc_on.as_ref())
            || some(self.status_codes.as_ref())
            || some(self.header_names.as_ref())
    }
}
