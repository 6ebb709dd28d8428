//! What must hold of a request from an untrusted peer.

use testkit::HeaderLines;
use testkit::raw::Answer;
use trusted_lb::config::FAMILY;

use super::table::PeerAddress;

/// A request behind the filter.
pub(super) struct Seen<'s> {
    /// What the upstream is sent, pseudo-headers left out.
    pub(super) headers: &'s HeaderLines,
    /// The values of a header that Envoy's router or codec takes away: `:scheme` and x-envoy-*.
    pub(super) inner: &'s dyn Fn(&str) -> Vec<Vec<u8>>,
}

/// What is wrong with a request from an untrusted peer on a plain connection.
pub(super) fn faults(seen: &Seen<'_>, peer: PeerAddress) -> Vec<String> {
    let mut faults = Vec::new();
    // Servers of the CGI family read any character that isn't a letter or digit as the same.
    let spelled = |wanted: &str| -> Vec<String> {
        seen.headers
            .iter()
            .filter(|(name, _)| {
                name.to_ascii_lowercase()
                    .iter()
                    .map(|byte| {
                        if byte.is_ascii_alphanumeric() {
                            *byte
                        } else {
                            b'-'
                        }
                    })
                    .eq(wanted.bytes())
            })
            .map(|(name, value)| format!("{}: {}", name.escape_ascii(), value.escape_ascii()))
            .collect()
    };
    let proto = spelled("x-forwarded-proto");
    if proto != ["x-forwarded-proto: http"] {
        faults.push(format!("{proto:?}"));
    }
    let scheme = (seen.inner)(":scheme");
    if !scheme.is_empty() && scheme != [b"http"] {
        faults.push(format!(":scheme {scheme:?}"));
    }
    let helpers: &[&str] = match peer {
        PeerAddress::Header | PeerAddress::HeaderAlone => &["x-lb-peer", "x-lb-proto"],
        _ => &[],
    };
    let removed = FAMILY.iter().filter(|name| **name != "x-forwarded-proto");
    // A signal of the configuration's own.
    let own = &["x-lb-tls"];
    for gone in removed.chain(own).chain(helpers) {
        let left = spelled(gone);
        if !left.is_empty() {
            faults.push(format!("{left:?}"));
        }
    }
    faults
}

/// What the request was granted beyond the configuration: `requests.yaml` asks for much more than that, and for junk.
pub(super) fn overdrawn(seen: &Seen<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    let values = |name: &str| -> Vec<String> {
        (seen.inner)(name)
            .iter()
            .map(|value| value.escape_ascii().to_string())
            .collect()
    };
    let number = |name: &str, least: u64, most: u64, may_be_absent: bool| {
        let found = values(name);
        let good = match found.as_slice() {
            [] => may_be_absent,
            [one] => one.parse().is_ok_and(|value: u64| {
                (least..=most).contains(&value) && value.to_string() == *one
            }),
            _ => false,
        };
        if good {
            None
        } else {
            Some(format!("{name} {found:?}"))
        }
    };
    for gone in [
        "x-envoy-expected-rq-timeout-ms",
        "x-envoy-upstream-stream-duration-ms",
    ] {
        let found = values(gone);
        if !found.is_empty() {
            faults.push(format!("{gone} {found:?}"));
        }
    }
    let retries = values("x-envoy-max-retries");
    faults.extend(number("x-envoy-upstream-rq-timeout-ms", 1, 300_000, false));
    faults.extend(number("x-envoy-max-retries", 0, 2, false));
    if retries != ["0"] {
        faults.extend(number(
            "x-envoy-upstream-rq-per-try-timeout-ms",
            1,
            5_000,
            false,
        ));
        for (name, wanted) in [
            (
                "x-envoy-retry-on",
                Some("connect-failure,retriable-status-codes"),
            ),
            ("x-envoy-retry-grpc-on", None),
            ("x-envoy-retriable-status-codes", Some("503")),
            ("x-envoy-retriable-header-names", None),
            ("x-envoy-hedge-on-per-try-timeout", None),
        ] {
            let found = values(name);
            if found != wanted.into_iter().collect::<Vec<_>>() {
                faults.push(format!("{name} {found:?}"));
            }
        }
    }
    faults
}

/// Other versions of Envoy let some of the requests pass that the newest resets: they are judged like any other then.
pub(super) fn or_judged<'e>(expected: &'e str, answer: &Answer) -> &'e str {
    match expected {
        "reset" if matches!(answer.status().as_ref(), "200" | "403") => "200",
        _ => expected,
    }
}

pub(super) fn lines_of(headers: &HeaderLines, name: &str) -> Vec<Vec<u8>> {
    headers
        .iter()
        .filter(|(line, _)| line == name.as_bytes())
        .map(|(_, value)| value.clone())
        .collect()
}

/// Fails with everything that is wrong.
pub(super) fn none_is_wrong(wrong: &[String]) {
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
