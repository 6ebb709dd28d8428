//! The configuration language has one declaration: its reader, its schema and its reference say the same.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use testkit::artifacts::repository;
use trusted_lb::config;

use crate::command::{read, run, text};

fn schema() -> Value {
    serde_json::from_str(&text(&run(&["schema"], ""))).expect("it is JSON")
}

/// A configuration with every field.
pub(crate) fn everything() -> Value {
    let file = repository().join("tests/configurations/accepted/everything.yaml");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&read(&file)).expect("it is YAML");
    documents.into_iter().next().expect("it has a document")
}

/// What a schema can't say: a part of the reader's message, and why.
const BEYOND_THE_SCHEMA: &[(&str, &str)] = &[
    ("has host bits set", "arithmetic on addresses"),
    ("trust every public IP", "arithmetic on addresses"),
    (
        "tells the load balancer from anybody",
        "one condition out of several lists",
    ),
    ("in the list already", "one value, written in two ways"),
    ("is the name of", "unique by one field"),
    ("a helper header is read", "one field against another"),
    ("no helper header is read", "one field against another"),
    (
        "Envoy has overwritten x-forwarded-proto",
        "one field against another",
    ),
    ("means both https and http", "one list against another"),
    (
        "neither in the built-in list nor in a from",
        "one list against another",
    ),
    (
        "everybody is served here, so that this says nothing",
        "one field against another",
    ),
];

/// Compares reader and schema on documents, and counts what both take and both refuse.
struct Judges {
    validator: jsonschema::Validator,
    taken: usize,
    refused: usize,
    /// Reasons of [`BEYOND_THE_SCHEMA`] that were met.
    beyond: BTreeSet<&'static str>,
}

impl Judges {
    fn new() -> Self {
        Self {
            validator: jsonschema::draft202012::new(&schema()).expect("it is a schema"),
            taken: 0,
            refused: 0,
            beyond: BTreeSet::new(),
        }
    }

    fn judge(&mut self, document: &Value) {
        let loaded = config::load(document.to_string().as_bytes());
        let errors: Vec<String> = loaded.errors().map(ToString::to_string).collect();
        let valid = self.validator.is_valid(document);
        match (errors.is_empty(), valid) {
            (true, true) => self.taken += 1,
            (false, false) => self.refused += 1,
            (true, false) => {
                let said: Vec<String> = self
                    .validator
                    .iter_errors(document)
                    .map(|error| format!("{}: {error}", error.instance_path()))
                    .collect();
                panic!("only the schema refuses {document:#}: {said:#?}");
            }
            (false, true) => {
                for error in &errors {
                    let known = BEYOND_THE_SCHEMA
                        .iter()
                        .find(|(part, _)| error.contains(part));
                    let Some((part, _)) = known else {
                        panic!("only the reader refuses {document:#}: {errors:#?}");
                    };
                    self.beyond.insert(part);
                }
            }
        }
    }
}

