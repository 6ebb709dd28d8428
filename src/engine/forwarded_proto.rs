//! The client's scheme, as a trusted load balancer tells it.

use super::decision::SchemeSource;
use super::facts::Facts;
use super::names::HeaderNames;
use super::request::Request;
use super::secret::Secret;
use super::signal::{Reading, Signal};
use crate::config::{DefaultScheme, Scheme};

/// How a trusted load balancer tells the scheme.
#[derive(Clone, Debug)]
pub(crate) struct ForwardedProto {
    pub(crate) from: Vec<Signal>,
    pub(crate) default: DefaultScheme,
}

impl ForwardedProto {
    /// The first signal that is present answers; if it is unusable, or none is present, the default does.
    pub(crate) fn scheme<'e, R: Request>(
        &self,
        facts: &Facts<'_, R>,
        names: &'e HeaderNames,
        token: &Secret,
    ) -> (Scheme, SchemeSource<'e>) {
        let mut unusable = None;
        for signal in &self.from {
            let header = names.name(signal.header);
            match signal.read(facts.header(signal.header), token) {
                Reading::Absent => {}
                Reading::Says(scheme) => return (scheme, SchemeSource::Signal { header }),
                Reading::Unusable => {
                    unusable = Some(header);
                    break;
                }
            }
        }
        let scheme = match self.default {
            DefaultScheme::Scheme(scheme) => scheme,
            DefaultScheme::Connection => facts.connection(),
        };
        (scheme, SchemeSource::Default { unusable })
    }

    /// What each signal says, for people.
    pub(crate) fn readings<'e, R: Request>(
        &self,
        facts: &Facts<'_, R>,
        names: &'e HeaderNames,
        token: &Secret,
    ) -> Vec<(&'e str, Reading)> {
        self.from
            .iter()
            .map(|signal| {
                let reading = signal.read(facts.header(signal.header), token);
                (names.name(signal.header), reading)
            })
            .collect()
    }
}
