//! How a configuration is to be rendered for Envoy's own filters.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::names;
use crate::config::Scheme;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Output {
    /// Fields of a standalone Envoy's listener
    #[default]
    Envoy,
    /// Istio's EnvoyFilter
    Envoyfilter,
    /// Envoy Gateway's `EnvoyPatchPolicy`
    Envoypatchpolicy,
}

/// What becomes of HTTP/2 if one filter chain serves everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Http2 {
    /// The listener speaks HTTP/1 only
    Off,
    /// An untrusted request whose :scheme isn't its connection's is answered 403
    Deny,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum FormChoice {
    /// The cheapest that says the same
    #[default]
    Auto,
    /// One filter chain; who the peer is stands in filter state
    Connection,
    /// A filter chain for each load balancer, for a standalone Envoy
    Chains,
}

/// A version of Envoy, such as 1.38 or 1.38.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Version {
    /// The number behind 1.
    pub(in crate::cli) minor: u16,
}

/// The oldest and the newest minor version that rendered configurations are tested with.
pub(in crate::cli) const TESTED: (u16, u16) = (36, 40);

impl Version {
    /// Reads one.
    ///
    /// # Errors
    /// If it isn't among those that are tested.
    pub(in crate::cli) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.trim_start_matches('v').split('.');
        let major = parts.next();
        let minor = parts.next().and_then(|minor| minor.parse::<u16>().ok());
        let patch = parts
            .next()
            .is_none_or(|patch| patch.parse::<u16>().is_ok());
        let (oldest, newest) = TESTED;
        match minor {
            Some(minor)
                if major == Some("1")
                    && patch
                    && parts.next().is_none()
                    && (oldest..=newest).contains(&minor) =>
            {
                Ok(Self { minor })
            }
            _ => Err(format!(
                "write a version from 1.{oldest} to 1.{newest}, which are tested, such as 1.{newest}"
            )),
        }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct NativeArgs {
    /// A file with one configuration; - is stdin
    pub(in crate::cli) file: PathBuf,
    /// What to write
    #[arg(long = "as", value_name = "KIND", default_value = "envoy")]
    pub(in crate::cli) output: Output,
    /// The version of Envoy that it is for
    #[arg(long, value_name = "VERSION", value_parser = Version::parse, default_value = "1.40")]
    pub(in crate::cli) envoy: Version,
    /// How the direct peer is told
    #[arg(long, default_value = "auto")]
    pub(in crate::cli) form: FormChoice,
    /// What becomes of HTTP/2, whose :scheme Envoy's own filters can't correct (filter chains can)
    #[arg(long)]
    pub(in crate::cli) http2: Option<Http2>,
    /// The listener terminates TLS: for filter chains, and for HTTPS listeners of Envoy Gateway
    #[arg(long)]
    pub(in crate::cli) tls: bool,
    /// The resource's name
    #[arg(long, default_value = "trusted-lb-native", value_parser = names::resource)]
    pub(in crate::cli) name: String,
    /// The resource's namespace
    #[arg(long, default_value = "istio-ingress", value_parser = names::label)]
    pub(in crate::cli) namespace: String,
    /// Labels of the gateway's pods, as often as needed (EnvoyFilter)
    #[arg(long, value_name = "LABEL=VALUE", value_parser = names::pod_label, default_value = "istio=ingressgateway")]
    pub(in crate::cli) selector: Vec<(String, String)>,
    /// The Gateway (`EnvoyPatchPolicy`)
    #[arg(long, default_value = "eg", value_parser = names::resource)]
    pub(in crate::cli) gateway: String,
    /// The Gateway's listener (`EnvoyPatchPolicy`)
    #[arg(long, default_value = "http", value_parser = names::label)]
    pub(in crate::cli) listener: String,
}

/// What a plan has to know.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Options {
    pub(super) version: Version,
    pub(super) http2: Option<Http2>,
    /// Whether there may be a filter chain for each load balancer.
    pub(super) chains: bool,
    pub(super) tls: bool,
}

impl Options {
    /// Those of `render native`.
    ///
    /// # Errors
    /// Options that contradict each other.
    pub(super) fn of(args: &NativeArgs) -> Result<Self, String> {
        let standalone = args.output == Output::Envoy;
        if args.form == FormChoice::Chains && !standalone {
            return Err(
                "--form chains is for a standalone Envoy: in Istio and Envoy Gateway a second filter chain would lack what \
                 the control plane puts into the first"
                    .to_owned(),
            );
        }
        Ok(Self {
            version: args.envoy,
            http2: args.http2,
            chains: standalone && args.form != FormChoice::Connection,
            tls: args.tls,
        })
    }

    /// For the newest Envoy of its own, without TLS.
    pub(super) fn standalone(chains: bool) -> Self {
        Self {
            version: Version { minor: TESTED.1 },
            http2: Some(Http2::Off),
            chains,
            tls: false,
        }
    }

    /// The choices that `render native` leaves to people, for the newest Envoy: the one that changes least for clients first.
    pub(super) fn attempts(output: Output) -> [Self; 3] {
        [None, Some(Http2::Deny), Some(Http2::Off)].map(|http2| Self {
            version: Version { minor: TESTED.1 },
            http2,
            chains: output == Output::Envoy,
            tls: false,
        })
    }

    /// As they are written behind `render native FILE`.
    pub(super) fn written(self, output: Output) -> String {
        let output = match output {
            Output::Envoy => "",
            Output::Envoyfilter => " --as envoyfilter",
            Output::Envoypatchpolicy => " --as envoypatchpolicy",
        };
        let http2 = match self.http2 {
            None => "",
            Some(Http2::Deny) => " --http2 deny",
            Some(Http2::Off) => " --http2 off",
        };
        format!("{output}{http2}")
    }

    /// What a connection to the listener is.
    pub(super) fn connection(self) -> Scheme {
        if self.tls {
            Scheme::Https
        } else {
            Scheme::Http
        }
    }
}
