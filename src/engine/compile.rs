//! From a [`Config`] to an [`Engine`]: everything that can be worked out before the first request is worked out here.

use super::matcher::{
    CertificateMatch, ConnectionMatch, HeaderMatch, HostSet, PathMatch, RequestMatch, ValueMatch,
};
use super::names::{HeaderId, HeaderNames};
use super::net::CidrSet;
use super::policy::{self, Number, Written};
use super::route::Route;
use super::route_table::RouteTable;
use super::secret::Secret;
use super::signal::{Form, Signal};
use super::{Engine, ForwardedProto, PeerSource, Rule};
use crate::config::{
    self, Config, EnvName, HeaderValueMatch, HostPattern, IpBlock, Path, PathPattern, PeerAddress,
    Problem, Retries, Severity, SignalForm, Streams, Timeout,
};

/// Looks up an environment variable of the Wasm VM.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

impl Engine {
    /// Compiles a configuration. Secrets are taken from `environment`.
    ///
    /// # Errors
    /// Every environment variable that is missing or can't be a secret.
    pub fn new(config: &Config, environment: Environment<'_>) -> Result<Engine, Vec<Problem>> {
        let mut compiler = Compiler {
            names: HeaderNames::new(),
            environment,
            problems: Vec::new(),
        };
        let engine = compiler.engine(config);
        if compiler.problems.is_empty() {
            Ok(Engine {
                names: compiler.names,
                ..engine
            })
        } else {
            Err(compiler.problems)
        }
    }
}

struct Compiler<'e> {
    names: HeaderNames,
    environment: Environment<'e>,
    problems: Vec<Problem>,
}

/// Shorter secrets can be guessed by trying.
const SHORTEST_SECRET: usize = 8;

