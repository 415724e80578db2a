//! The models that a history can be held to: which operations they speak, and what an absent key reads as.
//!
//! | model | operations | a key that nobody wrote |
//! |---|---|---|
//! | `register` | get (read), put (write), cas by value or absent | absent (`nil`) |
//! | `kv-append` | get, put, append | the empty string |
//! | `counter` | get, incr | `0` |
//! | `catena` | all of get, put, delete, cas (value, version, absent), incr, append, with versions | absent |
//!
//! Each is partitioned by key: a history is linearizable exactly if each
//! key's part is (Herlihy and Wing, 1990, theorem 1). TTLs, scans and batches
//! are no single-key operations; they have checkers of their own.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use super::content::{ContentId, Contents};
use super::key_state::{Act, CasTold, Condition, KeyState, Version};
use super::operation::{Answer, Expect, Op, Operation, Outcome};

/// A sequential specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// A register with compare-and-swap.
    Register,
    /// Strings with put and append; absent is empty.
    KvAppend,
    /// A counter; absent is 0.
    Counter,
    /// Everything that Catena does with a single key.
    Catena,
}

/// A history has an operation that its model does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the model `{model}` has no operation `{op}`: check with `--model catena`, which has all of them"
)]
pub struct ModelError {
    model: Model,
    op: String,
}

/// A name that is no model's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no model: it wants one of register, kv-append, counter, catena")]
pub struct UnknownModel(String);

impl Model {
    /// All models, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::Register, Self::KvAppend, Self::Counter, Self::Catena];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::KvAppend => "kv-append",
            Self::Counter => "counter",
            Self::Catena => "catena",
        }
    }

    const fn knows(self, op: &Op) -> bool {
        match self {
            Self::Register => match op {
                Op::Get | Op::Put { .. } => true,
                Op::Cas { expect, .. } => !matches!(expect, Expect::Version(_)),
                Op::Delete | Op::Incr { .. } | Op::Append { .. } => false,
            },
            Self::KvAppend => matches!(op, Op::Get | Op::Put { .. } | Op::Append { .. }),
            Self::Counter => matches!(op, Op::Get | Op::Incr { .. }),
            Self::Catena => true,
        }
    }

    /// What an absent key reads as.
    fn blank(self, contents: &mut Contents) -> ContentId {
        match self {
            Self::Register | Self::Catena => ContentId::ABSENT,
            Self::KvAppend => contents.intern(&Bytes::new()),
            Self::Counter => contents.integer(0),
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Model {
    type Err = UnknownModel;

    fn from_str(name: &str) -> Result<Self, UnknownModel> {
        Self::ALL
            .into_iter()
            .find(|model| model.name() == name)
            .ok_or_else(|| UnknownModel(name.to_owned()))
    }
}

/// An operation of one key, as the search sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyOp {
    /// What was done, and told.
    pub(super) act: Act,
    /// Its call in the order of events.
    pub(super) call: u32,
    /// Its return; `None` when it may take effect at any time after its call, or never.
    pub(super) ret: Option<u32>,
    /// Its index in the key's operations.
    pub(super) source: usize,
}

/// A key's history, ready for the search.
#[derive(Debug)]
pub(super) struct KeyHistory {
    /// The contents that its operations name.
    pub(super) contents: Contents,
    /// The operations that matter, in the order of their calls.
    pub(super) ops: Vec<KeyOp>,
    /// The key's state before all of them.
    pub(super) initial: KeyState,
}

impl KeyHistory {
    /// Translates one key's operations. Failed ones and reads without an answer say nothing, and are dropped.
    pub(super) fn new(model: Model, operations: &[&Operation]) -> Result<Self, ModelError> {
        let mut contents = Contents::new();
        let blank = model.blank(&mut contents);
        let mut ops = Vec::with_capacity(operations.len());
        for (source, operation) in operations.iter().enumerate() {
            if !model.knows(&operation.op) {
                return Err(ModelError {
                    model,
                    op: operation.op.to_string(),
                });
            }
            let call = operation.call.get();
            let (told, ret) = match (&operation.outcome, operation.end) {
                (Outcome::Failed, _) => continue,
                (Outcome::Ok(answer), Some(end)) => (Some(answer), Some(end.get())),
                (Outcome::Ok(_), None) | (Outcome::Unknown, _) => (None, None),
            };
            if let Some(act) = act(&operation.op, told, blank, &mut contents) {
                ops.push(KeyOp {
                    act,
                    call,
                    ret,
                    source,
                });
            }
        }
        let tracked = ops.iter().any(|op| op.act.tracks_versions());
        let version = if tracked {
            Version::Known(0)
        } else {
            Version::Untracked
        };
        Ok(Self {
            contents,
            ops,
            initial: KeyState {
                content: blank,
                version,
            },
        })
    }
}

fn act(op: &Op, told: Option<&Answer>, blank: ContentId, contents: &mut Contents) -> Option<Act> {
    let version = match told {
        Some(
            Answer::Written { version }
            | Answer::Mismatch { version }
            | Answer::Read { version, .. }
            | Answer::Deleted { version, .. }
            | Answer::Counted { version, .. },
        ) => version.map(catena_proto::ids::Seq::get),
        None => None,
    };
    Some(match op {
        Op::Get => match told {
            Some(Answer::Read { value, .. }) => {
                let content = value.as_ref().map_or(blank, |value| contents.intern(value));
                Act::Read { content, version }
            }
            _ => return None,
        },
        Op::Put { value } => Act::Put {
            content: contents.intern(value),
            version,
        },
        Op::Delete => match told {
            Some(Answer::Deleted { existed, .. }) => Act::Delete {
                existed: *existed,
                version,
            },
            _ => Act::Delete {
                existed: None,
                version: None,
            },
        },
        Op::Cas { expect, value } => Act::Cas {
            condition: match expect {
                Expect::Absent => Condition::Content(ContentId::ABSENT),
                Expect::Value(old) => Condition::Content(contents.intern(old)),
                Expect::Version(version) => Condition::Version(version.get()),
            },
            content: contents.intern(value),
            told: match told {
                Some(Answer::Mismatch { .. }) => CasTold::Mismatch(version),
                Some(_) => CasTold::Matched(version),
                None => CasTold::Nothing,
            },
        },
        Op::Incr { by } => {
            let sum = match told {
                Some(Answer::Counted {
                    value: Some(sum), ..
                }) => Some(contents.integer(*sum)),
                _ => None,
            };
            Act::Incr {
                by: *by,
                sum,
                version,
            }
        }
        Op::Append { value } => Act::Append {
            chunk: contents.intern(value),
            version,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_has_the_name_it_is_parsed_from() {
        for model in Model::ALL {
            assert_eq!(model.name().parse(), Ok(model));
        }
        assert!("set".parse::<Model>().is_err());
    }
}
