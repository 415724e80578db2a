//! What a caller is told when an operation has an answer.

use bytes::Bytes;
use catena_proto::call::Freshness;
use catena_proto::ids::{Seq, ShardId};

/// A key's value, as a read returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The value.
    pub value: Bytes,
    /// The `seq` of the record that wrote it: the version for a `compare_and_swap`.
    pub version: Seq,
    /// The shard that holds the key.
    pub shard: ShardId,
    /// How old the answer is; of stale reads only.
    pub freshness: Option<Freshness>,
}

/// What a read must guarantee.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// The newest acknowledged state.
    #[default]
    Linearizable,
    /// Any committed state that is at most this old; `None` sets no bound.
    Stale {
        /// The greatest lag allowed, in milliseconds.
        lag_ms_max: Option<u64>,
    },
}

/// A key was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The key's new version.
    pub version: Seq,
    /// The shard that holds the key.
    pub shard: ShardId,
}

/// A key is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// The `seq` of the removal.
    pub version: Seq,
    /// Whether the key had existed.
    pub existed: bool,
    /// The shard that holds the key.
    pub shard: ShardId,
}

/// A `compare_and_swap` was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// The condition held, and the value is set.
    Swapped(Written),
    /// The condition did not hold; nothing was changed.
    Mismatch {
        /// The key's version; `None` when it does not exist.
        actual: Option<Seq>,
        /// The shard that holds the key.
        shard: ShardId,
    },
}

/// A counter was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The new value.
    pub value: i64,
    /// The key's new version.
    pub version: Seq,
    /// The shard that holds the key.
    pub shard: ShardId,
}

/// One row of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRow {
    /// The key.
    pub key: Bytes,
    /// The value. Rows of one page share their memory: copy a value to keep it for long.
    pub value: Bytes,
    /// The `seq` of the record that wrote it.
    pub version: Seq,
    /// The shard that holds the key.
    pub shard: ShardId,
}

/// What a scan visits, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRange {
    /// First key; empty is the beginning of the key space.
    pub start: Bytes,
    /// First key beyond; `None` is the end of the key space.
    pub end: Option<Bytes>,
    /// Most rows returned; `None` for all.
    pub limit: Option<u64>,
    /// From the last key to the first.
    pub reverse: bool,
    /// What each page must guarantee.
    pub consistency: Consistency,
}

impl ScanRange {
    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        Self::between(Bytes::new(), None)
    }

    /// Keys from `start` (inclusive) to `end` (exclusive; `None` is the end of the key space).
    #[must_use]
    pub fn between(start: impl Into<Bytes>, end: Option<Bytes>) -> Self {
        Self {
            start: start.into(),
            end,
            limit: None,
            reverse: false,
            consistency: Consistency::Linearizable,
        }
    }

    /// Keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start: Bytes = prefix.into();
        let end = prefix_end(&start);
        Self::between(start, end)
    }

    /// From the last key to the first.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// At most `rows` rows.
    #[must_use]
    pub fn limited(mut self, rows: u64) -> Self {
        self.limit = Some(rows);
        self
    }

    /// With what each page must guarantee.
    #[must_use]
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }
}

/// The first key after every key with this prefix; `None` when there is none.
fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=kept].to_vec();
    end[kept] += 1;
    Some(end.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_key_of_its_length() {
        assert_eq!(prefix_end(b"ab"), Some(Bytes::from_static(b"ac")));
        assert_eq!(prefix_end(b"a\xff\xff"), Some(Bytes::from_static(b"b")));
        assert_eq!(prefix_end(b"\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }
}
