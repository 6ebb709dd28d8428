//! The clients, what they send, and what must come of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Routes;
use super::report::{Kind, Tally};
use crate::cases::{ClientRequest, Protocol};
use crate::endpoint::ORDER;
use crate::http::{self, KeptConnection, Response};

const LOAD_BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

/// What the threads of a run share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) stop: AtomicBool,
    pub(super) tallies: Mutex<BTreeMap<Kind, Tally>>,
    /// What is being done to the endpoints, for the reason of a failure.
    pub(super) doing: Mutex<String>,
}

impl Shared {
    pub(super) fn running(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    pub(super) fn tally(&self, kind: Kind, outcome: Result<Outcome, String>, routes: Routes) {
        let doing = self.doing.lock().expect("no thread panicked").clone();
        let mut tallies = self.tallies.lock().expect("no thread panicked");
        let tally = tallies.entry(kind).or_default();
        tally.sent += 1;
        match outcome {
            Ok(Outcome::Served) => {}
            Ok(Outcome::EndpointGone) if kind == Kind::TrustedPost || routes == Routes::Plain => {
                *tally.endpoint_gone.entry(doing).or_default() += 1;
            }
            outcome => {
                let reason = outcome
                    .err()
                    .unwrap_or_else(|| "its endpoint was gone".to_owned());
                tally.wrong_count += 1;
                if tally.wrong.len() < 10 {
                    tally.wrong.push(format!("{kind:?}, {doing}: {reason}"));
                }
            }
        }
    }
}

pub(super) enum Outcome {
    Served,
    EndpointGone,
}

/// What a client sends next, and what came of it.
pub(super) type Step =
    fn(SocketAddr, u64, &mut Option<KeptConnection>) -> (Kind, Result<Outcome, String>);

pub(super) fn client(
    shared: &Arc<Shared>,
    address: SocketAddr,
    every_ms: u64,
    step: Step,
    routes: Routes,
) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let mut connection = None;
        for n in 0.. {
            if !shared.running() {
                return;
            }
            let began = Instant::now();
            let (kind, outcome) = step(address, n, &mut connection);
            shared.tally(kind, outcome, routes);
            std::thread::sleep(Duration::from_millis(every_ms).saturating_sub(began.elapsed()));
        }
    })
}

pub(super) fn trusted_get(
    address: SocketAddr,
    n: u64,
    connection: &mut Option<KeptConnection>,
) -> (Kind, Result<Outcome, String>) {
    let path = if n.is_multiple_of(5) {
        "/slow?ms=100"
    } else {
        "/"
    };
    let request = ClientRequest::get(LOAD_BALANCER, "app.example.com", path);
    let response = keep_sending(address, connection, &request);
    (
        Kind::TrustedGet,
        response.and_then(|response| served(&response, "https")),
    )
}

pub(super) fn trusted_post(
    address: SocketAddr,
    n: u64,
    connection: &mut Option<KeptConnection>,
) -> (Kind, Result<Outcome, String>) {
    let path = if n.is_multiple_of(2) {
        "/slow?ms=100"
    } else {
        "/"
    };
    let order = n.to_string();
    let mut request =
        ClientRequest::get(LOAD_BALANCER, "app.example.com", path).with(&[(ORDER, &order)]);
    request.method = "POST".to_owned();
    let response = keep_sending(address, connection, &request);
    (
        Kind::TrustedPost,
        response.and_then(|response| served(&response, "https")),
    )
}

pub(super) fn untrusted(
    address: SocketAddr,
    _: u64,
    connection: &mut Option<KeptConnection>,
) -> (Kind, Result<Outcome, String>) {
    let request = ClientRequest::get(ELSEWHERE, "app.example.com", "/");
    let response = keep_sending(address, connection, &request);
    (
        Kind::Untrusted,
        response.and_then(|response| served(&response, "http")),
    )
}

/// One attack after the other, each over a connection of its own.
pub(super) fn attack(
    address: SocketAddr,
    n: u64,
    _: &mut Option<KeptConnection>,
) -> (Kind, Result<Outcome, String>) {
    let long = "10.0.0.7, ".repeat(1000);
    let lies: [&[(&str, &str)]; 8] = [
        &[("x-forwarded-proto", "https")],
        &[
            ("x-forwarded-for", "127.0.0.2"),
            ("x-forwarded-proto", "https"),
        ],
        &[
            ("x_forwarded_proto", "https"),
            ("x-forwarded_proto", "https"),
        ],
        &[("x-forwarded-ssl", "on"), ("front-end-https", "on")],
        &[
            ("forwarded", "for=127.0.0.2;proto=https"),
            ("x-forwarded-scheme", "https"),
        ],
        &[("x-forwarded-for", &long)],
        &[
            ("x-forwarded-proto", "\u{ff}\u{fe}https"),
            ("cookie", "\u{80}"),
        ],
        &[
            ("x-envoy-upstream-rq-timeout-ms", "1"),
            ("x-envoy-max-retries", "99"),
        ],
    ];
    let index = usize::try_from(n % 10).unwrap_or_default();
    let mut request = ClientRequest::get(ELSEWHERE, "app.example.com", "/");
    if index == 9 {
        let request = request.with(&[("connection", "x-forwarded-proto")]);
        let outcome = match http::send(address, &request) {
            Ok(response) if response.status == 400 => Ok(Outcome::Served),
            other => Err(format!("{other:?}")),
        };
        return (Kind::Refused, outcome);
    }
    if index == 8 {
        request.protocol = Protocol::Http2;
        request.scheme = Some("https".to_owned());
    }
    let request = request.with(lies.get(index).copied().unwrap_or_default());
    let outcome = http::send(address, &request)
        .map_err(|error| error.to_string())
        .and_then(|response| {
            for claim in [
                "x_forwarded_proto",
                "x-forwarded_proto",
                "x-forwarded-ssl",
                "front-end-https",
                "forwarded",
                "x-forwarded-scheme",
            ] {
                if response.received_one(claim).is_some() {
                    return Err(format!("{claim} reached the upstream"));
                }
            }
            served(&response, "http")
        });
    (Kind::Attack, outcome)
}

/// Sends over the connection that there is, or over a new one.
fn keep_sending(
    address: SocketAddr,
    connection: &mut Option<KeptConnection>,
    request: &ClientRequest,
) -> Result<Response, String> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => KeptConnection::open(address, request.peer).map_err(|error| error.to_string())?,
    };
    let response = open.send(request).map_err(|error| error.to_string())?;
    if response.header("connection").as_deref() != Some("close") {
        *connection = Some(open);
    }
    Ok(response)
}

/// Whether the upstream answered, and saw this scheme.
fn served(response: &Response, scheme: &str) -> Result<Outcome, String> {
    // Envoy's own words where its upstream connection failed or ended.
    if response.status == 503 && response.body.starts_with(b"upstream connect error") {
        return Ok(Outcome::EndpointGone);
    }
    let seen = ["x-forwarded-proto", "x-seen-scheme"].map(|name| response.received_one(name));
    if response.status == 200 && seen.iter().all(|seen| seen.as_deref() == Some(scheme)) {
        Ok(Outcome::Served)
    } else {
        Err(format!(
            "{} {seen:?} {}",
            response.status,
            String::from_utf8_lossy(&response.body[..response.body.len().min(200)])
        ))
    }
}
