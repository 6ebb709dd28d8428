//! Requests that go on while something else happens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use testkit::cases::ClientRequest;
use testkit::http::KeptConnection;

use crate::gateway::{self, outcome};
use crate::wait;

/// Several clients that send one request after the other.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    ending: AtomicBool,
    /// No new connection is opened any more, as a load balancer does whose target isn't ready.
    draining: AtomicBool,
    answered: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl Load {
    /// Starts clients, each with connections of its own, which want this outcome from every request.
    #[must_use]
    pub fn start(address: SocketAddr, request: &ClientRequest, wanted: &str) -> Self {
        const CLIENTS: usize = 4;
        let shared = Arc::new(Shared {
            ending: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            wrong: Mutex::default(),
        });
        let clients = (0..CLIENTS)
            .map(|_| {
                let (shared, request, wanted) =
                    (Arc::clone(&shared), request.clone(), wanted.to_owned());
                std::thread::spawn(move || shared.send_on(address, &request, &wanted))
            })
            .collect();
        let load = Self { shared, clients };
        load.more(20);
        load
    }

    /// Waits until so many more requests were answered.
    ///
    /// # Panics
    /// Where they don't come within a minute.
    pub fn more(&self, count: u64) {
        let before = self.shared.answered.load(Ordering::SeqCst);
        wait::until_true("the load goes on", || {
            self.shared.answered.load(Ordering::SeqCst) >= before + count
        });
    }

    /// Has clients open no more connections. Those that they have are used on.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::SeqCst);
    }

    /// Ends it. Answers how many requests were answered, and what was wrong.
    ///
    /// # Panics
    /// Where a client did.
    #[must_use]
    pub fn end(self) -> (u64, Vec<String>) {
        self.shared.ending.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.join().expect("a client doesn't panic");
        }
        let wrong = std::mem::take(&mut *self.shared.wrong.lock().expect("no client panicked"));
        (self.shared.answered.load(Ordering::SeqCst), wrong)
    }

    /// Ends it where nothing was wrong.
    ///
    /// # Panics
    /// Where something was.
    pub fn end_without_a_failure(self) -> u64 {
        let (answered, wrong) = self.end();
        assert!(
            wrong.is_empty(),
            "{} of {answered} requests failed: {:?}",
            wrong.len(),
            &wrong[..wrong.len().min(5)]
        );
        answered
    }
}

impl Shared {
    fn send_on(&self, address: SocketAddr, request: &ClientRequest, wanted: &str) {
        let mut connection: Option<KeptConnection> = None;
        while !self.ending.load(Ordering::SeqCst) {
            let mut open = match connection.take() {
                Some(open) => open,
                None if self.draining.load(Ordering::SeqCst) => return,
                None => match KeptConnection::open(address, request.peer) {
                    Ok(open) => open,
                    Err(error) => {
                        self.wrong
                            .lock()
                            .expect("no client panicked")
                            .push(error.to_string());
                        std::thread::sleep(Duration::from_millis(20));
                        continue;
                    }
                },
            };
            match open.send(request) {
                Ok(response) => {
                    let found = outcome(&response);
                    if found != wanted {
                        self.wrong.lock().expect("no client panicked").push(found);
                    }
                    self.answered.fetch_add(1, Ordering::SeqCst);
                    if response.header("connection").as_deref() != Some("close") {
                        connection = Some(open);
                    }
                }
                Err(error) => self
                    .wrong
                    .lock()
                    .expect("no client panicked")
                    .push(error.to_string()),
            }
            // A steady load, not the most that there can be: the machine has other things to do.
            std::thread::sleep(Duration::from_millis(3));
        }
    }
}

/// Load from the load balancer's clients, who used https.
#[must_use]
pub fn https() -> Load {
    Load::start(
        gateway::HTTP,
        &gateway::get(gateway::LOAD_BALANCER, "/load"),
        "200 https",
    )
}
