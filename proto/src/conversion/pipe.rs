//! `kv.proto`, the pipe: calls and answers that travel in frames.

use std::time::Duration;

use bytes::Bytes;

use super::kv::request;
use super::{ParseError, key, value};
use crate::call::{Answer, Call, CallBody, CallId, Freshness, StaleBound};
use crate::errors::Refusal;
use crate::ids::{Epoch, Seq, SessionId, ShardId};
use crate::op::{Command, Expect, Outcome, Row, WriteOp};
use crate::{limits, wire};

/// Whether a frame's number of requests is within its limit; looked at before any of them is.
///
/// # Errors
/// [`ParseError::TooMany`].
pub fn check_frame(frame: &wire::PipeRequest) -> Result<(), ParseError> {
    let count = frame.requests.len();
    let max = limits::PIPE_FRAME_REQUESTS_MAX;
    if count > max {
        let field = "requests";
        return Err(ParseError::TooMany { field, count, max });
    }
    Ok(())
}

impl From<Call> for wire::Request {
    fn from(call: Call) -> Self {
        use wire::request::Op;
        let mut key_part = Bytes::new();
        let mut session = None;
        let op = match call.body {
            CallBody::Get { key, stale } => {
                key_part = key;
                Op::Get(wire::PipeGet {
                    stale: stale.map(wire::Stale::from),
                })
            }
            CallBody::Command { request, command } => {
                session = request.map(wire::SessionRef::from);
                match command {
                    Command::Write { key, op } => {
                        key_part = key;
                        write_op(op)
                    }
                    Command::OpenSession => Op::OpenSession(wire::PipeOpenSession {}),
                    Command::CloseSession(id) => Op::CloseSession(id.get()),
                }
            }
        };
        Self {
            id: call.id.get(),
            shard_id: call.shard.get(),
            epoch: call.epoch.unwrap_or(Epoch::ZERO).get(),
            timeout_ms: call.timeout.map_or(0, timeout_ms),
            session,
            key: key_part,
            op: Some(op),
        }
    }
}

/// In whole milliseconds, at least one: zero would leave the deadline to the node.
fn timeout_ms(timeout: Duration) -> u32 {
    u32::try_from(timeout.as_millis())
        .unwrap_or(u32::MAX)
        .max(1)
}

fn write_op(op: WriteOp) -> wire::request::Op {
    use wire::pipe_cas::Expect as Wire;
    use wire::request::Op;
    match op {
        WriteOp::Put { value } => Op::Put(value),
        WriteOp::Delete => Op::Delete(wire::PipeDelete {}),
        WriteOp::Cas { expect, value } => Op::Cas(wire::PipeCas {
            expect: Some(match expect {
                Expect::Version(version) => Wire::Version(version.get()),
                Expect::Value(old) => Wire::OldValue(old),
                Expect::Absent => Wire::Absent(true),
            }),
            value,
        }),
        WriteOp::Incr { by } => Op::Increment(by),
        WriteOp::Append { suffix } => Op::Append(suffix),
    }
}

impl TryFrom<wire::Request> for Call {
    type Error = ParseError;

    fn try_from(from: wire::Request) -> Result<Self, ParseError> {
        use wire::request::Op;
        let op = from.op.ok_or(ParseError::Missing("op"))?;
        let body = match op {
            Op::Get(get) => CallBody::Get {
                key: key(from.key)?,
                stale: get.stale.map(StaleBound::from),
            },
            Op::OpenSession(_) => CallBody::Command {
                request: None,
                command: Command::OpenSession,
            },
            Op::CloseSession(id) => CallBody::Command {
                request: None,
                command: Command::CloseSession(SessionId::new(id)),
            },
            op => CallBody::Command {
                request: request(from.session)?,
                command: Command::Write {
                    key: key(from.key)?,
                    op: parse_write_op(op)?,
                },
            },
        };
        Ok(Self {
            id: CallId::new(from.id),
            shard: ShardId::new(from.shard_id),
            epoch: (from.epoch > 0).then(|| Epoch::new(from.epoch)),
            timeout: (from.timeout_ms > 0).then(|| Duration::from_millis(from.timeout_ms.into())),
            body,
        })
    }
}

fn parse_write_op(op: wire::request::Op) -> Result<WriteOp, ParseError> {
    use wire::pipe_cas::Expect as Wire;
    use wire::request::Op;
    Ok(match op {
        Op::Put(new) => WriteOp::Put {
            value: value("put", new)?,
        },
        Op::Delete(_) => WriteOp::Delete,
        Op::Cas(cas) => WriteOp::Cas {
            expect: match cas.expect {
                Some(Wire::Version(version)) => Expect::Version(Seq::new(version)),
                Some(Wire::OldValue(old)) => Expect::Value(value("old_value", old)?),
                Some(Wire::Absent(true)) => Expect::Absent,
                Some(Wire::Absent(false)) | None => return Err(ParseError::Missing("expect")),
            },
            value: value("value", cas.value)?,
        },
        Op::Increment(by) => WriteOp::Incr { by },
        Op::Append(suffix) => WriteOp::Append {
            suffix: value("append", suffix)?,
        },
        Op::Get(_) | Op::OpenSession(_) | Op::CloseSession(_) => {
            return Err(ParseError::Missing("op"));
        }
    })
}

/// The answer to `id`, for a frame.
#[must_use]
pub fn response(id: CallId, answer: Answer) -> wire::Response {
    use wire::response::Result as Wire;
    let result = match answer {
        Answer::Row { row, freshness } => Wire::Row(wire::PipeRow {
            value: row.value,
            version: row.version.get(),
            applied_seq: freshness.applied.get(),
            lag_ms: freshness.lag_ms,
        }),
        Answer::Absent { freshness } => Wire::Absent(wire::PipeAbsent {
            applied_seq: freshness.applied.get(),
            lag_ms: freshness.lag_ms,
        }),
        Answer::Outcome(outcome) => Wire::Outcome(outcome.into()),
        Answer::Refused(refusal) => Wire::Error((&refusal).into()),
    };
    wire::Response {
        id: id.get(),
        result: Some(result),
    }
}

/// Reads an answer from a frame.
///
/// # Errors
/// The answer's parts break a limit, or its kind is not known. Whether the request was executed is then not known either.
pub fn answer(result: Option<wire::response::Result>) -> Result<Answer, ParseError> {
    use wire::response::Result as Wire;
    Ok(match result.ok_or(ParseError::Missing("result"))? {
        Wire::Row(row) => Answer::Row {
            freshness: Freshness {
                applied: Seq::new(row.applied_seq),
                lag_ms: row.lag_ms,
            },
            row: Row {
                value: value("value", row.value)?,
                version: Seq::new(row.version),
            },
        },
        Wire::Absent(absent) => Answer::Absent {
            freshness: Freshness {
                applied: Seq::new(absent.applied_seq),
                lag_ms: absent.lag_ms,
            },
        },
        Wire::Outcome(outcome) => Answer::Outcome(Outcome::try_from(outcome)?),
        Wire::Error(error) => Answer::Refused(Refusal::from(error)),
    })
}
