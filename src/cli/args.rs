//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::names;

/// Checks and explains configurations of trusted-lb.
#[derive(Debug, Parser)]
#[command(
    name = "trusted-lb",
    version = super::VERSION,
    max_term_width = 100,
    after_help = "Examples:\n  trusted-lb check wasmplugin.yaml\n  trusted-lb check wasmplugin.yaml virtual-services.yaml\n  \
        trusted-lb explain config.yaml --peer 10.0.12.5 --url https://shop.example.com/ -H 'x-forwarded-port: 443'\n  \
        trusted-lb render wasmplugin config.yaml --url oci://registry.example.com/trusted-lb:0.1.0\n  \
        trusted-lb migrate lua-envoyfilter.yaml --ip-block 10.0.12.0/24\n\nExit codes: 0 good, 1 a configuration is \
        invalid, 2 wrong usage."
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Find what is wrong with configurations, in whatever files hold them
    Check(CheckArgs),
    /// Say what becomes of a request, and why
    Explain(Box<ExplainArgs>),
    /// Write a complete manifest around a configuration
    Render(RenderArgs),
    /// Turn Lua filters into the plugin that replaces them
    Migrate(MigrateArgs),
    /// Print the JSON Schema of the configuration
    Schema,
    /// Print the configuration reference, as Markdown
    Reference,
    /// Print shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Text,
    /// For machines
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum CheckFormat {
    /// For people
    #[default]
    Text,
    /// For machines
    Json,
    /// SARIF 2.1.0, for code scanning services and editors
    Sarif,
    /// Annotations of a GitHub workflow
    Github,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum CheckTarget {
    /// The module
    #[default]
    Module,
    /// Envoy's own filters, as `render native` writes them: what they can't say is an error, too
    Native,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Plugin configurations, WasmPlugin, TrafficExtension, EnvoyFilter, VirtualService, Envoy Gateway's policies, Envoy
    /// bootstraps, config dumps; folders of them; - is stdin
    #[arg(required_unless_present = "explain", value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// Say what a kind of finding means and what to do about it; all prints every kind, as Markdown
    #[arg(long, value_name = "CODE", conflicts_with_all = ["files", "format", "target"])]
    pub(super) explain: Option<String>,
    /// What the configurations are for
    #[arg(long, default_value = "module")]
    pub(super) target: CheckTarget,
    /// How problems are printed
    #[arg(long, default_value = "text")]
    pub(super) format: CheckFormat,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// A file with one configuration; - is stdin
    pub(super) file: PathBuf,
    /// The address of the direct peer: whoever opened the connection to the gateway
    #[arg(long, value_name = "ADDRESS")]
    pub(super) peer: IpAddr,
    /// The x-forwarded-for that the peer sends
    #[arg(long, value_name = "LIST")]
    pub(super) xff: Option<String>,
    /// The gateway's port; behind the PROXY protocol the one that its header names
    #[arg(long, default_value_t = 8080)]
    pub(super) port: u16,
    /// The method
    #[arg(long, default_value = "GET", value_parser = names::method)]
    pub(super) method: String,
    /// The URL; its scheme is what an HTTP/2 peer says itself
    #[arg(long, default_value = "http://app.example.com/", value_parser = names::request_url)]
    pub(super) url: names::RequestUrl,
    /// A header line, as often as needed
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header_line)]
    pub(super) headers: Vec<(String, String)>,
    /// The peer speaks HTTP/2
    #[arg(long)]
    pub(super) http2: bool,
    /// The connection to the gateway is TLS
    #[arg(long)]
    pub(super) tls: bool,
    /// The first URI SAN of the peer's client certificate, on a TLS connection that Envoy has verified
    #[arg(long, value_name = "URI")]
    pub(super) client_cert_uri: Option<String>,
    /// The first DNS SAN of the peer's client certificate
    #[arg(long, value_name = "NAME")]
    pub(super) client_cert_dns: Option<String>,
    /// The fingerprint of the peer's client certificate, in hex
    #[arg(long, value_name = "SHA256")]
    pub(super) client_cert_sha256: Option<String>,
    /// The client's address that the peer's PROXY protocol header claims
    #[arg(long, value_name = "ADDRESS")]
    pub(super) proxy_protocol: Option<IpAddr>,
    /// Istio's numTrustedProxies, Envoy's `xff_num_trusted_hops`; without it what the file shows, or 0
    #[arg(long, value_name = "HOPS")]
    pub(super) num_trusted_proxies: Option<u32>,
    /// Envoy's virtual host
    #[arg(long, value_name = "NAME")]
    pub(super) virtual_host: Option<String>,
    /// Envoy's route
    #[arg(long, value_name = "NAME")]
    pub(super) route: Option<String>,
    /// Istio's VirtualService
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub(super) virtual_service: Option<String>,
    /// A variable of the Wasm VM's environment; others are taken from this process's
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    pub(super) environment: Vec<(String, String)>,
    /// How the decision is printed
    #[arg(long, default_value = "text")]
    pub(super) format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Phase {
    /// In front of authentication
    Authn,
    /// In front of authorization
    Authz,
    /// In front of statistics
    Stats,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(clippy::enum_variant_names)] // Istio's own names.
pub(super) enum FailStrategy {
    /// Without the filter nothing is served
    FailClose,
    /// Without the filter requests pass uncorrected
    FailOpen,
    /// As fail-close, and a filter that ended is started again
    FailReload,
}

#[derive(Debug, Args)]
#[command(subcommand_value_name = "TARGET", subcommand_help_heading = "Targets")]
pub(super) struct RenderArgs {
    /// What to write
    #[command(subcommand)]
    pub(super) target: Target,
}

