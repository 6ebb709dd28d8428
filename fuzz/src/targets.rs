//! The fuzz targets: each takes any bytes, and panics where something that must hold doesn't.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use serde_json::{Value, json};
use trusted_lb::config;
use trusted_lb::engine::{Attribute, Engine, Operation, Peer, Reading, Request};

/// The value of every secret.
const SECRET: &str = "correct-horse";

fn compiled(config: &config::Config) -> Engine {
    Engine::new(config, &|_| Some(SECRET.to_owned())).expect("every secret is there")
}

/// A plugin configuration, whatever its bytes: it is taken, or every problem says something.
pub fn configuration(data: &[u8]) {
    let loaded = config::load(data);
    for problem in &loaded.problems {
        assert!(!problem.message.is_empty());
        assert!(
            !problem.to_string().contains('\n'),
            "one line each: {problem}"
        );
    }
    assert_eq!(loaded.config.is_none(), loaded.errors().next().is_some());
    let Some(config) = loaded.config else { return };
    let again = config::load(data).config.expect("it was taken before");
    assert_eq!(config, again);
    // Secrets of its own may be missing; nothing else can be wrong now.
    let missing = Engine::new(&config, &|_| None).err().unwrap_or_default();
    assert!(
        missing
            .iter()
            .all(|problem| problem.message.contains("environment variable"))
    );
    let engine = compiled(&config);
    assert_eq!(engine.rule_count(), config.trusted_load_balancers.len());
    assert_eq!(engine.override_count(), config.routes.len());
}

/// Decisions that bytes make.
struct Choices<'d>(&'d [u8]);

impl<'d> Choices<'d> {
    fn byte(&mut self) -> u8 {
        match self.0 {
            [first, rest @ ..] => {
                self.0 = rest;
                *first
            }
            [] => 0,
        }
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    fn one<'o, T>(&mut self, of: &'o [T]) -> &'o T {
        let index = self.below(of.len());
        &of[index]
    }

    fn some<T: Clone>(&mut self, of: &[T]) -> Vec<T> {
        let mask = self.byte();
        of.iter()
            .enumerate()
            .filter(|(index, _)| mask >> (index % 8) & 1 == 1)
            .map(|(_, item)| item.clone())
            .collect()
    }

    /// Up to the next byte that can stand in no header, or as many as are left.
    fn text(&mut self) -> &'d [u8] {
        let end = self
            .0
            .iter()
            .position(|byte| matches!(byte, 0 | b'\n' | b'\r'));
        let (text, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest.get(1..).unwrap_or_default();
        text
    }
}

/// A request as filters see it.
#[derive(Clone, Debug, Default)]
struct Plain {
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    attributes: BTreeMap<String, Vec<u8>>,
}

impl Request for Plain {
    type Value = Vec<u8>;

    fn header_lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    fn attribute(&self, path: &str) -> Option<Vec<u8>> {
        self.attributes.get(path).cloned()
    }
}

impl Plain {
    fn with(mut self, name: &str, value: &[u8]) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn values(&self, name: &str) -> Vec<&[u8]> {
        self.headers
            .iter()
            .filter(|(line, _)| line == name.as_bytes())
            .map(|(_, value)| value.as_slice())
            .collect()
    }

