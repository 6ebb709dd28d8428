//! What the documentation says, tried: its links, its configurations, its command lines.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};
use testkit::artifacts::repository;

use crate::command::{COMMAND, below, listed, read, relative, run, text};

/// Every Markdown file of the repository that people read.
fn pages() -> Vec<PathBuf> {
    let mut pages = listed(".", ".md");
    for folder in ["docs", "envoyfilter", "examples", "tests"] {
        pages.extend(below(folder, ".md"));
    }
    pages
}

/// The blocks of a page in this language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, Vec<&str>)> = None;
    for line in page.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(info), None) => open = Some((info == language, Vec::new())),
            (Some(_), Some(_)) => {
                let (wanted, lines) = open.take().expect("it is open");
                if wanted {
                    blocks.push(lines.join("\n"));
                }
            }
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block that doesn't end: {page}");
    blocks
}

/// A page without its blocks of code.
fn prose(page: &str) -> String {
    let mut code = false;
    page.lines()
        .filter(|line| {
            let fence = line.trim_start().starts_with("```");
            code ^= fence;
            !code && !fence
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> Vec<String> {
    prose(page)
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|heading| {
            heading
                .trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

#[test]
fn every_link_in_the_documentation_leads_somewhere() {
    let mut broken = Vec::new();
    let mut followed = 0;
    for page in pages() {
        let text = read(&page);
        let prose = prose(&text);
        let targets = prose
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            followed += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let other = if file.is_empty() {
                page.clone()
            } else {
                page.parent().expect("a page is in a folder").join(file)
            };
            let there = other.exists()
                && (anchor.is_empty()
                    || anchors(&read(&other)).iter().any(|known| known == anchor));
            if !there {
                broken.push(format!("{}: {target}", relative(&page)));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(followed > 20, "only {followed} links were found");
}

/// Whether a block is a resource or a part of Envoy's configuration, by its first field: ours have no underscore.
fn belongs_to_others(yaml: &str) -> bool {
    let first = yaml
        .lines()
        .find(|line| !line.trim_start().starts_with('#'));
    let field = first
        .and_then(|line| line.split(':').next())
        .unwrap_or_default();
    field.contains('_') || field == "apiVersion" || yaml.contains("typed_config:")
}

#[test]
fn every_yaml_block_in_the_documentation_passes_the_check() {
    let mut tried = 0;
    for page in pages() {
        for yaml in blocks(&read(&page), "yaml") {
            // What belongs to others is passed over beside a configuration that is good in any case.
            let mut arguments = vec!["check", "-"];
            if belongs_to_others(&yaml) {
                arguments.push("tests/configurations/accepted/minimal.yaml");
            }
            tried += 1;
            let output = run(&arguments, &yaml);
            let answer = text(&output);
            assert_eq!(
                output.status.code(),
                Some(0),
                "{}: {answer}",
                relative(&page)
            );
        }
    }
    assert!(tried >= 4, "only {tried} were found");
}

#[test]
fn every_command_line_in_the_documentation_works_from_the_repositorys_root() {
    let mut tried = 0;
    for page in pages() {
        for block in blocks(&read(&page), "sh") {
            for line in block.replace("\\\n", "").lines() {
                let Some(arguments) = line.strip_prefix("dist/trusted-lb ") else {
                    continue;
                };
                let output = Command::new("sh")
                    .args(["-c", &format!("'{COMMAND}' {arguments}")])
                    .current_dir(repository())
                    .output()
                    .expect("there is a shell");
                let place = relative(Path::new(&page));
                assert!(
                    output.status.success(),
                    "{place}: {line}\n{}",
                    text(&output)
                );
                tried += 1;
            }
        }
    }
    assert!(tried >= 4, "only {tried} were found");
}

/// A load balancer's request or a forged one, and what has to become of it: an entry of a `requests.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    name: String,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    request: SentRequest,
    expect: Expected,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SentRequest {
    peer: IpAddr,
    proxy_protocol: Option<IpAddr>,
    port: Option<u16>,
    xff: Option<String>,
    url: Option<String>,
    #[serde(default)]
    tls: bool,
    num_trusted_proxies: Option<u32>,
    #[serde(default)]
    headers: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Expected {
    rule: Option<String>,
    route: Option<String>,
    forwarded_proto: String,
    /// Headers that are written, or removed where null.
    #[serde(default)]
    headers: BTreeMap<String, Option<String>>,
}

impl Sent {
    fn arguments(&self, file: &str) -> Vec<String> {
        let request = &self.request;
        let mut arguments: Vec<String> = ["explain", file, "--format", "json"]
            .map(String::from)
            .into();
        let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        option("--peer", request.peer.to_string());
        let mut given = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                option(name, value);
            }
        };
        given(
            "--proxy-protocol",
            request.proxy_protocol.map(|address| address.to_string()),
        );
        given("--port", request.port.map(|port| port.to_string()));
        given("--xff", request.xff.clone());
        given("--url", request.url.clone());
        given(
            "--num-trusted-proxies",
            request.num_trusted_proxies.map(|hops| hops.to_string()),
        );
        for header in &request.headers {
            option("-H", header.clone());
        }
        for (name, value) in &self.environment {
            option("--env", format!("{name}={value}"));
        }
        if request.tls {
            arguments.push("--tls".to_owned());
        }
        arguments
    }

    /// What is otherwise than expected.
    fn differences(&self, explained: &Value) -> Vec<String> {
        let mut differences = Vec::new();
        let mut differs = |what: &str, is: &Value, expected: Value| {
            if *is != expected {
                differences.push(format!("{}: {what} is {is}, not {expected}", self.name));
            }
        };
        let expect = &self.expect;
        differs("rule", &explained["rule"], json!(expect.rule));
        differs("route", &explained["route"], json!(expect.route));
        differs(
            "forwardedProto",
            &explained["forwardedProto"],
            json!(expect.forwarded_proto),
        );
        for (name, value) in &expect.headers {
            let changes = explained["headers"].as_array().expect("a list");
            let change = changes.iter().find(|change| change["name"] == **name);
            let after = change.map_or(json!("left as it is"), |change| change["after"].clone());
            differs(name, &after, json!(value));
        }
        differences
    }
}

#[test]
fn every_load_balancer_is_known_by_its_example_and_nobody_else_is() {
    let mut wrong = Vec::new();
    let files = below("examples/load-balancers", "requests.yaml");
    for file in &files {
        let folder = file.parent().expect("it is in a folder");
        let manifest = relative(&folder.join("wasmplugin.yaml"));
        let checked = text(&run(&["check", &manifest], ""));
        assert!(
            checked.contains("1 configuration, 0 errors, 0 warnings"),
            "{checked}"
        );
        assert!(folder.join("README.md").exists(), "{}", relative(folder));
        let requests: Vec<Sent> = serde_saphyr::from_str(&read(file))
            .unwrap_or_else(|error| panic!("{}: {error}", relative(file)));
        for request in &requests {
            let arguments = request.arguments(&manifest);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let output = run(&arguments, "");
            assert!(
                output.status.success(),
                "{}: {}",
                request.name,
                text(&output)
            );
            let explained = serde_json::from_slice(&output.stdout).expect("it is JSON");
            let place = relative(folder);
            wrong.extend(
                request
                    .differences(&explained)
                    .iter()
                    .map(|line| format!("{place}: {line}")),
            );
        }
        let some = |forged: bool, scheme: &str| {
            requests.iter().any(|request| {
                request.name.starts_with("forged") == forged
                    && request.expect.forwarded_proto == scheme
            })
        };
        // A client's https and http, and somebody who lies.
        let all = some(false, "https") && some(false, "http") && some(true, "http");
        assert!(all && !some(true, "https"), "{}", relative(file));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(files.len() >= 11, "only {} load balancers", files.len());
}
