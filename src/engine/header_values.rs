//! The values that a request has for one header.

/// How often a header is there, and with which value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum HeaderValues<'r> {
    /// The header is absent.
    #[default]
    Absent,
    /// One line with this value.
    One(&'r [u8]),
    /// More than one line. Envoy and the upstream may read different lines, so no rule believes any of them.
    Several,
}

impl<'r> HeaderValues<'r> {
    /// The value of a header that is there on one line.
    pub(crate) fn one(self) -> Option<&'r [u8]> {
        match self {
            HeaderValues::One(value) => Some(value),
            HeaderValues::Absent | HeaderValues::Several => None,
        }
    }

    pub(crate) fn is_present(self) -> bool {
        self != HeaderValues::Absent
    }

    /// Whether the header is there on one line, with this value.
    pub(crate) fn is(self, value: &str) -> bool {
        self.one() == Some(value.as_bytes())
    }

    /// With one more line.
    #[inline(always)]
    pub(crate) fn and(self, value: &'r [u8]) -> Self {
        match self {
            HeaderValues::Absent => HeaderValues::One(value),
            HeaderValues::One(_) | HeaderValues::Several => HeaderValues::Several,
        }
    }
}
