//! From a [`Node`] tree to a [`Config`]: one function per object of the configuration language, in its order.

use super::address::{self, covers_everybody};
use super::document::{Node, Shown, quoted};
#[allow(clippy::wildcard_imports)] // This is where every type of the model is made.
use super::model::*;
use super::problem::{Path, Problems, closest, joined};
use super::read::{At, Fields};
use super::seen::Seen;
use super::{duration, headers};

/// What `x-envoy-retry-on` understands (Envoy 1.40, router filter documentation).
const RETRY_ON: &[&str] = &[
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
];

/// What `x-envoy-retry-grpc-on` understands.
const RETRY_GRPC_ON: &[&str] = &[
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// The form of each signal that is known by its name.
fn known_signal(name: &str) -> Option<SignalForm> {
    Some(match name {
        "x-forwarded-proto"
        | "x-forwarded-scheme"
        | "x-url-scheme"
        | "x-client-proto"
        | "cloudfront-forwarded-proto" => SignalForm::Scheme,
        "x-forwarded-port" => SignalForm::Port {
            https: vec![443],
            http: vec![80],
        },
        "cf-visitor" => SignalForm::CfVisitor,
        "x-forwarded-ssl" | "front-end-https" => SignalForm::OnOff,
        "fastly-ssl" | "x-arr-ssl" => SignalForm::Present,
        "forwarded" => SignalForm::Forwarded,
        _ => return None,
    })
}

const KNOWN_SIGNALS: &[&str] = &[
    "x-forwarded-proto",
    "x-forwarded-scheme",
    "x-url-scheme",
    "x-client-proto",
    "cloudfront-forwarded-proto",
    "x-forwarded-port",
    "cf-visitor",
    "x-forwarded-ssl",
    "front-end-https",
    "fastly-ssl",
    "x-arr-ssl",
    "forwarded",
];

const RULE_EXAMPLE: &str =
    "{name: public-alb, match: {ipBlocks: [10.0.12.0/24]}, forwardedProto: {default: https}}";
const FORWARDED_PROTO_EXAMPLE: &str = "forwardedProto: {default: https}";
const RETRIES_EXAMPLE: &str = "{attempts: 2, retryOn: [connect-failure]}, or inherit";
const HEADER_MATCH_EXAMPLE: &str = "{name: x-origin-verify, fromEnv: ORIGIN_SECRET}";

/// Reads the whole configuration. Problems go to `problems`; with an error among them the result is not to be used.
pub(crate) fn config(node: &Node, problems: &Problems) -> Option<Config> {
    let at = At {
        node,
        path: &Path::Root,
        problems,
    };
    let fields = at.object(
        &[
            "peerAddress",
            "helperToken",
            "trustedLoadBalancers",
            "untrusted",
            "rewriteScheme",
            "forwardedPort",
            "defaults",
            "routes",
            "mode",
            "reportDecision",
        ],
        "{trustedLoadBalancers: [...]}",
    )?;
    let peer_address = fields
        .optional("peerAddress", peer_address)
        .unwrap_or_default();
    let helper_token = fields.optional("helperToken", |at| {
        at.object(&["fromEnv"], "{fromEnv: TRUSTED_LB_TOKEN}")?
            .required("fromEnv", "fromEnv: TRUSTED_LB_TOKEN", env_name)
    });
    let rules = fields
        .optional("trustedLoadBalancers", |at| {
            at.list(&format!("[{RULE_EXAMPLE}]"), trusted_load_balancer)
        })
        .unwrap_or_default();
    let config = Config {
        peer_address,
        helper_token,
        trusted_load_balancers: rules,
        untrusted: fields.optional("untrusted", untrusted).unwrap_or_default(),
        rewrite_scheme: fields
            .optional("rewriteScheme", |at| {
                at.word(&[
                    ("auto", RewriteScheme::Auto),
                    ("always", RewriteScheme::Always),
                    ("never", RewriteScheme::Never),
                ])
            })
            .unwrap_or_default(),
        forwarded_port: fields
            .optional("forwardedPort", boolean)
            .unwrap_or_default(),
        defaults: fields
            .optional("defaults", |at| {
                let fields = at.object(POLICY_FIELDS, "{timeout: 15s}")?;
                Some(policy(&fields))
            })
            .unwrap_or_default(),
        routes: fields
            .optional("routes", |at| {
                at.list(
                    "[{name: uploads, match: {paths: [{prefix: /upload}]}, timeout: 5m}]",
                    route,
                )
            })
            .unwrap_or_default(),
        mode: fields
            .optional("mode", |at| {
                at.word(&[("enforce", Mode::Enforce), ("shadow", Mode::Shadow)])
            })
            .unwrap_or_default(),
        report_decision: fields
            .optional("reportDecision", boolean)
            .unwrap_or_default(),
    };
    unique_names(&fields, "trustedLoadBalancers");
    unique_names(&fields, "routes");
    helpers_have_a_token(&config, &fields);
    overwritten_signals(&config, node, problems);
    trust_of_everybody(&config, &fields);
    Some(config)
}

fn peer_address(at: At<'_>) -> Option<PeerAddress> {
    let example = "auto, source, forwardedFor or header:x-lb-peer";
    if let Node::Text(text) = at.node
        && let Some(name) = text.strip_prefix("header:")
    {
        return reported(at, headers::removable_name(name.trim_start())).map(PeerAddress::Header);
    }
    if !matches!(at.node, Node::Text(_)) {
        at.wrong_kind("a word", example);
        return None;
    }
    at.word(&[
        ("auto", PeerWord::Auto),
        ("source", PeerWord::Source),
        ("forwardedFor", PeerWord::ForwardedFor),
        ("header:NAME", PeerWord::Header),
    ])
    .and_then(|word| match word {
        PeerWord::Auto => Some(PeerAddress::Auto),
        PeerWord::Source => Some(PeerAddress::Source),
        PeerWord::ForwardedFor => Some(PeerAddress::ForwardedFor),
        PeerWord::Header => None,
    })
}

#[derive(Clone, Copy)]
enum PeerWord {
    Auto,
    Source,
    ForwardedFor,
    Header,
}

fn trusted_load_balancer(at: At<'_>) -> Option<TrustedLoadBalancer> {
    let fields = at.object(
        &["name", "match", "forwardedProto", "insecureTrustAnyone"],
        RULE_EXAMPLE,
    )?;
    let name = fields.required("name", "name: public-alb", rule_name);
    let insecure_trust_anyone = fields
        .optional("insecureTrustAnyone", boolean)
        .unwrap_or_default();
    let errors_before = at.problems.errors();
    let matches = fields.required(
        "match",
        "match: {ipBlocks: [10.0.12.0/24]}",
        load_balancer_match,
    );
    // What is wrong inside may be the very condition that would tell.
    let match_is_whole = at.problems.errors() == errors_before;
    let proto = fields.required("forwardedProto", FORWARDED_PROTO_EXAMPLE, forwarded_proto);
    if let Some(matches) = &matches
        && match_is_whole
        && !insecure_trust_anyone
        && !authenticates(matches)
    {
        fields.error_at(
            "match",
            &"nothing here tells the load balancer from anybody else: there is no ipBlocks, no header with a value \
             and no clientCertificate",
            &"add for example ipBlocks: [10.0.12.0/24]; whoever really wants to trust everybody writes \
             insecureTrustAnyone: true beside match",
        );
    }
    if let Some(matches) = &matches
        && !insecure_trust_anyone
        && by_address_alone(matches)
        && let Some(whom) = covers_everybody(&nets(matches))
    {
        fields.error_at(
            "match",
            &format_args!("these ipBlocks trust {whom}"),
            &OWN_SUBNETS,
        );
    }
    Some(TrustedLoadBalancer {
        name: name?,
        matches: matches?,
        forwarded_proto: proto?,
        insecure_trust_anyone,
    })
}

/// Whether a match has a condition that an arbitrary client doesn't fulfil by itself.
fn authenticates(matches: &LoadBalancerMatch) -> bool {
    !matches.ip_blocks.is_empty()
        || matches.client_certificate.is_some()
        || matches
            .request
            .headers
            .iter()
            .any(|header| !matches!(header.value, HeaderValueMatch::Present(_)))
}

fn load_balancer_match(at: At<'_>) -> Option<LoadBalancerMatch> {
    let fields = at.object(
        &[
            "ipBlocks",
            "notIpBlocks",
            "ports",
            "notPorts",
            "hosts",
            "notHosts",
            "paths",
            "notPaths",
            "methods",
            "notMethods",
            "headers",
            "notHeaders",
            "clientCertificate",
        ],
        "{ipBlocks: [10.0.12.0/24]}",
    )?;
    if fields.is_empty() {
        at.error_with_help(
            &"an empty match would trust everybody",
            &"write for example ipBlocks: [10.0.12.0/24]",
        );
        return None;
    }
    let blocks = |name| {
        fields
            .optional(name, |at| at.set("[10.0.12.0/24]", ip_block))
            .unwrap_or_default()
    };
    let ports = |name| {
        fields
            .optional(name, |at| at.set("[8080]", port))
            .unwrap_or_default()
    };
    Some(LoadBalancerMatch {
        ip_blocks: blocks("ipBlocks"),
        not_ip_blocks: blocks("notIpBlocks"),
        ports: ports("ports"),
        not_ports: ports("notPorts"),
        request: request_match(&fields),
        client_certificate: fields.optional("clientCertificate", client_certificate),
    })
}

fn request_match(fields: &Fields<'_>) -> RequestMatch {
    let hosts = |name| {
        fields
            .optional(name, |at| at.set("[\"*.example.com\"]", host))
            .unwrap_or_default()
    };
    let paths = |name| {
        fields
            .optional(name, |at| at.set("[{prefix: /healthz}]", path))
            .unwrap_or_default()
    };
    let methods = |name| {
        fields
            .optional(name, |at| at.set("[GET]", method))
            .unwrap_or_default()
    };
    let headers = |name| {
        fields
            .optional(name, |at| {
                at.set(&format!("[{HEADER_MATCH_EXAMPLE}]"), header_match)
            })
            .unwrap_or_default()
    };
    RequestMatch {
        hosts: hosts("hosts"),
        not_hosts: hosts("notHosts"),
        paths: paths("paths"),
        not_paths: paths("notPaths"),
        methods: methods("methods"),
        not_methods: methods("notMethods"),
        headers: headers("headers"),
        not_headers: headers("notHeaders"),
    }
}

fn client_certificate(at: At<'_>) -> Option<ClientCertificate> {
    let example = "{uriSans: [\"spiffe://cluster.local/ns/edge/sa/lb\"]}";
    let fields = at.object(&["uriSans", "dnsSans", "sha256"], example)?;
    if fields.is_empty() {
        at.error_with_help(
            &"an empty clientCertificate would accept every certificate",
            &format_args!("write for example {example}"),
        );
        return None;
    }
    let sans = |name, example: &str| {
        fields
            .optional(name, |at| at.set(example, subject_alternative_name))
            .unwrap_or_default()
    };
    Some(ClientCertificate {
        uri_sans: sans("uriSans", "[\"spiffe://cluster.local/ns/edge/sa/lb\"]"),
        dns_sans: sans("dnsSans", "[origin-pull.example.net]"),
        sha256: fields
            .optional("sha256", |at| at.set("[\"64 hex digits\"]", digest))
            .unwrap_or_default(),
    })
}

fn subject_alternative_name(at: At<'_>) -> Option<String> {
    let text = at.some_text("origin-pull.example.net")?;
    Some(text.to_owned())
}

fn digest(at: At<'_>) -> Option<String> {
    let text = at.text("64 hex digits")?;
    // openssl prints fingerprints with colons.
    let bare: String = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_ascii_lowercase())
        .collect();
    if bare.len() != 64 || !bare.bytes().all(|b| b.is_ascii_hexdigit()) {
        at.error_with_help(
            &format_args!("{} is not a SHA-256 digest", quoted(text)),
            &"write the certificate's fingerprint, 64 hex digits, with or without colons",
        );
        return None;
    }
    Some(bare)
}

