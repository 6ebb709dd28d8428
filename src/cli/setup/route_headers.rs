//! What routes of Envoy's do to x-forwarded-proto: Envoy does it when it sends a request on, after every filter.

use crate::cli::files::{Located, is_spelling_of};

pub(in crate::cli) fn is_scheme(header: &str) -> bool {
    header.eq_ignore_ascii_case("x-forwarded-proto")
}

/// Whether a value is what the header has already.
pub(in crate::cli) fn is_itself(value: &Located) -> bool {
    let text = value.text().unwrap_or_default();
    text.trim().eq_ignore_ascii_case("%REQ(X-FORWARDED-PROTO)%")
}

/// The header in a list of names.
pub(in crate::cli) fn named(list: &Located) -> Option<&Located> {
    let mut names = list.items().iter();
    names.find(|name| name.text().is_some_and(is_scheme))
}

/// Deeper than any header stands in a route.
const MOST_LEVELS: usize = 12;

/// Where a route, or something that holds routes, first sets, adds or removes the header.
pub(in crate::cli) fn changed(located: &Located) -> Option<&Located> {
    below(located, 0)
}

fn below(located: &Located, depth: usize) -> Option<&Located> {
    if depth > MOST_LEVELS {
        return None;
    }
    let in_items = located
        .items()
        .iter()
        .find_map(|item| below(item, depth + 1));
    in_items.or_else(|| {
        located.fields().find_map(|field| {
            let is = |name: &str| is_spelling_of(&field.name, name);
            if is("request_headers_to_add") {
                field.value.items().iter().find_map(added)
            } else if is("request_headers_to_remove") {
                named(&field.value)
            } else {
                below(&field.value, depth + 1)
            }
        })
    })
}

/// The header, if that is what a `HeaderValueOption` adds.
pub(in crate::cli) fn added(option: &Located) -> Option<&Located> {
    let header = option.get("header")?;
    let name = header.get("key")?;
    let is_changed = !header.get("value").is_some_and(is_itself);
    (is_changed && name.text().is_some_and(is_scheme)).then_some(name)
}
