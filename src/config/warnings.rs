//! What works, but probably not as its author thinks.

use super::model::{Config, Policy, Retries, Timeout, UntrustedProto};
use super::problem::Problems;

/// Looks a configuration without errors through.
pub(crate) fn find(config: &Config, problems: &Problems) {
    if config.trusted_load_balancers.is_empty() {
        problems.warn(&"trustedLoadBalancers", &"there is no rule, so nobody is trusted and x-forwarded-proto always tells the gateway's own connection", &"add a rule for the load balancer in front of this gateway");
    }
    if config.untrusted.forwarded_proto == UntrustedProto::Keep {
        problems.warn(&"untrusted.forwardedProto", &"keep leaves x-forwarded-proto to anybody who reaches this gateway where Envoy keeps it too \
             (numTrustedProxies of 1 or more)", &"write connection, unless every way to this gateway leads through something that overwrites it");
    }
    retries("defaults", &config.defaults, &config.defaults, problems);
    for (index, route) in config.routes.iter().enumerate() {
        let path = format!("routes[{index}]");
        retries(&path, &route.policy, &config.defaults, problems);
    }
}

/// What a policy's numbers say together, once merged over the defaults.
fn retries(path: &str, policy: &Policy, defaults: &Policy, problems: &Problems) {
    let Some(Retries::Set(own)) = &policy.retries else {
        return;
    };
    let merged = match &defaults.retries {
        Some(Retries::Set(defaults)) => own.merged_over(defaults),
        _ => (**own).clone(),
    };
    let conditions = merged.has_conditions();
    let attempts = merged.attempts;
    if conditions && attempts.is_none() {
        problems.warn(
            &format_args!("{path}.retries"),
            &"there is something to retry on, but no attempts: Envoy retries once",
            &"write attempts: 1, or how many are meant",
        );
    }
    if attempts.is_some_and(|attempts| attempts > 0) && !conditions {
        problems.warn(&format_args!("{path}.retries.attempts"), &"attempts without retryOn: nothing is retried unless the route's own policy says on what", &"write for example retryOn: [connect-failure, refused-stream]");
    }
    let timeout = policy.timeout.or(defaults.timeout);
    if let (Some(Timeout::After(timeout)), Some(per_try)) = (timeout, merged.per_try_timeout)
        && per_try >= timeout
    {
        problems.warn(
            &format_args!("{path}.retries.perTryTimeout"),
            &format_args!(
                "{per_try} is not shorter than the timeout of {timeout}, so Envoy ignores it"
            ),
            &format_args!("write less than {timeout}"),
        );
    }
}
