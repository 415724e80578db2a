//! A recorded run in memory: operations in the order of their calls.
//!
//! Every format parser and every in-process recorder (the simulation) builds
//! its history through [`History::invoke`] and [`History::complete`], so the
//! rules of a well-formed history are kept in one place: a process has one
//! operation in flight; an answer fits its request; what is still open at the
//! end is *unknown*. A process may go on after an unknown outcome.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::operation::{Moment, Op, Operation, Outcome, Process};

/// Most events that one history may hold: positions are 32-bit.
pub const EVENTS_MAX: u32 = u32::MAX - 1;

/// Why an event cannot follow the ones before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// A process called while its last operation was open.
    #[error(
        "process {0} calls an operation while its last one is open: record `ok`, `fail` or `info` for that one first"
    )]
    StillOpen(u64),
    /// A process ended an operation that it had not called.
    #[error("process {0} ends an operation that it did not call: record its `invoke` first")]
    NotOpen(u64),
    /// The answer belongs to another kind of request.
    #[error("process {process} was answered something that is no answer to `{op}`")]
    WrongAnswer {
        /// The process.
        process: u64,
        /// The open operation's name.
        op: &'static str,
    },
    /// There is no room for another position.
    #[error("the history has more than {EVENTS_MAX} events: split it by key, and check each part")]
    TooLong,
}

/// A recorded run.
#[derive(Clone, Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
    /// The index of each process's open operation.
    open: BTreeMap<Process, usize>,
    moments: u32,
    reads_not_checked: u64,
}

impl History {
    /// An empty history.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Records that `process` calls `op` now; the recorder must do so *before* the request leaves.
    ///
    /// # Errors
    /// When the process has an operation in flight, or the history is full.
    pub fn invoke(
        &mut self,
        process: Process,
        key: Bytes,
        op: Op,
        time_ns: Option<u64>,
    ) -> Result<(), HistoryError> {
        if self.open.contains_key(&process) {
            return Err(HistoryError::StillOpen(process.get()));
        }
        let call = self.next_moment()?;
        self.open.insert(process, self.operations.len());
        self.operations.push(Operation {
            process,
            key,
            op,
            call,
            end: None,
            outcome: Outcome::Unknown,
            call_time_ns: time_ns,
            end_time_ns: None,
        });
        Ok(())
    }

    /// Records how the operation in flight of `process` ended; the recorder must do so *after* the answer came.
    ///
    /// # Errors
    /// When the process has none in flight, the answer is no answer to it, or the history is full.
    pub fn complete(
        &mut self,
        process: Process,
        outcome: Outcome,
        time_ns: Option<u64>,
    ) -> Result<(), HistoryError> {
        let Some(&index) = self.open.get(&process) else {
            return Err(HistoryError::NotOpen(process.get()));
        };
        let end = self.next_moment()?;
        let Some(operation) = self.operations.get_mut(index) else {
            return Err(HistoryError::NotOpen(process.get()));
        };
        if let Outcome::Ok(answer) = &outcome
            && !answer.fits(&operation.op)
        {
            return Err(HistoryError::WrongAnswer {
                process: process.get(),
                op: operation.op.name(),
            });
        }
        operation.end = Some(end);
        operation.outcome = outcome;
        operation.end_time_ns = time_ns;
        self.open.remove(&process);
        Ok(())
    }

    /// The request that `process` has in flight.
    #[must_use]
    pub fn in_flight(&self, process: Process) -> Option<&Operation> {
        self.operations.get(*self.open.get(&process)?)
    }

    /// Counts a read that no checker of single keys understands (a scan), so that the report can say so.
    pub fn note_read_not_checked(&mut self) {
        self.reads_not_checked += 1;
    }

    /// How many reads [`History::note_read_not_checked`] counted.
    #[must_use]
    pub const fn reads_not_checked(&self) -> u64 {
        self.reads_not_checked
    }

    /// All operations in the order of their calls.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The operations of each key, in the order of their calls.
    #[must_use]
    pub fn by_key(&self) -> BTreeMap<&Bytes, Vec<&Operation>> {
        let mut keys: BTreeMap<&Bytes, Vec<&Operation>> = BTreeMap::new();
        for operation in &self.operations {
            keys.entry(&operation.key).or_default().push(operation);
        }
        keys
    }

    fn next_moment(&mut self) -> Result<Moment, HistoryError> {
        if self.moments >= EVENTS_MAX {
            return Err(HistoryError::TooLong);
        }
        let moment = Moment::new(self.moments);
        self.moments += 1;
        Ok(moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::operation::Answer;

    fn key() -> Bytes {
        Bytes::from_static(b"k")
    }

    #[test]
    fn a_process_has_one_operation_in_flight() {
        let p = Process::new(1);
        let mut history = History::new();
        history.invoke(p, key(), Op::Get, None).expect("first call");
        assert_eq!(
            history.invoke(p, key(), Op::Get, None),
            Err(HistoryError::StillOpen(1))
        );
        history
            .complete(p, Outcome::Unknown, None)
            .expect("its end");
        history
            .invoke(p, key(), Op::Get, None)
            .expect("goes on after an unknown outcome");
    }

    #[test]
    fn what_is_still_open_at_the_end_is_unknown() {
        let mut history = History::new();
        history
            .invoke(Process::new(1), key(), Op::Delete, None)
            .expect("call");
        assert_eq!(history.operations()[0].outcome, Outcome::Unknown);
        assert_eq!(history.operations()[0].end, None);
    }

    #[test]
    fn an_answer_of_another_kind_is_refused() {
        let p = Process::new(1);
        let mut history = History::new();
        history.invoke(p, key(), Op::Get, None).expect("call");
        let written = Outcome::Ok(Answer::Written { version: None });
        assert_eq!(
            history.complete(p, written, None),
            Err(HistoryError::WrongAnswer {
                process: 1,
                op: "get"
            })
        );
        assert_eq!(
            history.complete(Process::new(2), Outcome::Failed, None),
            Err(HistoryError::NotOpen(2))
        );
    }
}
