//! What the engine may ask about one request. The filter answers from Envoy; commands and tests answer from plain data.

/// A fact that Envoy knows about a request, by the name of its attribute.
///
/// Values have Envoy's own form: strings as they are, integers as 8 bytes little-endian, booleans as one byte. An
/// attribute that doesn't apply (TLS attributes on plain connections) has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// `source.address`: `ip:port` of the direct peer, or, with port 0, the address that Envoy took from a header.
    SourceAddress,
    /// `destination.port`.
    DestinationPort,
    /// `request.protocol`: `HTTP/1.0`, `HTTP/1.1`, `HTTP/2` or `HTTP/3`.
    Protocol,
    /// `connection.tls_version`: present if the connection to the gateway is TLS.
    TlsVersion,
    /// `connection.mtls`: whether the client presented a certificate.
    MutualTls,
    /// `connection.uri_san_peer_certificate`: the first URI SAN of the client certificate.
    UriSan,
    /// `connection.dns_san_peer_certificate`: the first DNS SAN of the client certificate.
    DnsSan,
    /// `connection.sha256_peer_certificate_digest`: lower-case hex.
    CertificateDigest,
    /// `xds.virtual_host_name`.
    VirtualHostName,
    /// `xds.route_name`.
    RouteName,
    /// `xds.route_metadata` → `filter_metadata` → `istio` → `config`: the path of the Istio resource that made the route.
    RouteIstioConfig,
}

impl Attribute {
    /// Every attribute.
    pub const ALL: [Attribute; 11] = [
        Attribute::SourceAddress,
        Attribute::DestinationPort,
        Attribute::Protocol,
        Attribute::TlsVersion,
        Attribute::MutualTls,
        Attribute::UriSan,
        Attribute::DnsSan,
        Attribute::CertificateDigest,
        Attribute::VirtualHostName,
        Attribute::RouteName,
        Attribute::RouteIstioConfig,
    ];

    /// The attribute's path, its segments separated by NUL as proxy-wasm hosts read them.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Attribute::SourceAddress => "source\0address",
            Attribute::DestinationPort => "destination\0port",
            Attribute::Protocol => "request\0protocol",
            Attribute::TlsVersion => "connection\0tls_version",
            Attribute::MutualTls => "connection\0mtls",
            Attribute::UriSan => "connection\0uri_san_peer_certificate",
            Attribute::DnsSan => "connection\0dns_san_peer_certificate",
            Attribute::CertificateDigest => "connection\0sha256_peer_certificate_digest",
            Attribute::VirtualHostName => "xds\0virtual_host_name",
            Attribute::RouteName => "xds\0route_name",
            Attribute::RouteIstioConfig => "xds\0route_metadata\0filter_metadata\0istio\0config",
        }
    }
}

/// One request, as far as the engine can see it.
pub trait Request {
    /// An attribute's value.
    type Value: AsRef<[u8]>;

    /// Every header line, pseudo-headers included, names in lower case, values as the bytes that came.
    fn header_lines(&self) -> impl Iterator<Item = (&[u8], &[u8])>;

    /// The value of the attribute with this path, its segments separated by NUL; nothing if it has none. An attribute is
    /// asked for at most once a request.
    fn attribute(&self, path: &str) -> Option<Self::Value>;
}
