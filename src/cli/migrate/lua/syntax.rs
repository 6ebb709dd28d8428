//! A script's syntax, as little of it as its meaning needs, with the place of everything kept.
//!
//! `full_moon` parses; what it gives is lossless and large, so that it is turned into this at once.

use std::ops::Range;
use std::rc::Rc;

use full_moon::ast;
use full_moon::node::Node;
use full_moon::tokenizer::{StringLiteralQuoteType, Symbol, TokenReference, TokenType};

/// Bytes of the script.
pub(in crate::cli::migrate) type Span = Range<usize>;

/// Statements in order.
pub(super) type Block = Rc<[Statement]>;

/// A statement and where it stands.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) kind: StatementKind,
    pub(super) span: Span,
}

#[derive(Debug)]
pub(super) enum StatementKind {
    Local(Vec<Rc<str>>, Vec<Expression>),
    Assign(Vec<Expression>, Vec<Expression>),
    Call(Expression),
    Do(Block),
    If(Vec<(Expression, Block)>, Option<Block>),
    While(Expression, Block),
    Repeat(Block, Expression),
    NumericFor(Rc<str>, Vec<Expression>, Block),
    GenericFor(Vec<Rc<str>>, Vec<Expression>, Block),
    Function(Expression, Rc<Function>),
    LocalFunction(Rc<str>, Rc<Function>),
    Return(Vec<Expression>),
    Break,
    /// Jumps and labels.
    Jump,
}

/// An expression and where it stands.
#[derive(Debug)]
pub(super) struct Expression {
    pub(super) kind: ExpressionKind,
    pub(super) span: Span,
}

