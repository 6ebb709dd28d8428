//! Documents out of a parser's events, within bounds.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use super::syntax_error::SyntaxError;
use super::tree::{Field, Located, Value};
use super::{MOST_DEPTH, MOST_VALUES};
use crate::config::Node;

/// Builds documents out of events.
#[derive(Default)]
pub(super) struct Builder {
    pub(super) documents: Vec<Located>,
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    values: usize,
    /// The first `<<`.
    pub(super) merge_key: Option<Range<usize>>,
}

/// What aliases stand for.
struct Anchored {
    located: Located,
    values: usize,
    depth: usize,
}

/// A list or object whose end hasn't come yet.
struct Open {
    anchor: usize,
    span: Range<usize>,
    kind: Kind,
    /// How many values there were before it.
    values: usize,
    /// Lists and objects inside each other, at the deepest.
    depth: usize,
}

enum Kind {
    List(Vec<Located>),
    Object {
        fields: Vec<Field>,
        key: Option<Key>,
        /// Which of the fields are merge keys.
        merges: Vec<usize>,
    },
}

/// A field's name whose value hasn't come yet.
pub(super) struct Key {
    pub(super) name: String,
    pub(super) span: Range<usize>,
    /// YAML's `<<`.
    pub(super) merge: bool,
}

fn error(message: impl Into<String>, span: &Range<usize>) -> SyntaxError {
    SyntaxError {
        message: message.into(),
        help: None,
        span: span.clone(),
    }
}

impl Builder {
    /// Anchors hold within one document.
    pub(super) fn document(&mut self) {
        self.anchors.clear();
    }

    /// Whether a field's name has to come next.
    pub(super) fn wants_key(&self) -> bool {
        matches!(
            self.open.last(),
            Some(Open {
                kind: Kind::Object { key: None, .. },
                ..
            })
        )
    }

    pub(super) fn list(&mut self, anchor: usize, span: Range<usize>) -> Result<(), SyntaxError> {
        self.begin(anchor, span, Kind::List(Vec::new()))
    }

    pub(super) fn object(&mut self, anchor: usize, span: Range<usize>) -> Result<(), SyntaxError> {
        let kind = Kind::Object {
            fields: Vec::new(),
            key: None,
            merges: Vec::new(),
        };
        self.begin(anchor, span, kind)
    }

    fn begin(&mut self, anchor: usize, span: Range<usize>, kind: Kind) -> Result<(), SyntaxError> {
        if self.wants_key() {
            return Err(error("a field's name has to be a string", &span));
        }
        if self.open.len() >= MOST_DEPTH {
            return Err(too_deep(&span));
        }
        self.count(1, &span)?;
        self.open.push(Open {
            anchor,
            span,
            kind,
            values: self.values,
            depth: 1,
        });
        Ok(())
    }

    pub(super) fn end(&mut self, span: &Range<usize>) -> Result<(), SyntaxError> {
        let Some(open) = self.open.pop() else {
            return Err(error("something ends that never began", span));
        };
        let span = open.span.start..span.end.max(open.span.end);
        let value = match open.kind {
            Kind::List(items) => Value::List(Rc::new(items)),
            Kind::Object { fields, merges, .. } => Value::Object(Rc::new(merged(fields, &merges))),
        };
        let values = self.values + 1 - open.values;
        self.add(Located { value, span }, open.anchor, values, open.depth)
    }

    pub(super) fn key(&mut self, new: Key) -> Result<(), SyntaxError> {
        match self.open.last_mut().map(|open| &mut open.kind) {
            Some(Kind::Object { key, .. }) if key.is_none() => {
                if new.merge && self.merge_key.is_none() {
                    self.merge_key = Some(new.span.clone());
                }
                *key = Some(new);
                Ok(())
            }
            _ => Err(error("a field's name doesn't belong here", &new.span)),
        }
    }

    pub(super) fn scalar(
        &mut self,
        anchor: usize,
        node: Node,
        span: Range<usize>,
    ) -> Result<(), SyntaxError> {
        self.count(1, &span)?;
        let value = Value::Scalar(node);
        self.add(Located { value, span }, anchor, 1, 0)
    }

