//! What a client asked of one key, when, and what it was told.
//!
//! These are the words that every history format is translated into, and the
//! only ones that the checkers know. They have no opinion on what is correct.

use std::fmt;

use bytes::Bytes;
use catena_proto::ids::Seq;

/// A logical client: it has one operation in flight at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process(u64);

impl Process {
    /// Wraps the number by which a history names the client.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The number by which a history names the client.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

/// A place in the order of a history's events; no two events share one.
///
/// Checkers order operations by this alone: times are shown to people and
/// never compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u32);

impl Moment {
    /// The `index`th event of a history, from 0.
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// The event's index in its history, from 0.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// The condition of a compare-and-swap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key exists with this value.
    Value(Bytes),
    /// The key exists with this version.
    Version(Seq),
}

/// A request for one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Reads the value.
    Get,
    /// Sets the value.
    Put {
        /// The new value.
        value: Bytes,
    },
    /// Removes the key.
    Delete,
    /// Sets the value if the condition holds.
    Cas {
        /// The condition.
        expect: Expect,
        /// The new value.
        value: Bytes,
    },
    /// Adds to the value as a decimal 64-bit integer; absent counts as 0.
    Incr {
        /// The amount, which may be negative.
        by: i64,
    },
    /// Appends to the value; absent counts as empty.
    Append {
        /// What is appended.
        value: Bytes,
    },
}

impl Op {
    /// The operation's name in our history format.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put { .. } => "put",
            Self::Delete => "delete",
            Self::Cas { .. } => "cas",
            Self::Incr { .. } => "incr",
            Self::Append { .. } => "append",
        }
    }

    /// Whether it can change nothing, whatever its outcome.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        matches!(self, Self::Get)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get | Self::Delete => f.write_str(self.name()),
            Self::Put { value } | Self::Append { value } => {
                write!(f, "{} {}", self.name(), Shown(value))
            }
            Self::Cas { expect, value } => {
                match expect {
                    Expect::Absent => f.write_str("cas absent")?,
                    Expect::Value(old) => write!(f, "cas {}", Shown(old))?,
                    Expect::Version(version) => write!(f, "cas version {version}")?,
                }
                write!(f, " -> {}", Shown(value))
            }
            Self::Incr { by } => write!(f, "incr {by}"),
        }
    }
}

/// What an operation that succeeded was told. `None` stands for "the history
/// does not say", and then nothing is checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// `get`: the value, or that the key is absent.
    Read {
        /// The value; `None` means that the key was absent.
        value: Option<Bytes>,
        /// The version that came with it.
        version: Option<Seq>,
    },
    /// `put`, `append`, and a `cas` whose condition held.
    Written {
        /// The version that the write made.
        version: Option<Seq>,
    },
    /// A `cas` that was executed and whose condition did not hold.
    Mismatch {
        /// The version that the key had.
        version: Option<Seq>,
    },
    /// `delete`.
    Deleted {
        /// Whether there was something to delete.
        existed: Option<bool>,
        /// The version of the deletion, if something was deleted.
        version: Option<Seq>,
    },
    /// `incr`.
    Counted {
        /// The sum.
        value: Option<i64>,
        /// The version that the write made.
        version: Option<Seq>,
    },
}

impl Answer {
    /// Whether this can be an answer to `op` at all.
    #[must_use]
    pub const fn fits(&self, op: &Op) -> bool {
        match op {
            Op::Get => matches!(self, Self::Read { .. }),
            Op::Put { .. } | Op::Append { .. } => matches!(self, Self::Written { .. }),
            Op::Delete => matches!(self, Self::Deleted { .. }),
            Op::Cas { .. } => matches!(self, Self::Written { .. } | Self::Mismatch { .. }),
            Op::Incr { .. } => matches!(self, Self::Counted { .. }),
        }
    }

    const fn version(&self) -> Option<Seq> {
        match self {
            Self::Read { version, .. }
            | Self::Written { version }
            | Self::Mismatch { version }
            | Self::Deleted { version, .. }
            | Self::Counted { version, .. } => *version,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read {
                value: Some(value), ..
            } => write!(f, "{}", Shown(value))?,
            Self::Read { value: None, .. } => f.write_str("absent")?,
            Self::Written { .. } => f.write_str("ok")?,
            Self::Mismatch { .. } => f.write_str("did not match")?,
            Self::Deleted {
                existed: Some(false),
                ..
            } => f.write_str("was absent")?,
            Self::Deleted { .. } => f.write_str("deleted")?,
            Self::Counted {
                value: Some(value), ..
            } => write!(f, "{value}")?,
            Self::Counted { value: None, .. } => f.write_str("ok")?,
        }
        match self.version() {
            Some(version) => write!(f, " (version {version})"),
            None => Ok(()),
        }
    }
}

/// How an operation ended; nothing may turn one into another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was executed, once, between its call and its return.
    Ok(Answer),
    /// It was not executed and never will be.
    Failed,
    /// It may be executed at any time after its call, or never.
    Unknown,
}

/// One operation of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub process: Process,
    /// For which key.
    pub key: Bytes,
    /// What was asked.
    pub op: Op,
    /// When it was called.
    pub call: Moment,
    /// When its outcome was recorded; `None` while it is open (and then it is `Unknown`).
    pub end: Option<Moment>,
    /// How it ended.
    pub outcome: Outcome,
    /// The recorder's clock at the call, in nanoseconds since the start of the run.
    pub call_time_ns: Option<u64>,
    /// The recorder's clock at the end, in nanoseconds since the start of the run.
    pub end_time_ns: Option<u64>,
}

/// Bytes as a person can read them: quoted text, or hexadecimal when they are no text.
///
/// A long value is cut in the middle, since what differs is mostly at an end.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a [u8]);

/// Longest text that is shown whole, in characters: about half a terminal line.
const SHOWN_CHARS_MAX: usize = 48;

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match std::str::from_utf8(self.0) {
            Ok(text) => format!("{text:?}"),
            Err(_) => self.0.iter().fold(String::from("0x"), |text, byte| {
                text + &format!("{byte:02x}")
            }),
        };
        let chars = text.chars().count();
        if chars <= SHOWN_CHARS_MAX {
            return f.write_str(&text);
        }
        let half = SHOWN_CHARS_MAX / 2;
        let head: String = text.chars().take(half).collect();
        let tail: String = text.chars().skip(chars - half).collect();
        write!(f, "{head}…{tail} ({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut_in_the_middle_and_say_their_length() {
        assert_eq!(Shown(b"ab").to_string(), "\"ab\"");
        assert_eq!(Shown(&[0xff, 0x01]).to_string(), "0xff01");
        let long = vec![b'x'; 500];
        let shown = Shown(&long).to_string();
        assert!(
            shown.contains('…') && shown.ends_with("(500 bytes)"),
            "{shown}"
        );
    }

    #[test]
    fn an_answer_fits_only_its_own_kind_of_request() {
        let read = Answer::Read {
            value: None,
            version: None,
        };
        assert!(read.fits(&Op::Get));
        assert!(!read.fits(&Op::Delete));
        let cas = Op::Cas {
            expect: Expect::Absent,
            value: Bytes::new(),
        };
        assert!(Answer::Mismatch { version: None }.fits(&cas));
        assert!(Answer::Written { version: None }.fits(&cas));
    }
}
