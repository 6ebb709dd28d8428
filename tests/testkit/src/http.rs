//! HTTP clients that choose their own source address and send exactly the bytes they are told to.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{Domain, Socket, Type};

use crate::cases::{Certificate, ClientRequest, Protocol};
use crate::{HeaderLines, latin1};

/// Longer than any test's upstream takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// An HTTP response.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Header lines, names in lower case.
    pub headers: HeaderLines,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a response header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self
            .headers
            .iter()
            .find(|(line, _)| line == name.as_bytes())?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    /// The header lines of the request as the upstream received them, read from its answer; nothing where the answer
    /// isn't the upstream's.
    #[must_use]
    pub fn received_lines(&self) -> Option<HeaderLines> {
        let echo = match self.header("x-echo") {
            Some(text) => text.into_bytes(),
            None => self.body.clone(),
        };
        let echo: serde_json::Value = serde_json::from_slice(&echo).ok()?;
        let lines = echo.get("headers")?.as_array()?;
        let text = |value: &serde_json::Value| latin1(value.as_str().unwrap_or_default());
        Some(
            lines
                .iter()
                .map(|line| (text(&line[0]), text(&line[1])))
                .collect(),
        )
    }

    /// As [`Response::received_lines`], the values of one header.
    #[must_use]
    pub fn received(&self, name: &str) -> Option<Vec<Vec<u8>>> {
        let lines = self.received_lines()?;
        Some(
            lines
                .into_iter()
                .filter(|(line, _)| line == name.as_bytes())
                .map(|(_, value)| value)
                .collect(),
        )
    }

    /// As [`Response::received`], for headers of which there is one line at most.
    #[must_use]
    pub fn received_one(&self, name: &str) -> Option<String> {
        let lines = self.received(name)?;
        lines
            .first()
            .map(|value| String::from_utf8_lossy(value).into_owned())
    }
}

/// Gets a path from a loopback address, as an ordinary client.
///
/// # Errors
/// Where there is no answer.
pub fn try_get(address: SocketAddr, path: &str) -> io::Result<Response> {
    let text = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    exchange(
        address,
        Ipv4Addr::LOCALHOST.into(),
        &Transport::Plain,
        text.as_bytes(),
        false,
    )
}

/// Sends a request of the case table, over the protocol that it names.
///
/// # Errors
/// Where there is no answer.
pub fn send(address: SocketAddr, request: &ClientRequest) -> io::Result<Response> {
    match request.protocol {
        Protocol::Http1 => exchange(
            address,
            request.peer,
            &Transport::of(request),
            &http1_text(request),
            request.method == "HEAD",
        ),
        Protocol::Http2 => http2(address, request),
    }
}