/// Texts on both sides of every border that a text of the language has.
#[rustfmt::skip]
const ODD_TEXTS: &[&str] = &[
    // Texts and names.
    "", " ", "x", "*", "**", "a*", "*a", "a b", "a\tb", "a\nb", "a\u{7f}", "a\u{85}b", "ä", "a\u{2028}", " a", "a ",
    "\ta",
    // Words.
    "auto", "Auto", "https", "HTTPS", "inherit", "connect-failure", "cancelled", "skip", "true", "yes",
    // Durations.
    "0s", "0ms", "0h0m0s", "0.0s", "0.001s", "0.0001s", "1.5ms", "1.0ms", "15", "15s", "15 s", "+1s", "-1s", "1e3s",
    ".5s", "1.s", "1m30s", "30s1m", "1m60s", "1m59s", "1h60m", "1s1000ms", "1s999ms", "1s1s", "576h", "576h1ms",
    "577h", "575h59m59s999ms", "576h59m", "600h", "34560m", "34561m", "2073600s", "2073601s", "2073600000ms",
    "2073600001ms", "2147483647ms", "99999999999999999999s", "007s", "0000000000000000000000000000001s", "1d", "1us",
    "1S", "1.1234567890s", "1h30s",
    // Addresses.
    "10.0.0.0/8", "10.0.0.0/08", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/255.0.0.0", "10.0.0.1/8",
    "010.0.0.1", "10.0.0", "10.0.0.0.0", "256.0.0.1", "1", "::", "::/0", "::1", "::1/128", "::1/129",
    "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8:9", "1::2::3", "12345::", ":::",
    "::ffff:10.0.0.1", "::ffff:10.0.0.256", "1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:7:1.2.3.4", "fe80::1%eth0",
    "2001:DB8::/32", "2001:db8::1/32", "@private", "@Private", "@cloudfare", "private",
    // Hosts.
    "shop.example.com", "Shop.Example.Com.", "*.example.com", "*.example.com.", "*.", "*.*.com", "a..b", ".a", "a.",
    "a.-", "a_b.c", "[::1]", "[::1].", "[::1]:80", "*.[::1]", "[::1", "[]", "[hello world/?]", "[1.2.3.4]", "[::g]",
    "example.com:80", "example.com/x", "https://example.com", "münchen.de",
    // Paths.
    "/", "/a", "/a?b", "/a#b", "/a*", "/a b", "/a\u{85}", "/ä", "a", ".png", "?",
    // Headers.
    "x-a", "X-A", "x_a", "x a", "x-a:", ":path", "host", "Host", "HOST", "hosts", "te", "upgrade", "connection",
    "transfer-encoding", "content-length", "x-forwarded-proto", "X-Forwarded-Proto", "x-forwarded-port",
    "X-Forwarded-Port", "x_forwarded_proto", "x.forwarded.proto", "x-envoy-max-retries", "X_Envoy-A", "x-envoyed", "cookie", "x-real-ip", "x_real_ip", "header:x-a", "header: x-a", "header:  X-A", "header:\tx-a",
    "header:\u{a0}x-a", "header:", "header:host", "header: TE", "header:x a", "Header:x-a", "cf-visitor",
    "cf-visiter", "forwarded",
    // Methods.
    "GET", "get", "M-SEARCH", "G T", "QUERY", "X_1.2",
    // Variables.
    "A", "_A1", "1A", "A-B",
    // VirtualServices.
    "shop/checkout", "shop/", "/checkout", "Shop/checkout", "shop/check/out", "a.b/c-d",
    // Fingerprints.
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08",
    "9f:86:d0:81:88:4c:7d:65:9a:2f:ea:a0:c5:5a:d0:15:a3:bf:4f:1b:2b:0b:82:2c:d1:5d:6c:15:b0:f0:0a:08",
    "9f:86:d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ":9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "9:f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a0",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a0g",
];

/// Values of every kind.
fn odd_values() -> Vec<Value> {
    let mut values: Vec<Value> = ODD_TEXTS.iter().map(|text| json!(text)).collect();
    for length in [127, 128, 129] {
        values.push(json!("a".repeat(length)));
        values.push(json!("ä".repeat(length)));
    }
    values.extend(
        [
            "null",
            "true",
            "false",
            "0",
            "1",
            "-1",
            "1.0",
            "1.5",
            "99",
            "100",
            "101",
            "599",
            "600",
            "65535",
            "65536",
            "1e300",
            "[]",
            "[[]]",
            "[null]",
            "[\"GET\"]",
            "[\"GET\", \"GET\"]",
            "{}",
            "{\"zzz\": 1}",
            "[{}]",
        ]
        .map(|text| serde_json::from_str(text).expect(text)),
    );
    values
}

/// The place of every value in a document, as JSON pointers.
fn places(value: &Value, here: &str, all: &mut Vec<String>) {
    all.push(here.to_owned());
    for (name, value) in value.as_object().into_iter().flatten() {
        places(value, &format!("{here}/{name}"), all);
    }
    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
        places(value, &format!("{here}/{index}"), all);
    }
}

