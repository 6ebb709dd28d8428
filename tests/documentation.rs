//! What the documentation says, tried: its links, its configurations, its command lines.

// Tests end where something is not as expected.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod command;

use std::path::{Path, PathBuf};
use std::process::Command;

use command::{COMMAND, below, listed, read, relative, run, text};
use testkit::artifacts::repository;

/// Every Markdown file of the repository that people read.
fn pages() -> Vec<PathBuf> {
    let mut pages = listed(".", ".md");
    for folder in ["docs", "envoyfilter", "examples", "tests"] {
        pages.extend(below(folder, ".md"));
    }
    pages
}

/// The blocks of a page in this language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, Vec<&str>)> = None;
    for line in page.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(info), None) => open = Some((info == language, Vec::new())),
            (Some(_), Some(_)) => {
                let (wanted, lines) = open.take().expect("it is open");
                if wanted {
                    blocks.push(lines.join("\n"));
                }
            }
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block that doesn't end: {page}");
    blocks
}

/// A page without its blocks of code.
fn prose(page: &str) -> String {
    let mut code = false;
    page.lines()
        .filter(|line| {
            let fence = line.trim_start().starts_with("```");
            code ^= fence;
            !code && !fence
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> Vec<String> {
    prose(page)
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|heading| {
            heading
                .trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

#[test]
fn every_link_in_the_documentation_leads_somewhere() {
    let mut broken = Vec::new();
    let mut followed = 0;
    for page in pages() {
        let text = read(&page);
        let prose = prose(&text);
        let targets = prose
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            followed += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let other = if file.is_empty() {
                page.clone()
            } else {
                page.parent().expect("a page is in a folder").join(file)
            };
            let there = other.exists()
                && (anchor.is_empty()
                    || anchors(&read(&other)).iter().any(|known| known == anchor));
            if !there {
                broken.push(format!("{}: {target}", relative(&page)));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(followed > 20, "only {followed} links were found");
}

/// Whether a block is a resource or a part of Envoy's configuration, by its first field: ours have no underscore.
fn belongs_to_others(yaml: &str) -> bool {
    let first = yaml
        .lines()
        .find(|line| !line.trim_start().starts_with('#'));
    let field = first
        .and_then(|line| line.split(':').next())
        .unwrap_or_default();
    field.contains('_') || field == "apiVersion" || yaml.contains("typed_config:")
}

#[test]
fn every_yaml_block_in_the_documentation_passes_the_check() {
    let mut configurations = 0;
    for page in pages() {
        for yaml in blocks(&read(&page), "yaml") {
            // What belongs to others is passed over beside a configuration that is good in any case.
            let mut arguments = vec!["check", "-"];
            if belongs_to_others(&yaml) {
                arguments.push("tests/configurations/accepted/minimal.yaml");
            } else {
                configurations += 1;
            }
            let output = run(&arguments, &yaml);
            let answer = text(&output);
            assert_eq!(
                output.status.code(),
                Some(0),
                "{}: {answer}",
                relative(&page)
            );
        }
    }
    assert!(configurations >= 2, "only {configurations} were found");
}

#[test]
fn every_command_line_in_the_documentation_works_from_the_repositorys_root() {
    let mut tried = 0;
    for page in pages() {
        for block in blocks(&read(&page), "sh") {
            for line in block.replace("\\\n", "").lines() {
                let Some(arguments) = line.strip_prefix("dist/trusted-lb ") else {
                    continue;
                };
                let output = Command::new("sh")
                    .args(["-c", &format!("'{COMMAND}' {arguments}")])
                    .current_dir(repository())
                    .output()
                    .expect("there is a shell");
                let place = relative(Path::new(&page));
                assert!(
                    output.status.success(),
                    "{place}: {line}\n{}",
                    text(&output)
                );
                tried += 1;
            }
        }
    }
    assert!(tried >= 4, "only {tried} were found");
}
