//! `trusted-lb migrate`: from the Lua EnvoyFilter that people have to the WasmPlugin that replaces it.
//!
//! It reads the calls that such scripts consist of, `headers():replace("name", "value")` and the like. What it can't
//! translate it says, line by line: nothing is left out in silence.

use std::fmt::Write as _;

use super::args::MigrateArgs;
use super::files::{Located, Source};
use super::yaml;
use crate::config::Node;

/// The manifest, and what it doesn't say.
pub(super) struct Migrated {
    pub(super) manifest: String,
    /// What couldn't be translated, for people.
    pub(super) remarks: Vec<String>,
}

/// Migrates every Lua filter of a text. `Err` says why there is nothing to migrate.
pub(super) fn source(source: &Source, arguments: &MigrateArgs) -> Result<Vec<Migrated>, String> {
    let documents = source.documents().map_err(|error| {
        format!(
            "{}:{}: {}",
            source.name,
            source.line(error.span.start),
            error.message
        )
    })?;
    let mut migrated = Vec::new();
    for document in &documents {
        if document.get("kind").and_then(Located::text) != Some("EnvoyFilter") {
            continue;
        }
        let mut scripts = Vec::new();
        lua(document, &mut scripts);
        if scripts.is_empty() {
            continue;
        }
        let mut plan = Plan::default();
        for script in scripts {
            plan.script(script.text().unwrap_or_default());
        }
        migrated.push(plan.finish(document, arguments));
    }
    if migrated.is_empty() {
        return Err(format!(
            "{}: there is no EnvoyFilter with Lua code in it (inlineCode or defaultSourceCode)",
            source.name
        ));
    }
    Ok(migrated)
}

/// Texts of Lua code, in the old form (`filters[].filterConfig.inlineCode`) and the new
/// (`configPatches[].patch.value…inlineCode`, `defaultSourceCode.inlineString`).
fn lua<'l>(located: &'l Located, found: &mut Vec<&'l Located>) {
    for field in located.fields() {
        let named = matches!(field.name.as_str(), "inlineCode" | "inline_code");
        let default = matches!(
            field.name.as_str(),
            "defaultSourceCode" | "default_source_code"
        );
        if named {
            found.push(&field.value);
        } else if default {
            found.extend(
                field
                    .value
                    .get("inlineString")
                    .or_else(|| field.value.get("inline_string")),
            );
        } else {
            lua(&field.value, found);
        }
    }
    for item in located.items() {
        lua(item, found);
    }
}

/// What the scripts do, as far as it is understood.
#[derive(Default)]
struct Plan {
    proto: Option<String>,
    forwarded_port: bool,
    timeout: Option<String>,
    retries: Vec<(String, Node)>,
    remarks: Vec<String>,
}

impl Plan {
    fn script(&mut self, code: &str) {
        let mut on_response = false;
        for (index, line) in without_comments(code).lines().enumerate() {
            let number = index + 1;
            let line = line.trim();
            if line.contains("function envoy_on_response") {
                on_response = true;
            } else if line.contains("function envoy_on_request") {
                on_response = false;
            }
            let (calls, rest) = calls(line);
            if on_response {
                if !calls.is_empty() || !is_scaffolding(&rest) {
                    self.remark(number, line, "responses are not changed by trusted-lb");
                }
                continue;
            }
            if is_condition(&rest) {
                self.remark(
                    number,
                    line,
                    "a condition: say it as a match of a rule or a route; what stands under it is taken over without it",
                );
            } else if !is_scaffolding(&rest) {
                self.remark(number, line, "not understood");
            }
            for call in calls {
                self.call(number, call.text, &call);
            }
        }
    }

    fn remark(&mut self, number: usize, line: &str, why: &str) {
        self.remarks.push(format!("line {number}: `{line}`: {why}"));
    }

