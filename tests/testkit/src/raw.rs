//! Clients that send what no decent HTTP library would: any bytes as a request line, as header names and values, and as
//! HTTP/2 fields, over whatever carries bytes.

use std::io::{self, Read, Write};

use crate::{HeaderLines, http};

/// A request, every byte of it as it is sent.
#[derive(Clone, Debug, Default)]
pub struct RawRequest {
    /// What is sent before anything else: a PROXY protocol header.
    pub preamble: Vec<u8>,
    /// The method.
    pub method: Vec<u8>,
    /// The request line's target, and `:path`.
    pub target: Vec<u8>,
    /// The `Host` line, and `:authority`; nothing where there is to be none.
    pub authority: Option<Vec<u8>>,
    /// What ends HTTP/1's request line: `HTTP/1.1`.
    pub version: Vec<u8>,
    /// HTTP/2's `:scheme`.
    pub scheme: Vec<u8>,
    /// Header lines.
    pub headers: HeaderLines,
}

/// What came back.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A response. Over HTTP/2 its headers aren't decoded.
    Response(http::Response),
    /// The stream was reset, or the connection closed without an answer.
    Refused,
}

impl Answer {
    /// The status, as a test lists it: a number, or `reset`.
    #[must_use]
    pub fn status(&self) -> String {
        match self {
            Answer::Response(response) => response.status.to_string(),
            Answer::Refused => "reset".to_owned(),
        }
    }

    /// The response, where there is one.
    #[must_use]
    pub fn response(&self) -> Option<&http::Response> {
        match self {
            Answer::Response(response) => Some(response),
            Answer::Refused => None,
        }
    }
}

/// Sends a request as HTTP/1.
///
/// # Errors
/// Where the connection fails in another way than by being closed.
pub fn http1(stream: &mut (impl Read + Write), request: &RawRequest) -> io::Result<Answer> {
    let mut bytes = request.preamble.clone();
    for part in [
        &request.method,
        &b" ".to_vec(),
        &request.target,
        &b" ".to_vec(),
    ] {
        bytes.extend_from_slice(part);
    }
    bytes.extend_from_slice(&request.version);
    bytes.extend_from_slice(b"\r\n");
    let host = request
        .authority
        .iter()
        .map(|host| (&b"host"[..], host.as_slice()));
    let lines = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_slice(), value.as_slice()));
    for (name, value) in host.chain(lines) {
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    answer(
        stream
            .write_all(&bytes)
            .and_then(|()| http::read_response(stream, request.method == b"HEAD"))
            .map(Answer::Response),
    )
}

/// A closed connection is an answer too.
fn answer(result: io::Result<Answer>) -> io::Result<Answer> {
    match result {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
            ) =>
        {
            Ok(Answer::Refused)
        }
        other => other,
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const LARGEST_FRAME: usize = 16 * 1024;

/// Sends a request as HTTP/2 with prior knowledge, its fields neither checked nor compressed.
///
/// # Errors
/// As [`http1`].
pub fn http2(stream: &mut (impl Read + Write), request: &RawRequest) -> io::Result<Answer> {
    let pseudo = [
        (&b":method"[..], Some(request.method.as_slice())),
        (b":scheme", Some(request.scheme.as_slice())),
        (b":authority", request.authority.as_deref()),
        (b":path", Some(request.target.as_slice())),
    ];
    let mut block = Vec::new();
    for (name, value) in pseudo {
        if let Some(value) = value {
            field(&mut block, name, value);
        }
    }
    for (name, value) in &request.headers {
        field(&mut block, name, value);
    }
    let mut bytes = request.preamble.clone();
    bytes.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    frame(&mut bytes, SETTINGS, 0, 0, &[]);
    let count = block.chunks(LARGEST_FRAME).count();
    for (index, chunk) in block.chunks(LARGEST_FRAME).enumerate() {
        let end = if index + 1 == count { END_HEADERS } else { 0 };
        match index {
            0 => frame(&mut bytes, HEADERS, END_STREAM | end, 1, chunk),
            _ => frame(&mut bytes, CONTINUATION, end, 1, chunk),
        }
    }
    answer(stream.write_all(&bytes).and_then(|()| read_http2(stream)))
}

/// A literal field that is never indexed (RFC 7541, 6.2.2).
fn field(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    for text in [name, value] {
        // A string's length has a prefix of seven bits (RFC 7541, 5.1).
        if text.len() < 127 {
            block.push(u8::try_from(text.len()).expect("it is small"));
        } else {
            block.push(127);
            let mut rest = text.len() - 127;
            while rest >= 128 {
                block.push(u8::try_from(rest % 128).expect("it is small") | 128);
                rest /= 128;
            }
            block.push(u8::try_from(rest).expect("it is small"));
        }
        block.extend_from_slice(text);
    }
}

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("frames are small");
    bytes.extend_from_slice(&length.to_be_bytes()[1..]);
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

fn read_http2(stream: &mut (impl Read + Write)) -> io::Result<Answer> {
    let mut status = None;
    let mut body = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload)?;
        match kind {
            SETTINGS if flags & ACK == 0 => {
                let mut bytes = Vec::new();
                frame(&mut bytes, SETTINGS, ACK, 0, &[]);
                stream.write_all(&bytes)?;
            }
            HEADERS if status.is_none() => status = Some(http2_status(&payload)?),
            DATA => body.extend_from_slice(&payload),
            RST_STREAM | GOAWAY if status.is_none() => return Ok(Answer::Refused),
            _ => {}
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0
            || matches!(kind, RST_STREAM | GOAWAY)
        {
            break;
        }
    }
    Ok(Answer::Response(http::Response {
        status: status.unwrap_or(0),
        headers: Vec::new(),
        body,
    }))
}

/// The status at the beginning of a response's block: an entry of the static table, or a literal of three digits, which
/// may be Huffman-coded (RFC 7541, appendices A and B).
fn http2_status(block: &[u8]) -> io::Result<u16> {
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let unreadable = || {
        io::Error::other(format!(
            "no status in {:?}",
            block.escape_ascii().to_string()
        ))
    };
    let mut rest = block;
    while let Some((_, after)) = rest.split_first().filter(|(byte, _)| **byte & 0xe0 == 0x20) {
        rest = after;
    }
    match rest {
        [indexed, ..] if indexed & 0x80 != 0 => STATIC
            .get(usize::from(indexed & 0x7f).wrapping_sub(8))
            .copied()
            .ok_or_else(unreadable),
        // A literal whose name is one of the static table's `:status` entries, 8 to 14, whatever is done with the index.
        [name, length, text @ ..] if (8..=14).contains(&(name & 0x0f)) => {
            let text = text
                .get(..usize::from(length & 0x7f))
                .ok_or_else(unreadable)?;
            if length & 0x80 == 0 {
                return std::str::from_utf8(text)
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(unreadable);
            }
            let mut bits = text
                .iter()
                .flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
            let mut status = 0;
            for _ in 0..3 {
                let mut code = bits.by_ref().take(5).fold(0, |code, bit| code << 1 | bit);
                // 0 to 2 have five bits, 3 to 9 six.
                if code > 2 {
                    code = (code << 1 | bits.next().ok_or_else(unreadable)?) - 0x19 + 3;
                }
                status = status * 10 + code;
            }
            Ok(status)
        }
        _ => Err(unreadable()),
    }
}
