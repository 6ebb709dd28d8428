//! A script's tables.

use std::collections::HashMap;
use std::rc::Rc;

use super::evaluate::Run;
use super::value::Value;

/// Metatables of metatables.
const MOST_METATABLES: usize = 20;

/// A table: its keys in the order they came, each with the number of its value.
#[derive(Default)]
pub(super) struct Table {
    pub(super) entries: Vec<(Key, usize)>,
    pub(super) places: HashMap<Key, usize>,
    /// The table that `setmetatable` gave it.
    pub(super) meta: Option<usize>,
    /// Keys that aren't known were written to.
    pub(super) vague: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Text(Rc<str>),
    Number(u64),
    Bool(bool),
}

impl Key {
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(Key::Text(Rc::clone(text))),
            Value::Number(number) => Some(Key::Number(number.to_bits())),
            Value::Bool(value) => Some(Key::Bool(*value)),
            _ => None,
        }
    }

    pub(super) fn value(&self) -> Value {
        match self {
            Key::Text(text) => Value::Text(Rc::clone(text)),
            Key::Number(bits) => Value::Number(f64::from_bits(*bits)),
            Key::Bool(value) => Value::Bool(*value),
        }
    }
}

impl Run<'_> {
    /// The entries of a table: those of a list in their order, or all.
    pub(super) fn entries(&self, list: &Value, ordered: bool) -> (Option<Vec<Vec<Value>>>, String) {
        let unknown = (None, "what a loop goes over isn't known".to_owned());
        match list {
            Value::Table(table) => {
                let Some(table) = self.tables.get(*table).filter(|table| !table.vague) else {
                    return unknown;
                };
                let mut rounds = Vec::new();
                if ordered {
                    let mut index = 1.0_f64;
                    while let Some(slot) = table.places.get(&Key::Number(index.to_bits())) {
                        rounds.push(vec![Value::Number(index), self.get(*slot)]);
                        index += 1.0;
                    }
                } else {
                    for (key, slot) in &table.entries {
                        let value = self.get(*slot);
                        if !matches!(value, Value::Nil) {
                            rounds.push(vec![key.value(), value]);
                        }
                    }
                }
                (Some(rounds), String::new())
            }
            Value::Envoy(_) => (
                None,
                "this goes over every header of the request".to_owned(),
            ),
            _ => unknown,
        }
    }

    pub(super) fn new_table(&mut self) -> usize {
        self.tables.push(Table::default());
        self.tables.len() - 1
    }

    pub(super) fn set_entry(&mut self, table: usize, key: &Value, value: Value) {
        let Some(key) = Key::of(key) else {
            if let Some(table) = self.tables.get_mut(table) {
                table.vague = true;
            }
            return;
        };
        let known = self
            .tables
            .get(table)
            .and_then(|table| table.places.get(&key).copied());
        let slot = if let Some(slot) = known {
            slot
        } else {
            let slot = self.slot(Value::Nil);
            if let Some(table) = self.tables.get_mut(table) {
                table.entries.push((key.clone(), slot));
                table.places.insert(key, slot);
            }
            slot
        };
        self.set(slot, value);
    }

    pub(super) fn entry(&self, table: usize, key: &Value) -> Value {
        let Some(table) = self.tables.get(table) else {
            return Value::Nil;
        };
        if table.vague {
            return Value::unknown("what this table holds isn't known");
        }
        match Key::of(key) {
            Some(key) => {
                let own = table
                    .places
                    .get(&key)
                    .map_or(Value::Nil, |slot| self.get(*slot));
                match (own, table.meta) {
                    (Value::Nil, Some(meta)) => self.inherited(meta, &key, 0),
                    (own, _) => own,
                }
            }
            None => match key {
                // One of the entries, or none: by each key that it may be.
                Value::Asked(asked) if table.entries.len() <= 64 => {
                    let mut value = Value::Nil;
                    for (key, slot) in table.entries.iter().rev() {
                        if let Key::Text(text) = key {
                            let condition = asked.equals(text, asked.span.clone());
                            value = Value::either(condition, self.get(*slot), value);
                        }
                    }
                    value
                }
                _ => Value::unknown("an entry of a table by a key that isn't known"),
            },
        }
    }

    /// What a table without such an entry has by its metatable.
    fn inherited(&self, meta: usize, key: &Key, depth: usize) -> Value {
        let own = |table: usize, key: &Key| {
            let slot = self.tables.get(table)?.places.get(key)?;
            Some(self.get(*slot)).filter(|value| !matches!(value, Value::Nil))
        };
        match own(meta, &Key::Text("__index".into())) {
            None => Value::Nil,
            Some(Value::Table(table)) => match own(table, key) {
                Some(value) => value,
                None => match self.tables.get(table).and_then(|table| table.meta) {
                    Some(next) if depth < MOST_METATABLES => self.inherited(next, key, depth + 1),
                    Some(_) => Value::unknown("metatables that nest too deep"),
                    None => Value::Nil,
                },
            },
            Some(_) => Value::unknown("what a metatable's __index gives"),
        }
    }
}
