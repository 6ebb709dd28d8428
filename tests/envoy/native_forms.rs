//! `trusted-lb render native` in a real Envoy: every case of the table comes out as with the module, or its configuration
//! is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};
use testkit::artifacts;
use testkit::cases::{self, Case, Group, Protocol};
use testkit::envoy::{Envoy, validate};
use testkit::gateway::{Listener, bootstrap, seen_as};
use testkit::http;
use testkit::upstream::Upstream;

/// Cases that come out otherwise, by group and name, and why. docs/comparison.md says so to users.
const OTHERWISE: [(&str, &str, &str); 10] = [
    (
        "conditions of a rule",
        "a path",
        "the direct peer is known, also if it is Envoy's own address",
    ),
    (
        "auto with a trusted hop",
        "not even the load balancer's requests are trusted where its x-forwarded-for hides its address",
        "the direct peer is known",
    ),
    (
        "auto without use_remote_address",
        "without x-forwarded-for nobody is trusted",
        "the direct peer is known",
    ),
    (
        "forwardedFor with a load balancer on the gateway's own node",
        "nobody is trusted, because Envoy appends its own address in its place",
        "the direct peer is known, also on the gateway's own node",
    ),
    (
        "auto with a load balancer on the gateway's own node",
        "nobody is trusted, because Envoy appends its own address in its place",
        "the direct peer is known, also on the gateway's own node",
    ),
    (
        "the filter state without the network filter",
        "nobody is trusted",
        "the network filter is rendered too",
    ),
    (
        "conditions of a route",
        "a header that must not be there",
        "no other filter may stand in front",
    ),
    (
        "conditions of a route",
        "an excluded method",
        "no other filter may stand in front",
    ),
    (
        "conditions of a route",
        "an excluded path",
        "no other filter may stand in front",
    ),
    (
        "who comes through the load balancer is a client from outside",
        "less than is granted stays",
        "what any client asks for is taken off",
    ),
];

/// The version of the Envoy that is tested, without its patch level.
pub(crate) fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(read_version)
}

fn read_version() -> String {
    let output = Command::new(artifacts::envoy())
        .arg("--version")
        .output()
        .expect("Envoy can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text.split('/');
    let version = words
        .find(|word| word.starts_with("1."))
        .expect("a version");
    let (minor, _) = version.rsplit_once('.').expect("a patch level");
    minor.to_owned()
}

/// The listener's fields for a configuration, or everything that stands against it.
pub(crate) fn render(configuration: &Value, options: &[&str]) -> Result<Value, String> {
    render_for(version(), configuration, options)
}

fn render_for(version: &str, configuration: &Value, options: &[&str]) -> Result<Value, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trusted-lb"))
        .args(["render", "native", "-", "--envoy", version])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command can be run");
    let mut stdin = command.stdin.take().expect("it reads");
    stdin
        .write_all(configuration.to_string().as_bytes())
        .expect("it reads everything");
    drop(stdin);
    let output = command.wait_with_output().expect("it ends");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}")))
}

/// A configuration in a native form.
struct Form {
    place: String,
    group: Group,
    has_chains: bool,
    /// Listeners without TLS and with it.
    listeners: [String; 2],
}

/// The places and reasons of a refusal.
fn reasons(refusal: &str) -> Vec<(String, String)> {
    let mut reason = "";
    let mut reasons = Vec::new();
    for line in refusal.lines() {
        if let Some(text) = line.strip_prefix("error: ") {
            reason = text;
        } else if let Some((_, place)) = line.split_once('^') {
            let place = place.trim_start_matches('^').trim();
            reasons.push((place.to_owned(), reason.to_owned()));
        }
    }
    reasons
}

