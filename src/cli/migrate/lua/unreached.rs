//! Calls that a script has but never makes: they are named, so that nothing of it is left out in silence.

use std::collections::HashSet;
use std::rc::Rc;

use super::syntax::{Block, Expression, ExpressionKind, Function, Span, StatementKind};

/// Methods that change a request or answer it.
pub(super) fn changes(method: &str) -> bool {
    matches!(method, "add" | "replace" | "remove" | "respond")
}

/// The calls of such methods, but for those that `reached` has and those inside of functions that `skipped` has.
pub(super) fn unreached(
    block: &Block,
    reached: &HashSet<usize>,
    skipped: &HashSet<*const Function>,
) -> Vec<Span> {
    let mut look = Look {
        reached,
        skipped,
        found: Vec::new(),
    };
    look.block(block);
    look.found
}

struct Look<'r> {
    reached: &'r HashSet<usize>,
    skipped: &'r HashSet<*const Function>,
    found: Vec<Span>,
}

impl Look<'_> {
    fn block(&mut self, block: &Block) {
        for statement in block.iter() {
            match &statement.kind {
                StatementKind::Local(_, values) | StatementKind::Return(values) => {
                    self.all(values);
                }
                StatementKind::Assign(targets, values) => {
                    self.all(targets);
                    self.all(values);
                }
                StatementKind::Call(call) => self.expression(call),
                StatementKind::Do(inner) => self.block(inner),
                StatementKind::If(arms, otherwise) => {
                    for (condition, inner) in arms {
                        self.expression(condition);
                        self.block(inner);
                    }
                    if let Some(inner) = otherwise {
                        self.block(inner);
                    }
                }
                StatementKind::While(condition, inner)
                | StatementKind::Repeat(inner, condition) => {
                    self.expression(condition);
                    self.block(inner);
                }
                StatementKind::NumericFor(_, values, inner)
                | StatementKind::GenericFor(_, values, inner) => {
                    self.all(values);
                    self.block(inner);
                }
                StatementKind::Function(_, function)
                | StatementKind::LocalFunction(_, function) => self.function(function),
                StatementKind::Break | StatementKind::Jump => {}
            }
        }
    }

    fn function(&mut self, function: &Rc<Function>) {
        if !self.skipped.contains(&Rc::as_ptr(function)) {
            self.block(&function.body);
        }
    }

    fn all(&mut self, expressions: &[Expression]) {
        for expression in expressions {
            self.expression(expression);
        }
    }

    fn expression(&mut self, expression: &Expression) {
        match &expression.kind {
            ExpressionKind::Method(object, name, arguments) => {
                if changes(name) && !self.reached.contains(&expression.span.end) {
                    self.found.push(expression.span.clone());
                }
                self.expression(object);
                self.all(arguments);
            }
            ExpressionKind::Call(function, arguments) => {
                self.expression(function);
                self.all(arguments);
            }
            ExpressionKind::Function(function) => self.function(function),
            ExpressionKind::Table(fields) => {
                for (key, value) in fields {
                    if let Some(key) = key {
                        self.expression(key);
                    }
                    self.expression(value);
                }
            }
            ExpressionKind::Index(a, b)
            | ExpressionKind::And(a, b)
            | ExpressionKind::Or(a, b)
            | ExpressionKind::Equal(a, b, _)
            | ExpressionKind::Concat(a, b)
            | ExpressionKind::Arithmetic(_, a, b) => {
                self.expression(a);
                self.expression(b);
            }
            ExpressionKind::Not(inner)
            | ExpressionKind::Length(inner)
            | ExpressionKind::Negative(inner) => self.expression(inner),
            ExpressionKind::Nil
            | ExpressionKind::True
            | ExpressionKind::False
            | ExpressionKind::Ellipsis
            | ExpressionKind::NotLua
            | ExpressionKind::Number(_)
            | ExpressionKind::Text(_)
            | ExpressionKind::Name(_) => {}
        }
    }
}
