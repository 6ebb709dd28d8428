//! Timeouts and retries: `defaults`, and overrides where the script has conditions.

use std::rc::Rc;

use super::super::cases::{self, Case, Outcome};
use super::super::lua::{Condition, Is, Subject, Test};
use super::matches::{self, Match};
use super::{Translator, object, refusals, text};
use crate::config::Node;

/// The headers that a policy writes.
pub(super) const HEADERS: &[&str] = &[
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-max-retries",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-hedge-on-per-try-timeout",
];

/// More overrides are written by nobody.
const MOST_OVERRIDES: usize = 64;

/// What becomes of timeouts and retries.
#[derive(Default)]
pub(super) struct PolicyOut {
    pub(super) defaults: Option<Node>,
    pub(super) routes: Vec<Node>,
}

/// One field of a policy.
#[derive(Clone, Debug, PartialEq)]
struct Setting {
    /// Within `retries`; else it is the timeout.
    of_retries: bool,
    field: &'static str,
    value: Node,
}

/// What one header says.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Setting(Setting),
    Nothing,
}

impl Translator<'_> {
    /// The policy of all x-envoy-* headers together.
    pub(super) fn policy(&mut self) -> PolicyOut {
        let mut together: Vec<Case<Vec<Setting>>> = vec![Case {
            condition: Condition::Always,
            outcome: Vec::new(),
        }];
        let mut keeps = false;
        for header in HEADERS {
            let Some((said, kept)) = self.said_by(header) else {
                continue;
            };
            keeps |= kept;
            let mut product = Vec::new();
            for before in &together {
                for case in &said {
                    let mut settings = before.outcome.clone();
                    if let Said::Setting(setting) = &case.outcome {
                        settings.push(setting.clone());
                    }
                    product.push(Case {
                        condition: before.condition.clone().and(case.condition.clone()),
                        outcome: settings,
                    });
                }
            }
            product = cases::first_matches(product);
            if product.len() > MOST_OVERRIDES {
                let why = "timeouts and retries have too many cases to be overrides";
                self.remark_writes(header, why);
                continue;
            }
            together = product;
        }
        let defaults = together
            .iter()
            .find(|case| case.condition == Condition::Always)
            .map(|case| case.outcome.clone())
            .unwrap_or_default();
        // Cases at the end that say what the defaults say anyway.
        let last = together
            .iter()
            .rposition(|case| case.condition != Condition::Always && case.outcome != defaults);
        let mut out = PolicyOut::default();
        for case in together.iter().take(last.map_or(0, |last| last + 1)) {
            self.overrides(case, &defaults, &mut out);
        }
        let some = |retries: bool| {
            together.iter().any(|case| {
                case.outcome
                    .iter()
                    .any(|setting| setting.of_retries == retries)
            })
        };
        let mut fields = policy_fields(&defaults);
        if keeps && (some(true) || some(false)) {
            fields.push(("requestHeaders", text("keep")));
        }
        if !fields.is_empty() {
            out.defaults = Some(object(fields));
        }
        if some(true) {
            self.notes.push(
                "the script let Envoy retry every method; trusted-lb retries those that may be sent twice (GET, HEAD, \
                 OPTIONS, TRACE, PUT, DELETE; see retries.methods)"
                    .to_owned(),
            );
        }
        let per_try =
            |case: &Case<Vec<Setting>>| case.outcome.iter().any(|one| one.field == "perTryTimeout");
        if some(false) || together.iter().any(per_try) {
            self.notes.push(
                "timeouts leave WebSockets and other upgrades alone, unlike the script's (see streams)".to_owned(),
            );
        }
        out
    }

    /// What a header says by case, and whether the script leaves a value alone that is there.
    fn said_by(&mut self, header: &str) -> Option<(Vec<Case<Said>>, bool)> {
        let present = |test: &Test| {
            matches!(&test.subject, Subject::Header(name) if &**name == header)
                && test.is == Is::Present
        };
        let cases = self.cases(header, &|test| {
            if present(test) {
                return None;
            }
            matches::unsupported(test, false)
        });
        // Asked by the script itself, not by `add`.
        let mut keeps = false;
        for case in &cases {
            case.condition
                .tests(&mut |test| keeps |= present(test) && test.span != (0..0));
        }
        let absent = cases
            .into_iter()
            .map(|case| Case {
                condition: case.condition.with(&|test| present(test).then_some(false)),
                outcome: case.outcome,
            })
            .collect();
        let said: Vec<Case<Said>> = cases::first_matches(absent)
            .into_iter()
            .map(|case| Case {
                condition: case.condition,
                outcome: self.said(header, &case.outcome),
            })
            .collect();
        let something = said.iter().any(|case| case.outcome != Said::Nothing);
        if !something && !self.named.iter().any(|named| named == header) {
            self.remark_writes(header, "this leaves the header as it is");
        }
        something.then_some((said, keeps))
    }

    /// An override, or several where one match can't say it.
    fn overrides(&mut self, case: &Case<Vec<Setting>>, defaults: &[Setting], out: &mut PolicyOut) {
        let mut fields = policy_fields(&case.outcome);
        let has = |settings: &[Setting], retries: bool| {
            settings.iter().any(|one| one.of_retries == retries)
        };
        for (retries, field) in [(false, "timeout"), (true, "retries")] {
            if !has(&case.outcome, retries) && has(defaults, retries) {
                fields.push((field, text("inherit")));
            }
        }
        if fields.is_empty() {
            // It keeps requests from the overrides behind it.
            fields.push(("timeout", text("inherit")));
        }
        let Ok(all) = cases::alternatives(&case.condition, &matches::listed) else {
            self.notes
                .push("a condition on timeouts is too large for overrides".to_owned());
            return;
        };
        for alternative in all {
            let mut one = Match::default();
            let wrong = alternative.iter().find_map(|list| one.require(list).err());
            if let Some(why) = wrong {
                self.notes
                    .push(format!("an override for timeouts can't be written: {why}"));
                continue;
            }
            self.differences(&mut one, HEADERS);
            let matched = one.fields();
            let name = self.name(&one.hint().unwrap_or_else(|| "override".to_owned()));
            let mut route = vec![("name", text(&name)), ("match", object(matched))];
            route.extend(fields.iter().cloned());
            out.routes.push(object(route));
        }
    }

    /// What a header's value means, if trusted-lb can write it.
    fn said(&mut self, header: &str, outcome: &Outcome) -> Said {
        let value = match outcome {
            Outcome::Text(value) => Rc::clone(value),
            Outcome::Kept => return Said::Nothing,
            Outcome::Removed => {
                self.remark_writes(
                    header,
                    "Envoy has removed what clients send under this name; of other senders trusted-lb keeps, caps or replaces \
                     it (requestHeaders)",
                );
                return Said::Nothing;
            }
            Outcome::Copied(_) | Outcome::Unclear(_) => {
                self.remark_writes(
                    header,
                    "the value isn't a text that is known before a request comes",
                );
                return Said::Nothing;
            }
        };
        match self.setting(header, &value) {
            Ok(setting) => Said::Setting(setting),
            Err(why) => {
                self.remark_writes(header, &why);
                Said::Nothing
            }
        }
    }

    fn setting(&mut self, header: &str, value: &str) -> Result<Setting, String> {
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let (of_retries, field, node) = match header {
            "x-envoy-upstream-rq-timeout-ms" | "x-envoy-upstream-rq-per-try-timeout-ms" => {
                if !digits {
                    return Err(format!(
                        "{value:?} is no number of milliseconds, and Envoy ignores it"
                    ));
                }
                if value.bytes().all(|byte| byte == b'0') {
                    return Err(
                        "0 means no limit to Envoy; trusted-lb doesn't write that: a request without its timeout keeps the \
                         route's own, which is switched off there (timeout: 0s of the VirtualService)"
                            .to_owned(),
                    );
                }
                let per_try = header.contains("per-try");
                let field = if per_try { "perTryTimeout" } else { "timeout" };
                (per_try, field, text(&duration(value)))
            }
            "x-envoy-max-retries" => {
                if !digits {
                    return Err(format!("{value:?} is no number, and Envoy ignores it"));
                }
                (true, "attempts", Node::Number(value.parse().unwrap_or(0.0)))
            }
            "x-envoy-hedge-on-per-try-timeout" => {
                if !matches!(value, "true" | "false") {
                    return Err(format!(
                        "{value:?} is neither true nor false, and Envoy ignores it"
                    ));
                }
                (true, "hedgeOnPerTryTimeout", Node::Bool(value == "true"))
            }
            _ => (true, list_field(header), self.list(header, value)?),
        };
        let setting = Setting {
            of_retries,
            field,
            value: node,
        };
        let mut alone = vec![(
            "defaults",
            object(policy_fields(std::slice::from_ref(&setting))),
        )];
        // Nothing to complain about but the value.
        if of_retries
            && !matches!(
                field,
                "retryOn" | "retryGrpcOn" | "statusCodes" | "headerNames"
            )
        {
            let mut settings = vec![setting.clone()];
            settings.push(Setting {
                of_retries: true,
                field: "retryOn",
                value: Node::List(vec![text("connect-failure")]),
            });
            alone = vec![("defaults", object(policy_fields(&settings)))];
        }
        match refusals(&object(alone)).into_iter().next() {
            Some(refusal) => Err(format!("trusted-lb refuses this value: {refusal}")),
            None => Ok(setting),
        }
    }

    /// The words of a list that Envoy would understand; the others are named.
    fn list(&mut self, header: &str, value: &str) -> Result<Node, String> {
        let field = list_field(header);
        let mut list = Vec::new();
        for word in value.split(',').map(str::trim) {
            if word.is_empty() {
                continue; // Envoy skips it too.
            }
            let node = if field == "statusCodes" {
                word.parse().map_or_else(|_| text(word), Node::Number)
            } else {
                text(word)
            };
            let alone = Setting {
                of_retries: true,
                field,
                value: Node::List(vec![node.clone()]),
            };
            let tried = object(vec![("defaults", object(policy_fields(&[alone])))]);
            if refusals(&tried).is_empty() {
                if !list.contains(&node) {
                    list.push(node);
                }
                continue;
            }
            let number = word
                .parse::<u16>()
                .is_ok_and(|code| (100..600).contains(&code));
            let grpc = matches!(
                word,
                "cancelled"
                    | "deadline-exceeded"
                    | "internal"
                    | "resource-exhausted"
                    | "unavailable"
            );
            let why = match (field, number, grpc) {
                ("retryOn", true, _) => format!(
                    "{word} is no condition of {header}, and Envoy ignores it there; for that status write statusCodes: [{word}] \
                     under retries"
                ),
                ("retryOn", _, true) => format!(
                    "{word} is a condition of x-envoy-retry-grpc-on, and Envoy ignores it in {header}; for gRPC write \
                     retryGrpcOn: [{word}] under retries"
                ),
                _ => format!("{word} is nothing that Envoy knows in {header}, and it ignores it"),
            };
            self.remark_writes(header, &why);
        }
        if list.is_empty() {
            return Err("nothing in this list means something to Envoy".to_owned());
        }
        Ok(Node::List(list))
    }
}

fn list_field(header: &str) -> &'static str {
    match header {
        "x-envoy-retry-on" => "retryOn",
        "x-envoy-retry-grpc-on" => "retryGrpcOn",
        "x-envoy-retriable-status-codes" => "statusCodes",
        _ => "headerNames",
    }
}

fn policy_fields(settings: &[Setting]) -> Vec<(&'static str, Node)> {
    let mut fields = Vec::new();
    let mut retries = Vec::new();
    for setting in settings {
        let field = (setting.field, setting.value.clone());
        if setting.of_retries {
            retries.push(field);
        } else {
            fields.push(field);
        }
    }
    if !retries.is_empty() {
        fields.push(("retries", object(retries)));
    }
    fields
}

/// Milliseconds as a duration, in seconds if they are whole.
fn duration(milliseconds: &str) -> String {
    let milliseconds = milliseconds.trim_start_matches('0');
    match milliseconds.strip_suffix("000") {
        Some(seconds) if !seconds.is_empty() => format!("{seconds}s"),
        _ => format!("{milliseconds}ms"),
    }
}
