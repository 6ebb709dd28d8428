//! Overrides: what holds for some requests instead of the defaults. The configuration calls them `routes`.

use super::declare::{Name, Rule, Set, object, text};
use super::document::quoted;
use super::policy::Policy;
use super::read::At;
use super::requests::RequestMatch;
use super::signals::ForwardedProto;
use super::trust::RuleName;

object! {
    /// One of the fields of [defaults](#defaults) or `forwardedProto` has to be there. What is not said here is as in
    /// `defaults`; `retries` are merged over them field by field.
    pub struct Route = "Route", "routes[]", "{name: uploads, match: {paths: [{prefix: /upload}]}, timeout: 5m}",
        Rule::AtLeastOneOf {
            names: &[Name::Shared(Policy::NAMES), Name::Field("forwardedProto")],
            message: "this route changes nothing",
            help: "write for example timeout: 5m, or take the route out",
        };
    derive Default;

    /// For logs and `explain`; unique.
    name: String = required "name": RuleName, "uploads";
    /// Which requests it is about.
    matches: RouteMatch = required "match": RouteMatch, "{paths: [{prefix: /upload}]}";
    /// What replaces the defaults.
    policy: Policy = shared;
    /// Replaces a trusted load balancer's own `forwardedProto` on this route. It says nothing for untrusted peers.
    forwarded_proto: Option<ForwardedProto> = optional "forwardedProto": ForwardedProto, "as the rule says",
        "{default: https}";
}

object! {
    /// Every condition given must hold; within a list one entry. Match by hosts, paths, methods and virtual hosts if
    /// you can: `routes` and `virtualServices` see the route from *before* the correction, and none behind
    /// httpsRedirect.
    pub struct RouteMatch = "RouteMatch", "routes[].match", "{paths: [{prefix: /upload}]}", Rule::AtLeastOne {
        message: "an empty match would hold for every request",
        help: "put what is meant for every request under defaults",
    };
    derive Default;

    /// The request itself.
    request: RequestMatch = shared;
    /// Envoy's virtual host (`xds.virtual_host_name`).
    virtual_hosts: Vec<NamePattern> = optional "virtualHosts": Set<NameStart>, "any", "[\"shop.example.com:80\"]";
    /// Envoy's route (`xds.route_name`; a VirtualService's `http[].name`).
    routes: Vec<NamePattern> = optional "routes": Set<NameStart>, "any", "[uploads, \"report-*\"]";
    /// Istio's VirtualService.
    virtual_services: Vec<String> = optional "virtualServices": Set<VirtualService>, "any", "[shop/checkout]";
}

/// A name to match with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NamePattern {
    /// This name.
    Exact(String),
    /// `name*`: names that begin with this.
    Prefix(String),
}

impl std::fmt::Display for NamePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NamePattern::Exact(name) => f.write_str(name),
            NamePattern::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

text! {
    /// A name, or the beginning of one and `*`.
    NameStart: NamePattern = "name, or its beginning and *", "uploads, or uploads-*", name_pattern, r"^[^*]+\*?$";
}

fn name_pattern(at: At<'_>) -> Option<NamePattern> {
    let text = at.some_text()?;
    let (bare, pattern) = match text.strip_suffix('*') {
        Some(prefix) => (prefix, NamePattern::Prefix(prefix.to_owned())),
        None => (text, NamePattern::Exact(text.to_owned())),
    };
    if bare.contains('*') || bare.is_empty() {
        at.error_with_help(
            &format_args!("{}: a * stands at the end of a name only", quoted(text)),
            &"write a name such as uploads, or the beginning of one such as uploads-*",
        );
        return None;
    }
    Some(pattern)
}

text! {
    /// A VirtualService's namespace and name.
    VirtualService: String = "namespace/name", "shop/checkout", virtual_service, r"^[a-z0-9.-]+/[a-z0-9.-]+$";
}

fn virtual_service(at: At<'_>) -> Option<String> {
    let text = at.some_text()?;
    let valid = text.split_once('/').is_some_and(|(namespace, name)| {
        [namespace, name].iter().all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
        })
    });
    if !valid {
        at.error_with_help(
            &format_args!("{} is not a VirtualService", quoted(text)),
            &"write its namespace and name, such as shop/checkout",
        );
        return None;
    }
    Some(text.to_owned())
}