impl Compiler<'_> {
    fn engine(&mut self, config: &Config) -> Engine {
        self.mark_removals(config);
        let token = config.helper_token.as_ref().and_then(|token| {
            let path = Path::root().field("helperToken").field("fromEnv");
            self.secret(&token.from_env, &path)
        });
        let peer = match &config.peer_address {
            PeerAddress::Auto => PeerSource::Auto,
            PeerAddress::Source => PeerSource::Source,
            PeerAddress::ForwardedFor => PeerSource::ForwardedFor,
            PeerAddress::Header(name) => PeerSource::Helper {
                header: self.helper(name),
                // Without a token the configuration is refused; this one equals nothing that could be sent.
                token: token.clone().unwrap_or_else(|| Secret::new("\0")),
            },
        };
        let rules_path = Path::root().field("trustedLoadBalancers");
        let mut rules = Vec::with_capacity(config.trusted_load_balancers.len());
        for (index, rule) in config.trusted_load_balancers.iter().enumerate() {
            let path = rules_path.item(index).field("match");
            let matches = &rule.matches;
            let set = |blocks: &[IpBlock]| {
                (!blocks.is_empty()).then(|| CidrSet::new(blocks.iter().flat_map(IpBlock::nets)))
            };
            rules.push(Rule {
                name: rule.name.clone(),
                connection: ConnectionMatch {
                    ip_blocks: set(&matches.ip_blocks),
                    not_ip_blocks: set(&matches.not_ip_blocks),
                    ports: matches.ports.clone(),
                    not_ports: matches.not_ports.clone(),
                    client_certificate: matches.client_certificate.as_ref().map(certificate),
                },
                request: self.request(&matches.request, &path),
                forwarded_proto: self.forwarded_proto(&rule.forwarded_proto, token.as_ref()),
            });
        }
        let defaults = self.policy(&config.defaults, &config::Policy::default());
        let routes_path = Path::root().field("routes");
        let mut routes = Vec::with_capacity(config.routes.len());
        for (index, route) in config.routes.iter().enumerate() {
            let path = routes_path.item(index).field("match");
            routes.push(Route {
                name: route.name.clone(),
                request: self.request(&route.matches.request, &path),
                virtual_hosts: route.matches.virtual_hosts.clone(),
                routes: route.matches.routes.clone(),
                virtual_services: route.matches.virtual_services.clone(),
                policy: self.policy(&route.policy, &config.defaults),
                forwarded_proto: route
                    .forwarded_proto
                    .as_ref()
                    .map(|proto| self.forwarded_proto(proto, token.as_ref())),
            });
        }
        Engine {
            // Names are still being interned; the finished table takes this one's place.
            names: HeaderNames::new(),
            peer,
            rules,
            untrusted_proto: config.untrusted.forwarded_proto,
            rewrite_scheme: config.rewrite_scheme,
            forwarded_port: config.forwarded_port,
            defaults,
            routes: RouteTable::new(routes),
            mode: config.mode,
            reports_decisions: config.report_decision,
        }
    }

    fn mark_removals(&mut self, config: &Config) {
        self.names
            .mark(HeaderId::FORWARDED_PROTO, |removal| removal.twins = true);
        if config.forwarded_port {
            self.names
                .mark(HeaderId::FORWARDED_PORT, |removal| removal.twins = true);
        }
        for name in config.removed_headers() {
            let id = self.names.intern(name);
            self.names.mark(id, |removal| removal.untrusted = true);
        }
    }

    /// A header that the early header mutation writes: read by the rules, and gone before the upstream.
    fn helper(&mut self, name: &config::HeaderName) -> HeaderId {
        let id = self.names.intern(name.as_str());
        self.names.mark(id, |removal| {
            removal.always = true;
            removal.twins = true;
        });
        id
    }

    fn secret(&mut self, name: &EnvName, path: &Path) -> Option<Secret> {
        let name = name.as_str();
        let wrong = match (self.environment)(name) {
            None => format!("the environment variable {name} is not set"),
            Some(value) if value.len() < SHORTEST_SECRET => format!(
                "the environment variable {name} has fewer than {SHORTEST_SECRET} characters, which can be guessed"
            ),
            Some(value) if value.trim() != value || value.chars().any(char::is_control) => format!(
                "the environment variable {name} has spaces around it or control characters, which no header value has"
            ),
            Some(value) => return Some(Secret::new(&value)),
        };
        self.problems.push(Problem {
            severity: Severity::Error,
            path: path.clone(),
            message: wrong,
            help: Some(
                "set it in the WasmPlugin's vmConfig.env or Envoy's vm_config.environment_variables".to_owned(),
            ),
        });
        None
    }

    fn request(&mut self, matches: &config::RequestMatch, path: &Path) -> RequestMatch {
        RequestMatch {
            hosts: host_set(&matches.hosts),
            not_hosts: host_set(&matches.not_hosts),
            paths: matches.paths.iter().map(path_match).collect(),
            not_paths: matches.not_paths.iter().map(path_match).collect(),
            methods: matches.methods.clone(),
            not_methods: matches.not_methods.clone(),
            headers: self.headers(&matches.headers, &path.field("headers")),
            not_headers: self.headers(&matches.not_headers, &path.field("notHeaders")),
        }
    }

    fn headers(&mut self, matches: &[config::HeaderMatch], path: &Path) -> Vec<HeaderMatch> {
        matches
            .iter()
            .enumerate()
            .map(|(index, header)| HeaderMatch {
                header: self.names.intern(header.name.as_str()),
                value: match &header.value {
                    HeaderValueMatch::Exact(text) => ValueMatch::Exact(text.clone()),
                    HeaderValueMatch::Prefix(text) => ValueMatch::Prefix(text.clone()),
                    HeaderValueMatch::Suffix(text) => ValueMatch::Suffix(text.clone()),
                    HeaderValueMatch::Present(wanted) => ValueMatch::Present(*wanted),
                    HeaderValueMatch::FromEnv(names) => ValueMatch::Secret(
                        names
                            .iter()
                            .filter_map(|name| {
                                self.secret(name, &path.item(index).field("fromEnv"))
                            })
                            .collect(),
                    ),
                },
            })
            .collect()
    }

    fn forwarded_proto(
        &mut self,
        proto: &config::ForwardedProto,
        token: Option<&Secret>,
    ) -> ForwardedProto {
        ForwardedProto {
            from: proto
                .from
                .iter()
                .map(|signal| Signal {
                    header: match signal.form {
                        SignalForm::Helper => self.helper(&signal.name),
                        _ => self.names.intern(signal.name.as_str()),
                    },
                    form: form(&signal.form, token),
                })
                .collect(),
            default: proto.default,
        }
    }

    fn policy(&mut self, policy: &config::Policy, defaults: &config::Policy) -> policy::Policy {
        let timeout = match policy.timeout.or(defaults.timeout) {
            None | Some(Timeout::Inherit) => None,
            Some(Timeout::After(timeout)) => {
                Some(written_number(HeaderId::TIMEOUT, u64::from(timeout.0), 1))
            }
        };
        let retries = match (&policy.retries, &defaults.retries) {
            (Some(Retries::Inherit), _) | (None, None | Some(Retries::Inherit)) => None,
            (Some(Retries::Set(own)), Some(Retries::Set(defaults))) => {
                Some(own.merged_over(defaults))
            }
            (Some(Retries::Set(fields)), _) | (None, Some(Retries::Set(fields))) => {
                Some((**fields).clone())
            }
        };
        policy::Policy {
            request_headers: policy
                .request_headers
                .or(defaults.request_headers)
                .unwrap_or_default(),
            streams_too: policy.streams.or(defaults.streams).unwrap_or_default() == Streams::Apply,
            timeout,
            retries: retries.map(|fields| self.retries(&fields)),
        }
    }

    fn retries(&mut self, fields: &config::RetryFields) -> policy::Retries {
        let off = fields.attempts == Some(0);
        let mut headers = Vec::new();
        if let Some(attempts) = fields.attempts {
            headers.push(written_number(
                HeaderId::MAX_RETRIES,
                u64::from(attempts),
                0,
            ));
        }
        if !off {
            headers.extend(retry_conditions(fields));
        }
        policy::Retries {
            methods: (!off).then(|| match &fields.methods {
                Some(methods) => methods.clone(),
                None => config::IDEMPOTENT_METHODS
                    .iter()
                    .map(|method| (*method).to_owned())
                    .collect(),
            }),
            idempotency_key: fields
                .idempotency_key
                .as_ref()
                .and_then(Option::as_ref)
                .map(|name| self.names.intern(name.as_str())),
            other_methods: fields.other_methods.unwrap_or_default(),
            per_try_timeout: fields
                .per_try_timeout
                .filter(|_| !off)
                .map(|per_try| written_number(HeaderId::PER_TRY_TIMEOUT, u64::from(per_try.0), 1)),
            headers,
        }
    }
}

