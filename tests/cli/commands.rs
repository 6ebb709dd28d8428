//! The `trusted-lb` command, as people use it: the built binary, its output and its exit codes.
//!
//! If an output was meant to change, `./build.sh bless` writes the new ones into the expected files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::artifacts::repository;
use testkit::cases::{self, Case, Group, Protocol};
use testkit::gateway::{Listener, bootstrap};
use testkit::hcm::{LISTENER_PORT, VIRTUAL_HOST};

use crate::command::{COMMAND, below, listed, read, relative, run, text};

/// Each file of a folder gives exactly the output in the file beside it, and this exit code.
fn checked_as_expected(folder: &str, code: i32) -> usize {
    let files = listed(folder, ".yaml");
    let assert = snapbox::Assert::new().action_env("SNAPSHOTS");
    for file in &files {
        let output = run(&["check", &relative(file)], "");
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        let expected = snapbox::Data::read_from(&file.with_extension("txt"), None);
        assert.eq(text(&output), expected.raw());
    }
    let expected = listed(folder, ".txt").len();
    assert_eq!(expected, files.len(), "an output without its configuration");
    files.len()
}

#[test]
fn wrong_configurations_give_exactly_these_errors() {
    assert!(checked_as_expected("tests/configurations/refused", 1) >= 30);
}

#[test]
fn doubtful_configurations_give_exactly_these_warnings() {
    checked_as_expected("tests/configurations/warned", 0);
}

#[test]
fn right_configurations_are_accepted() {
    for file in listed("tests/configurations/accepted", ".yaml") {
        let output = run(&["check", &relative(&file)], "");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    }
}

#[test]
fn console_sessions_show_what_the_documentation_says() {
    trycmd::TestCases::new()
        .register_bin("trusted-lb", PathBuf::from(COMMAND))
        .case("tests/cli/*.md")
        .run();
}

#[test]
fn generated_documents_are_up_to_date() {
    let assert = snapbox::Assert::new().action_env("SNAPSHOTS");
    for (command, file) in [
        (&["schema"][..], "schema/trusted-lb.schema.json"),
        (&["reference"], "docs/configuration.md"),
        (&["check", "--explain", "all"], "docs/findings.md"),
    ] {
        let output = run(command, "");
        assert_eq!(output.status.code(), Some(0));
        let expected = snapbox::Data::read_from(&repository().join(file), None);
        assert.eq(text(&output), expected.raw());
    }
}

/// A configuration as JSON, out of a plain file.
fn as_json(file: &Path) -> Option<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(&read(file)).ok()?;
    documents.into_iter().next()
}

/// What a schema can't say: `NAME: why`.
const BEYOND_THE_SCHEMA: &[(&str, &str)] = &[
    ("host-bits-alone", "arithmetic on addresses"),
    (
        "trust-everybody",
        "arithmetic on addresses, one condition out of several lists",
    ),
    ("trust-together", "arithmetic on addresses"),
    ("overwritten-signal", "one field against another"),
    ("contradicted-signals", "one field against another"),
    ("same-name-twice", "uniqueness by one field"),
    ("helper-without-token", "one field against another"),
    ("token-without-helper", "one field against another"),
];

#[test]
fn the_schema_and_the_parser_agree() {
    let schema: Value = serde_json::from_str(&text(&run(&["schema"], ""))).expect("it is JSON");
    let validator = jsonschema::draft202012::new(&schema).expect("it is a schema");
    for folder in ["accepted", "warned"] {
        for file in listed(&format!("tests/configurations/{folder}"), ".yaml") {
            let Some(value) = as_json(&file).filter(plain) else {
                continue;
            };
            let errors: Vec<String> = validator
                .iter_errors(&value)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{}: {errors:#?}", relative(&file));
        }
    }
    for (_, groups) in cases::all() {
        for group in groups {
            assert!(validator.is_valid(&group.config), "{}", group.name);
        }
    }
    let mut compared = 0;
    for file in listed("tests/configurations/refused", ".yaml") {
        let name = file.file_stem().expect("it has a name").to_string_lossy();
        let Some(value) = as_json(&file).filter(plain) else {
            continue;
        };
        let beyond = BEYOND_THE_SCHEMA.iter().any(|(known, _)| *known == name);
        assert_eq!(validator.is_valid(&value), beyond, "{name}");
        compared += 1;
    }
    assert!(
        compared >= 20,
        "only {compared} configurations were compared"
    );
}

/// Whether this is a configuration itself, not a manifest with one in it.
fn plain(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| {
        !fields.contains_key("apiVersion") && !fields.contains_key("static_resources")
    })
}

