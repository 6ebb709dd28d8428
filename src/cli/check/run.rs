//! `trusted-lb check` as a command.

use std::fmt::Write as _;
use std::rc::Rc;

use super::{Checked, MOST_OF_ALL};
use crate::cli::args::{CheckArgs, CheckFormat, CheckTarget};
use crate::cli::files::{self, Source};
use crate::cli::report::{self, Diagnostic, codes};
use crate::cli::{Failure, INVALID, done, print, usage};
use crate::config::{self, Severity};

/// Checks files and prints what it finds.
pub(in crate::cli) fn run(arguments: &CheckArgs) -> Result<u8, Failure> {
    if let Some(code) = &arguments.explain {
        return explain(code);
    }
    let inputs = files::inputs(&arguments.files).map_err(usage)?;
    let checked = super::sources(&inputs.sources, arguments.target);
    let colours = crate::cli::colours();
    print(&answer(&inputs, &checked, arguments.format, colours))?;
    let numbers = Numbers::of(&checked, None);
    Ok(if numbers.errors > 0 { INVALID } else { 0 })
}

/// Prints what a kind of finding means, or all of them.
fn explain(name: &str) -> Result<u8, Failure> {
    if name == "all" {
        return done(&findings());
    }
    let Some(code) = codes::ALL.iter().find(|code| code.name == name) else {
        let mut names = codes::ALL.iter().map(|code| code.name);
        let meant = config::closest(name, &mut names.clone());
        return Err(usage(match meant {
            Some(word) => format!("there is no finding {name}; did you mean {word}?"),
            None => format!(
                "there is no finding {name}; the findings are {}",
                config::joined(&mut names, ", ")
            ),
        }));
    };
    done(&format!(
        "{}\n\n{}\n\n{}\n",
        code.name, code.meaning, code.cure
    ))
}

/// Every kind of finding, as Markdown.
fn findings() -> String {
    let mut out = String::from(
        "# What `trusted-lb check` finds\n\n<!-- Written by `trusted-lb check --explain all`. -->\n\n\
         The word is the `code` of `--format json`, the rule of SARIF, and what `trusted-lb check --explain CODE` takes.\n",
    );
    for code in codes::ALL {
        let _ = write!(
            out,
            "\n## {}\n\n{}\n\n{}\n",
            code.name, code.meaning, code.cure
        );
    }
    out
}

/// What is said of one text in every format.
pub(in crate::cli) fn of_text(text: &str) -> String {
    let inputs = files::Inputs {
        sources: vec![Rc::new(Source::new("<text>", text))],
        skipped: Vec::new(),
    };
    let checked = super::sources(&inputs.sources, CheckTarget::Module);
    [
        CheckFormat::Text,
        CheckFormat::Json,
        CheckFormat::Sarif,
        CheckFormat::Github,
    ]
    .into_iter()
    .map(|format| answer(&inputs, &checked, format, false))
    .collect()
}

fn answer(inputs: &files::Inputs, checked: &Checked, format: CheckFormat, colours: bool) -> String {
    let shown: Vec<&Diagnostic> = checked.diagnostics.iter().take(MOST_OF_ALL).collect();
    let mut out = String::new();
    match format {
        CheckFormat::Text => {
            for diagnostic in &shown {
                out.push_str(&report::text(diagnostic, colours));
                out.push_str("\n\n");
            }
            summary(&mut out, inputs, checked);
            native(&mut out, checked);
        }
        CheckFormat::Json => {
            let list: serde_json::Value = shown.iter().map(|one| one.json()).collect();
            let _ = writeln!(out, "{list:#}");
        }
        CheckFormat::Sarif => {
            let _ = writeln!(out, "{:#}", report::sarif(&shown));
        }
        CheckFormat::Github => {
            for diagnostic in &shown {
                out.push_str(&report::github(diagnostic));
            }
            summary(&mut out, inputs, checked);
        }
    }
    out
}

/// How much there is of what.
#[derive(Default)]
struct Numbers {
    configurations: usize,
    errors: usize,
    warnings: usize,
}

impl Numbers {
    /// Of one file, or of all.
    fn of(checked: &Checked, source: Option<&Rc<Source>>) -> Self {
        let is_meant = |of: &Rc<Source>| source.is_none_or(|source| Rc::ptr_eq(source, of));
        let mut numbers = Numbers::default();
        for diagnostic in checked
            .diagnostics
            .iter()
            .filter(|one| is_meant(&one.source))
        {
            match diagnostic.severity {
                Severity::Error => numbers.errors += 1,
                Severity::Warning => numbers.warnings += 1,
            }
        }
        for left_out in checked.left_out.iter().filter(|one| is_meant(&one.source)) {
            numbers.errors += left_out.errors;
            numbers.warnings += left_out.warnings;
        }
        numbers.configurations = checked
            .configurations
            .iter()
            .filter(|of| is_meant(of))
            .count();
        numbers
    }

    fn text(&self) -> String {
        let number =
            |count, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        format!(
            "{}, {}, {}",
            number(self.configurations, "configuration"),
            number(self.errors, "error"),
            number(self.warnings, "warning")
        )
    }
}

/// So many files are summed up one by one.
const MANY_FILES: usize = 4;

/// Lines of a summary: files beyond these have only their errors told.
const MOST_FILES: usize = 200;

/// That configurations need no module, if they are good.
fn native(out: &mut String, checked: &Checked) {
    if Numbers::of(checked, None).errors > 0 {
        return;
    }
    let _ = match checked.native.as_slice() {
        [] => Ok(()),
        [command] if checked.configurations.len() == 1 => {
            writeln!(
                out,
                "note: Envoy's own filters can do this, for less: {command}"
            )
        }
        some => writeln!(
            out,
            "note: Envoy's own filters can do what {} of {} configurations say, for less: trusted-lb render native; \
             check --target native says what the others can't",
            some.len(),
            checked.configurations.len()
        ),
    };
}

fn summary(out: &mut String, inputs: &files::Inputs, checked: &Checked) {
    for line in checked.as_meant.iter().take(MOST_OF_ALL) {
        let _ = writeln!(out, "{line}");
    }
    if !checked.as_meant.is_empty() {
        out.push('\n');
    }
    if !checked.suggested_routes.is_empty() {
        out.push_str("add to routes, in front of others that match the same requests:\n\n");
        for route in checked.suggested_routes.iter().take(MOST_OF_ALL) {
            out.push_str(route);
        }
        out.push('\n');
    }
    let left_out = checked.diagnostics.len().saturating_sub(MOST_OF_ALL)
        + checked
            .left_out
            .iter()
            .map(|one| one.errors + one.warnings)
            .sum::<usize>();
    if left_out > 0 {
        let _ = writeln!(out, "and {left_out} more problems like these\n");
    }
    if inputs.sources.len() >= MANY_FILES {
        let mut without = inputs.skipped.len();
        let mut lines = 0;
        for source in &inputs.sources {
            let own = Numbers::of(checked, Some(source));
            let is_worth_a_line = own.configurations + own.errors + own.warnings > 0;
            if is_worth_a_line && lines < MOST_FILES {
                let _ = writeln!(out, "{}: {}", source.name, own.text());
                lines += 1;
            } else if !is_worth_a_line {
                without += 1;
            }
        }
        if without > 0 {
            let files = if without == 1 {
                "1 file"
            } else {
                &format!("{without} files")
            };
            let _ = writeln!(out, "{files} without trusted-lb");
        }
    }
    let _ = writeln!(out, "{}", Numbers::of(checked, None).text());
}
