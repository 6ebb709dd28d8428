//! Which header names and values a configuration may contain.

use super::document::quoted;
use super::model::HeaderName;

/// Headers that decide where a message ends or goes; no rule of this filter may read or remove them.
const STRUCTURAL: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Reads a header name: a token, stored lower-case as Envoy keeps it.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub(crate) fn name(text: &str) -> Result<HeaderName, (String, String)> {
    let help = || "a header name has letters, digits and - only, such as x-lb-proto".to_owned();
    let shown = quoted(text);
    if text.is_empty() {
        return Err(("the header name is empty".to_owned(), help()));
    }
    if let Some(rest) = text.strip_prefix(':') {
        return Err((
            format!("{shown} is a pseudo-header"),
            format!("match it through hosts, paths or methods instead of a header named {rest}"),
        ));
    }
    if let Some(bare) = text.strip_suffix(':') {
        return Err((format!("{shown} ends in a colon"), format!("write {bare}")));
    }
    if let Some(bad) = text.chars().find(|c| !is_token(*c)) {
        return Err((
            format!("{shown} is not a header name: '{bad}' can't be in one"),
            help(),
        ));
    }
    Ok(HeaderName(text.to_ascii_lowercase()))
}

/// Reads the name of a header that may be removed or used as a helper.
pub(crate) fn removable_name(text: &str) -> Result<HeaderName, (String, String)> {
    let name = name(text)?;
    if STRUCTURAL.contains(&name.as_str()) {
        return Err((
            format!("{} holds the message together", quoted(text)),
            "choose a header of your own, such as x-lb-proto".to_owned(),
        ));
    }
    Ok(name)
}

/// Why a text can't be a header's value, if it can't: Envoy refuses control characters and trims spaces.
pub(crate) fn value_problem(text: &str) -> Option<&'static str> {
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
