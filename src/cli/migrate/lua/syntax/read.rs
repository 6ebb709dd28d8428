//! Turns `full_moon`'s tree into this one.

use std::rc::Rc;

use full_moon::ast;
use full_moon::tokenizer::{Symbol, TokenReference, TokenType};

use super::literals::{number, text};
use super::{Block, Expression, ExpressionKind, Function, Span, Statement, StatementKind, span};

fn name_of(token: &TokenReference) -> Rc<str> {
    match token.token_type() {
        TokenType::Identifier { identifier } => Rc::from(identifier.as_str()),
        _ => Rc::from(token.token().to_string()),
    }
}

pub(super) fn block(from: &ast::Block) -> Block {
    let mut statements: Vec<Statement> = from.stmts().map(statement).collect();
    if let Some(last) = from.last_stmt() {
        let kind = match last {
            ast::LastStmt::Return(ret) => {
                StatementKind::Return(ret.returns().iter().map(expression).collect())
            }
            _ => StatementKind::Break,
        };
        statements.push(Statement {
            kind,
            span: span(last),
        });
    }
    statements.into()
}

fn statement(from: &ast::Stmt) -> Statement {
    let kind = match from {
        ast::Stmt::Assignment(assignment) => StatementKind::Assign(
            assignment.variables().iter().map(variable).collect(),
            named(
                assignment.expressions().iter(),
                assignment.variables().iter().map(ToString::to_string),
            ),
        ),
        ast::Stmt::LocalAssignment(assignment) => StatementKind::Local(
            assignment.names().iter().map(name_of).collect(),
            named(
                assignment.expressions().iter(),
                assignment
                    .names()
                    .iter()
                    .map(|name| name.token().to_string()),
            ),
        ),
        ast::Stmt::Do(inner) => StatementKind::Do(block(inner.block())),
        ast::Stmt::FunctionCall(call) => {
            StatementKind::Call(suffixed(call.prefix(), call.suffixes()))
        }
        ast::Stmt::FunctionDeclaration(declaration) => {
            let name = declaration.name();
            let mut parts = name.names().iter();
            let mut target = parts.next().map_or(
                Expression {
                    kind: ExpressionKind::Nil,
                    span: 0..0,
                },
                |token| Expression {
                    kind: ExpressionKind::Name(name_of(token)),
                    span: span(token),
                },
            );
            for part in parts.chain(name.method_name()) {
                let key = Expression {
                    kind: ExpressionKind::Text(name_of(part)),
                    span: span(part),
                };
                target = Expression {
                    span: target.span.start..key.span.end,
                    kind: ExpressionKind::Index(Box::new(target), Box::new(key)),
                };
            }
            let mut function = function(declaration.body(), span(from));
            name.to_string().trim().clone_into(&mut function.name);
            if name.method_name().is_some() {
                function.parameters.insert(0, Rc::from("self"));
            }
            StatementKind::Function(target, Rc::new(function))
        }
        ast::Stmt::LocalFunction(local) => {
            let mut function = function(local.body(), span(from));
            function.name = name_of(local.name()).to_string();
            StatementKind::LocalFunction(name_of(local.name()), Rc::new(function))
        }
        ast::Stmt::If(branches) => {
            let mut arms = vec![(expression(branches.condition()), block(branches.block()))];
            for arm in branches.else_if().into_iter().flatten() {
                arms.push((expression(arm.condition()), block(arm.block())));
            }
            StatementKind::If(arms, branches.else_block().map(block))
        }
        ast::Stmt::While(inner) => {
            StatementKind::While(expression(inner.condition()), block(inner.block()))
        }
        ast::Stmt::Repeat(inner) => {
            StatementKind::Repeat(block(inner.block()), expression(inner.until()))
        }
        ast::Stmt::NumericFor(inner) => StatementKind::NumericFor(
            name_of(inner.index_variable()),
            [Some(inner.start()), Some(inner.end()), inner.step()]
                .into_iter()
                .flatten()
                .map(expression)
                .collect(),
            block(inner.block()),
        ),
        ast::Stmt::GenericFor(inner) => StatementKind::GenericFor(
            inner.names().iter().map(name_of).collect(),
            inner.expressions().iter().map(expression).collect(),
            block(inner.block()),
        ),
        _ => StatementKind::Jump,
    };
    Statement {
        kind,
        span: span(from),
    }
}

