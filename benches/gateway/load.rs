//! Requests to a listener, and how many of them a connection carries.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use testkit::workloads::{HEADERS, PATH};

/// Connections to one listener, and the request that they repeat.
pub(crate) struct Load {
    address: SocketAddr,
    peer: IpAddr,
    connections: Vec<TcpStream>,
    request: Vec<u8>,
}

impl Load {
    pub(crate) fn new(address: SocketAddr, peer: &str, connections: usize) -> Self {
        let peer = peer.parse().expect("an address");
        Self {
            address,
            peer,
            connections: (0..connections).map(|_| connect(address, peer)).collect(),
            request: request("app.example.com"),
        }
    }

    /// What the filter made of a request.
    pub(crate) fn check(&self) -> String {
        let mut connection = connect(self.address, self.peer);
        connection
            .write_all(&request("check.example.com"))
            .expect("the listener takes a request");
        let mut answer = Vec::new();
        read_answer(&mut connection, &mut answer);
        let text = String::from_utf8_lossy(&answer);
        text.lines()
            .find_map(|line| line.strip_prefix("x-seen: "))
            .unwrap_or("nothing")
            .to_owned()
    }

    /// A connection more, from the same peer.
    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.address, self.peer)
    }

    /// Sends the request and reads its answer.
    pub(crate) fn ask(&self, connection: &mut TcpStream) {
        connection
            .write_all(&self.request)
            .expect("the listener takes a request");
        let mut answer = Vec::new();
        read_answer(connection, &mut answer);
        expect_served(&answer);
    }

    /// Sends the request on every connection, and reads every answer. How many there were.
    pub(crate) fn ask_all(&mut self) -> u32 {
        let mut buffer = Vec::new();
        let mut answered = 0;
        for connection in &mut self.connections {
            connection
                .write_all(&self.request)
                .expect("the listener takes a request");
        }
        for connection in &mut self.connections {
            read_answer(connection, &mut buffer);
            expect_served(&buffer);
            answered += 1;
        }
        answered
    }
}

fn expect_served(answer: &[u8]) {
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(answer)
    );
}

fn connect(address: SocketAddr, from: IpAddr) -> TcpStream {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket
        .bind(&SocketAddr::new(from, 0).into())
        .expect("the source address is this machine's");
    socket
        .connect(&address.into())
        .expect("the listener listens");
    socket.set_tcp_nodelay(true).expect("an option");
    socket.into()
}

fn request(host: &str) -> Vec<u8> {
    let mut text = format!("GET {PATH} HTTP/1.1\r\nhost: {host}\r\n");
    for (name, value) in HEADERS {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// Reads one answer, whose body is `ok`.
fn read_answer(connection: &mut TcpStream, buffer: &mut Vec<u8>) {
    buffer.clear();
    let mut chunk = [0; 4096];
    while !buffer.ends_with(b"\r\n\r\nok") {
        let size = connection.read(&mut chunk).expect("the listener answers");
        assert!(size > 0, "the listener closed the connection");
        buffer.extend_from_slice(&chunk[..size]);
    }
}