fn forwarded_proto(at: At<'_>) -> Option<ForwardedProto> {
    let fields = at.object(&["from", "default"], "{default: https}")?;
    let from = fields.optional("from", |at| at.distinct("[x-forwarded-port]", signal));
    let default = fields.optional("default", |at| {
        at.word(&[
            ("https", DefaultScheme::Scheme(Scheme::Https)),
            ("http", DefaultScheme::Scheme(Scheme::Http)),
            ("connection", DefaultScheme::Connection),
        ])
    });
    if !fields.has("default") && from.as_ref().is_none_or(Vec::is_empty) && !fields.has("from") {
        at.error_with_help(&"neither a signal nor a default tells the scheme here", &"write {default: https} where every client of this load balancer uses https, or name its signals in from");
        return None;
    }
    Some(ForwardedProto {
        from: from.unwrap_or_default(),
        default: default.unwrap_or(DefaultScheme::Connection),
    })
}

fn signal(at: At<'_>) -> Option<Signal> {
    let example = "x-forwarded-port, or {header: x-lb-tls, https: [\"1\"], http: [\"0\"]}";
    match at.node {
        Node::Text(text) => named_signal(at, text),
        Node::Object(_) => custom_signal(at),
        _ => {
            at.wrong_kind("a signal", example);
            None
        }
    }
}