/// The headers that say on what to retry. Status codes and header names do nothing without their condition.
fn retry_conditions(fields: &config::RetryFields) -> Vec<Written> {
    let mut conditions: Vec<&str> = texts(fields.retry_on.as_deref()).collect();
    let codes: Vec<String> = fields
        .status_codes
        .iter()
        .flatten()
        .map(ToString::to_string)
        .collect();
    let names: Vec<&str> = fields
        .header_names
        .iter()
        .flatten()
        .map(config::HeaderName::as_str)
        .collect();
    let mut imply = |condition, wanted: bool| {
        if wanted && !conditions.contains(&condition) {
            conditions.push(condition);
        }
    };
    imply("retriable-status-codes", !codes.is_empty());
    imply("retriable-headers", !names.is_empty());
    let grpc: Vec<&str> = texts(fields.retry_grpc_on.as_deref()).collect();
    let lists = [
        (
            HeaderId::RETRY_ON,
            config::joined(&mut conditions.into_iter(), ","),
        ),
        (
            HeaderId::RETRY_GRPC_ON,
            config::joined(&mut grpc.into_iter(), ","),
        ),
        (
            HeaderId::RETRIABLE_STATUS_CODES,
            config::joined(&mut codes.iter().map(String::as_str), ","),
        ),
        (
            HeaderId::RETRIABLE_HEADER_NAMES,
            config::joined(&mut names.into_iter(), ","),
        ),
    ];
    let mut headers: Vec<Written> = lists
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(header, list)| written(header, &list))
        .collect();
    if fields.hedge_on_per_try_timeout == Some(true) {
        headers.push(written(HeaderId::HEDGE_ON_PER_TRY_TIMEOUT, "true"));
    }
    headers
}

fn texts(list: Option<&[String]>) -> impl Iterator<Item = &str> {
    list.into_iter().flatten().map(String::as_str)
}

fn written(header: HeaderId, value: &str) -> Written {
    Written {
        header,
        value: value.to_owned(),
        number: None,
    }
}

fn written_number(header: HeaderId, value: u64, least: u64) -> Written {
    Written {
        header,
        value: value.to_string(),
        number: Some(Number { value, least }),
    }
}

fn form(form: &SignalForm, token: Option<&Secret>) -> Form {
    match form {
        SignalForm::Scheme => Form::Scheme,
        SignalForm::Port { https, http } => Form::Port {
            https: https.clone(),
            http: http.clone(),
        },
        SignalForm::CfVisitor => Form::CfVisitor,
        SignalForm::OnOff => Form::OnOff,
        SignalForm::Present => Form::Present,
        SignalForm::Forwarded => Form::Forwarded,
        SignalForm::Values { https, http } => Form::Values {
            https: https.clone(),
            http: http.clone(),
        },
        SignalForm::Helper => Form::Helper(token.cloned().unwrap_or_else(|| Secret::new("\0"))),
    }
}

fn certificate(certificate: &config::ClientCertificate) -> CertificateMatch {
    CertificateMatch {
        uri_sans: certificate.uri_sans.clone(),
        dns_sans: certificate.dns_sans.clone(),
        sha256: certificate.sha256.clone(),
    }
}

fn host_set(patterns: &[HostPattern]) -> Option<HostSet> {
    if patterns.is_empty() {
        return None;
    }
    let mut set = HostSet::default();
    for pattern in patterns {
        match pattern {
            // Kept sorted as it grows: for a list of hosts that is cheaper, in the module's size, than a sort.
            HostPattern::Exact(host) => {
                if let Err(place) = set.exact.binary_search_by(|known| known.cmp(host)) {
                    set.exact.insert(place, host.clone());
                }
            }
            HostPattern::Suffix(suffix) => set.suffixes.push(suffix.clone()),
            HostPattern::Any => set.any = true,
        }
    }
    Some(set)
}

fn path_match(pattern: &PathPattern) -> PathMatch {
    match pattern {
        PathPattern::Exact(path) => PathMatch::Exact(path.clone()),
        PathPattern::Prefix(path) => PathMatch::Prefix(path.clone()),
        PathPattern::Suffix(path) => PathMatch::Suffix(path.clone()),
    }
}
