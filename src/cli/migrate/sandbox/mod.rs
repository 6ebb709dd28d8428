//! Runs a script as Envoy's Lua filter would, for one request: `LuaJIT` as Envoy has it, the handle that scripts are given,
//! and nothing else of the world. Time and memory are bounded.

mod handle;
mod headers;
mod searches;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use handle::{Handle, Stream};
use headers::{Headers, Lines};
use mlua::{AnyUserData, Error, HookTriggers, Lua, LuaOptions, MultiValue, StdLib, Value, VmState};
use searches::searches_bounded;
pub(super) use searches::takes_long;

/// The status and the location of an answer.
type Answer = Rc<RefCell<Option<(String, Option<String>)>>>;

/// Instructions that a script may take for one request.
const MOST_INSTRUCTIONS: u32 = 1_000_000;
const INSTRUCTIONS_A_LOOK: u32 = 10_000;
/// In an error: what Envoy would go on with.
pub const NOT_RUN: &str = "isn't run here";

/// Memory that a script may take, in bytes.
const MOST_MEMORY: usize = 64 << 20;

/// A request as the Lua filter gets it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Names in lower case, pseudo-headers among them.
    pub headers: Vec<(String, String)>,
    /// `ip:port` of the other end of the connection.
    pub peer: String,
    /// Whether the connection has TLS.
    pub tls: bool,
    /// Whether it is HTTP/2.
    pub http2: bool,
    /// The name of the route that Envoy chose.
    pub route: String,
    /// The name of its virtual host.
    pub virtual_host: String,
}

/// What a script made of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ran {
    /// The request's headers after the script.
    pub headers: Vec<(String, String)>,
    /// The status and the location of an answer that the script gave itself.
    pub answered: Option<(String, Option<String>)>,
    /// Why the script stopped early.
    pub error: Option<String>,
}

/// Runs a script for one request.
#[must_use]
pub fn run(code: &str, seen: &Seen) -> Ran {
    let lines: Lines = Rc::new(RefCell::new(seen.headers.clone()));
    let answered: Answer = Rc::default();
    let result = attempt(code, seen, &lines, &answered);
    let answered = answered.borrow().clone();
    let error = result.err().filter(|_| answered.is_none()).map(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        // `[string "function envoy_on_request(h)..."]:3: …`
        let text = match (first.find("[string \""), first.find("\"]:")) {
            (Some(from), Some(to)) if from < to => {
                format!("line {}", first.get(to + 3..).unwrap_or_default())
            }
            _ => first.to_owned(),
        };
        text.chars().take(200).collect()
    });
    Ran {
        headers: lines.borrow().clone(),
        answered,
        error,
    }
}

fn attempt(code: &str, seen: &Seen, lines: &Lines, answered: &Answer) -> mlua::Result<()> {
    let libraries =
        StdLib::STRING | StdLib::TABLE | StdLib::MATH | StdLib::BIT | StdLib::OS | StdLib::JIT;
    let lua = Lua::new_with(libraries, LuaOptions::new())?;
    lua.set_memory_limit(MOST_MEMORY)?;
    let looks = Rc::new(Cell::new(0_u32));
    sandboxed(&lua, &looks)?;
    // For coroutines too.
    lua.set_global_hook(
        HookTriggers::new().every_nth_instruction(INSTRUCTIONS_A_LOOK),
        move |_, _| {
            looks.set(looks.get() + 1);
            within_bounds(&looks)?;
            Ok(VmState::Continue)
        },
    )?;
    lua.load(code)
        .set_name(code)
        .set_mode(mlua::chunk::ChunkMode::Text)
        .exec()?;
    let Value::Function(function) = lua.globals().get::<Value>("envoy_on_request")? else {
        return Ok(());
    };
    let stream = Stream {
        seen: Rc::new(seen.clone()),
        dynamic: lua.create_table()?,
    };
    let headers = lua.create_userdata(Headers {
        lines: Rc::clone(lines),
        iterating: Rc::default(),
    })?;
    let handle: AnyUserData = lua.create_userdata(Handle {
        headers,
        stream,
        answered: Rc::clone(answered),
    })?;
    function.call(handle)
}

fn within_bounds(looks: &Cell<u32>) -> mlua::Result<()> {
    if looks.get() <= MOST_INSTRUCTIONS / INSTRUCTIONS_A_LOOK {
        return Ok(());
    }
    Err(Error::runtime(format!(
        "a script that takes so many instructions {NOT_RUN}"
    )))
}

/// Functions that catch errors, over those of the same names: a script can't catch the end of its time.
const CATCHES: &str = "
local within_bounds, catch = ...
local function checked(...)
  within_bounds()
  return ...
end
return function(...)
  return checked(catch(...))
end";

/// Takes away what reaches out of the script, and the compiler, which knows no limits.
fn sandboxed(lua: &Lua, looks: &Rc<Cell<u32>>) -> mlua::Result<()> {
    let globals = lua.globals();
    let looks = Rc::clone(looks);
    let check = lua.create_function(move |_, ()| within_bounds(&looks))?;
    let mut catches = vec![(globals.clone(), "pcall"), (globals.clone(), "xpcall")];
    if let Value::Table(coroutine) = globals.get::<Value>("coroutine")? {
        catches.push((coroutine, "resume"));
    }
    for (table, name) in catches {
        let catch: Value = table.get(name)?;
        let wrapped: Value = lua.load(CATCHES).call((&check, catch))?;
        table.set(name, wrapped)?;
    }
    if let Value::Table(jit) = globals.get::<Value>("jit")? {
        jit.get::<mlua::Function>("off")?.call::<()>(())?;
    }
    for name in [
        "jit",
        "load",
        "loadstring",
        "loadfile",
        "dofile",
        "require",
        "package",
        "module",
        "collectgarbage",
        "gcinfo",
        "newproxy",
        "io",
        "debug",
    ] {
        globals.set(name, Value::Nil)?;
    }
    if let Value::Table(os) = globals.get::<Value>("os")? {
        let safe = lua.create_table()?;
        for name in ["time", "clock", "date", "difftime"] {
            safe.set(name, os.get::<Value>(name)?)?;
        }
        globals.set("os", safe)?;
    }
    if let Value::Table(string) = globals.get::<Value>("string")? {
        string.set("dump", Value::Nil)?;
        searches_bounded(lua, &string)?;
    }
    globals.set("print", lua.create_function(|_, _: MultiValue| Ok(()))?)
}
