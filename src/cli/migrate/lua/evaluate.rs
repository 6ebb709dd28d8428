//! Follows a script's statements.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use super::condition::{Condition, Is, Subject, Test, implied};
use super::constants::Constants;
use super::flow::{Flow, either_values};
use super::globals::assigned_globals;
use super::library;
use super::syntax::{Block, Expression, ExpressionKind, Function, Span, Statement, StatementKind};
use super::tables::Table;
use super::unreached::unreached;
use super::value::{Asked, Envoy, Scope, Value, Variable};
use super::{Meaning, Remark};

/// Rounds of a loop.
const MOST_ROUNDS: f64 = 10_000.0;
/// What is followed before a script is given up: statements and expressions.
const MOST_STEPS: usize = 4_000_000;
/// Branches that depend on the request.
const MOST_BRANCHES: usize = 400;

/// A run without a request.
pub(super) struct Run<'s> {
    pub(super) code: &'s str,
    /// Every variable, table entry and header.
    pub(super) slots: Vec<Value>,
    /// What slots held before, so that a branch can be undone.
    pub(super) journal: Vec<(usize, Value)>,
    pub(super) tables: Vec<Table>,
    pub(super) globals: HashMap<Rc<str>, usize>,
    /// Globals that functions assign: what they hold comes from earlier requests.
    pub(super) kept: HashSet<Rc<str>>,
    pub(super) assigned: HashSet<Rc<str>>,
    pub(super) in_function: bool,
    pub(super) headers: BTreeMap<Rc<str>, usize>,
    /// When the script ended within the expression that is being worked out.
    pub(super) ended: Condition,
    /// What has to be true to get here, as far as it isn't nested in this.
    pub(super) path: Vec<Condition>,
    pub(super) called: HashSet<*const Function>,
    /// Where the calls end that were made and may change a request.
    pub(super) reached: HashSet<usize>,
    /// What the last call returned behind its first result, if that is known.
    pub(super) more: Option<Vec<Value>>,
    /// The last list of values ended in a call whose other results aren't known.
    pub(super) more_is_open: bool,
    pub(super) steps: usize,
    pub(super) branches: usize,
    pub(super) calls: usize,
    pub(super) constants: Constants,
    pub(super) meaning: Meaning,
}

/// Follows a script's main part, then its functions.
pub(super) fn script(code: &str, block: &Block) -> Meaning {
    let mut kept = HashSet::new();
    let mut functions = Vec::new();
    assigned_globals(block, false, &mut kept, &mut functions);
    let mut run = Run {
        code,
        slots: Vec::new(),
        journal: Vec::new(),
        tables: Vec::new(),
        globals: HashMap::new(),
        kept,
        assigned: HashSet::new(),
        in_function: false,
        headers: BTreeMap::new(),
        ended: Condition::Never,
        path: Vec::new(),
        called: HashSet::new(),
        reached: HashSet::new(),
        more: None,
        more_is_open: false,
        steps: 0,
        branches: 0,
        calls: 0,
        constants: Constants::default(),
        meaning: Meaning::default(),
    };
    run.block(block, &mut None);
    run.in_function = true;
    for (name, handle) in [
        ("envoy_on_request", Envoy::Request),
        ("envoy_on_response", Envoy::Response),
    ] {
        let value = run.global(&Rc::from(name));
        let Value::Function(function, scope) = value else {
            continue;
        };
        run.meaning.on_request |= handle == Envoy::Request;
        run.ended = Condition::Never;
        run.call(&function, &scope, vec![Value::Envoy(handle)], &(0..0));
    }
    let mut skipped = HashSet::new();
    for function in functions {
        if !run.called.contains(&Rc::as_ptr(&function)) {
            skipped.insert(Rc::as_ptr(&function));
            if names_headers(code, &function.span) {
                run.remark(
                    &function.span,
                    format!("{} is never called, so nothing of it runs", function.name),
                );
            }
        }
    }
    if run.steps < MOST_STEPS {
        for span in unreached(block, &run.reached, &skipped) {
            run.remark(
                &span,
                "as far as the script can be followed this is never reached: it isn't translated",
            );
        }
    }
    let headers = std::mem::take(&mut run.headers);
    run.meaning.headers = headers
        .into_iter()
        .map(|(name, slot)| (name, run.get(slot)))
        .collect();
    run.meaning
}