fn named_signal(at: At<'_>, text: &str) -> Option<Signal> {
    if let Some(name) = text.strip_prefix("header:") {
        let name = reported(at, headers::removable_name(name.trim_start()))?;
        return Some(Signal {
            name,
            form: SignalForm::Helper,
        });
    }
    let name = reported(at, headers::name(text))?;
    if let Some(form) = known_signal(name.as_str()) {
        return Some(Signal { name, form });
    }
    let help = match closest(text, &mut KNOWN_SIGNALS.iter().copied()) {
        Some(word) => format!("did you mean {word}?"),
        None => format!(
            "for a load balancer's own header say which values mean what: {{header: {name}, https: [\"https\"], \
             http: [\"http\"]}}; for a copy that an early header mutation makes write header:{name}",
            name = name.as_str()
        ),
    };
    at.error_with_help(
        &format_args!("{} is not a signal whose form is known", quoted(text)),
        &help,
    );
    None
}

fn custom_signal(at: At<'_>) -> Option<Signal> {
    let fields = at.object(
        &["header", "https", "http"],
        "{header: x-lb-tls, https: [\"1\"], http: [\"0\"]}",
    )?;
    let name = fields.required("header", "header: x-lb-tls", |at| {
        reported(at, headers::name(at.some_text("x-lb-tls")?))
    })?;
    let form = if name.as_str() == "x-forwarded-port" {
        let ports = |field| {
            fields
                .optional(field, |at| at.set("[443]", port))
                .unwrap_or_default()
        };
        SignalForm::Port {
            https: ports("https"),
            http: ports("http"),
        }
    } else {
        let values = |field| {
            fields
                .optional(field, |at| at.set("[\"on\"]", signal_value))
                .unwrap_or_default()
        };
        SignalForm::Values {
            https: values("https"),
            http: values("http"),
        }
    };
    if !fields.has("https") && !fields.has("http") {
        at.error_with_help(
            &"no value of this header means anything",
            &"write https: [...], the values that mean https, or http: [...]",
        );
        return None;
    }
    let both = match &form {
        SignalForm::Port { https, http } => https
            .iter()
            .find(|port| http.contains(port))
            .map(ToString::to_string),
        SignalForm::Values { https, http } => https
            .iter()
            .find(|value| http.contains(value))
            .map(|value| quoted(value).to_string()),
        _ => None,
    };
    if let Some(value) = both {
        at.error(&format_args!("{value} means both https and http"));
        return None;
    }
    Some(Signal { name, form })
}

