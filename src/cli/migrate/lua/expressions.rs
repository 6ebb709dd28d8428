//! Follows a script's expressions and calls.

use std::rc::Rc;

use super::condition::Condition;
use super::evaluate::{Run, is_call};
use super::flow::either_values;
use super::library;
use super::operators;
use super::syntax::{Expression, ExpressionKind, Function, Span};
use super::tables::Key;
use super::unreached::changes;
use super::value::{Scope, Value};

/// The name under which a function's further arguments are kept.
const ELLIPSIS: &str = "...";

/// Calls inside calls.
const MOST_CALLS: usize = 60;

impl Run<'_> {
    #[allow(clippy::too_many_lines)] // One arm a kind of expression.
    pub(super) fn expression(&mut self, expression: &Expression, scope: &mut Scope) -> Value {
        let span = &expression.span;
        if !self.step(span) {
            return Value::unknown("the script does too much");
        }
        match &expression.kind {
            ExpressionKind::Nil => Value::Nil,
            ExpressionKind::True => Value::Bool(true),
            ExpressionKind::False => Value::Bool(false),
            ExpressionKind::NotLua => Value::unknown("this isn't understood"),
            ExpressionKind::Ellipsis => match Self::find(scope, ELLIPSIS) {
                Some(slot) => self.all_of(&self.get(slot)),
                None => Value::unknown("the arguments of the script itself"),
            },
            ExpressionKind::Number(number) => Value::Number(*number),
            ExpressionKind::Text(text) => Value::Text(Rc::clone(text)),
            ExpressionKind::Name(name) => match Self::find(scope, name) {
                Some(slot) => self.get(slot),
                None => self.global(name),
            },
            ExpressionKind::Index(holder, key) => {
                let holder = self.expression(holder, scope);
                let key = self.expression(key, scope);
                self.index(&holder, &key)
            }
            ExpressionKind::Call(function, arguments) => {
                let function = self.expression(function, scope);
                let without = arguments.last().is_some_and(is_call);
                let arguments = self.values(arguments, scope);
                if let (true, Value::Library("tostring" | "tonumber" | "type"), [value]) =
                    (without, &function, arguments.as_slice())
                {
                    self.without_a_result(value, span);
                }
                self.apply(function, arguments, span)
            }
            ExpressionKind::Method(object, name, arguments) => {
                let object = self.expression(object, scope);
                let arguments = self.values(arguments, scope);
                self.method(object, name, arguments, span)
            }
            ExpressionKind::Function(function) => {
                Value::Function(Rc::clone(function), scope.clone())
            }
            ExpressionKind::Table(fields) => {
                let table = self.new_table();
                let mut index = 1.0;
                for (position, (key, value)) in fields.iter().enumerate() {
                    let listed = key.is_none();
                    let key = if let Some(key) = key {
                        self.expression(key, scope)
                    } else {
                        index += 1.0;
                        Value::Number(index - 1.0)
                    };
                    self.more = None;
                    let several = listed && position + 1 == fields.len() && is_call(value);
                    let value = self.expression(value, scope);
                    self.set_entry(table, &key, value);
                    if several {
                        for value in self.more.take().unwrap_or_default() {
                            self.set_entry(table, &Value::Number(index), value);
                            index += 1.0;
                        }
                    }
                }
                Value::Table(table)
            }
            ExpressionKind::And(a, b) => {
                let first = self.expression(a, scope);
                let truth = first.truth(&a.span);
                let falsy = match &first {
                    Value::Bool(_) | Value::Test(_) => Value::Bool(false),
                    Value::Either(..) | Value::Unknown(_) => first.clone(),
                    _ => Value::Nil,
                };
                if let (
                    Value::Test(_),
                    Condition::Test(_)
                    | Condition::Not(_)
                    | Condition::All(..)
                    | Condition::Any(..),
                ) = (&first, &truth)
                {
                    let mut inner = scope.clone();
                    let second = self.branch(
                        &truth,
                        |run| run.expression(b, &mut inner),
                        |_| Value::Bool(false),
                        |_, second, _| second,
                    );
                    return match second {
                        Value::Test(other) => Value::Test(truth.and(other)),
                        Value::Bool(true) => Value::Test(truth),
                        Value::Bool(false) => Value::Bool(false),
                        other => Value::either(truth, other, Value::Bool(false)),
                    };
                }
                let mut inner = scope.clone();
                self.branch(
                    &truth,
                    |run| run.expression(b, &mut inner),
                    |_| falsy,
                    |condition, yes, no| Value::either(condition.clone(), yes, no),
                )
            }
            ExpressionKind::Or(a, b) => {
                let first = self.expression(a, scope);
                let truth = first.truth(&a.span);
                let mut inner = scope.clone();
                let yes = first.clone();
                self.branch(
                    &truth,
                    |_| yes,
                    |run| run.expression(b, &mut inner),
                    |condition, yes, no| match (&yes, &no) {
                        (Value::Test(_), Value::Test(other)) => {
                            Value::Test(condition.clone().or(other.clone()))
                        }
                        (Value::Test(_), Value::Bool(other)) => {
                            Value::Test(condition.clone().or(Condition::known(*other)))
                        }
                        // Here it is true, whatever else it is.
                        (Value::Test(_), _) => {
                            Value::either(condition.clone(), Value::Bool(true), no)
                        }
                        _ => Value::either(condition.clone(), yes, no),
                    },
                )
            }
            ExpressionKind::Not(inner) => {
                let value = self.expression(inner, scope);
                match value.truth(&inner.span).not() {
                    Condition::Always => Value::Bool(true),
                    Condition::Never => Value::Bool(false),
                    other => Value::Test(other),
                }
            }
            ExpressionKind::Equal(a, b, negated) => {
                let (first, second) = (self.expression(a, scope), self.expression(b, scope));
                let mut condition = operators::equal(&first, &second, span);
                if *negated {
                    condition = condition.not();
                }
                match condition {
                    Condition::Always => Value::Bool(true),
                    Condition::Never => Value::Bool(false),
                    other => Value::Test(other),
                }
            }
            ExpressionKind::Concat(a, b) => {
                let (first, second) = (self.expression(a, scope), self.expression(b, scope));
                operators::concat(&first, &second)
            }
            ExpressionKind::Length(inner) => {
                let value = self.expression(inner, scope);
                self.length_of(&value)
            }
            ExpressionKind::Negative(inner) => match self.expression(inner, scope) {
                Value::Number(number) => Value::Number(-number),
                _ => Value::unknown("a number that isn't known"),
            },
            ExpressionKind::Arithmetic(operator, a, b) => {
                let (first, second) = (self.expression(a, scope), self.expression(b, scope));
                operators::arithmetic(operator, &first, &second, span)
            }
        }
    }

    /// Where the request has no such header Envoy's `get` gives no result at all, which isn't nil to some functions.
    fn without_a_result(&mut self, value: &Value, span: &Span) {
        let Value::Asked(asked) = value else { return };
        let there = self.open(&asked.present());
        if there != Condition::Always {
            self.remark(
                span,
                "if there is no such header, this is an error in Envoy: the script ends here",
            );
            self.end(there.not());
        }
    }

    pub(super) fn length_of(&self, value: &Value) -> Value {
        match value {
            #[allow(clippy::cast_precision_loss)] // Lengths of texts that were typed.
            Value::Text(text) => Value::Number(text.len() as f64),
            #[allow(clippy::cast_precision_loss)]
            Value::Table(table) => Value::Number(self.length(*table) as f64),
            Value::Asked(asked) => Value::Length(asked.clone()),
            Value::Either(condition, yes, no) => {
                Value::either(condition.clone(), self.length_of(yes), self.length_of(no))
            }
            Value::Unknown(why) => Value::Unknown(Rc::clone(why)),
            _ => Value::unknown("a length that isn't known"),
        }
    }

    /// The entries of a list as results: the first, and those behind it.
    pub(super) fn all_of(&mut self, list: &Value) -> Value {
        let Value::Table(table) = list else {
            return list.clone();
        };
        #[allow(clippy::cast_precision_loss)] // Lists that were typed.
        let mut all = (1..=self.length(*table))
            .map(|index| self.entry(*table, &Value::Number(index as f64)))
            .collect::<Vec<_>>()
            .into_iter();
        let first = all.next().unwrap_or(Value::Nil);
        self.also_returns(all.collect());
        first
    }

    /// How many entries a list has.
    pub(super) fn length(&self, table: usize) -> usize {
        let Some(table) = self.tables.get(table) else {
            return 0;
        };
        let mut index = 1.0_f64;
        let mut count = 0;
        while table
            .places
            .get(&Key::Number(index.to_bits()))
            .is_some_and(|slot| !matches!(self.get(*slot), Value::Nil))
        {
            index += 1.0;
            count += 1;
        }
        count
    }

    pub(super) fn index(&self, holder: &Value, key: &Value) -> Value {
        match holder {
            Value::Table(table) => self.entry(*table, key),
            Value::Library(name) => match key {
                Value::Text(field) => match *name {
                    "_G" => self.global(field),
                    _ => library::member(name, field),
                },
                _ => Value::Nil,
            },
            Value::Either(condition, yes, no) => {
                Value::either(condition.clone(), self.index(yes, key), self.index(no, key))
            }
            // To be called with the object: handle.headers(handle).
            Value::Envoy(_) => match key {
                Value::Text(name) => Value::EnvoyMethod(Rc::clone(name)),
                _ => Value::unknown("a method whose name isn't known"),
            },
            _ => Value::unknown("a field that isn't known"),
        }
    }

    /// Calls a function that the script defines.
    pub(super) fn call(
        &mut self,
        function: &Rc<Function>,
        scope: &Scope,
        arguments: Vec<Value>,
        span: &Span,
    ) -> Value {
        self.called.insert(Rc::as_ptr(function));
        if self.calls >= MOST_CALLS {
            self.remark(span, "calls nest too deep to be followed");
            return Value::unknown("calls nest too deep to be followed");
        }
        self.calls += 1;
        let mut inner = scope.clone();
        let open = std::mem::replace(&mut self.more_is_open, false);
        let mut arguments = arguments.into_iter();
        for name in &function.parameters {
            let value = arguments.next().unwrap_or_else(|| {
                if open {
                    Value::unknown("another result of a call")
                } else {
                    Value::Nil
                }
            });
            self.declare(&mut inner, name, value);
        }
        if function.varargs {
            let rest = self.new_table();
            let mut index = 1.0;
            for value in arguments {
                self.set_entry(rest, &Value::Number(index), value);
                index += 1.0;
            }
            let rest = if open {
                Value::unknown("another result of a call")
            } else {
                Value::Table(rest)
            };
            self.declare(&mut inner, &Rc::from(ELLIPSIS), rest);
        }
        let flow = self.block(&function.body, &mut inner);
        self.calls -= 1;
        self.ended = std::mem::replace(&mut self.ended, Condition::Never).or(flow.ended);
        // If it didn't return a value it ended, or fell through with nil.
        let mut values = either_values(&flow.returned, flow.values, Vec::new()).into_iter();
        let value = values.next().unwrap_or(Value::Nil);
        self.more = Some(values.collect());
        value
    }

    pub(super) fn apply(&mut self, function: Value, arguments: Vec<Value>, span: &Span) -> Value {
        match function {
            Value::Function(function, scope) => self.call(&function, &scope, arguments, span),
            Value::Library(name) => library::call(self, name, &arguments, span),
            Value::EnvoyMethod(name) => {
                if let Some((Value::Envoy(object), rest)) = arguments.split_first() {
                    return self.envoy(*object, &name, rest, span);
                }
                let why = format!(
                    "{name} isn't called with its object, which is an error: the script ends here"
                );
                self.remark(span, why);
                self.end(Condition::Always);
                Value::Nil
            }
            Value::Either(condition, yes, no) => {
                let (yes, no) = ((*yes).clone(), (*no).clone());
                let other = arguments.clone();
                self.branch(
                    &condition,
                    |run| run.apply(yes, arguments, span),
                    |run| run.apply(no, other, span),
                    |condition, yes, no| Value::either(condition.clone(), yes, no),
                )
            }
            Value::Nil => {
                self.remark(
                    span,
                    "this calls nothing, which is an error: the script ends here",
                );
                self.ended = Condition::Always;
                Value::Nil
            }
            _ => {
                let text = self.code.get(span.clone()).unwrap_or_default();
                let name: String = text.chars().take_while(|c| *c != '(').take(40).collect();
                let why = format!("what {} does isn't known", name.trim());
                self.remark(span, why.clone());
                Value::unknown(why)
            }
        }
    }

    /// The script ends where a condition holds.
    pub(super) fn end(&mut self, condition: Condition) {
        self.ended = std::mem::replace(&mut self.ended, Condition::Never).or(condition);
    }

    /// Forgets that the script ended, as `pcall` does.
    pub(super) fn caught(&mut self, before: Condition) {
        self.ended = before;
    }

    pub(super) fn take_ended(&mut self) -> Condition {
        std::mem::replace(&mut self.ended, Condition::Never)
    }

    pub(super) fn method(
        &mut self,
        object: Value,
        name: &str,
        arguments: Vec<Value>,
        span: &Span,
    ) -> Value {
        if changes(name) {
            self.reached.insert(span.end);
        }
        match object {
            Value::Envoy(envoy) => self.envoy(envoy, name, &arguments, span),
            Value::Table(table) => {
                let function = self.entry(table, &Value::text(name));
                let mut all = vec![Value::Table(table)];
                all.extend(arguments);
                self.apply(function, all, span)
            }
            Value::Text(_) | Value::Asked(_) | Value::Perhaps(..) => {
                let Value::Library(function) = library::member("string", name) else {
                    return Value::unknown(format!("a text has no method {name}"));
                };
                let mut all = vec![object];
                all.extend(arguments);
                library::call(self, function, &all, span)
            }
            Value::Either(condition, yes, no) => {
                let (yes, no) = ((*yes).clone(), (*no).clone());
                let other = arguments.clone();
                self.branch(
                    &condition,
                    |run| run.method(yes, name, arguments, span),
                    |run| run.method(no, name, other, span),
                    |condition, yes, no| Value::either(condition.clone(), yes, no),
                )
            }
            Value::Nil => {
                let why = format!("{name} of nil is an error: the script ends here");
                self.remark(span, why);
                self.end(Condition::Always);
                Value::Nil
            }
            Value::Unknown(why) => {
                if matches!(name, "add" | "replace" | "remove" | "set" | "respond") {
                    self.remark(span, format!("this isn't understood: {why}"));
                }
                Value::Unknown(why)
            }
            _ => Value::unknown("a method that isn't known"),
        }
    }
}
