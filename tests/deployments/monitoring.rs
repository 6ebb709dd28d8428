//! The dashboard and the alerting rules against the metrics that a gateway really shows.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use testkit::artifacts::{self, repository};
use testkit::envoy::Envoy;

use crate::{documents, read, skipped, with_module};

const PROMETHEUS: &str = "examples/docker-compose/prometheus";

fn dashboard() -> Value {
    let text = read("examples/docker-compose/grafana/dashboards/trusted-lb.json");
    serde_json::from_str(&text).expect("it is JSON")
}

/// What the dashboard's panels ask Prometheus.
pub(crate) fn dashboard_queries() -> Vec<String> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("it has panels");
    panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().expect("a panel asks something"))
        .map(|target| target["expr"].as_str().expect("a query is text").to_owned())
        .collect()
}

/// The conditions of the alerts.
pub(crate) fn alert_expressions() -> Vec<String> {
    let rules = documents(&read(&format!("{PROMETHEUS}/trusted-lb.rules.yml"))).remove(0);
    let rules = rules["groups"][0]["rules"]
        .as_array()
        .expect("it has rules");
    rules
        .iter()
        .map(|rule| {
            rule["expr"]
                .as_str()
                .expect("a condition is text")
                .to_owned()
        })
        .collect()
}

/// The names of our metrics in a query.
fn metrics(query: &str) -> BTreeSet<String> {
    query
        .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("trusted_lb_"))
        .map(str::to_owned)
        .collect()
}

/// The names of our metrics at the example's gateway.
fn shown_by_the_gateway() -> BTreeSet<String> {
    let text = read("examples/docker-compose/gateway.yaml");
    let text = with_module(
        &text,
        "/etc/trusted-lb/trusted_lb.wasm",
        artifacts::module(),
    )
    .replace("port_value: 8080", "port_value: 0")
    .replace("port_value: 9902", "port_value: 0")
    .replace("0.0.0.0", "127.0.0.1");
    let envoy = Envoy::start(&documents(&text)[0]);
    let shown = envoy.prometheus("trusted_lb_");
    shown
        .keys()
        .map(|name| name.split('{').next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn alerts_name_metrics_that_a_gateway_shows_and_the_dashboard_names_all_of_them() {
    let shown = shown_by_the_gateway();
    assert!(shown.contains("trusted_lb_trusted"), "{shown:?}");
    let alerted: BTreeSet<String> = alert_expressions()
        .iter()
        .flat_map(|query| metrics(query))
        .collect();
    let unknown: Vec<&String> = alerted.difference(&shown).collect();
    assert!(unknown.is_empty(), "no gateway shows {unknown:?}");
    let on_the_dashboard: BTreeSet<String> = dashboard_queries()
        .iter()
        .flat_map(|query| metrics(query))
        .collect();
    assert_eq!(on_the_dashboard, shown);
}

#[test]
fn the_dashboard_asks_the_data_source_that_the_example_provides() {
    let sources = read("examples/docker-compose/grafana/provisioning/datasources/prometheus.yml");
    let sources = documents(&sources).remove(0);
    let uid = &sources["datasources"][0]["uid"];
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("it has panels");
    for panel in panels {
        assert_eq!(&panel["datasource"]["uid"], uid, "{}", panel["title"]);
        for target in panel["targets"].as_array().expect("a panel asks something") {
            assert_eq!(&target["datasource"]["uid"], uid, "{}", panel["title"]);
        }
    }
}

#[test]
fn the_alerting_rules_pass_their_own_tests_in_promtool() {
    let promtool = match artifacts::tool("promtool") {
        Ok(tool) => tool.program,
        Err(reason) => return skipped("the alerting rules were not tried", &reason),
    };
    for arguments in [
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "trusted-lb.rules.test.yml"],
    ] {
        let output = Command::new(&promtool)
            .args(arguments)
            .current_dir(repository().join(PROMETHEUS))
            .output()
            .expect("promtool can be run");
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}:\n{said}");
    }
}
