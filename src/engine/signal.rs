//! Signals: the headers by which load balancers tell the client's scheme, each in its own form.

use super::header_values::HeaderValues;
use super::names::HeaderId;
use super::secret::Secret;
use crate::config::{Node, Scheme, SignalForm};

/// A compiled signal.
#[derive(Clone, Debug)]
pub(crate) struct Signal {
    pub(crate) header: HeaderId,
    pub(crate) form: SignalForm,
}

/// What a signal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// This scheme.
    Says(Scheme),
    /// The header is absent, so the next signal is asked.
    Absent,
    /// The header is present and unusable, so the rule's default applies.
    Unusable,
}

/// Structured signals that are longer aren't parsed: no load balancer writes them.
const LONGEST_STRUCTURED: usize = 1024;

impl Signal {
    /// Reads the signal. A header on several lines is unusable: one of them may be the client's. `token` is what a copy by
    /// the early header mutation begins with.
    pub(crate) fn read(&self, values: HeaderValues<'_>, token: &Secret) -> Reading {
        match values {
            HeaderValues::Absent => Reading::Absent,
            HeaderValues::Several => Reading::Unusable,
            HeaderValues::One(value) => read(&self.form, value, token),
        }
    }
}

fn read(form: &SignalForm, value: &[u8], token: &Secret) -> Reading {
    let said = match form {
        SignalForm::Scheme => scheme(right_most(value)),
        SignalForm::Port { https, http } => port(right_most(value)).and_then(|port| {
            if https.contains(&port) {
                Some(Scheme::Https)
            } else {
                http.contains(&port).then_some(Scheme::Http)
            }
        }),
        SignalForm::CfVisitor => cf_visitor(value),
        SignalForm::OnOff => on_off(value),
        SignalForm::Present => Some(Scheme::Https),
        SignalForm::Forwarded => forwarded(value),
        SignalForm::Values { https, http } => {
            let among = |list: &[String]| list.iter().any(|known| known.as_bytes() == value);
            if among(https) {
                Some(Scheme::Https)
            } else {
                among(http).then_some(Scheme::Http)
            }
        }
        SignalForm::Helper => {
            return match token.strip_from(value) {
                // Envoy writes `-` if the header that is copied was absent.
                Some(b"" | b"-") => Reading::Absent,
                Some(rest) => scheme(right_most(rest)).map_or(Reading::Unusable, Reading::Says),
                None => Reading::Unusable,
            };
        }
    };
    said.map_or(Reading::Unusable, Reading::Says)
}

/// The last entry of a comma-separated list: the one that the nearest hop wrote.
fn right_most(value: &[u8]) -> &[u8] {
    value
        .rsplit(|byte| *byte == b',')
        .next()
        .unwrap_or(value)
        .trim_ascii()
}

fn scheme(value: &[u8]) -> Option<Scheme> {
    let is = |word: &[u8]| value.eq_ignore_ascii_case(word);
    if is(b"https") || is(b"wss") {
        Some(Scheme::Https)
    } else if is(b"http") || is(b"ws") {
        Some(Scheme::Http)
    } else {
        None
    }
}