#[test]
fn every_example_in_the_reference_is_valid() {
    let schema: Value = serde_json::from_str(&text(&run(&["schema"], ""))).expect("it is JSON");
    let mut tried = 0;
    for (name, object) in schema["$defs"].as_object().expect("definitions") {
        for (field, kind) in object["properties"].as_object().expect("properties") {
            let mut kind = kind.clone();
            kind["$defs"] = schema["$defs"].clone();
            let validator = jsonschema::draft202012::new(&kind).expect("it is a schema");
            for example in kind["examples"].as_array().expect("examples") {
                assert!(validator.is_valid(example), "{name}.{field}: {example}");
                tried += 1;
            }
        }
    }
    assert!(tried > 50, "only {tried} examples");
}

/// Every field that a schema names, as `Object.field`, reached by walking a value along it.
fn walk(schema: &Value, kind: &Value, value: &Value, seen: &mut BTreeSet<String>) {
    if let Some(name) = kind["$ref"]
        .as_str()
        .and_then(|path| path.strip_prefix("#/$defs/"))
    {
        let object = &schema["$defs"][name];
        for (field, inner) in value.as_object().into_iter().flatten() {
            seen.insert(format!("{name}.{field}"));
            walk(schema, &object["properties"][field], inner, seen);
        }
    }
    for choice in kind["anyOf"].as_array().into_iter().flatten() {
        walk(schema, choice, value, seen);
    }
    for item in value.as_array().into_iter().flatten() {
        walk(schema, &kind["items"], item, seen);
    }
}

/// The fields of the language that none of these configurations has.
fn missing_from<'a>(configurations: impl IntoIterator<Item = &'a Value>) -> Vec<String> {
    let schema: Value = serde_json::from_str(&text(&run(&["schema"], ""))).expect("it is JSON");
    let mut seen = BTreeSet::new();
    for configuration in configurations {
        walk(&schema, &schema, configuration, &mut seen);
    }
    let mut missing = Vec::new();
    for (name, object) in schema["$defs"].as_object().expect("definitions") {
        for field in object["properties"].as_object().expect("properties").keys() {
            let field = format!("{name}.{field}");
            if !seen.contains(&field) {
                missing.push(field);
            }
        }
    }
    missing
}

#[test]
fn the_table_of_cases_has_every_field() {
    let cases = cases::all();
    let groups = cases.iter().flat_map(|(_, groups)| groups);
    let missing = missing_from(groups.map(|group| &group.config));
    assert!(missing.is_empty(), "no case has {missing:#?}");
}

/// Reader and schema are compared on documents that are made from this one.
#[test]
fn everything_yaml_has_every_field() {
    let missing = missing_from([&crate::language::everything()]);
    assert!(missing.is_empty(), "it lacks {missing:#?}");
}

#[test]
fn every_manifest_and_example_passes_the_check() {
    // The manifests are alternatives, and each example is a set-up of its own.
    let mut setups: Vec<Vec<String>> = below("envoyfilter", ".yaml")
        .iter()
        .map(|path| vec![relative(path)])
        .collect();
    let mut examples: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for path in below("examples", ".yaml") {
        let file = relative(&path);
        if file.starts_with("examples/ci/") {
            continue; // Files of other programs.
        }
        let folder = PathBuf::from(&file);
        let is_one_of_many = file.starts_with("examples/load-balancers/");
        let parts = if is_one_of_many { 3 } else { 2 };
        let folder = folder.components().take(parts).collect();
        examples.entry(folder).or_default().push(file);
    }
    setups.extend(examples.into_values());
    for files in setups {
        let mut arguments = vec!["check"];
        arguments.extend(files.iter().map(String::as_str));
        let output = run(&arguments, "");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    }
}

#[test]
fn standard_input_is_read_where_the_file_is_a_dash() {
    let good = read(&repository().join("tests/configurations/accepted/minimal.yaml"));
    let output = run(&["check", "-"], &good);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let output = run(&["check", "-"], "defaults: {timeout: 15}");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("<stdin>:1:21"), "{}", text(&output));
}

#[test]
fn machines_get_every_problem_with_its_place() {
    let output = run(
        &[
            "check",
            "--format",
            "json",
            "tests/configurations/refused/many-mistakes-at-once.yaml",
        ],
        "",
    );
    assert_eq!(output.status.code(), Some(1));
    let list: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let list = list.as_array().expect("a list");
    assert_eq!(list.len(), 7);
    assert_eq!(list[1]["path"], "trustedLoadBalancers[0].match.ipBlock");
    assert_eq!(
        (&list[1]["line"], &list[1]["column"]),
        (&5.into(), &5.into())
    );
    assert_eq!(list[1]["severity"], "error");
    assert_eq!(list[1]["help"], "did you mean ipBlocks?");
}

