//! Which header names and values a configuration may contain.

use super::declare::text;
use super::document::quoted;
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

/// Headers that decide where a message ends or goes; no rule of this filter may remove them or use them as a helper.
const STRUCTURAL: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// The header that this filter writes for every request, so that removing it says nothing.
const WRITTEN: &str = "x-forwarded-proto";

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
    at.reported(name(at.text()?))
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
        text => at.reported(name(text)).map(Some),
    }
}

text! {
    /// A header that an untrusted peer may not send.
    RemovedHeader: HeaderName = "header name", "x-forwarded-ssl", removed,
        token_but(&[STRUCTURAL, &[WRITTEN]].concat());
}

fn removed(at: At<'_>) -> Option<HeaderName> {
    let name = at.reported(own_name(at.text()?))?;
    if name.as_str() == WRITTEN {
        at.error_with_help(
            &format_args!(
                "{WRITTEN} is never removed: without it Envoy answers 404 if httpsRedirect is on"
            ),
            &"it is overwritten for untrusted peers; see untrusted.forwardedProto",
        );
        return None;
    }
    Some(name)
}

text! {
    /// A header that an early header mutation of the gateway's own writes, as `header:NAME`.
    HeaderCopy: HeaderName = "header:NAME", "header:x-lb-proto", copy,
        format!("^{COPY} *{}", token_but(STRUCTURAL).trim_start_matches('^'));
}

fn copy(at: At<'_>) -> Option<HeaderName> {
    let text = at.text()?;
    let name = text.strip_prefix(COPY).unwrap_or(text);
    at.reported(own_name(name.trim_start_matches(' ')))
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

/// Reads the name of a header that may be removed or used as a helper.
fn own_name(text: &str) -> Result<HeaderName, Wrong> {
    let name = name(text)?;
    if STRUCTURAL.contains(&name.as_str()) {
        return Err(Wrong::new(
            format!("{} holds the message together", quoted(text)),
            "choose a header of your own, such as x-lb-proto",
        ));
    }
    Ok(name)
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
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
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
    let any_case = |c: char| match c {
        'a'..='z' => format!("[{}{c}]", c.to_ascii_uppercase()),
        c => c.to_string(),
    };
    let words: Vec<String> = words
        .iter()
        .map(|word| word.chars().map(any_case).collect())
        .collect();
    words.join("|")
}
