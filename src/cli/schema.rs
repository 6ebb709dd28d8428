//! The JSON Schema of the configuration language, from its declaration.

use serde_json::{Map, Value, json};

use super::files::Source;
use crate::config::declare::{Described, Kind, Name, Object, Rule};

/// The JSON Schema (2020-12).
pub(super) fn schema() -> Value {
    let objects = super::reference::objects();
    let definitions: Map<String, Value> = objects
        .iter()
        .map(|object| (object.name.to_owned(), object_schema(object)))
        .collect();
    let root = objects.first().map_or("", |object| object.name);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of trusted-lb",
        "$ref": format!("#/$defs/{root}"),
        "$defs": definitions,
    })
}

fn object_schema(object: &Object) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    add_fields(object, &mut properties, &mut required);
    let mut schema = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "required": required,
    });
    let any_of = |names: &[&str]| {
        names
            .iter()
            .map(|name| json!({"required": [name]}))
            .collect::<Value>()
    };
    let (key, value) = match object.rule {
        Rule::Any => return schema,
        Rule::AtLeastOne { .. } => ("minProperties", json!(1)),
        Rule::ExactlyOneOf(names) => ("oneOf", any_of(names)),
        Rule::AtLeastOneOf { names, .. } => {
            let mut list = Vec::new();
            Name::list(names, &mut list);
            ("anyOf", any_of(&list))
        }
    };
    if let Some(schema) = schema.as_object_mut() {
        schema.insert(key.to_owned(), value);
    }
    schema
}

fn add_fields(
    object: &Object,
    properties: &mut Map<String, Value>,
    required: &mut Vec<&'static str>,
) {
    for field in object.fields {
        match field {
            Described::Shared(object) => add_fields(object, properties, required),
            Described::Field {
                name,
                kind,
                default,
                meaning,
                example,
            } => {
                let mut schema = kind_schema(kind);
                if let Some(schema) = schema.as_object_mut() {
                    schema.insert("description".to_owned(), json!(meaning.trim_start()));
                    schema.insert("examples".to_owned(), json!([value_of(example)]));
                }
                properties.insert((*name).to_owned(), schema);
                if default.is_none() {
                    required.push(*name);
                }
            }
        }
    }
}

/// An example as JSON.
fn value_of(example: &str) -> Value {
    let source = Source::new("example", example);
    let document = source
        .documents()
        .ok()
        .and_then(|documents| documents.into_iter().next());
    document.map_or(Value::Null, |document| super::yaml::json(&document.node()))
}

fn kind_schema(kind: &Kind) -> Value {
    match kind {
        Kind::Boolean => json!({"type": "boolean"}),
        Kind::Whole(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Kind::Text { what, pattern } => {
            json!({"type": "string", "title": what, "pattern": pattern()})
        }
        Kind::Words(words) => json!({"enum": words}),
        Kind::Object(object) => json!({"$ref": format!("#/$defs/{}", object.name)}),
        Kind::List(item) => json!({"type": "array", "items": kind_schema(item)}),
        Kind::Distinct(item) => {
            json!({"type": "array", "items": kind_schema(item), "uniqueItems": true})
        }
        Kind::Set(item) => {
            json!({"type": "array", "items": kind_schema(item), "uniqueItems": true, "minItems": 1})
        }
        Kind::Either(kinds) => json!({"anyOf": kinds.iter().map(kind_schema).collect::<Value>()}),
    }
}
