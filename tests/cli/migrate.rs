//! `trusted-lb migrate`: Lua scripts in many forms, what stands around them, and bounds.

mod around;

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::command::{run, text};
use testkit::artifacts::repository;

/// What the command says about a file.
struct Said {
    code: i32,
    manifest: String,
    notes: String,
}

fn migrate(file: &str, options: &[&str]) -> Said {
    let mut arguments = vec!["migrate", "-"];
    arguments.extend(options);
    let output = run(&arguments, file);
    Said {
        code: output.status.code().expect("it ends by itself"),
        manifest: String::from_utf8(output.stdout).expect("it is text"),
        notes: String::from_utf8(output.stderr).expect("it is text"),
    }
}

/// An EnvoyFilter with a script, inserted as most are.
fn envoy_filter(script: &str) -> String {
    json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "edge", "namespace": "istio-system"},
        "spec": {
            "workloadSelector": {"labels": {"istio": "ingressgateway"}},
            "configPatches": [{
                "applyTo": "HTTP_FILTER",
                "match": {"context": "GATEWAY", "listener": {"filterChain": {"filter": {
                    "name": "envoy.filters.network.http_connection_manager",
                    "subFilter": {"name": "envoy.filters.http.router"},
                }}}},
                "patch": {"operation": "INSERT_BEFORE", "value": {
                    "name": "envoy.filters.http.lua",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
                        "default_source_code": {"inline_string": script},
                    },
                }},
            }],
        },
    })
    .to_string()
}

const LOAD_BALANCER: &[&str] = &["--ip-block", "10.0.12.0/24"];

/// The configuration in a manifest.
fn configuration(manifest: &str) -> Value {
    let manifest: Value = serde_saphyr::from_str(manifest).expect("the manifest is YAML");
    manifest["spec"]["pluginConfig"].clone()
}

/// Numbers as the command writes and people type them.
fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), plain(value)))
            .collect(),
        other => other.clone(),
    }
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    script: String,
    #[serde(default)]
    notes: Vec<String>,
    #[serde(default)]
    quiet: bool,
    expect: Value,
}

fn scripts() -> Vec<Case> {
    [
        include_str!("migrate/scripts/forms.yaml"),
        include_str!("migrate/scripts/idioms.yaml"),
    ]
    .into_iter()
    .flat_map(|file| serde_saphyr::from_str::<Vec<Case>>(file).expect("the scripts are readable"))
    .collect()
}