fn signal_value(at: At<'_>) -> Option<String> {
    let text = at.some_text("\"on\", in quotes")?;
    header_value(at, text)
}

fn untrusted(at: At<'_>) -> Option<Untrusted> {
    let fields = at.object(
        &["forwardedProto", "removeHeaders"],
        "{forwardedProto: connection}",
    )?;
    let defaults = Untrusted::default();
    Some(Untrusted {
        forwarded_proto: fields
            .optional("forwardedProto", |at| {
                at.word(&[
                    ("connection", UntrustedProto::Connection),
                    ("http", UntrustedProto::Http),
                    ("keep", UntrustedProto::Keep),
                ])
            })
            .unwrap_or_default(),
        remove_headers: fields
            .optional("removeHeaders", |at| {
                at.distinct("[x-forwarded-ssl]", removed_header)
            })
            .unwrap_or(defaults.remove_headers),
    })
}

fn removed_header(at: At<'_>) -> Option<HeaderName> {
    let name = reported(at, headers::removable_name(at.text("x-forwarded-ssl")?))?;
    if name.as_str() == "x-forwarded-proto" {
        at.error_with_help(&"x-forwarded-proto is never removed: without it Envoy answers 404 where httpsRedirect is on", &"it is overwritten for untrusted peers; see untrusted.forwardedProto");
        return None;
    }
    Some(name)
}

const POLICY_FIELDS: &[&str] = &["timeout", "retries", "streams", "requestHeaders"];

fn policy(fields: &Fields<'_>) -> Policy {
    Policy {
        timeout: fields.optional("timeout", |at| {
            if matches!(at.node, Node::Text(text) if text == "inherit") {
                return Some(Timeout::Inherit);
            }
            millis(at).map(Timeout::After)
        }),
        retries: fields.optional("retries", retries),
        streams: fields.optional("streams", |at| {
            at.word(&[("skip", Streams::Skip), ("apply", Streams::Apply)])
        }),
        request_headers: fields.optional("requestHeaders", |at| {
            at.word(&[
                ("keep", RequestHeaders::Keep),
                ("cap", RequestHeaders::Cap),
                ("replace", RequestHeaders::Replace),
            ])
        }),
    }
}

fn retries(at: At<'_>) -> Option<Retries> {
    if let Node::Text(text) = at.node {
        if text == "inherit" {
            return Some(Retries::Inherit);
        }
        at.error_with_help(
            &format_args!("{} is not understood", quoted(text)),
            &format_args!("write {RETRIES_EXAMPLE}"),
        );
        return None;
    }
    let fields = at.object(
        &[
            "attempts",
            "perTryTimeout",
            "retryOn",
            "retryGrpcOn",
            "statusCodes",
            "headerNames",
            "hedgeOnPerTryTimeout",
            "methods",
            "idempotencyKey",
            "otherMethods",
        ],
        RETRIES_EXAMPLE,
    )?;
    Some(Retries::Set(Box::new(RetryFields {
        attempts: fields.optional("attempts", |at| at.whole("a number of retries", 0, 100)),
        per_try_timeout: fields.optional("perTryTimeout", millis),
        retry_on: fields.optional("retryOn", |at| {
            at.distinct("[connect-failure]", |at| {
                retry_word(at, RETRY_ON, "retry condition")
            })
        }),
        retry_grpc_on: fields.optional("retryGrpcOn", |at| {
            at.distinct("[unavailable]", |at| {
                retry_word(at, RETRY_GRPC_ON, "gRPC retry condition")
            })
        }),
        status_codes: fields.optional("statusCodes", |at| at.distinct("[503]", status_code)),
        header_names: fields.optional("headerNames", |at| {
            at.distinct("[x-retry]", |at| {
                reported(at, headers::name(at.text("x-retry")?))
            })
        }),
        hedge_on_per_try_timeout: fields.optional("hedgeOnPerTryTimeout", boolean),
        methods: fields.optional("methods", |at| at.set("[GET, HEAD]", method)),
        idempotency_key: fields.optional("idempotencyKey", |at| {
            let text = at.text("idempotency-key")?;
            if text.is_empty() {
                return Some(None);
            }
            reported(at, headers::name(text)).map(Some)
        }),
        other_methods: fields.optional("otherMethods", |at| {
            at.word(&[
                ("inherit", OtherMethods::Inherit),
                ("disable", OtherMethods::Disable),
            ])
        }),
    })))
}