pub(super) fn is_call(expression: &Expression) -> bool {
    matches!(
        expression.kind,
        ExpressionKind::Call(..) | ExpressionKind::Method(..) | ExpressionKind::Ellipsis
    )
}

/// Whether a function has something to do with headers.
fn names_headers(code: &str, span: &Span) -> bool {
    code.get(span.clone()).is_some_and(|text| {
        ["replace", "add", "remove", "respond"]
            .iter()
            .any(|word| text.contains(word))
    })
}

fn prefix_in(condition: &Condition, subject: &Subject, length: usize) -> Option<Rc<str>> {
    match condition {
        Condition::Test(test) if test.subject == *subject => match &test.is {
            Is::Prefix(prefix) if prefix.len() == length => Some(Rc::clone(prefix)),
            _ => None,
        },
        Condition::All(a, b) => {
            prefix_in(a, subject, length).or_else(|| prefix_in(b, subject, length))
        }
        _ => None,
    }
}

impl Run<'_> {
    pub(super) fn remark(&mut self, span: &Span, why: impl Into<String>) {
        let remark = Remark {
            span: span.clone(),
            why: why.into(),
            is_end: false,
        };
        if self.meaning.remarks.last() != Some(&remark) {
            self.meaning.remarks.push(remark);
        }
    }

    pub(super) fn slot(&mut self, value: Value) -> usize {
        self.slots.push(value);
        self.slots.len() - 1
    }

    pub(super) fn get(&self, slot: usize) -> Value {
        self.slots.get(slot).cloned().unwrap_or(Value::Nil)
    }

    pub(super) fn set(&mut self, slot: usize, value: Value) {
        if let Some(place) = self.slots.get_mut(slot) {
            let before = std::mem::replace(place, value);
            self.journal.push((slot, before));
        }
    }

    pub(super) fn declare(&mut self, scope: &mut Scope, name: &Rc<str>, value: Value) {
        let slot = self.slot(value);
        *scope = Some(Rc::new(Variable {
            name: Rc::clone(name),
            slot,
            outer: scope.take(),
        }));
    }

    pub(super) fn find(scope: &Scope, name: &str) -> Option<usize> {
        let mut here = scope.as_ref();
        while let Some(variable) = here {
            if &*variable.name == name {
                return Some(variable.slot);
            }
            here = variable.outer.as_ref();
        }
        None
    }

    pub(super) fn global(&self, name: &Rc<str>) -> Value {
        if self.in_function && self.kept.contains(name) && !self.assigned.contains(name) {
            return Value::unknown(format!(
                "what the global {name} holds comes from earlier requests"
            ));
        }
        match self.globals.get(name) {
            Some(slot) => self.get(*slot),
            None => library::global(name),
        }
    }

    pub(super) fn set_global(&mut self, name: &Rc<str>, value: Value) {
        if self.in_function {
            self.assigned.insert(Rc::clone(name));
        }
        let slot = if let Some(slot) = self.globals.get(name) {
            *slot
        } else {
            let slot = self.slot(Value::Nil);
            self.globals.insert(Rc::clone(name), slot);
            slot
        };
        self.set(slot, value);
    }

    pub(super) fn header_slot(&mut self, name: &str) -> usize {
        if let Some(slot) = self.headers.get(name) {
            return *slot;
        }
        let slot = self.slot(Value::Asked(Asked::header(name, 0..0)));
        self.headers.insert(name.into(), slot);
        slot
    }

    /// What the way here has answered already.
    pub(super) fn answer(&self, test: &Test) -> Option<bool> {
        self.path
            .iter()
            .rev()
            .find_map(|condition| implied(condition, test))
    }

    /// A condition without what the way here has answered already.
    pub(super) fn open(&self, condition: &Condition) -> Condition {
        if self.path.is_empty() {
            return condition.clone();
        }
        condition.with(&|test| self.answer(test))
    }

    /// The text that is known to stand in front of a part of a value.
    pub(super) fn known_prefix(&self, subject: &Subject, length: usize) -> Option<Rc<str>> {
        self.path
            .iter()
            .rev()
            .find_map(|condition| prefix_in(condition, subject, length))
    }

    /// Follows one of two ways, or both.
    pub(super) fn branch<T>(
        &mut self,
        condition: &Condition,
        yes: impl FnOnce(&mut Self) -> T,
        no: impl FnOnce(&mut Self) -> T,
        either: impl FnOnce(&Condition, T, T) -> T,
    ) -> T {
        let condition = &self.open(condition);
        match condition {
            Condition::Always => return yes(self),
            Condition::Never => return no(self),
            _ => {}
        }
        self.branches += 1;
        if self.branches == MOST_BRANCHES {
            self.steps = MOST_STEPS;
        }
        let outer = std::mem::replace(&mut self.ended, Condition::Never);
        let begun = self.journal.len();
        self.path.push(condition.clone());
        let of_yes = yes(self);
        let ended_yes = std::mem::replace(&mut self.ended, Condition::Never);
        let changed_yes = self.undo(begun);
        self.path.pop();
        self.path.push(condition.clone().not());
        let of_no = no(self);
        let ended_no = std::mem::replace(&mut self.ended, Condition::Never);
        let changed_no = self.undo(begun);
        self.path.pop();
        let mut slots: Vec<usize> = changed_yes
            .keys()
            .chain(changed_no.keys())
            .copied()
            .collect();
        slots.sort_unstable();
        slots.dedup();
        for slot in slots {
            let before = self.get(slot);
            let of = |changed: &HashMap<usize, Value>| {
                changed
                    .get(&slot)
                    .cloned()
                    .unwrap_or_else(|| before.clone())
            };
            let value = Value::either(condition.clone(), of(&changed_yes), of(&changed_no));
            self.set(slot, value);
        }
        self.ended = outer
            .or(condition.clone().and(ended_yes))
            .or(condition.clone().not().and(ended_no));
        either(condition, of_yes, of_no)
    }

    /// Takes back what was changed, and hands it over.
    pub(super) fn undo(&mut self, begun: usize) -> HashMap<usize, Value> {
        let mut changed = HashMap::new();
        while self.journal.len() > begun {
            let Some((slot, before)) = self.journal.pop() else {
                break;
            };
            if let Some(place) = self.slots.get_mut(slot) {
                let after = std::mem::replace(place, before);
                changed.entry(slot).or_insert(after);
            }
        }
        changed
    }

    /// Whether there is work left to be done.
    pub(super) fn step(&mut self, span: &Span) -> bool {
        self.steps += 1;
        if self.steps < MOST_STEPS {
            return true;
        }
        if self.steps < MOST_STEPS + 2 {
            self.steps = MOST_STEPS + 2;
            let why = if self.branches >= MOST_BRANCHES {
                "the script asks the request more than 400 questions: what follows isn't read"
            } else {
                "the script does too much: what follows isn't read"
            };
            self.meaning.remarks.push(Remark {
                span: span.clone(),
                why: why.to_owned(),
                is_end: true,
            });
        }
        false
    }

    pub(super) fn block(&mut self, block: &Block, scope: &mut Scope) -> Flow {
        self.statements(block, 0, scope)
    }

    pub(super) fn statements(&mut self, block: &Block, from: usize, scope: &mut Scope) -> Flow {
        for (index, statement) in block.iter().enumerate().skip(from) {
            if !self.step(&statement.span) {
                self.ended = Condition::Never;
                return Flow {
                    ended: Condition::Always,
                    ..Flow::ON
                };
            }
            let mut flow = self.statement(statement, scope);
            let ended = std::mem::replace(&mut self.ended, Condition::Never);
            flow.ended = flow.ended.or(ended);
            let stopped = flow.stopped();
            match stopped {
                Condition::Never => {}
                Condition::Always => return flow,
                _ => {
                    if index + 1 == block.len() {
                        return flow;
                    }
                    let mut rest_scope = scope.clone();
                    let rest = self.branch(
                        &stopped.clone().not(),
                        |run| run.statements(block, index + 1, &mut rest_scope),
                        |_| Flow::ON,
                        |_, rest, _| rest,
                    );
                    // What was true before stays so; the rest comes on top.
                    let on = stopped.not();
                    let under = |condition: Condition| on.clone().and(condition);
                    return Flow {
                        values: either_values(&flow.returned, flow.values, rest.values),
                        returned: flow.returned.or(under(rest.returned)),
                        broke: flow.broke.or(under(rest.broke)),
                        ended: flow.ended.or(under(rest.ended)),
                    };
                }
            }
        }
        Flow::ON
    }

    pub(super) fn statement(&mut self, statement: &Statement, scope: &mut Scope) -> Flow {
        let span = &statement.span;
        match &statement.kind {
            StatementKind::Local(names, values) => {
                let values = self.adjusted(values, names.len(), scope);
                for (name, value) in names.iter().zip(values) {
                    self.declare(scope, name, value);
                }
            }
            StatementKind::Assign(targets, values) => {
                let values = self.adjusted(values, targets.len(), scope);
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value, scope);
                }
            }
            StatementKind::Call(call) => {
                self.expression(call, scope);
            }
            StatementKind::Do(block) => return self.block(block, &mut scope.clone()),
            StatementKind::If(arms, otherwise) => {
                return self.arms(arms, otherwise.as_ref(), scope);
            }
            StatementKind::While(condition, block) => {
                return self.looped(0, condition, block, false, span, scope);
            }
            StatementKind::Repeat(block, condition) => {
                return self.looped(0, condition, block, true, span, scope);
            }
            StatementKind::NumericFor(name, range, block) => {
                let range = self.values(range, scope);
                let (start, end, step) = match range.as_slice() {
                    [Value::Number(start), Value::Number(end)] => (*start, *end, 1.0),
                    [
                        Value::Number(start),
                        Value::Number(end),
                        Value::Number(step),
                    ] => (*start, *end, *step),
                    _ => (1.0, f64::INFINITY, 1.0),
                };
                let rounds = ((end - start) / step).floor() + 1.0;
                if !rounds.is_finite() || rounds > MOST_ROUNDS {
                    let why = "how often a loop runs isn't known";
                    return self.perhaps(block, std::slice::from_ref(name), why, span, scope);
                }
                let mut rounds_left = Vec::new();
                let mut at = start;
                while (step > 0.0 && at <= end) || (step < 0.0 && at >= end) {
                    rounds_left.push(vec![Value::Number(at)]);
                    at += step;
                }
                return self.rounds(&rounds_left, 0, std::slice::from_ref(name), block, scope);
            }
            StatementKind::GenericFor(names, over, block) => {
                let (rounds, why) = self.iterated(over, scope);
                return match rounds {
                    Some(rounds) => self.rounds(&rounds, 0, names, block, scope),
                    None => self.perhaps(block, names, &why, span, scope),
                };
            }
            StatementKind::Function(target, function) => {
                let value = Value::Function(Rc::clone(function), scope.clone());
                self.assign(target, value, scope);
            }
            StatementKind::LocalFunction(name, function) => {
                // The function sees itself.
                self.declare(scope, name, Value::Nil);
                let value = Value::Function(Rc::clone(function), scope.clone());
                if let Some(slot) = Self::find(scope, name) {
                    self.set(slot, value);
                }
            }
            StatementKind::Return(values) => {
                let values = self.values(values, scope);
                return Flow {
                    returned: Condition::Always,
                    values,
                    ..Flow::ON
                };
            }
            StatementKind::Break => {
                return Flow {
                    broke: Condition::Always,
                    ..Flow::ON
                };
            }
            StatementKind::Jump => self.remark(span, "jumps aren't followed"),
        }
        Flow::ON
    }

    pub(super) fn arms(
        &mut self,
        arms: &[(Expression, Block)],
        otherwise: Option<&Block>,
        scope: &Scope,
    ) -> Flow {
        let Some(((condition, block), rest)) = arms.split_first() else {
            return otherwise.map_or(Flow::ON, |block| self.block(block, &mut scope.clone()));
        };
        if !self.step(&condition.span) {
            return Flow {
                ended: Condition::Always,
                ..Flow::ON
            };
        }
        let before = self.take_ended();
        let value = self.expression(condition, &mut scope.clone());
        let failed = self.take_ended();
        self.caught(before);
        if matches!(value, Value::Nil)
            && let ExpressionKind::Name(name) = &condition.kind
            && Self::find(scope, name).is_none()
        {
            self.remark(
                &condition.span,
                format!("nothing sets {name}: it is always nil, so this is never true"),
            );
        }
        let truth = value.truth(&condition.span);
        let chosen = |run: &mut Self| {
            run.branch(
                &truth,
                |run| run.block(block, &mut scope.clone()),
                |run| run.arms(rest, otherwise, scope),
                Flow::either,
            )
        };
        if failed == Condition::Never {
            return chosen(self);
        }
        // An error in the condition: neither way is taken.
        let on = failed.clone().not();
        let flow = self.branch(&on, chosen, |_| Flow::ON, |_, flow, _| flow);
        let under = |condition: Condition| on.clone().and(condition);
        Flow {
            values: flow.values,
            returned: under(flow.returned),
            broke: under(flow.broke),
            ended: failed.or(under(flow.ended)),
        }
    }

    pub(super) fn assign(&mut self, target: &Expression, value: Value, scope: &mut Scope) {
        match &target.kind {
            ExpressionKind::Name(name) => match Self::find(scope, name) {
                Some(slot) => self.set(slot, value),
                None => self.set_global(name, value),
            },
            ExpressionKind::Index(holder, key) => {
                let holder = self.expression(holder, scope);
                let key = self.expression(key, scope);
                match holder {
                    Value::Table(table) => self.set_entry(table, &key, value),
                    Value::Library("_G") => {
                        if let Value::Text(name) = key {
                            self.set_global(&name, value);
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// The values of a list of expressions, with all results of a call at its end, as far as they are known.
    pub(super) fn values(&mut self, expressions: &[Expression], scope: &mut Scope) -> Vec<Value> {
        let mut values: Vec<Value> = Vec::with_capacity(expressions.len());
        for expression in expressions {
            self.more = None;
            values.push(self.expression(expression, scope));
        }
        let called = expressions.last().is_some_and(is_call);
        let more = self.more.take();
        self.more_is_open = called && more.is_none();
        if called {
            values.extend(more.unwrap_or_default());
        }
        values
    }

    /// As many values as are wanted: nil where there are none, unknown where a call may have returned more.
    pub(super) fn adjusted(
        &mut self,
        expressions: &[Expression],
        wanted: usize,
        scope: &mut Scope,
    ) -> Vec<Value> {
        let mut values = self.values(expressions, scope);
        let open = expressions.last().is_some_and(is_call) && self.more_is_open;
        while values.len() < wanted {
            values.push(if open {
                Value::unknown("another result of a call")
            } else {
                Value::Nil
            });
        }
        values
    }

    /// What a call returned behind its first result.
    pub(super) fn also_returns(&mut self, values: Vec<Value>) {
        self.more = Some(values);
    }
}
