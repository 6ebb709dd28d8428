//! The configuration language as data: what the JSON Schema and `docs/configuration.md` are made from.
//!
//! The parser doesn't read this table, since its texts would be in the module. A test shows that both know the same
//! fields, and that both accept and refuse the same configurations as far as a schema can say.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::files::Source;
use crate::config::{DEFAULT_REMOVED_HEADERS, IDEMPOTENT_METHODS, NAMED_SETS};

/// An object of the language.
pub(super) struct Object {
    pub(super) name: &'static str,
    title: &'static str,
    intro: &'static str,
    pub(super) fields: &'static [Field],
    rule: Rule,
}

/// A field of an object.
pub(super) struct Field {
    pub(super) name: &'static str,
    kind: Kind,
    /// What holds where the field is left out; empty for fields that have to be there.
    default: &'static str,
    meaning: &'static str,
    example: &'static str,
}

/// How the fields of an object go together.
enum Rule {
    Any,
    AtLeastOne,
    ExactlyOneOf(&'static [&'static str]),
    AtLeastOneOf(&'static [&'static str]),
}

/// What may stand in a field.
enum Kind {
    Boolean,
    Whole(u32, u32),
    Text {
        what: &'static str,
        pattern: &'static str,
    },
    Words(&'static [&'static str]),
    Object(&'static str),
    /// Perhaps empty, an entry as often as one likes.
    List(&'static Kind),
    /// Perhaps empty, no entry twice.
    Distinct(&'static Kind),
    /// At least one entry, none twice.
    Set(&'static Kind),
    Either(&'static [Kind]),
}

const TOKEN: &str = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$";
const HEADER: Kind = Kind::Text {
    what: "header name",
    pattern: TOKEN,
};
const DURATION: Kind = Kind::Text {
    what: "duration",
    pattern: r"^([0-9]+(\.[0-9]{1,9})?(h|m|s|ms))+$",
};
const METHOD: Kind = Kind::Text {
    what: "method",
    pattern: r"^[A-Z0-9_.-]+$",
};
const HOST: Kind = Kind::Text {
    what: "host",
    pattern: r"^(\*|(\*\.)?[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)*\.?|\[[0-9A-Fa-f:.]+\])$",
};
const BLOCK: Kind = Kind::Text {
    what: "CIDR, address or named set",
    pattern: r"^(@[a-z-]+|[0-9A-Fa-f:.]+(/[0-9]{1,3})?)$",
};
const VARIABLE: Kind = Kind::Text {
    what: "environment variable",
    pattern: r"^[A-Za-z_][A-Za-z0-9_]*$",
};
const NAME: Kind = Kind::Text {
    what: "name",
    pattern: r"^[^\u0000-\u001f\u007f]{1,128}$",
};
const NAME_PATTERN: Kind = Kind::Text {
    what: "name, or its beginning and *",
    pattern: r"^[^*]+\*?$",
};
const SERVICE: Kind = Kind::Text {
    what: "namespace/name",
    pattern: r"^[a-z0-9.-]+/[a-z0-9.-]+$",
};
const VALUE: Kind = Kind::Text {
    what: "header value",
    pattern: r"^[^\u0000-\u0008\u000a-\u001f\u007f \t]([^\u0000-\u0008\u000a-\u001f\u007f]*[^\u0000-\u0008\u000a-\u001f\u007f \t])?$",
};
const PATH: Kind = Kind::Text {
    what: "path",
    pattern: r"^/[^?#*\u0000-\u001f\u007f ]*$",
};
const PATH_END: Kind = Kind::Text {
    what: "end of a path",
    pattern: r"^[^?#*\u0000-\u001f\u007f ]+$",
};
const SOME: Kind = Kind::Text {
    what: "text",
    pattern: "^(.|\\n)+$",
};
const PORT: Kind = Kind::Whole(1, 65_535);
const SIGNALS: &[&str] = &[
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-scheme",
    "x-url-scheme",
    "x-client-proto",
    "cloudfront-forwarded-proto",
    "cf-visitor",
    "x-forwarded-ssl",
    "front-end-https",
    "fastly-ssl",
    "x-arr-ssl",
    "forwarded",
];

const HOSTS: Kind = Kind::Set(&HOST);
const PATHS: Kind = Kind::Set(&Kind::Object("PathMatch"));
const METHODS: Kind = Kind::Set(&METHOD);
const HEADERS: Kind = Kind::Set(&Kind::Object("HeaderMatch"));
const NAMES: Kind = Kind::Set(&NAME_PATTERN);

macro_rules! field {
    ($name:literal, $kind:expr, default $default:literal, $meaning:literal, $example:literal) => {
        Field {
            name: $name,
            kind: $kind,
            default: $default,
            meaning: $meaning,
            example: $example,
        }
    };
    ($name:literal, $kind:expr, required, $meaning:literal, $example:literal) => {
        Field {
            name: $name,
            kind: $kind,
            default: "",
            meaning: $meaning,
            example: $example,
        }
    };
}

/// Every object, outermost first.
pub(super) const OBJECTS: &[Object] = &[
    Object {
        name: "Configuration",
        title: "The configuration",
        intro: "What stands under `pluginConfig` in a WasmPlugin.",
        rule: Rule::Any,
        fields: &[
            field!("peerAddress", Kind::Either(&[
                Kind::Words(&["auto", "source", "forwardedFor"]),
                Kind::Text { what: "header:NAME", pattern: r"^header:\s*[!#$%&'*+.^_`|~0-9A-Za-z-]+$" },
            ]), default "auto",
                "Where the direct peer's address is read; see [choosing peerAddress](peer-address.md).", "forwardedFor"),
            field!("helperToken", Kind::Object("HelperToken"), default "none",
                "Proves that the gateway's own early header mutation wrote what `header:NAME` reads. Needed where \
                 `header:` is used, refused where it isn't.", "{fromEnv: TRUSTED_LB_TOKEN}"),
            field!("trustedLoadBalancers", Kind::List(&Kind::Object("TrustedLoadBalancer")), default "[]",
                "Who may speak for the client's scheme. The first whose `match` holds decides; where none does, the peer \
                 is untrusted.",
                "[{name: public-alb, match: {ipBlocks: [10.0.12.0/24]}, forwardedProto: {default: https}}]"),
            field!("untrusted", Kind::Object("Untrusted"), default "see there",
                "What becomes of requests from everybody else.", "{forwardedProto: connection}"),
            field!("rewriteScheme", Kind::Words(&["auto", "always", "never"]), default "auto",
                "When `:scheme` follows a trusted peer's scheme; Envoy's redirects and OAuth2 use it. `auto`: on HTTP/1, as \
                 Envoy does itself for a trusted x-forwarded-proto. For an untrusted peer `:scheme` is always the \
                 connection's own.", "always"),
            field!("forwardedPort", Kind::Boolean, default "false",
                "Also write `x-forwarded-port`, 443 or 80, unless that header itself told the scheme.", "true"),
            field!("defaults", Kind::Object("Policy"), default "none",
                "Timeouts and retries for requests that no route overrides, whoever sends them.", "{timeout: 15s}"),
            field!("routes", Kind::List(&Kind::Object("Route")), default "[]",
                "Overrides. In listed order, the first whose `match` holds applies.",
                "[{name: uploads, match: {paths: [{prefix: /upload}]}, timeout: 5m}]"),
            field!("mode", Kind::Words(&["enforce", "shadow"]), default "enforce",
                "`shadow`: decide, count and log, but change nothing; only helper headers are removed all the same.", "shadow"),
            field!("reportDecision", Kind::Boolean, default "false",
                "Put each decision where an access log can print it: rule, route, scheme and reason; see \
                 [operations](operations.md#reportdecision). Two to four more host calls a request.", "true"),
        ],
    },
    Object {
        name: "HelperToken",
        title: "helperToken",
        intro: "",
        rule: Rule::Any,
        fields: &[field!(
            "fromEnv",
            VARIABLE,
            required,
            "The variable of the Wasm VM's environment with the token, at least 8 characters. The early header mutation \
             writes it, a space and the value.",
            "TRUSTED_LB_TOKEN"
        )],
    },
    Object {
        name: "TrustedLoadBalancer",
        title: "trustedLoadBalancers[]",
        intro: "",
        rule: Rule::Any,
        fields: &[
            field!(
                "name",
                NAME,
                required,
                "For logs and `explain`; unique.",
                "public-alb"
            ),
            field!(
                "match",
                Kind::Object("LoadBalancerMatch"),
                required,
                "Who it is. Every condition given must hold. There has to be one that an arbitrary client doesn't fulfil: \
                 `ipBlocks`, a header with a value, or `clientCertificate`.",
                "{ipBlocks: [10.0.12.0/24]}"
            ),
            field!(
                "forwardedProto",
                Kind::Object("ForwardedProto"),
                required,
                "How it tells the scheme that its client used.",
                "{default: https}"
            ),
            field!("insecureTrustAnyone", Kind::Boolean, default "false",
                "Allows a match that trusts everybody.", "true"),
        ],
    },
    Object {
        name: "LoadBalancerMatch",
        title: "trustedLoadBalancers[].match",
        intro: "Within a list one entry must hold. What can't be told doesn't hold, negated or not.",
        rule: Rule::AtLeastOne,
        fields: &[
            field!("ipBlocks", Kind::Set(&BLOCK), default "any",
                "The direct peer's address: CIDRs, addresses, named sets (see below). Blocks that together are the \
                 whole internet are refused.", "[10.0.12.0/24, \"2001:db8::/56\"]"),
            field!("notIpBlocks", Kind::Set(&BLOCK), default "none", "The address lies in none of these.", "[10.0.12.1]"),
            field!("ports", Kind::Set(&PORT), default "any",
                "The connection's destination port at the gateway (8080 behind a Service port of 80).", "[8080]"),
            field!("notPorts", Kind::Set(&PORT), default "none", "The port is none of these.", "[15021]"),
            field!("hosts", HOSTS, default "any",
                "`:authority`, without case, port and trailing dot. `*.example.com` holds hosts below example.com.",
                "[\"*.example.com\"]"),
            field!("notHosts", HOSTS, default "none", "The host is none of these.", "[internal.example.com]"),
            field!("paths", PATHS, default "any", "The path, without its query.", "[{prefix: /app}]"),
            field!("notPaths", PATHS, default "none", "The path is none of these.", "[{exact: /healthz}]"),
            field!("methods", METHODS, default "any", "The method.", "[GET]"),
            field!("notMethods", METHODS, default "none", "The method is none of these.", "[CONNECT]"),
            field!("headers", HEADERS, default "any",
                "Every one of these headers matches. A header on several lines matches `present` only.",
                "[{name: x-origin-verify, fromEnv: ORIGIN_SECRET}]"),
            field!("notHeaders", HEADERS, default "none", "None of these headers matches.",
                "[{name: x-debug, present: true}]"),
            field!("clientCertificate", Kind::Object("ClientCertificate"), default "any",
                "The certificate of an mTLS connection to the gateway. Envoy verifies it; with \
                 `trust_chain_verification: ACCEPT_UNTRUSTED` it doesn't, and this says nothing.",
                "{uriSans: [\"spiffe://example.com/lb\"]}"),
        ],
    },
    Object {
        name: "PathMatch",
        title: "paths[], notPaths[]",
        intro: "One of these. Case matters. There are no regular expressions: a small engine for them adds 62 KB to a module that \
                has to stay below 300 KB.",
        rule: Rule::ExactlyOneOf(&["exact", "prefix", "suffix"]),
        fields: &[
            field!("exact", PATH, default "–", "The path is this.", "/login"),
            field!("prefix", PATH, default "–",
                "The path is this or lies below it: `/upload` holds `/upload/x`, not `/uploads`.", "/upload"),
            field!("suffix", PATH_END, default "–", "The path ends in this.", ".png"),
        ],
    },
    Object {
        name: "HeaderMatch",
        title: "headers[], notHeaders[]",
        intro: "`name`, and one of the others.",
        rule: Rule::ExactlyOneOf(&["exact", "prefix", "suffix", "present", "fromEnv"]),
        fields: &[
            field!(
                "name",
                HEADER,
                required,
                "The header, in any case.",
                "x-origin-verify"
            ),
            field!("exact", VALUE, default "–", "The value is this. For secrets use `fromEnv`.", "eu-west-1"),
            field!("prefix", VALUE, default "–", "The value begins with this.", "eu-"),
            field!("suffix", VALUE, default "–", "The value ends in this.", "-edge"),
            field!("present", Kind::Boolean, default "–", "The header is there, or isn't.", "true"),
            field!("fromEnv", Kind::Either(&[VARIABLE, Kind::Set(&VARIABLE)]), default "–",
                "The value is that of this environment variable of the Wasm VM, or of one of these: the secret and the one \
                 that replaces it. At least 8 characters; compared in constant time, never logged.",
                "[ORIGIN_SECRET, ORIGIN_SECRET_NEXT]"),
        ],
    },
    Object {
        name: "ClientCertificate",
        title: "clientCertificate",
        intro: "Every list given must hold; of each, one entry.",
        rule: Rule::AtLeastOne,
        fields: &[
            field!("uriSans", Kind::Set(&SOME), default "any",
                "The first URI subject alternative name (Envoy shows no other).", "[\"spiffe://example.com/lb\"]"),
            field!("dnsSans", Kind::Set(&SOME), default "any", "The first DNS subject alternative name.",
                "[origin-pull.example.net]"),
            field!("sha256", Kind::Set(&Kind::Text {
                what: "SHA-256 fingerprint", pattern: r"^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$",
            }), default "any", "The certificate's fingerprint, 64 hex digits, with or without colons.",
                "[\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"]"),
        ],
    },
    Object {
        name: "ForwardedProto",
        title: "forwardedProto",
        intro: "Writes `x-forwarded-proto`, and `:scheme` as `rewriteScheme` says.",
        rule: Rule::AtLeastOneOf(&["from", "default"]),
        fields: &[
            field!("from", Kind::Distinct(&Kind::Either(&[
                Kind::Words(SIGNALS),
                Kind::Text { what: "header:NAME", pattern: r"^header:\s*[!#$%&'*+.^_`|~0-9A-Za-z-]+$" },
                Kind::Object("CustomSignal"),
            ])), default "[]",
                "Signals, in this order: an absent one passes the question on, the first that is present answers it. One \
                 that can't be understood, or stands on several lines, ends in `default`. List only headers that *this* \
                 load balancer always overwrites. x-forwarded-proto is refused under `peerAddress: auto` and `source`: \
                 Envoy has overwritten it. `header:NAME` reads a copy that an early header mutation made.",
                "[x-forwarded-port, cloudfront-forwarded-proto]"),
            field!("default", Kind::Words(&["https", "http", "connection"]), default "connection",
                "The scheme where no signal tells; `connection` is what the connection to the gateway is.", "https"),
        ],
    },
    Object {
        name: "CustomSignal",
        title: "from[] with values of your own",
        intro: "",
        rule: Rule::AtLeastOneOf(&["https", "http"]),
        fields: &[
            field!(
                "header",
                HEADER,
                required,
                "The header. For x-forwarded-port the values are ports.",
                "x-lb-tls"
            ),
            field!("https", Kind::Either(&[Kind::Set(&VALUE), Kind::Set(&PORT)]), default "none",
                "Values that mean https, exactly as they come.", "[\"1\", \"on\"]"),
            field!("http", Kind::Either(&[Kind::Set(&VALUE), Kind::Set(&PORT)]), default "none",
                "Values that mean http.", "[\"0\"]"),
        ],
    },
    Object {
        name: "Untrusted",
        title: "untrusted",
        intro: "",
        rule: Rule::Any,
        fields: &[
            field!("forwardedProto", Kind::Words(&["connection", "http", "keep"]), default "connection",
                "What `x-forwarded-proto` becomes: what the connection is (TLS or not), `http`, or what is there already. \
                 `keep` hands the scheme to anybody where Envoy keeps x-forwarded-proto too.", "http"),
            field!("removeHeaders", Kind::Distinct(&HEADER), default "see below",
                "Headers that nobody but a trusted load balancer may send; their underscore twins (`x_forwarded_ssl`) go \
                 with them. A list replaces the default one. The twins of x-forwarded-proto are removed from every \
                 request, trusted or not.", "[x-forwarded-ssl, x-real-scheme]"),
        ],
    },
    Object {
        name: "Policy",
        title: "defaults",
        intro: "Headers for Envoy's router, which takes them off before the upstream.",
        rule: Rule::Any,
        fields: POLICY_FIELDS,
    },
    Object {
        name: "Retries",
        title: "retries",
        intro: "What a route leaves out is taken from the defaults. Retries by header *override* those of a VirtualService: \
                `retries: inherit` on a route leaves them alone.",
        rule: Rule::Any,
        fields: &[
            field!("attempts", Kind::Whole(0, 100), default "Envoy's (1)",
                "Tries after the first: `x-envoy-max-retries`. 0 switches retries off, for every method.", "2"),
            field!("perTryTimeout", DURATION, default "none",
                "`x-envoy-upstream-rq-per-try-timeout-ms`. Envoy ignores one that isn't shorter than `timeout`.", "5s"),
            field!("retryOn", Kind::Distinct(&Kind::Words(&[
                "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "envoy-ratelimited",
                "retriable-4xx", "refused-stream", "retriable-status-codes", "retriable-headers",
                "http3-post-connect-failure",
            ])), default "[]",
                "`x-envoy-retry-on`, added to the route's own conditions. A GET that is reset after it was sent is retried by \
                 `reset`, not by `reset-before-request`.", "[connect-failure, refused-stream]"),
            field!("retryGrpcOn", Kind::Distinct(&Kind::Words(&[
                "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
            ])), default "[]", "`x-envoy-retry-grpc-on`.", "[unavailable]"),
            field!("statusCodes", Kind::Distinct(&Kind::Whole(100, 599)), default "[]",
                "`x-envoy-retriable-status-codes`; implies `retriable-status-codes` in `retryOn`.", "[503]"),
            field!("headerNames", Kind::Distinct(&HEADER), default "[]",
                "`x-envoy-retriable-header-names`; implies `retriable-headers` in `retryOn`.", "[x-retry-me]"),
            field!("hedgeOnPerTryTimeout", Kind::Boolean, default "false",
                "`x-envoy-hedge-on-per-try-timeout`: after `perTryTimeout` try once more without giving the first try up.",
                "true"),
            field!("methods", METHODS, default "the idempotent ones, see below",
                "Methods whose requests may be sent twice. Others get no retry headers.", "[GET, HEAD]"),
            field!("idempotencyKey", Kind::Either(&[
                HEADER, Kind::Text { what: "nothing", pattern: "^$" },
            ]), default "\"\" (off)",
                "A header that makes a request with any other method safe to send twice, where it isn't empty.",
                "idempotency-key"),
            field!("otherMethods", Kind::Words(&["inherit", "disable"]), default "inherit",
                "`disable` writes `x-envoy-max-retries: 0` for methods that aren't listed, so that not even Istio's default \
                 policy retries a POST.", "disable"),
        ],
    },
    Object {
        name: "Route",
        title: "routes[]",
        intro: "One of `timeout`, `retries`, `streams`, `requestHeaders` and `forwardedProto` has to be there.",
        rule: Rule::AtLeastOneOf(&[
            "timeout",
            "retries",
            "streams",
            "requestHeaders",
            "forwardedProto",
        ]),
        fields: &[
            field!(
                "name",
                NAME,
                required,
                "For logs and `explain`; unique.",
                "uploads"
            ),
            field!(
                "match",
                Kind::Object("RouteMatch"),
                required,
                "Which requests it is about.",
                "{paths: [{prefix: /upload}]}"
            ),
            field!("timeout", TIMEOUT, default "as in defaults", "As in `defaults`.", "5m"),
            field!("retries", RETRIES, default "as in defaults", "As in `defaults`, merged over them field by field.",
                "{attempts: 0}"),
            field!("streams", Kind::Words(&["skip", "apply"]), default "as in defaults", "As in `defaults`.", "apply"),
            field!("requestHeaders", Kind::Words(&["keep", "cap", "replace"]), default "as in defaults",
                "As in `defaults`.", "cap"),
            field!("forwardedProto", Kind::Object("ForwardedProto"), default "as the rule says",
                "Replaces a trusted load balancer's own `forwardedProto` on this route. It says nothing for untrusted peers.",
                "{default: https}"),
        ],
    },
    Object {
        name: "RouteMatch",
        title: "routes[].match",
        intro: "Every condition given must hold; within a list one entry. Match by hosts, paths, methods and virtual hosts \
                where you can: `routes` and `virtualServices` see the route from *before* the correction, and none \
                behind httpsRedirect.",
        rule: Rule::AtLeastOne,
        fields: &[
            field!("hosts", HOSTS, default "any", "As in a load balancer's match.", "[shop.example.com]"),
            field!("notHosts", HOSTS, default "none", "The host is none of these.", "[api.example.com]"),
            field!("paths", PATHS, default "any", "The path, without its query.", "[{prefix: /upload}]"),
            field!("notPaths", PATHS, default "none", "The path is none of these.", "[{suffix: .png}]"),
            field!("methods", METHODS, default "any", "The method.", "[POST]"),
            field!("notMethods", METHODS, default "none", "The method is none of these.", "[GET]"),
            field!("headers", HEADERS, default "any", "Every one of these headers matches.",
                "[{name: content-type, prefix: application/grpc}]"),
            field!("notHeaders", HEADERS, default "none", "None of these headers matches.",
                "[{name: x-debug, present: true}]"),
            field!("virtualHosts", NAMES, default "any", "Envoy's virtual host (`xds.virtual_host_name`).",
                "[\"shop.example.com:80\"]"),
            field!("routes", NAMES, default "any", "Envoy's route (`xds.route_name`; a VirtualService's `http[].name`).",
                "[uploads, \"report-*\"]"),
            field!("virtualServices", Kind::Set(&SERVICE), default "any", "Istio's VirtualService.", "[shop/checkout]"),
        ],
    },
];

const TIMEOUT: Kind = Kind::Either(&[Kind::Words(&["inherit"]), DURATION]);
const RETRIES: Kind = Kind::Either(&[Kind::Words(&["inherit"]), Kind::Object("Retries")]);

const POLICY_FIELDS: &[Field] = &[
    field!("timeout", TIMEOUT, default "none",
        "`x-envoy-upstream-rq-timeout-ms`. It overrides the timeout of a VirtualService too: `inherit` on a route leaves \
         that alone.", "15s"),
    field!("retries", RETRIES, default "none", "See [retries](#retries).",
        "{attempts: 2, retryOn: [connect-failure, refused-stream]}"),
    field!("streams", Kind::Words(&["skip", "apply"]), default "skip",
        "Whether upgrades (WebSocket) and CONNECT get timeouts. Server-sent events and gRPC streams can't be told from \
         other requests: give them a route.", "apply"),
    field!("requestHeaders", Kind::Words(&["keep", "cap", "replace"]), default "keep",
        "What becomes of x-envoy-* that the request already carries, from a filter in front of this one or an internal \
         client (Envoy removes them from external ones). `keep`: they stay, ours are added where they are absent. `cap`: a \
         number stays where it is valid and no larger than ours, \"no limit\" (0), junk and overflow become ours, lists \
         become ours; what isn't configured stays. `replace`: ours alone.", "cap"),
];

/// The JSON Schema (2020-12).
pub(super) fn schema() -> Value {
    let mut definitions = Map::new();
    for object in OBJECTS {
        definitions.insert(object.name.to_owned(), object_schema(object));
    }
    let mut root = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of trusted-lb",
        "$ref": "#/$defs/Configuration",
    });
    if let Some(root) = root.as_object_mut() {
        root.insert("$defs".to_owned(), Value::Object(definitions));
    }
    root
}

fn object_schema(object: &Object) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in object.fields {
        let mut schema = kind_schema(&field.kind);
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("description".to_owned(), json!(field.meaning));
            schema.insert("examples".to_owned(), json!([example(field)]));
        }
        properties.insert(field.name.to_owned(), schema);
        if field.default.is_empty() {
            required.push(field.name);
        }
    }
    let mut schema = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "required": required,
    });
    let any_of = |names: &[&str]| {
        names
            .iter()
            .map(|name| json!({"required": [name]}))
            .collect::<Value>()
    };
    let (key, value) = match object.rule {
        Rule::Any => return schema,
        Rule::AtLeastOne => ("minProperties", json!(1)),
        Rule::ExactlyOneOf(names) => ("oneOf", any_of(names)),
        Rule::AtLeastOneOf(names) => ("anyOf", any_of(names)),
    };
    if let Some(schema) = schema.as_object_mut() {
        schema.insert(key.to_owned(), value);
    }
    schema
}