/// An HTTP/1 request as it goes over the connection.
fn http1_text(request: &ClientRequest) -> Vec<u8> {
    let mut text = format!(
        "{} {} HTTP/1.1\r\nhost: {}\r\n",
        request.method, request.path, request.authority
    )
    .into_bytes();
    for (name, value) in request.header_bytes() {
        text.extend_from_slice(&name);
        text.extend_from_slice(b": ");
        text.extend_from_slice(&value);
        text.extend_from_slice(b"\r\n");
    }
    if matches!(request.method.as_str(), "POST" | "PUT") {
        text.extend_from_slice(b"content-length: 0\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text
}

/// A plain HTTP/1 connection that is kept for one request after the other.
pub struct KeptConnection(TcpStream);

impl KeptConnection {
    /// Opens it from `source`.
    ///
    /// # Errors
    /// Where nobody listens.
    pub fn open(address: SocketAddr, source: IpAddr) -> io::Result<Self> {
        connect(address, source).map(Self)
    }

    /// Sends a request, whose peer must be the connection's, and reads the response.
    ///
    /// # Errors
    /// Where there is no answer; the connection is of no use then.
    pub fn send(&mut self, request: &ClientRequest) -> io::Result<Response> {
        self.0.write_all(&http1_text(request))?;
        read_response(&mut self.0, request.method == "HEAD")
    }
}

/// What carries a connection's bytes.
#[derive(Clone, Copy, Debug)]
pub enum Transport {
    /// TCP alone.
    Plain,
    /// TLS, perhaps with a client certificate.
    Tls(Option<Certificate>),
}

impl Transport {
    fn of(request: &ClientRequest) -> Self {
        if request.tls {
            Transport::Tls(request.certificate)
        } else {
            Transport::Plain
        }
    }
}

/// Sends raw bytes over one connection from `source`, and reads one HTTP/1 response.
///
/// # Errors
/// Where there is no answer that can be read.
pub fn exchange(
    address: SocketAddr,
    source: IpAddr,
    transport: &Transport,
    request: &[u8],
    head: bool,
) -> io::Result<Response> {
    let mut connection = connect(address, source)?;
    if let Transport::Tls(certificate) = transport {
        let name =
            rustls::pki_types::ServerName::try_from("app.example.com").map_err(io::Error::other)?;
        let mut session = rustls::ClientConnection::new(tls_config(*certificate), name)
            .map_err(io::Error::other)?;
        let mut stream = rustls::Stream::new(&mut session, &mut connection);
        stream.write_all(request)?;
        read_response(&mut stream, head)
    } else {
        connection.write_all(request)?;
        read_response(&mut connection, head)
    }
}

/// Opens a connection from `source`.
///
/// # Errors
/// Where it can't be opened.
pub fn connect(address: SocketAddr, source: IpAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&address.into(), PATIENCE)?;
    let connection = TcpStream::from(socket);
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_nodelay(true)?;
    Ok(connection)
}

pub(crate) fn read_response(stream: &mut impl Read, head: bool) -> io::Result<Response> {
    let mut buffer = Vec::new();
    let (status, headers, start) = loop {
        let mut parsed = [httparse::EMPTY_HEADER; 128];
        let mut response = httparse::Response::new(&mut parsed);
        match response.parse(&buffer).map_err(io::Error::other)? {
            httparse::Status::Complete(start) => {
                let headers: HeaderLines = response
                    .headers
                    .iter()
                    .map(|header| {
                        (
                            header.name.to_ascii_lowercase().into_bytes(),
                            header.value.to_vec(),
                        )
                    })
                    .collect();
                break (response.code.unwrap_or(0), headers, start);
            }
            httparse::Status::Partial => receive(stream, &mut buffer)?,
        }
    };
    let value = |name: &[u8]| {
        headers
            .iter()
            .find(|(line, _)| line == name)
            .map(|(_, value)| value.clone())
    };
    let mut body = buffer.split_off(start);
    if head || status == 101 {
        body.clear();
    } else if value(b"transfer-encoding").is_some_and(|coding| coding == b"chunked") {
        body = read_chunks(stream, body)?;
    } else {
        let length =
            value(b"content-length").and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
        let length: usize = length.unwrap_or(0);
        while body.len() < length {
            receive(stream, &mut body)?;
        }
    }
    Ok(Response {
        status,
        headers,
        body,
    })
}

fn read_chunks(stream: &mut impl Read, mut buffer: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        match httparse::parse_chunk_size(&buffer).map_err(|_| io::Error::other("a bad chunk"))? {
            httparse::Status::Complete((start, size)) => {
                let size = usize::try_from(size).map_err(io::Error::other)?;
                while buffer.len() < start + size + 2 {
                    receive(stream, &mut buffer)?;
                }
                if size == 0 {
                    return Ok(body);
                }
                body.extend_from_slice(&buffer[start..start + size]);
                buffer.drain(..start + size + 2);
            }
            httparse::Status::Partial => receive(stream, &mut buffer)?,
        }
    }
}

fn receive(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 16 * 1024];
    match stream.read(&mut chunk)? {
        0 => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the connection was closed before the answer was whole",
        )),
        size => {
            buffer.extend_from_slice(&chunk[..size]);
            Ok(())
        }
    }
}

/// HTTP/2 with prior knowledge, over plain TCP; `:scheme` is whatever the request says.
fn http2(address: SocketAddr, request: &ClientRequest) -> io::Result<Response> {
    if request.tls {
        return Err(io::Error::other(
            "HTTP/2 over TLS is not needed by any case yet",
        ));
    }
    let connection = connect(address, request.peer)?;
    connection.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, exchange_http2(connection, request))
            .await
            .map_err(io::Error::other)?
    })
}

async fn exchange_http2(connection: TcpStream, request: &ClientRequest) -> io::Result<Response> {
    let connection = tokio::net::TcpStream::from_std(connection)?;
    let (mut client, driver) = h2::client::handshake(connection)
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(driver);
    let scheme = request.scheme.as_deref().unwrap_or("http");
    let mut builder = http::Request::builder()
        .method(request.method.as_str())
        .uri(format!("{scheme}://{}{}", request.authority, request.path));
    for (name, value) in request.header_bytes() {
        builder = builder.header(name.as_slice(), value.as_slice());
    }
    let message = builder.body(()).map_err(io::Error::other)?;
    let (response, _) = client
        .send_request(message, true)
        .map_err(io::Error::other)?;
    let (head, mut stream) = response.await.map_err(io::Error::other)?.into_parts();
    let mut body = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk: bytes::Bytes = chunk.map_err(io::Error::other)?;
        stream
            .flow_control()
            .release_capacity(chunk.len())
            .map_err(io::Error::other)?;
        body.extend_from_slice(&chunk);
    }
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().into(), value.as_bytes().into()))
        .collect();
    Ok(Response {
        status: head.status.as_u16(),
        headers,
        body,
    })
}

/// TLS that takes any certificate: the tests make their own.
fn tls_config(certificate: Option<Certificate>) -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has the usual versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)));
    Arc::new(match certificate {
        None => config.with_no_client_auth(),
        Some(certificate) => {
            let (chain, key) = certificate.pem();
            let chain =
                CertificateDer::from_pem_slice(chain.as_bytes()).expect("it is a certificate");
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("it is a key");
            config
                .with_client_auth_cert(vec![chain], key)
                .expect("the key is the certificate's")
        }
    })
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
