//! What a log holds: records of decided effects, in groups of one origin.
//!
//! A record says what *became* of a request, not what was asked (DESIGN §3.1),
//! so applying it needs no clock and no read. A group is encoded once, by the
//! head that made it; its bytes are logged, forwarded and re-sent as they are.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::ids::{Incarnation, LogTime, Origin, RequestNo, Seq, SessionId, ShardId, SlotNo};
use crate::limits;
use crate::op::{Outcome, RequestId};

/// A contiguous batch of records of one origin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// The head that made it (rule L1).
    pub origin: Origin,
    /// The first record's `seq`.
    pub first: Seq,
    /// The last record's `seq`; `first <= last`.
    pub last: Seq,
    /// The records, each behind its length.
    pub records: Bytes,
}

/// One decided request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// The replicated clock at the head when it decided.
    pub at: LogTime,
    /// The request that it answers, if it came in a session.
    pub request: Option<RequestId>,
    /// What the client is told.
    pub outcome: Outcome,
    /// What changes; at most one per key.
    pub effects: Vec<Effect>,
    /// A session that it opens or closes.
    pub session: SessionChange,
}

/// A key's new state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Effect {
    /// The key.
    pub key: Bytes,
    /// The new value, or `None` for a tombstone.
    pub value: Option<Bytes>,
    /// When it expires; `None` is never.
    pub expires: Option<LogTime>,
}

/// What a record does to the table of sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SessionChange {
    /// Nothing, besides the result that the request's slot keeps.
    #[default]
    None,
    /// A session opens; its id is the record's `seq`.
    Open,
    /// A session and its results are forgotten.
    Close(SessionId),
}

/// Why bytes are not a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// They end early, or continue where they should end.
    #[error("a record is {0}: the sender or the log is damaged")]
    Malformed(&'static str),
    /// They exceed a limit.
    #[error("a group of {bytes} bytes exceeds the limit of {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The checksum does not fit what the group says and where it belongs.
    #[error("the checksum of the group at seq {first} of shard {shard} does not match")]
    Checksum {
        /// The shard it claims.
        shard: ShardId,
        /// The `seq` it claims.
        first: Seq,
    },
}

impl Group {
    /// How many records it holds.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.last.since(self.first) + 1
    }

    /// Its weight in queues and windows, in bytes.
    #[must_use]
    pub const fn weight(&self) -> usize {
        self.records.len() + 64
    }

    /// A checksum that binds the records and where they belong (DESIGN §3.1).
    #[must_use]
    pub fn checksum(&self, shard: ShardId) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        for part in [
            shard.get(),
            self.origin.epoch.get(),
            self.origin.incarnation.get(),
            self.first.get(),
            self.last.get(),
        ] {
            crc.update(&part.to_le_bytes());
        }
        crc.update(&self.records);
        crc.finalize()
    }

    /// Decodes every record, in order, without copying keys or values.
    ///
    /// # Errors
    /// The bytes are not `count()` whole records, or break a limit.
    pub fn decode(&self) -> Result<Vec<(Seq, Record)>, RecordError> {
        if self.last < self.first || self.first == Seq::ZERO {
            return Err(RecordError::Malformed("numbered backwards"));
        }
        if self.records.len() > limits::GROUP_BYTES_MAX {
            return Err(RecordError::TooLarge {
                bytes: self.records.len(),
                max: limits::GROUP_BYTES_MAX,
            });
        }
        // A record takes at least a few bytes: a count beyond the bytes is a lie.
        if self.count() > self.records.len() as u64 {
            return Err(RecordError::Malformed("missing"));
        }
        let mut rest = self.records.clone();
        let mut records = Vec::with_capacity(usize::try_from(self.count()).unwrap_or(0));
        let mut seq = self.first;
        while seq <= self.last {
            let len = usize::try_from(get_varint(&mut rest)?)
                .map_err(|_| RecordError::Malformed("too long"))?;
            if len > rest.len() {
                return Err(RecordError::Malformed("cut short"));
            }
            records.push((seq, Record::decode(rest.split_to(len))?));
            seq = seq.next();
        }
        if rest.has_remaining() {
            return Err(RecordError::Malformed("followed by stray bytes"));
        }
        Ok(records)
    }

    /// The part of the group after `seq`; `None` if nothing is left.
    ///
    /// # Errors
    /// The bytes are not whole records.
    pub fn suffix_after(&self, seq: Seq) -> Result<Option<Self>, RecordError> {
        if seq < self.first {
            return Ok(Some(self.clone()));
        }
        if seq >= self.last {
            return Ok(None);
        }
        let rest = self.split_after(seq)?.1;
        Ok(Some(Self {
            first: seq.next(),
            records: rest,
            ..self.clone()
        }))
    }

    /// The part of the group up to `seq`; `None` if nothing is left.
    ///
    /// # Errors
    /// The bytes are not whole records.
    pub fn prefix_to(&self, seq: Seq) -> Result<Option<Self>, RecordError> {
        if seq >= self.last {
            return Ok(Some(self.clone()));
        }
        if seq < self.first {
            return Ok(None);
        }
        let head = self.split_after(seq)?.0;
        Ok(Some(Self {
            last: seq,
            records: head,
            ..self.clone()
        }))
    }

    fn split_after(&self, seq: Seq) -> Result<(Bytes, Bytes), RecordError> {
        let mut rest = self.records.clone();
        let mut at = self.first;
        while at <= seq {
            let len = usize::try_from(get_varint(&mut rest)?)
                .map_err(|_| RecordError::Malformed("too long"))?;
            if len > rest.len() {
                return Err(RecordError::Malformed("cut short"));
            }
            rest.advance(len);
            at = at.next();
        }
        let head = self.records.slice(..self.records.len() - rest.len());
        Ok((head, rest))
    }
}

