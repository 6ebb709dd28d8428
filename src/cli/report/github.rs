//! Findings as annotations of a GitHub workflow, at their line.

use super::Diagnostic;
use crate::config::Severity;

/// A workflow command.
pub(in crate::cli) fn github(diagnostic: &Diagnostic) -> String {
    let kind = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let mut message = String::new();
    if !diagnostic.path.is_empty() {
        message = format!("{}: ", diagnostic.path);
    }
    message.push_str(&diagnostic.message);
    if let Some(help) = &diagnostic.help {
        message.push('\n');
        message.push_str(help);
    }
    format!(
        "::{kind} file={},line={},col={},title=trusted-lb {}::{}\n",
        property(&diagnostic.source.name),
        diagnostic.line(),
        diagnostic.column(),
        diagnostic.code.name,
        data(&message)
    )
}

fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
