//! A `ValidatingAdmissionPolicy`: the API server refuses a WasmPlugin or a TrafficExtension of ours that the gateway would
//! refuse, as far as CEL can tell. It is made from the declaration of the language, as the schema is.

use std::fmt::Write as _;

use crate::cli::args::AdmissionArgs;
use crate::cli::reference;
use crate::cli::yaml;
use crate::config::declare::{Described, Kind, Name, Object, Rule};

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

/// A value of the configuration, or all the values at a place in lists.
#[derive(Clone)]
struct Place {
    /// For messages.
    path: String,
    /// The value in CEL, which begins with the innermost variable of `steps`.
    value: String,
    /// From the configuration to the value.
    steps: Vec<Step>,
}

#[derive(Clone)]
enum Step {
    /// There is something to look at only if this holds.
    If(String),
    /// Every item of a list, under this name.
    All { list: String, item: String },
}

const ROOT: &str = "variables.c";

impl Place {
    fn root() -> Self {
        Self {
            path: String::new(),
            value: ROOT.to_owned(),
            steps: Vec::new(),
        }
    }

    fn only_if(&self, condition: String) -> Self {
        let mut place = self.clone();
        place.steps.push(Step::If(condition));
        place
    }

    fn field(&self, name: &str) -> Self {
        let mut place = if self.value == ROOT {
            self.only_if(format!("has({ROOT}.{name})"))
        } else {
            self.only_if(format!("type({0}) == map && has({0}.{name})", self.value))
        };
        place.value = format!("{}.{name}", self.value);
        if !place.path.is_empty() {
            place.path.push('.');
        }
        place.path.push_str(name);
        place
    }

    fn items(&self, item: String) -> Self {
        let mut place = self.only_if(format!("type({}) == list", self.value));
        place.steps.push(Step::All {
            list: self.value.clone(),
            item: item.clone(),
        });
        place.value = item;
        place.path.push_str("[]");
        place
    }

    /// That this holds wherever there is such a value.
    fn holds(&self, body: &str) -> String {
        within(&self.steps, body)
    }

    /// The first value for which it doesn't hold.
    fn offender(&self, body: &str) -> String {
        let mut found = ROOT.to_owned();
        let mut begins_with = ROOT;
        for (index, step) in self.steps.iter().enumerate() {
            let Step::All { list, item } = step else {
                continue;
            };
            let rest = self.steps.get(index + 1..).unwrap_or_default();
            let list = list.strip_prefix(begins_with).unwrap_or(list);
            found = format!("{found}{list}.filter({item}, !({}))[0]", within(rest, body));
            begins_with = item;
        }
        let last = self.value.strip_prefix(begins_with).unwrap_or(&self.value);
        format!("{found}{last}")
    }
}