/// The configuration without the rules and overrides that can't be rendered, and their names. Nothing if that isn't it.
fn without_what_is_refused(
    configuration: &Value,
    reasons: &[(String, String)],
) -> Option<(Value, Vec<String>)> {
    let mut gone = BTreeSet::new();
    for (place, _) in reasons {
        let (list, rest) = place.split_once('[')?;
        let (index, _) = rest.split_once(']')?;
        gone.insert((list.to_owned(), index.parse::<usize>().ok()?));
    }
    let mut rest = configuration.clone();
    let mut names = Vec::new();
    for (list, index) in gone.into_iter().rev() {
        let item = rest[&list].as_array_mut()?.remove(index);
        names.push(item["name"].as_str()?.to_owned());
    }
    Some((rest, names))
}

/// The group with a configuration that can be rendered, and the cases that it still decides.
fn reduced(group: &Group, options: &[&str]) -> Result<(Group, Value), Vec<(String, String)>> {
    let mut group = group.clone();
    let mut refused = Vec::new();
    loop {
        let refusal = match render(&group.config, options) {
            Ok(fields) => return Ok((group, fields)),
            Err(refusal) => reasons(&refusal),
        };
        refused.extend(refusal.clone());
        let Some((rest, gone)) = without_what_is_refused(&group.config, &refusal) else {
            return Err(refused);
        };
        let concerns =
            |name: &Option<String>| name.as_ref().is_some_and(|name| gone.contains(name));
        let cases = group.cases.into_iter();
        group.cases = cases
            .filter(|case| !concerns(&case.expect.rule) && !concerns(&case.expect.route))
            .collect();
        group.config = rest;
    }
}

impl Form {
    /// Whether one filter chain answers a request with 403 that the module corrects.
    fn denies(&self, case: &Case) -> bool {
        let connection = if case.request.tls { "https" } else { "http" };
        !self.has_chains
            && case.expect.rule.is_none()
            && case.request.protocol == Protocol::Http2
            && case.request.scheme.as_deref() != Some(connection)
            && self.group.config.get("trustedLoadBalancers").is_some()
    }

    fn is_otherwise(&self, case: &Case) -> bool {
        OTHERWISE
            .iter()
            .any(|(group, name, _)| *group == self.group.name && *name == case.name)
    }

    /// What is wrong with the outcome of a case.
    fn faults(&self, case: &Case, envoy: &Envoy) -> Vec<String> {
        let listener = &self.listeners[usize::from(case.request.tls)];
        let response = match http::send(envoy.listener(listener), &case.request) {
            Ok(response) => response,
            Err(error) => return vec![error.to_string()],
        };
        let refused = if self.denies(case) {
            Some(403)
        } else {
            case.expect.refused
        };
        if let Some(status) = refused {
            return if response.status == status && response.received("host").is_none() {
                Vec::new()
            } else {
                vec![format!("not refused with {status}: {response:?}")]
            };
        }
        if !matches!(response.status, 200 | 101) || response.received("host").is_none() {
            return vec![format!("not the upstream's answer: {response:?}")];
        }
        let values = |name: &str| response.received(&seen_as(name)).unwrap_or_default();
        case.expect.differences(values)
    }
}

