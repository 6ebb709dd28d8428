//! Which header names and values a configuration may contain.

use super::declare::text;
use super::document::quoted;
use super::problem::MOST_HEADERS;
use super::read::{At, Wrong};

/// A header name: a lower-case token (RFC 9110, 5.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct HeaderName(pub(crate) String);

impl HeaderName {
    /// The name, lower-case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name that this is, or is a variant of: with hyphens for whatever isn't a letter or digit.
    pub(crate) fn hyphenated(&self) -> String {
        let hyphen = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        self.0.chars().map(hyphen).collect()
    }

    /// Whether Envoy or this filter needs the header as it is.
    pub(crate) fn is_owned(&self) -> bool {
        owned(self).is_some()
    }
}

/// The name of an environment variable of the Wasm VM.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct EnvName(pub(crate) String);

impl EnvName {
    /// The variable's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A header that Envoy or this filter needs as it is, so that no configuration may remove it or read a helper from it.
struct Owned {
    name: &'static str,
    why: &'static str,
    /// What to write instead of its removal.
    instead: &'static str,
}

/// Those whose removal is refused. Their variants aren't removed by name either.
const OWNED: &[Owned] = &[
    structural("connection"),
    structural("content-length"),
    structural("host"),
    structural("te"),
    structural("transfer-encoding"),
    structural("upgrade"),
    Owned {
        name: "cookie",
        why: "is the application's own",
        instead: "leave it out",
    },
    Owned {
        name: "x-forwarded-for",
        why: "has the direct peer's address, which Envoy writes and this filter reads",
        instead: "leave it to Envoy; numTrustedProxies says how much of it is believed",
    },
    Owned {
        name: PROTO,
        why: "is never removed: without it Envoy answers 404 if httpsRedirect is on",
        instead: "it is overwritten for untrusted peers; see untrusted.forwardedProto",
    },
];

/// Written for every request.
pub(crate) const PROTO: &str = "x-forwarded-proto";

/// Written with `forwardedPort`, so that it can't be a helper. An untrusted peer's is removed.
pub(crate) const PORT: &str = "x-forwarded-port";

/// The beginning of the headers of Envoy's router.
const ROUTER: &str = "x-envoy-";

const ROUTERS: Owned = Owned {
    name: ROUTER,
    why: "is for Envoy's router, and this filter reads and writes such headers",
    instead: "leave it out: untrusted requests lose what the router reads, and requestHeaders says what becomes of the rest",
};

const OF_YOUR_OWN: &str = "choose a header of your own, such as x-lb-proto";

const fn structural(name: &'static str) -> Owned {
    Owned {
        name,
        why: "holds the message together",
        instead: OF_YOUR_OWN,
    }
}

/// The owned header that this name is, or is a variant of.
fn owned(name: &HeaderName) -> Option<&'static Owned> {
    let spelled = name.hyphenated();
    if spelled.starts_with(ROUTER) {
        return Some(&ROUTERS);
    }
    OWNED.iter().find(|owned| owned.name == spelled)
}

/// What stands in front of the name of a header that an early header mutation writes.
pub(crate) const COPY: &str = "header:";

/// The characters of a token, for patterns.
#[cfg(feature = "cli")]
const TOKEN: &str = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+";

text! {
    /// A header name in any case.
    HeaderToken: HeaderName = "header name", "x-lb-proto", header, format!("^{TOKEN}$");
}

fn header(at: At<'_>) -> Option<HeaderName> {
    named(at, at.text()?)
}

text! {
    /// A header name, or nothing.
    HeaderOrNone: Option<HeaderName> = "header name, or nothing", "idempotency-key", header_or_none,
        format!("^({TOKEN})?$");
}

#[allow(clippy::option_option)] // Nothing was written, "" was, a name was.
fn header_or_none(at: At<'_>) -> Option<Option<HeaderName>> {
    match at.text()? {
        "" => Some(None),
        text => named(at, text).map(Some),
    }
}

text! {
    /// A header that an untrusted peer may not send.
    RemovedHeader: HeaderName = "header name, with hyphens", "x-forwarded-ssl", removed,
        format!("^(?!{}$)[0-9A-Za-z-]+$", owned_pattern(&[]));
}

fn removed(at: At<'_>) -> Option<HeaderName> {
    let text = at.text()?;
    let name = named(at, text)?;
    if let Some(owned) = owned(&name) {
        at.error_with_help(
            &format_args!("{} {}", quoted(text), owned.why),
            &owned.instead,
        );
        return None;
    }
    let spelled = name.hyphenated();
    if spelled != name.as_str() {
        at.error_with_help(
            &format_args!("{} is a variant of {spelled}", quoted(text)),
            &format_args!("write {spelled}: all of its variants are meant by it"),
        );
        return None;
    }
    Some(name)
}

text! {
    /// A header that an early header mutation of the gateway's own writes, as `header:NAME`.
    HeaderCopy: HeaderName = "header:NAME", "header:x-lb-proto", copy,
        format!("^{COPY} *(?!{}$){TOKEN}$", owned_pattern(&[PORT]));
}

