//! The bytes of the second key space: the engine's format, and each shard's progress, sessions and unfinished wipe.
//!
//! Keys begin with a tag and continue with big-endian numbers, so that a
//! shard's sessions lie together in order, each before its slots. An entry is
//! `crc32 | payload`; the checksum covers the key too.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use catena_proto::config::KeyRange;
use catena_proto::ids::{
    Epoch, Incarnation, LogTime, Origin, RequestNo, Seq, SessionId, ShardId, SlotNo,
};
use catena_proto::op::Outcome;

use super::rows::checksum;
use super::{EngineError, Progress, ScanProgress, SlotRow};

/// The format that this build writes: of keys, entries and rows together.
pub(super) const FORMAT: u32 = 1;

const TAG_FORMAT: u8 = 0;
const TAG_PROGRESS: u8 = 1;
const TAG_SESSION: u8 = 2;
const TAG_WIPE: u8 = 3;

/// A key of the second space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetaKey {
    /// The format version of the whole engine.
    Format,
    /// A shard's progress.
    Progress(ShardId),
    /// A session: when it was last used.
    Session(ShardId, SessionId),
    /// A slot of a session.
    Slot(ShardId, SessionId, SlotNo),
    /// A wipe that was begun and not ended.
    Wipe(ShardId),
}

impl MetaKey {
    /// The key's bytes.
    pub(super) fn encode(self) -> Vec<u8> {
        let mut key = Vec::with_capacity(19);
        match self {
            Self::Format => key.put_u8(TAG_FORMAT),
            Self::Progress(shard) => {
                key.put_u8(TAG_PROGRESS);
                key.put_u64(shard.get());
            }
            Self::Session(shard, session) => {
                key.put_u8(TAG_SESSION);
                key.put_u64(shard.get());
                key.put_u64(session.get());
            }
            Self::Slot(shard, session, slot) => {
                key = Self::Session(shard, session).encode();
                key.put_u16(slot.get());
            }
            Self::Wipe(shard) => {
                key.put_u8(TAG_WIPE);
                key.put_u64(shard.get());
            }
        }
        key
    }

    /// Reads a key back; `None` for one that this build never writes.
    pub(super) fn decode(mut key: &[u8]) -> Option<Self> {
        let tag = key.try_get_u8().ok()?;
        if tag == TAG_FORMAT {
            return key.is_empty().then_some(Self::Format);
        }
        let shard = ShardId::new(key.try_get_u64().ok()?);
        let found = match tag {
            TAG_PROGRESS => Self::Progress(shard),
            TAG_WIPE => Self::Wipe(shard),
            TAG_SESSION => {
                let session = SessionId::new(key.try_get_u64().ok()?);
                if key.is_empty() {
                    Self::Session(shard, session)
                } else {
                    Self::Slot(shard, session, SlotNo::new(key.try_get_u16().ok()?))
                }
            }
            _ => return None,
        };
        key.is_empty().then_some(found)
    }
}

/// The keys that begin with `prefix`: from it up to the returned key, exclusively.
pub(super) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// The prefix of all sessions of a shard.
pub(super) fn sessions_prefix(shard: ShardId) -> Vec<u8> {
    let mut key = vec![TAG_SESSION];
    key.put_u64(shard.get());
    key
}

/// The prefix of all unfinished wipes.
pub(super) fn wipes_prefix() -> Vec<u8> {
    vec![TAG_WIPE]
}

/// Appends an entry with its checksum.
pub(super) fn put_entry(buf: &mut BytesMut, key: &[u8], payload: &[u8]) {
    buf.put_u32_le(checksum(key, payload));
    buf.put_slice(payload);
}

/// The error for the entry under `key`.
pub(super) fn damaged(key: &[u8]) -> EngineError {
    let key = match MetaKey::decode(key) {
        Some(MetaKey::Format) => "the engine's format".to_owned(),
        Some(MetaKey::Progress(shard)) => format!("the progress of shard {shard}"),
        Some(MetaKey::Session(shard, session)) => format!("session {session} of shard {shard}"),
        Some(MetaKey::Slot(shard, session, slot)) => {
            format!("slot {} of session {session} of shard {shard}", slot.get())
        }
        Some(MetaKey::Wipe(shard)) => format!("the unfinished wipe of shard {shard}"),
        None => format!("the engine's own key \"{}\"", key.escape_ascii()),
    };
    EngineError::Damaged { key }
}

/// The payload of the entry under `key`, after its checksum was compared.
///
/// # Errors
/// [`EngineError::Damaged`].
pub(super) fn payload(key: &[u8], raw: &Bytes) -> Result<Bytes, EngineError> {
    match raw.split_first_chunk::<4>() {
        Some((crc, rest)) if u32::from_le_bytes(*crc) == checksum(key, rest) => Ok(raw.slice(4..)),
        _ => Err(damaged(key)),
    }
}

const HAS_ORIGIN: u8 = 1;
const HAS_SCAN: u8 = 2;
const HAS_CURSOR: u8 = 4;

