//! Decisions about generated requests, under generated configurations.

use trusted_lb::config;
use trusted_lb::engine::{Attribute, Operation};

use super::choices::Choices;
use super::engines::compiled;
use super::generated::{configuration_from, request_from};

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
