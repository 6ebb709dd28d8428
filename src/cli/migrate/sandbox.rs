//! Runs a script as Envoy's Lua filter would, for one request: `LuaJIT` as Envoy has it, the handle that scripts are given,
//! and nothing else of the world. Time and memory are bounded.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use base64::Engine as _;
use mlua::{
    AnyUserData, Error, HookTriggers, Lua, LuaOptions, MetaMethod, MultiValue, StdLib, Table,
    UserData, UserDataMethods, Value, Variadic, VmState,
};

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

/// Headers that Envoy keeps in one place: another line of one is joined to it at once.
const ON_ONE_LINE: &[&str] = &[
    "accept",
    "access-control-request-method",
    "authorization",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "grpc-accept-encoding",
    "grpc-timeout",
    "keep-alive",
    "origin",
    "proxy-connection",
    "referer",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-client-trace-id",
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-external-address",
    "x-envoy-force-trace",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-internal",
    "x-envoy-ip-tags",
    "x-envoy-max-retries",
    "x-envoy-original-path",
    "x-envoy-original-url",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-stream-duration-ms",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-id",
];

fn on_one_line(name: &str) -> bool {
    name.starts_with(':') || ON_ONE_LINE.contains(&name)
}

/// A name as Envoy keeps it.
fn key(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    if name == "host" {
        ":authority".to_owned()
    } else {
        name
    }
}

/// The status and the location of an answer.
type Answer = Rc<RefCell<Option<(String, Option<String>)>>>;
type Lines = Rc<RefCell<Vec<(String, String)>>>;

/// One result. Where Envoy has no value it gives none, which isn't nil to `tostring`.
fn one(value: String) -> Variadic<String> {
    Variadic::from_iter([value])
}

/// A value, or no result.
fn some(value: Value) -> MultiValue {
    match value {
        Value::Nil => MultiValue::new(),
        value => MultiValue::from_iter([value]),
    }
}

/// Adds a line where Envoy has it: pseudo-headers stand in front.
fn put(lines: &mut Vec<(String, String)>, name: String, value: String) {
    let place = if name.starts_with(':') {
        lines
            .iter()
            .take_while(|(known, _)| known.starts_with(':'))
            .count()
    } else {
        lines.len()
    };
    lines.insert(place.min(lines.len()), (name, value));
}

/// `handle:headers()`.
#[derive(Clone, Default)]
struct Headers {
    lines: Lines,
    /// `pairs` has begun and hasn't come to its end.
    iterating: Rc<Cell<bool>>,
}

impl Headers {
    fn all(&self, name: &str) -> Vec<String> {
        let name = key(name);
        self.lines
            .borrow()
            .iter()
            .filter(|(known, _)| *known == name)
            .map(|(_, value)| value.clone())
            .collect()
    }
}

impl Headers {
    /// The lines, to be changed.
    fn changed(&self) -> mlua::Result<std::cell::RefMut<'_, Vec<(String, String)>>> {
        if self.iterating.get() {
            return Err(Error::runtime(
                "header map cannot be modified while iterating",
            ));
        }
        Ok(self.lines.borrow_mut())
    }
}

impl UserData for Headers {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |_, this, name: String| {
            let all = this.all(&name);
            let value = (!all.is_empty()).then(|| all.join(","));
            Ok(value.map_or(Variadic::new(), one))
        });
        methods.add_method("getAtIndex", |_, this, (name, index): (String, i64)| {
            let value = usize::try_from(index)
                .ok()
                .and_then(|index| this.all(&name).get(index).cloned());
            Ok(value.map_or(Variadic::new(), one))
        });
        methods.add_method("getNumValues", |_, this, name: String| {
            Ok(this.all(&name).len())
        });
        methods.add_method("add", |_, this, (name, value): (String, String)| {
            let name = key(&name);
            let mut lines = this.changed()?;
            let known = lines
                .iter_mut()
                .find(|(known, _)| *known == name && on_one_line(known));
            match known {
                Some((_, before)) => {
                    before.push(',');
                    before.push_str(&value);
                }
                None => put(&mut lines, name, value),
            }
            Ok(())
        });
        methods.add_method("replace", |_, this, (name, value): (String, String)| {
            let name = key(&name);
            let mut lines = this.changed()?;
            lines.retain(|(known, _)| *known != name);
            put(&mut lines, name, value);
            Ok(())
        });
        methods.add_method("remove", |_, this, name: String| {
            let name = key(&name);
            this.changed()?.retain(|(known, _)| *known != name);
            Ok(())
        });
        methods.add_method("setHttp1ReasonPhrase", |_, _, _: String| Ok(()));
        methods.add_meta_method(MetaMethod::Pairs, |lua, this, ()| {
            if this.iterating.replace(true) {
                return Err(Error::runtime(
                    "cannot create a second iterator before completing the first",
                ));
            }
            let lines = this.lines.borrow().clone();
            let iterating = Rc::clone(&this.iterating);
            let at = Cell::new(0_usize);
            let next = lua.create_function(move |lua, _: MultiValue| {
                let index = at.get();
                at.set(index + 1);
                let mut values = MultiValue::new();
                if let Some((name, value)) = lines.get(index) {
                    values.push_back(Value::String(lua.create_string(name)?));
                    values.push_back(Value::String(lua.create_string(value)?));
                } else {
                    iterating.set(false);
                }
                Ok(values)
            })?;
            Ok((next, Value::Nil, Value::Nil))
        });
    }
}