/// A smaller document that is right too and has this place: what stands on top beside it isn't compared again and again.
fn around(document: &Value, place: &str) -> Value {
    let mut document = document.clone();
    if let Some(top) = place.split('/').nth(1) {
        let fields = document.as_object_mut().expect("an object");
        fields.retain(|name, _| [top, "peerAddress", "helperToken"].contains(&name.as_str()));
    }
    document
}

/// The document with something else at a place.
fn with(document: &Value, place: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut document = document.clone();
    change(
        document
            .pointer_mut(place)
            .expect("a place in the document"),
    );
    document
}

#[test]
fn reader_and_schema_take_and_refuse_the_same_documents() {
    let document = everything();
    let mut judges = Judges::new();
    judges.judge(&document);
    assert_eq!(
        judges.taken, 1,
        "the document that the others are made from is right"
    );
    let mut all = Vec::new();
    places(&document, "", &mut all);
    let odd = odd_values();
    for place in &all {
        let document = around(&document, place);
        // Something else in its place.
        for value in &odd {
            judges.judge(&with(&document, place, |here| *here = value.clone()));
        }
        // A field less, a field more, an entry twice, no entry.
        let here = document.pointer(place).expect("a place in the document");
        for name in here.as_object().into_iter().flatten().map(|(name, _)| name) {
            judges.judge(&with(&document, place, |here| {
                here.as_object_mut().expect("an object").remove(name);
            }));
        }
        if here.is_object() {
            for name in ["zzzzzz", "name", "header", "exact", "default", "from"] {
                judges.judge(&with(&document, place, |here| {
                    here.as_object_mut()
                        .expect("an object")
                        .insert(name.to_owned(), json!("x"));
                }));
            }
        }
        if let Some(first) = here.as_array().and_then(|list| list.first()) {
            judges.judge(&with(&document, place, |here| {
                here.as_array_mut().expect("a list").push(first.clone());
            }));
            for value in &odd {
                judges.judge(&with(&document, place, |here| {
                    here.as_array_mut().expect("a list").push(value.clone());
                }));
            }
        }
    }
    assert!(
        judges.taken > 2_000,
        "{} documents were right",
        judges.taken
    );
    assert!(
        judges.refused > 10_000,
        "{} documents were wrong",
        judges.refused
    );
    let met: Vec<&str> = judges.beyond.iter().copied().collect();
    let known: BTreeSet<&str> = BEYOND_THE_SCHEMA.iter().map(|(part, _)| *part).collect();
    for part in &known {
        // These need two changes at once.
        if [
            "trust every public IP",
            "tells the load balancer from anybody",
            "Envoy has overwritten x-forwarded-proto",
        ]
        .contains(part)
        {
            continue;
        }
        assert!(met.contains(part), "no document is refused with {part}");
    }
}

#[test]
fn reader_and_schema_agree_on_texts_that_differ_in_one_character() {
    let document = everything();
    let mut judges = Judges::new();
    let mut all = Vec::new();
    places(&document, "", &mut all);
    let characters = [
        '0', '9', 'a', 'Z', '.', ':', '/', '-', '_', '*', ' ', '[', ']', '@', '%', '\u{7f}', 'é',
    ];
    for place in &all {
        let Some(text) = document.pointer(place).and_then(Value::as_str) else {
            continue;
        };
        let characters_of: Vec<char> = text.chars().collect();
        let document = around(&document, place);
        for position in 0..=characters_of.len() {
            let mut edits = Vec::new();
            for character in characters {
                let mut inserted = characters_of.clone();
                inserted.insert(position, character);
                edits.push(inserted);
                if position < characters_of.len() {
                    let mut replaced = characters_of.clone();
                    replaced[position] = character;
                    edits.push(replaced);
                }
            }
            if position < characters_of.len() {
                let mut removed = characters_of.clone();
                removed.remove(position);
                edits.push(removed);
            }
            for edit in edits {
                let text: String = edit.into_iter().collect();
                judges.judge(&with(&document, place, |here| *here = json!(text)));
            }
        }
    }
    assert!(
        judges.taken > 1_000,
        "{} documents were right",
        judges.taken
    );
    assert!(
        judges.refused > 1_000,
        "{} documents were wrong",
        judges.refused
    );
}

