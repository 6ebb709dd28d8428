//! Lua's functions of texts and numbers on constants, worked out by Lua itself.

use mlua::{Function, Lua, LuaOptions, MultiValue, StdLib, Table};

use super::super::sandbox::takes_long;
use super::value::Value;

/// Longer texts are made by no script that is meant well.
pub(super) const LONGEST: usize = 64 << 10;

/// Memory that one call may take, in bytes.
const MOST_MEMORY: usize = 16 << 20;

/// Matches of `string.gmatch`.
const MOST_MATCHES: usize = 1_000;

/// An interpreter for constants. It is made when the first one asks for it.
#[derive(Default)]
pub(super) struct Constants(Option<Lua>);

impl Constants {
    /// The results of a function such as `string.sub`. Nothing where an argument is no constant or Lua has no answer.
    pub(super) fn call(&mut self, name: &str, arguments: &[Value]) -> Option<Vec<Value>> {
        if searches_long(arguments) {
            return None;
        }
        let lua = self.lua()?;
        let results: MultiValue = function(lua, name)
            .ok()?
            .call(given(lua, arguments)?)
            .ok()?;
        results.into_iter().map(taken).collect()
    }

    /// What `string.gmatch` goes over, round by round.
    pub(super) fn matches(&mut self, arguments: &[Value]) -> Option<Vec<Vec<Value>>> {
        if searches_long(arguments) {
            return None;
        }
        let lua = self.lua()?;
        let next: Function = function(lua, "string.gmatch")
            .ok()?
            .call(given(lua, arguments)?)
            .ok()?;
        let mut rounds = Vec::new();
        loop {
            let results: MultiValue = next.call(()).ok()?;
            if results.front().is_none_or(mlua::Value::is_nil) {
                return Some(rounds);
            }
            if rounds.len() == MOST_MATCHES {
                return None;
            }
            let round: Option<Vec<Value>> = results.into_iter().map(taken).collect();
            rounds.push(round?);
        }
    }

    fn lua(&mut self) -> Option<&Lua> {
        if self.0.is_none() {
            let lua = Lua::new_with(
                StdLib::STRING | StdLib::MATH | StdLib::BIT,
                LuaOptions::new(),
            )
            .ok()?;
            lua.set_memory_limit(MOST_MEMORY).ok()?;
            self.0 = Some(lua);
        }
        self.0.as_ref()
    }
}

/// Whether this would be a search that takes for ever.
fn searches_long(arguments: &[Value]) -> bool {
    match arguments {
        [Value::Text(text), Value::Text(pattern), ..] => takes_long(text.len(), pattern.as_bytes()),
        _ => false,
    }
}

fn function(lua: &Lua, name: &str) -> mlua::Result<Function> {
    match name.split_once('.') {
        Some((table, field)) => lua.globals().get::<Table>(table)?.get(field),
        None => lua.globals().get(name),
    }
}

fn given(lua: &Lua, arguments: &[Value]) -> Option<MultiValue> {
    arguments
        .iter()
        .map(|argument| {
            Some(match argument {
                Value::Nil => mlua::Value::Nil,
                Value::Bool(value) => mlua::Value::Boolean(*value),
                Value::Number(number) => mlua::Value::Number(*number),
                Value::Text(text) => mlua::Value::String(lua.create_string(&**text).ok()?),
                _ => return None,
            })
        })
        .collect()
}

#[allow(clippy::cast_precision_loss)] // Lua's numbers are doubles.
fn taken(result: mlua::Value) -> Option<Value> {
    Some(match result {
        mlua::Value::Nil => Value::Nil,
        mlua::Value::Boolean(value) => Value::Bool(value),
        mlua::Value::Integer(number) => Value::Number(number as f64),
        mlua::Value::Number(number) => Value::Number(number),
        mlua::Value::String(text) => {
            let text = text.to_str().ok()?;
            if text.len() > LONGEST {
                return None;
            }
            Value::text(&*text)
        }
        _ => return None,
    })
}