/// Metadata, of which there is none here, and dynamic metadata, which keeps what is set.
#[derive(Clone)]
struct Metadata(Table);

impl UserData for Metadata {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |_, this, name: String| {
            Ok(some(this.0.get::<Value>(name)?))
        });
        methods.add_method(
            "set",
            |lua, this, (filter, name, value): (String, String, Value)| {
                let inner = match this.0.get::<Value>(filter.as_str())? {
                    Value::Table(table) => table,
                    _ => lua.create_table()?,
                };
                inner.set(name, value)?;
                this.0.set(filter, inner)
            },
        );
        methods.add_meta_method(MetaMethod::Pairs, |lua, this, ()| {
            let next: mlua::Function = lua.globals().get("next")?;
            Ok((next, this.0.clone(), Value::Nil))
        });
    }
}

/// `handle:streamInfo()`, `handle:connection()` and what they give.
#[derive(Clone)]
struct Stream {
    seen: Rc<Seen>,
    dynamic: Table,
}

impl UserData for Stream {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("protocol", |_, this, ()| {
            Ok(if this.seen.http2 {
                "HTTP/2"
            } else {
                "HTTP/1.1"
            })
        });
        methods.add_method("routeName", |_, this, ()| Ok(this.seen.route.clone()));
        methods.add_method("virtualHostName", |_, this, ()| {
            Ok(this.seen.virtual_host.clone())
        });
        methods.add_method(
            "drainConnectionUponCompletion",
            |_, _, _: MultiValue| Ok(()),
        );
        methods.add_method("virtualClusterName", |_, _, ()| Ok(String::new()));
        for name in ["downstreamDirectRemoteAddress", "downstreamRemoteAddress"] {
            methods.add_method(name, |_, this, ()| Ok(this.seen.peer.clone()));
        }
        for name in ["downstreamLocalAddress", "downstreamDirectLocalAddress"] {
            methods.add_method(name, |_, _, ()| Ok("192.0.0.8:8080"));
        }
        methods.add_method("requestedServerName", |_, _, ()| Ok(String::new()));
        methods.add_method("dynamicMetadata", |_, this, ()| {
            Ok(Metadata(this.dynamic.clone()))
        });
        methods.add_method("dynamicTypedMetadata", |_, _, _: String| Ok(Value::Nil));
        methods.add_method("filterState", |lua, _, ()| {
            Ok(Metadata(lua.create_table()?))
        });
        for name in ["downstreamSslConnection", "ssl"] {
            methods.add_method(name, |lua, this, ()| {
                if this.seen.tls {
                    let ssl = Ssl;
                    Ok(Value::UserData(lua.create_userdata(ssl)?))
                } else {
                    Ok(Value::Nil)
                }
            });
        }
    }
}

/// A TLS connection without a client certificate.
struct Ssl;

impl UserData for Ssl {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        for name in ["peerCertificatePresented", "peerCertificateValidated"] {
            methods.add_method(name, |_, _, ()| Ok(false));
        }
        for name in [
            "sha256PeerCertificateDigest",
            "serialNumberPeerCertificate",
            "issuerPeerCertificate",
            "subjectPeerCertificate",
            "urlEncodedPemEncodedPeerCertificate",
            "sessionId",
        ] {
            methods.add_method(name, |_, _, ()| Ok(String::new()));
        }
        for name in [
            "uriSanPeerCertificate",
            "dnsSansPeerCertificate",
            "uriSanLocalCertificate",
            "dnsSansLocalCertificate",
        ] {
            methods.add_method(name, |lua, _, ()| lua.create_table());
        }
        methods.add_method("tlsVersion", |_, _, ()| Ok("TLSv1.3"));
        methods.add_method("ciphersuiteString", |_, _, ()| Ok("TLS_AES_128_GCM_SHA256"));
    }
}