fn copy(at: At<'_>) -> Option<HeaderName> {
    let text = at.text()?;
    let text = text
        .strip_prefix(COPY)
        .unwrap_or(text)
        .trim_start_matches(' ');
    let name = named(at, text)?;
    if name.is_owned() || name.hyphenated() == PORT {
        at.error_with_help(
            &format_args!(
                "{} belongs to Envoy and this filter, and a helper header is removed from every request",
                quoted(text)
            ),
            &OF_YOUR_OWN,
        );
        return None;
    }
    Some(name)
}

text! {
    /// A header value that can be compared with one that Envoy received.
    HeaderValue: String = "header value", "\"on\", in quotes", value, concat!(
        r"^[^\u0000-\u0008\u000a-\u001f\u007f \t]",
        r"([^\u0000-\u0008\u000a-\u001f\u007f]*[^\u0000-\u0008\u000a-\u001f\u007f \t])?$"
    );
}

fn value(at: At<'_>) -> Option<String> {
    let text = at.some_text()?;
    if let Some(why) = value_problem(text) {
        at.error(&format_args!("{}: {why}", quoted(text)));
        return None;
    }
    Some(text.to_owned())
}

text! {
    /// The name of an environment variable of the Wasm VM.
    Variable: EnvName = "environment variable", "ORIGIN_SECRET", variable, r"^[A-Za-z_][A-Za-z0-9_]*$";
}

fn variable(at: At<'_>) -> Option<EnvName> {
    let text = at.some_text()?;
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        || text.starts_with(|c: char| c.is_ascii_digit())
    {
        // Not repeated: somebody may have written the secret itself here.
        at.error_with_help(
            &"this is not the name of an environment variable",
            &"write a name such as ORIGIN_SECRET, and put the secret into the WasmPlugin's vmConfig.env or Envoy's \
              vm_config.environment_variables",
        );
        return None;
    }
    Some(EnvName(text.to_owned()))
}

/// A header name in a text. Past a number of them there are too many.
fn named(at: At<'_>, text: &str) -> Option<HeaderName> {
    let name = at.reported(name(text))?;
    if at.problems.one_header_too_many(name.as_str()) {
        at.error_with_help(
            &format_args!(
                "more than {MOST_HEADERS} different headers are named in this configuration"
            ),
            &"name fewer headers",
        );
    }
    Some(name)
}

/// Reads a header name: a token, stored lower-case as Envoy keeps it.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub(crate) fn name(text: &str) -> Result<HeaderName, Wrong> {
    let help = "a header name has letters, digits and - only, such as x-lb-proto";
    let shown = quoted(text);
    if text.is_empty() {
        return Err(Wrong::new("the header name is empty".to_owned(), help));
    }
    if let Some(rest) = text.strip_prefix(':') {
        return Err(Wrong::new(
            format!("{shown} is a pseudo-header"),
            format!("match it through hosts, paths or methods instead of a header named {rest}"),
        ));
    }
    if let Some(bare) = text.strip_suffix(':') {
        return Err(Wrong::new(
            format!("{shown} ends in a colon"),
            format!("write {bare}"),
        ));
    }
    if let Some(bad) = text.chars().find(|c| !is_token(*c)) {
        return Err(Wrong::new(
            format!("{shown} is not a header name: '{bad}' can't be in one"),
            help,
        ));
    }
    Ok(HeaderName(text.to_ascii_lowercase()))
}

/// Why a text can't be a header's value, if it can't: Envoy refuses control characters and trims spaces.
fn value_problem(text: &str) -> Option<&'static str> {
    if text
        .bytes()
        .any(|byte| byte < 0x20 && byte != b'\t' || byte == 0x7f)
    {
        Some("a header value can't have control characters")
    } else if text.trim_matches([' ', '\t']) != text {
        Some("Envoy takes spaces off both ends of a header value, so this never matches")
    } else {
        None
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_graphic() && !r#""(),/:;<=>?@[\]{}"#.bytes().any(|b| char::from(b) == c)
}

/// A pattern of these words, in any case.
#[cfg(feature = "cli")]
pub(crate) fn any_case(words: &[&str]) -> String {
    format!("^({})$", alternatives(words))
}

/// A pattern of header names except these, in any case.
#[cfg(feature = "cli")]
pub(crate) fn token_but(words: &[&str]) -> String {
    format!("^(?!({})$){TOKEN}$", alternatives(words))
}

#[cfg(feature = "cli")]
fn alternatives(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| spelled(word, "-")).collect();
    words.join("|")
}

/// A pattern of the owned headers, these and their variants, in any case.
#[cfg(feature = "cli")]
fn owned_pattern(more: &[&str]) -> String {
    let names = OWNED
        .iter()
        .map(|owned| owned.name)
        .chain(more.iter().copied());
    let mut words: Vec<String> = names.map(|name| spelled(name, "[^0-9A-Za-z]")).collect();
    words.push(format!("{}.*", spelled(ROUTER, "[^0-9A-Za-z]")));
    format!("({})", words.join("|"))
}

/// A pattern of a word in any case, with this for its hyphens.
#[cfg(feature = "cli")]
fn spelled(word: &str, hyphen: &str) -> String {
    let letter = |c: char| match c {
        'a'..='z' => format!("[{}{c}]", c.to_ascii_uppercase()),
        '-' => hyphen.to_owned(),
        c => c.to_string(),
    };
    word.chars().map(letter).collect()
}