/// The x-envoy headers that the filter writes on the load balancer's request for this URL.
fn limits_written(manifests: &str, url: &str) -> Vec<String> {
    let output = run(
        &[
            "explain",
            "-",
            "--peer",
            "10.0.12.5",
            "--url",
            url,
            "--format",
            "json",
        ],
        manifests,
    );
    let report: Value = serde_json::from_str(&text(&output)).expect("it is JSON");
    let headers = report["headers"].as_array().expect("a list");
    let names = headers.iter().filter_map(|header| header["name"].as_str());
    names
        .filter(|name| name.starts_with("x-envoy-"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn with_the_routes_that_check_suggests_the_filter_leaves_every_virtual_service_alone() {
    const TIMEOUT: &str = "x-envoy-upstream-rq-timeout-ms";
    const RETRIES: &str = "x-envoy-max-retries";
    let file = "tests/configurations/warned/virtual-services-of-all-kinds.yaml";
    let output = run(&["check", "--format", "json", file], "");
    let list: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let suggested: String = list
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|diagnostic| diagnostic["suggestion"].as_str())
        .collect();
    let without = read(&repository().join(file));
    let with_them = without.replacen("routes:\n", &format!("routes:\n{suggested}"), 1);
    let quiet = run(&["check", "-"], &with_them);
    assert!(!text(&quiet).contains("override the"), "{}", text(&quiet));
    // What the VirtualServices of the file say: whose timeout, and whose retries, are to be left alone.
    for (url, timeout, retries) in [
        ("http://shop.example.com/pay", true, false),
        ("http://shop.example.com/pay/now", true, false),
        ("http://eu.shop.example.com/checkout", true, false),
        ("http://shop.example.com/cart", false, true),
        ("http://app.example.net/slow/reports", true, false),
        ("http://app.example.net/fast", false, false),
    ] {
        let written = limits_written(&with_them, url);
        let leaves = |name: &str| !written.iter().any(|written| written == name);
        assert_eq!(leaves(TIMEOUT), timeout, "{url}: {written:?}");
        assert_eq!(leaves(RETRIES), retries, "{url}: {written:?}");
    }
    let before = limits_written(&without, "http://shop.example.com/pay");
    assert!(before.iter().any(|name| name == TIMEOUT), "{before:?}");
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [
        &["check"][..],
        &["check", "no/such/file.yaml"],
        &["chekc", "x"],
        &["explain", "tests/configurations/accepted/minimal.yaml"],
        &[
            "explain",
            "tests/configurations/accepted/minimal.yaml",
            "--peer",
            "load-balancer",
        ],
        &[
            "explain",
            "tests/configurations/accepted/minimal.yaml",
            "--peer",
            "10.0.12.5",
            "--url",
            "shop",
        ],
        &[
            "explain",
            "tests/configurations/accepted/minimal.yaml",
            "--peer",
            "10.0.12.5",
            "-H",
            "no colon",
        ],
    ] {
        let output = run(arguments, "");
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            text(&output)
        );
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn what_is_rendered_passes_the_check() {
    for file in listed("tests/configurations/accepted", ".yaml") {
        for target in ["wasmplugin", "envoyfilter", "envoy"] {
            let rendered = run(&["render", target, &relative(&file)], "");
            assert_eq!(rendered.status.code(), Some(0), "{}", text(&rendered));
            let output = run(&["check", "-"], &text(&rendered));
            let answer = text(&output);
            assert_eq!(
                output.status.code(),
                Some(0),
                "{target}: {answer}\n{}",
                text(&rendered)
            );
            assert!(answer.contains("1 configuration,"), "{target}: {answer}");
        }
    }
}

#[test]
fn what_is_migrated_passes_the_check() {
    for file in listed("tests/cli/migrate.in", ".yaml") {
        let migrated = run(
            &["migrate", &relative(&file), "--ip-block", "10.0.12.0/24"],
            "",
        );
        assert_eq!(migrated.status.code(), Some(0), "{}", text(&migrated));
        let manifest = String::from_utf8_lossy(&migrated.stdout).into_owned();
        let output = run(&["check", "-"], &manifest);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}\n{manifest}",
            text(&output)
        );
    }
}

/// Why `explain` can't be asked about a case.
fn not_explainable(group: &Group, case: &Case) -> Option<&'static str> {
    let gateway = &group.gateway;
    let ascii = |(name, value): &(String, String)| name.is_ascii() && value.is_ascii();
    let reads_state = group.config["peerAddress"] == "filterState";
    if reads_state && !gateway.filter_state {
        Some("it takes the network filter to be there")
    } else if gateway.original_ip_header.is_some() {
        Some("it doesn't play original IP detection")
    } else if !gateway.earlier_filter.is_empty() {
        Some("it doesn't play other filters")
    } else if !case.request.headers.iter().all(ascii) {
        Some("a command line takes no such bytes")
    } else if !case.request.path.starts_with('/') {
        Some("that is no URL")
    } else {
        None
    }
}

