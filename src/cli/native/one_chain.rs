//! One filter chain for everybody. What belongs to the connection is written into filter state once a connection, and
//! x-forwarded-proto by an early header mutation, in front of Envoy's own handling, which then derives `:scheme` and redirects
//! from it.

use serde_json::{Map, Value, json};

use super::cel;
use super::connection::{Networks, state};
use super::expression::{self, CONNECTION};
use super::filter_chain::{
    Chain, FORWARDED_PORT, FORWARDED_PROTO, connection_manager, formatted, refuses,
};
use super::filters::{
    self, Existing, composite, execute, go_on, header_input, remove, tree, write,
};
use super::lines::Lines;
use super::options::{Http2, Options};
use super::refusal::Refusals;
use super::{policy, removal};
use crate::config::{
    Config, DefaultScheme, ForwardedProto, LoadBalancerMatch, RequestMatch, RewriteScheme, Scheme,
    TrustedLoadBalancer,
};

/// Filter state: what x-forwarded-proto becomes.
const PROTO: &str = "trusted-lb.proto";
/// Filter state: what x-forwarded-port becomes.
const PORT: &str = "trusted-lb.port";
/// Filter state, or a header within Envoy: the connection's scheme if nobody trusts the peer, nothing if somebody does.
const UNTRUSTED: &str = "trusted-lb.untrusted";
const UNTRUSTED_HEADER: &str = "x-trusted-lb-untrusted";

/// A rule of trust, as far as a plan needs it.
struct Rule<'c> {
    /// On the connection.
    connection: String,
    /// On the request.
    request: String,
    forwarded_proto: &'c ForwardedProto,
    place: String,
}

impl Rule<'_> {
    fn asks_the_request(&self) -> bool {
        self.request != "true"
    }
}

/// The filter chain.
pub(super) fn chain(
    config: &Config,
    options: Options,
    differences: &mut Vec<String>,
    refusals: &mut Refusals,
) -> Chain {
    let mut networks = Networks::default();
    let mut lines = Lines::default();
    let mut parts = Parts {
        config,
        rules: rules(config, &mut networks, &mut lines, refusals),
        lines,
        objects: Vec::new(),
    };
    parts.tell_rules(refusals);
    let (untrusted_header, untrusted) = parts.untrusted(refusals);
    let written = parts.written(refusals);
    let scheme_by_request = parts.scheme_by_request();
    refuse_schemes(config, options, scheme_by_request, refusals);

    let follows = config.rewrite_scheme != RewriteScheme::Never;
    let mut early = parts.lines.copies();
    early.extend(untrusted_header);
    if follows {
        early.extend(written.iter().cloned());
    }
    early.extend(parts.lines.removals());
    early.extend(removal::from_everybody(config, options));

    let mut chain = Chain::default();
    connection_manager(config, u8::from(follows), &mut chain);
    if options.http2 == Some(Http2::Off) {
        let fields = &mut chain.manager;
        fields.insert("codec_type".to_owned(), json!("HTTP1"));
    }
    chain.manager.insert(
        "early_header_mutation_extensions".to_owned(),
        json!([filters::early_mutation(&early)]),
    );
    let mut objects = networks.objects();
    objects.append(&mut parts.objects);
    let state = filters::set_filter_state(&objects);
    chain.network_filters.push(state);

    // In front of the removal: overrides may ask for a header that untrusted peers lose.
    chain.http_filters.extend(policy::filter(config, refusals));
    if !follows {
        let mutation = filters::header_mutation("trusted-lb.forwarded-proto", &written);
        chain.http_filters.push(mutation);
    }
    chain
        .http_filters
        .extend(for_strangers(config, &untrusted, follows));
    if parts.trust_by_request() {
        let helper = [remove(UNTRUSTED_HEADER)];
        let mutation = filters::header_mutation("trusted-lb.helpers", &helper);
        chain.http_filters.push(mutation);
    }
    if !follows {
        let again = filters::choose_route_again("trusted-lb.route");
        chain.http_filters.push(again);
    }
    if !refuses(config) {
        differences.push(
            "an untrusted request whose :scheme isn't its connection's (HTTP/2, or an absolute target) is answered 403; the \
             module corrects it"
                .to_owned(),
        );
    }
    chain
}

/// What the parts of a filter chain are made from.
struct Parts<'c> {
    config: &'c Config,
    rules: Vec<Rule<'c>>,
    lines: Lines,
    /// Keys and formats of filter state.
    objects: Vec<(String, String)>,
}