fn retry_word(at: At<'_>, words: &[&str], what: &str) -> Option<String> {
    if let Node::Number(code) = at.node {
        let code = Shown(*code);
        at.error_with_help(
            &format_args!("{code} is a status code"),
            &format_args!("write it under statusCodes: [{code}]"),
        );
        return None;
    }
    let text = at.text(words.first().copied().unwrap_or_default())?;
    if words.contains(&text) {
        return Some(text.to_owned());
    }
    let elsewhere = [("retryOn", RETRY_ON), ("retryGrpcOn", RETRY_GRPC_ON)]
        .into_iter()
        .find(|(_, list)| list.contains(&text));
    let help = if let Some((field, _)) = elsewhere {
        format!("it belongs under {field}")
    } else if text.contains(',') {
        "write each condition as its own list entry".to_owned()
    } else if text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit()) {
        format!("write it under statusCodes: [{text}]")
    } else if let Some(word) = closest(text, &mut words.iter().copied()) {
        format!("did you mean {word}?")
    } else {
        format!("write one of {}", joined(&mut words.iter().copied(), ", "))
    };
    at.error_with_help(&format_args!("{} is not a {what}", quoted(text)), &help);
    None
}

fn status_code(at: At<'_>) -> Option<u16> {
    let code = at.whole("a status code", 100, 599)?;
    u16::try_from(code).ok()
}

fn route(at: At<'_>) -> Option<Route> {
    let example = "{name: uploads, match: {paths: [{prefix: /upload}]}, timeout: 5m}";
    let mut known = vec!["name", "match"];
    known.extend(POLICY_FIELDS);
    known.push("forwardedProto");
    let fields = at.object(&known, example)?;
    let name = fields.required("name", "name: uploads", rule_name);
    let matches = fields.required("match", "match: {paths: [{prefix: /upload}]}", route_match);
    let policy = policy(&fields);
    if !POLICY_FIELDS.iter().any(|name| fields.has(name)) && !fields.has("forwardedProto") {
        at.error_with_help(
            &"this route changes nothing",
            &"write for example timeout: 5m, or take the route out",
        );
    }
    Some(Route {
        name: name?,
        matches: matches?,
        policy,
        forwarded_proto: fields.optional("forwardedProto", forwarded_proto),
    })
}

fn route_match(at: At<'_>) -> Option<RouteMatch> {
    let fields = at.object(
        &[
            "hosts",
            "notHosts",
            "paths",
            "notPaths",
            "methods",
            "notMethods",
            "headers",
            "notHeaders",
            "virtualHosts",
            "routes",
            "virtualServices",
        ],
        "{paths: [{prefix: /upload}]}",
    )?;
    if fields.is_empty() {
        at.error_with_help(
            &"an empty match would hold for every request",
            &"put what is meant for every request under defaults",
        );
        return None;
    }
    let names = |name| {
        fields
            .optional(name, |at| at.set("[uploads]", name_pattern))
            .unwrap_or_default()
    };
    Some(RouteMatch {
        request: request_match(&fields),
        virtual_hosts: names("virtualHosts"),
        routes: names("routes"),
        virtual_services: fields
            .optional("virtualServices", |at| {
                at.set("[shop/checkout]", virtual_service)
            })
            .unwrap_or_default(),
    })
}

fn name_pattern(at: At<'_>) -> Option<NamePattern> {
    let text = at.some_text("uploads, or uploads-*")?;
    let (bare, pattern) = match text.strip_suffix('*') {
        Some(prefix) => (prefix, NamePattern::Prefix(prefix.to_owned())),
        None => (text, NamePattern::Exact(text.to_owned())),
    };
    if bare.contains('*') || bare.is_empty() {
        at.error_with_help(
            &format_args!("{}: a * stands at the end of a name only", quoted(text)),
            &"write a name such as uploads, or the beginning of one such as uploads-*",
        );
        return None;
    }
    Some(pattern)
}