/// The payload of a shard's progress.
pub(super) fn encode_progress(progress: &Progress) -> Vec<u8> {
    let mut flags = 0;
    let mut buf = Vec::with_capacity(64);
    buf.put_u8(0);
    buf.put_u64_le(progress.applied.get());
    buf.put_u64_le(progress.log_time.get());
    buf.put_u64_le(progress.merge_until.get());
    if let Some(origin) = progress.applied_origin {
        flags |= HAS_ORIGIN;
        buf.put_u64_le(origin.epoch.get());
        buf.put_u64_le(origin.incarnation.get());
    }
    if let Some(scan) = &progress.scan {
        flags |= HAS_SCAN;
        buf.put_u64_le(scan.page_no);
        if let Some(cursor) = &scan.cursor {
            flags |= HAS_CURSOR;
            buf.put_slice(cursor);
        }
    }
    buf[0] = flags;
    buf
}

/// Reads a shard's progress; `None` if it is malformed.
pub(super) fn decode_progress(mut from: Bytes) -> Option<Progress> {
    let flags = from.try_get_u8().ok()?;
    let mut progress = Progress {
        applied: Seq::new(from.try_get_u64_le().ok()?),
        log_time: LogTime::new(from.try_get_u64_le().ok()?),
        merge_until: Seq::new(from.try_get_u64_le().ok()?),
        ..Progress::default()
    };
    if flags & HAS_ORIGIN != 0 {
        progress.applied_origin = Some(Origin {
            epoch: Epoch::new(from.try_get_u64_le().ok()?),
            incarnation: Incarnation::new(from.try_get_u64_le().ok()?),
        });
    }
    if flags & HAS_SCAN != 0 {
        let page_no = from.try_get_u64_le().ok()?;
        let cursor = (flags & HAS_CURSOR != 0).then(|| std::mem::take(&mut from));
        progress.scan = Some(ScanProgress { cursor, page_no });
    }
    (from.is_empty() && flags & !(HAS_ORIGIN | HAS_SCAN | HAS_CURSOR) == 0).then_some(progress)
}

/// The payload of a session.
pub(super) fn encode_used(used: LogTime) -> [u8; 8] {
    used.get().to_le_bytes()
}

/// Reads a session; `None` if it is malformed.
pub(super) fn decode_used(from: &[u8]) -> Option<LogTime> {
    Some(LogTime::new(u64::from_le_bytes(from.try_into().ok()?)))
}

/// The payload of a slot.
pub(super) fn encode_slot(row: &SlotRow) -> Vec<u8> {
    let mut buf = Vec::with_capacity(40);
    buf.put_u64_le(row.no.get());
    buf.put_u64_le(row.seq.get());
    match row.outcome {
        Outcome::Written { version } => {
            buf.put_u8(0);
            buf.put_u64_le(version.get());
        }
        Outcome::Deleted { version, existed } => {
            buf.put_u8(1);
            buf.put_u64_le(version.get());
            buf.put_u8(u8::from(existed));
        }
        Outcome::CasFailed { actual: None } => buf.put_u8(2),
        Outcome::CasFailed {
            actual: Some(version),
        } => {
            buf.put_u8(3);
            buf.put_u64_le(version.get());
        }
        Outcome::Incremented { version, value } => {
            buf.put_u8(4);
            buf.put_u64_le(version.get());
            buf.put_i64_le(value);
        }
        Outcome::NotANumber => buf.put_u8(5),
        Outcome::Overflow => buf.put_u8(6),
        Outcome::ValueTooLarge => buf.put_u8(7),
        Outcome::SessionOpened { session } => {
            buf.put_u8(8);
            buf.put_u64_le(session.get());
        }
        Outcome::SessionClosed => buf.put_u8(9),
    }
    buf
}

/// Reads a slot; `None` if it is malformed.
pub(super) fn decode_slot(session: SessionId, slot: SlotNo, mut from: &[u8]) -> Option<SlotRow> {
    let no = RequestNo::new(from.try_get_u64_le().ok()?);
    let seq = Seq::new(from.try_get_u64_le().ok()?);
    let tag = from.try_get_u8().ok()?;
    let mut number = || from.try_get_u64_le().ok();
    let outcome = match tag {
        0 => Outcome::Written {
            version: Seq::new(number()?),
        },
        1 => Outcome::Deleted {
            version: Seq::new(number()?),
            existed: match from.try_get_u8().ok()? {
                0 => false,
                1 => true,
                _ => return None,
            },
        },
        2 => Outcome::CasFailed { actual: None },
        3 => Outcome::CasFailed {
            actual: Some(Seq::new(number()?)),
        },
        4 => Outcome::Incremented {
            version: Seq::new(number()?),
            value: from.try_get_i64_le().ok()?,
        },
        5 => Outcome::NotANumber,
        6 => Outcome::Overflow,
        7 => Outcome::ValueTooLarge,
        8 => Outcome::SessionOpened {
            session: SessionId::new(number()?),
        },
        9 => Outcome::SessionClosed,
        _ => return None,
    };
    from.is_empty().then_some(SlotRow {
        session,
        slot,
        no,
        seq,
        outcome,
    })
}