/// The example as JSON.
fn example(field: &Field) -> Value {
    let source = Source::new(field.name, field.example);
    let document = source
        .documents()
        .ok()
        .and_then(|documents| documents.into_iter().next());
    document.map_or(Value::Null, |document| super::yaml::json(&document.node()))
}

fn kind_schema(kind: &Kind) -> Value {
    match kind {
        Kind::Boolean => json!({"type": "boolean"}),
        Kind::Whole(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Kind::Text { what, pattern } => {
            json!({"type": "string", "title": what, "pattern": pattern})
        }
        Kind::Words(words) => json!({"enum": words}),
        Kind::Object(name) => json!({"$ref": format!("#/$defs/{name}")}),
        Kind::List(item) => json!({"type": "array", "items": kind_schema(item)}),
        Kind::Distinct(item) => {
            json!({"type": "array", "items": kind_schema(item), "uniqueItems": true})
        }
        Kind::Set(item) => {
            json!({"type": "array", "items": kind_schema(item), "uniqueItems": true, "minItems": 1})
        }
        Kind::Either(kinds) => json!({"anyOf": kinds.iter().map(kind_schema).collect::<Value>()}),
    }
}

/// `docs/configuration.md`.
pub(super) fn markdown() -> String {
    let mut out = String::from(
        "# Configuration reference\n\nGenerated by `trusted-lb reference`; a test keeps it so. `trusted-lb check` finds \
         mistakes, `trusted-lb explain` shows what becomes of a request, [the JSON Schema](../schema/trusted-lb.schema.json) \
         helps editors.\n\nEverything is strict: unknown fields, values of the wrong kind, empty lists and empty matches are \
         refused, all of them at once, each with its place. Durations are written as Istio writes them (`15s`, `250ms`, \
         `1m30s`).\n",
    );
    for object in OBJECTS {
        let _ = write!(out, "\n## {}\n\n", object.title);
        if !object.intro.is_empty() {
            let _ = write!(out, "{}\n\n", object.intro);
        }
        out.push_str("| field | type | default | meaning | example |\n|---|---|---|---|---|\n");
        for field in object.fields {
            let default = if field.default.is_empty() {
                "**required**"
            } else {
                field.default
            };
            let _ = writeln!(
                out,
                "| `{}` | {} | {default} | {} | `{}` |",
                field.name,
                kind_text(&field.kind),
                field.meaning.replace('|', "\\|"),
                field.example,
            );
        }
    }
    let _ = write!(
        out,
        "\n## Default lists\n\n- `untrusted.removeHeaders`: {}.\n- `retries.methods` (RFC 9110, 9.2.2): {}.\n",
        DEFAULT_REMOVED_HEADERS.join(", "),
        IDEMPOTENT_METHODS.join(", ")
    );
    out.push_str(
        "\n## Forms of the signals\n\n| signal | form |\n|---|---|\n\
         | x-forwarded-proto, x-forwarded-scheme, x-url-scheme, x-client-proto, cloudfront-forwarded-proto | `http` or \
         `https`, also `ws` and `wss`, in any case; of a list the right-most |\n\
         | x-forwarded-port | 443 is https, 80 is http; of a list the right-most; other ports with `{header: \
         x-forwarded-port, https: [8443]}` |\n\
         | cf-visitor | JSON, `{\"scheme\":\"https\"}` |\n\
         | x-forwarded-ssl, front-end-https | `on` or `off`, in any case |\n\
         | fastly-ssl, x-arr-ssl | present means https. Fastly passes a client's own fastly-ssl on: [rather set a header in \
         VCL](../examples/load-balancers/fastly) |\n\
         | forwarded | RFC 7239; `proto` of the right-most element |\n\
         | `{header: …, https: […], http: […]}` | exactly these values |\n\
         | `header:NAME` | a copy by the early header mutation: the token, a space, and a value as x-forwarded-proto's |\n",
    );
    out.push_str("\n## Named sets of addresses\n\nAddress lists change: write the blocks yourself where that matters.\n");
    for set in NAMED_SETS {
        let _ = write!(
            out,
            "\n**`{}`**: {}. Source: {}.{}\n\n`{}`\n",
            set.name,
            set.meaning,
            set.source,
            if set.shared_edge {
                " Any customer of that vendor can send requests from these addresses: add a secret header or a client certificate."
            } else {
                ""
            },
            set.blocks.join(" ")
        );
    }
    out
}

fn kind_text(kind: &Kind) -> String {
    match kind {
        Kind::Boolean => "true or false".to_owned(),
        Kind::Whole(least, most) => format!("{least} to {most}"),
        Kind::Text { what, .. } => (*what).to_owned(),
        Kind::Words(words) => words
            .iter()
            .map(|word| format!("`{word}`"))
            .collect::<Vec<_>>()
            .join(", "),
        Kind::Object(name) => match OBJECTS.iter().find(|object| object.name == *name) {
            Some(object) => {
                let anchor: String = object
                    .title
                    .to_ascii_lowercase()
                    .chars()
                    .filter(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-'))
                    .map(|c| if c == ' ' { '-' } else { c })
                    .collect();
                format!("[{}](#{anchor})", object.title)
            }
            None => (*name).to_owned(),
        },
        Kind::List(item) | Kind::Distinct(item) | Kind::Set(item) => {
            format!("list of {}", kind_text(item))
        }
        Kind::Either(kinds) => kinds
            .iter()
            .map(kind_text)
            .collect::<Vec<_>>()
            .join(", or "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// A configuration with an unknown field in each object, so that the parser lists the fields it knows there.
    #[test]
    fn the_reference_and_the_parser_know_the_same_fields() {
        let wrong = json!({
            "zzzzzz": 0,
            "helperToken": {"zzzzzz": 0},
            "untrusted": {"zzzzzz": 0},
            "defaults": {"zzzzzz": 0, "retries": {"zzzzzz": 0}},
            "trustedLoadBalancers": [{
                "zzzzzz": 0,
                "match": {
                    "zzzzzz": 0,
                    "paths": [{"zzzzzz": 0}],
                    "headers": [{"zzzzzz": 0}],
                    "clientCertificate": {"zzzzzz": 0},
                },
                "forwardedProto": {"zzzzzz": 0, "from": [{"zzzzzz": 0}]},
            }],
            "routes": [{"zzzzzz": 0, "match": {"zzzzzz": 0}}],
        });
        let loaded = config::load(wrong.to_string().as_bytes());
        let known = |path: &str| {
            let problem = loaded
                .problems
                .iter()
                .find(|problem| problem.path == path && problem.message == "there is no such field")
                .unwrap_or_else(|| panic!("{path}: {:#?}", loaded.problems));
            let help = problem.help.clone().expect("help");
            let mut names: Vec<String> = help
                .strip_prefix("the fields here are ")
                .expect("a list")
                .split(", ")
                .map(str::to_owned)
                .collect();
            names.sort();
            names
        };
        for (object, path) in [
            ("Configuration", "zzzzzz"),
            ("HelperToken", "helperToken.zzzzzz"),
            ("Untrusted", "untrusted.zzzzzz"),
            ("Policy", "defaults.zzzzzz"),
            ("Retries", "defaults.retries.zzzzzz"),
            ("TrustedLoadBalancer", "trustedLoadBalancers[0].zzzzzz"),
            ("LoadBalancerMatch", "trustedLoadBalancers[0].match.zzzzzz"),
            ("PathMatch", "trustedLoadBalancers[0].match.paths[0].zzzzzz"),
            (
                "HeaderMatch",
                "trustedLoadBalancers[0].match.headers[0].zzzzzz",
            ),
            (
                "ClientCertificate",
                "trustedLoadBalancers[0].match.clientCertificate.zzzzzz",
            ),
            (
                "ForwardedProto",
                "trustedLoadBalancers[0].forwardedProto.zzzzzz",
            ),
            (
                "CustomSignal",
                "trustedLoadBalancers[0].forwardedProto.from[0].zzzzzz",
            ),
            ("Route", "routes[0].zzzzzz"),
            ("RouteMatch", "routes[0].match.zzzzzz"),
        ] {
            let object = OBJECTS
                .iter()
                .find(|known| known.name == object)
                .expect(object);
            let mut documented: Vec<&str> = object.fields.iter().map(|field| field.name).collect();
            documented.sort_unstable();
            assert_eq!(documented, known(path), "{path}");
        }
    }
}
