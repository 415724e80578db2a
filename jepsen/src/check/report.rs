//! The verdict on a history, for people and for programs.

use bytes::Bytes;
use serde_json::{Value, json};

use super::OutcomeCounts;
use super::content::{ContentId, Contents};
use super::history::History;
use super::json_bytes::to_json;
use super::linear::Exhausted;
use super::model::Model;
use super::operation::{Operation, Outcome, Shown};
use super::timeline_text;
use super::window::Window;

/// The verdict on a whole history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every key is linearizable.
    Linearizable,
    /// At least one key is not.
    NotLinearizable,
    /// No key was found that is not, and at least one could not be decided. This is no pass.
    Undecided,
}

impl Verdict {
    /// The verdict in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linearizable => "linearizable",
            Self::NotLinearizable => "not linearizable",
            Self::Undecided => "undecided",
        }
    }
}

/// Why an operation is shown in a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is part of the contradiction.
    Needed,
    /// The same, and it returned last: with the others before it, it cannot be explained.
    Unexplained,
    /// It could have helped, and does not, even if it took effect at any time after its call, or never.
    Optional,
}

/// An operation of a violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The operation as recorded.
    pub operation: Operation,
    /// Why it is shown.
    pub role: Role,
}

/// A key that is not linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key.
    pub key: Bytes,
    /// How many operations the history has on this key.
    pub operations: usize,
    /// The operations that contradict each other, and the writes that could have helped, by call.
    pub rows: Vec<Row>,
    /// How many more of the latter there are.
    pub optional_more: usize,
    /// What the key could hold when the unexplained operation took effect (`None` = absent), if that could be told.
    pub could_hold: Option<Vec<Option<Bytes>>>,
    /// Whether no operation of the contradiction can be spared.
    pub is_least: bool,
}

impl Violation {
    pub(super) fn new(
        key: &Bytes,
        operations: &[&Operation],
        window: Option<Window>,
        contents: &mut Contents,
    ) -> Self {
        let mut violation = Self {
            key: key.clone(),
            operations: operations.len(),
            rows: Vec::new(),
            optional_more: 0,
            could_hold: None,
            is_least: false,
        };
        let Some(window) = window else {
            return violation;
        };
        let row = |index: &usize, role| {
            let operation = (*operations.get(*index)?).clone();
            let role = match role {
                Role::Needed if Some(*index) == window.unexplained => Role::Unexplained,
                role => role,
            };
            Some(Row { operation, role })
        };
        let needed = window
            .needed
            .iter()
            .filter_map(|index| row(index, Role::Needed));
        let optional = window
            .optional
            .iter()
            .filter_map(|index| row(index, Role::Optional));
        violation.rows = needed.chain(optional).collect();
        violation.rows.sort_by_key(|row| row.operation.call);
        violation.optional_more = window.optional_more;
        violation.is_least = window.is_least;
        violation.could_hold = window.could_hold.map(|held| {
            held.into_iter()
                .map(|content| (content != ContentId::ABSENT).then(|| contents.bytes(content)))
                .collect()
        });
        violation
    }

    fn to_json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let operation = &row.operation;
                json!({
                    "process": operation.process.get(),
                    "op": operation.op.to_string(),
                    "outcome": outcome_text(&operation.outcome),
                    "call": operation.call.get(),
                    "end": operation.end.map(super::operation::Moment::get),
                    "call_time": operation.call_time_ns,
                    "end_time": operation.end_time_ns,
                    "role": match row.role {
                        Role::Needed => "needed",
                        Role::Unexplained => "unexplained",
                        Role::Optional => "optional",
                    },
                })
            })
            .collect();
        let held = self.could_hold.as_ref().map(|held| -> Vec<Value> {
            held.iter()
                .map(|value| value.as_ref().map_or(Value::Null, |value| to_json(value)))
                .collect()
        });
        json!({
            "key": to_json(&self.key),
            "operations": self.operations,
            "window": rows,
            "optional_more": self.optional_more,
            "could_hold": held,
            "least": self.is_least,
        })
    }
}

/// A key that could not be decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndecidedKey {
    /// The key.
    pub key: Bytes,
    /// What ran out.
    pub exhausted: Exhausted,
}

impl UndecidedKey {
    const fn why(&self) -> &'static str {
        match self.exhausted {
            Exhausted::Steps => {
                "the search ran out of steps: give it more, or record fewer operations a key"
            }
            Exhausted::Memory => {
                "the search ran out of memory: give it more, or record fewer operations a key"
            }
        }
    }
}

/// The outcome of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What the history was held to.
    pub model: Model,
    /// How many keys it has.
    pub keys: usize,
    /// How its operations ended.
    pub outcomes: OutcomeCounts,
    /// Reads that no checker of single keys looks at (scans, watches).
    pub reads_not_checked: u64,
    /// What the search cost.
    pub steps: u64,
    /// Keys that are not linearizable.
    pub violations: Vec<Violation>,
    /// How many more of these there are.
    pub violations_not_shown: usize,
    /// Keys that could not be decided.
    pub undecided: Vec<UndecidedKey>,
}

impl Report {
    pub(super) fn new(model: Model, history: &History) -> Self {
        Self {
            model,
            keys: history.by_key().len(),
            outcomes: OutcomeCounts::of(history),
            reads_not_checked: history.reads_not_checked(),
            steps: 0,
            violations: Vec::new(),
            violations_not_shown: 0,
            undecided: Vec::new(),
        }
    }

    /// The verdict.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        if !self.violations.is_empty() {
            Verdict::NotLinearizable
        } else if !self.undecided.is_empty() {
            Verdict::Undecided
        } else {
            Verdict::Linearizable
        }
    }

    /// The verdict on the first line, then its reasons, ending with a line break.
    #[must_use]
    pub fn to_text(&self) -> String {
        let OutcomeCounts {
            ok,
            failed,
            unknown,
        } = self.outcomes;
        let mut text = format!(
            "{}\n  model {}, {} keys, {ok} operations ok, {failed} failed, {unknown} unknown\n",
            self.verdict().name(),
            self.model,
            self.keys,
        );
        if self.reads_not_checked > 0 {
            text += &format!(
                "  {} scans and watches were not checked\n",
                self.reads_not_checked
            );
        }
        for violation in &self.violations {
            text += "\n";
            text += &timeline_text::violation(violation);
        }
        if self.violations_not_shown > 0 {
            text += &format!(
                "\n{} more keys are not linearizable\n",
                self.violations_not_shown
            );
        }
        for undecided in &self.undecided {
            text += &format!("\nkey {}: {}\n", Shown(&undecided.key), undecided.why());
        }
        text
    }

    /// The same as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let violations: Vec<Value> = self.violations.iter().map(Violation::to_json).collect();
        let undecided: Vec<Value> = self
            .undecided
            .iter()
            .map(|undecided| json!({ "key": to_json(&undecided.key), "why": undecided.why() }))
            .collect();
        json!({
            "verdict": self.verdict().name(),
            "model": self.model.name(),
            "keys": self.keys,
            "ok": self.outcomes.ok,
            "failed": self.outcomes.failed,
            "unknown": self.outcomes.unknown,
            "reads_not_checked": self.reads_not_checked,
            "steps": self.steps,
            "violations": violations,
            "violations_not_shown": self.violations_not_shown,
            "undecided": undecided,
        })
    }
}

/// An outcome in words.
pub(super) fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok(answer) => answer.to_string(),
        Outcome::Failed => "failed".to_owned(),
        Outcome::Unknown => "unknown".to_owned(),
    }
}