/// The payload of an unfinished wipe: the range whose rows go.
pub(super) fn encode_wipe(range: &KeyRange) -> Vec<u8> {
    let mut buf =
        Vec::with_capacity(5 + range.start.len() + range.end.as_ref().map_or(0, Bytes::len));
    buf.put_u8(u8::from(range.end.is_some()));
    buf.put_u32_le(u32::try_from(range.start.len()).unwrap_or(u32::MAX));
    buf.put_slice(&range.start);
    if let Some(end) = &range.end {
        buf.put_slice(end);
    }
    buf
}

/// Reads an unfinished wipe; `None` if it is malformed.
pub(super) fn decode_wipe(mut from: Bytes) -> Option<KeyRange> {
    let has_end = from.try_get_u8().ok()?;
    let start_len = usize::try_from(from.try_get_u32_le().ok()?).ok()?;
    if start_len > from.len() {
        return None;
    }
    let start = from.split_to(start_len);
    match has_end {
        0 if from.is_empty() => Some(KeyRange { start, end: None }),
        1 => Some(KeyRange {
            start,
            end: Some(from),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slot(outcome: Outcome) -> SlotRow {
        SlotRow {
            session: SessionId::new(7),
            slot: SlotNo::new(3),
            no: RequestNo::new(9),
            seq: Seq::new(11),
            outcome,
        }
    }

    #[test]
    fn every_outcome_round_trips() {
        let version = Seq::new(u64::MAX);
        let session = SessionId::new(1);
        for outcome in [
            Outcome::Written { version },
            Outcome::Deleted {
                version,
                existed: true,
            },
            Outcome::Deleted {
                version,
                existed: false,
            },
            Outcome::CasFailed { actual: None },
            Outcome::CasFailed {
                actual: Some(version),
            },
            Outcome::Incremented { version, value: -5 },
            Outcome::NotANumber,
            Outcome::Overflow,
            Outcome::ValueTooLarge,
            Outcome::SessionOpened { session },
            Outcome::SessionClosed,
        ] {
            let row = slot(outcome);
            let bytes = encode_slot(&row);
            assert_eq!(decode_slot(row.session, row.slot, &bytes), Some(row));
            assert_eq!(
                decode_slot(row.session, row.slot, &bytes[..bytes.len() - 1]),
                None
            );
            assert_eq!(
                decode_slot(row.session, row.slot, &[&bytes[..], &[0]].concat()),
                None
            );
        }
    }

    #[test]
    fn keys_round_trip_and_sort_a_session_before_its_slots() {
        let (shard, session) = (ShardId::new(2), SessionId::new(5));
        let keys = [
            MetaKey::Format,
            MetaKey::Progress(shard),
            MetaKey::Session(shard, session),
            MetaKey::Slot(shard, session, SlotNo::new(0)),
            MetaKey::Slot(shard, session, SlotNo::new(u16::MAX)),
            MetaKey::Session(shard, session.next()),
            MetaKey::Wipe(shard),
        ];
        for pair in keys.windows(2) {
            assert!(pair[0].encode() < pair[1].encode(), "{pair:?}");
        }
        for key in keys {
            assert_eq!(MetaKey::decode(&key.encode()), Some(key));
        }
        assert_eq!(prefix_end(&[1, 255, 255]), Some(vec![2]));
        assert_eq!(prefix_end(&[255]), None);
    }

    fn any_progress() -> impl Strategy<Value = Progress> {
        let origin = proptest::option::of((any::<u64>(), any::<u64>()));
        let cursor = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9));
        let scan = proptest::option::of((cursor, any::<u64>()));
        (any::<[u64; 3]>(), origin, scan).prop_map(
            |([applied, log_time, merge_until], origin, scan)| Progress {
                applied: Seq::new(applied),
                applied_origin: origin.map(|(epoch, incarnation)| Origin {
                    epoch: Epoch::new(epoch),
                    incarnation: Incarnation::new(incarnation),
                }),
                log_time: LogTime::new(log_time),
                merge_until: Seq::new(merge_until),
                scan: scan.map(|(cursor, page_no)| ScanProgress {
                    cursor: cursor.map(Bytes::from),
                    page_no,
                }),
            },
        )
    }

    proptest! {
        #[test]
        fn progress_round_trips(progress in any_progress()) {
            prop_assert_eq!(decode_progress(encode_progress(&progress).into()), Some(progress));
        }

        #[test]
        fn wipes_round_trip(start in any::<Vec<u8>>(), end in any::<Option<Vec<u8>>>()) {
            let range = KeyRange { start: start.into(), end: end.map(Bytes::from) };
            prop_assert_eq!(decode_wipe(encode_wipe(&range).into()), Some(range));
        }

        #[test]
        fn no_bytes_panic(raw in proptest::collection::vec(any::<u8>(), 0..80)) {
            let raw = Bytes::from(raw);
            let _ = MetaKey::decode(&raw);
            let _ = payload(b"k", &raw);
            let _ = decode_progress(raw.clone());
            let _ = decode_used(&raw);
            let _ = decode_slot(SessionId::new(1), SlotNo::new(1), &raw);
            let _ = decode_wipe(raw);
        }
    }
}