/// Collects the records of one step into a group.
#[derive(Debug)]
pub struct GroupBuilder {
    origin: Origin,
    first: Seq,
    next: Seq,
    bytes: BytesMut,
    scratch: BytesMut,
}

impl GroupBuilder {
    /// An empty group that will start at `first`.
    #[must_use]
    pub fn new(origin: Origin, first: Seq) -> Self {
        Self {
            origin,
            first,
            next: first,
            bytes: BytesMut::new(),
            scratch: BytesMut::new(),
        }
    }

    /// Appends a record; its `seq` is the return value.
    pub fn push(&mut self, record: &Record) -> Seq {
        self.scratch.clear();
        record.encode(&mut self.scratch);
        put_varint(&mut self.bytes, self.scratch.len() as u64);
        self.bytes.extend_from_slice(&self.scratch);
        let seq = self.next;
        self.next = seq.next();
        seq
    }

    /// Bytes collected so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was pushed yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.next == self.first
    }

    /// Closes the group and starts the next one behind it; `None` if nothing was pushed.
    pub fn take(&mut self) -> Option<Group> {
        if self.is_empty() {
            return None;
        }
        let group = Group {
            origin: self.origin,
            first: self.first,
            last: self.next.prev(),
            records: self.bytes.split().freeze(),
        };
        self.first = self.next;
        Some(group)
    }
}

// The encoding of a record: flags, log time, then the parts that the flags name.
// Numbers are LEB128 varints. The version of this format is the log's.
const HAS_REQUEST: u8 = 1;
const OPENS_SESSION: u8 = 2;
const CLOSES_SESSION: u8 = 4;
const EFFECT_VALUE: u8 = 1;
const EFFECT_EXPIRES: u8 = 2;

impl Record {
    fn encode(&self, out: &mut BytesMut) {
        let mut flags = 0;
        if self.request.is_some() {
            flags |= HAS_REQUEST;
        }
        match self.session {
            SessionChange::None => {}
            SessionChange::Open => flags |= OPENS_SESSION,
            SessionChange::Close(_) => flags |= CLOSES_SESSION,
        }
        out.put_u8(flags);
        put_varint(out, self.at.get());
        if let Some(request) = self.request {
            put_varint(out, request.session.get());
            put_varint(out, u64::from(request.slot.get()));
            put_varint(out, request.no.get());
        }
        if let SessionChange::Close(id) = self.session {
            put_varint(out, id.get());
        }
        encode_outcome(&self.outcome, out);
        put_varint(out, self.effects.len() as u64);
        for effect in &self.effects {
            let mut flags = 0;
            if effect.value.is_some() {
                flags |= EFFECT_VALUE;
            }
            if effect.expires.is_some() {
                flags |= EFFECT_EXPIRES;
            }
            out.put_u8(flags);
            put_bytes(out, &effect.key);
            if let Some(value) = &effect.value {
                put_bytes(out, value);
            }
            if let Some(at) = effect.expires {
                put_varint(out, at.get());
            }
        }
    }