    /// A copy of what an anchor stands for.
    pub(super) fn alias(&mut self, anchor: usize, span: &Range<usize>) -> Result<(), SyntaxError> {
        let Some(anchored) = self.anchors.get(&anchor) else {
            return Err(error("this alias stands for nothing before it", span));
        };
        let (values, depth) = (anchored.values, anchored.depth);
        if self.open.len() + depth > MOST_DEPTH {
            return Err(too_deep(span));
        }
        self.count(values, span)?;
        let Some(anchored) = self.anchors.get(&anchor) else {
            return Ok(());
        };
        let located = anchored.located.clone();
        if self.wants_key() {
            return match located.value {
                Value::Scalar(Node::Text(name)) => self.key(Key {
                    name,
                    span: span.clone(),
                    merge: false,
                }),
                _ => Err(error("a field's name has to be a string", span)),
            };
        }
        self.add(located, 0, values, depth)
    }

    fn count(&mut self, values: usize, span: &Range<usize>) -> Result<(), SyntaxError> {
        self.values += values;
        if self.values > MOST_VALUES {
            return Err(SyntaxError {
                message: format!("this file has more than {MOST_VALUES} values"),
                help: Some(
                    "split it; of a config dump give the listeners alone: istioctl proxy-config listeners POD -o json, \
                     or /config_dump?resource=dynamic_listeners"
                        .to_owned(),
                ),
                span: span.clone(),
            });
        }
        Ok(())
    }

    fn add(
        &mut self,
        located: Located,
        anchor: usize,
        values: usize,
        depth: usize,
    ) -> Result<(), SyntaxError> {
        if anchor > 0 {
            // The copy under its name counts too.
            self.count(values, &located.span)?;
            let located = located.clone();
            let anchored = Anchored {
                located,
                values,
                depth,
            };
            self.anchors.insert(anchor, anchored);
        }
        let Some(open) = self.open.last_mut() else {
            self.documents.push(located);
            return Ok(());
        };
        open.depth = open.depth.max(depth + 1);
        match &mut open.kind {
            Kind::List(items) => items.push(located),
            Kind::Object {
                fields,
                key,
                merges,
            } => {
                let Some(key) = key.take() else {
                    return Err(error("a value without a name", &located.span));
                };
                if key.merge {
                    if !is_mergeable(&located) {
                        return Err(error(
                            "after << belongs an object or a list of objects",
                            &located.span,
                        ));
                    }
                    merges.push(fields.len());
                }
                fields.push(Field {
                    name: key.name,
                    name_span: key.span,
                    value: located,
                });
            }
        }
        Ok(())
    }
}

fn too_deep(span: &Range<usize>) -> SyntaxError {
    error(
        format!("more than {MOST_DEPTH} lists and objects are inside each other here"),
        span,
    )
}

fn is_mergeable(located: &Located) -> bool {
    let all_objects = || located.items().iter().all(Located::is_object);
    located.is_object() || matches!(located.value, Value::List(_)) && all_objects()
}

/// The fields with those that `<<` adds, as the YAML library of Kubernetes has it: a merge key overrides what stands
/// in front of it, and what stands behind it overrides the merge key. In a list of objects the first wins.
fn merged(fields: Vec<Field>, merges: &[usize]) -> Vec<Field> {
    if merges.is_empty() {
        return fields;
    }
    let mut all = Merged::default();
    for (index, field) in fields.into_iter().enumerate() {
        if merges.binary_search(&index).is_err() {
            all.own(field);
            continue;
        }
        match field.value.value {
            Value::Object(fields) => all.merge(&fields),
            Value::List(items) => {
                for item in items.iter().rev() {
                    if let Value::Object(fields) = &item.value {
                        all.merge(fields);
                    }
                }
            }
            Value::Scalar(_) => {}
        }
    }
    all.fields
}

#[derive(Default)]
struct Merged {
    fields: Vec<Field>,
    /// Where the fields of these names are, and whether they came by a merge key.
    places: HashMap<String, (usize, bool)>,
}

impl Merged {
    /// A field that is written in the object itself.
    fn own(&mut self, field: Field) {
        match self.places.get(&field.name) {
            Some(&(place, true)) => self.put(place, field, false),
            // A field that is written twice stays twice: reading it says so.
            _ => self.put(self.fields.len(), field, false),
        }
    }

    fn merge(&mut self, fields: &[Field]) {
        for field in fields {
            let place = self.places.get(&field.name).map(|(place, _)| *place);
            self.put(place.unwrap_or(self.fields.len()), field.clone(), true);
        }
    }

    fn put(&mut self, place: usize, field: Field, merged: bool) {
        self.places.insert(field.name.clone(), (place, merged));
        match self.fields.get_mut(place) {
            Some(old) => *old = field,
            None => self.fields.push(field),
        }
    }
}
