//! Places in a configuration.

use std::fmt::{self, Write};

/// A place in a configuration, such as `routes[2].retries.retryOn[0]`. Without parts it is the whole document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Path(Vec<PathPart>);

/// One step of a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathPart {
    /// Into the field of this name.
    Field(String),
    /// Into the list's entry at this position, from 0.
    Item(usize),
}

impl Path {
    /// The whole document.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// The place of a field below this one.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        self.with(PathPart::Field(name.to_owned()))
    }

    /// The place of a list's entry below this one.
    #[must_use]
    pub fn item(&self, index: usize) -> Self {
        self.with(PathPart::Item(index))
    }

    /// The steps from the whole document to this place.
    #[must_use]
    pub fn parts(&self) -> &[PathPart] {
        &self.0
    }

    /// Whether this is the whole document.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this place is `other` or lies in it.
    #[must_use]
    pub fn is_within(&self, other: &Path) -> bool {
        self.0.starts_with(&other.0)
    }

    fn with(&self, part: PathPart) -> Self {
        let mut parts = self.0.clone();
        parts.push(part);
        Self(parts)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            match part {
                PathPart::Item(index) => write!(f, "[{index}]")?,
                PathPart::Field(name) => {
                    if index > 0 {
                        f.write_str(".")?;
                    }
                    // A name is whatever the configuration says.
                    one_line(name, f)?;
                }
            }
        }
        Ok(())
    }
}

/// Writes a text with its control characters escaped, so that it can't begin a line of its own in the proxy's log.
pub(crate) fn one_line(text: &str, to: &mut dyn Write) -> fmt::Result {
    for c in text.chars() {
        if c.is_control() {
            write!(to, "\\u{{{:x}}}", u32::from(c))?;
        } else {
            to.write_char(c)?;
        }
    }
    Ok(())
}

/// A place while the configuration is read: linked to the places that hold it, so that it costs nothing until there
/// is a problem.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Here<'p> {
    Root,
    Field(&'p Here<'p>, &'p str),
    Item(&'p Here<'p>, usize),
}

impl Here<'_> {
    /// The same place as a value.
    pub(crate) fn path(&self) -> Path {
        match self {
            Here::Root => Path::root(),
            Here::Field(parent, name) => parent.path().field(name),
            Here::Item(parent, index) => parent.path().item(*index),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_people_write_it() {
        let routes = Here::Field(&Here::Root, "routes");
        let third = Here::Item(&routes, 2);
        let retries = Here::Field(&third, "retries");
        assert_eq!(retries.path().to_string(), "routes[2].retries");
    }

    #[test]
    fn a_place_lies_within_itself_and_what_holds_it() {
        let routes = Path::root().field("routes");
        let timeout = routes.item(1).field("timeout");
        assert!(timeout.is_within(&routes));
        assert!(timeout.is_within(&timeout));
        assert!(timeout.is_within(&Path::root()));
        assert!(!timeout.is_within(&routes.item(2)));
        assert!(!routes.is_within(&timeout));
    }
}
