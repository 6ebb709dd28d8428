//! Overrides, the configuration's `routes`: which requests get other timeouts and retries. The first match in listed
//! order wins.

use super::facts::Facts;
use super::forwarded_proto::ForwardedProto;
use super::matcher::{Condition, RequestMatch};
use super::policy::Policy;
use super::request::{Attribute, Request};
use crate::config::NamePattern;

/// A compiled override.
#[derive(Clone, Debug)]
pub(crate) struct Override {
    pub(crate) name: String,
    pub(crate) request: RequestMatch,
    pub(crate) virtual_hosts: Vec<NamePattern>,
    pub(crate) routes: Vec<NamePattern>,
    pub(crate) virtual_services: Vec<String>,
    /// Merged over the defaults.
    pub(crate) policy: Policy,
    pub(crate) forwarded_proto: Option<ForwardedProto>,
}

impl Override {
    /// The first condition that doesn't hold, if any. The request's own headers are looked at first: they are read
    /// already, Envoy's names cost a call each.
    pub(crate) fn unmet<R: Request>(&self, facts: &Facts<'_, R>) -> Option<Condition> {
        if let Some(condition) = self.request.unmet(facts) {
            return Some(condition);
        }
        let named = |patterns: &[NamePattern], attribute| {
            patterns.is_empty()
                || facts
                    .attribute(attribute)
                    .is_some_and(|name| patterns.iter().any(|pattern| is_named(pattern, name)))
        };
        if !named(&self.virtual_hosts, Attribute::VirtualHostName) {
            return Some(Condition("virtualHosts"));
        }
        if !named(&self.routes, Attribute::RouteName) {
            return Some(Condition("routes"));
        }
        if !self.virtual_services.is_empty()
            && !facts
                .attribute(Attribute::RouteIstioConfig)
                .and_then(virtual_service)
                .is_some_and(|(namespace, name)| {
                    self.virtual_services.iter().any(|known| {
                        known.split_once('/').is_some_and(|(ns, n)| {
                            ns.as_bytes() == namespace && n.as_bytes() == name
                        })
                    })
                })
        {
            return Some(Condition("virtualServices"));
        }
        None
    }
}

fn is_named(pattern: &NamePattern, name: &[u8]) -> bool {
    match pattern {
        NamePattern::Exact(exact) => name == exact.as_bytes(),
        NamePattern::Prefix(prefix) => name.starts_with(prefix.as_bytes()),
    }
}

/// Namespace and name out of `/apis/networking.istio.io/v1/namespaces/NS/virtual-service/NAME`.
pub(crate) fn virtual_service(config: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = config.split(|byte| *byte == b'/');
    let namespace = parts
        .by_ref()
        .skip_while(|part| *part != b"namespaces")
        .nth(1)?;
    (parts.next()? == b"virtual-service").then_some(())?;
    let name = parts.next()?;
    parts.next().is_none().then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_service_is_read_from_istios_path() {
        let read = |path: &str| {
            virtual_service(path.as_bytes()).map(|(namespace, name)| {
                format!(
                    "{}/{}",
                    String::from_utf8_lossy(namespace),
                    String::from_utf8_lossy(name)
                )
            })
        };
        assert_eq!(
            read("/apis/networking.istio.io/v1/namespaces/shop/virtual-service/checkout")
                .as_deref(),
            Some("shop/checkout")
        );
        assert_eq!(
            read("/apis/networking.istio.io/v1/namespaces/shop/gateway/checkout"),
            None
        );
        assert_eq!(
            read("/apis/networking.istio.io/v1/namespaces/shop/virtual-service"),
            None
        );
        assert_eq!(read(""), None);
    }
}
