//! A script's syntax, as little of it as its meaning needs, with the place of everything kept.
//!
//! `full_moon` parses; what it gives is lossless and large, so that it is turned into this at once.

mod bounds;
mod literals;
mod read;

use std::ops::Range;
use std::rc::Rc;

use full_moon::node::Node;

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

/// Reads a script.
pub(super) fn parse(code: &str) -> Result<Block, Unreadable> {
    bounds::bounded(code)?;
    let result = full_moon::parse_fallible(code, full_moon::LuaVersion::luajit());
    if let Some(error) = result.errors().first() {
        return Err(Unreadable {
            message: format!("this isn't Lua: {}", error.error_message()),
            at: error.range().0.bytes(),
        });
    }
    Ok(read::block(result.ast().nodes()))
}

fn span(node: &impl Node) -> Span {
    node.range()
        .map_or(0..0, |(start, end)| start.bytes()..end.bytes())
}
