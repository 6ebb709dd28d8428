//! Envoy's Lua interface: what the handle's methods do.

use super::Write;
use super::condition::Condition;
use super::evaluate::Run;
use super::operators;
use super::syntax::Span;
use super::value::{Asked, Envoy, Value};

impl Run<'_> {
    /// Everything that has to be true here.
    fn here(&self) -> Condition {
        self.path
            .iter()
            .fold(Condition::Always, |all, one| all.and(one.clone()))
    }

    #[allow(clippy::too_many_lines)] // One arm a method of Envoy's.
    pub(super) fn envoy(
        &mut self,
        object: Envoy,
        name: &str,
        arguments: &[Value],
        span: &Span,
    ) -> Value {
        let responding = matches!(object, Envoy::Response | Envoy::ResponseHeaders);
        match (object, name) {
            (Envoy::Request, "headers") => Value::Envoy(Envoy::RequestHeaders),
            (Envoy::Response, "headers") => Value::Envoy(Envoy::ResponseHeaders),
            (Envoy::Request | Envoy::Response, "trailers") => Value::Envoy(Envoy::Trailers),
            (Envoy::RequestHeaders, "get") => self.get_header(arguments.first(), span),
            (Envoy::RequestHeaders, "getAtIndex") => match arguments {
                [name, Value::Number(index)] if *index == 0.0 => self.get_header(Some(name), span),
                _ => Value::unknown("one line of a header of several"),
            },
            (Envoy::RequestHeaders, "getNumValues") => match arguments {
                // Of a header that the script has written it depends on what.
                [Value::Text(name), ..]
                    if !self
                        .headers
                        .contains_key(name.to_ascii_lowercase().as_str()) =>
                {
                    Value::Count(Asked::header(name, span.clone()))
                }
                _ => Value::unknown("how many lines a header has"),
            },
            (Envoy::RequestHeaders, "replace") => self.write_header("replace", arguments, span),
            (Envoy::RequestHeaders, "add") => self.write_header("add", arguments, span),
            (Envoy::RequestHeaders, "remove") => self.write_header("remove", arguments, span),
            (Envoy::Trailers, "add" | "replace" | "remove") => {
                self.remark(span, "trailers aren't changed by trusted-lb");
                Value::Nil
            }
            (
                Envoy::Response | Envoy::ResponseHeaders,
                "add" | "replace" | "remove" | "setHttp1ReasonPhrase",
            ) => {
                self.remark(span, "responses aren't changed by trusted-lb");
                Value::Nil
            }
            (Envoy::Request, "respond") => {
                let condition = self.here();
                self.meaning.answers.push((condition, span.clone()));
                self.end(Condition::Always);
                Value::Nil
            }
            (_, "logTrace" | "logDebug" | "logInfo" | "logWarn" | "logErr" | "logCritical") => {
                self.remark(
                    span,
                    "a line in the log; trusted-lb counts and logs what it decides itself",
                );
                Value::Nil
            }
            (Envoy::Request, "streamInfo") => Value::Envoy(Envoy::Other("streamInfo")),
            (
                Envoy::Other("streamInfo"),
                "downstreamDirectRemoteAddress" | "downstreamRemoteAddress",
            ) => Value::Asked(Asked::peer(span.clone())),
            (Envoy::Other("streamInfo"), "dynamicMetadata") => {
                Value::Envoy(Envoy::Other("dynamicMetadata"))
            }
            (Envoy::Other("dynamicMetadata"), "set") => {
                self.remark(span, "dynamic metadata isn't written by trusted-lb");
                Value::Nil
            }
            // Envoy has written the connection's own scheme.
            (Envoy::Other("connection"), "ssl")
            | (Envoy::Other("streamInfo"), "downstreamSslConnection") => {
                let scheme = Asked::header(":scheme", span.clone());
                let tls = scheme.equals("https", span.clone());
                Value::Perhaps(tls, "what TLS the connection has".into())
            }
            (Envoy::Request, "connection") => Value::Envoy(Envoy::Other("connection")),
            (Envoy::Request, "metadata") => Value::Envoy(Envoy::Other("metadata")),
            (Envoy::Request | Envoy::Response, "httpCall") => {
                self.remark(span, "trusted-lb calls no other service");
                Value::unknown("the answer of another service")
            }
            (Envoy::Request | Envoy::Response, "body" | "bodyChunks") => {
                self.remark(span, "trusted-lb reads no bodies");
                Value::unknown("the body")
            }
            (_, "clearRouteCache") => {
                self.remark(
                    span,
                    "not needed: writing x-forwarded-proto clears the route cache",
                );
                Value::Nil
            }
            (Envoy::Request, "setUpstreamOverrideHost") => {
                self.remark(span, "trusted-lb chooses no upstream host");
                Value::Nil
            }
            _ if responding => {
                if !matches!(
                    name,
                    "get"
                        | "getAtIndex"
                        | "getNumValues"
                        | "streamInfo"
                        | "connection"
                        | "metadata"
                ) {
                    self.remark(span, "responses aren't changed by trusted-lb");
                }
                Value::unknown("something of the response")
            }
            (_, method) => {
                if !only_reads(method) {
                    self.remark(
                        span,
                        format!("what {method} of Envoy's Lua interface does isn't translated"),
                    );
                }
                Value::unknown(format!("{method}() of Envoy's Lua interface"))
            }
        }
    }

    fn get_header(&mut self, name: Option<&Value>, span: &Span) -> Value {
        let Some(Value::Text(name)) = name else {
            return Value::unknown("a header whose name isn't known");
        };
        let name = name.to_ascii_lowercase();
        if !self.meaning.read.iter().any(|known| **known == *name) {
            self.meaning.read.push(name.as_str().into());
        }
        match self.headers.get(name.as_str()) {
            Some(slot) => match self.get(*slot) {
                Value::Asked(asked) if asked.span == (0..0) => Value::Asked(Asked {
                    span: span.clone(),
                    ..asked
                }),
                other => other,
            },
            None => Value::Asked(Asked::header(&name, span.clone())),
        }
    }

    fn write_header(&mut self, method: &'static str, arguments: &[Value], span: &Span) -> Value {
        let name = match arguments.first() {
            Some(Value::Text(name)) => name.to_ascii_lowercase(),
            Some(Value::Either(condition, yes, no)) => {
                let (condition, rest) = (condition.clone(), arguments.get(1..).unwrap_or_default());
                let with = |name: &Value| {
                    let mut all = vec![name.clone()];
                    all.extend_from_slice(rest);
                    all
                };
                let (yes, no) = (with(yes), with(no));
                return self.branch(
                    &condition,
                    |run| run.write_header(method, &yes, span),
                    |run| run.write_header(method, &no, span),
                    |_, _, _| Value::Nil,
                );
            }
            _ => {
                self.remark(
                    span,
                    "the name of the header isn't known before a request comes",
                );
                return Value::Nil;
            }
        };
        let slot = self.header_slot(&name);
        self.meaning.writes.push(Write {
            header: name.as_str().into(),
            method,
            span: span.clone(),
        });
        if method == "remove" {
            self.set(slot, Value::Nil);
            return Value::Nil;
        }
        let value = match arguments.get(1) {
            Some(Value::Number(number)) => Value::text(operators::number(*number)),
            Some(value) => value.clone(),
            None => Value::Nil,
        };
        // Envoy's functions want a text: nil is an error, and the script ends.
        let there = match &value {
            Value::Unknown(_) => Condition::Always,
            other => self.open(&other.truth(span)),
        };
        if there != Condition::Always {
            self.remark(
                span,
                "if the value is nil, this is an error in Envoy: the script ends here and the header stays as it was",
            );
        }
        let written = if method == "add" {
            Self::added(&name, self.get(slot), value)
        } else {
            value
        };
        let merged = Value::either(there.clone(), written, self.get(slot));
        self.set(slot, merged);
        self.end(there.not());
        Value::Nil
    }

    /// A header after another line was added to it.
    fn added(name: &str, before: Value, value: Value) -> Value {
        match before {
            Value::Nil => value,
            // Written as a list, `http,https`, of which nothing reads the first.
            Value::Asked(_) if name == "x-forwarded-proto" => value,
            Value::Asked(asked) => {
                Value::either(asked.present(), Value::Asked(asked.clone()), value)
            }
            Value::Either(condition, yes, no) => Value::either(
                condition,
                Self::added(name, (*yes).clone(), value.clone()),
                Self::added(name, (*no).clone(), value),
            ),
            other => other,
        }
    }
}

/// Methods of Envoy's interface that change nothing.
fn only_reads(method: &str) -> bool {
    matches!(
        method,
        "get"
            | "getAtIndex"
            | "getNumValues"
            | "base64Escape"
            | "timestamp"
            | "timestampString"
            | "filterContext"
            | "virtualHost"
            | "route"
            | "metadata"
            | "streamInfo"
            | "connectionStreamInfo"
            | "connection"
            | "ssl"
            | "protocol"
            | "routeName"
            | "virtualHostName"
            | "virtualClusterName"
            | "downstreamSslConnection"
            | "downstreamLocalAddress"
            | "downstreamDirectLocalAddress"
            | "downstreamDirectRemoteAddress"
            | "downstreamRemoteAddress"
            | "requestedServerName"
            | "dynamicMetadata"
            | "dynamicTypedMetadata"
            | "filterState"
            | "importPublicKey"
            | "verifySignature"
    )
}