#[test]
fn scripts_in_every_form_become_the_configuration_that_a_person_wrote_for_them() {
    let mut wrong = Vec::new();
    let scripts = scripts();
    for script in &scripts {
        let said = migrate(&envoy_filter(&script.script), LOAD_BALANCER);
        let place = &script.name;
        if script.expect == json!("nothing") {
            if said.code != 1 || !said.manifest.is_empty() {
                wrong.push(format!(
                    "{place}: not refused:\n{}{}",
                    said.manifest, said.notes
                ));
            } else if !said.notes.contains("nothing could be translated") {
                wrong.push(format!("{place}: it doesn't say so:\n{}", said.notes));
            }
        } else if said.code != 0 {
            wrong.push(format!("{place}: refused:\n{}", said.notes));
        } else if plain(&configuration(&said.manifest)) != plain(&script.expect) {
            wrong.push(format!("{place}:\n{}{}", said.manifest, said.notes));
        } else {
            let checked = run(&["check", "-"], &said.manifest);
            if checked.status.code() != Some(0) {
                wrong.push(format!("{place}: check refuses it: {}", text(&checked)));
            }
        }
        for note in &script.notes {
            if !said.notes.contains(note) {
                wrong.push(format!("{place}: no word of {note:?} in:\n{}", said.notes));
            }
        }
        if script.quiet && !said.notes.is_empty() {
            wrong.push(format!("{place}: not quiet:\n{}", said.notes));
        }
        if said.notes.contains("differs from the script") {
            wrong.push(format!(
                "{place}: the comparison disagrees:\n{}",
                said.notes
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(scripts.len() >= 90);
}

/// Files that people have, and what `migrate` answers of them.
const FIELD: &[(&str, i32)] = &[
    ("01-kubectl-list.yaml", 0),
    ("02-lua-with-hops-patch.yaml", 0),
    ("03-redirect-in-lua.yaml", 0),
    ("05-scheme-only.yaml", 1),
    ("06-scheme-and-proto-disagree.yaml", 0),
    ("08-copied-signal.yaml", 0),
    ("09-add-if-absent.json", 0),
    ("10-one-line-script.yaml", 0),
    ("11-per-route.yaml", 0),
    ("13-old-form-sidecar.yaml", 0),
    ("14-helm-template.yaml", 1),
    ("15-retry-words.yaml", 0),
    ("16-configmap-envoy.yaml", 0),
    ("17-before-ext-authz.yaml", 0),
    ("18-multi-line-call.yaml", 0),
    ("19-envoy-gateway.yaml", 0),
    ("21-neighbour-with-routes.yaml", 1),
    ("71-lua-traffic-extension.yaml", 0),
];

#[test]
fn files_that_people_have_are_migrated_with_a_word_on_everything_around_the_script() {
    let assert = snapbox::Assert::new().action_env("SNAPSHOTS");
    for (file, code) in FIELD {
        let path = format!("tests/cli/field/{file}");
        let output = run(&["migrate", &path, "--ip-block", "10.0.12.0/24"], "");
        assert_eq!(
            output.status.code(),
            Some(*code),
            "{file}: {}",
            text(&output)
        );
        let stem = file.rsplit_once('.').expect("it has an ending").0;
        let expected = repository().join(format!("tests/cli/field/{stem}.migrate.txt"));
        assert.eq(
            text(&output),
            snapbox::Data::read_from(&expected, None).raw(),
        );
        if *code == 0 {
            let manifest = String::from_utf8_lossy(&output.stdout).into_owned();
            let checked = run(&["check", "-"], &manifest);
            assert_eq!(checked.status.code(), Some(0), "{file}: {}", text(&checked));
        }
    }
}

#[test]
fn several_filters_in_one_place_are_one_plugin_and_others_have_names_of_their_own() {
    let first = envoy_filter(
        r#"function envoy_on_request(h) h:headers():replace("x-forwarded-proto", "https") end"#,
    );
    let second = envoy_filter(
        r#"function envoy_on_request(h) h:headers():add("x-envoy-max-retries", "1") h:headers():add("x-envoy-retry-on", "5xx") end"#,
    );
    let together = migrate(&format!("{first}\n---\n{second}"), LOAD_BALANCER);
    assert_eq!(
        together.manifest.matches("kind: WasmPlugin").count(),
        1,
        "{}",
        together.manifest
    );
    let both = configuration(&together.manifest);
    assert!(
        both["trustedLoadBalancers"].is_array() && both["defaults"].is_object(),
        "{both}"
    );
    let elsewhere = second
        .replace("ingressgateway", "egressgateway")
        .replace("\"edge\"", "\"out\"");
    let apart = migrate(&format!("{first}\n---\n{elsewhere}"), LOAD_BALANCER);
    for name in ["name: trusted-lb-edge\n", "name: trusted-lb-out\n"] {
        assert_eq!(
            apart.manifest.matches(name).count(),
            1,
            "{}",
            apart.manifest
        );
    }
    // Without a namespace none is invented.
    let without = migrate(
        &first.replace("\"namespace\":\"istio-system\"", "\"generation\":1"),
        LOAD_BALANCER,
    );
    assert!(
        !without.manifest.contains("namespace"),
        "{}",
        without.manifest
    );
}

#[test]
fn options_that_would_make_a_translation_which_nothing_loads_are_usage_errors() {
    let script = envoy_filter(
        r#"function envoy_on_request(h) h:headers():replace("x-forwarded-proto", "https") end"#,
    );
    for (options, word) in [
        (["--ip-block", "10.0.12.5/24"], "10.0.12.0/24"),
        (["--ip-block", "0.0.0.0/0"], "--ip-block"),
        (["--ip-block", "load-balancer"], "--ip-block"),
        (["--url", "*x"], "--url"),
        (["--url", "oci://a b"], "--url"),
        (["--url", ""], "--url"),
    ] {
        let said = migrate(&script, &options);
        assert_eq!(said.code, 2, "{options:?}: {}", said.notes);
        assert!(said.notes.contains(word), "{options:?}: {}", said.notes);
    }
    let quoted = migrate(&script.replace("istio-system", "yes"), LOAD_BALANCER);
    let manifest: Value = serde_saphyr::from_str(&quoted.manifest).expect("it is YAML");
    assert_eq!(manifest["metadata"]["namespace"], "yes");
}

#[test]
fn what_nests_or_repeats_without_end_is_read_or_refused() {
    let within = |body: &str| envoy_filter(&format!("function envoy_on_request(h)\n{body}\nend"));
    let proto = r#"h:headers():replace("x-forwarded-proto", "https")"#;
    // (script, code, what is said)
    let cases = [
        (format!("{proto} ").repeat(40_000), 0, ""),
        (
            format!("local x = {}1{}", "(".repeat(50_000), ")".repeat(50_000)),
            1,
            "deeper than 200 levels",
        ),
        (
            format!("local x = {}{}", "{".repeat(50_000), "}".repeat(50_000)),
            1,
            "deeper than 200 levels",
        ),
        ("if x then ".repeat(50_000), 1, "deeper than 200 levels"),
        (
            format!("local x = {}true", "not ".repeat(100_000)),
            1,
            "more than 2,000 operators",
        ),
        (
            format!("local x = 'a'{}", " .. 'a'".repeat(100_000)),
            1,
            "more than 2,000 operators",
        ),
        (
            format!("local x = 1{}", " + 1".repeat(100_000)),
            1,
            "more than 2,000 operators",
        ),
        (
            format!("local x = a{}", ".b".repeat(100_000)),
            1,
            "more than 2,000 operators",
        ),
        (format!("while true do end {proto}"), 0, ""),
        (
            format!("local function f() return f() end f() {proto}"),
            0,
            "nest too deep",
        ),
        (format!("for i = 1, 1e9 do local x = i end {proto}"), 0, ""),
        (
            format!(
                "local h2 = h:headers() for i = 1, 9999 do if h2:get('x-' .. i) then h2:remove('y') end end {proto}"
            ),
            1,
            "more than 400 questions",
        ),
        (format!("local s = string.rep('x', 1e9) {proto}"), 0, ""),
        (
            format!("local x = (string.rep('a', 60000)):find(string.rep('a*', 30) .. 'b') {proto}"),
            0,
            "",
        ),
        (
            format!(
                "local s = h:headers():get(':path') .. string.rep('a', 60000) s:find(string.rep('a*', 30) .. 'b') {proto}"
            ),
            0,
            "",
        ),
        (
            (0..150).fold(String::new(), |all, n| {
                all + &format!("if h:headers():get('x-{n}') then ")
            }) + proto
                + &" end".repeat(150),
            0,
            "",
        ),
        (
            format!("--{}\n{proto}", "x".repeat(3 << 20)),
            1,
            "larger than 2 MiB",
        ),
    ];
    for (script, code, word) in cases {
        let said = migrate(&within(&script), LOAD_BALANCER);
        let begin: String = script.chars().take(40).collect();
        assert_eq!(said.code, code, "{begin}: {}", said.notes);
        assert!(said.notes.contains(word), "{begin}: {}", said.notes);
    }
}

#[test]
fn what_is_said_of_a_long_script_is_short_and_tells_where_reading_ended() {
    let proto = r#"h:headers():replace("x-forwarded-proto", "https")"#;
    // (script, what is said)
    let cases = [
        (
            "if a then".to_owned()
                + &(0..16_000).fold(String::new(), |all, n| {
                    all + &format!(
                        " elseif h:headers():get('x-{n}') then h:headers():remove('y')\n"
                    )
                })
                + " end "
                + proto,
            "more than 400 questions",
        ),
        (
            format!(
                "h:headers():replace('x-forwarded-proto', '{}')",
                "x".repeat(1_500_000)
            ),
            "nothing could be translated",
        ),
    ];
    for (script, word) in cases {
        let within = envoy_filter(&format!("function envoy_on_request(h)\n{script}\nend"));
        let said = migrate(&within, LOAD_BALANCER);
        assert_eq!(said.code, 1, "{}", said.notes);
        assert!(said.notes.contains(word), "{}", said.notes);
        assert!(said.notes.len() < 50_000, "{} bytes", said.notes.len());
    }
}

#[test]
fn scripts_of_one_place_are_read_up_to_a_bound_that_is_said() {
    let mut file = String::from(
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: lua, namespace: edge}\nspec:\n  configPatches:\n",
    );
    let text = "v".repeat(4_000);
    for index in 0..300 {
        let _ = write!(
            file,
            "  - applyTo: HTTP_FILTER\n    match: {{context: GATEWAY}}\n    patch:\n      operation: INSERT_FIRST\n      value:\n        \
             name: lua\n        typed_config:\n          '@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua\n          \
             inlineCode: function envoy_on_request(h) h:headers():replace('x-{index}', '{text}') end\n"
        );
    }
    let said = migrate(&file, LOAD_BALANCER);
    assert!(
        said.notes
            .contains("there are too many scripts for one place: this one isn't read"),
        "{}",
        said.notes
    );
}

/// `--compare` of a script.
fn compared(script: &str) -> String {
    let mut options = vec!["--compare"];
    options.extend(LOAD_BALANCER);
    let said = migrate(&envoy_filter(script), &options);
    assert_eq!(said.code, 0, "{}", said.notes);
    said.manifest
}

/// The line of the table for a request's header.
fn line<'t>(table: &'t str, request: &str, header: &str) -> Vec<&'t str> {
    let mut here = false;
    for line in table.lines() {
        if !line.starts_with(' ') {
            here = line.starts_with(&format!("{request}  "));
        }
        let cells: Vec<&str> = line
            .split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect();
        if here && cells.contains(&header) {
            return cells
                .into_iter()
                .skip_while(|cell| *cell != header)
                .skip(1)
                .collect();
        }
    }
    panic!("no {header} of {request} in:\n{table}");
}

#[test]
fn a_comparison_runs_the_script_and_says_what_stays_and_what_changes() {
    let table = compared(
        r#"function envoy_on_request(h)
          h:headers():add("x-forwarded-proto", "https")
          if h:headers():get(":path"):match("^/pay") then
            h:headers():replace("x-envoy-upstream-rq-timeout-ms", "30000")
          end
          if h:headers():get("x-lb-debug") then h:respond({[":status"] = "403"}, "no") end
        end"#,
    );
    // Envoy joins lines of x-forwarded-proto.
    let cells = line(&table, "load balancer, http", "x-forwarded-proto");
    assert_eq!(
        cells,
        [
            "http,https",
            "https",
            "changes: the script's add makes a list"
        ]
    );
    let cells = line(&table, "anybody else, http", "x-forwarded-proto");
    assert_eq!(
        cells,
        ["http,https", "http", "changes: not a trusted load balancer"]
    );
    let timeout = "x-envoy-upstream-rq-timeout-ms";
    let cells = line(&table, "load balancer, http, :path: /pay/below", timeout);
    assert_eq!(cells, ["30000", "30000", "stays"]);
    let cells = line(&table, "load balancer, http, :path: /payx", timeout);
    assert_eq!(cells, ["30000", "30000", "stays"]);
    let cells = line(&table, "load balancer, http, x-lb-debug: 1", "(answer)");
    assert_eq!(
        cells,
        ["403", "(passed on)", "changes: the script answers itself"]
    );
}

#[test]
fn a_compared_script_reaches_nothing_outside_of_it() {
    for reach in [
        "io.open('/etc/passwd')",
        "os.execute('true')",
        "os.getenv('HOME')",
        "os.remove('/tmp/x')",
        "require('ffi')",
        "loadfile('/etc/passwd')",
        "load('return 1')()",
        "debug.getregistry()",
        "string.dump(function() end)",
        "package.loadlib('a', 'b')",
    ] {
        let table = compared(&format!(
            r#"function envoy_on_request(h)
              h:headers():replace("x-forwarded-proto", "https")
              local found = {reach}
              h:headers():replace("x-reached", "yes")
            end"#
        ));
        assert!(!table.contains("x-reached"), "{reach}:\n{table}");
        assert!(table.contains("the script stops here"), "{reach}:\n{table}");
    }
}

#[test]
fn a_compared_script_that_never_ends_is_stopped_whatever_it_catches() {
    for endless in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "while true do xpcall(function() while true do end end, function() end) end",
        "coroutine.wrap(function() while true do end end)()",
        "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
    ] {
        let table = compared(&format!(
            r#"function envoy_on_request(h)
              h:headers():replace("x-forwarded-proto", "https")
              {endless}
            end"#
        ));
        assert!(
            table.contains("4 requests: 0 stay as they are, 0 change, 4 can't be compared"),
            "{endless}:\n{table}"
        );
    }
}

#[test]
fn more_lua_filters_than_can_be_translated_at_once_are_refused() {
    let one = envoy_filter(
        "function envoy_on_request(h) h:headers():replace('x-forwarded-proto', 'https') end",
    );
    let file = vec![one; 1_001].join("\n---\n");
    let said = migrate(&file, LOAD_BALANCER);
    assert_ne!(said.code, 0);
    assert_eq!(said.manifest, "");
    assert!(
        said.notes
            .contains("there are 1001 Lua filters here, of which 1000 can be translated at once"),
        "{}",
        said.notes
    );
}
