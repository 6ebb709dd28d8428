//! What works, but probably not as its author thinks.

use super::address::IpBlock;
use super::configuration::{Config, PeerAddress, RewriteScheme};
use super::covers::{Comparison, Peers};
use super::document::quoted;
use super::path::Here;
use super::policy::{Policy, Retries, Timeout};
use super::problem::Problems;
use super::trust::LoadBalancerMatch;
use super::untrusted::UntrustedProto;

/// Looks a configuration without errors through.
pub(crate) fn find(config: &Config, problems: &Problems) {
    let rules = &config.trusted_load_balancers;
    if rules.is_empty() {
        without_rules(config, problems);
    }
    let list = Here::Field(&Here::Root, "trustedLoadBalancers");
    let comparison = Comparison::new();
    let mut earlier: Vec<(&str, Peers<'_>)> = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let item = Here::Item(&list, index);
        let here = Here::Field(&item, "match");
        // One rule alone is compared with nothing.
        if rules.len() > 1 {
            let peers = Peers::of(&rule.matches);
            let mut compared = earlier.iter().take_while(|_| comparison.goes_on());
            let covered = compared.find(|(_, wide)| comparison.load_balancer(wide, &peers));
            if let Some((name, _)) = covered {
                never(&here, name, problems);
            }
            earlier.push((&rule.name, peers));
        }
        if !rule.insecure_trust_anyone {
            proof(&here, &rule.matches, problems);
        }
    }
    let list = Here::Field(&Here::Root, "routes");
    let comparison = Comparison::new();
    for (index, route) in config.routes.iter().enumerate() {
        let item = Here::Item(&list, index);
        let here = Here::Field(&item, "match");
        let earlier = config.routes.iter().take(index);
        let covered = earlier
            .take_while(|_| comparison.goes_on())
            .find(|earlier| comparison.route(&earlier.matches, &route.matches));
        if let Some(earlier) = covered {
            never(&here, &earlier.name, problems);
        }
        let names = &route.matches;
        if (!names.routes.is_empty() || !names.virtual_services.is_empty())
            && names.request.hosts.is_empty()
            && names.request.paths.is_empty()
            && names.virtual_hosts.is_empty()
        {
            problems.warn(
                &here,
                &"route and VirtualService names are best effort: behind httpsRedirect, and where routes match on \
                  headers that this filter writes, Envoy names the route from before the correction, or none",
                &"match by hosts, paths or virtualHosts where you can",
            );
        }
    }
    let untrusted = config.untrusted.as_ref();
    if untrusted.is_some_and(|untrusted| untrusted.forwarded_proto == UntrustedProto::Keep) {
        problems.warn(
            &Here::Field(&Here::Field(&Here::Root, "untrusted"), "forwardedProto"),
            &"keep leaves x-forwarded-proto to anybody who reaches this gateway where Envoy keeps it too \
              (numTrustedProxies of 1 or more)",
            &"write connection, unless every way to this gateway leads through something that overwrites it",
        );
    }
    let defaults = Here::Field(&Here::Root, "defaults");
    retries(&defaults, &config.defaults, &config.defaults, problems);
    for (index, route) in config.routes.iter().enumerate() {
        let here = Here::Item(&list, index);
        retries(&here, &route.policy, &config.defaults, problems);
    }
}

/// Without a rule nobody is trusted, and without `untrusted` besides, nobody is judged.
fn without_rules(config: &Config, problems: &Problems) {
    const ADD: &str = "add a rule for the load balancer in front of this gateway";
    if config.judges_schemes() {
        problems.warn(
            &Here::Field(&Here::Root, "trustedLoadBalancers"),
            &"there is no rule, so nobody is trusted and x-forwarded-proto always tells the gateway's own connection",
            &ADD,
        );
        return;
    }
    let says_nothing = [
        ("peerAddress", config.peer_address != PeerAddress::default()),
        (
            "rewriteScheme",
            config.rewrite_scheme != RewriteScheme::default(),
        ),
        ("forwardedPort", config.forwarded_port),
    ];
    for (name, _) in says_nothing.iter().filter(|(_, written)| *written) {
        problems.warn(
            &Here::Field(&Here::Root, name),
            &"without trustedLoadBalancers and untrusted this configuration leaves the scheme alone, so that this says nothing",
            &ADD,
        );
    }
    if config.defaults == Policy::default() && config.routes.is_empty() {
        problems.warn(
            &Here::Root,
            &"this configuration changes nothing",
            &"write trustedLoadBalancers, untrusted or defaults",
        );
    }
}

