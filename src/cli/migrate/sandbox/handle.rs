//! The request handle that scripts are given, and what it gives.

use std::rc::Rc;

use base64::Engine as _;
use mlua::{AnyUserData, Error, MetaMethod, MultiValue, Table, UserData, UserDataMethods, Value};

use super::headers::some;
use super::{Answer, NOT_RUN, Seen};

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
pub(super) struct Stream {
    pub(super) seen: Rc<Seen>,
    pub(super) dynamic: Table,
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
pub(super) struct Handle {
    /// The same object each time it is asked for.
    pub(super) headers: AnyUserData,
    pub(super) stream: Stream,
    pub(super) answered: Answer,
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
