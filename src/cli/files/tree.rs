//! Values and where they stand.

use std::collections::HashSet;
use std::ops::Range;
use std::rc::Rc;

use crate::config::{Node, Path, PathPart};

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Located {
    pub(in crate::cli) value: Value,
    /// Bytes of the source.
    pub(in crate::cli) span: Range<usize>,
}

/// A value whose parts have their places too. Copies share their parts: resources and aliases are copied much.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) enum Value {
    Scalar(Node),
    List(Rc<Vec<Located>>),
    Object(Rc<Vec<Field>>),
}

/// A field of an object.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Field {
    pub(in crate::cli) name: String,
    pub(in crate::cli) name_span: Range<usize>,
    pub(in crate::cli) value: Located,
}

impl Located {
    /// The value without places, as the configuration is read from it.
    pub(in crate::cli) fn node(&self) -> Node {
        match &self.value {
            Value::Scalar(node) => node.clone(),
            Value::List(items) => Node::List(items.iter().map(Located::node).collect()),
            Value::Object(fields) => Node::Object(
                fields
                    .iter()
                    .map(|field| (field.name.clone(), field.value.node()))
                    .collect(),
            ),
        }
    }

    /// Whether this is the value without places.
    pub(in crate::cli) fn is(&self, node: &Node) -> bool {
        match (&self.value, node) {
            (Value::Scalar(own), node) => own == node,
            (Value::List(own), Node::List(items)) => {
                own.len() == items.len() && own.iter().zip(items).all(|(own, item)| own.is(item))
            }
            (Value::Object(own), Node::Object(fields)) => {
                own.len() == fields.len()
                    && own
                        .iter()
                        .zip(fields)
                        .all(|(own, (name, value))| own.name == *name && own.value.is(value))
            }
            _ => false,
        }
    }

    /// The field of that name, the last if it is written twice: kubectl and Envoy take that one.
    pub(in crate::cli) fn field(&self, name: &str) -> Option<&Field> {
        self.fields().filter(|field| field.name == name).last()
    }

    /// The value of the field of that name.
    pub(in crate::cli) fn get(&self, name: &str) -> Option<&Located> {
        self.field(name).map(|field| &field.value)
    }

    /// The value at the end of a path of field names.
    pub(in crate::cli) fn at(&self, path: &[&str]) -> Option<&Located> {
        path.iter()
            .try_fold(self, |located, name| located.get(name))
    }

    /// The fields, if this is an object.
    pub(in crate::cli) fn fields(&self) -> impl Iterator<Item = &Field> {
        let fields = match &self.value {
            Value::Object(fields) => fields.as_slice(),
            _ => &[],
        };
        fields.iter()
    }

    /// The entries, if this is a list.
    pub(in crate::cli) fn items(&self) -> &[Located] {
        match &self.value {
            Value::List(items) => items.as_slice(),
            _ => &[],
        }
    }

    pub(in crate::cli) fn is_object(&self) -> bool {
        matches!(self.value, Value::Object(_))
    }

    pub(in crate::cli) fn is_null(&self) -> bool {
        matches!(self.value, Value::Scalar(Node::Null))
    }

    pub(in crate::cli) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(Node::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(in crate::cli) fn boolean(&self) -> Option<bool> {
        match &self.value {
            Value::Scalar(Node::Bool(value)) => Some(*value),
            _ => None,
        }
    }

    pub(in crate::cli) fn number(&self) -> Option<f64> {
        match &self.value {
            Value::Scalar(Node::Number(value)) => Some(*value),
            _ => None,
        }
    }

    /// Fields anywhere in this value that have the name of one before them in the same object.
    pub(in crate::cli) fn written_twice(&self) -> Vec<&Field> {
        let mut twice = Vec::new();
        self.find_written_twice(&mut twice);
        twice
    }

    fn find_written_twice<'l>(&'l self, twice: &mut Vec<&'l Field>) {
        let mut names = HashSet::new();
        for field in self.fields() {
            if !names.insert(field.name.as_str()) {
                twice.push(field);
            }
            field.value.find_written_twice(twice);
        }
        for item in self.items() {
            item.find_written_twice(twice);
        }
    }

    /// Moves every place, such as those of a text into the file that holds it.
    pub(in crate::cli) fn move_spans(&mut self, place: &dyn Fn(&Range<usize>) -> Range<usize>) {
        self.span = place(&self.span);
        match &mut self.value {
            Value::Scalar(_) => {}
            Value::List(items) => {
                for item in Rc::make_mut(items) {
                    item.move_spans(place);
                }
            }
            Value::Object(fields) => {
                for field in Rc::make_mut(fields) {
                    field.name_span = place(&field.name_span);
                    field.value.move_spans(place);
                }
            }
        }
    }

    /// The place of a problem: the value if it is a scalar, else the field's name. A path that leads nowhere ends where
    /// it still led somewhere.
    pub(in crate::cli) fn place(&self, path: &Path) -> Range<usize> {
        let mut here = self;
        let mut place = self.start();
        for part in path.parts() {
            match part {
                PathPart::Item(index) => {
                    let Some(item) = here.items().get(*index) else {
                        return place;
                    };
                    place = item.start();
                    here = item;
                }
                PathPart::Field(name) => {
                    // Of two equal names the last is the problem.
                    let Some(field) = here.fields().filter(|field| field.name == *name).last()
                    else {
                        return place;
                    };
                    place = match &field.value.value {
                        Value::Scalar(_) if !field.value.span.is_empty() => {
                            field.value.span.clone()
                        }
                        _ => field.name_span.clone(),
                    };
                    here = &field.value;
                }
            }
        }
        place
    }

    /// The whole of a scalar, the beginning of anything else.
    pub(in crate::cli) fn start(&self) -> Range<usize> {
        match &self.value {
            Value::Scalar(_) => self.span.clone(),
            Value::Object(fields) => fields
                .first()
                .map_or(self.span.clone(), |field| field.name_span.clone()),
            Value::List(_) => self.span.start..self.span.start + 1,
        }
    }
}
