//! What an engine must give: two ordered spaces of bytes, changed by atomic commits and read through views.
//!
//! A store knows nothing of rows, sessions or shards; [`super::tables`] does.

use std::ops::{ControlFlow, Range};

use bytes::{Bytes, BytesMut};

use super::{EngineError, StoredRow, meta, rows};

/// Longest key a store takes; the limit of the narrowest engine (fjall), far above any key of ours.
const STORE_KEY_BYTES_MAX: usize = u16::MAX as usize;

/// One of a store's two key spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// The users' rows under their own keys (DESIGN §3.7).
    Rows,
    /// Progress and sessions of the shards, and what the engine notes for itself.
    Meta,
}

/// A contiguous part of a key space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'a> {
    /// Its first key.
    pub(super) start: &'a [u8],
    /// The first key beyond it; `None` is the end of the space.
    pub(super) end: Option<&'a [u8]>,
}

impl Span<'_> {
    /// Whether no key can lie in it. Some stores panic on bounds in the wrong order, so they are never asked.
    pub(super) fn is_empty(&self) -> bool {
        self.end.is_some_and(|end| end <= self.start)
    }
}

/// One write of a commit.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// Where.
    pub(super) space: Space,
    /// The key; never empty.
    pub(super) key: Bytes,
    /// The new bytes, or `None` to remove the key.
    pub(super) value: Option<Bytes>,
}

/// What reads a store at one moment.
pub(super) trait Reads {
    /// The bytes under `key`.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Hands the keys of `span` in order (descending if `reverse`) to `visit`, until it breaks or fails.
    fn walk(
        &self,
        space: Space,
        span: Span<'_>,
        reverse: bool,
        visit: &mut dyn FnMut(Bytes, Bytes) -> Result<ControlFlow<()>, EngineError>,
    ) -> Result<(), EngineError>;
}

/// Two ordered spaces of bytes.
pub(super) trait Store: Send + Sync {
    /// An atomic view of both spaces.
    type Snapshot<'a>: Reads + Send
    where
        Self: 'a;

    /// The engine's name.
    fn name(&self) -> &'static str;

    /// A row's newest bytes; the fast path of point reads.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// An atomic view; it holds every commit that has returned.
    fn snapshot(&self) -> Self::Snapshot<'_>;

    /// Writes all changes at once; also at once for a crash. Commits exclude each other: the caller sees to that.
    fn commit(&self, changes: Vec<Change>) -> Result<(), EngineError>;

    /// Makes all earlier commits durable.
    fn flush(&self) -> Result<(), EngineError>;
}

/// The changes of one commit, encoded into one piece of memory.
///
/// The copies are on purpose: a batch's keys and values are slices of frames
/// from the network, which an engine must not keep alive for the sake of a key.
pub(super) struct ChangeList {
    buf: BytesMut,
    changes: Vec<(Space, Range<usize>, Option<Range<usize>>)>,
}

impl ChangeList {
    /// A list with room for `changes` changes of `bytes` bytes together; both may be exceeded.
    pub(super) fn with_capacity(changes: usize, bytes: usize) -> Self {
        Self {
            buf: BytesMut::with_capacity(bytes),
            changes: Vec::with_capacity(changes),
        }
    }

    /// Sets or removes a user's row.
    pub(super) fn row(&mut self, key: &[u8], row: Option<&StoredRow>) {
        let key_at = self.append(key);
        let row_at = row.map(|row| {
            let start = self.buf.len();
            rows::put_row(&mut self.buf, key, row);
            start..self.buf.len()
        });
        self.changes.push((Space::Rows, key_at, row_at));
    }

    /// Sets or removes an entry of the second space; the checksum is added here.
    pub(super) fn meta(&mut self, key: &[u8], payload: Option<&[u8]>) {
        let key_at = self.append(key);
        let entry_at = payload.map(|payload| {
            let start = self.buf.len();
            meta::put_entry(&mut self.buf, key, payload);
            start..self.buf.len()
        });
        self.changes.push((Space::Meta, key_at, entry_at));
    }

    /// Removes a key, whatever its bytes mean.
    pub(super) fn remove(&mut self, space: Space, key: &[u8]) {
        let key_at = self.append(key);
        self.changes.push((space, key_at, None));
    }

    fn append(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.buf.len();
        self.buf.extend_from_slice(bytes);
        start..self.buf.len()
    }

    /// Hands the list to the store.
    ///
    /// # Errors
    /// A key that no store takes; its edges refuse such a key long before, and engines would panic on it.
    pub(super) fn commit_to(self, store: &impl Store) -> Result<(), EngineError> {
        let buf = self.buf.freeze();
        let mut changes = Vec::with_capacity(self.changes.len());
        for (space, key, value) in self.changes {
            if key.is_empty() || key.len() > STORE_KEY_BYTES_MAX {
                return Err(EngineError::Failed {
                    engine: store.name(),
                    what: "write",
                    why: format!("a key of {} bytes", key.len()),
                });
            }
            changes.push(Change {
                space,
                key: buf.slice(key),
                value: value.map(|value| buf.slice(value)),
            });
        }
        store.commit(changes)
    }
}
