//! What a write brings along for the head's decision, read on the caller's task and not on the driver's.

use catena_proto::errors::Refusal;
use catena_proto::ids::ShardId;
use catena_proto::op::{Command, Row, WriteOp};

use super::reads::engine_failed;
use super::shared::Shared;
use crate::replica::{KeyState, Prior, Request};

/// The key's row in the engine, for commands that are decided by it.
///
/// A key in the overlay needs no row: the head looks there first. If it has left
/// the overlay by then, the head asks again, and `surely` reads the row in any case.
pub(crate) fn prior(
    shared: &Shared,
    shard: ShardId,
    command: &Command,
    surely: bool,
) -> Result<Option<Prior>, Refusal> {
    let Command::Write { key, op } = command else {
        return Ok(None);
    };
    if !op.needs_prior() {
        return Ok(None);
    }
    let Some(held) = shared.shard(shard) else {
        return Ok(None);
    };
    // The position first, the row second: the row is at least as new as the position says.
    let as_of = {
        let replica = held.replica.read();
        if !surely && replica.key_state(key) != KeyState::InEngine {
            return Ok(None);
        }
        replica.applied()
    };
    let row = shared.engine.get(key).map_err(|e| engine_failed(&e))?;
    Ok(Some(Prior {
        as_of,
        row: row.map(|r| Row {
            value: r.value,
            version: r.version,
        }),
    }))
}

/// Bytes that a request takes in queues.
pub(crate) fn weight(request: &Request) -> usize {
    let fixed = size_of::<Request>();
    match &request.command {
        Command::Write { key, op } => {
            let value = match op {
                WriteOp::Put { value } | WriteOp::Cas { value, .. } => value.len(),
                WriteOp::Append { suffix } => suffix.len(),
                WriteOp::Delete | WriteOp::Incr { .. } => 0,
            };
            fixed + key.len() + value
        }
        Command::OpenSession | Command::CloseSession(_) => fixed,
    }
}