/// The request handle.
struct Handle {
    /// The same object each time it is asked for.
    headers: AnyUserData,
    stream: Stream,
    answered: Answer,
}

/// Ends a script that has answered.
const ANSWERED: &str = "the script has answered the request";

impl UserData for Handle {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("headers", |_, this, ()| Ok(this.headers.clone()));
        methods.add_method("trailers", |_, _, ()| Ok(MultiValue::new()));
        methods.add_method("base64Escape", |_, _, text: mlua::LuaString| {
            Ok(base64::engine::general_purpose::STANDARD.encode(text.as_bytes()))
        });
        methods.add_method("metadata", |lua, _, ()| Ok(Metadata(lua.create_table()?)));
        methods.add_method("streamInfo", |_, this, ()| Ok(this.stream.clone()));
        methods.add_method("connection", |_, this, ()| Ok(this.stream.clone()));
        methods.add_method("filterContext", |lua, _, ()| lua.create_table());
        for name in ["virtualHost", "route"] {
            methods.add_method(name, |lua, _, ()| Ok(Metadata(lua.create_table()?)));
        }
        for name in [
            "logTrace",
            "logDebug",
            "logInfo",
            "logWarn",
            "logErr",
            "logCritical",
            "clearRouteCache",
            "setUpstreamOverrideHost",
        ] {
            methods.add_method(name, |_, _, _: MultiValue| Ok(()));
        }
        methods.add_method("timestamp", |_, _, _: MultiValue| Ok(1_700_000_000_000_i64));
        methods.add_method("timestampString", |_, _, _: MultiValue| Ok("1700000000000"));
        methods.add_method("respond", |_, this, (headers, _): (Table, MultiValue)| {
            let status: String = headers
                .get::<Option<String>>(":status")?
                .filter(|status| matches!(status.parse(), Ok(200..=599_u16)))
                .ok_or_else(|| Error::runtime(":status must be between 200-599"))?;
            *this.answered.borrow_mut() = Some((status, headers.get("location")?));
            Err::<(), _>(Error::runtime(ANSWERED))
        });
        for name in [
            "httpCall",
            "body",
            "bodyChunks",
            "importPublicKey",
            "verifySignature",
        ] {
            methods.add_method(name, move |_, _, _: MultiValue| {
                Err::<(), _>(Error::runtime(format!("{name} {NOT_RUN}")))
            });
        }
    }
}

/// What a search with a pattern may take: the text's length by the repetitions in the pattern.
const MOST_TRIES: f64 = 2e7;

/// Whether a search might take for ever: each repetition is tried with every length of what it takes.
pub(super) fn takes_long(text: usize, pattern: &[u8]) -> bool {
    // A search without an anchor begins at every byte of the text.
    let mut power = i32::from(pattern.first() != Some(&b'^'));
    let (mut bytes, mut in_class) = (pattern.iter(), false);
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => power += i32::from(bytes.next() == Some(&b'b')),
            b'[' => in_class = true,
            b']' => in_class = false,
            b'*' | b'+' | b'-' if !in_class => power += 1,
            _ => {}
        }
    }
    #[allow(clippy::cast_precision_loss)] // A bound.
    let text = text.max(2) as f64;
    power > 1 && text.powi(power) > MOST_TRIES
}

/// Puts a look at the pattern in front of the functions that search with one.
fn searches_bounded(lua: &Lua, string: &Table) -> mlua::Result<()> {
    for name in ["find", "match", "gmatch", "gsub"] {
        let inner: mlua::Function = string.get(name)?;
        let look = lua.create_function(move |_, arguments: MultiValue| {
            let bytes = |index: usize| match arguments.get(index) {
                Some(Value::String(text)) => text.as_bytes().to_vec(),
                _ => Vec::new(),
            };
            if takes_long(bytes(0).len(), &bytes(1)) {
                return Err(Error::runtime(format!(
                    "a search that may take so long {NOT_RUN}"
                )));
            }
            inner.call::<MultiValue>(arguments)
        })?;
        string.set(name, look)?;
    }
    Ok(())
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
