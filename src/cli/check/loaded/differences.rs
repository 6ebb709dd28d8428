//! Two configurations, field by field.

use crate::cli::yaml;
use crate::config::{Node, Path};

/// Differences that are told; what is behind them is counted.
const MOST: usize = 5;

/// Longer values are cut.
const LONGEST: usize = 60;

/// A place in the configuration that is meant, and what is loaded there.
pub(super) type Difference = (Path, String);

/// Where two configurations differ, in the order of the one that is meant.
pub(super) fn between(meant: &Node, loaded: &Node) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(&Path::root(), meant, loaded, &mut found);
    found
}

/// For people.
pub(super) fn listed(differences: &[Difference]) -> String {
    let shown: Vec<String> = differences
        .iter()
        .take(MOST)
        .map(|(path, what)| {
            if path.is_root() {
                what.clone()
            } else {
                format!("{path} {what}")
            }
        })
        .collect();
    let rest = differences.len().saturating_sub(MOST);
    let more = if rest > 0 {
        format!(", and {rest} more differences")
    } else {
        String::new()
    };
    format!("{}{more}", shown.join(", "))
}

fn compare(path: &Path, meant: &Node, loaded: &Node, found: &mut Vec<Difference>) {
    match (meant, loaded) {
        (Node::Object(meant), Node::Object(loaded)) => objects(path, meant, loaded, found),
        (Node::List(meant), Node::List(loaded)) if has_objects(meant) || has_objects(loaded) => {
            for (index, pair) in meant.iter().zip(loaded).enumerate() {
                compare(&path.item(index), pair.0, pair.1, found);
            }
            for (index, extra) in meant.iter().enumerate().skip(loaded.len()) {
                absent(&path.item(index), extra, found);
            }
            for (index, extra) in loaded.iter().enumerate().skip(meant.len()) {
                found.push((path.item(index), not_meant(extra)));
            }
        }
        (meant, loaded) if meant == loaded => {}
        (meant, loaded) => found.push((
            path.clone(),
            format!("{} instead of {}", shown(loaded), shown(meant)),
        )),
    }
}

type Fields = [(String, Node)];

fn objects(path: &Path, meant: &Fields, loaded: &Fields, found: &mut Vec<Difference>) {
    // Of a name that is written twice the last counts, and null is as if nothing were written.
    let value = |fields: &'_ Fields, name: &str| {
        let last = fields.iter().rev().find(|(known, _)| known == name);
        last.map(|(_, value)| value.clone())
            .filter(|value| *value != Node::Null)
    };
    let mut seen: Vec<&str> = Vec::new();
    for (name, _) in meant {
        if seen.contains(&name.as_str()) {
            continue;
        }
        seen.push(name);
        let here = path.field(name);
        match (value(meant, name), value(loaded, name)) {
            (Some(meant), Some(loaded)) => compare(&here, &meant, &loaded, found),
            (Some(meant), None) => absent(&here, &meant, found),
            (None, Some(loaded)) => found.push((here, not_meant(&loaded))),
            (None, None) => {}
        }
    }
    for (name, _) in loaded {
        if seen.contains(&name.as_str()) {
            continue;
        }
        seen.push(name);
        if let Some(extra) = value(loaded, name) {
            found.push((path.field(name), not_meant(&extra)));
        }
    }
}

fn absent(path: &Path, meant: &Node, found: &mut Vec<Difference>) {
    found.push((path.clone(), format!("left out (meant: {})", shown(meant))));
}

fn not_meant(loaded: &Node) -> String {
    format!("{}, which the file doesn't have", shown(loaded))
}

fn has_objects(items: &[Node]) -> bool {
    items.iter().any(|item| matches!(item, Node::Object(_)))
}

fn shown(node: &Node) -> String {
    let text = flow(node);
    if text.chars().count() <= LONGEST {
        return text;
    }
    let cut: String = text.chars().take(LONGEST).collect();
    format!("{cut}…")
}

fn flow(node: &Node) -> String {
    match node {
        Node::List(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Node::Object(fields) => {
            let fields = fields.iter();
            let fields: Vec<String> = fields
                .map(|(name, value)| format!("{}: {}", yaml::text(name), flow(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        scalar => yaml::flow(scalar),
    }
}
