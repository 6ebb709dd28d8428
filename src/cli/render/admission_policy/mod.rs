//! A `ValidatingAdmissionPolicy`: the API server refuses a WasmPlugin or a TrafficExtension of ours that the gateway would
//! refuse, as far as CEL can tell. It is made from the declaration of the language, as the schema is.

mod patterns;
mod place;
mod print;
mod words;

use crate::cli::args::AdmissionArgs;
use crate::cli::reference;
use crate::config::declare::{Described, Kind, Name, Object, Rule};
use patterns::{re2, without_lookahead};
use place::{Place, ROOT};
use words::is_none_of;

/// Prints the policy and its binding.
pub(super) fn admission_policy(args: &AdmissionArgs) -> String {
    let mut policy = Policy::default();
    policy.require("variables.given", "pluginConfig is missing");
    if let Some(root) = reference::objects().first() {
        policy.object(root, &Place::root());
    }
    policy.across();
    policy.print(args)
}

/// A regular expression or a list is a variable of the policy from this length on, so that it stands there once.
const LONG: usize = 60;

/// How many names are compared with each other. More would cost what the API server doesn't spend.
const MOST_COMPARED: usize = 200;

#[derive(Default)]
struct Policy {
    validations: Vec<Validation>,
    /// What stands in variables: long regular expressions and lists.
    constants: Vec<String>,
    names: usize,
}

struct Validation {
    expression: String,
    /// Where the other one fails.
    message: String,
    /// Names the value.
    message_expression: Option<String>,
}

impl Policy {
    fn require(&mut self, expression: &str, message: &str) {
        self.validations.push(Validation {
            expression: expression.to_owned(),
            message: message.to_owned(),
            message_expression: None,
        });
    }

    /// Wants this of every value at a place. `what` follows the value in the message.
    fn check(&mut self, place: &Place, body: &str, what: &str) {
        self.validations.push(Validation {
            expression: place.holds(body),
            message: format!("{}: a value {what}", place.path),
            message_expression: Some(format!(
                "{} + string({}) + {}",
                text(&format!("{}: ", place.path)),
                place.offender(body),
                text(&format!(" {what}"))
            )),
        });
    }

    fn object(&mut self, object: &Object, place: &Place) {
        let value = &place.value;
        let inside = if value == ROOT {
            // By Istio's own schema.
            place.clone()
        } else {
            let is_object = format!("type({value}) == map");
            self.check(place, &is_object, "is no object with fields");
            place.only_if(is_object)
        };
        let fields = fields(object);
        let known = self.list(fields.iter().map(|field| field.name));
        let prefix = if place.path.is_empty() {
            String::new()
        } else {
            format!("{}: ", place.path)
        };
        let only_known = format!("{value}.all(k, k in {known})");
        self.validations.push(Validation {
            expression: inside.holds(&only_known),
            message: format!("{prefix}there is no such field"),
            message_expression: Some(format!(
                "{} + {}.filter(k, !(k in {known}))[0]",
                text(&format!("{prefix}there is no field ")),
                inside.offender(&only_known)
            )),
        });
        for field in fields.iter().filter(|field| field.required) {
            let expression = inside.holds(&format!("has({value}.{})", field.name));
            self.require(&expression, &format!("{prefix}{} is missing", field.name));
        }
        if let Some((holds, message)) = rule(object, value) {
            self.require(&inside.holds(&holds), &format!("{prefix}{message}"));
        }
        for field in fields {
            self.kind(field.kind, &place.field(field.name));
        }
    }

