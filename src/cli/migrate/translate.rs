//! From what scripts do to a configuration that does it for the load balancer alone.

mod matches;
mod merge;
mod policy;
mod scheme;
mod signals;
mod told;

use std::rc::Rc;

use super::cases::{self, Case, Outcome};
use super::lua::{Meaning, Remark, Span, Test};
use crate::config::{self, Node};
pub(super) use merge::{combined, instead};

/// What a translation is made with.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    /// The load balancer's addresses.
    pub(super) ip_blocks: Vec<String>,
    pub(super) shadow: bool,
    /// Where the peer's address is read, if the connection manager asks for something.
    pub(super) peer_address: Option<String>,
}

/// A configuration that stands for scripts, and what it doesn't say.
pub(super) struct Translation {
    /// Nothing where nothing could be translated.
    pub(super) configuration: Option<Node>,
    pub(super) remarks: Vec<Remark>,
    /// What concerns no single place.
    pub(super) notes: Vec<String>,
    /// Headers of which the remarks say that something isn't translated.
    pub(super) named: Vec<String>,
}

/// A translation in the making.
pub(super) struct Translator<'m> {
    meaning: &'m Meaning,
    wishes: &'m Wishes,
    remarks: Vec<Remark>,
    notes: Vec<String>,
    /// Names that rules and overrides have.
    names: Vec<String>,
    /// Headers of which something isn't translated.
    named: Vec<String>,
}

/// Headers whose values a configuration can say.
const SCHEME: &str = ":scheme";
const FORWARDED_PROTO: &str = "x-forwarded-proto";
const FORWARDED_PORT: &str = "x-forwarded-port";

/// Translates what scripts do.
pub(super) fn translate(meaning: &Meaning, wishes: &Wishes) -> Translation {
    let mut translator = Translator {
        meaning,
        wishes,
        remarks: meaning.remarks.clone(),
        notes: Vec::new(),
        names: Vec::new(),
        named: Vec::new(),
    };
    let configuration = translator.run();
    for (condition, span) in &meaning.answers {
        let _ = condition;
        translator.remark(
            span,
            "the script answers by itself here, trusted-lb doesn't: for a redirect to https use httpsRedirect of the Istio \
             Gateway or require_tls of the virtual host, which go by the corrected x-forwarded-proto",
        );
    }
    let mut remarks = std::mem::take(&mut translator.remarks);
    remarks.sort_by_key(|remark| (remark.span.start, remark.span.end));
    remarks.dedup();
    Translation {
        configuration,
        remarks,
        notes: translator.notes,
        named: translator.named,
    }
}