fn within(steps: &[Step], body: &str) -> String {
    steps
        .iter()
        .rev()
        .fold(body.to_owned(), |body, step| match step {
            Step::If(condition) => format!("(!({condition}) || {body})"),
            Step::All { list, item } => format!("{list}.all({item}, {body})"),
        })
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

    fn print(&self, args: &AdmissionArgs) -> String {
        let name = yaml::text(&args.name);
        let word = text(&args.plugin);
        let version = env!("CARGO_PKG_VERSION");
        let mut out = format!(
            "# Made by trusted-lb {version}, render admission-policy, from the declaration of its configuration. The API server refuses\n\
             # plugins of ours that the gateway would refuse, as far as it can tell; trusted-lb check tells more. Apply it with\n\
             # kubectl apply --server-side, and render it anew with every version of trusted-lb.\n\
             apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nmetadata:\n  name: {name}\nspec:\n  \
             failurePolicy: Fail\n  matchConstraints:\n    resourceRules:\n    - apiGroups: [extensions.istio.io]\n      \
             apiVersions: [v1alpha1]\n      operations: [CREATE, UPDATE]\n      resources: [wasmplugins, trafficextensions]\n"
        );
        let has_word = |field: &str| {
            let (parent, last) = field.rsplit_once('.').unwrap_or(("", field));
            let parents = if parent == "object.spec.wasm" {
                "has(object.spec.wasm) && "
            } else {
                ""
            };
            format!("({parents}has({parent}.{last}) && {field}.contains({word}))")
        };
        let ours = format!(
            "!has(object.spec.lua) && ({} || {} || {})",
            has_word("object.metadata.name"),
            has_word("object.spec.url"),
            has_word("object.spec.wasm.url")
        );
        let _ = writeln!(
            out,
            "  matchConditions:\n  - name: ours\n    expression: {}\n  variables:",
            yaml::text(&ours)
        );
        let mut variable = |name: &str, expression: &str| {
            let _ = writeln!(
                out,
                "  - name: {name}\n    expression: {}",
                yaml::text(expression)
            );
        };
        variable(
            "plugin",
            "has(object.spec.wasm) ? object.spec.wasm : object.spec",
        );
        variable("given", "has(variables.plugin.pluginConfig)");
        variable("c", "variables.given ? variables.plugin.pluginConfig : {}");
        for (index, constant) in self.constants.iter().enumerate() {
            variable(&format!("k{index}"), constant);
        }
        out.push_str("  validations:\n");
        for validation in &self.validations {
            let _ = writeln!(
                out,
                "  - expression: {}\n    message: {}",
                yaml::text(&validation.expression),
                yaml::text(&validation.message)
            );
            if let Some(expression) = &validation.message_expression {
                let _ = writeln!(out, "    messageExpression: {}", yaml::text(expression));
            }
        }
        let _ = write!(
            out,
            "---\napiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicyBinding\nmetadata:\n  name: {name}\nspec:\n  \
             policyName: {name}\n  # Warn in place of Deny tells who applies it, and lets it pass.\n  validationActions: [Deny]\n"
        );
        out
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

/// What to say of a value that isn't of this kind.
fn is_none_of(kind: &Kind) -> String {
    fn names(kind: &Kind, all: &mut Vec<String>) {
        match kind {
            Kind::Boolean => all.push("true or false".to_owned()),
            Kind::Whole(least, most) => {
                all.push(format!("a whole number from {least} to {most}"));
            }
            Kind::Text { what, .. } => all.push((*what).to_owned()),
            Kind::Words(words) => all.extend(words.iter().map(|word| (*word).to_owned())),
            Kind::Object(object) => all.push(object.title.to_lowercase()),
            Kind::List(item) | Kind::Distinct(item) | Kind::Set(item) => {
                let mut items = Vec::new();
                names(item, &mut items);
                all.push(format!("a list of these: {}", items.join(", ")));
            }
            Kind::Either(kinds) => kinds.iter().for_each(|kind| names(kind, all)),
        }
    }
    let mut all = Vec::new();
    names(kind, &mut all);
    match all.as_slice() {
        [only] => format!("is not: {only}"),
        all => format!("is none of: {}", all.join(", ")),
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

/// A pattern without lookaheads, and what they ask for: whether it has to match, and the pattern.
fn without_lookahead(pattern: &str) -> (String, Vec<(bool, String)>) {
    let mut whole = pattern.to_owned();
    let mut conditions = Vec::new();
    while let Some(start) = whole.find("(?=").into_iter().chain(whole.find("(?!")).min() {
        let wanted = whole
            .get(start..)
            .is_some_and(|rest| rest.starts_with("(?="));
        let Some(end) = end_of_group(&whole, start) else {
            break;
        };
        let before = whole.get(..start).unwrap_or_default().to_owned();
        let inner = whole.get(start + 3..end).unwrap_or_default();
        conditions.push((wanted, format!("{before}{inner}")));
        whole = format!("{before}{}", whole.get(end + 1..).unwrap_or_default());
    }
    (whole, conditions)
}

/// Where the group that opens at `start` closes.
fn end_of_group(pattern: &str, start: usize) -> Option<usize> {
    let (mut depth, mut escaped, mut in_class) = (0_usize, false, false);
    for (index, character) in pattern.char_indices().skip_while(|(at, _)| *at < start) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' => in_class = false,
            _ if in_class => {}
            '[' => in_class = true,
            '(' => depth += 1,
            ')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(index);
                }
            }
            _ => {}
        }
    }
    None
}

/// `\uXXXX` as RE2 writes it.
fn re2(pattern: &str) -> String {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once("\\u") {
        out.push_str(before);
        if let (Some(digits), Some(more)) = (after.get(..4), after.get(4..)) {
            let _ = write!(out, "\\x{{{digits}}}");
            rest = more;
        } else {
            out.push_str("\\u");
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// A text in CEL, whose escapes are those of JSON.
fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn list(words: impl IntoIterator<Item = &'static str>) -> String {
    let words: Vec<String> = words.into_iter().map(text).collect();
    format!("[{}]", words.join(", "))
}
