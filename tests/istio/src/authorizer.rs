//! An external authorizer that allows everything, and tells the service which scheme it was told.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};

/// Starts it. Answers its port; it ends with the process.
///
/// # Panics
/// Where no port can be had.
#[must_use]
pub fn start() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port can be had");
    let port = listener.local_addr().expect("it has an address").port();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let Ok(mut answers) = connection.try_clone() else {
                    return;
                };
                let mut scheme = String::new();
                for line in BufReader::new(connection).lines().map_while(Result::ok) {
                    if let Some(value) = line.strip_prefix("x-forwarded-proto: ") {
                        value.clone_into(&mut scheme);
                    }
                    // The end of a request: it has no body.
                    if line.is_empty() {
                        let answer = format!(
                            "HTTP/1.1 200 OK\r\nx-asked: {scheme}\r\ncontent-length: 0\r\n\r\n"
                        );
                        if answers.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                        scheme.clear();
                    }
                }
            });
        }
    });
    port
}