#[derive(Debug)]
pub(super) enum ExpressionKind {
    Nil,
    True,
    False,
    /// `...`
    Ellipsis,
    /// Syntax that Envoy's Lua doesn't have.
    NotLua,
    Number(f64),
    Text(Rc<str>),
    Name(Rc<str>),
    Index(Box<Expression>, Box<Expression>),
    Call(Box<Expression>, Vec<Expression>),
    Method(Box<Expression>, Rc<str>, Vec<Expression>),
    Function(Rc<Function>),
    Table(Vec<(Option<Expression>, Expression)>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Not(Box<Expression>),
    /// `==`, or `~=` where the flag is set.
    Equal(Box<Expression>, Box<Expression>, bool),
    Concat(Box<Expression>, Box<Expression>),
    Length(Box<Expression>),
    Negative(Box<Expression>),
    /// Arithmetic and comparisons of order.
    Arithmetic(&'static str, Box<Expression>, Box<Expression>),
}

/// A function's parameters and body.
#[derive(Debug)]
pub(in crate::cli::migrate) struct Function {
    pub(super) parameters: Vec<Rc<str>>,
    /// It takes any number of arguments behind them.
    pub(super) varargs: bool,
    pub(super) body: Block,
    pub(super) span: Span,
    /// The name it is first given, for remarks.
    pub(super) name: String,
}

/// Why a script can't be read, and where.
#[derive(Debug)]
pub(in crate::cli::migrate) struct Unreadable {
    pub(in crate::cli::migrate) message: String,
    pub(in crate::cli::migrate) at: usize,
}

/// Larger scripts fit into no Kubernetes object.
const MOST_BYTES: usize = 2 << 20;

/// How deep parentheses, tables and blocks may nest; the depth at which Envoy's `LuaJIT` gives up.
const MOST_LEVELS: usize = 200;

/// How many operators one expression may have: each is a level in the tree.
const MOST_OPERATORS: usize = 2000;

/// Reads a script.
pub(super) fn parse(code: &str) -> Result<Block, Unreadable> {
    bounded(code)?;
    let result = full_moon::parse_fallible(code, full_moon::LuaVersion::luajit());
    if let Some(error) = result.errors().first() {
        return Err(Unreadable {
            message: format!("this isn't Lua: {}", error.error_message()),
            at: error.range().0.bytes(),
        });
    }
    Ok(block(result.ast().nodes()))
}

/// Refuses what would nest deeper than a stack holds, before anything is nested.
fn bounded(code: &str) -> Result<(), Unreadable> {
    use full_moon::tokenizer::{Lexer, LexerResult};
    let refuse = |message: &str, at| {
        Err(Unreadable {
            message: message.to_owned(),
            at,
        })
    };
    if code.len() > MOST_BYTES {
        return refuse("the script is larger than 2 MiB", 0);
    }
    let mut lexer = Lexer::new_lazy(code, full_moon::LuaVersion::luajit());
    // Operators in the expressions that are open, by bracket or block.
    let mut levels: Vec<usize> = vec![0];
    let (mut operators, mut after_operand) = (0_usize, false);
    let mut next = 0;
    loop {
        // The lexer takes it for the beginning of a string of another dialect, and panics.
        if code.as_bytes().get(next) == Some(&b'`') {
            return refuse("this isn't Lua: ` has no meaning in it", next);
        }
        let Some(result) = lexer.process_next() else {
            break;
        };
        let token = match result {
            LexerResult::Ok(token) | LexerResult::Recovered(token, _) => token,
            // The parser would go on behind it, to where the lexer panics.
            LexerResult::Fatal(errors) => {
                let Some(error) = errors.first() else {
                    return refuse("this isn't Lua", next);
                };
                return refuse(&format!("this isn't Lua: {error}"), error.range().0.bytes());
            }
        };
        let at = token.start_position().bytes();
        next = token.end_position().bytes();
        let (mut operand, mut new, mut close, mut open) = (false, false, false, false);
        match token.token_type() {
            TokenType::Eof => break,
            // Behind an operand a name begins the next statement.
            TokenType::Identifier { .. } => (operand, new) = (true, after_operand),
            TokenType::Number { .. } | TokenType::StringLiteral { .. } => operand = true,
            TokenType::Symbol { symbol } => match symbol {
                Symbol::LeftParen | Symbol::LeftBrace | Symbol::LeftBracket | Symbol::Function => {
                    open = true;
                }
                Symbol::Do | Symbol::If | Symbol::Repeat => (new, open) = (true, true),
                Symbol::RightParen | Symbol::RightBrace | Symbol::RightBracket => {
                    (operand, close) = (true, true);
                }
                Symbol::End => (operand, close) = (true, true),
                Symbol::Until => close = true,
                Symbol::Local
                | Symbol::Return
                | Symbol::For
                | Symbol::While
                | Symbol::Then
                | Symbol::Else
                | Symbol::ElseIf
                | Symbol::Comma
                | Symbol::Equal
                | Symbol::Semicolon => new = true,
                Symbol::True | Symbol::False | Symbol::Nil => operand = true,
                _ => {
                    operators += 1;
                    if let Some(level) = levels.last_mut() {
                        *level += 1;
                    }
                }
            },
            _ => continue, // Blanks and comments.
        }
        after_operand = operand;
        if close && levels.len() > 1 {
            operators -= levels.pop().unwrap_or(0);
        }
        if new && let Some(level) = levels.last_mut() {
            operators -= std::mem::take(level);
        }
        if open {
            levels.push(0);
        }
        if levels.len() > MOST_LEVELS {
            return refuse(
                "this nests deeper than 200 levels, which Envoy's Lua refuses",
                at,
            );
        }
        if operators > MOST_OPERATORS {
            return refuse("this expression has more than 2,000 operators", at);
        }
    }
    Ok(())
}

fn span(node: &impl Node) -> Span {
    node.range()
        .map_or(0..0, |(start, end)| start.bytes()..end.bytes())
}

fn name_of(token: &TokenReference) -> Rc<str> {
    match token.token_type() {
        TokenType::Identifier { identifier } => Rc::from(identifier.as_str()),
        _ => Rc::from(token.token().to_string()),
    }
}

fn block(from: &ast::Block) -> Block {
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

#[allow(clippy::cast_precision_loss)] // Lua's numbers are doubles.
fn number(text: &str) -> Option<f64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok().map(|n| n as f64),
        None => text.parse().ok(),
    }
}

fn text(token: &TokenReference) -> Expression {
    let value = match token.token_type() {
        TokenType::StringLiteral {
            literal,
            quote_type: StringLiteralQuoteType::Brackets,
            ..
        } => {
            let text = literal.as_str();
            // The first line break of a long string isn't part of it.
            let text = text
                .strip_prefix("\r\n")
                .or_else(|| text.strip_prefix('\n'))
                .unwrap_or(text);
            text.to_owned()
        }
        TokenType::StringLiteral { literal, .. } => unescaped(literal.as_str()),
        _ => token.token().to_string(),
    };
    Expression {
        kind: ExpressionKind::Text(value.into()),
        span: span(token),
    }
}

/// A quoted string's value, by `LuaJIT`'s escapes.
fn unescaped(literal: &str) -> String {
    let mut out: Vec<u8> = Vec::with_capacity(literal.len());
    let mut rest = literal.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'\\' {
            out.push(first);
            continue;
        }
        let Some((&escape, after)) = rest.split_first() else {
            break;
        };
        rest = after;
        match escape {
            b'a' => out.push(7),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(11),
            b'x' => {
                let digits = rest.get(..2).and_then(|two| std::str::from_utf8(two).ok());
                if let Some(byte) = digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
                    out.push(byte);
                    rest = rest.get(2..).unwrap_or_default();
                }
            }
            b'z' => rest = rest.trim_ascii_start(),
            b'u' => {
                let end = rest.iter().position(|byte| *byte == b'}').unwrap_or(0);
                let digits = rest
                    .get(1..end)
                    .and_then(|digits| std::str::from_utf8(digits).ok());
                let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
                if let Some(c) = code.and_then(char::from_u32) {
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    rest = rest.get(end + 1..).unwrap_or_default();
                }
            }
            b'0'..=b'9' => {
                let more = rest
                    .iter()
                    .take(2)
                    .take_while(|byte| byte.is_ascii_digit())
                    .count();
                let mut code = u32::from(escape - b'0');
                for digit in rest.get(..more).unwrap_or_default() {
                    code = code * 10 + u32::from(digit - b'0');
                }
                rest = rest.get(more..).unwrap_or_default();
                out.push(u8::try_from(code).unwrap_or(b'?'));
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