fn virtual_service(at: At<'_>) -> Option<String> {
    let text = at.some_text("shop/checkout")?;
    let valid = text.split_once('/').is_some_and(|(namespace, name)| {
        [namespace, name].iter().all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
        })
    });
    if !valid {
        at.error_with_help(
            &format_args!("{} is not a VirtualService", quoted(text)),
            &"write its namespace and name, such as shop/checkout",
        );
        return None;
    }
    Some(text.to_owned())
}

// ---- values ----

/// A function of its own: a method can't be passed where every lifetime is asked for.
fn boolean(at: At<'_>) -> Option<bool> {
    at.boolean()
}

fn rule_name(at: At<'_>) -> Option<String> {
    let text = at.some_text("public-alb")?;
    if text.len() > 128 || text.chars().any(char::is_control) {
        at.error_with_help(
            &format_args!("{} is not a name", quoted(text)),
            &"write a short name without control characters, such as public-alb",
        );
        return None;
    }
    Some(text.to_owned())
}

fn millis(at: At<'_>) -> Option<Millis> {
    if let Node::Number(number) = at.node {
        let number = Shown(*number);
        at.error_with_help(
            &format_args!("{number} has no unit"),
            &format_args!("write {number}s for seconds, or {number}ms for milliseconds"),
        );
        return None;
    }
    reported(at, duration::parse(at.text("15s")?))
}

fn ip_block(at: At<'_>) -> Option<IpBlock> {
    match address::parse(at.text("10.0.12.0/24")?) {
        Ok(block) => Some(block),
        Err((message, Some(help))) => {
            at.error_with_help(&message, &help);
            None
        }
        Err((message, None)) => {
            at.error(&message);
            None
        }
    }
}

fn port(at: At<'_>) -> Option<u16> {
    u16::try_from(at.whole("a port", 1, 65_535)?).ok()
}

fn method(at: At<'_>) -> Option<String> {
    let text = at.some_text("GET")?;
    if text.bytes().any(|b| b.is_ascii_lowercase()) {
        at.error_with_help(
            &format_args!("{}: methods are case-sensitive", quoted(text)),
            &format_args!("write {}", text.to_ascii_uppercase()),
        );
        return None;
    }
    if !text
        .bytes()
        .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b"-_.".contains(&b))
    {
        at.error_with_help(
            &format_args!("{} is not a method", quoted(text)),
            &"write one method per list entry, such as GET",
        );
        return None;
    }
    Some(text.to_owned())
}

fn host(at: At<'_>) -> Option<HostPattern> {
    let text = at.some_text("shop.example.com, or \"*.example.com\"")?;
    let shown = quoted(text);
    let refuse = |why: &str, help: String| {
        at.error_with_help(&format_args!("{shown} is not a host: {why}"), &help);
        None
    };
    if text == "*" {
        return Some(HostPattern::Any);
    }
    if let Some((_, rest)) = text.split_once(':')
        && let Some(rest) = rest.strip_prefix("//")
    {
        return refuse("leave the scheme out", format!("write {rest}"));
    }
    let (wildcard, bare) = match text.strip_prefix('*') {
        Some(rest) if rest.starts_with('.') => (true, rest.strip_prefix('.').unwrap_or(rest)),
        Some(rest) => {
            return refuse(
                "* stands for whole labels only",
                format!("write *.{rest} for the hosts below {rest}"),
            );
        }
        None => (false, text),
    };
    let bare = bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase();
    if bare.starts_with('[') && bare.ends_with(']') && !wildcard {
        return Some(HostPattern::Exact(bare));
    }
    if let Some((name, port)) = bare.rsplit_once(':')
        && port.bytes().all(|b| b.is_ascii_digit())
        && !name.contains(':')
    {
        return refuse("ports are ignored", format!("write {name}"));
    }
    if bare.contains('/') {
        return refuse(
            "a path belongs under paths",
            String::from("write the host only"),
        );
    }
    if !bare.is_ascii() {
        return refuse(
            "international names come in their ASCII form",
            "write the xn-- form".to_owned(),
        );
    }
    let good = bare.split('.').all(|label| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    });
    if !good {
        return refuse(
            "labels have letters, digits and - only",
            "write for example shop.example.com or *.example.com".to_owned(),
        );
    }
    Some(if wildcard {
        HostPattern::Suffix(format!(".{bare}"))
    } else {
        HostPattern::Exact(bare)
    })
}

fn path(at: At<'_>) -> Option<PathPattern> {
    let example = "{prefix: /upload}, {exact: /login} or {suffix: .png}";
    if let Node::Text(text) = at.node {
        let help = match text.strip_suffix('*') {
            Some(prefix) => format!("write {{prefix: {}}}", prefix.trim_end_matches('/')),
            None => format!("write {{exact: {text}}} or {{prefix: {text}}}"),
        };
        at.error_with_help(&"say how the path is matched", &help);
        return None;
    }
    let fields = at.object(&["exact", "prefix", "suffix"], example)?;
    let read = |name, make: fn(String) -> PathPattern| {
        fields.optional(name, |at| {
            let text = at.some_text("/upload")?;
            path_text(at, text, name).map(make)
        })
    };
    let found = [
        read("exact", PathPattern::Exact),
        read("prefix", PathPattern::Prefix),
        read("suffix", PathPattern::Suffix),
    ];
    exactly_one(at, &fields, &["exact", "prefix", "suffix"], example)?;
    found.into_iter().flatten().next()
}