/// An object out of its fields.
pub(super) fn object(fields: Vec<(&str, Node)>) -> Node {
    Node::Object(
        fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

pub(super) fn text(text: &str) -> Node {
    Node::Text(text.to_owned())
}

pub(super) fn texts<'t>(list: impl IntoIterator<Item = &'t str>) -> Node {
    Node::List(list.into_iter().map(text).collect())
}

/// What a loader says against a configuration.
pub(super) fn refusals(configuration: &Node) -> Vec<String> {
    config::load_document(configuration)
        .errors()
        .map(|problem| problem.message.clone())
        .collect()
}

impl Translator<'_> {
    fn remark(&mut self, span: &Span, why: impl Into<String>) {
        self.remarks.push(Remark {
            span: span.clone(),
            why: why.into(),
            is_end: false,
        });
    }

    /// A remark on every call that changes a header.
    fn remark_writes(&mut self, header: &str, why: &str) {
        self.named.push(header.to_owned());
        let spans: Vec<Span> = self
            .meaning
            .writes
            .iter()
            .filter(|write| &*write.header == header)
            .map(|write| write.span.clone())
            .collect();
        for span in spans {
            self.remark(&span, why);
        }
    }

    /// What a match doesn't say exactly as the script does.
    fn differences(&mut self, one: &mut matches::Match, headers: &[&str]) {
        if !one.differences.is_empty() {
            self.named
                .extend(headers.iter().map(|header| (*header).to_owned()));
            self.notes.append(&mut one.differences);
        }
    }

    /// A name that nothing else has.
    fn name(&mut self, wanted: &str) -> String {
        let mut name: String = wanted
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
                    c
                } else {
                    '-'
                }
            })
            .take(60)
            .collect();
        while name.contains("--") {
            name = name.replace("--", "-");
        }
        let name = name
            .trim_matches(|c: char| !c.is_ascii_alphanumeric())
            .to_owned();
        let mut number = 1;
        let mut whole = name.clone();
        while self.names.contains(&whole) {
            number += 1;
            whole = format!("{name}-{number}");
        }
        self.names.push(whole.clone());
        whole
    }

    /// The cases of a header whose conditions are understood; the others are named.
    fn cases(
        &mut self,
        header: &str,
        allowed: &dyn Fn(&Test) -> Option<String>,
    ) -> Vec<Case<Outcome>> {
        let Some(value) = self.meaning.headers.get(header) else {
            return Vec::new();
        };
        let Ok(all) = cases::of(header, value) else {
            self.remark_writes(
                header,
                "this depends on too many conditions to be a configuration",
            );
            return Vec::new();
        };
        self.understood(header, all, allowed)
    }

    fn understood<T>(
        &mut self,
        header: &str,
        all: Vec<Case<T>>,
        allowed: &dyn Fn(&Test) -> Option<String>,
    ) -> Vec<Case<T>> {
        let mut refused: Vec<Rc<Test>> = Vec::new();
        let all = all
            .into_iter()
            .map(|case| Case {
                condition: cases::understood(&case.condition, false, &mut refused, &|test| {
                    allowed(test).is_none()
                }),
                outcome: case.outcome,
            })
            .collect();
        for test in refused {
            self.named.push(header.to_owned());
            let why = allowed(&test).unwrap_or_default();
            let remark = Remark {
                span: cases::place(&test),
                why: format!("{why}: it is translated as if this were never true"),
                is_end: false,
            };
            if !self.remarks.contains(&remark) {
                self.remarks.push(remark);
            }
        }
        cases::first_matches(all)
    }

    fn run(&mut self) -> Option<Node> {
        self.other_headers();
        let policy = self.policy();
        let scheme = self.scheme();
        let mut fields: Vec<(&str, Node)> = Vec::new();
        if self.wishes.shadow {
            fields.push(("mode", text("shadow")));
        }
        if let Some(peer) = &self.wishes.peer_address
            && !scheme.rules.is_empty()
        {
            fields.push(("peerAddress", text(peer)));
        }
        let mut something = false;
        if !scheme.rules.is_empty() {
            something = true;
            fields.push(("trustedLoadBalancers", Node::List(scheme.rules)));
            if let Some(rewrite) = scheme.rewrite_scheme {
                fields.push(("rewriteScheme", text(rewrite)));
            }
            if scheme.forwarded_port {
                fields.push(("forwardedPort", Node::Bool(true)));
            }
        }
        if let Some(defaults) = policy.defaults {
            something = true;
            fields.push(("defaults", defaults));
        }
        let mut routes = policy.routes;
        for route in scheme.routes {
            with_scheme(&mut routes, route);
        }
        if !routes.is_empty() {
            something = true;
            fields.push(("routes", Node::List(routes)));
        }
        if !something {
            return None;
        }
        let configuration = object(fields);
        let refusals = refusals(&configuration);
        if refusals.is_empty() {
            return Some(configuration);
        }
        for refusal in refusals {
            self.notes.push(format!(
                "trusted-lb would refuse the translation: {refusal}"
            ));
        }
        None
    }

    /// Headers that trusted-lb doesn't write.
    fn other_headers(&mut self) {
        let writes = self.meaning.writes.clone();
        for write in writes {
            let header = &*write.header;
            if matches!(header, SCHEME | FORWARDED_PROTO | FORWARDED_PORT)
                || policy::HEADERS.contains(&header)
            {
                continue;
            }
            let why = if write.method == "remove" {
                if header.starts_with(':') {
                    "a pseudo-header can't be removed".to_owned()
                } else {
                    format!(
                        "trusted-lb removes headers of untrusted peers only: if nobody but the load balancer may send \
                         {header}, list it under untrusted.removeHeaders"
                    )
                }
            } else if header.starts_with(':') {
                format!(
                    "trusted-lb doesn't change {header}; the route of the gateway can rewrite it"
                )
            } else if header == "x-forwarded-for" {
                "trusted-lb doesn't change x-forwarded-for: Envoy writes it, and addresses are read from it".to_owned()
            } else {
                format!(
                    "trusted-lb doesn't write {header}; keep it as a native header mutation (headers.request.set of a \
                     VirtualService, request_headers_to_add of Envoy)"
                )
            };
            self.remark(&write.span, why);
        }
    }
}

/// Adds an override for the scheme: to one for the same requests, of which the first would win, or as another one.
fn with_scheme(routes: &mut Vec<Node>, route: Node) {
    let same = routes
        .iter_mut()
        .find(|known| known.get("match") == route.get("match"));
    match (same, route.get("forwardedProto")) {
        (Some(Node::Object(fields)), Some(proto)) => {
            fields.push(("forwardedProto".to_owned(), proto.clone()));
        }
        _ => routes.push(route),
    }
}
