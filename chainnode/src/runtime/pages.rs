//! Pages of this node's state for a follower that scans (rule M4).

use bytes::{BufMut, Bytes, BytesMut};
use catena_proto::config::KeyRange;
use catena_proto::ids::ShardId;
use catena_proto::limits;
use catena_proto::message::{SessionState, SlotState, StatePage, StateRow};
use catena_proto::record::ORIGIN_NONE;

use super::shared::{Shared, Work};
use crate::engine::{EngineError, PageLimit, StoredSession};
use crate::replica::{Input, PageRead};

/// Reads a page from one view of the engine and hands it to the replica.
pub(crate) fn serve(shared: &Shared, shard: ShardId, range: &KeyRange, read: &PageRead) {
    match read_page(shared, shard, range, read) {
        Ok(page) => {
            let input = Input::PageRead {
                to: read.to,
                page: Box::new(page),
            };
            shared.inbox.push(Work::Input { shard, input });
        }
        Err(why) => {
            tracing::error!(shard = shard.get(), %why, "a page of the state cannot be read")
        }
    }
}

fn read_page(
    shared: &Shared,
    shard: ShardId,
    range: &KeyRange,
    read: &PageRead,
) -> Result<StatePage, EngineError> {
    let view = shared.engine.view()?;
    let progress = view.progress(shard)?;
    let start = read
        .after
        .as_ref()
        .map_or_else(|| range.start.clone(), key_after);
    let rest = KeyRange {
        start,
        end: range.end.clone(),
    };
    let limit = PageLimit {
        rows: limits::SCAN_PAGE_ROWS_MAX,
        bytes: limits::SCAN_PAGE_BYTES_MAX,
    };
    let page = view.page(&rest, limit, false)?;
    let sessions = if read.page_no == 0 {
        view.sessions(shard)?
    } else {
        Vec::new()
    };
    Ok(StatePage {
        link: read.link,
        page_no: read.page_no,
        applied: progress.applied,
        applied_origin: progress.applied_origin.unwrap_or(ORIGIN_NONE),
        log_time: progress.log_time,
        rows: page
            .rows
            .into_iter()
            .map(|(key, row)| StateRow {
                key,
                value: row.value,
                version: row.version,
                expires: row.expires,
            })
            .collect(),
        last: !page.more,
        sessions: sessions.into_iter().map(session_state).collect(),
    })
}

/// A session as replicas exchange it.
pub(crate) fn session_state(stored: StoredSession) -> SessionState {
    SessionState {
        session: stored.session,
        used: stored.used,
        slots: stored
            .slots
            .into_iter()
            .map(|s| SlotState {
                slot: s.slot,
                no: s.no,
                seq: s.seq,
                outcome: s.outcome,
            })
            .collect(),
    }
}

/// The smallest key after this one.
pub(crate) fn key_after(key: &Bytes) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.put_u8(0);
    next.freeze()
}
