//! An upstream endpoint that is stopped and started again, always on the same port; it answers as
//! [`Upstream`](crate::upstream::Upstream) does.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::upstream;

/// The header that tells one order from another; see [`Orders`].
pub const ORDER: &str = "x-order";

/// How often each order reached an endpoint.
pub type Orders = Arc<Mutex<BTreeMap<String, u32>>>;

/// Clients connect from other loopback addresses, so that none takes the port while nobody listens at it.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);

/// How often a connection without a request looks whether the endpoint is ending.
const GLANCE: Duration = Duration::from_millis(20);

/// How long a graceful end waits for connections to become idle.
const DRAIN: Duration = Duration::from_secs(5);

/// An endpoint that runs or has been stopped.
pub struct Endpoint {
    address: SocketAddr,
    orders: Orders,
    running: Option<Running>,
}

struct Running {
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// No more connections are taken; the ones there are end with their next answer, or while idle.
    draining: AtomicBool,
    open: AtomicU64,
    connections: Mutex<Vec<TcpStream>>,
}

impl Endpoint {
    /// Starts an endpoint on a free loopback port.
    ///
    /// # Panics
    /// Where no port can be had.
    #[must_use]
    pub fn start(orders: &Orders) -> Self {
        let listener = TcpListener::bind((ADDRESS, 0)).expect("a loopback port can be had");
        let mut endpoint = Self {
            address: listener.local_addr().expect("it has an address"),
            orders: Arc::clone(orders),
            running: None,
        };
        endpoint.serve(listener);
        endpoint
    }

    /// Where it listens, or did.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends as a server does that is told to: takes no more connections, answers what it was asked with
    /// `connection: close`, closes idle connections, and is gone when all are closed.
    ///
    /// # Panics
    /// Where its thread did.
    pub fn drain(&mut self) {
        let Some(running) = self.stop_accepting() else {
            return;
        };
        let deadline = Instant::now() + DRAIN;
        while running.open.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            std::thread::sleep(GLANCE);
        }
    }

    /// Ends as a server does that is killed: every connection is closed, whatever was asked over it.
    ///
    /// # Panics
    /// Where its thread did.
    pub fn kill(&mut self) {
        let Some(running) = self.stop_accepting() else {
            return;
        };
        for connection in running
            .connections
            .lock()
            .expect("no thread panicked")
            .iter()
        {
            // Fails where it is closed already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    fn stop_accepting(&mut self) -> Option<Arc<State>> {
        let running = self.running.take()?;
        running.state.draining.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect(self.address);
        running.accepting.join().expect("it didn't panic");
        Some(running.state)
    }

    /// Starts again on the port that it had.
    ///
    /// # Panics
    /// Where the port can't be had again.
    pub fn restart(&mut self) {
        let deadline = Instant::now() + DRAIN;
        let listener = loop {
            match TcpListener::bind(self.address) {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < deadline, "{}: {error}", self.address),
            }
            std::thread::sleep(GLANCE);
        };
        self.serve(listener);
    }

    fn serve(&mut self, listener: TcpListener) {
        let state = Arc::new(State::default());
        let orders = Arc::clone(&self.orders);
        let shared = Arc::clone(&state);
        let accepting = std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if shared.draining.load(Ordering::SeqCst) {
                    return;
                }
                let mut open = shared.connections.lock().expect("no thread panicked");
                open.retain(|connection| connection.peer_addr().is_ok());
                open.extend(connection.try_clone());
                shared.open.fetch_add(1, Ordering::SeqCst);
                let (state, orders) = (Arc::clone(&shared), Arc::clone(&orders));
                std::thread::spawn(move || {
                    answer_all(connection, &state, &orders);
                    state.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        self.running = Some(Running { state, accepting });
    }
}

fn answer_all(mut connection: TcpStream, state: &State, orders: &Orders) {
    let attempts = Mutex::default();
    let mut buffer = Vec::new();
    let glance = connection.set_read_timeout(Some(GLANCE));
    if glance.is_err() {
        return;
    }
    while await_bytes(&connection, &buffer, state) {
        let mut headers = [httparse::EMPTY_HEADER; 256];
        let mut request = httparse::Request::new(&mut headers);
        let head = match request.parse(&buffer) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) if upstream::receive(&mut connection, &mut buffer) => {
                continue;
            }
            _ => break,
        };
        let order = request.headers.iter().find(|header| header.name == ORDER);
        if let Some(order) = order {
            let order = String::from_utf8_lossy(order.value).into_owned();
            *orders
                .lock()
                .expect("no thread panicked")
                .entry(order)
                .or_default() += 1;
        }
        let mut answer = upstream::answer(&request, &attempts);
        buffer.drain(..head);
        let last = state.draining.load(Ordering::SeqCst);
        if last && let Some(line) = answer.windows(2).position(|end| end == b"\r\n") {
            answer.splice(line..line, *b"\r\nconnection: close");
        }
        if connection.write_all(&answer).is_err() || last {
            break;
        }
    }
    // The copy that a kill would close keeps the connection open otherwise.
    let _ = connection.shutdown(Shutdown::Both);
}

/// Waits for a request's first bytes, unless there are some. Answers whether to go on.
fn await_bytes(connection: &TcpStream, buffer: &[u8], state: &State) -> bool {
    loop {
        if !buffer.is_empty() {
            return true;
        }
        match connection.peek(&mut [0]) {
            Ok(size) => return size > 0,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
                    && !state.draining.load(Ordering::SeqCst) => {}
            Err(_) => return false,
        }
    }
}