fn path_text(at: At<'_>, text: &str, how: &str) -> Option<String> {
    let shown = quoted(text);
    if text.contains(['?', '#']) {
        at.error_with_help(
            &format_args!("{shown}: the query is not part of the path"),
            &"leave out everything from ? or # on",
        );
        return None;
    }
    if how != "suffix" && !text.starts_with('/') {
        at.error_with_help(
            &format_args!("{shown}: a path begins with /"),
            &format_args!("write /{text}"),
        );
        return None;
    }
    if text.contains('*') {
        at.error_with_help(
            &format_args!("{shown}: * is not a wildcard here"),
            &"write {prefix: ...} without it",
        );
        return None;
    }
    if text.chars().any(|c| c.is_control() || c == ' ') {
        at.error(&format_args!(
            "{shown}: a path has no spaces or control characters"
        ));
        return None;
    }
    Some(text.to_owned())
}

fn header_match(at: At<'_>) -> Option<HeaderMatch> {
    let kinds = &["exact", "prefix", "suffix", "present", "fromEnv"];
    let fields = at.object(
        &["name", "exact", "prefix", "suffix", "present", "fromEnv"],
        HEADER_MATCH_EXAMPLE,
    )?;
    let name = fields.required("name", "name: x-origin-verify", |at| {
        reported(at, headers::name(at.text("x-origin-verify")?))
    });
    let read = |kind, make: fn(String) -> HeaderValueMatch| {
        fields.optional(kind, |at| {
            let text = at.some_text("a value")?;
            header_value(at, text).map(make)
        })
    };
    let found = [
        read("exact", HeaderValueMatch::Exact),
        read("prefix", HeaderValueMatch::Prefix),
        read("suffix", HeaderValueMatch::Suffix),
        fields
            .optional("present", boolean)
            .map(HeaderValueMatch::Present),
        fields
            .optional("fromEnv", env_names)
            .map(HeaderValueMatch::FromEnv),
    ];
    exactly_one(at, &fields, kinds, HEADER_MATCH_EXAMPLE)?;
    Some(HeaderMatch {
        name: name?,
        value: found.into_iter().flatten().next()?,
    })
}

fn header_value(at: At<'_>, text: &str) -> Option<String> {
    if let Some(why) = headers::value_problem(text) {
        at.error(&format_args!("{}: {why}", quoted(text)));
        return None;
    }
    Some(text.to_owned())
}

/// One variable's name, or a list of them: a secret and the one that replaces it.
fn env_names(at: At<'_>) -> Option<Vec<EnvName>> {
    match at.node {
        Node::List(_) => at.set("[ORIGIN_SECRET, ORIGIN_SECRET_NEXT]", env_name),
        _ => env_name(at).map(|name| vec![name]),
    }
}

fn env_name(at: At<'_>) -> Option<EnvName> {
    let text = at.some_text("ORIGIN_SECRET")?;
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        || text.starts_with(|c: char| c.is_ascii_digit())
    {
        // Not repeated: somebody may have written the secret itself here.
        at.error_with_help(&"this is not the name of an environment variable", &"write a name such as ORIGIN_SECRET, and put the secret into the WasmPlugin's vmConfig.env or Envoy's \
             vm_config.environment_variables");
        return None;
    }
    Some(EnvName(text.to_owned()))
}

/// Reports what a reader of a text found wrong.
fn reported<T>(at: At<'_>, result: Result<T, (String, String)>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err((message, help)) => {
            at.error_with_help(&message, &help);
            None
        }
    }
}

fn exactly_one(at: At<'_>, fields: &Fields<'_>, kinds: &[&str], example: &str) -> Option<()> {
    let written: Vec<&str> = kinds
        .iter()
        .copied()
        .filter(|kind| fields.has(kind))
        .collect();
    match written.len() {
        1 => Some(()),
        0 => {
            at.error_with_help(
                &format_args!(
                    "one of {} is missing",
                    joined(&mut kinds.iter().copied(), ", ")
                ),
                &format_args!("write for example {example}"),
            );
            None
        }
        _ => {
            at.error_with_help(
                &format_args!(
                    "{} can't stand together",
                    joined(&mut written.into_iter(), " and ")
                ),
                &"write one of them, and a list entry of its own for the other",
            );
            None
        }
    }
}

// ---- what spans several fields ----

