//! Sources of manifests that aren't manifests yet.

use super::syntax_error::SyntaxError;

/// The place of a Helm template's first action, if the text has one. Asked of texts that can't be read.
pub(super) fn found(text: &str) -> Option<SyntaxError> {
    const WORDS: &[&str] = &[
        ".Values",
        ".Release",
        ".Chart",
        ".Files",
        ".Capabilities",
        ".Template",
        "include ",
        "template ",
        "define ",
        "if ",
        "else",
        "end",
        "range ",
        "with ",
        "$",
        "toYaml",
        "tpl ",
        "/*",
    ];
    let mut from = 0;
    while let Some(open) = text.get(from..)?.find("{{").map(|at| from + at) {
        let end = text.get(open..)?.find("}}").map(|at| open + at + 2)?;
        let action = text.get(open + 2..end - 2)?;
        let words = action.trim_start_matches('-').trim_start();
        if WORDS
            .iter()
            .any(|word| words.starts_with(word) || action.contains(".Values"))
        {
            return Some(SyntaxError {
                message: "this is a Helm template, not a manifest yet".to_owned(),
                help: Some(
                    "give what Helm makes of it: helm template CHART --values values.yaml | trusted-lb check -"
                        .to_owned(),
                ),
                span: open..end,
            });
        }
        from = end;
    }
    None
}