impl Parts<'_> {
    fn trust_by_request(&self) -> bool {
        self.rules.iter().any(Rule::asks_the_request)
    }

    fn scheme_by_request(&self) -> bool {
        let mut routes = self.config.routes.iter();
        self.trust_by_request()
            || routes.any(|route| route.forwarded_proto.is_some())
            || self
                .rules
                .iter()
                .any(|rule| !rule.forwarded_proto.from.is_empty())
    }

    /// Tells requests which rules hold for the connection.
    fn tell_rules(&mut self, refusals: &mut Refusals) {
        if !self.scheme_by_request() {
            return;
        }
        for (index, rule) in self.rules.iter().enumerate() {
            if rule.connection != "true" {
                let told = cel::choose(&rule.connection, "'y'", "'n'");
                self.objects
                    .push((rule_key(index), formatted(&told, refusals)));
            }
        }
    }

    /// How match trees know who is untrusted: early mutations, and the trees' input.
    fn untrusted(&mut self, refusals: &mut Refusals) -> (Vec<Value>, Value) {
        if !self.trust_by_request() {
            let whether = first_match(&self.rules, CONNECTION, |_| "''".to_owned());
            let format = formatted(&whether, refusals);
            self.objects.push((UNTRUSTED.to_owned(), format));
            return (Vec::new(), filters::filter_state_input(UNTRUSTED));
        }
        let whether = request_expression(&self.rules, CONNECTION, |_| "''".to_owned());
        let format = formatted(&whether, refusals);
        let mutations = vec![
            remove(UNTRUSTED_HEADER),
            write(UNTRUSTED_HEADER, &format, Existing::Overwrite),
        ];
        (mutations, header_input(UNTRUSTED_HEADER))
    }

    /// Writes x-forwarded-proto, and x-forwarded-port if that is wanted.
    fn written(&mut self, refusals: &mut Refusals) -> Vec<Value> {
        let mut written = Vec::new();
        if self.scheme_by_request() {
            let scheme = scheme_of_request(self.config, &self.rules, &mut self.lines, refusals);
            let format = formatted(&scheme, refusals);
            written.push(write(FORWARDED_PROTO, &format, Existing::Overwrite));
        } else {
            let proto = first_match(&self.rules, CONNECTION, |rule| {
                expression::default_scheme(rule.forwarded_proto.default)
            });
            let format = formatted(&proto, refusals);
            self.objects.push((PROTO.to_owned(), format));
            let format = from_state(PROTO);
            written.push(write(FORWARDED_PROTO, &format, Existing::Overwrite));
        }
        if self.config.forwarded_port {
            let format = self.port(refusals);
            written.push(write(FORWARDED_PORT, &format, Existing::Overwrite));
        }
        written
    }

    fn port(&mut self, refusals: &mut Refusals) -> String {
        if self.scheme_by_request() {
            refuse_port_that_tells(self.config, refusals);
            let name = cel::text(FORWARDED_PROTO);
            let is_https =
                format!("({name} in request.headers && request.headers[{name}] == 'https')");
            return formatted(&cel::choose(&is_https, "'443'", "'80'"), refusals);
        }
        let of_connection = port_of(DefaultScheme::Connection);
        let port = first_match(&self.rules, &of_connection, |rule| {
            port_of(rule.forwarded_proto.default)
        });
        let format = formatted(&port, refusals);
        self.objects.push((PORT.to_owned(), format));
        from_state(PORT)
    }
}

fn refuse_schemes(
    config: &Config,
    options: Options,
    scheme_by_request: bool,
    refusals: &mut Refusals,
) {
    if options.http2.is_none() && !refuses(config) {
        refusals.refuse(
            if config.untrusted.is_some() { "untrusted" } else { "trustedLoadBalancers" },
            "over HTTP/2 :scheme is the peer's, and in one filter chain Envoy's own filters can't correct an untrusted one",
            "render with --http2 off (the listener speaks HTTP/1 only), with --http2 deny (such a request is answered 403), or keep the \
             module",
        );
    }
    match config.rewrite_scheme {
        RewriteScheme::Always if options.http2 == Some(Http2::Off) => {}
        RewriteScheme::Always => refusals.refuse(
            "rewriteScheme",
            "Envoy's own filters can't write :scheme, and over HTTP/2 it is the peer's",
            "write auto, or render with --http2 off if the load balancer speaks HTTP/1",
        ),
        RewriteScheme::Never if scheme_by_request => refusals.refuse(
            "rewriteScheme",
            "if Envoy keeps x-forwarded-proto until it is read, it takes :scheme from it on HTTP/1",
            "write auto, or keep the module",
        ),
        RewriteScheme::Auto | RewriteScheme::Never => {}
    }
}

fn refuse_port_that_tells(config: &Config, refusals: &mut Refusals) {
    if config
        .signals()
        .any(|signal| signal.name.as_str() == FORWARDED_PORT)
    {
        refusals.refuse(
            "forwardedPort",
            "x-forwarded-port would have to stay if it told the scheme, and be written if it didn't",
            "leave forwardedPort out: the load balancer writes that header itself",
        );
    }
}

/// The port of a rule's scheme, as an expression.
fn port_of(scheme: DefaultScheme) -> String {
    match scheme {
        DefaultScheme::Scheme(scheme) => cel::text(scheme.default_port()),
        DefaultScheme::Connection => cel::choose(
            "has(connection.tls_version)",
            &cel::text(Scheme::Https.default_port()),
            &cel::text(Scheme::Http.default_port()),
        ),
    }
}

