//! YAML and JSON files, read with the place of every value kept.

use std::collections::BTreeMap;
use std::ops::Range;

use saphyr::Scalar;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use crate::config::Node;

/// A text that configurations are read from.
#[derive(Debug, PartialEq)]
pub(super) struct Source {
    /// The file's name, or what else it is.
    pub(super) name: String,
    /// The whole text.
    pub(super) text: String,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub(super) value: Value,
    /// Bytes of the source.
    pub(super) span: Range<usize>,
}

/// A value whose parts have their places too.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Scalar(Node),
    List(Vec<Located>),
    Object(Vec<Field>),
}

/// A field of an object.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) name_span: Range<usize>,
    pub(super) value: Located,
}

/// Why a text isn't YAML, and where.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) message: String,
    pub(super) span: Range<usize>,
}

impl Source {
    /// Every document of the text.
    pub(super) fn documents(&self) -> Result<Vec<Located>, SyntaxError> {
        let offsets: Vec<usize> = self
            .text
            .char_indices()
            .map(|(offset, _)| offset)
            .chain([self.text.len()])
            .collect();
        let byte = |marker: &Marker| {
            offsets
                .get(marker.index())
                .copied()
                .unwrap_or(self.text.len())
        };
        let mut builder = Builder::default();
        for event in Parser::new_from_str(&self.text) {
            let (event, span) = event.map_err(|error| SyntaxError {
                message: error.info().to_owned(),
                span: byte(error.marker())..byte(error.marker()),
            })?;
            let span = byte(&span.start)..byte(&span.end);
            builder
                .event(event, &span)
                .map_err(|message| SyntaxError { message, span })?;
        }
        Ok(builder.documents)
    }

    /// The line of a byte, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.before(at).matches('\n').count() + 1
    }

    /// The column of a byte in characters, from 1.
    pub(super) fn column(&self, at: usize) -> usize {
        self.before(at)
            .rsplit('\n')
            .next()
            .map_or(1, |line| line.chars().count() + 1)
    }

    fn before(&self, at: usize) -> &str {
        self.text.get(..at.min(self.text.len())).unwrap_or_default()
    }
}

/// Builds documents out of parser events.
#[derive(Default)]
struct Builder {
    documents: Vec<Located>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Located>,
}

/// A list or object whose end hasn't come yet.
struct Open {
    anchor: usize,
    span: Range<usize>,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Located>),
    Object(Vec<Field>, Option<(String, Range<usize>)>),
}

/// Aliases copy what they stand for; a text may not use that to grow without limit.
const MOST_VALUES: usize = 1_000_000;

impl Builder {
    fn event(&mut self, event: Event<'_>, span: &Range<usize>) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let located = Located {
                    value: Value::Scalar(scalar(&text, style, tag.is_some())),
                    span: span.clone(),
                };
                self.add(located, anchor)?;
            }
            Event::SequenceStart(anchor, _) => self.open.push(Open {
                anchor,
                span: span.clone(),
                kind: OpenKind::List(Vec::new()),
            }),
            Event::MappingStart(anchor, _) => self.open.push(Open {
                anchor,
                span: span.clone(),
                kind: OpenKind::Object(Vec::new(), None),
            }),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else {
                    return Err("something ends that never began".to_owned());
                };
                let located = Located {
                    span: open.span.start..span.end,
                    value: match open.kind {
                        OpenKind::List(items) => Value::List(items),
                        OpenKind::Object(fields, _) => Value::Object(fields),
                    },
                };
                self.add(located, open.anchor)?;
            }
            Event::Alias(anchor) => {
                let Some(copy) = self.anchors.get(&anchor).cloned() else {
                    return Err("this alias stands for nothing before it".to_owned());
                };
                self.add(copy, 0)?;
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn add(&mut self, located: Located, anchor: usize) -> Result<(), String> {
        if anchor > 0 {
            if located.count() > MOST_VALUES {
                return Err("this document is too large".to_owned());
            }
            self.anchors.insert(anchor, located.clone());
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.documents.push(located),
            Some(OpenKind::List(items)) => items.push(located),
            Some(OpenKind::Object(fields, name)) => match name.take() {
                None => *name = Some((located.as_key()?, located.span)),
                Some((name, name_span)) => fields.push(Field {
                    name,
                    name_span,
                    value: located,
                }),
            },
        }
        Ok(())
    }
}