    fn after(&self, operations: &[Operation<'_>]) -> Self {
        let mut after = self.clone();
        for operation in operations {
            match operation {
                Operation::Set { name, value } => {
                    after.headers.retain(|(line, _)| line != name.as_bytes());
                    after
                        .headers
                        .push((name.as_bytes().into(), value.as_bytes().into()));
                }
                Operation::Remove { name } => after.headers.retain(|(line, _)| line != name),
            }
        }
        after
    }
}

const SIGNALS: &[&str] = &[
    "x-forwarded-port",
    "cf-visitor",
    "forwarded",
    "x-forwarded-ssl",
    "front-end-https",
    "fastly-ssl",
    "x-url-scheme",
    "x-forwarded-scheme",
];

const NAMES: &[&str] = &[
    "x-forwarded-for",
    "x-forwarded-proto",
    "x_forwarded_proto",
    "x-forwarded_proto",
    "x-lb-peer",
    "x-lb-proto",
    "x_lb_proto",
    "x-origin-verify",
    "x-edge",
    "x-lb-tls",
    "x_forwarded_ssl",
    "connection",
    "upgrade",
    "idempotency-key",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-max-retries",
    "x-envoy-retry-on",
    "x-envoy-retriable-status-codes",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-upstream-stream-duration-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x.forwarded.proto",
    "x~forwarded~ssl",
];

fn matches(choices: &mut Choices<'_>) -> serde_json::Map<String, Value> {
    let mut fields = serde_json::Map::new();
    let kinds = choices.byte();
    let mut add = |bit: u8, name: &str, value: Value| {
        if kinds >> bit & 1 == 1 {
            fields.insert(name.to_owned(), value);
        }
    };
    add(
        0,
        "hosts",
        json!([choices.one(&["a.example.com", "*.example.com", "*", "localhost"])]),
    );
    add(
        1,
        "notHosts",
        json!([choices.one(&["a.example.com", "*.b.example.com"])]),
    );
    add(
        2,
        "paths",
        json!([{*choices.one(&["exact", "prefix"]): choices.one(&["/", "/a", "/a/b/"])}]),
    );
    add(
        3,
        "notPaths",
        json!([{"suffix": choices.one(&[".png", "/"])}]),
    );
    add(4, "methods", json!([choices.one(&["GET", "POST"])]));
    add(5, "notMethods", json!([choices.one(&["PUT", "DELETE"])]));
    let header = choices.one(&["x-edge", "x-forwarded_proto", "forwarded", "content-type"]);
    add(
        6,
        "headers",
        json!([{"name": header, *choices.one(&["exact", "prefix", "suffix"]): "eu"}]),
    );
    add(
        7,
        "notHeaders",
        json!([{"name": header, "present": choices.byte() & 1 == 1}]),
    );
    fields
}

fn forwarded_proto(choices: &mut Choices<'_>, helper: bool) -> Value {
    let mut from: Vec<Value> = choices
        .some(SIGNALS)
        .into_iter()
        .map(|name| json!(name))
        .collect();
    let more = choices.byte();
    if more & 1 == 1 {
        from.push(json!({"header": "x-lb-tls", "https": ["1", "on"], "http": ["0"]}));
    }
    if more & 2 == 2 && helper {
        from.insert(0, json!("header:x-lb-proto"));
    }
    json!({"from": from, "default": choices.one(&["http", "https", "connection"])})
}

fn policy(choices: &mut Choices<'_>) -> serde_json::Map<String, Value> {
    let mut fields = serde_json::Map::new();
    match choices.below(3) {
        0 => {}
        1 => drop(fields.insert("timeout".to_owned(), json!("inherit"))),
        _ => drop(fields.insert("timeout".to_owned(), json!("15s"))),
    }
    match choices.below(4) {
        0 => drop(fields.insert("timeout".to_owned(), json!("1s"))),
        1 => drop(fields.insert("retries".to_owned(), json!("inherit"))),
        kind => {
            let mut retries =
                json!({"attempts": choices.below(3), "retryOn": ["reset"], "statusCodes": [503]});
            if kind == 3 {
                retries["perTryTimeout"] = json!("500ms");
                retries["otherMethods"] = json!(choices.one(&["inherit", "disable"]));
                retries["idempotencyKey"] = json!("idempotency-key");
            }
            fields.insert("retries".to_owned(), retries);
        }
    }
    fields.insert(
        "requestHeaders".to_owned(),
        json!(choices.one(&["keep", "cap", "replace"])),
    );
    fields.insert("streams".to_owned(), json!(choices.one(&["skip", "apply"])));
    fields
}

fn configuration_from(choices: &mut Choices<'_>) -> Value {
    let peer = *choices.one(&[
        "auto",
        "source",
        "forwardedFor",
        "header:x-lb-peer",
        "filterState",
        "filterState:a.key",
    ]);
    let helper = peer.starts_with("header:");
    let mut rules = Vec::new();
    for index in 0..choices.below(4) {
        let mut conditions = matches(choices);
        match choices.below(3) {
            0 => {
                drop(conditions.insert("ipBlocks".to_owned(), json!(["10.0.0.0/8", "fd00:7::/64"])))
            }
            1 => {
                let secret = json!([{"name": "x-origin-verify", "fromEnv": "SECRET"}]);
                conditions.insert("headers".to_owned(), secret);
            }
            _ => drop(conditions.insert(
                "clientCertificate".to_owned(),
                json!({"uriSans": ["spiffe://edge"]}),
            )),
        }
        let proto = forwarded_proto(choices, helper);
        rules.push(
            json!({"name": format!("r{index}"), "match": conditions, "forwardedProto": proto}),
        );
    }
    let mut routes = Vec::new();
    for index in 0..choices.below(4) {
        let mut route = policy(choices);
        let mut conditions = matches(choices);
        if choices.byte() & 1 == 1 || conditions.is_empty() {
            conditions.insert(
                "virtualHosts".to_owned(),
                json!([choices.one(&["one", "t*"])]),
            );
        }
        route.insert("name".to_owned(), json!(format!("r{index}")));
        route.insert("match".to_owned(), Value::Object(conditions));
        if choices.byte() & 1 == 1 {
            route.insert(
                "forwardedProto".to_owned(),
                forwarded_proto(choices, helper),
            );
        }
        routes.push(Value::Object(route));
    }
    let mut document = json!({
        "peerAddress": peer,
        "trustedLoadBalancers": rules,
        "mode": choices.one(&["enforce", "enforce", "shadow"]),
        "rewriteScheme": choices.one(&["auto", "always", "never"]),
        "forwardedPort": choices.byte() & 1 == 1,
        "defaults": policy(choices),
        "routes": routes,
    });
    match choices.below(4) {
        0 => {}
        kind => {
            let mut untrusted =
                json!({"forwardedProto": choices.one(&["connection", "connection", "http"])});
            if choices.byte() & 1 == 1 {
                untrusted["removeHeaders"] = json!(["x-edge", "x-lb-tls"]);
            }
            if kind == 2 {
                untrusted["action"] = json!("refuse");
                untrusted["except"] = json!([{"paths": [{"exact": choices.one(&["/", "/a"])}]}]);
            }
            document["untrusted"] = untrusted;
        }
    }
    if helper {
        document["helperToken"] = json!({"fromEnv": "TOKEN"});
    }
    document
}

fn request_from(choices: &mut Choices<'_>) -> Plain {
    let mut request = Plain::default()
        .with(
            ":method",
            choices.one(&["GET", "POST", "PUT", "CONNECT"]).as_bytes(),
        )
        .with(
            ":scheme",
            choices.one(&["http", "https", "HTTPS", ""]).as_bytes(),
        );
    let protocol = choices.one(&["HTTP/1.1", "HTTP/2", "HTTP/3", "HTTP/1.0"]);
    request.attributes.insert(
        Attribute::Protocol.path().to_owned(),
        protocol.as_bytes().into(),
    );
    let kinds = choices.byte();
    if kinds & 1 == 1 {
        request
            .attributes
            .insert(Attribute::TlsVersion.path().to_owned(), b"TLSv1.3".into());
        request
            .attributes
            .insert(Attribute::MutualTls.path().to_owned(), vec![kinds >> 1 & 1]);
        request
            .attributes
            .insert(Attribute::UriSan.path().to_owned(), b"spiffe://edge".into());
    }
    if kinds & 4 == 4 {
        request.attributes.insert(
            Attribute::DestinationPort.path().to_owned(),
            8080_u64.to_le_bytes().into(),
        );
    }
    if kinds & 8 == 8 {
        request.attributes.insert(
            Attribute::VirtualHostName.path().to_owned(),
            choices.text().into(),
        );
    }
    request.attributes.insert(
        Attribute::SourceAddress.path().to_owned(),
        choices.text().into(),
    );
    for key in [config::DEFAULT_PEER_KEY, "a.key"] {
        if choices.byte() & 1 == 1 {
            let value = choices.text().into();
            request
                .attributes
                .insert(format!("filter_state\0{key}"), value);
        }
    }
    let (authority, path) = (choices.text(), choices.text());
    request = request.with(":authority", authority).with(":path", path);
    request = request.with(
        "x-forwarded-proto",
        choices.one(&["http", "https", "https,http"]).as_bytes(),
    );
    while !choices.0.is_empty() {
        let name = match choices.below(4) {
            0 => choices.one(SIGNALS),
            _ => choices.one(NAMES),
        };
        let value = match choices.below(8) {
            0 => format!("{SECRET} 10.0.0.7").into_bytes(),
            1 => format!("{SECRET} https").into_bytes(),
            2 => SECRET.into(),
            _ => choices.text().to_vec(),
        };
        request = request.with(name, &value);
    }
    request
}

/// A configuration and a request.
pub fn decide(data: &[u8]) {
    let mut choices = Choices(data);
    let document = configuration_from(&mut choices);
    let Some(config) = config::load(document.to_string().as_bytes()).config else {
        return;
    };
    let engine = compiled(&config);
    let request = request_from(&mut choices);
    let mut decision = engine.decide(&request);
    let explanation = engine.explain(&request);
    assert_eq!(
        explanation.decision, decision,
        "what is explained is what is done"
    );
    assert_eq!(
        explanation.rules.iter().position(Option::is_none),
        decision.rule,
        "the first rule wins"
    );
    assert_eq!(
        explanation.overrides.iter().position(Option::is_none),
        decision.applied_override,
        "the first route wins"
    );
    for operation in &decision.operations {
        if let Operation::Set { name, value } = operation {
            assert!(
                !value.is_empty() && value.bytes().all(|byte| (0x21..0x7f).contains(&byte)),
                "{name}: {value:?}"
            );
            assert!(
                !matches!(*name, "x-forwarded-proto" | ":scheme")
                    || matches!(*value, "http" | "https")
            );
        }
    }
    if config.mode == config::Mode::Shadow {
        // It decides as it would enforced, and carries out next to nothing.
        decision
            .operations
            .retain(|operation| engine.carries_out(operation));
        assert!(
            (decision.operations.iter())
                .all(|operation| matches!(operation, Operation::Remove { .. }))
        );
        return;
    }
    let after = request.after(&decision.operations);
    let connection = if request
        .attributes
        .contains_key(Attribute::TlsVersion.path())
    {
        "https"
    } else {
        "http"
    };
    let proto = after.values("x-forwarded-proto");
    if decision.refusal.is_some() {
        assert!(decision.rule.is_none() && decision.operations.is_empty());
        return;
    }
    if !config.judges_schemes() {
        for alone in [
            "x-forwarded-proto",
            ":scheme",
            "forwarded",
            "x_forwarded_proto",
        ] {
            assert_eq!(after.values(alone), request.values(alone), "{document:#}");
        }
        return;
    }
    assert!(
        matches!(proto.as_slice(), [b"http" | b"https"]),
        "{document:#}\n{after:?}"
    );
    for variant in [
        "x_forwarded_proto",
        "x-forwarded_proto",
        "x.forwarded.proto",
    ] {
        assert!(after.values(variant).is_empty(), "{document:#}\n{after:?}");
    }
    for helper in ["x-lb-peer", "x-lb-proto", "x_lb_proto"] {
        let reads = document
            .to_string()
            .contains(&format!("header:{}", helper.replace('_', "-")));
        assert!(
            !reads || after.values(helper).is_empty(),
            "{document:#}\n{after:?}"
        );
    }
    if decision.rule.is_none() {
        assert_eq!(
            after.values(":scheme"),
            [connection.as_bytes()],
            "{document:#}\n{after:?}"
        );
        let untrusted = match config.untrusted.as_ref().map(|it| it.forwarded_proto) {
            Some(config::UntrustedProto::Http) => "http",
            _ => connection,
        };
        assert_eq!(proto, [untrusted.as_bytes()], "{document:#}\n{after:?}");
        for gone in [
            "x-envoy-upstream-stream-duration-ms",
            "x-forwarded-ssl",
            "x_forwarded_ssl",
            "x~forwarded~ssl",
            "forwarded",
            "x-url-scheme",
            "front-end-https",
        ] {
            assert!(after.values(gone).is_empty(), "{document:#}\n{after:?}");
        }
    }
    // A rule may match once a header is gone that it doesn't want; else untrusted requests stay what they are.
    let again = engine.decide(&after);
    if decision.rule.is_none() && again.rule.is_none() {
        let changed = after.after(&again.operations);
        assert_eq!(changed.values("x-forwarded-proto"), proto);
    }
}

/// The engine of one configuration, compiled once a thread.
fn engine_of(document: &Value) -> Rc<Engine> {
    thread_local! {
        static ENGINES: RefCell<BTreeMap<String, Rc<Engine>>> = const { RefCell::new(BTreeMap::new()) };
    }
    let text = document.to_string();
    ENGINES.with_borrow_mut(|engines| {
        let known = engines.entry(text).or_insert_with_key(|text| {
            let loaded = config::load(text.as_bytes());
            Rc::new(compiled(
                &loaded
                    .config
                    .unwrap_or_else(|| panic!("{:?}", loaded.problems)),
            ))
        });
        Rc::clone(known)
    })
}

/// A signal of each form, with any value: it says a scheme only where the value could mean that.
pub fn signals(data: &[u8]) {
    let (which, value) = data.split_first().unwrap_or((&0, &[]));
    let signal = match usize::from(*which) % (SIGNALS.len() + 2) {
        index if index < SIGNALS.len() => json!(SIGNALS[index]),
        index if index == SIGNALS.len() => {
            json!({"header": "x-lb-tls", "https": ["1", "on"], "http": ["0"]})
        }
        _ => json!("header:x-lb-proto"),
    };
    let header = match &signal {
        Value::String(name) => name.strip_prefix("header:").unwrap_or(name),
        _ => "x-lb-tls",
    };
    let engine = engine_of(&json!({
        "peerAddress": "header:x-lb-peer",
        "helperToken": {"fromEnv": "TOKEN"},
        "trustedLoadBalancers": [{
            "name": "tunnel", "match": {"notPorts": [1]}, "insecureTrustAnyone": true,
            "forwardedProto": {"from": [signal], "default": "connection"},
        }],
    }));
    let mut request = Plain::default()
        .with(":scheme", b"http")
        .with(header, value);
    request.attributes.insert(
        Attribute::DestinationPort.path().to_owned(),
        8080_u64.to_le_bytes().into(),
    );
    let explanation = engine.explain(&request);
    let [(name, reading)] = explanation.signals.as_slice() else {
        panic!("one signal: {explanation:?}");
    };
    assert_eq!(*name, header);
    let text = String::from_utf8_lossy(value).to_ascii_lowercase();
    let could_mean =
        |words: &[&str]| words.iter().any(|word| text.contains(word)) || name.ends_with("y-ssl");
    match reading {
        Reading::Says(config::Scheme::Https) => {
            assert!(could_mean(&["https", "wss", "443", "on", "1"]), "{text}")
        }
        Reading::Says(config::Scheme::Http) => {
            assert!(could_mean(&["http", "ws", "80", "off", "0"]), "{text}")
        }
        Reading::Absent => assert!(*name == "x-lb-proto", "{text}"),
        Reading::Unusable => {}
    }
    // A second line, whatever it says, leaves nothing to believe.
    let two = request.with(header, b"https");
    let explanation = engine.explain(&two);
    assert_eq!(
        explanation.signals.first().map(|(_, reading)| *reading),
        Some(Reading::Unusable)
    );
}

/// Whatever is said about the peer: it is known only as the standard library reads it.
pub fn peer(data: &[u8]) {
    let mut choices = Choices(data);
    let kind = *choices.one(&[
        "auto",
        "source",
        "forwardedFor",
        "header:x-lb-peer",
        "filterState",
    ]);
    let mut document = json!({
        "peerAddress": kind,
        "trustedLoadBalancers": [{
            "name": "lb", "match": {"ipBlocks": ["10.0.0.0/8", "fd00:7::/64"]}, "forwardedProto": {"default": "https"},
        }],
    });
    if kind.starts_with("header:") {
        document["helperToken"] = json!({"fromEnv": "TOKEN"});
    }
    let engine = engine_of(&document);
    let (source, forwarded_for, helper) = (choices.text(), choices.text(), choices.text());
    let state = choices.text();
    let mut request = Plain::default()
        .with(":scheme", b"http")
        .with("x-forwarded-for", forwarded_for)
        .with("x-lb-peer", helper);
    request
        .attributes
        .insert(Attribute::SourceAddress.path().to_owned(), source.into());
    request.attributes.insert(
        Attribute::DestinationPort.path().to_owned(),
        8080_u64.to_le_bytes().into(),
    );
    let key = config::DEFAULT_PEER_KEY;
    request
        .attributes
        .insert(format!("filter_state\0{key}"), state.into());
    let decision = engine.decide(&request);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let of_source = text(source)
        .and_then(|text| text.parse::<SocketAddr>().ok())
        .filter(|address| address.port() != 0)
        .map(|address| address.ip().to_canonical());
    let address = |bytes: &[u8]| {
        Some(
            text(bytes.trim_ascii())?
                .parse::<IpAddr>()
                .ok()?
                .to_canonical(),
        )
    };
    let of_list = address(
        forwarded_for
            .rsplit(|byte| *byte == b',')
            .next()
            .unwrap_or_default(),
    );
    let of_helper = helper
        .strip_prefix(format!("{SECRET} ").as_bytes())
        .and_then(|rest| Some(text(rest)?.parse::<IpAddr>().ok()?.to_canonical()));
    let wanted = match kind {
        "auto" => of_source.filter(|address| Some(*address) == of_list),
        "source" => of_source,
        "forwardedFor" => of_list,
        "filterState" => {
            text(state).and_then(|text| Some(text.parse::<IpAddr>().ok()?.to_canonical()))
        }
        _ => of_helper,
    };
    assert_eq!(
        decision.peer.and_then(Peer::address),
        wanted,
        "{kind} {request:?}"
    );
    let inside = wanted.is_some_and(|address| match address {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => address.segments()[..4] == [0xfd00, 7, 0, 0],
    });
    assert_eq!(decision.rule.is_some(), inside);
}