/// Values, functions among them with the names that they are given.
fn named<'a>(
    values: impl Iterator<Item = &'a ast::Expression>,
    names: impl Iterator<Item = String>,
) -> Vec<Expression> {
    let mut names = names;
    values
        .map(|value| {
            let name = names.next().unwrap_or_default();
            match value {
                ast::Expression::Function(anonymous) => {
                    let mut function = function(anonymous.body(), span(value));
                    name.trim().clone_into(&mut function.name);
                    Expression {
                        kind: ExpressionKind::Function(Rc::new(function)),
                        span: span(value),
                    }
                }
                other => expression(other),
            }
        })
        .collect()
}

fn function(body: &ast::FunctionBody, span: Span) -> Function {
    Function {
        parameters: body
            .parameters()
            .iter()
            .filter_map(|parameter| match parameter {
                ast::Parameter::Name(token) => Some(name_of(token)),
                _ => None,
            })
            .collect(),
        varargs: body
            .parameters()
            .iter()
            .any(|parameter| matches!(parameter, ast::Parameter::Ellipsis(_))),
        body: block(body.block()),
        span,
        name: "a function without a name".to_owned(),
    }
}

fn variable(from: &ast::Var) -> Expression {
    match from {
        ast::Var::Name(token) => Expression {
            kind: ExpressionKind::Name(name_of(token)),
            span: span(token),
        },
        ast::Var::Expression(inner) => suffixed(inner.prefix(), inner.suffixes()),
        _ => unknown(span(from)),
    }
}

/// Syntax that Envoy's Lua doesn't have.
fn unknown(span: Span) -> Expression {
    Expression {
        kind: ExpressionKind::NotLua,
        span,
    }
}

fn suffixed<'a>(
    prefix: &ast::Prefix,
    suffixes: impl Iterator<Item = &'a ast::Suffix>,
) -> Expression {
    let mut whole = match prefix {
        ast::Prefix::Expression(inner) => expression(inner),
        ast::Prefix::Name(token) => Expression {
            kind: ExpressionKind::Name(name_of(token)),
            span: span(token),
        },
        _ => unknown(span(prefix)),
    };
    for suffix in suffixes {
        let reach = whole.span.start..span(suffix).end.max(whole.span.end);
        let inner = Box::new(whole);
        let kind = match suffix {
            ast::Suffix::Call(ast::Call::AnonymousCall(arguments)) => {
                ExpressionKind::Call(inner, self::arguments(arguments))
            }
            ast::Suffix::Call(ast::Call::MethodCall(call)) => {
                ExpressionKind::Method(inner, name_of(call.name()), arguments(call.args()))
            }
            ast::Suffix::Index(ast::Index::Brackets {
                expression: key, ..
            }) => ExpressionKind::Index(inner, Box::new(expression(key))),
            ast::Suffix::Index(ast::Index::Dot { name, .. }) => {
                let key = Expression {
                    kind: ExpressionKind::Text(name_of(name)),
                    span: span(name),
                };
                ExpressionKind::Index(inner, Box::new(key))
            }
            _ => ExpressionKind::NotLua,
        };
        whole = Expression { kind, span: reach };
    }
    whole
}

fn arguments(from: &ast::FunctionArgs) -> Vec<Expression> {
    match from {
        ast::FunctionArgs::Parentheses { arguments, .. } => {
            arguments.iter().map(expression).collect()
        }
        ast::FunctionArgs::String(token) => vec![text(token)],
        ast::FunctionArgs::TableConstructor(constructor) => vec![table(constructor)],
        _ => Vec::new(),
    }
}

