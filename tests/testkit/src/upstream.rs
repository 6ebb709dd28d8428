//! A small HTTP/1.1 upstream that shows what it received.
//!
//! - any path: 200 and the request as JSON: `{"method", "path", "headers": [[name, value], …]}`, bytes as ISO-8859-1;
//! - an upgrade: 101, and the same in a header `x-echo`;
//! - `/slow?ms=N`: the same after N milliseconds;
//! - `/fail?times=N&key=K`: 503 for the first N requests with that key.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

/// A running upstream. It ends with the process.
pub struct Upstream {
    address: SocketAddr,
    attempts: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl Upstream {
    /// Starts an upstream on a free loopback port.
    ///
    /// # Panics
    /// Where no port can be had.
    #[must_use]
    pub fn start() -> Self {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port can be had");
        let upstream = Self {
            address: listener.local_addr().expect("it has an address"),
            attempts: Arc::default(),
        };
        let attempts = Arc::clone(&upstream.attempts);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let attempts = Arc::clone(&attempts);
                std::thread::spawn(move || serve(connection, &attempts));
            }
        });
        upstream
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests came to `/fail` with that key.
    ///
    /// # Panics
    /// Never, unless a serving thread did.
    #[must_use]
    pub fn attempts(&self, key: &str) -> u32 {
        self.attempts
            .lock()
            .expect("no thread panicked")
            .get(key)
            .copied()
            .unwrap_or(0)
    }
}

fn serve(mut connection: TcpStream, attempts: &Mutex<BTreeMap<String, u32>>) {
    let mut buffer = Vec::new();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 256];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&buffer) {
            Ok(httparse::Status::Complete(head)) => {
                let answer = answer(&request, attempts);
                let body: usize = request
                    .headers
                    .iter()
                    .find(|header| header.name.eq_ignore_ascii_case("content-length"))
                    .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok())
                    .unwrap_or(0);
                while buffer.len() < head + body {
                    if !receive(&mut connection, &mut buffer) {
                        return;
                    }
                }
                buffer.drain(..head + body);
                if connection.write_all(&answer).is_err() {
                    return;
                }
            }
            Ok(httparse::Status::Partial) => {
                if !receive(&mut connection, &mut buffer) {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

pub(crate) fn receive(connection: &mut TcpStream, buffer: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 16 * 1024];
    match connection.read(&mut chunk) {
        Ok(0) | Err(_) => false,
        Ok(size) => {
            buffer.extend_from_slice(&chunk[..size]);
            true
        }
    }
}

pub(crate) fn answer(
    request: &httparse::Request<'_, '_>,
    attempts: &Mutex<BTreeMap<String, u32>>,
) -> Vec<u8> {
    let path = request.path.unwrap_or_default();
    let (route, query) = path.split_once('?').unwrap_or((path, ""));
    let parameter = |name: &str| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    };
    let number = |name| {
        parameter(name)
            .and_then(|value| value.parse::<u32>().ok())
            .unwrap_or(0)
    };
    let mut status = "200 OK";
    if route == "/slow" {
        std::thread::sleep(Duration::from_millis(number("ms").into()));
    } else if route == "/fail" {
        let mut attempts = attempts.lock().expect("no thread panicked");
        let count = attempts
            .entry(parameter("key").unwrap_or_default().to_owned())
            .or_default();
        *count += 1;
        if *count <= number("times") {
            status = "503 Service Unavailable";
        }
    }
    let headers: Vec<(String, String)> = request
        .headers
        .iter()
        .map(|header| {
            let value = header.value.iter().map(|byte| char::from(*byte)).collect();
            (header.name.to_ascii_lowercase(), value)
        })
        .collect();
    let body = json!({"method": request.method, "path": path, "headers": headers}).to_string();
    if headers.iter().any(|(name, _)| name == "upgrade") {
        return format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nx-echo: {body}\r\n\r\n"
        )
        .into_bytes();
    }
    let is_head = request.method == Some("HEAD");
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{}",
        body.len(),
        if is_head { "" } else { &body },
    )
    .into_bytes()
}