/// What `render` writes. Each has the options that it has a use for.
#[derive(Debug, Subcommand)]
pub(super) enum Target {
    /// Istio's WasmPlugin
    Wasmplugin(IstioPluginArgs),
    /// Istio's TrafficExtension, in place of the WasmPlugin from Istio 1.30 on
    Trafficextension(IstioPluginArgs),
    /// An EnvoyFilter that reads the module from a file
    Envoyfilter(EnvoyFilterArgs),
    /// Envoy Gateway's `EnvoyExtensionPolicy`
    Envoyextensionpolicy(PolicyArgs),
    /// The HTTP filter for a standalone Envoy
    Envoy(FilterArgs),
    /// A `ValidatingAdmissionPolicy`: the API server refuses most configurations that a gateway would refuse
    AdmissionPolicy(AdmissionArgs),
    /// The same decisions by Envoy's own filters, without the module
    Native(super::native::NativeArgs),
}

/// What every target has.
#[derive(Debug, Args)]
pub(super) struct CommonArgs {
    /// A file with one configuration, in whatever it stands; - is stdin
    pub(super) file: PathBuf,
    /// The name of the resource, or of the filter
    #[arg(long, default_value = "trusted-lb", value_parser = names::resource)]
    pub(super) name: String,
}

#[derive(Debug, Args)]
pub(super) struct IstioPluginArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// The resource's namespace
    #[arg(long, default_value = "istio-ingress", value_parser = names::label)]
    pub(super) namespace: String,
    /// Labels of the gateway's pods, as often as needed
    #[arg(long, value_name = "LABEL=VALUE", value_parser = names::pod_label, default_value = "istio=ingressgateway")]
    pub(super) selector: Vec<(String, String)>,
    /// A Gateway (Gateway API) in place of the selector
    #[arg(long, value_name = "GATEWAY", conflicts_with = "selector", value_parser = names::resource)]
    pub(super) target_ref: Option<String>,
    /// Where Istio gets the module
    #[arg(long, default_value = "oci://registry.example.com/trusted-lb:0.1.0", value_parser = names::module_url)]
    pub(super) url: String,
    /// Of the manifest for oci://, of the module for https://
    #[arg(long, value_parser = names::sha256)]
    pub(super) sha256: Option<String>,
    /// Where in the filter chain
    #[arg(long, default_value = "authn")]
    pub(super) phase: Phase,
    /// What happens if the module can't be loaded
    #[arg(long, default_value = "fail-close")]
    pub(super) fail_strategy: FailStrategy,
}

#[derive(Debug, Args)]
pub(super) struct EnvoyFilterArgs {
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// The resource's namespace
    #[arg(long, default_value = "istio-ingress", value_parser = names::label)]
    pub(super) namespace: String,
    /// Labels of the gateway's pods, as often as needed
    #[arg(long, value_name = "LABEL=VALUE", value_parser = names::pod_label, default_value = "istio=ingressgateway")]
    pub(super) selector: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(super) struct PolicyArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// The namespace of the resource, and of the Gateway
    #[arg(long, default_value = "default", value_parser = names::label)]
    pub(super) namespace: String,
    /// The Gateway that the plugin is for
    #[arg(long, value_name = "GATEWAY", value_parser = names::resource)]
    pub(super) target_ref: String,
    /// Where Envoy Gateway gets the module: an image, or a URL of the module
    #[arg(long, default_value = "registry.example.com/trusted-lb:0.1.0", value_parser = names::module_url)]
    pub(super) url: String,
    /// Of the manifest for an image, of the module for https://
    #[arg(long, value_parser = names::sha256)]
    pub(super) sha256: Option<String>,
    /// Requests pass uncorrected if the module can't be loaded
    #[arg(long)]
    pub(super) fail_open: bool,
}

#[derive(Debug, Args)]
pub(super) struct AdmissionArgs {
    /// The name of the policy and of its binding
    #[arg(long, default_value = "trusted-lb", value_parser = names::resource)]
    pub(super) name: String,
    /// What the plugin's own name or its URL contains, so that others are left alone
    #[arg(long, default_value = "trusted-lb", value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(super) plugin: String,
}

#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// The module's file
    #[arg(long, default_value = "/etc/trusted-lb/trusted_lb.wasm")]
    pub(super) file_in_proxy: String,
    /// What happens if the module can't be loaded
    #[arg(long, default_value = "fail-close")]
    pub(super) fail_strategy: FailStrategy,
}

#[derive(Clone, Debug, Args)]
pub(super) struct MigrateArgs {
    /// Files with Lua filters: manifests of Istio or Envoy Gateway, Envoy bootstraps; - is stdin
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// The load balancer's subnets, as often as needed
    #[arg(long = "ip-block", value_name = "CIDR")]
    pub(super) ip_blocks: Vec<String>,
    /// Decide and count beside the Lua filter, but change nothing
    #[arg(long)]
    pub(super) shadow: bool,
    /// Run the script and the translation on the same requests, and print what stays and what changes
    #[arg(long)]
    pub(super) compare: bool,
    /// Where Istio gets the module
    #[arg(long, default_value = "oci://registry.example.com/trusted-lb:0.1.0")]
    pub(super) url: String,
}

fn header_line(text: &str) -> Result<(String, String), String> {
    let Some((name, value)) = text.split_once(':') else {
        return Err("write a header as 'name: value'".to_owned());
    };
    let (name, value) = (name.trim(), value.trim());
    if !names::is_token(name) {
        return Err(format!(
            "{name:?} is no header name; write a header as 'name: value'"
        ));
    }
    if value.chars().any(char::is_control) {
        return Err("a header's value has no control characters".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}
