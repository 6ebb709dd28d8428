//! A rule of trust: which peers it trusts, and how they tell the client's scheme.

use super::cidr_set::CidrSet;
use super::facts::Facts;
use super::forwarded_proto::ForwardedProto;
use super::matcher::{Condition, RequestMatch};
use super::peer_source::DirectPeer;
use super::request::{Attribute, Request};
use crate::config::ClientCertificate;

/// A compiled rule of trust.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) matches: RuleMatch,
    pub(crate) forwarded_proto: ForwardedProto,
}

/// Conditions on the connection and on the request's own headers.
#[derive(Clone, Debug, Default)]
pub(crate) struct RuleMatch {
    pub(crate) ip_blocks: Option<CidrSet>,
    pub(crate) not_ip_blocks: Option<CidrSet>,
    pub(crate) ports: Vec<u16>,
    pub(crate) not_ports: Vec<u16>,
    pub(crate) client_certificate: Option<ClientCertificate>,
    pub(crate) request: RequestMatch,
}

impl RuleMatch {
    /// The first condition that doesn't hold, if any. What can't be told doesn't hold, negated or not.
    #[inline(always)]
    pub(crate) fn unmet<R: Request>(
        &self,
        facts: &Facts<'_, R>,
        peer: &DirectPeer<'_>,
    ) -> Option<Condition> {
        if let Some(blocks) = &self.ip_blocks
            && !peer
                .address(facts)
                .is_some_and(|peer| blocks.contains(peer))
        {
            return Some(Condition("ipBlocks"));
        }
        if let Some(blocks) = &self.not_ip_blocks
            && peer.address(facts).is_none_or(|peer| blocks.contains(peer))
        {
            return Some(Condition("notIpBlocks"));
        }
        if !self.ports.is_empty()
            && !facts
                .destination_port()
                .is_some_and(|port| self.ports.contains(&port))
        {
            return Some(Condition("ports"));
        }
        if !self.not_ports.is_empty()
            && facts
                .destination_port()
                .is_none_or(|port| self.not_ports.contains(&port))
        {
            return Some(Condition("notPorts"));
        }
        if let Some(certificate) = &self.client_certificate
            && !holds(certificate, facts)
        {
            return Some(Condition("clientCertificate"));
        }
        self.request.unmet(facts)
    }
}

/// Whether the client presented a certificate that these conditions hold for.
fn holds<R: Request>(certificate: &ClientCertificate, facts: &Facts<'_, R>) -> bool {
    let among = |list: &[String], attribute| {
        list.is_empty()
            || facts
                .attribute(attribute)
                .is_some_and(|value| list.iter().any(|known| known.as_bytes() == value))
    };
    facts.is_mutual_tls()
        && among(&certificate.uri_sans, Attribute::UriSan)
        && among(&certificate.dns_sans, Attribute::DnsSan)
        && among(&certificate.sha256, Attribute::CertificateDigest)
}
