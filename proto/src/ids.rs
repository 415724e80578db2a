//! The newtypes of the protocol: a position, a name or a count each.
//!
//! No protocol code handles a bare `u64`; two of these cannot be swapped by
//! mistake. Their words are those of DESIGN §2.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The number before the first one in use.
            pub const ZERO: Self = Self(0);

            /// Wraps a raw number; for conversion at a boundary.
            #[must_use]
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// The raw number; for conversion at a boundary.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The number that follows this one (it saturates at the end of the range).
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

number! {
    /// A `chainnode` process, stable over restarts; chosen by the operator.
    NodeId
}
number! {
    /// A `master` process, stable over restarts; its place in the list of masters, from 1.
    MasterId
}
number! {
    /// A contiguous range of the key space, replicated by one chain.
    ShardId
}
number! {
    /// The number of a chain's configuration; raised by the master with each change of that chain (rule C1).
    Epoch
}
number! {
    /// A chain's position: assigned by the head, dense from 1. `Seq::ZERO` is "before the first record".
    Seq
}
number! {
    /// The number of the whole cluster state; it orders deltas and nothing else.
    ConfigVersion
}
number! {
    /// Raised by a restore of the master from a backup; cluster states are ordered by (generation, version).
    Generation
}
number! {
    /// One start of a process; never used twice on one disk, and unlikely ever to repeat on any.
    Incarnation
}
number! {
    /// A session's name inside its shard: the `seq` of the `OpenSession` record that made it.
    SessionId
}
number! {
    /// A request's number inside a session's slot; each new request of a slot has a higher one.
    RequestNo
}
number! {
    /// A lease round of one head incarnation in one epoch (rule R1).
    RoundNo
}
number! {
    /// Raised by every cut of a replica's log; completions of an older one are ignored (rule L3).
    LogGeneration
}
number! {
    /// The replicated clock in milliseconds: it moves with records only (DESIGN §3.4).
    LogTime
}

impl From<u64> for MasterId {
    /// For Raft's own test suite, which makes up ids from numbers.
    fn from(raw: u64) -> Self {
        Self::new(raw)
    }
}

impl Seq {
    /// The position that is `count` records after this one.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// The position before this one; `Seq::ZERO` stays where it is.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// How many records lie after `other` up to and including this one (0 if it is behind).
    #[must_use]
    pub const fn since(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }
}

impl LogTime {
    /// The log time `ms` milliseconds after this one.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// A place for one outstanding request inside a session; it keeps one result.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlotNo(u16);

impl SlotNo {
    /// Wraps a raw slot number.
    #[must_use]
    pub const fn new(raw: u16) -> Self {
        Self(raw)
    }

    /// The raw slot number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for SlotNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotNo({})", self.0)
    }
}

/// Why a textual id was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: it wants 32 hexadecimal digits, as `catena status` prints them")]
pub struct IdError {
    what: &'static str,
    text: String,
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// Wraps 128 bits that the caller drew at random.
            #[must_use]
            pub const fn new(raw: u128) -> Self {
                Self(raw)
            }

            /// The 128 bits.
            #[must_use]
            pub const fn get(self) -> u128 {
                self.0
            }

            /// Reads an id from bytes of the wire or a file; exactly 16 are wanted.
            ///
            /// # Errors
            /// Any other length.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, IdError> {
                match <[u8; 16]>::try_from(bytes) {
                    Ok(raw) => Ok(Self(u128::from_be_bytes(raw))),
                    Err(_) => Err(IdError { what: $what, text: format!("{} bytes", bytes.len()) }),
                }
            }

            /// The id as 16 bytes, most significant first.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:032x})", stringify!($name), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let bad = || IdError { what: $what, text: text.to_owned() };
                if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(bad());
                }
                u128::from_str_radix(text, 16).map(Self).map_err(|_| bad())
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_id! {
    /// The random name of a node's folder; an emptied folder gets another one (rule C4).
    DiskId, "disk id"
}
hex_id! {
    /// The random name of a cluster; every request between processes carries it.
    ClusterId, "cluster id"
}

/// Who made a record: the head's epoch and incarnation (rule L1).
///
/// (origin, seq) is unique for ever; (epoch, seq) alone is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The epoch in which the head assigned the record's `seq`.
    pub epoch: Epoch,
    /// The incarnation of that head.
    pub incarnation: Incarnation,
}

/// One handshake between two processes (rule L3): unique while either of them lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LinkId {
    /// The incarnation of the process that began the handshake (the predecessor or source).
    pub incarnation: Incarnation,
    /// A count of the handshakes which that incarnation began for this shard.
    pub no: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_ids_round_trip_and_refuse_what_is_not_hex() {
        let id = DiskId::new(0xabc);
        assert_eq!(id.to_string().parse::<DiskId>(), Ok(id));
        assert_eq!(DiskId::from_slice(&id.to_bytes()), Ok(id));
        assert!("abc".parse::<DiskId>().is_err());
        assert!(
            "+0000000000000000000000000000000"
                .parse::<DiskId>()
                .is_err()
        );
        assert!(ClusterId::from_slice(&[1, 2]).is_err());
    }

    #[test]
    fn positions_count_from_the_one_before_the_first() {
        assert_eq!(Seq::ZERO.next(), Seq::new(1));
        assert_eq!(Seq::new(9).since(Seq::new(4)), 5);
        assert_eq!(Seq::new(4).since(Seq::new(9)), 0);
        assert_eq!(Seq::ZERO.prev(), Seq::ZERO);
    }
}
