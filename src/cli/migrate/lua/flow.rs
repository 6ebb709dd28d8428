//! How blocks of a script end.

use super::condition::Condition;
use super::value::Value;

/// How a block ends.
pub(super) struct Flow {
    /// When it returned from its function, and with what.
    pub(super) returned: Condition,
    pub(super) values: Vec<Value>,
    /// When it left the loop around it.
    pub(super) broke: Condition,
    /// When the script ended: by an error, or because it answered the request.
    pub(super) ended: Condition,
}

impl Flow {
    pub(super) const ON: Flow = Flow {
        returned: Condition::Never,
        values: Vec::new(),
        broke: Condition::Never,
        ended: Condition::Never,
    };

    pub(super) fn stopped(&self) -> Condition {
        self.returned
            .clone()
            .or(self.broke.clone())
            .or(self.ended.clone())
    }

    /// A round of a loop, and those behind it if `on` holds.
    pub(super) fn then(self, on: &Condition, rest: Flow) -> Flow {
        Flow {
            values: either_values(&self.returned, self.values, rest.values),
            returned: self.returned.or(on.clone().and(rest.returned)),
            broke: Condition::Never,
            ended: self.ended.or(on.clone().and(rest.ended)),
        }
    }

    /// One of two, by a condition.
    pub(super) fn either(condition: &Condition, yes: Flow, no: Flow) -> Flow {
        Flow {
            returned: condition.choose(&yes.returned, &no.returned),
            values: either_values(condition, yes.values, no.values),
            broke: condition.choose(&yes.broke, &no.broke),
            ended: condition.choose(&yes.ended, &no.ended),
        }
    }
}

/// The results of one of two ways.
pub(super) fn either_values(condition: &Condition, yes: Vec<Value>, no: Vec<Value>) -> Vec<Value> {
    let count = yes.len().max(no.len());
    let (mut yes, mut no) = (yes.into_iter(), no.into_iter());
    (0..count)
        .map(|_| {
            let (yes, no) = (
                yes.next().unwrap_or(Value::Nil),
                no.next().unwrap_or(Value::Nil),
            );
            Value::either(condition.clone(), yes, no)
        })
        .collect()
}