/// Every error of a configuration.
fn errors(configuration: &Value) -> Vec<String> {
    let loaded = config::load(configuration.to_string().as_bytes());
    loaded.errors().map(ToString::to_string).collect()
}

#[test]
fn blocks_that_hold_every_public_address_are_refused_whatever_they_leave_out() {
    let rule = |blocks: &[&str]| {
        errors(&json!({"trustedLoadBalancers": [{
            "name": "lb", "match": {"ipBlocks": blocks}, "forwardedProto": {"default": "https"},
        }]}))
    };
    for blocks in [
        &["0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/3"][..],
        &[
            "1.0.0.0/8",
            "2.0.0.0/7",
            "4.0.0.0/6",
            "8.0.0.0/5",
            "16.0.0.0/4",
            "32.0.0.0/3",
            "64.0.0.0/2",
            "128.0.0.0/2",
            "192.0.0.0/3",
        ],
        &["2000::/3"],
    ] {
        let errors = rule(blocks);
        assert_eq!(errors.len(), 1, "{blocks:?}: {errors:?}");
        assert!(
            errors[0].contains("these ipBlocks trust every public IP"),
            "{errors:?}"
        );
    }
    assert_eq!(rule(&["0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/4"]), [""; 0]);
}

#[test]
fn blocks_that_hold_everybody_beside_a_header_that_is_no_secret_are_warned_about() {
    let warnings = |header: Value| {
        let configuration = json!({"trustedLoadBalancers": [{
            "name": "lb", "forwardedProto": {"default": "https"},
            "match": {"ipBlocks": ["0.0.0.0/0"], "headers": [header]},
        }]});
        let loaded = config::load(configuration.to_string().as_bytes());
        loaded
            .problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let open = warnings(json!({"name": "user-agent", "prefix": "M"}));
    assert_eq!(open.len(), 1, "{open:?}");
    assert!(
        open[0].contains("whoever sends this is trusted"),
        "{open:?}"
    );
    assert_eq!(
        warnings(json!({"name": "x-origin-verify", "fromEnv": "SECRET"})),
        [""; 0]
    );
}

#[test]
fn more_headers_than_can_be_numbered_are_refused_at_the_first_of_them() {
    let removed = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("x-{n}")).collect();
        errors(&json!({"untrusted": {"removeHeaders": names}}))
    };
    assert_eq!(removed(65_000), [""; 0]);
    let errors = removed(70_000);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors[0].starts_with("untrusted.removeHeaders[65000]: more than 65000 different headers"),
        "{errors:?}"
    );
}

#[test]
fn of_very_many_mistakes_the_first_are_shown_and_the_rest_counted() {
    let rules = vec![json!({"nama": "lb"}); 40_000];
    let loaded = config::load(
        json!({"trustedLoadBalancers": rules})
            .to_string()
            .as_bytes(),
    );
    assert!(loaded.config.is_none());
    assert_eq!(loaded.problems.len(), 1_001);
    assert_eq!(
        loaded.problems[0].to_string(),
        "trustedLoadBalancers[0].nama: there is no such field (did you mean name?)"
    );
    let last = loaded.problems[1_000].to_string();
    assert!(last.contains("more problems like these"), "{last}");
}