    fn call(&mut self, number: usize, line: &str, call: &Call<'_>) {
        let name = call.name.to_ascii_lowercase();
        let Some(value) = call.value else {
            let why = if call.method == "remove" {
                "if nobody but the load balancer may send it, list it under untrusted.removeHeaders"
            } else {
                "the value is not a plain text"
            };
            self.remark(number, line, why);
            return;
        };
        match name.as_str() {
            "x-forwarded-proto" if value == "https" || value == "http" => {
                if self.proto.as_deref().is_some_and(|proto| proto != value) {
                    self.remark(number, line, "another line says another scheme");
                } else {
                    self.proto = Some(value.to_owned());
                }
            }
            "x-forwarded-port" if value == "443" || value == "80" => self.forwarded_port = true,
            // rewriteScheme: auto does this, for the load balancer alone.
            ":scheme" if value == "https" || value == "http" => {}
            "x-envoy-upstream-rq-timeout-ms" if is_number(value) => {
                self.timeout = Some(duration(value));
            }
            "x-envoy-max-retries" if is_number(value) => {
                self.retry("attempts", Node::Number(value.parse().unwrap_or(0.0)));
            }
            "x-envoy-upstream-rq-per-try-timeout-ms" if is_number(value) => {
                self.retry("perTryTimeout", Node::Text(duration(value)));
            }
            "x-envoy-retry-on" => self.retry("retryOn", list(value, Node::Text)),
            "x-envoy-retry-grpc-on" => self.retry("retryGrpcOn", list(value, Node::Text)),
            "x-envoy-retriable-status-codes" => self.retry(
                "statusCodes",
                list(value, |code| {
                    code.parse().map_or(Node::Text(code), Node::Number)
                }),
            ),
            "x-envoy-retriable-header-names" => self.retry("headerNames", list(value, Node::Text)),
            _ => self.remark(
                number,
                line,
                "trusted-lb doesn't write this header; keep it in a native header mutation",
            ),
        }
    }

    fn retry(&mut self, field: &str, value: Node) {
        self.retries.retain(|(name, _)| name != field);
        self.retries.push((field.to_owned(), value));
    }

    fn finish(mut self, document: &Located, arguments: &MigrateArgs) -> Migrated {
        let text = |path: &[&str]| document.at(path).and_then(Located::text);
        let namespace = text(&["metadata", "namespace"]).unwrap_or("istio-system");
        let labels = document
            .at(&["spec", "workloadSelector", "labels"])
            .or_else(|| document.at(&["spec", "workloadLabels"]));
        let mut out = String::from("apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\n");
        let _ = write!(
            out,
            "metadata:\n  name: trusted-lb\n  namespace: {namespace}\nspec:\n"
        );
        let targets = document.at(&["spec", "targetRefs"]);
        match (labels, targets) {
            (Some(labels), _) => {
                out.push_str("  selector:\n    matchLabels:\n");
                out.push_str(&yaml::block(&labels.node(), 6));
            }
            (None, Some(targets)) => {
                out.push_str("  targetRefs:\n");
                out.push_str(&yaml::block(&targets.node(), 2));
            }
            (None, None) => self.remarks.push(
                "the EnvoyFilter has no workload selector, so it applied everywhere: give the WasmPlugin the labels of \
                 the gateway that stands behind the load balancer"
                    .to_owned(),
            ),
        }
        let _ = write!(
            out,
            "  url: {}\n  phase: AUTHN\n  failStrategy: FAIL_CLOSE\n  pluginConfig:\n",
            arguments.url
        );
        out.push_str(&yaml::block(&self.configuration(arguments), 4));
        Migrated {
            manifest: out,
            remarks: self.remarks,
        }
    }

    fn configuration(&mut self, arguments: &MigrateArgs) -> Node {
        let ip_blocks = &arguments.ip_blocks;
        let text = |text: &str| Node::Text(text.to_owned());
        let object = |fields: Vec<(&str, Node)>| {
            Node::Object(
                fields
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect(),
            )
        };
        let mut fields = Vec::new();
        if arguments.shadow {
            fields.push(("mode", text("shadow")));
        }
        if let Some(proto) = &self.proto {
            let blocks = if ip_blocks.is_empty() {
                self.remarks.push(
                    "the Lua filter believed everybody, trusted-lb has to know whom: @private stands in ipBlocks until \
                     you put the load balancer's own subnets there (--ip-block)"
                        .to_owned(),
                );
                vec![text("@private")]
            } else {
                ip_blocks.iter().map(|block| text(block)).collect()
            };
            fields.push((
                "trustedLoadBalancers",
                Node::List(vec![object(vec![
                    ("name", text("load-balancer")),
                    ("match", object(vec![("ipBlocks", Node::List(blocks))])),
                    ("forwardedProto", object(vec![("default", text(proto))])),
                ])]),
            ));
        }
        if self.forwarded_port {
            fields.push(("forwardedPort", Node::Bool(true)));
        }
        let mut defaults = Vec::new();
        if let Some(timeout) = &self.timeout {
            defaults.push(("timeout", text(timeout)));
        }
        if !self.retries.is_empty() {
            defaults.push(("retries", Node::Object(self.retries.clone())));
        }
        if !defaults.is_empty() {
            fields.push(("defaults", object(defaults)));
        }
        object(fields)
    }
}

