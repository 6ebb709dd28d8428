//! The built module in a real Envoy.

use std::collections::BTreeMap;

use testkit::cases;
use testkit::envoy::Envoy;
use testkit::gateway::{Listener, bootstrap, seen_as};
use testkit::http;
use testkit::upstream::Upstream;

#[test]
fn envoy_gives_every_case_the_expected_request() {
    let upstream = Upstream::start();
    let groups: Vec<_> = cases::all()
        .into_iter()
        .flat_map(|(file, groups)| groups.into_iter().map(move |group| (file.clone(), group)))
        .collect();
    let mut listeners = Vec::new();
    let mut environment = BTreeMap::new();
    for (index, (_, group)) in groups.iter().enumerate() {
        let listener = |name: String| {
            Listener::new(&name)
                .gateway(&group.gateway)
                .plugin(&group.config, &group.environment)
        };
        listeners.push(listener(format!("{index}")));
        listeners.push(listener(format!("{index}-tls")).tls());
        environment.extend(group.environment.clone());
    }
    let envoy =
        Envoy::start_with_environment(&bootstrap(&listeners, upstream.address()), &environment);

    let mut wrong = Vec::new();
    for (index, (file, group)) in groups.iter().enumerate() {
        for case in group
            .cases
            .iter()
            .filter(|case| case.not_in_envoy.is_none())
        {
            let place = format!("{file}: {}: {}", group.name, case.name);
            let name = format!("{index}{}", if case.request.tls { "-tls" } else { "" });
            let response = http::send(envoy.listener(&name), &case.request)
                .unwrap_or_else(|error| panic!("{place}: {error}"));
            if !matches!(response.status, 200 | 101) || response.received("host").is_none() {
                wrong.push(format!("{place}: not the upstream's answer: {response:?}"));
                continue;
            }
            let values = |name: &str| response.received(&seen_as(name)).unwrap_or_default();
            for difference in case.expect.differences(values) {
                wrong.push(format!("{place}: {difference}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), envoy.log());
}
