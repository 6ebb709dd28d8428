//! What becomes of requests from peers that no rule trusts.

use super::facts::Facts;
use super::peer_source::DirectPeer;
use super::request::Request;
use super::rule::RuleMatch;
use crate::config::UntrustedProto;

/// The compiled `untrusted`.
#[derive(Clone, Debug)]
pub(crate) struct Untrusted {
    /// What x-forwarded-proto becomes. Absent if the configuration says nothing about the scheme: it has no rule of trust
    /// and no `untrusted`.
    pub(crate) forwarded_proto: Option<UntrustedProto>,
    /// The status with which requests are refused.
    pub(crate) refusal: Option<u16>,
    /// Requests that are served all the same.
    pub(crate) except: Vec<RuleMatch>,
}

impl Default for Untrusted {
    /// What a configuration with rules and without `untrusted` says.
    fn default() -> Self {
        Self {
            forwarded_proto: Some(UntrustedProto::default()),
            refusal: None,
            except: Vec::new(),
        }
    }
}

impl Untrusted {
    /// The status with which an untrusted peer's request is refused, unless it is an exception.
    #[inline(never)]
    pub(crate) fn refuses<R: Request>(
        &self,
        facts: &Facts<'_, R>,
        peer: &DirectPeer<'_>,
    ) -> Option<u16> {
        let mut exceptions = self.except.iter();
        self.refusal
            .filter(|_| !exceptions.any(|except| except.unmet(facts, peer).is_none()))
    }
}
