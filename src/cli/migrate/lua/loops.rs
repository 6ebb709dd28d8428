//! Follows a script's loops.

use std::rc::Rc;

use super::condition::Condition;
use super::evaluate::Run;
use super::flow::Flow;
use super::syntax::{Block, Expression, ExpressionKind, Span};
use super::value::{Scope, Value};

/// Rounds of a `while`: one that takes more waits for something.
const MOST_WHILE_ROUNDS: usize = 1_000;

impl Run<'_> {
    /// A block that may run or not, and with unknown values.
    pub(super) fn perhaps(
        &mut self,
        block: &Block,
        names: &[Rc<str>],
        why: &str,
        span: &Span,
        scope: &Scope,
    ) -> Flow {
        let head = span.start..span.end.min(span.start + 60);
        let condition = Condition::beyond(why, head);
        let flow = self.branch(
            &condition,
            |run| {
                let mut scope = scope.clone();
                for name in names {
                    run.declare(&mut scope, name, Value::unknown(why));
                }
                run.block(block, &mut scope)
            },
            |_| Flow::ON,
            Flow::either,
        );
        Flow {
            broke: Condition::Never,
            ..flow
        }
    }

    /// A `while`, or a `repeat`, from one of its rounds on.
    pub(super) fn looped(
        &mut self,
        from: usize,
        condition: &Expression,
        block: &Block,
        repeat: bool,
        span: &Span,
        scope: &Scope,
    ) -> Flow {
        let why = "how often a loop runs isn't known";
        let begun = self.journal.len();
        for round in from..MOST_WHILE_ROUNDS {
            let mut inner = scope.clone();
            if !repeat {
                match self.answered(condition, &mut inner.clone()) {
                    Some(true) => {}
                    Some(false) => return Flow::ON,
                    None => return self.perhaps(block, &[], why, span, scope),
                }
            }
            let flow = self.block(block, &mut inner);
            match flow.stopped() {
                Condition::Never => {}
                Condition::Always => {
                    return Flow {
                        broke: Condition::Never,
                        ..flow
                    };
                }
                stopped => {
                    let on = stopped.not();
                    let rest = self.branch(
                        &on,
                        |run| match repeat.then(|| run.answered(condition, &mut inner)) {
                            Some(Some(true)) => Flow::ON,
                            Some(None) => run.perhaps(block, &[], why, span, scope),
                            None | Some(Some(false)) => {
                                run.looped(round + 1, condition, block, repeat, span, scope)
                            }
                        },
                        |_| Flow::ON,
                        |_, rest, _| rest,
                    );
                    return flow.then(&on, rest);
                }
            }
            if repeat {
                match self.answered(condition, &mut inner) {
                    Some(true) => return Flow::ON,
                    Some(false) => {}
                    None => return self.perhaps(block, &[], why, span, scope),
                }
            }
        }
        self.undo(begun);
        self.perhaps(block, &[], why, span, scope)
    }

    /// What a condition is, if that doesn't depend on the request.
    fn answered(&mut self, condition: &Expression, scope: &mut Scope) -> Option<bool> {
        let truth = self.expression(condition, scope).truth(&condition.span);
        match self.open(&truth) {
            Condition::Always => Some(true),
            Condition::Never => Some(false),
            _ => None,
        }
    }

    /// The rounds of a loop whose values are known.
    pub(super) fn rounds(
        &mut self,
        rounds: &[Vec<Value>],
        from: usize,
        names: &[Rc<str>],
        block: &Block,
        scope: &Scope,
    ) -> Flow {
        for (index, values) in rounds.iter().enumerate().skip(from) {
            let mut inner = scope.clone();
            for (position, name) in names.iter().enumerate() {
                let value = values.get(position).cloned().unwrap_or(Value::Nil);
                self.declare(&mut inner, name, value);
            }
            let flow = self.block(block, &mut inner);
            match flow.stopped() {
                Condition::Never => {}
                Condition::Always => {
                    return Flow {
                        broke: Condition::Never,
                        ..flow
                    };
                }
                stopped => {
                    let on = stopped.not();
                    let rest = self.branch(
                        &on,
                        |run| run.rounds(rounds, index + 1, names, block, scope),
                        |_| Flow::ON,
                        |_, rest, _| rest,
                    );
                    return flow.then(&on, rest);
                }
            }
        }
        Flow::ON
    }

    /// What a `for` goes over, or why that isn't known.
    pub(super) fn iterated(
        &mut self,
        over: &[Expression],
        scope: &Scope,
    ) -> (Option<Vec<Vec<Value>>>, String) {
        let unknown = (None, "what a loop goes over isn't known".to_owned());
        let mut inner = scope.clone();
        // for key, value in next, list do
        if over.len() > 1 {
            let values = self.values(over, &mut inner);
            return match values.as_slice() {
                [Value::Library("next"), list, ..] => self.entries(list, false),
                _ => unknown,
            };
        }
        let [over] = over else { return unknown };
        let (function, arguments) = match &over.kind {
            ExpressionKind::Call(function, arguments) => {
                let function = self.expression(function, &mut inner);
                (function, self.values(arguments, &mut inner))
            }
            // text:gmatch(pattern)
            ExpressionKind::Method(object, name, arguments) if &**name == "gmatch" => {
                let mut all = vec![self.expression(object, &mut inner)];
                all.extend(self.values(arguments, &mut inner));
                (Value::Library("string.gmatch"), all)
            }
            _ => return unknown,
        };
        if matches!(function, Value::Library("string.gmatch")) {
            return (self.constants.matches(&arguments), unknown.1);
        }
        let ordered = match function {
            Value::Library("ipairs") => true,
            Value::Library("pairs") => false,
            _ => return unknown,
        };
        self.entries(arguments.first().unwrap_or(&Value::Nil), ordered)
    }
}
