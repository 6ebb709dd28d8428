//! What a script's functions do to globals, by a look at the syntax alone.

use std::collections::HashSet;
use std::rc::Rc;

use super::syntax::{Block, Expression, ExpressionKind, Function, StatementKind};

/// Globals that are assigned inside of functions, and every function that has a name.
pub(super) fn assigned_globals(
    block: &Block,
    inside: bool,
    names: &mut HashSet<Rc<str>>,
    functions: &mut Vec<Rc<Function>>,
) {
    fn in_expression(
        expression: &Expression,
        names: &mut HashSet<Rc<str>>,
        functions: &mut Vec<Rc<Function>>,
    ) {
        match &expression.kind {
            ExpressionKind::Function(function) => {
                functions.push(Rc::clone(function));
                assigned_globals(&function.body, true, names, functions);
            }
            ExpressionKind::Table(fields) => {
                for (_, value) in fields {
                    in_expression(value, names, functions);
                }
            }
            _ => {}
        }
    }
    for statement in block.iter() {
        match &statement.kind {
            StatementKind::Assign(targets, values) => {
                for target in targets {
                    if let ExpressionKind::Name(name) = &target.kind
                        && inside
                    {
                        names.insert(Rc::clone(name));
                    }
                }
                for value in values {
                    in_expression(value, names, functions);
                }
            }
            StatementKind::Local(_, values) => {
                for value in values {
                    in_expression(value, names, functions);
                }
            }
            StatementKind::Do(inner)
            | StatementKind::While(_, inner)
            | StatementKind::Repeat(inner, _)
            | StatementKind::NumericFor(_, _, inner)
            | StatementKind::GenericFor(_, _, inner) => {
                assigned_globals(inner, inside, names, functions);
            }
            StatementKind::If(arms, otherwise) => {
                for (_, inner) in arms {
                    assigned_globals(inner, inside, names, functions);
                }
                if let Some(inner) = otherwise {
                    assigned_globals(inner, inside, names, functions);
                }
            }
            StatementKind::Function(_, function) | StatementKind::LocalFunction(_, function) => {
                functions.push(Rc::clone(function));
                assigned_globals(&function.body, true, names, functions);
            }
            StatementKind::Call(_)
            | StatementKind::Return(_)
            | StatementKind::Break
            | StatementKind::Jump => {}
        }
    }
}