    fn decode(mut from: Bytes) -> Result<Self, RecordError> {
        let flags = get_u8(&mut from)?;
        if flags & !(HAS_REQUEST | OPENS_SESSION | CLOSES_SESSION) != 0 {
            return Err(RecordError::Malformed("of an unknown kind"));
        }
        let at = LogTime::new(get_varint(&mut from)?);
        let request = if flags & HAS_REQUEST != 0 {
            Some(RequestId {
                session: SessionId::new(get_varint(&mut from)?),
                slot: SlotNo::new(
                    u16::try_from(get_varint(&mut from)?)
                        .map_err(|_| RecordError::Malformed("naming an impossible slot"))?,
                ),
                no: RequestNo::new(get_varint(&mut from)?),
            })
        } else {
            None
        };
        let session = match flags & (OPENS_SESSION | CLOSES_SESSION) {
            0 => SessionChange::None,
            OPENS_SESSION => SessionChange::Open,
            CLOSES_SESSION => SessionChange::Close(SessionId::new(get_varint(&mut from)?)),
            _ => {
                return Err(RecordError::Malformed(
                    "opening and closing a session at once",
                ));
            }
        };
        let outcome = decode_outcome(&mut from)?;
        let count = get_varint(&mut from)?;
        if count > from.len() as u64 {
            return Err(RecordError::Malformed("cut short"));
        }
        let mut effects = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
        for _ in 0..count {
            let flags = get_u8(&mut from)?;
            let key = get_bytes(&mut from, limits::KEY_BYTES_MAX)?;
            let value = if flags & EFFECT_VALUE != 0 {
                Some(get_bytes(&mut from, limits::VALUE_BYTES_MAX)?)
            } else {
                None
            };
            let expires = if flags & EFFECT_EXPIRES != 0 {
                Some(LogTime::new(get_varint(&mut from)?))
            } else {
                None
            };
            effects.push(Effect {
                key,
                value,
                expires,
            });
        }
        if from.has_remaining() {
            return Err(RecordError::Malformed("followed by stray bytes"));
        }
        Ok(Self {
            at,
            request,
            outcome,
            effects,
            session,
        })
    }
}

/// Appends an outcome's encoding; also used for the results that sessions keep.
pub fn encode_outcome(outcome: &Outcome, out: &mut BytesMut) {
    match *outcome {
        Outcome::Written { version } => {
            out.put_u8(1);
            put_varint(out, version.get());
        }
        Outcome::Deleted { version, existed } => {
            out.put_u8(if existed { 2 } else { 3 });
            put_varint(out, version.get());
        }
        Outcome::CasFailed { actual } => {
            out.put_u8(4);
            put_varint(out, actual.unwrap_or(Seq::ZERO).get());
        }
        Outcome::Incremented { version, value } => {
            out.put_u8(5);
            put_varint(out, version.get());
            out.put_i64_le(value);
        }
        Outcome::NotANumber => out.put_u8(6),
        Outcome::Overflow => out.put_u8(7),
        Outcome::ValueTooLarge => out.put_u8(8),
        Outcome::SessionOpened { session } => {
            out.put_u8(9);
            put_varint(out, session.get());
        }
        Outcome::SessionClosed => out.put_u8(10),
    }
}

/// Reads an outcome's encoding.
///
/// # Errors
/// An unknown kind, or bytes that end early.
pub fn decode_outcome(from: &mut Bytes) -> Result<Outcome, RecordError> {
    Ok(match get_u8(from)? {
        1 => Outcome::Written {
            version: Seq::new(get_varint(from)?),
        },
        kind @ (2 | 3) => Outcome::Deleted {
            version: Seq::new(get_varint(from)?),
            existed: kind == 2,
        },
        4 => {
            let actual = Seq::new(get_varint(from)?);
            Outcome::CasFailed {
                actual: (actual != Seq::ZERO).then_some(actual),
            }
        }
        5 => {
            let version = Seq::new(get_varint(from)?);
            if from.remaining() < 8 {
                return Err(RecordError::Malformed("cut short"));
            }
            Outcome::Incremented {
                version,
                value: from.get_i64_le(),
            }
        }
        6 => Outcome::NotANumber,
        7 => Outcome::Overflow,
        8 => Outcome::ValueTooLarge,
        9 => Outcome::SessionOpened {
            session: SessionId::new(get_varint(from)?),
        },
        10 => Outcome::SessionClosed,
        _ => return Err(RecordError::Malformed("of an unknown outcome")),
    })
}

fn put_varint(out: &mut BytesMut, mut n: u64) {
    while n >= 0x80 {
        out.put_u8((n as u8) | 0x80);
        n >>= 7;
    }
    out.put_u8(n as u8);
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn get_u8(from: &mut Bytes) -> Result<u8, RecordError> {
    if from.has_remaining() {
        Ok(from.get_u8())
    } else {
        Err(RecordError::Malformed("cut short"))
    }
}

fn get_varint(from: &mut Bytes) -> Result<u64, RecordError> {
    let mut n = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = get_u8(from)?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        n |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(n);
        }
    }
    Err(RecordError::Malformed("numbered beyond 64 bits"))
}

fn get_bytes(from: &mut Bytes, max: usize) -> Result<Bytes, RecordError> {
    let len = usize::try_from(get_varint(from)?).unwrap_or(usize::MAX);
    if len > max {
        return Err(RecordError::TooLarge { bytes: len, max });
    }
    if len > from.len() {
        return Err(RecordError::Malformed("cut short"));
    }
    Ok(from.split_to(len))
}

/// The origin of nothing: what stands before the first record.
pub const ORIGIN_NONE: Origin = Origin {
    epoch: crate::ids::Epoch::ZERO,
    incarnation: Incarnation::ZERO,
};
