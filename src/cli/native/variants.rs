//! Patterns of header names: a name and its variants, which servers of the CGI family read as the same variable.

use std::collections::BTreeSet;

/// Any character of a header's name that is no letter or digit. Envoy has names in lower case, so that capitals may be among
/// them: fewer ranges make a smaller program.
const SEPARATOR: &str = "[!-/:-`{-~]";

/// Envoy refuses a pattern whose program has more than 100 instructions, unless its runtime says otherwise. This is how many
/// are counted here, roughly and on the safe side.
const LARGEST: usize = 85;

/// Patterns of these names and all their variants, of the variants alone of others, and of names as they are. Each is as
/// large as Envoy takes it.
pub(super) fn patterns(whole: &[String], variants_only: &[&str], exact: &[&str]) -> Vec<String> {
    let mut names: BTreeSet<Vec<String>> = whole.iter().map(|name| with_variants(name)).collect();
    names.extend(variants_only.iter().flat_map(|name| variants(name)));
    names.extend(exact.iter().map(|name| name.chars().map(escaped).collect()));
    let mut patterns = Vec::new();
    let mut taken: Vec<Vec<String>> = Vec::new();
    let mut size = 0;
    for name in names {
        let mut added = added_size(&name, taken.last());
        if size + added > LARGEST && !taken.is_empty() {
            patterns.push(joined(&taken));
            taken.clear();
            size = 0;
            added = added_size(&name, None);
        }
        size += added;
        taken.push(name);
    }
    if !taken.is_empty() {
        patterns.push(joined(&taken));
    }
    patterns
}

fn joined(names: &[Vec<String>]) -> String {
    let names: Vec<String> = names.iter().map(|name| name.concat()).collect();
    names.join("|")
}

/// About how many instructions a name adds to a pattern: what it begins with in common with the one before it, in their
/// order, is there already.
fn added_size(name: &[String], before: Option<&Vec<String>>) -> usize {
    let pairs = name.iter().zip(before.into_iter().flatten());
    let common = pairs.take_while(|(one, other)| one == other).count();
    let weight = |part: &String| if part.starts_with('[') { 4 } else { 1 };
    name.iter().skip(common).map(weight).sum::<usize>() + 1
}

fn with_variants(name: &str) -> Vec<String> {
    name.chars().map(any_for).collect()
}

/// One alternative for each place at which a variant may be the first to differ: there is no negation in RE2.
fn variants(name: &str) -> Vec<Vec<String>> {
    let places = name
        .char_indices()
        .filter(|(_, c)| !c.is_ascii_alphanumeric());
    places
        .map(|(first, own)| {
            let part = |(at, c): (usize, char)| match at {
                _ if c.is_ascii_alphanumeric() => c.to_string(),
                at if at < first => escaped(c),
                at if at == first => any_but(own),
                _ => any_for(c),
            };
            name.char_indices().map(part).collect()
        })
        .collect()
}

/// What may stand in place of a character: itself, or anything that is no letter or digit.
fn any_for(c: char) -> String {
    if c.is_ascii_alphanumeric() {
        c.to_string()
    } else {
        SEPARATOR.to_owned()
    }
}

/// The same without one character.
fn any_but(own: char) -> String {
    let mut out = String::from("[");
    for (first, last) in [('!', '/'), (':', '`'), ('{', '~')] {
        if (first..=last).contains(&own) {
            for (first, last) in [(first, before(own)), (after(own), last)] {
                range(first, last, &mut out);
            }
        } else {
            range(first, last, &mut out);
        }
    }
    out.push(']');
    out
}

fn range(first: char, last: char, out: &mut String) {
    if first < last {
        out.extend([first, '-', last]);
    } else if first == last {
        out.push(first);
    }
}

fn before(c: char) -> char {
    char::from_u32(u32::from(c).saturating_sub(1)).unwrap_or(c)
}

fn after(c: char) -> char {
    char::from_u32(u32::from(c).saturating_add(1)).unwrap_or(c)
}

fn escaped(c: char) -> String {
    if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') {
        c.to_string()
    } else {
        format!("\\{c}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_in_its_pattern_only_if_it_is_asked_for() {
        let whole = patterns(&["x-a".to_owned()], &[], &["y-b"]);
        assert_eq!(whole, ["x[!-/:-`{-~]a|y-b"]);
        let variants = patterns(&[], &["x-b-c", "plain"], &[]);
        assert_eq!(variants.len(), 1);
        assert!(
            variants.concat().split('|').all(|one| one != "x-b-c"),
            "{variants:?}"
        );
        assert_eq!(any_but('-'), "[!-,.-/:-`{-~]");
        assert_eq!(any_but('_'), "[!-/:-^`{-~]");
    }

    #[test]
    fn many_names_make_several_patterns() {
        let names: Vec<String> = (0..30)
            .map(|index| format!("x{index}-header-number"))
            .collect();
        let patterns = patterns(&names, &[], &[]);
        assert!(patterns.len() > 1);
        assert_eq!(patterns.iter().flat_map(|one| one.split('|')).count(), 30);
    }
}
