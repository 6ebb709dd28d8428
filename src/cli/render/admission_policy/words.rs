//! Values in words, for messages.

use crate::config::declare::Kind;

/// What to say of a value that isn't of this kind.
pub(super) fn is_none_of(kind: &Kind) -> String {
    fn names(kind: &Kind, all: &mut Vec<String>) {
        match kind {
            Kind::Boolean => all.push("true or false".to_owned()),
            Kind::Whole(least, most) => {
                all.push(format!("a whole number from {least} to {most}"));
            }
            Kind::Text { what, .. } => all.push((*what).to_owned()),
            Kind::Words(words) => all.extend(words.iter().map(|word| (*word).to_owned())),
            Kind::Object(object) => all.push(object.title.to_lowercase()),
            Kind::List(item) | Kind::Distinct(item) | Kind::Set(item) => {
                let mut items = Vec::new();
                names(item, &mut items);
                all.push(format!("a list of these: {}", items.join(", ")));
            }
            Kind::Either(kinds) => kinds.iter().for_each(|kind| names(kind, all)),
        }
    }
    let mut all = Vec::new();
    names(kind, &mut all);
    match all.as_slice() {
        [only] => format!("is not: {only}"),
        all => format!("is none of: {}", all.join(", ")),
    }
}