/// The rules, each condition as an expression.
fn rules<'c>(
    config: &'c Config,
    networks: &mut Networks,
    lines: &mut Lines,
    refusals: &mut Refusals,
) -> Vec<Rule<'c>> {
    let rules = config.trusted_load_balancers.iter().enumerate();
    rules
        .map(|(index, rule)| {
            let TrustedLoadBalancer {
                name: _,
                matches,
                forwarded_proto,
                insecure_trust_anyone: _,
            } = rule;
            let LoadBalancerMatch {
                // Read by `Networks::condition`.
                ip_blocks: _,
                not_ip_blocks: _,
                ports: _,
                not_ports: _,
                request: asked,
                client_certificate,
            } = matches;
            let place = format!("trustedLoadBalancers[{index}]");
            let match_place = format!("{place}.match");
            let mut request = Vec::new();
            request.extend(client_certificate.as_ref().map(expression::certificate));
            if *asked != RequestMatch::default() {
                request.push(expression::request(asked, &match_place, lines, refusals));
            }
            Rule {
                connection: networks.condition(matches, &match_place, refusals),
                request: cel::all(&request),
                forwarded_proto,
                place,
            }
        })
        .collect()
}

/// The first rule whose conditions on the connection hold decides.
fn first_match(rules: &[Rule<'_>], otherwise: &str, value: impl Fn(&Rule<'_>) -> String) -> String {
    let cases = rules
        .iter()
        .map(|rule| (rule.connection.clone(), value(rule)));
    cel::first(cases, otherwise)
}

/// The same if conditions on the request count too.
fn request_expression(
    rules: &[Rule<'_>],
    otherwise: &str,
    mut value: impl FnMut(&Rule<'_>) -> String,
) -> String {
    let cases = rules.iter().enumerate().map(|(index, rule)| {
        let mut parts = Vec::new();
        if rule.connection != "true" {
            parts.push(format!("{} == b'y'", state(&rule_key(index))));
        }
        if rule.asks_the_request() {
            parts.push(rule.request.clone());
        }
        (cel::all(&parts), value(rule))
    });
    cel::first(cases, otherwise)
}

fn rule_key(index: usize) -> String {
    format!("trusted-lb.rule{index}")
}

/// The scheme, if it takes the request to tell.
fn scheme_of_request(
    config: &Config,
    rules: &[Rule<'_>],
    lines: &mut Lines,
    refusals: &mut Refusals,
) -> String {
    let last = config
        .routes
        .iter()
        .rposition(|route| route.forwarded_proto.is_some());
    // Of the overrides the first that matches counts, also one that leaves the scheme alone.
    let asked = last.map_or(0, |last| last + 1);
    let mut overrides = Vec::new();
    for (index, route) in config.routes.iter().enumerate().take(asked) {
        let place = format!("routes[{index}]");
        let Some(request) = policy::matched_request(route, &place, refusals) else {
            continue;
        };
        let condition = expression::request(request, &format!("{place}.match"), lines, refusals);
        let scheme = route.forwarded_proto.as_ref().map(|proto| {
            expression::signals(proto, &format!("{place}.forwardedProto"), lines, refusals)
        });
        overrides.push((condition, scheme));
    }
    request_expression(rules, CONNECTION, |rule| {
        let place = format!("{}.forwardedProto", rule.place);
        let own = expression::signals(rule.forwarded_proto, &place, lines, refusals);
        let cases = overrides.iter().map(|(condition, scheme)| {
            let scheme = scheme.clone().unwrap_or_else(|| own.clone());
            (condition.clone(), scheme)
        });
        cel::first(cases, &own)
    })
}

/// The filters that take from untrusted requests what only a load balancer may say, or refuse them.
fn for_strangers(config: &Config, untrusted: &Value, follows: bool) -> Vec<Value> {
    if refuses(config) {
        let refused = |_: &str| execute(&filters::deny("trusted-lb.refused"));
        return vec![by_connection("trusted-lb.untrusted", untrusted, refused)];
    }
    let removal = removal::from_strangers(config);
    let removal = execute(&filters::header_mutation("trusted-lb.untrusted", &removal));
    let deny = execute(&filters::deny("trusted-lb.scheme"));
    let mut all = vec![by_connection("trusted-lb.untrusted", untrusted, |scheme| {
        if_scheme(scheme, &removal, Some(&deny))
    })];
    if follows {
        let again = execute(&filters::choose_route_again("trusted-lb.route"));
        all.push(by_connection("trusted-lb.route", untrusted, |scheme| {
            if_scheme(scheme, &again, None)
        }));
    }
    all
}

/// A filter for untrusted requests, by their connection's scheme.
fn by_connection(name: &str, untrusted: &Value, action: impl Fn(&str) -> Value) -> Value {
    let schemes = ["http", "https"];
    let map = schemes.map(|scheme| (scheme.to_owned(), action(scheme)));
    composite(name, &tree(untrusted, Map::from_iter(map), None))
}

/// An action for requests whose `:scheme` is this one, and perhaps one for others.
fn if_scheme(scheme: &str, action: &Value, otherwise: Option<&Value>) -> Value {
    let map = Map::from_iter([(scheme.to_owned(), action.clone())]);
    go_on(tree(&header_input(":scheme"), map, otherwise.cloned()))
}

fn from_state(key: &str) -> String {
    format!("%FILTER_STATE({key}:PLAIN)%")
}
