//! Rules of trust: who may speak for the client's scheme.

use super::address::{self, Block, IpBlock};
use super::declare::{Boolean, Rule, Set, object, text};
use super::document::quoted;
use super::port::Port;
use super::read::{At, Fields};
use super::requests::{HeaderMatch, RequestMatch};
use super::signals::ForwardedProto;

object! {
    /// One rule of trust: who is trusted, and how that load balancer tells the client's scheme.
    pub struct TrustedLoadBalancer = "TrustedLoadBalancer", "trustedLoadBalancers[]",
        "{name: public-alb, match: {ipBlocks: [10.0.12.0/24]}, forwardedProto: {default: https}}";
    derive Default;
    check tells_somebody_from_anybody;

    /// For logs and `explain`; unique.
    name: String = required "name": RuleName, "public-alb";
    /// Who it is. Every condition given must hold. There has to be one that an arbitrary client doesn't fulfil:
    /// `ipBlocks`, a header with a value, or `clientCertificate`.
    matches: LoadBalancerMatch = required "match": LoadBalancerMatch, "{ipBlocks: [10.0.12.0/24]}";
    /// How it tells the scheme that its client used.
    forwarded_proto: ForwardedProto = required "forwardedProto": ForwardedProto, "{default: https}";
    /// Allows a match that trusts everybody.
    insecure_trust_anyone: bool = optional "insecureTrustAnyone": Boolean, "false", "true";
}

object! {
    /// Every condition given must hold; within a list one entry. What can't be told doesn't hold, negated or not.
    pub struct LoadBalancerMatch = "LoadBalancerMatch", "trustedLoadBalancers[].match", "{ipBlocks: [10.0.12.0/24]}",
        Rule::AtLeastOne {
            message: "an empty match would trust everybody",
            help: "write for example ipBlocks: [10.0.12.0/24]",
        };
    derive Default;

    /// The direct peer's address: CIDRs, addresses, named sets (see below). Blocks that together are the whole internet
    /// are refused.
    ip_blocks: Vec<IpBlock> = optional "ipBlocks": Set<Block>, "any", "[10.0.12.0/24, \"2001:db8::/56\"]";
    /// The address lies in none of these.
    not_ip_blocks: Vec<IpBlock> = optional "notIpBlocks": Set<Block>, "none", "[10.0.12.1]";
    /// The connection's destination port at the gateway (8080 behind a Service port of 80).
    ports: Vec<u16> = optional "ports": Set<Port>, "any", "[8080]";
    /// The port is none of these.
    not_ports: Vec<u16> = optional "notPorts": Set<Port>, "none", "[15021]";
    /// The request itself.
    request: RequestMatch = shared;
    /// The certificate of an mTLS connection to the gateway. Envoy verifies it; with
    /// `trust_chain_verification: ACCEPT_UNTRUSTED` it doesn't, and this says nothing.
    client_certificate: Option<ClientCertificate> = optional "clientCertificate": ClientCertificate, "any",
        "{uriSans: [\"spiffe://cluster.local/ns/edge/sa/lb\"]}";
}

object! {
    /// Every list given must hold; of each, one entry.
    pub struct ClientCertificate = "ClientCertificate", "clientCertificate",
        "{uriSans: [\"spiffe://cluster.local/ns/edge/sa/lb\"]}", Rule::AtLeastOne {
            message: "an empty clientCertificate would accept every certificate",
            help: "write for example {uriSans: [\"spiffe://cluster.local/ns/edge/sa/lb\"]}",
        };
    derive Default;

    /// The first URI subject alternative name (Envoy shows no other).
    uri_sans: Vec<String> = optional "uriSans": Set<SubjectAlternativeName>, "any",
        "[\"spiffe://cluster.local/ns/edge/sa/lb\"]";
    /// The first DNS subject alternative name.
    dns_sans: Vec<String> = optional "dnsSans": Set<SubjectAlternativeName>, "any", "[origin-pull.example.net]";
    /// The certificate's SHA-256 fingerprint, 64 hex digits, with colons between all bytes or without.
    sha256: Vec<String> = optional "sha256": Set<Fingerprint>, "any",
        "[\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"]";
}

text! {
    /// A name for logs and `explain`.
    RuleName: String = "name", "public-alb", rule_name, r"^[^\u0000-\u001f\u007f-\u009f]{1,128}$";
}