#[test]
fn every_mistake_is_reported_even_beside_others_in_the_same_object() {
    let errors = errors(&json!({"trustedLoadBalancers": [{
        "match": {"ipBlocks": ["0.0.0.0/0"]}, "forwardedProto": {"default": "HTTPS"},
    }]}));
    assert_eq!(
        errors
            .iter()
            .map(|error| error.split(' ').take(3).collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>(),
        [
            "trustedLoadBalancers[0]: name is",
            "trustedLoadBalancers[0].forwardedProto.default: \"HTTPS\" is",
            "trustedLoadBalancers[0].match: these ipBlocks",
        ]
    );
}

/// Not a case for Envoy: that answers 400 to methods that it doesn't know.
#[test]
fn a_query_may_be_sent_twice_by_default_and_a_post_may_not() {
    let configuration = "defaults: {retries: {attempts: 2, retryOn: [connect-failure]}}";
    for (method, retried) in [("QUERY", true), ("GET", true), ("POST", false)] {
        let output = run(
            &["explain", "-", "--peer", "192.0.2.1", "--method", method],
            configuration,
        );
        let text = text(&output);
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert_eq!(
            text.contains("x-envoy-retry-on"),
            retried,
            "{method}: {text}"
        );
    }
}

/// Comparing all of them with each other would take hours.
#[test]
fn very_many_rules_and_routes_with_long_lists_are_compared_only_so_far() {
    let hosts = |n: usize| -> Vec<String> { (0..n).map(|n| format!("h{n}.example.com")).collect() };
    let rule = |name: String, hosts: &[String]| json!({"name": name, "match": {"ipBlocks": ["10.0.0.0/8"], "hosts": hosts}, "forwardedProto": {"default": "https"}});
    let route = |name: String, hosts: &[String]| json!({"name": name, "match": {"hosts": hosts}, "timeout": "1s"});
    // Each list has one host that no other has, at its end.
    let long = hosts(5_000);
    let lists: Vec<Vec<String>> = (0..10)
        .map(|n| {
            long.iter()
                .cloned()
                .chain([format!("own{n}.example.com")])
                .collect()
        })
        .collect();
    let of_lists = json!({
        "trustedLoadBalancers": lists.iter().enumerate().map(|(n, list)| rule(format!("{n}"), list)).collect::<Vec<_>>(),
        "routes": lists.iter().enumerate().map(|(n, list)| route(format!("{n}"), list)).collect::<Vec<_>>(),
    });
    let many = hosts(10_000);
    let of_many = json!({
        "trustedLoadBalancers": many.iter().map(|host| rule(host.clone(), std::slice::from_ref(host))).collect::<Vec<_>>(),
        "routes": many.iter().map(|host| route(host.clone(), std::slice::from_ref(host))).collect::<Vec<_>>(),
    });
    for document in [of_lists, of_many] {
        let loaded = config::load(document.to_string().as_bytes());
        let problems: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
        assert!(
            loaded.config.is_some() && problems.is_empty(),
            "{problems:?}"
        );
    }
    // What stands at the head hides the rest all the same.
    let mut covered = behind_a_catch_all(&many);
    let loaded = config::load(covered.to_string().as_bytes());
    assert_eq!(loaded.problems.len(), 1_001);
    // Every name twice.
    covered["routes"] = many
        .iter()
        .chain(&many)
        .map(|host| route(host.clone(), std::slice::from_ref(host)))
        .collect();
    let errors = config::load(covered.to_string().as_bytes());
    assert!(errors.config.is_none());
    assert_eq!(errors.problems.len(), 1_001);
}

/// A route that holds for every request, in front of one for each host.
fn behind_a_catch_all(hosts: &[String]) -> Value {
    let all = json!({"name": "all", "match": {"paths": [{"prefix": "/"}]}, "timeout": "1s"});
    let one = |host: &String| json!({"name": host, "match": {"hosts": [host], "paths": [{"prefix": "/"}]}, "timeout": "1s"});
    json!({"routes": std::iter::once(all).chain(hosts.iter().map(one)).collect::<Vec<_>>()})
}