fn never(here: &Here<'_>, earlier: &str, problems: &Problems) {
    problems.warn(
        here,
        &format_args!(
            "this never gets its turn: {} in front of it holds for all of it",
            quoted(earlier)
        ),
        &"the first that matches wins: put the narrower one first",
    );
}

/// Addresses and header values that say less than they seem to.
fn proof(here: &Here<'_>, matches: &LoadBalancerMatch, problems: &Problems) {
    if matches.is_proven() {
        return;
    }
    let by_value = !matches.trusts_by_address_alone();
    if by_value && (matches.ip_blocks.is_empty() || matches.trusts_every_address()) {
        problems.warn(
            &Here::Field(here, "headers"),
            &"whoever sends this is trusted, and a value that stands in a configuration is no secret",
            &"write fromEnv: ORIGIN_SECRET in place of the value, or list the load balancer's own ipBlocks",
        );
    }
    let mut sets = matches.ip_blocks.iter().filter_map(|block| match block {
        IpBlock::Set(set) => Some(set),
        IpBlock::Net(_) => None,
    });
    if let Some(set) = sets.find(|set| set.shared_edge || set.name == "@private") {
        let who = if set.shared_edge {
            "any customer of that vendor can send requests from these addresses"
        } else {
            "every pod, node and neighbour with a private address is trusted"
        };
        problems.warn(
            &Here::Field(here, "ipBlocks"),
            &format_args!("{} alone doesn't say whose traffic it is: {who}", set.name),
            &"add a secret header (headers: [{name: x-origin-verify, fromEnv: ORIGIN_SECRET}]) or a clientCertificate, \
              or list the load balancer's own subnets",
        );
    }
}

/// What a policy's numbers say together, once merged over the defaults.
fn retries(here: &Here<'_>, policy: &Policy, defaults: &Policy, problems: &Problems) {
    let Some(Retries::Set(own)) = &policy.retries else {
        return;
    };
    let here = Here::Field(here, "retries");
    let merged = match &defaults.retries {
        Some(Retries::Set(defaults)) => own.merged_over(defaults),
        _ => (**own).clone(),
    };
    let conditions = merged.has_conditions();
    let attempts = merged.attempts;
    if conditions && attempts.is_none() {
        problems.warn(
            &here,
            &"there is something to retry on, but no attempts: Envoy retries once",
            &"write attempts: 1, or how many are meant",
        );
    }
    if attempts.is_some_and(|attempts| attempts > 0) && !conditions {
        problems.warn(
            &Here::Field(&here, "attempts"),
            &"attempts without retryOn: nothing is retried unless the route's own policy says on what",
            &"write for example retryOn: [connect-failure, refused-stream]",
        );
    }
    if merged.hedge_on_per_try_timeout == Some(true) && merged.per_try_timeout.is_none() {
        problems.warn(
            &Here::Field(&here, "hedgeOnPerTryTimeout"),
            &"hedging does nothing without perTryTimeout",
            &"write for example perTryTimeout: 500ms",
        );
    }
    let timeout = policy.timeout.or(defaults.timeout);
    if let (Some(Timeout::After(timeout)), Some(per_try)) = (timeout, merged.per_try_timeout)
        && per_try >= timeout
    {
        problems.warn(
            &Here::Field(&here, "perTryTimeout"),
            &format_args!(
                "{per_try} is not shorter than the timeout of {timeout}, so Envoy ignores it"
            ),
            &format_args!("write less than {timeout}"),
        );
    }
}