/// What `explain` says of a case, the connection manager beside the configuration.
fn explained(group: &Group, case: &Case) -> Value {
    let listener = Listener::new("gateway")
        .gateway(&group.gateway)
        .plugin(&group.config, &group.environment);
    let file = bootstrap(&[listener], ([127, 0, 0, 1], 1).into());
    let request = &case.request;
    let scheme = request.scheme.as_deref().unwrap_or("http");
    let mut arguments: Vec<String> = ["explain", "-", "--format", "json"]
        .map(String::from)
        .into();
    let mut option =
        |name: &str, value: &str| arguments.extend([name.to_owned(), value.to_owned()]);
    option("--peer", &request.peer.to_string());
    option("--port", &LISTENER_PORT.to_string());
    option("--method", &request.method);
    option(
        "--url",
        &format!("{scheme}://{}{}", request.authority, request.path),
    );
    option("--virtual-host", VIRTUAL_HOST);
    if request.path.starts_with("/named") {
        option("--route", "named-route");
    }
    if request.path.starts_with("/checkout") {
        option("--route", "checkout");
        option("--virtual-service", "shop/checkout");
    }
    for (name, value) in &request.headers {
        option("-H", &format!("{name}: {value}"));
    }
    for (name, value) in &group.environment {
        option("--env", &format!("{name}={value}"));
    }
    if let Some(certificate) = request.certificate {
        let [uri, dns, digest] = certificate.attributes();
        option("--client-cert-uri", uri);
        option("--client-cert-dns", dns);
        option("--client-cert-sha256", digest);
    }
    if request.protocol == Protocol::Http2 {
        arguments.push("--http2".to_owned());
    }
    if request.tls {
        arguments.push("--tls".to_owned());
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = run(&arguments, &file.to_string());
    assert!(output.status.success(), "{}: {}", case.name, text(&output));
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

#[test]
fn explain_says_of_every_case_what_the_filter_does() {
    let (mut asked, mut left_out, mut wrong) = (0, 0, Vec::new());
    for (file, groups) in cases::all() {
        for group in groups {
            for case in &group.cases {
                if not_explainable(&group, case).is_some() {
                    left_out += 1;
                    continue;
                }
                asked += 1;
                let explained = explained(&group, case);
                let place = format!("{file}: {}: {}", group.name, case.name);
                let expect = &case.expect;
                let who = (explained["rule"].as_str(), explained["route"].as_str());
                if who != (expect.rule.as_deref(), expect.route.as_deref()) {
                    wrong.push(format!("{place}: {who:?}"));
                }
                for (name, expected) in &expect.upstream {
                    let changes = explained["headers"].as_array().expect("a list");
                    let change = changes.iter().find(|change| change["name"] == **name);
                    let ours = name.starts_with("x-envoy-");
                    let sent = case
                        .request
                        .headers
                        .iter()
                        .any(|(sent, _)| sent.eq_ignore_ascii_case(name));
                    let right = match change {
                        Some(change) => change["after"] == json!(expected),
                        None if ours => expected.is_some() == sent,
                        None if name == "x-forwarded-proto" => {
                            let decided = &explained["forwardedProto"];
                            decided.is_null() || *decided == json!(expected)
                        }
                        None => expected.is_some() || !sent,
                    };
                    if !right && explained["mode"] == "enforce" {
                        wrong.push(format!("{place}: {name}: not {expected:?} but {change:?}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(asked > 4 * left_out, "{asked} asked, {left_out} left out");
}

#[test]
fn a_secret_is_never_shown() {
    const SECRET: &str = "correct-horse-battery";
    for format in ["text", "json"] {
        for given in [SECRET, "wrong-horse-battery"] {
            let header = format!("x-origin-verify: {given}");
            let environment = format!("ORIGIN_SECRET={SECRET}");
            let output = run(
                &[
                    "explain",
                    "tests/configurations/accepted/secret-only.yaml",
                    "--peer",
                    "192.0.2.1",
                    "-H",
                    &header,
                    "--env",
                    &environment,
                    "--format",
                    format,
                ],
                "",
            );
            assert_eq!(output.status.code(), Some(0), "{}", text(&output));
            assert!(!text(&output).contains(given), "{}", text(&output));
        }
    }
}

#[test]
fn shells_get_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell], "");
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output).contains("explain"), "{shell}");
    }
}
