//! Where the direct peer's address is read: the configuration's `peerAddress`.

use std::cell::OnceCell;
use std::net::IpAddr;

use super::facts::Facts;
use super::names::HeaderId;
use super::peer::{self, Peer, PeerProblem};
use super::request::{Attribute, Request};
use super::secret::Secret;

/// Where the direct peer's address is read; see [`crate::config::PeerAddress`].
#[derive(Clone, Debug)]
pub(crate) enum PeerSource {
    Auto,
    Source,
    ForwardedFor,
    /// The connection's filter state. No client can write it.
    FilterState {
        /// The attribute's path.
        path: String,
    },
    /// An early-mutation header, and the token that it begins with.
    Header {
        header: HeaderId,
        token: Secret,
    },
}

impl PeerSource {
    fn read<R: Request>(&self, facts: &Facts<'_, R>) -> Peer {
        match self {
            PeerSource::Auto => peer::agreed(
                peer::from_source(facts.attribute(Attribute::SourceAddress)),
                facts.header(HeaderId::FORWARDED_FOR),
            ),
            PeerSource::Source => peer::from_source(facts.attribute(Attribute::SourceAddress)),
            // For a peer without an IP address Envoy appends nothing: the right-most entry is the client's own. Such a
            // connection has no port at this end either.
            PeerSource::ForwardedFor if facts.destination_port().is_none() => {
                Peer::Unknown(PeerProblem::NotAnAddress)
            }
            PeerSource::ForwardedFor => {
                peer::from_forwarded_for(facts.header(HeaderId::FORWARDED_FOR))
            }
            PeerSource::FilterState { path } => {
                peer::from_filter_state(facts.attribute_at(path).as_ref().map(AsRef::as_ref))
            }
            PeerSource::Header { header, token } => peer::from_helper(facts.header(*header), token),
        }
    }
}

/// The direct peer of one request: read when a rule first asks for it.
pub(crate) struct DirectPeer<'e> {
    source: &'e PeerSource,
    peer: OnceCell<Peer>,
}

impl<'e> DirectPeer<'e> {
    pub(crate) fn new(source: &'e PeerSource) -> Self {
        Self {
            source,
            peer: OnceCell::new(),
        }
    }

    pub(crate) fn address<R: Request>(&self, facts: &Facts<'_, R>) -> Option<IpAddr> {
        self.peer.get_or_init(|| self.source.read(facts)).address()
    }

    /// The peer, if a rule has asked for it.
    pub(crate) fn if_asked(&self) -> Option<Peer> {
        self.peer.get().copied()
    }
}
