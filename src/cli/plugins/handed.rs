//! What Envoy hands over to the module: the bytes that `config.configuration` of a Wasm filter comes to.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::cli::files::Located;

/// What becomes of a configuration on its way to the module.
pub(super) enum Handed<'l> {
    /// The text of a `StringValue` as it is.
    Text(&'l str, &'l Located),
    /// The bytes of a `BytesValue`.
    Bytes(Vec<u8>, &'l Located),
    /// Nothing: there is no configuration, or an empty one.
    Nothing,
    /// The encoded form of a message, which is no JSON.
    Encoded(&'l str),
    /// Envoy refuses the file. Where, why, and what to write.
    Refused(&'l Located, String, &'static str),
}

/// Messages of google.protobuf that Envoy knows.
const WELL_KNOWN: &[&str] = &[
    "Any",
    "BoolValue",
    "BytesValue",
    "DoubleValue",
    "Duration",
    "Empty",
    "FieldMask",
    "FloatValue",
    "Int32Value",
    "Int64Value",
    "ListValue",
    "StringValue",
    "Struct",
    "Timestamp",
    "UInt32Value",
    "UInt64Value",
    "Value",
];

pub(super) const STRING_VALUE: &str = "write config.configuration with \"@type\": \
    type.googleapis.com/google.protobuf.StringValue and the configuration as JSON text in value";

/// What Envoy makes of `configuration`, a `google.protobuf.Any` in protobuf's JSON form.
pub(super) fn over(configuration: Option<&Located>) -> Handed<'_> {
    let Some(any) = configuration.filter(|any| !any.is_null()) else {
        return Handed::Nothing;
    };
    if !any.is_object() {
        return Handed::Refused(
            any,
            "this has to be an object with @type".to_owned(),
            STRING_VALUE,
        );
    }
    let Some(kind) = any.get("@type") else {
        if any.fields().next().is_none() {
            return Handed::Nothing;
        }
        return Handed::Refused(
            any,
            "@type is missing, so Envoy refuses this file".to_owned(),
            STRING_VALUE,
        );
    };
    let Some(url) = kind.text() else {
        return Handed::Refused(kind, "@type has to be a string".to_owned(), STRING_VALUE);
    };
    let Some((_, name)) = url
        .rsplit_once('/')
        .filter(|(prefix, _)| !prefix.is_empty())
    else {
        return Handed::Refused(
            kind,
            "@type needs type.googleapis.com/ in front of the name, so Envoy refuses this file"
                .to_owned(),
            STRING_VALUE,
        );
    };
    let Some(wrapper) = name.strip_prefix("google.protobuf.") else {
        return Handed::Encoded(name);
    };
    if !WELL_KNOWN.contains(&wrapper) {
        return Handed::Refused(
            kind,
            format!("there is no type {name}, so Envoy refuses this file"),
            STRING_VALUE,
        );
    }
    if !matches!(wrapper, "StringValue" | "BytesValue") {
        return Handed::Encoded(name);
    }
    let other = any
        .fields()
        .find(|field| !matches!(field.name.as_str(), "@type" | "value"));
    if let Some(other) = other {
        return Handed::Refused(
            &other.value,
            format!(
                "a {wrapper} has no field {}, so Envoy refuses this file",
                other.name
            ),
            "write @type and value, and nothing else",
        );
    }
    let Some(value) = any.get("value").filter(|value| !value.is_null()) else {
        return Handed::Nothing;
    };
    match (value.text(), wrapper) {
        (Some(text), "StringValue") => Handed::Text(text, value),
        (Some(text), _) => match bytes(text) {
            Some(bytes) => Handed::Bytes(bytes, value),
            None => Handed::Refused(
                value,
                "the value of a BytesValue has to be base64, so Envoy refuses this file".to_owned(),
                STRING_VALUE,
            ),
        },
        (None, _) if value.is_object() => Handed::Refused(
            value,
            format!("the value of a {wrapper} has to be a string, so Envoy refuses this file"),
            "write the configuration as JSON text: value: |, and the JSON indented below it",
        ),
        (None, _) => Handed::Refused(
            value,
            format!("the value of a {wrapper} has to be a string"),
            STRING_VALUE,
        ),
    }
}

/// Base64 as protobuf's JSON form has it: either alphabet, with padding or without.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let web_safe: String = text.replace('+', "-").replace('/', "_");
    GeneralPurpose::new(&alphabet::URL_SAFE, config)
        .decode(web_safe)
        .ok()
}
