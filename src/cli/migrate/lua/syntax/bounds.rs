//! Refuses what would nest deeper than a stack holds, before anything is nested.

use full_moon::tokenizer::{Symbol, TokenType};

use super::Unreadable;

/// Larger scripts fit into no Kubernetes object.
const MOST_BYTES: usize = 2 << 20;

/// How deep parentheses, tables and blocks may nest; the depth at which Envoy's `LuaJIT` gives up.
const MOST_LEVELS: usize = 200;

/// How many operators one expression may have: each is a level in the tree.
const MOST_OPERATORS: usize = 2000;

/// Refuses what would nest deeper than a stack holds, before anything is nested.
pub(super) fn bounded(code: &str) -> Result<(), Unreadable> {
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