fn rule_name(at: At<'_>) -> Option<String> {
    let text = at.some_text()?;
    if text.chars().nth(128).is_some() || text.chars().any(char::is_control) {
        at.error_with_help(
            &format_args!("{} is not a name", quoted(text)),
            &"write a name of at most 128 characters without control characters, such as public-alb",
        );
        return None;
    }
    Some(text.to_owned())
}

text! {
    /// A subject alternative name of a certificate.
    SubjectAlternativeName: String = "text", "origin-pull.example.net", subject_alternative_name, r"^[\s\S]+$";
}

fn subject_alternative_name(at: At<'_>) -> Option<String> {
    at.some_text().map(str::to_owned)
}

text! {
    /// A SHA-256 fingerprint; kept as lower-case digits.
    Fingerprint: String = "SHA-256 fingerprint", "64 hex digits", fingerprint,
        r"^([0-9A-Fa-f]{64}|[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){31})$";
}

fn fingerprint(at: At<'_>) -> Option<String> {
    let text = at.text()?;
    // openssl prints fingerprints with colons.
    let bytes = text.split(':');
    let with_colons = bytes.clone().count() == 32 && bytes.clone().all(|byte| byte.len() == 2);
    let digits: String = if with_colons {
        bytes.collect()
    } else {
        text.to_owned()
    };
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        at.error_with_help(
            &format_args!("{} is not a SHA-256 digest", quoted(text)),
            &"write the certificate's fingerprint, 64 hex digits, with colons between all bytes or without",
        );
        return None;
    }
    Some(digits.to_ascii_lowercase())
}

/// Refuses a rule that trusts everybody and doesn't say so.
fn tells_somebody_from_anybody(rule: &TrustedLoadBalancer, fields: &Fields<'_>) {
    // What is wrong inside may be the very condition that would tell.
    if rule.insecure_trust_anyone || !fields.is_whole("match") {
        return;
    }
    let matches = &rule.matches;
    if matches.ip_blocks.is_empty()
        && matches.client_certificate.is_none()
        && !matches.asks_for_a_value()
    {
        fields.error_at(
            "match",
            &"nothing here tells the load balancer from anybody else: there is no ipBlocks, no header with a value \
             and no clientCertificate",
            &"add for example ipBlocks: [10.0.12.0/24]; whoever really wants to trust everybody writes \
             insecureTrustAnyone: true beside match",
        );
    }
    if matches.trusts_by_address_alone()
        && let Some(whom) = address::covers_everybody(&matches.nets())
    {
        fields.error_at(
            "match",
            &format_args!("these ipBlocks trust {whom}"),
            &OWN_SUBNETS,
        );
    }
}

/// Rules that trust by address alone, judged together: two halves of the internet are the internet.
pub(crate) fn trust_of_everybody(rules: &[TrustedLoadBalancer], fields: &Fields<'_>) {
    let mut all = Vec::new();
    for rule in rules {
        if rule.insecure_trust_anyone || !rule.matches.trusts_by_address_alone() {
            continue;
        }
        let nets = rule.matches.nets();
        // A rule that trusts everybody by itself is reported where it stands.
        if address::covers_everybody(&nets).is_none() {
            all.extend(nets);
        }
    }
    if let Some(whom) = address::covers_everybody(&all) {
        fields.error_at(
            "trustedLoadBalancers",
            &format_args!("the ipBlocks of these rules together trust {whom}"),
            &OWN_SUBNETS,
        );
    }
}

const OWN_SUBNETS: &str = "list the load balancer's own subnets; whoever really wants to trust everybody writes \
                           insecureTrustAnyone: true beside match";

impl LoadBalancerMatch {
    /// Whether a client has to send some value.
    fn asks_for_a_value(&self) -> bool {
        self.request
            .headers
            .iter()
            .any(HeaderMatch::asks_for_a_value)
    }

    /// Whether nothing but the peer's address tells whom a rule trusts.
    pub(crate) fn trusts_by_address_alone(&self) -> bool {
        self.client_certificate.is_none() && !self.asks_for_a_value()
    }

    /// Whether the peer proves who it is with a secret or a certificate.
    pub(crate) fn is_proven(&self) -> bool {
        self.client_certificate.is_some() || self.request.headers.iter().any(HeaderMatch::is_secret)
    }

    /// Whether `ipBlocks` hold everybody.
    pub(crate) fn trusts_every_address(&self) -> bool {
        address::covers_everybody(&self.nets()).is_some()
    }

    /// The networks of `ipBlocks`.
    fn nets(&self) -> Vec<ipnet::IpNet> {
        self.ip_blocks.iter().flat_map(IpBlock::nets).collect()
    }
}