#[test]
fn every_case_comes_out_as_with_the_module_or_its_configuration_is_refused() {
    let upstream = Upstream::start();
    let mut listeners = Vec::new();
    let mut forms: Vec<Form> = Vec::new();
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    let mut all_cases = BTreeSet::new();
    for (file, groups) in cases::all() {
        for group in groups {
            let place = format!("{file}: {}", group.name);
            for case in &group.cases {
                all_cases.insert(format!("{place}: {}", case.name));
            }
            let mut known = Vec::new();
            for form in ["auto", "connection"] {
                let mut options = vec!["--form", form, "--http2", "deny"];
                let (reduced, plain) = match reduced(&group, &options) {
                    Ok(reduced) => reduced,
                    Err(reasons) => {
                        for (_, reason) in reasons {
                            *refused.entry(reason).or_default() += group.cases.len();
                        }
                        continue;
                    }
                };
                options.push("--tls");
                let tls = render(&reduced.config, &options).expect("TLS changes nothing");
                if known.contains(&plain) {
                    continue;
                }
                known.push(plain.clone());
                let index = forms.len();
                let names = [format!("{index}"), format!("{index}-tls")];
                let has_chains = plain["filter_chains"].as_array().map(Vec::len) > Some(1);
                let listener = |name: &str, fields| {
                    let gateway = &group.gateway;
                    Listener::new(name).gateway(gateway).rendered(fields)
                };
                listeners.push(listener(&names[0], plain));
                listeners.push(listener(&names[1], tls).tls());
                forms.push(Form {
                    place: place.clone(),
                    group: reduced,
                    has_chains,
                    listeners: names,
                });
            }
        }
    }
    let environment = BTreeMap::from([("HELPER_TOKEN".to_owned(), "a-token".to_owned())]);
    let envoy =
        Envoy::start_with_environment(&bootstrap(&listeners, upstream.address()), &environment);

    let mut wrong = Vec::new();
    let (mut in_chains, mut in_one) = (BTreeSet::new(), BTreeSet::new());
    for form in &forms {
        let cases = form.group.cases.iter();
        for case in cases.filter(|case| case.not_in_envoy.is_none()) {
            let name = if form.has_chains {
                "chains"
            } else {
                "one chain"
            };
            let place = format!("{}: {}", form.place, case.name);
            let faults = form.faults(case, &envoy);
            if form.is_otherwise(case) {
                if faults.is_empty() {
                    wrong.push(format!("{name}: {place}: no longer otherwise"));
                }
                continue;
            }
            let covered = if form.has_chains {
                &mut in_chains
            } else {
                &mut in_one
            };
            if faults.is_empty() {
                covered.insert(place.clone());
            }
            let faults = faults.into_iter();
            wrong.extend(faults.map(|fault| format!("{name}: {place}: {fault}")));
        }
    }
    println!(
        "Envoy {}: of {} cases {} are as with the module in filter chains, {} in one filter chain, {} in neither",
        version(),
        all_cases.len(),
        in_chains.len(),
        in_one.len(),
        all_cases
            .iter()
            .filter(|case| !in_chains.contains(*case) && !in_one.contains(*case))
            .count(),
    );
    for (reason, count) in &refused {
        println!("in groups with {count} cases: {reason}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let old = ["1.36", "1.37"].contains(&version());
    assert!(
        in_chains.len() > if old { 10 } else { 40 } && (old || in_one.len() > 90),
        "too little is covered"
    );
}

/// One rule, overrides and everything that goes into a filter chain.
fn whole() -> Value {
    json!({
        "trustedLoadBalancers": [{
            "name": "lb",
            "match": {"ipBlocks": ["10.0.12.0/24"]},
            "forwardedProto": {"default": "https"},
        }],
        "defaults": {"timeout": "15s", "retries": {"attempts": 2, "retryOn": ["reset"]}},
    })
}

#[test]
fn an_envoyfilter_makes_of_istios_filter_chain_what_a_standalone_envoy_is_given() {
    let options = ["--form", "connection", "--http2", "off"];
    let standalone = render_for("1.40", &whole(), &options).expect("it can be said");
    let options = ["--as", "envoyfilter", "--http2", "off"];
    let resource = render_for("1.40", &whole(), &options).expect("it can be said");
    let mut network_filters = vec![json!("the connection manager")];
    let mut manager = Value::Null;
    let mut http_filters = Vec::new();
    for patch in resource["spec"]["configPatches"]
        .as_array()
        .expect("patches")
    {
        let value = patch["patch"]["value"].clone();
        let kind = patch["applyTo"].as_str().expect("a kind");
        match (kind, patch["patch"]["operation"].as_str()) {
            ("NETWORK_FILTER", Some("INSERT_BEFORE")) => {
                network_filters.insert(network_filters.len() - 1, value);
            }
            ("NETWORK_FILTER", Some("MERGE")) => manager = value,
            ("HTTP_FILTER", Some("INSERT_FIRST")) => http_filters.insert(0, value),
            other => panic!("{other:?}"),
        }
    }
    manager["typed_config"]["http_filters"] = json!(http_filters);
    network_filters.pop();
    network_filters.push(manager);
    assert_eq!(
        standalone["filter_chains"][0]["filters"],
        json!(network_filters)
    );
}

#[test]
fn an_envoy_patch_policy_makes_of_envoy_gateways_listener_what_a_standalone_envoy_is_given() {
    let options = ["--form", "connection", "--http2", "off"];
    let standalone = render_for("1.40", &whole(), &options).expect("it can be said");
    let manager = &standalone["filter_chains"][0]["filters"][1];
    for (tls, chain) in [(false, "/default_filter_chain"), (true, "/filter_chains/0")] {
        let mut options = vec![
            "--as",
            "envoypatchpolicy",
            "--http2",
            "off",
            "--gateway",
            "edge",
        ];
        options.extend(tls.then_some("--tls"));
        let resource = render_for("1.40", &whole(), &options).expect("it can be said");
        assert_eq!(resource["spec"]["targetRef"]["name"], "edge");
        let mut filters = json!([{
            "name": manager["name"],
            "typed_config": {"@type": manager["typed_config"]["@type"], "http_filters": []},
        }]);
        for patch in resource["spec"]["jsonPatches"].as_array().expect("patches") {
            let path = patch["operation"]["path"].as_str().expect("a path");
            let path = path.strip_prefix(chain).expect("in the filter chain");
            let (parent, last) = path.rsplit_once('/').expect("a place");
            let parent = parent.strip_prefix("/filters").expect("in the filters");
            let value = patch["operation"]["value"].clone();
            match filters.pointer_mut(parent).expect("the place is there") {
                Value::Array(items) => items.insert(last.parse().expect("a position"), value),
                Value::Object(fields) => {
                    fields.insert(last.to_owned(), value);
                }
                other => panic!("{other}"),
            }
        }
        assert_eq!(standalone["filter_chains"][0]["filters"], filters);
    }
}

/// The recipes: what one filter chain that speaks HTTP/1 makes of each.
const RECIPES: [(&str, &str); 11] = [
    ("aws-alb", ""),
    ("aws-nlb-tls", ""),
    ("azure-application-gateway", ""),
    ("azure-front-door", ""),
    (
        "cloudflare",
        "a secret from the environment can't be compared",
    ),
    (
        "cloudfront",
        "a secret from the environment can't be compared",
    ),
    (
        "cloudfront-alb",
        "a secret from the environment can't be compared",
    ),
    ("fastly", "a secret from the environment can't be compared"),
    (
        "google-cloud",
        "a secret from the environment can't be compared",
    ),
    ("haproxy-nginx", ""),
    ("tencent-clb", ""),
];

#[test]
fn every_recipe_is_rendered_so_that_envoy_takes_it_or_is_refused_with_its_reason() {
    let folder = artifacts::repository().join("examples/load-balancers");
    let mut recipes: Vec<String> = std::fs::read_dir(&folder)
        .expect("the recipes are there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir())
        .map(|path| {
            path.file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    recipes.sort();
    assert_eq!(recipes, RECIPES.map(|(name, _)| name));
    let has_one_chain = !["1.36", "1.37"].contains(&version());
    let mut listeners = Vec::new();
    for (recipe, reason) in RECIPES {
        let file = folder.join(recipe).join("wasmplugin.yaml");
        let text = std::fs::read_to_string(file).expect("it is there");
        let resource: Value = serde_saphyr::from_str(&text).expect("it is YAML");
        let configuration = &resource["spec"]["pluginConfig"];
        let version = if has_one_chain { version() } else { "1.40" };
        let options = ["--form", "connection", "--http2", "off"];
        match render_for(version, configuration, &options) {
            Ok(fields) if reason.is_empty() => {
                listeners.push(Listener::new(recipe).rendered(fields));
            }
            Err(refusal) if !reason.is_empty() => assert!(refusal.contains(reason), "{refusal}"),
            other => panic!("{recipe}: {other:?}"),
        }
    }
    if has_one_chain {
        let bootstrap = bootstrap(&listeners, ([127, 0, 0, 1], 1).into());
        validate(&bootstrap).unwrap_or_else(|log| panic!("{log}"));
    }
}
