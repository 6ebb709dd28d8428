//! Places in a configuration, and what holds there, in CEL.

/// A value of the configuration, or all the values at a place in lists.
#[derive(Clone)]
pub(super) struct Place {
    /// For messages.
    pub(super) path: String,
    /// The value in CEL, which begins with the innermost variable of `steps`.
    pub(super) value: String,
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

pub(super) const ROOT: &str = "variables.c";

impl Place {
    pub(super) fn root() -> Self {
        Self {
            path: String::new(),
            value: ROOT.to_owned(),
            steps: Vec::new(),
        }
    }

    pub(super) fn only_if(&self, condition: String) -> Self {
        let mut place = self.clone();
        place.steps.push(Step::If(condition));
        place
    }

    pub(super) fn field(&self, name: &str) -> Self {
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

    pub(super) fn items(&self, item: String) -> Self {
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
    pub(super) fn holds(&self, body: &str) -> String {
        within(&self.steps, body)
    }

    /// The first value for which it doesn't hold.
    pub(super) fn offender(&self, body: &str) -> String {
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