    fn kind(&mut self, kind: &Kind, place: &Place) {
        let value = place.value.clone();
        match kind {
            Kind::Object(object) => self.object(object, place),
            Kind::List(item) | Kind::Distinct(item) | Kind::Set(item) => {
                self.check(place, &format!("type({value}) == list"), "is no list");
                if matches!(kind, Kind::Set(_)) {
                    let filled = format!("(type({value}) != list || size({value}) > 0)");
                    self.require(
                        &place.holds(&filled),
                        &format!("{}: an empty list", place.path),
                    );
                }
                let name = self.name();
                self.kind(item, &place.items(name));
            }
            Kind::Either(kinds) => {
                let objects: Vec<&Object> = kinds
                    .iter()
                    .filter_map(|kind| match kind {
                        Kind::Object(object) => Some(*object),
                        _ => None,
                    })
                    .collect();
                if let [object] = objects.as_slice() {
                    // With messages for its fields.
                    let others: Vec<String> = kinds
                        .iter()
                        .filter(|kind| !matches!(kind, Kind::Object(_)))
                        .map(|kind| self.valid(kind, &value))
                        .collect();
                    let body = format!("(type({value}) == map || {})", others.join(" || "));
                    self.check(place, &body, &is_none_of(kind));
                    self.object(object, &place.only_if(format!("type({value}) == map")));
                } else {
                    let body = self.valid(kind, &value);
                    self.check(place, &body, &is_none_of(kind));
                }
            }
            Kind::Boolean | Kind::Whole(..) | Kind::Text { .. } | Kind::Words(_) => {
                let body = self.valid(kind, &value);
                self.check(place, &body, &is_none_of(kind));
            }
        }
    }

    /// That a value is of a kind, with all that is in it.
    fn valid(&mut self, kind: &Kind, value: &str) -> String {
        match kind {
            Kind::Boolean => format!("type({value}) == bool"),
            Kind::Whole(least, most) => {
                format!("(type({value}) == int && {value} >= {least} && {value} <= {most})")
            }
            Kind::Words(words) => {
                let words = self.list(words.iter().copied());
                format!("{value} in {words}")
            }
            Kind::Text { pattern, .. } => {
                let pattern = pattern();
                let matches = self.matches(value, &pattern);
                // What CEL knows by itself costs it less than the pattern, which takes other spellings too.
                let matches = if pattern == block_pattern() {
                    format!(
                        "(isCIDR({value}) ? cidr({value}).masked() == cidr({value}) : isIP({value}) || {matches})"
                    )
                } else {
                    matches
                };
                format!("(type({value}) == string && {matches})")
            }
            Kind::List(item) | Kind::Distinct(item) | Kind::Set(item) => {
                let name = self.name();
                let each = self.valid(item, &name);
                let filled = if matches!(kind, Kind::Set(_)) {
                    format!(" && size({value}) > 0")
                } else {
                    String::new()
                };
                format!("(type({value}) == list{filled} && {value}.all({name}, {each}))")
            }
            Kind::Either(kinds) => {
                let each: Vec<String> = kinds.iter().map(|kind| self.valid(kind, value)).collect();
                format!("({})", each.join(" || "))
            }
            Kind::Object(object) => {
                let fields = fields(object);
                let known = self.list(fields.iter().map(|field| field.name));
                let mut all = vec![
                    format!("type({value}) == map"),
                    format!("{value}.all(k, k in {known})"),
                ];
                all.extend(rule(object, value).map(|(holds, _)| holds));
                for field in fields {
                    let name = field.name;
                    let valid = self.valid(field.kind, &format!("{value}.{name}"));
                    all.push(if field.required {
                        format!("has({value}.{name}) && {valid}")
                    } else {
                        format!("(!has({value}.{name}) || {valid})")
                    });
                }
                format!("({})", all.join(" && "))
            }
        }
    }

    /// That a text matches a pattern, by regular expressions of RE2's kind.
    fn matches(&mut self, value: &str, pattern: &str) -> String {
        let (whole, conditions) = without_lookahead(pattern);
        let mut all = vec![format!("{value}.matches({})", self.pattern(&whole))];
        for (wanted, pattern) in conditions {
            let not = if wanted { "" } else { "!" };
            all.push(format!("{not}{value}.matches({})", self.pattern(&pattern)));
        }
        if all.len() == 1 {
            all.remove(0)
        } else {
            format!("({})", all.join(" && "))
        }
    }

    fn pattern(&mut self, pattern: &str) -> String {
        self.constant(text(&re2(pattern)))
    }