/// Names of rules and routes are how logs and `explain` speak of them.
fn unique_names(fields: &Fields<'_>, list: &str) {
    fields.optional_unless_null(list, |at| {
        let Node::List(items) = at.node else {
            return None;
        };
        let mut seen = Seen::default();
        for (index, item) in items.iter().enumerate() {
            let Some(Node::Text(name)) = item.get("name") else {
                continue;
            };
            if !seen.again(name) {
                continue;
            }
            let first = items.iter().position(
                |other| matches!(other.get("name"), Some(Node::Text(text)) if text == name),
            );
            if let Some(first) = first.filter(|first| *first < index) {
                let item = Path::Item(at.path, index);
                at.problems.error_with_help(
                    &Path::Field(&item, "name"),
                    &format_args!("{} is the name of {list}[{first}] already", quoted(name)),
                    &"choose another name",
                );
            }
        }
        Some(())
    });
}

/// A helper header without a token fails open where the early header mutation is missing: anybody could send it.
fn helpers_have_a_token(config: &Config, fields: &Fields<'_>) {
    let in_peer = matches!(config.peer_address, PeerAddress::Header(_));
    let in_signals = signals(config).any(|signal| signal.form == SignalForm::Helper);
    if fields.has("helperToken") {
        if !in_peer && !in_signals && config.helper_token.is_some() {
            fields.error_at(
                "helperToken",
                &"no helper header is read in this configuration",
                &"take it out, or read one with peerAddress: header:NAME or header:NAME in from",
            );
        }
    } else if in_peer || in_signals {
        fields.error_at(
            "helperToken",
            &"a helper header is read, and nothing proves that the gateway's own early header mutation wrote it",
            &"write helperToken: {fromEnv: TRUSTED_LB_TOKEN} and let the mutation write that token in front of the value",
        );
    }
}

/// Every signal of the configuration.
fn signals(config: &Config) -> impl Iterator<Item = &Signal> {
    let of_rules = config
        .trusted_load_balancers
        .iter()
        .map(|rule| &rule.forwarded_proto);
    let of_routes = config
        .routes
        .iter()
        .filter_map(|route| route.forwarded_proto.as_ref());
    of_rules.chain(of_routes).flat_map(|proto| &proto.from)
}

/// With `auto` and `source` the connection manager has overwritten x-forwarded-proto before this filter sees it, so
/// that reading it would only ever tell the connection's own scheme.
fn overwritten_signals(config: &Config, node: &Node, problems: &Problems) {
    if !matches!(config.peer_address, PeerAddress::Auto | PeerAddress::Source) {
        return;
    }
    for list in ["trustedLoadBalancers", "routes"] {
        let Some(Node::List(items)) = node.get(list) else {
            continue;
        };
        for (index, item) in items.iter().enumerate() {
            let from = item
                .get("forwardedProto")
                .and_then(|proto| proto.get("from"));
            let Some(Node::List(signals)) = from else {
                continue;
            };
            for (position, signal) in signals.iter().enumerate() {
                let name = match signal {
                    Node::Text(name) => Some(name),
                    other => match other.get("header") {
                        Some(Node::Text(name)) => Some(name),
                        _ => None,
                    },
                };
                if name.is_some_and(|name| name.eq_ignore_ascii_case("x-forwarded-proto")) {
                    problems.error_with_help(&format_args!("{list}[{index}].forwardedProto.from[{position}]"), &"Envoy has overwritten x-forwarded-proto before this filter sees it, with this peerAddress", &"take it out and use default: https or another signal; where numTrustedProxies is at least 1 \
                         write peerAddress: forwardedFor; else copy it with an early header mutation and read \
                         header:x-lb-proto");
                }
            }
        }
    }
}

/// Rules that trust by address alone, judged together: two halves of the internet are the internet.
fn trust_of_everybody(config: &Config, fields: &Fields<'_>) {
    let mut all = Vec::new();
    for rule in &config.trusted_load_balancers {
        if rule.insecure_trust_anyone || !by_address_alone(&rule.matches) {
            continue;
        }
        let nets = nets(&rule.matches);
        // A rule that trusts everybody by itself is reported where it stands.
        if covers_everybody(&nets).is_none() {
            all.extend(nets);
        }
    }
    if let Some(whom) = covers_everybody(&all) {
        fields.error_at(
            "trustedLoadBalancers",
            &format_args!("the ipBlocks of these rules together trust {whom}"),
            &OWN_SUBNETS,
        );
    }
}

const OWN_SUBNETS: &str = "list the load balancer's own subnets; whoever really wants to trust everybody writes \
                           insecureTrustAnyone: true beside match";

/// Whether nothing but the peer's address tells whom a rule trusts.
fn by_address_alone(matches: &LoadBalancerMatch) -> bool {
    matches.client_certificate.is_none()
        && matches
            .request
            .headers
            .iter()
            .all(|header| matches!(header.value, HeaderValueMatch::Present(_)))
}

fn nets(matches: &LoadBalancerMatch) -> Vec<ipnet::IpNet> {
    matches.ip_blocks.iter().flat_map(IpBlock::nets).collect()
}
