//! `handle:headers()`, as Envoy's header map behaves.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use mlua::{Error, MetaMethod, MultiValue, UserData, UserDataMethods, Value, Variadic};

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

/// A request's header lines, which the script and its handle share.
pub(super) type Lines = Rc<RefCell<Vec<(String, String)>>>;

/// One result. Where Envoy has no value it gives none, which isn't nil to `tostring`.
fn one(value: String) -> Variadic<String> {
    Variadic::from_iter([value])
}

/// A value, or no result.
pub(super) fn some(value: Value) -> MultiValue {
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
pub(super) struct Headers {
    pub(super) lines: Lines,
    /// `pairs` has begun and hasn't come to its end.
    pub(super) iterating: Rc<Cell<bool>>,
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