/// A scalar as Kubernetes reads it: YAML 1.2, but `yes`, `no`, `on` and `off` are booleans, as in YAML 1.1.
fn scalar(text: &str, style: ScalarStyle, tagged: bool) -> Node {
    if style != ScalarStyle::Plain || tagged {
        return Node::Text(text.to_owned());
    }
    match text {
        "" => return Node::Null,
        "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Node::Bool(true),
        "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Node::Bool(false),
        _ => {}
    }
    match Scalar::parse_from_cow(text.into()) {
        Scalar::Null => Node::Null,
        Scalar::Boolean(value) => Node::Bool(value),
        #[allow(clippy::cast_precision_loss)]
        // As in JSON, where every number is a double to Envoy.
        Scalar::Integer(value) => Node::Number(value as f64),
        Scalar::FloatingPoint(value) => Node::Number(value.into_inner()),
        Scalar::String(value) => Node::Text(value.into_owned()),
    }
}

impl Located {
    /// The value without places, as the configuration is read from it.
    pub(super) fn node(&self) -> Node {
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

    fn count(&self) -> usize {
        match &self.value {
            Value::Scalar(_) => 1,
            Value::List(items) => items.iter().map(Located::count).sum::<usize>() + 1,
            Value::Object(fields) => {
                fields
                    .iter()
                    .map(|field| field.value.count())
                    .sum::<usize>()
                    + 1
            }
        }
    }

    fn as_key(&self) -> Result<String, String> {
        match &self.value {
            Value::Scalar(Node::Text(text)) => Ok(text.clone()),
            Value::Scalar(node) => Ok(node.shown()),
            _ => Err("a field's name is a text".to_owned()),
        }
    }

    /// The field of that name.
    pub(super) fn get(&self, name: &str) -> Option<&Located> {
        self.fields()
            .find(|field| field.name == name)
            .map(|field| &field.value)
    }

    /// The value at the end of a path of field names.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Located> {
        path.iter()
            .try_fold(self, |located, name| located.get(name))
    }

    /// The fields, where this is an object.
    pub(super) fn fields(&self) -> impl Iterator<Item = &Field> {
        let fields = match &self.value {
            Value::Object(fields) => fields.as_slice(),
            _ => &[],
        };
        fields.iter()
    }

    /// The entries, where this is a list.
    pub(super) fn items(&self) -> &[Located] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(Node::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match &self.value {
            Value::Scalar(Node::Bool(value)) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn number(&self) -> Option<f64> {
        match &self.value {
            Value::Scalar(Node::Number(value)) => Some(*value),
            _ => None,
        }
    }

    /// The place of a problem's path, such as `routes[2].retries.retryOn[0]`: the value where it is a scalar, else the
    /// field's name. A path that leads nowhere ends where it still led somewhere.
    pub(super) fn place(&self, path: &str) -> Range<usize> {
        let mut here = self;
        let mut place = self.start();
        let mut rest = path;
        loop {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            if let Some(index) = rest.strip_prefix('[') {
                let Some((number, after)) = index.split_once(']') else {
                    return place;
                };
                let item = number.parse().ok().and_then(|n: usize| here.items().get(n));
                let Some(item) = item else { return place };
                place = item.start();
                here = item;
                rest = after;
                continue;
            }
            // A name may have dots in it: the longest that fits is meant. Of two equal names the last is the problem.
            let field = here
                .fields()
                .filter(|field| {
                    rest.strip_prefix(field.name.as_str())
                        .is_some_and(|after| after.is_empty() || after.starts_with(['.', '[']))
                })
                .max_by_key(|field| field.name.len());
            let Some(field) = field else { return place };
            rest = rest.get(field.name.len()..).unwrap_or_default();
            place = match &field.value.value {
                Value::Scalar(_) if !field.value.span.is_empty() => field.value.span.clone(),
                _ => field.name_span.clone(),
            };
            here = &field.value;
        }
    }

    /// The whole of a scalar, the beginning of anything else.
    pub(super) fn start(&self) -> Range<usize> {
        match &self.value {
            Value::Scalar(_) => self.span.clone(),
            Value::Object(fields) => fields
                .first()
                .map_or(self.span.clone(), |field| field.name_span.clone()),
            Value::List(_) => self.span.start..self.span.start + 1,
        }
    }
}
