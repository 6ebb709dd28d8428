//! Files, folders and standard input.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::MOST_BYTES;
use super::source::Source;

/// What messages call the standard input.
pub(in crate::cli) const STDIN: &str = "<stdin>";

/// Files as they were named on the command line, and those found in folders.
#[derive(Default)]
pub(in crate::cli) struct Inputs {
    pub(in crate::cli) sources: Vec<Rc<Source>>,
    /// Files of folders that can't be read and don't name this filter: other programs' files lie there too.
    pub(in crate::cli) skipped: Vec<String>,
}

/// One file; `-` is standard input.
pub(in crate::cli) fn one(path: &Path) -> Result<Source, String> {
    if path == Path::new("-") {
        return text(std::io::stdin().lock(), STDIN);
    }
    let name = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|error| format!("{name}: {error}"))?;
    text(file, &name)
}

/// Files, and all YAML and JSON files below folders.
pub(in crate::cli) fn inputs(paths: &[PathBuf]) -> Result<Inputs, String> {
    let mut inputs = Inputs::default();
    for path in paths {
        if path == Path::new("-") || !path.is_dir() {
            inputs.sources.push(Rc::new(one(path)?));
            continue;
        }
        let mut files = Vec::new();
        walk(path, 0, &mut files)?;
        for file in files {
            match one(&file) {
                Ok(source) if is_foreign(&source) => inputs.skipped.push(source.name),
                Ok(source) => inputs.sources.push(Rc::new(source)),
                Err(_) => inputs.skipped.push(file.display().to_string()),
            }
        }
    }
    if inputs.sources.is_empty() {
        let names: Vec<String> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        return Err(format!(
            "{}: there is no YAML or JSON file in here that names trusted-lb",
            names.join(", ")
        ));
    }
    Ok(inputs)
}

/// Whether a file is neither readable nor of interest.
fn is_foreign(source: &Source) -> bool {
    let text = &source.text;
    let names_us = ["trusted-lb", "trusted_lb", "trustedLoadBalancers"]
        .iter()
        .any(|name| text.contains(name));
    !names_us && source.documents().is_err()
}

fn text(reader: impl Read, name: &str) -> Result<Source, String> {
    let mut bytes = Vec::new();
    reader
        .take(MOST_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("{name}: {error}"))?;
    if bytes.len() > MOST_BYTES {
        return Err(format!(
            "{name}: this is larger than {} MB",
            MOST_BYTES >> 20
        ));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source::new(name, text)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let before = error.as_bytes().get(..at).unwrap_or_default();
            let line = before.split(|byte| *byte == b'\n').count();
            Err(format!("{name}:{line}: this is not UTF-8 text"))
        }
    }
}

/// Folders inside folders, so that a link in a circle ends.
const MOST_FOLDERS: usize = 32;

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        entries.push(entry.map_err(wrong)?.path());
    }
    entries.sort();
    for path in entries {
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        if path.is_dir() {
            if depth < MOST_FOLDERS {
                walk(&path, depth + 1, files)?;
            }
        } else if path.extension().is_some_and(|ending| {
            matches!(
                ending.to_string_lossy().to_ascii_lowercase().as_str(),
                "yaml" | "yml" | "json"
            )
        }) {
            files.push(path);
        }
    }
    Ok(())
}
