//! The table of request cases, given to the engine as plain data.

use std::collections::BTreeMap;

use testkit::{cases, hcm};
use trusted_lb::config;
use trusted_lb::engine::Engine;

use crate::plain::Plain;

fn engine(config: &serde_json::Value, environment: &BTreeMap<String, String>) -> Engine {
    let loaded = config::load(config.to_string().as_bytes());
    let config = loaded
        .config
        .unwrap_or_else(|| panic!("{:#?}", loaded.problems));
    Engine::new(&config, &|name| environment.get(name).cloned())
        .expect("the environment is complete")
}

#[test]
fn the_engine_decides_every_case_as_expected() {
    let mut wrong = Vec::new();
    for (file, groups) in cases::all() {
        for group in groups {
            let engine = engine(&group.config, &group.environment);
            for case in &group.cases {
                let request = Plain(hcm::received(
                    &case.request,
                    &group.gateway,
                    &group.environment,
                ));
                let decision = engine.decide(&request);
                let mut differences = Vec::new();
                let rule = decision.rule.map(|rule| engine.rule_name(rule).to_owned());
                if rule != case.expect.rule {
                    differences.push(format!(
                        "rule: expected {:?}, found {rule:?}",
                        case.expect.rule
                    ));
                }
                let route = decision
                    .applied_override
                    .map(|route| engine.override_name(route).to_owned());
                if route != case.expect.route {
                    differences.push(format!(
                        "route: expected {:?}, found {route:?}",
                        case.expect.route
                    ));
                }
                if decision.refusal != case.expect.refused {
                    differences.push(format!(
                        "refused: expected {:?}, found {:?}",
                        case.expect.refused, decision.refusal
                    ));
                }
                let mut operations = decision.operations;
                operations.retain(|operation| engine.carries_out(operation));
                let headers = request.after(&operations).0.headers;
                differences.extend(case.expect.differences(|name| {
                    headers
                        .iter()
                        .filter(|(line, _)| line == name.as_bytes())
                        .map(|(_, value)| value.clone())
                        .collect()
                }));
                for difference in differences {
                    wrong.push(format!(
                        "{file}: {}: {}: {difference}",
                        group.name, case.name
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
