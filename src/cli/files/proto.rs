//! Envoy's messages in protobuf's JSON form: fields in either spelling, numbers as strings, messages of any type by
//! their `@type`.

use super::tree::{Field, Located};

impl Located {
    /// A field of a message, by its name in the .proto file; `use_remote_address` finds `useRemoteAddress` too.
    pub(in crate::cli) fn proto_field(&self, name: &str) -> Option<&Field> {
        self.fields()
            .filter(|field| is_spelling_of(&field.name, name) && !field.value.is_null())
            .last()
    }

    /// The value of a field of a message.
    pub(in crate::cli) fn proto(&self, name: &str) -> Option<&Located> {
        self.proto_field(name).map(|field| &field.value)
    }

    /// The value at the end of a path of a message's fields.
    pub(in crate::cli) fn proto_at(&self, path: &[&str]) -> Option<&Located> {
        path.iter()
            .try_fold(self, |located, name| located.proto(name))
    }

    /// A message's number, which may be written as a string.
    pub(in crate::cli) fn proto_number(&self) -> Option<f64> {
        self.number().or_else(|| self.text()?.parse().ok())
    }

    /// The full name and the content of a message of any type: one with `@type`, or the `TypedStruct` of xDS in which
    /// Istio's documentation writes them.
    pub(in crate::cli) fn any(&self) -> Option<(&str, &Located)> {
        let name = type_name(self.get("@type")?.text()?);
        if matches!(name, "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct") {
            let inner = type_name(self.proto("type_url")?.text()?);
            return Some((inner, self.proto("value")?));
        }
        Some((name, self))
    }
}

/// `envoy.config.X` of `type.googleapis.com/envoy.config.X`.
fn type_name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

/// Whether a field's name is the .proto name or protobuf's JSON name for it.
pub(in crate::cli) fn is_spelling_of(written: &str, name: &str) -> bool {
    if written == name {
        return true;
    }
    let mut written = written.chars();
    let mut upper = false;
    for c in name.chars() {
        if c == '_' {
            upper = true;
            continue;
        }
        let c = if upper { c.to_ascii_uppercase() } else { c };
        upper = false;
        if written.next() != Some(c) {
            return false;
        }
    }
    written.next().is_none()
}
