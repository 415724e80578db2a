//! What Jepsen's events mean, whichever way they were written down.
//!
//! - `:info` is *unknown*, and its process may call again.
//! - `:fail` of a `:cas` that repeats its arguments is the observation that
//!   the comparison did not match (this is how the etcd histories were
//!   recorded, and what their verdicts rest on); any other `:fail`, such as
//!   `:timed-out` of a read, only says that nothing was done.
//! - Events of processes that are no numbers (`:nemesis`) concern no client.

use bytes::Bytes;

use super::edn::Edn;
use super::history::{History, HistoryError};
use super::operation::{Answer, Expect, Op, Outcome, Process};
use super::parse::LineProblem;

/// One event, in Jepsen's words.
#[derive(Debug)]
pub(super) struct JepsenEvent<'a> {
    /// The client.
    pub(super) process: Process,
    /// `invoke`, `ok`, `fail` or `info`.
    pub(super) kind: &'a str,
    /// The function's name.
    pub(super) function: &'a str,
    /// The key; histories of a single register have none.
    pub(super) key: Bytes,
    /// Argument or result.
    pub(super) value: &'a Edn,
    /// Whether the event names an error.
    pub(super) has_error: bool,
    /// Nanoseconds since the start of the run.
    pub(super) time_ns: Option<u64>,
}

impl JepsenEvent<'_> {
    /// Adds the event to a history.
    pub(super) fn add_to(&self, history: &mut History) -> Result<(), LineProblem> {
        if self.kind == "invoke" {
            return Ok(history.invoke(self.process, self.key.clone(), self.op()?, self.time_ns)?);
        }
        let Some(open) = history.in_flight(self.process) else {
            return Err(HistoryError::NotOpen(self.process.get()).into());
        };
        let outcome = match self.kind {
            "ok" => Outcome::Ok(self.answer(&open.op)?),
            "fail" if self.is_mismatch(&open.op) => Outcome::Ok(Answer::Mismatch { version: None }),
            "fail" => Outcome::Failed,
            "info" => Outcome::Unknown,
            other => {
                return Err(LineProblem::Unsupported {
                    what: ":type",
                    found: other.to_owned(),
                });
            }
        };
        Ok(history.complete(self.process, outcome, self.time_ns)?)
    }

    fn op(&self) -> Result<Op, LineProblem> {
        Ok(match self.function {
            "read" | "get" => Op::Get,
            "write" | "put" => Op::Put {
                value: self.bytes()?,
            },
            "append" => Op::Append {
                value: self.bytes()?,
            },
            "delete" => Op::Delete,
            "add" | "incr" | "inc" => match self.value {
                Edn::Int(by) => Op::Incr { by: *by },
                Edn::Nil => Op::Incr { by: 1 },
                _ => {
                    return Err(LineProblem::Field {
                        name: ":value",
                        wanted: "a number",
                    });
                }
            },
            "cas" => match self.value {
                Edn::Vector(pair) => match (pair.first().map(scalar), pair.get(1).map(scalar)) {
                    (Some(Some(old)), Some(Some(new))) if pair.len() == 2 => Op::Cas {
                        expect: old.map_or(Expect::Absent, Expect::Value),
                        value: new.ok_or(PAIR)?,
                    },
                    _ => return Err(PAIR),
                },
                _ => return Err(PAIR),
            },
            other => {
                return Err(LineProblem::Unsupported {
                    what: ":f",
                    found: other.to_owned(),
                });
            }
        })
    }

    fn answer(&self, op: &Op) -> Result<Answer, LineProblem> {
        Ok(match op {
            Op::Get => Answer::Read {
                value: scalar(self.value).ok_or(SCALAR)?,
                version: None,
            },
            Op::Put { .. } | Op::Append { .. } | Op::Cas { .. } => {
                Answer::Written { version: None }
            }
            Op::Delete => Answer::Deleted {
                existed: None,
                version: None,
            },
            Op::Incr { .. } => Answer::Counted {
                value: None,
                version: None,
            },
        })
    }

    fn is_mismatch(&self, op: &Op) -> bool {
        matches!(op, Op::Cas { .. }) && !self.has_error && self.op().is_ok_and(|same| same == *op)
    }

    fn bytes(&self) -> Result<Bytes, LineProblem> {
        scalar(self.value).flatten().ok_or(SCALAR)
    }
}

const SCALAR: LineProblem = LineProblem::Field {
    name: ":value",
    wanted: "a string or a number",
};
const PAIR: LineProblem = LineProblem::Field {
    name: ":value",
    wanted: "a pair [old new]",
};

/// `nil` as absent, a string or number as its bytes; `None` for anything else.
pub(super) fn scalar(value: &Edn) -> Option<Option<Bytes>> {
    match value {
        Edn::Nil => Some(None),
        Edn::Int(number) => Some(Some(Bytes::from(number.to_string()))),
        Edn::Text(text) => Some(Some(Bytes::copy_from_slice(text.as_bytes()))),
        _ => None,
    }
}
