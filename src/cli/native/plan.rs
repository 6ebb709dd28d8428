//! From a configuration to what Envoy's own filters have to do, in the cheapest form that says the same: a filter chain for
//! each load balancer ([`chains`]), or one filter chain for everybody ([`one_chain`]).

use super::filter_chain::{Chain, SourceChain};
use super::options::Options;
use super::refusal::{Refusal, Refusals};
use super::{chains, one_chain, policy, removal};
use crate::config::{Config, Mode, Untrusted, UntrustedAction, UntrustedProto};

/// Rules times overrides: each rule's filter chain, or its part of an expression, names every override.
const MOST_COMBINATIONS: usize = 5000;

#[derive(Debug)]
pub(super) enum Form {
    /// One filter chain; filter state tells who the peer is.
    Connection(Chain),
    /// A filter chain for each load balancer and one for everybody else.
    Chains(Vec<SourceChain>),
}

/// How Envoy's own filters do what the configuration says.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) form: Form,
    /// Where the outcome differs from the module's, without being weaker.
    pub(super) differences: Vec<String>,
}

/// Works out the form.
///
/// # Errors
/// Everything that can't be said.
pub(super) fn of(config: &Config, options: Options) -> Result<Plan, Vec<Refusal>> {
    let mut refusals = Refusals::default();
    refuse_what_has_no_form(config, &mut refusals);
    if refuse_too_many(config, &mut refusals) {
        return Err(refusals.into_vec());
    }
    removal::refuse_what_is_read(config, &mut refusals);
    if !config.judges_schemes() {
        let mut chain = Chain::default();
        chain
            .http_filters
            .extend(policy::filter(config, &mut refusals));
        return finish(Form::Connection(chain), Vec::new(), refusals);
    }
    if options.chains
        && let Some(chains) = chains::plan(config, options, &mut refusals)
    {
        let differences = vec![
            "a trusted peer's absolute target (GET http://host/) keeps the scheme that stands in it".to_owned(),
        ];
        return finish(Form::Chains(chains), differences, refusals);
    }
    if options.version.minor < 38 {
        refusals.refuse(
            "trustedLoadBalancers",
            "before Envoy 1.38 only filter chains by source address can tell who the peer is, and this configuration can't be \
             said in them",
            "render for Envoy 1.38 or newer, or keep the module",
        );
        return Err(refusals.into_vec());
    }
    let mut differences = Vec::new();
    let chain = one_chain::chain(config, options, &mut differences, &mut refusals);
    finish(Form::Connection(chain), differences, refusals)
}

fn finish(form: Form, differences: Vec<String>, refusals: Refusals) -> Result<Plan, Vec<Refusal>> {
    let refusals = refusals.into_vec();
    if refusals.is_empty() {
        Ok(Plan { form, differences })
    } else {
        Err(refusals)
    }
}

/// Refuses what would make a configuration that no Envoy should hold, before it is made.
fn refuse_too_many(config: &Config, refusals: &mut Refusals) -> bool {
    let (rules, overrides) = (config.trusted_load_balancers.len(), config.routes.len());
    let too_many = rules.max(1).saturating_mul(overrides.max(1)) > MOST_COMBINATIONS;
    if too_many {
        refusals.refuse(
            if overrides > rules { "routes" } else { "trustedLoadBalancers" },
            &format!(
                "{rules} rules and {overrides} overrides would be written for each other, and at most {MOST_COMBINATIONS} such pairs are"
            ),
            "join rules and overrides that say the same, or keep the module",
        );
    }
    too_many
}

fn refuse_what_has_no_form(config: &Config, refusals: &mut Refusals) {
    // A new field of the configuration has to be thought of here.
    let Config {
        peer_address: _,
        helper_token: _,
        trusted_load_balancers: _,
        untrusted,
        rewrite_scheme: _,
        forwarded_port: _,
        defaults: _,
        routes: _,
        mode,
        report_decision,
    } = config;
    if *mode == Mode::Shadow {
        refusals.refuse(
            "mode",
            "Envoy's own filters can't decide without applying, and count nothing",
            "leave shadow mode first",
        );
    }
    if *report_decision {
        refusals.refuse(
            "reportDecision",
            "Envoy's own filters report no decision",
            "leave it out; an access log can print the headers themselves",
        );
    }
    let Some(Untrusted {
        forwarded_proto,
        action,
        status,
        except,
        remove_headers: _,
        keep_headers: _,
    }) = untrusted
    else {
        return;
    };
    match forwarded_proto {
        UntrustedProto::Connection => {}
        UntrustedProto::Http => refusals.refuse(
            "untrusted.forwardedProto",
            "on a TLS connection Envoy would take :scheme from that http, too",
            "write connection, or keep the module",
        ),
        UntrustedProto::Keep => refusals.refuse(
            "untrusted.forwardedProto",
            "Envoy would take :scheme from whatever an untrusted peer says",
            "write connection, or keep the module",
        ),
    }
    if *action == UntrustedAction::Refuse {
        if status.is_some_and(|status| status != 403) {
            refusals.refuse(
                "untrusted.status",
                "Envoy's own filter for this answers with 403",
                "leave it out, or keep the module",
            );
        }
        if !except.is_empty() {
            refusals.refuse(
                "untrusted.except",
                "exceptions aren't rendered",
                "serve probes at a port of their own and leave it out, or keep the module",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn configuration(rules: usize, overrides: usize) -> Config {
        let rules: Vec<Value> = (0..rules)
            .map(|index| {
                let block = format!("10.{}.{}.0/24", index / 256, index % 256);
                json!({"name": format!("lb{index}"), "match": {"ipBlocks": [block]}, "forwardedProto": {"default": "https"}})
            })
            .collect();
        let overrides: Vec<Value> = (0..overrides)
            .map(|index| {
                json!({"name": format!("r{index}"), "match": {"hosts": [format!("h{index}.example.com")]}, "timeout": "3s"})
            })
            .collect();
        let mut text = json!({"peerAddress": "filterState", "trustedLoadBalancers": rules});
        if !overrides.is_empty() {
            text["routes"] = json!(overrides);
            text["defaults"] = json!({"timeout": "15s"});
        }
        let loaded = crate::config::load(text.to_string().as_bytes());
        loaded
            .config
            .unwrap_or_else(|| panic!("{:?}", loaded.problems))
    }

    #[test]
    fn rules_times_overrides_are_bounded() {
        for chains in [true, false] {
            let options = Options::standalone(chains);
            assert!(of(&configuration(50, 100), options).is_ok());
            let refused = of(&configuration(51, 100), options).expect_err("it is too much");
            let reasons: Vec<&str> = refused.iter().map(|one| one.reason.as_str()).collect();
            assert_eq!(
                reasons,
                [
                    "51 rules and 100 overrides would be written for each other, and at most 5000 such pairs are"
                ]
            );
        }
    }
}