fn table(from: &ast::TableConstructor) -> Expression {
    let fields = from
        .fields()
        .iter()
        .map(|field| match field {
            ast::Field::ExpressionKey { key, value, .. } => {
                (Some(expression(key)), expression(value))
            }
            ast::Field::NameKey { key, value, .. } => {
                let key = Expression {
                    kind: ExpressionKind::Text(name_of(key)),
                    span: span(key),
                };
                (Some(key), expression(value))
            }
            ast::Field::NoKey(value) => (None, expression(value)),
            other => (None, unknown(span(other))),
        })
        .collect();
    Expression {
        kind: ExpressionKind::Table(fields),
        span: span(from),
    }
}

fn expression(from: &ast::Expression) -> Expression {
    let inner = |one: &ast::Expression| Box::new(expression(one));
    let kind = match from {
        ast::Expression::BinaryOperator { lhs, binop, rhs } => {
            let (a, b) = (inner(lhs), inner(rhs));
            match binop {
                ast::BinOp::And(_) => ExpressionKind::And(a, b),
                ast::BinOp::Or(_) => ExpressionKind::Or(a, b),
                ast::BinOp::TwoEqual(_) => ExpressionKind::Equal(a, b, false),
                ast::BinOp::TildeEqual(_) => ExpressionKind::Equal(a, b, true),
                ast::BinOp::TwoDots(_) => ExpressionKind::Concat(a, b),
                ast::BinOp::Plus(_) => ExpressionKind::Arithmetic("+", a, b),
                ast::BinOp::Minus(_) => ExpressionKind::Arithmetic("-", a, b),
                ast::BinOp::Star(_) => ExpressionKind::Arithmetic("*", a, b),
                ast::BinOp::Slash(_) => ExpressionKind::Arithmetic("/", a, b),
                ast::BinOp::Percent(_) => ExpressionKind::Arithmetic("%", a, b),
                ast::BinOp::LessThan(_) => ExpressionKind::Arithmetic("<", a, b),
                ast::BinOp::LessThanEqual(_) => ExpressionKind::Arithmetic("<=", a, b),
                ast::BinOp::GreaterThan(_) => ExpressionKind::Arithmetic(">", a, b),
                ast::BinOp::GreaterThanEqual(_) => ExpressionKind::Arithmetic(">=", a, b),
                _ => ExpressionKind::Arithmetic("?", a, b),
            }
        }
        ast::Expression::Parentheses {
            expression: one, ..
        } => {
            return Expression {
                kind: expression(one).kind,
                span: span(from),
            };
        }
        ast::Expression::UnaryOperator {
            unop,
            expression: one,
        } => match unop {
            ast::UnOp::Not(_) => ExpressionKind::Not(inner(one)),
            ast::UnOp::Hash(_) => ExpressionKind::Length(inner(one)),
            _ => ExpressionKind::Negative(inner(one)),
        },
        ast::Expression::Function(anonymous) => {
            ExpressionKind::Function(Rc::new(function(anonymous.body(), span(from))))
        }
        ast::Expression::FunctionCall(call) => return suffixed(call.prefix(), call.suffixes()),
        ast::Expression::TableConstructor(constructor) => return table(constructor),
        ast::Expression::Number(token) => number(&token.token().to_string())
            .map_or(ExpressionKind::NotLua, ExpressionKind::Number),
        ast::Expression::String(token) => return text(token),
        ast::Expression::Symbol(token) => match token.token_type() {
            TokenType::Symbol {
                symbol: Symbol::Nil,
            } => ExpressionKind::Nil,
            TokenType::Symbol {
                symbol: Symbol::True,
            } => ExpressionKind::True,
            TokenType::Symbol {
                symbol: Symbol::False,
            } => ExpressionKind::False,
            TokenType::Symbol {
                symbol: Symbol::Ellipsis,
            } => ExpressionKind::Ellipsis,
            _ => ExpressionKind::NotLua,
        },
        ast::Expression::Var(var) => return variable(var),
        _ => ExpressionKind::NotLua,
    };
    Expression {
        kind,
        span: span(from),
    }
}
