//! From a [`Config`] to an [`Engine`]: everything that can be worked out before the first request is worked out here.

use super::Engine;
use super::cidr_set::CidrSet;
use super::forwarded_proto::ForwardedProto;
use super::matcher::{HeaderMatch, HostSet, RequestMatch, ValueMatch};
use super::names::{HeaderId, HeaderNames};
use super::override_table::OverrideTable;
use super::overrides::Override;
use super::peer_source::PeerSource;
use super::policy::{self, RetryPlan, Value, Wanted};
use super::rule::{Rule, RuleMatch};
use super::secret::Secret;
use super::signal::Signal;
use super::untrusted::Untrusted;
use crate::config::{
    self, Config, EnvName, HeaderValueMatch, HostPattern, IpBlock, OtherMethods, Path, PeerAddress,
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
            Ok(engine)
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
        let helper_token = config
            .helper_token
            .as_ref()
            .and_then(|token| {
                let path = Path::root().field("helperToken").field("fromEnv");
                self.secret(&token.from_env, &path)
            })
            // Without a token the configuration is refused; this one equals nothing that could be sent.
            .unwrap_or_else(|| Secret::new("\0"));
        let peer = match &config.peer_address {
            PeerAddress::Auto => PeerSource::Auto,
            PeerAddress::Source => PeerSource::Source,
            PeerAddress::ForwardedFor => PeerSource::ForwardedFor,
            PeerAddress::FilterState(key) => PeerSource::FilterState {
                path: format!("filter_state\0{key}"),
            },
            PeerAddress::Header(name) => PeerSource::Header {
                header: self.early_mutation_header(name),
                token: helper_token.clone(),
            },
        };
        let rules = config.trusted_load_balancers.iter().enumerate();
        let rules = rules.map(|(index, rule)| self.rule(index, rule)).collect();
        let untrusted = self.untrusted(config);
        let defaults = self.policy(&config.defaults, &config::Policy::default());
        let overrides = config.routes.iter().enumerate();
        let overrides: Vec<Override> = overrides
            .map(|(index, route)| self.one_override(index, route, &config.defaults))
            .collect();
        self.names.all_read_names_are_in();
        self.mark_removals(config);
        self.names.finish();
        let forgotten = self.removed_though_read(&defaults, &overrides);
        Engine {
            names: std::mem::replace(&mut self.names, HeaderNames::new()),
            peer,
            helper_token,
            rules,
            untrusted,
            forgotten,
            rewrite_scheme: config.rewrite_scheme,
            forwarded_port: config.forwarded_port,
            defaults,
            overrides: OverrideTable::new(overrides),
            mode: config.mode,
            reports_decisions: config.report_decision,
        }
    }

    fn rule(&mut self, index: usize, rule: &config::TrustedLoadBalancer) -> Rule {
        let path = Path::root()
            .field("trustedLoadBalancers")
            .item(index)
            .field("match");
        Rule {
            name: rule.name.clone(),
            matches: self.rule_match(&rule.matches, &path),
            forwarded_proto: self.forwarded_proto(&rule.forwarded_proto),
        }
    }

    #[inline(never)]
    fn rule_match(&mut self, matches: &config::LoadBalancerMatch, path: &Path) -> RuleMatch {
        let set = |blocks: &[IpBlock]| {
            (!blocks.is_empty()).then(|| CidrSet::new(blocks.iter().flat_map(IpBlock::nets)))
        };
        RuleMatch {
            ip_blocks: set(&matches.ip_blocks),
            not_ip_blocks: set(&matches.not_ip_blocks),
            ports: matches.ports.clone(),
            not_ports: matches.not_ports.clone(),
            client_certificate: matches.client_certificate.clone(),
            request: self.request(&matches.request, path),
        }
    }

    fn untrusted(&mut self, config: &Config) -> Untrusted {
        let Some(untrusted) = &config.untrusted else {
            return if config.judges_schemes() {
                Untrusted::default()
            } else {
                Untrusted {
                    forwarded_proto: None,
                    ..Untrusted::default()
                }
            };
        };
        let path = Path::root().field("untrusted").field("except");
        Untrusted {
            forwarded_proto: Some(untrusted.forwarded_proto),
            refusal: untrusted.refusal(),
            except: untrusted
                .except
                .iter()
                .enumerate()
                .map(|(index, except)| self.rule_match(&except.matches, &path.item(index)))
                .collect(),
        }
    }

    fn one_override(
        &mut self,
        index: usize,
        route: &config::Route,
        defaults: &config::Policy,
    ) -> Override {
        let path = Path::root().field("routes").item(index).field("match");
        Override {
            name: route.name.clone(),
            request: self.request(&route.matches.request, &path),
            virtual_hosts: route.matches.virtual_hosts.clone(),
            routes: route.matches.routes.clone(),
            virtual_services: route.matches.virtual_services.clone(),
            policy: self.policy(&route.policy, defaults),
            forwarded_proto: route
                .forwarded_proto
                .as_ref()
                .map(|proto| self.forwarded_proto(proto)),
        }
    }

    /// The headers that policies and overrides read, and that are removed from untrusted requests.
    fn removed_though_read(
        &self,
        defaults: &policy::Policy,
        overrides: &[Override],
    ) -> Vec<HeaderId> {
        let conditions = overrides.iter().flat_map(|own| {
            let request = &own.request;
            request.headers.iter().chain(&request.not_headers)
        });
        let policies = overrides.iter().map(|own| &own.policy);
        let policies = policies.chain([defaults]);
        let keys = policies.filter_map(|policy| policy.retries.as_ref()?.idempotency_key);
        let mut ids: Vec<HeaderId> = Vec::new();
        for id in conditions.map(|condition| condition.header).chain(keys) {
            if self.names.is_removed_from_untrusted(id) && !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }

    fn mark_removals(&mut self, config: &Config) {
        for header in policy::ROUTER_HEADERS {
            self.names.mark(header, |removal| removal.router = true);
        }
        if !config.judges_schemes() {
            return;
        }
        self.names
            .mark(HeaderId::FORWARDED_PROTO, |removal| removal.variants = true);
        if config.forwarded_port {
            self.names
                .mark(HeaderId::FORWARDED_PORT, |removal| removal.variants = true);
        }
        for name in config.removed_headers() {
            let id = self.names.intern(name);
            self.names.mark(id, |removal| removal.untrusted = true);
        }
    }

    /// A header that the early header mutation writes: read by the rules, and removed before the upstream.
    fn early_mutation_header(&mut self, name: &config::HeaderName) -> HeaderId {
        let id = self.names.intern(name.as_str());
        self.names.mark(id, |removal| {
            removal.always = true;
            removal.variants = true;
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
            paths: matches.paths.clone(),
            not_paths: matches.not_paths.clone(),
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

    fn forwarded_proto(&mut self, proto: &config::ForwardedProto) -> ForwardedProto {
        let from = proto.from.iter().map(|signal| Signal {
            header: match signal.form {
                SignalForm::Helper => self.early_mutation_header(&signal.name),
                _ => self.names.intern(signal.name.as_str()),
            },
            form: signal.form.clone(),
        });
        ForwardedProto {
            from: from.collect(),
            default: proto.default,
        }
    }

    fn policy(&mut self, policy: &config::Policy, defaults: &config::Policy) -> policy::Policy {
        let timeout = match policy.timeout.or(defaults.timeout) {
            None | Some(Timeout::Inherit) => Wanted::Unsaid,
            Some(Timeout::After(timeout)) => Wanted::Ours(Value::number(timeout.0)),
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
            request_headers: policy.request_headers.or(defaults.request_headers),
            streams_too: policy.streams.or(defaults.streams).unwrap_or_default() == Streams::Apply,
            timeout,
            retries: retries.map(|fields| Box::new(self.retries(&fields))),
        }
    }

    fn retries(&mut self, fields: &config::RetryFields) -> policy::Retries {
        let off = fields.attempts == Some(0);
        let mut covered = RetryPlan::nothing();
        let mut not_covered = RetryPlan::unsaid();
        if let Some(attempts) = fields.attempts {
            let attempts = Value::number(attempts);
            not_covered.set(HeaderId::MAX_RETRIES, Wanted::AtMost(attempts.clone()));
            covered.set(HeaderId::MAX_RETRIES, Wanted::Ours(attempts));
        }
        if fields.other_methods == Some(OtherMethods::Disable) {
            not_covered.set(HeaderId::MAX_RETRIES, Wanted::Ours(Value::number(0)));
        }
        if !off {
            retry_conditions(fields, &mut covered);
            if let Some(per_try) = fields.per_try_timeout {
                let value = Value::number(per_try.0);
                covered.set(HeaderId::PER_TRY_TIMEOUT, Wanted::Ours(value));
            }
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
            covered,
            not_covered,
        }
    }
}

/// The headers that say on what to retry. Status codes and header names do nothing without their condition.
fn retry_conditions(fields: &config::RetryFields, plan: &mut RetryPlan) {
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
    for (header, list) in lists {
        if !list.is_empty() {
            plan.set(header, Wanted::Ours(Value::text(&list)));
        }
    }
    if fields.hedge_on_per_try_timeout == Some(true) {
        plan.set(
            HeaderId::HEDGE_ON_PER_TRY_TIMEOUT,
            Wanted::Ours(Value::text("true")),
        );
    }
}

fn texts(list: Option<&[String]>) -> impl Iterator<Item = &str> {
    list.into_iter().flatten().map(String::as_str)
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
