//! x-forwarded-proto, `:scheme` and x-forwarded-port: rules of trust.

use std::rc::Rc;

use super::super::cases::{self, Case, Outcome};
use super::super::lua::{Asked, Condition, Is, Subject, Test};
use super::matches::{self, Match};
use super::signals::{from_default, said, signals};
use super::told::{Told, ToldCases, by_route, positive, simplified};
use super::{FORWARDED_PORT, FORWARDED_PROTO, SCHEME, Translator, object, refusals, text};
use crate::config::Node;

/// What becomes of the scheme.
#[derive(Default)]
pub(super) struct SchemeOut {
    pub(super) rules: Vec<Node>,
    pub(super) routes: Vec<Node>,
    pub(super) rewrite_scheme: Option<&'static str>,
    pub(super) forwarded_port: bool,
}

impl Translator<'_> {
    pub(super) fn scheme(&mut self) -> SchemeOut {
        let proto = self.told(FORWARDED_PROTO);
        let scheme = self.told(SCHEME);
        let mut out = SchemeOut::default();
        let says = |cases: &ToldCases| {
            cases
                .iter()
                .any(|case| case.outcome != Told::Connection && case.outcome != Told::Junk)
        };
        self.unchanged(FORWARDED_PROTO, &proto);
        self.unchanged(SCHEME, &scheme);
        if !says(&proto) {
            if says(&scheme) {
                self.remark_writes(
                    SCHEME,
                    "trusted-lb writes :scheme only together with x-forwarded-proto, which this script doesn't set",
                );
            }
            if self.meaning.headers.contains_key(FORWARDED_PORT) {
                self.remark_writes(
                    FORWARDED_PORT,
                    "trusted-lb writes x-forwarded-port only together with x-forwarded-proto, which this script doesn't set",
                );
            }
            return out;
        }
        let (by_route, proto) = by_route(proto);
        out.rules = self.rules(&proto);
        if !by_route.is_empty() {
            if out.rules.is_empty() {
                let rule = self.rule(Match::default(), from_default(&[], Told::Connection));
                out.rules.push(rule);
            }
            for case in by_route {
                out.routes.extend(self.scheme_of_route(&case));
            }
        }
        if out.rules.is_empty() {
            return out;
        }
        if self.wishes.ip_blocks.is_empty() {
            self.notes.push(
                "the Lua filter believed everybody, trusted-lb has to know whom: @private stands in ipBlocks until you put the \
                 load balancer's own subnets there (--ip-block)"
                    .to_owned(),
            );
        }
        self.scheme_beside(&proto, &scheme, &mut out);
        self.port_beside(&proto, &mut out);
        out
    }

    /// Names what a script writes where Envoy has written the same.
    fn unchanged(&mut self, header: &'static str, cases: &ToldCases) {
        let nothing = simplified(cases.clone(), Told::Connection).is_empty();
        if nothing && !self.named.iter().any(|named| named == header) {
            self.remark_writes(
                header,
                "this changes nothing, or only what Envoy refuses: x-forwarded-proto and :scheme hold the connection's own \
                 scheme here already",
            );
        }
    }

    /// The cases of a header that holds a scheme.
    fn told(&mut self, header: &'static str) -> ToldCases {
        let allowed = |test: &Test| {
            if of_connection(test) {
                return None;
            }
            match (&test.subject, &test.is) {
                (Subject::Header(name), Is::Exact(_) | Is::Folded(_)) if !name.starts_with(':') => {
                    None
                }
                (Subject::Header(name), Is::Contains(part)) if said(name, part).is_some() => None,
                _ => matches::unsupported(test, true),
            }
        };
        let cases = self.cases(header, &allowed);
        let mut expanded: Vec<Case<Told>> = Vec::new();
        for case in cases {
            let told = |outcome, condition: Condition| Case {
                condition: case.condition.clone().and(condition),
                outcome,
            };
            match &case.outcome {
                Outcome::Kept => expanded.push(told(Told::Connection, Condition::Always)),
                Outcome::Text(value) if value.eq_ignore_ascii_case("https") => {
                    expanded.push(told(Told::Https, Condition::Always));
                }
                Outcome::Text(value) if value.eq_ignore_ascii_case("http") => {
                    expanded.push(told(Told::Http, Condition::Always));
                }
                Outcome::Text(value) => {
                    self.remark_writes(header, &format!("{value:?} is neither http nor https"));
                    expanded.push(told(Told::Connection, Condition::Always));
                }
                Outcome::Removed => {
                    self.remark_writes(
                        header,
                        "the header is never removed: without it Envoy finds no route; trusted-lb writes the connection's own \
                         scheme instead",
                    );
                    expanded.push(told(Told::Connection, Condition::Always));
                }
                Outcome::Copied(asked) if copies_connection(asked) => {
                    expanded.push(told(Told::Connection, Condition::Always));
                }
                Outcome::Copied(asked) => {
                    for (value, outcome) in [("https", Told::Https), ("http", Told::Http)] {
                        expanded.push(told(outcome, asked.equals(value, asked.span.clone())));
                    }
                    // Joined with what else is asked, `v` and `https` behind it may have become one value.
                    expanded.push(told(Told::Junk, Condition::Always));
                }
                Outcome::Unclear(why) => {
                    self.remark_writes(
                        header,
                        &format!("the value isn't known before a request comes: {why}"),
                    );
                    expanded.push(told(Told::Connection, Condition::Always));
                }
            }
        }
        // Parts of values that weren't joined to whole ones.
        let expanded = self.understood(header, expanded, &allowed);
        self.without_connection(header, expanded)
    }

    /// Questions about what Envoy itself wrote into x-forwarded-proto and :scheme, answered.
    fn without_connection(&mut self, header: &str, cases: ToldCases) -> ToldCases {
        let mut asks: Option<Rc<Test>> = None;
        for case in &cases {
            case.condition.tests(&mut |test| {
                if of_connection(test) && asks.is_none() {
                    asks = Some(Rc::clone(test));
                }
            });
        }
        let Some(asks) = asks else { return cases };
        let world = |scheme: &str, own: Told| {
            let answered = cases
                .iter()
                .map(|case| Case {
                    condition: case.condition.with(&|test| {
                        of_connection(test).then(|| match &test.is {
                            Is::Present => true,
                            Is::Exact(value) | Is::Folded(value) => **value == *scheme,
                            Is::Prefix(value) => scheme.starts_with(&**value),
                            Is::Suffix(value) => scheme.ends_with(&**value),
                            Is::Contains(value) => scheme.contains(&**value),
                            _ => false,
                        })
                    }),
                    outcome: case.outcome,
                })
                .collect();
            let answered: ToldCases = cases::first_matches(answered);
            let settled: ToldCases = answered
                .iter()
                .map(|case| Case {
                    condition: case.condition.clone(),
                    outcome: if case.outcome == Told::Connection {
                        own
                    } else {
                        case.outcome
                    },
                })
                .collect();
            (answered, simplified(settled, own))
        };
        let (over_http, settled_http) = world("http", Told::Http);
        let (over_https, settled_https) = world("https", Told::Https);
        let same = |a: &ToldCases, b: &ToldCases| {
            a.len() == b.len()
                && a.iter()
                    .zip(b)
                    .all(|(a, b)| a.condition == b.condition && a.outcome == b.outcome)
        };
        let rest = |cases: &ToldCases, own: Told| {
            let mut cases = cases.clone();
            if cases
                .last()
                .is_none_or(|last| last.condition != Condition::Always)
            {
                cases.push(Case {
                    condition: Condition::Always,
                    outcome: own,
                });
            }
            cases
        };
        if same(
            &rest(&settled_http, Told::Http),
            &rest(&settled_https, Told::Https),
        ) {
            return rest(&settled_http, Told::Http);
        }
        if same(&over_http, &over_https) {
            return over_http;
        }
        // A load balancer that ends TLS speaks plain HTTP to the gateway: that is the world which counts, if TLS stays.
        if settled_https.iter().all(|case| case.outcome == Told::Https) {
            return over_http;
        }
        self.remark(
            &cases::place(&asks),
            format!("what {header} becomes depends on what the connection is in a way that trusted-lb has no word for"),
        );
        Vec::new()
    }

    fn scheme_of_route(&mut self, case: &Case<Told>) -> Vec<Node> {
        let mut routes = Vec::new();
        let Ok(all) = cases::alternatives(&case.condition, &matches::listed) else {
            return routes;
        };
        for alternative in all {
            let mut one = Match::default();
            if let Some(why) = alternative.iter().find_map(|list| one.require(list).err()) {
                self.notes.push(format!(
                    "an override for x-forwarded-proto can't be written: {why}"
                ));
                continue;
            }
            self.differences(&mut one, &[FORWARDED_PROTO, SCHEME, FORWARDED_PORT]);
            let name = self.name(&one.hint().unwrap_or_else(|| "override".to_owned()));
            routes.push(object(vec![
                ("name", text(&name)),
                ("match", object(one.fields())),
                ("forwardedProto", from_default(&[], case.outcome)),
            ]));
        }
        routes
    }

    /// Rules for all cases.
    fn rules(&mut self, cases: &ToldCases) -> Vec<Node> {
        let cases = simplified(cases.clone(), Told::Connection);
        if cases.is_empty() {
            return Vec::new();
        }
        if let Some((signals, default)) = signals(&cases) {
            let rule = self.rule(Match::default(), from_default(&signals, default));
            let tried = object(vec![(
                "trustedLoadBalancers",
                Node::List(vec![rule.clone()]),
            )]);
            if refusals(&tried).is_empty() {
                if !signals.is_empty() {
                    let names: Vec<&str> = signals.iter().map(|signal| &*signal.header).collect();
                    self.notes.push(format!(
                        "the load balancer has to overwrite {} in every request; values that aren't listed, and several of them, \
                         count as `default`",
                        names.join(" and ")
                    ));
                    if names.contains(&"forwarded") {
                        self.notes.push(
                            "of Forwarded the right-most element counts, which the load balancer wrote; the script looked at all of them"
                                .to_owned(),
                        );
                    }
                }
                return vec![rule];
            }
            self.names.pop();
        }
        let cases = positive(cases);
        let mut rules = Vec::new();
        for case in &cases {
            let Ok(all) = cases::alternatives(&case.condition, &matches::listed) else {
                self.remark_writes(
                    FORWARDED_PROTO,
                    "this depends on a condition that is too large for rules",
                );
                return Vec::new();
            };
            for alternative in all {
                let mut one = Match::default();
                if let Some(why) = alternative.iter().find_map(|list| one.require(list).err()) {
                    self.notes.push(format!("a rule can't be written: {why}"));
                    continue;
                }
                self.differences(&mut one, &[FORWARDED_PROTO, SCHEME, FORWARDED_PORT]);
                rules.push(self.rule(one, from_default(&[], case.outcome)));
            }
        }
        rules
    }

    fn rule(&mut self, mut one: Match, forwarded_proto: Node) -> Node {
        let hint = one.hint();
        if one.ip_blocks.is_none() {
            one.ip_blocks = Some(if self.wishes.ip_blocks.is_empty() {
                vec!["@private".to_owned()]
            } else {
                self.wishes.ip_blocks.clone()
            });
        } else if !self.wishes.ip_blocks.is_empty() {
            self.notes.push(
                "the script names addresses itself: they stand in ipBlocks, in place of those of --ip-block".to_owned(),
            );
        }
        let mut fields = one.fields();
        // A rule knows hosts, not Envoy's virtual hosts, which Istio names HOST:PORT.
        for (name, list) in &mut fields {
            if *name == "virtualHosts" {
                *name = "hosts";
                if let Node::List(names) = list {
                    for name in names {
                        if let Node::Text(text) = name {
                            *text = text.split(':').next().unwrap_or_default().to_owned();
                        }
                    }
                }
            }
        }
        let name = match hint {
            Some(hint) => self.name(&format!(
                "load-balancer-{}",
                hint.split(':').next().unwrap_or_default()
            )),
            None => self.name("load-balancer"),
        };
        object(vec![
            ("name", text(&name)),
            ("match", object(fields)),
            ("forwardedProto", forwarded_proto),
        ])
    }

    /// What :scheme becomes beside x-forwarded-proto.
    fn scheme_beside(&mut self, proto: &ToldCases, scheme: &ToldCases, out: &mut SchemeOut) {
        let scheme = simplified(scheme.clone(), Told::Connection);
        if scheme.is_empty() {
            return;
        }
        let proto = simplified(proto.clone(), Told::Connection);
        let same = scheme.len() == proto.len()
            && scheme
                .iter()
                .zip(&proto)
                .all(|(a, b)| a.condition == b.condition && a.outcome == b.outcome);
        if same {
            out.rewrite_scheme = Some("always");
            return;
        }
        if scheme
            .iter()
            .all(|case| matches!(case.outcome, Told::Http | Told::Connection))
        {
            out.rewrite_scheme = Some("never");
            self.remark_writes(
                SCHEME,
                "translated as rewriteScheme: never, which leaves :scheme as the connection has it (http behind a load \
                 balancer that ends TLS)",
            );
            return;
        }
        self.remark_writes(
            SCHEME,
            ":scheme follows x-forwarded-proto here (rewriteScheme); other values of its own can't be said",
        );
    }

    /// What x-forwarded-port becomes beside x-forwarded-proto.
    fn port_beside(&mut self, proto: &ToldCases, out: &mut SchemeOut) {
        if !self.meaning.headers.contains_key(FORWARDED_PORT) {
            return;
        }
        let cases = self.cases(FORWARDED_PORT, &|test| {
            if of_connection(test) {
                return None;
            }
            matches::unsupported(test, true)
        });
        let mut fits = true;
        let mut some = false;
        for case in &cases {
            let wanted = match &case.outcome {
                Outcome::Text(port) if &**port == "443" => Told::Https,
                Outcome::Text(port) if &**port == "80" => Told::Http,
                Outcome::Kept => continue,
                Outcome::Text(port) => {
                    self.remark_writes(
                        FORWARDED_PORT,
                        &format!(
                            "forwardedPort writes 443 for https and 80 for http, never {port}"
                        ),
                    );
                    return;
                }
                _ => {
                    self.remark_writes(
                        FORWARDED_PORT,
                        "the port isn't known before a request comes; forwardedPort: true writes 443 for https and 80 for http",
                    );
                    return;
                }
            };
            some = true;
            // The scheme of the requests that this case is about.
            fits &= proto
                .iter()
                .filter(|told| {
                    told.condition == case.condition || case.condition == Condition::Always
                })
                .filter(|told| !matches!(told.outcome, Told::Connection | Told::Junk))
                .all(|told| told.outcome == wanted);
        }
        if some && fits {
            out.forwarded_port = true;
        } else if some {
            self.remark_writes(
                FORWARDED_PORT,
                "the port contradicts the scheme that the script writes: forwardedPort would write 443 for https and 80 for http, \
                 so it is left out",
            );
        }
    }
}

/// Whether a test asks about what Envoy itself wrote.
fn of_connection(test: &Test) -> bool {
    matches!(&test.subject, Subject::Header(name) if matches!(&**name, SCHEME | FORWARDED_PROTO))
}

fn copies_connection(asked: &Asked) -> bool {
    matches!(&asked.subject, Subject::Header(name) if matches!(&**name, SCHEME | FORWARDED_PROTO))
        && asked.skipped == 0
        && asked.taken.is_none()
}