fn port(value: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(value).ok()?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn on_off(value: &[u8]) -> Option<Scheme> {
    if value.eq_ignore_ascii_case(b"on") {
        Some(Scheme::Https)
    } else if value.eq_ignore_ascii_case(b"off") {
        Some(Scheme::Http)
    } else {
        None
    }
}

/// Cloudflare's `CF-Visitor: {"scheme":"https"}`.
fn cf_visitor(value: &[u8]) -> Option<Scheme> {
    if value.len() > LONGEST_STRUCTURED {
        return None;
    }
    let Ok(Node::Object(fields)) = serde_json::from_slice::<Node>(value) else {
        return None;
    };
    let mut said = fields.iter().filter(|(name, _)| name == "scheme");
    match (said.next(), said.next()) {
        (Some((_, Node::Text(text))), None) => scheme(text.as_bytes()),
        _ => None,
    }
}

/// The `proto` of the last element of a Forwarded header (RFC 7239, 4).
fn forwarded(value: &[u8]) -> Option<Scheme> {
    if value.len() > LONGEST_STRUCTURED {
        return None;
    }
    // RFC 9110, 5.6.1: empty elements of a list count for nothing.
    let mut elements = split_unquoted(value, b',')?.into_iter().rev();
    let element = elements.find(|element| !element.trim_ascii().is_empty())?;
    let mut proto = None;
    for pair in split_unquoted(element, b';')? {
        let pair = pair.trim_ascii();
        let Some(equals) = pair.iter().position(|byte| *byte == b'=') else {
            continue;
        };
        let (name, value) = pair.split_at_checked(equals)?;
        if name.eq_ignore_ascii_case(b"proto") {
            let value = value.strip_prefix(b"=")?;
            let bare = value
                .strip_prefix(b"\"")
                .and_then(|inner| inner.strip_suffix(b"\""))
                .unwrap_or(value);
            // RFC 7239, 4: a parameter occurs at most once an element.
            if proto.replace(scheme(bare)?).is_some() {
                return None;
            }
        }
    }
    proto
}

/// The parts of `value` between separators that stand outside quoted strings (RFC 9110, 5.6.4), or nothing where a
/// quote is left open.
fn split_unquoted(value: &[u8], separator: u8) -> Option<Vec<&[u8]>> {
    let mut quoted = false;
    let mut escaped = false;
    let parts = value
        .split(|byte| {
            if escaped {
                escaped = false;
                return false;
            }
            match *byte {
                b'"' => quoted = !quoted,
                b'\\' if quoted => escaped = true,
                _ => {}
            }
            *byte == separator && !quoted
        })
        .collect();
    (!quoted).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTTPS: Reading = Reading::Says(Scheme::Https);
    const HTTP: Reading = Reading::Says(Scheme::Http);

    fn token() -> Secret {
        Secret::new("t0ken")
    }

    fn check(form: &SignalForm, cases: &[(&str, Reading)]) {
        for (value, reading) in cases {
            let found = read(form, value.as_bytes(), &token());
            assert_eq!(found, *reading, "{form:?} {value:?}");
        }
    }

    #[test]
    fn a_scheme_is_read_in_any_case_and_from_the_right() {
        check(
            &SignalForm::Scheme,
            &[
                ("https", HTTPS),
                ("HTTPS", HTTPS),
                ("http", HTTP),
                ("wss", HTTPS),
                ("ws", HTTP),
                ("http, https", HTTPS),
                ("https,http", HTTP),
                (" https ", HTTPS),
                ("https,", Reading::Unusable),
                ("https,junk", Reading::Unusable),
                ("ftp", Reading::Unusable),
                ("", Reading::Unusable),
                ("https\u{0}", Reading::Unusable),
            ],
        );
    }

    #[test]
    fn a_port_is_read_through_its_map() {
        let form = SignalForm::Port {
            https: vec![443, 8443],
            http: vec![80],
        };
        check(
            &form,
            &[
                ("443", HTTPS),
                ("8443", HTTPS),
                ("80", HTTP),
                ("80, 443", HTTPS),
                ("8080", Reading::Unusable),
                ("+443", Reading::Unusable),
                ("65979", Reading::Unusable),
                ("", Reading::Unusable),
            ],
        );
    }

    #[test]
    fn cf_visitor_is_json_with_one_scheme() {
        check(
            &SignalForm::CfVisitor,
            &[
                (r#"{"scheme":"https"}"#, HTTPS),
                (r#"{ "scheme" : "http", "x": 1 }"#, HTTP),
                (r#"{"scheme":"https","scheme":"http"}"#, Reading::Unusable),
                (r#"{"scheme":1}"#, Reading::Unusable),
                (r#"{"Scheme":"https"}"#, Reading::Unusable),
                (r#"{"scheme":"https"} x"#, Reading::Unusable),
                ("https", Reading::Unusable),
                ("[", Reading::Unusable),
            ],
        );
        let oversized = format!(r#"{{"x":"{}","scheme":"https"}}"#, "a".repeat(2000));
        assert_eq!(
            read(&SignalForm::CfVisitor, oversized.as_bytes(), &token()),
            Reading::Unusable
        );
    }

    #[test]
    fn forwarded_is_read_by_rfc_7239() {
        check(
            &SignalForm::Forwarded,
            &[
                ("proto=https", HTTPS),
                ("for=1.2.3.4;proto=http;by=x", HTTP),
                ("for=1.2.3.4;Proto=\"HTTPS\"", HTTPS),
                ("proto=http, for=1.2.3.4;proto=https", HTTPS),
                ("proto=https, for=1.2.3.4", Reading::Unusable),
                ("for=\"a,proto=https\"", Reading::Unusable),
                ("for=\"a;proto=https\";proto=http", HTTP),
                ("for=\"\\\"\";proto=https", HTTPS),
                ("for=\"open;proto=https", Reading::Unusable),
                ("proto=http;proto=https", Reading::Unusable),
                ("", Reading::Unusable),
                ("proto=https,", HTTPS),
                ("proto=http, for=1.2.3.4;proto=https , ,\t,", HTTPS),
                (",proto=http", HTTP),
                (", ,", Reading::Unusable),
            ],
        );
    }

    #[test]
    fn on_and_off_present_and_own_values() {
        check(
            &SignalForm::OnOff,
            &[
                ("on", HTTPS),
                ("On", HTTPS),
                ("off", HTTP),
                ("1", Reading::Unusable),
            ],
        );
        check(&SignalForm::Present, &[("1", HTTPS), ("", HTTPS)]);
        let values = SignalForm::Values {
            https: vec!["1".into(), "on".into()],
            http: vec!["0".into()],
        };
        check(
            &values,
            &[
                ("1", HTTPS),
                ("on", HTTPS),
                ("0", HTTP),
                ("On", Reading::Unusable),
            ],
        );
    }

    #[test]
    fn a_copy_needs_its_token() {
        check(
            &SignalForm::Helper,
            &[
                ("t0ken https", HTTPS),
                ("t0ken http", HTTP),
                ("t0ken -", Reading::Absent),
                ("t0ken ", Reading::Absent),
                ("https", Reading::Unusable),
                ("wrong https", Reading::Unusable),
            ],
        );
    }

    #[test]
    fn two_lines_are_unusable_and_none_is_absent() {
        let signal = Signal {
            header: HeaderId::FORWARDED_PORT,
            form: SignalForm::Present,
        };
        assert_eq!(
            signal.read(HeaderValues::Several, &token()),
            Reading::Unusable
        );
        assert_eq!(signal.read(HeaderValues::Absent, &token()), Reading::Absent);
    }
}