/// Milliseconds as a duration, in seconds where they are whole.
fn duration(milliseconds: &str) -> String {
    match milliseconds.strip_suffix("000") {
        Some(seconds) if !seconds.is_empty() => format!("{seconds}s"),
        _ => format!("{milliseconds}ms"),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn list(value: &str, item: impl Fn(String) -> Node) -> Node {
    Node::List(
        value
            .split(',')
            .map(|word| item(word.trim().to_owned()))
            .collect(),
    )
}

/// A script with blanks in place of its comments, line by line as it was.
fn without_comments(code: &str) -> String {
    let mut out = String::new();
    let mut rest = code;
    let mut quote: Option<char> = None;
    while let Some(c) = rest.chars().next() {
        if quote.is_none() && rest.starts_with("--") {
            let end = if rest.starts_with("--[[") {
                rest.find("]]").map(|at| at + 2)
            } else {
                rest.find('\n')
            };
            let (comment, after) = rest.split_at(end.unwrap_or(rest.len()));
            out.extend(comment.chars().map(|c| if c == '\n' { c } else { ' ' }));
            rest = after;
            continue;
        }
        match quote {
            Some(open) if open == c || c == '\n' => quote = None,
            None if matches!(c, '"' | '\'') => quote = Some(c),
            _ => {}
        }
        out.push(c);
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
    }
    out
}

/// A call that changes a header.
struct Call<'l> {
    /// As it stands there.
    text: &'l str,
    method: &'l str,
    name: &'l str,
    /// The value, where it is a plain text.
    value: Option<&'l str>,
}

/// The calls of a line that change headers, and what else the line says.
fn calls(line: &str) -> (Vec<Call<'_>>, String) {
    let mut calls = Vec::new();
    let mut others = String::new();
    let mut rest = line;
    while let Some((before, call, after)) = Call::first(rest) {
        others.push_str(before);
        others.push(' ');
        calls.push(call);
        rest = after;
    }
    others.push_str(rest);
    (calls, others)
}

impl<'l> Call<'l> {
    /// The first call, what stands in front of it and what behind.
    fn first(line: &'l str) -> Option<(&'l str, Self, &'l str)> {
        let (at, method) = ["replace", "add", "remove"]
            .into_iter()
            .filter_map(|method| Some((line.find(&format!(":{method}("))?, method)))
            .min()?;
        let start = line
            .get(..at)?
            .rfind(|c: char| c.is_whitespace() || c == ';')
            .map_or(0, |before| before + 1);
        let arguments = line.get(at + method.len() + 2..)?;
        let end = closing(arguments)?;
        let (name, value) = literal(arguments.get(..end)?)?;
        let value = value.trim_start().strip_prefix(',').and_then(literal);
        let after = at + method.len() + 2 + end + 1;
        let call = Self {
            text: line.get(start..after)?,
            method,
            name,
            value: value.and_then(|(value, rest)| rest.trim().is_empty().then_some(value)),
        };
        Some((line.get(..start)?, call, line.get(after..)?))
    }
}

/// Where the parenthesis closes in which a text begins.
fn closing(text: &str) -> Option<usize> {
    let mut open = 1_usize;
    let mut quote: Option<char> = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(begun), c) if begun == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '(') => open += 1,
            (None, ')') => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// A text in quotes at the beginning, and what follows it.
fn literal(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    text.get(1..)?.split_once(quote)
}

fn is_condition(rest: &str) -> bool {
    ["if ", "elseif ", "else", "for ", "while ", "repeat"]
        .iter()
        .any(|word| rest.trim_start().starts_with(word) || rest.contains(&format!(" {word}")))
}

/// Whether there is nothing but what every such script has and what does nothing itself.
fn is_scaffolding(rest: &str) -> bool {
    let mut rest = rest.trim_start();
    while !rest.is_empty() {
        let after = if let Some(after) = rest.strip_prefix(';') {
            Some(after)
        } else if let Some(function) = rest
            .strip_prefix("function envoy_on_request(")
            .or_else(|| rest.strip_prefix("function envoy_on_response("))
        {
            function.split_once(')').map(|(_, after)| after)
        } else if rest.starts_with("local ") {
            rest.split_once(":headers()")
                .filter(|(before, _)| !before.contains([';', '(']))
                .map(|(_, after)| after)
        } else {
            rest.strip_prefix("end")
                .filter(|after| !after.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        };
        match after {
            Some(after) => rest = after.trim_start(),
            None => return false,
        }
    }
    true
}