    fn list(&mut self, words: impl IntoIterator<Item = &'static str>) -> String {
        self.constant(list(words))
    }

    fn constant(&mut self, expression: String) -> String {
        if expression.len() < LONG {
            return expression;
        }
        let known = self.constants.iter().position(|one| *one == expression);
        let index = known.unwrap_or_else(|| {
            self.constants.push(expression);
            self.constants.len() - 1
        });
        format!("variables.k{index}")
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("v{}", self.names)
    }

    /// What holds between fields.
    fn across(&mut self) {
        let by_header = "(has(variables.c.peerAddress) && type(variables.c.peerAddress) == string && \
                         variables.c.peerAddress.startsWith('header:'))";
        self.require(
            &format!("!{by_header} || has(variables.c.helperToken)"),
            "peerAddress: header:NAME needs helperToken",
        );
        self.require(
            &format!("!has(variables.c.helperToken) || {by_header}"),
            "helperToken is for peerAddress: header:NAME",
        );
        self.require(
            "(!(has(variables.c.trustedLoadBalancers) && type(variables.c.trustedLoadBalancers) == list) || \
             variables.c.trustedLoadBalancers.all(r, type(r) != map || !has(r.match) || type(r.match) != map || \
             (has(r.insecureTrustAnyone) && r.insecureTrustAnyone == true) || has(r.match.ipBlocks) || \
             has(r.match.clientCertificate) || (has(r.match.headers) && type(r.match.headers) == list && \
             r.match.headers.exists(h, type(h) == map && !has(h.present)))))",
            "trustedLoadBalancers[].match: there has to be a condition that an arbitrary client doesn't fulfil: ipBlocks, a header \
             with a value, or clientCertificate",
        );
        for names in ["trustedLoadBalancers", "routes"] {
            let all = format!("variables.c.{names}");
            self.require(
                &format!(
                    "(!(has({all}) && type({all}) == list) || size({all}) > {MOST_COMPARED} || {all}.all(a, type(a) != map || \
                     !has(a.name) || {all}.filter(b, type(b) == map && has(b.name) && b.name == a.name).size() == 1))"
                ),
                &format!("{names}: two have the same name"),
            );
        }
    }
}

struct Field<'o> {
    name: &'static str,
    kind: &'o Kind,
    required: bool,
}

/// The fields of an object, shared ones among them.
fn fields(object: &Object) -> Vec<Field<'_>> {
    let mut all = Vec::new();
    for field in object.fields {
        match field {
            Described::Shared(object) => all.extend(fields(object)),
            Described::Field {
                name,
                kind,
                default,
                ..
            } => all.push(Field {
                name,
                kind,
                required: default.is_none(),
            }),
        }
    }
    all
}

/// How the fields of an object go together, in CEL and in words.
fn rule(object: &Object, value: &str) -> Option<(String, String)> {
    match &object.rule {
        Rule::Any => None,
        Rule::AtLeastOne { message, .. } => {
            Some((format!("size({value}) > 0"), (*message).to_owned()))
        }
        Rule::AtLeastOneOf { names, message, .. } => {
            let mut all = Vec::new();
            Name::list(names, &mut all);
            let holds = format!("{}.exists(k, k in {value})", list(all));
            Some((holds, (*message).to_owned()))
        }
        Rule::ExactlyOneOf(names) => Some((
            format!(
                "{}.filter(k, k in {value}).size() == 1",
                list(names.iter().copied())
            ),
            format!("there has to be exactly one of {}", names.join(", ")),
        )),
    }
}

/// The pattern of `ipBlocks`.
fn block_pattern() -> String {
    use crate::config::declare::Notation as _;
    match crate::config::Block::KIND {
        Kind::Text { pattern, .. } => pattern(),
        _ => String::new(),
    }
}

/// A text in CEL, whose escapes are those of JSON.
fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn list(words: impl IntoIterator<Item = &'static str>) -> String {
    let words: Vec<String> = words.into_iter().map(text).collect();
    format!("[{}]", words.join(", "))
}
