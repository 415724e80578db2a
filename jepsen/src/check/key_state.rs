//! What one key does: the sequential specification that histories are held to.
//!
//! An [`Act`] is an operation together with what it was told. [`Act::step`]
//! says whether it could have been told that in a given state, and which
//! state follows. All of Catena's single-key operations are here; the models
//! (`model`) are subsets of them.
//!
//! Versions: each write of a key gives it a higher version (DESIGN §2), and
//! some writes do not tell which. So a state knows its version, or only a
//! bound; a read that tells the version turns the bound into knowledge.

use super::content::{ContentId, Contents};

/// What is known of a key's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Version {
    /// The history tells no versions of this key.
    Untracked,
    /// This very one.
    Known(u64),
    /// This one or a higher one.
    AtLeast(u64),
}

impl Version {
    /// The lowest version that the key can have.
    pub(super) const fn floor(self) -> u64 {
        match self {
            Self::Untracked => 0,
            Self::Known(version) | Self::AtLeast(version) => version,
        }
    }

    /// After a write that told `told`; `None` if it cannot have told that.
    fn written(self, told: Option<u64>) -> Option<Self> {
        match (self, told) {
            (Self::Untracked, _) => Some(self),
            (_, Some(told)) => (told > self.floor()).then_some(Self::Known(told)),
            (_, None) => Some(Self::AtLeast(self.floor().saturating_add(1))),
        }
    }

    /// After an observation of `told`; `None` if it cannot have been observed.
    fn observed(self, told: Option<u64>) -> Option<Self> {
        match (self, told) {
            (Self::Untracked, _) | (_, None) => Some(self),
            (Self::Known(version), Some(told)) => (version == told).then_some(self),
            (Self::AtLeast(bound), Some(told)) => (told >= bound).then_some(Self::Known(told)),
        }
    }
}

/// The state of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct KeyState {
    /// Its content.
    pub(super) content: ContentId,
    /// Its version; that of the deletion for a deleted key.
    pub(super) version: Version,
}

/// The condition of a compare-and-swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Condition {
    /// The key has this content, which may be absent.
    Content(ContentId),
    /// The key exists with this version.
    Version(u64),
}

/// What a compare-and-swap was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum CasTold {
    /// Nothing: its outcome is unknown.
    Nothing,
    /// The condition held, and perhaps the new version.
    Matched(Option<u64>),
    /// The condition did not hold, and perhaps the version that the key had.
    Mismatch(Option<u64>),
}

/// An operation with what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Act {
    /// A read.
    Read {
        /// What it saw.
        content: ContentId,
        /// The version that it saw.
        version: Option<u64>,
    },
    /// A put.
    Put {
        /// The new content.
        content: ContentId,
        /// The new version.
        version: Option<u64>,
    },
    /// A deletion.
    Delete {
        /// Whether there was something to delete.
        existed: Option<bool>,
        /// The deletion's version.
        version: Option<u64>,
    },
    /// A compare-and-swap.
    Cas {
        /// The condition.
        condition: Condition,
        /// The new content.
        content: ContentId,
        /// What it was told.
        told: CasTold,
    },
    /// An increment.
    Incr {
        /// The amount.
        by: i64,
        /// The sum, as a content.
        sum: Option<ContentId>,
        /// The new version.
        version: Option<u64>,
    },
    /// An append.
    Append {
        /// What is appended.
        chunk: ContentId,
        /// The new version.
        version: Option<u64>,
    },
}

impl Act {
    /// The state after this act in `state`, or `None` if it cannot happen there as it was told.
    pub(super) fn step(&self, state: KeyState, contents: &mut Contents) -> Option<KeyState> {
        let written = |content, told| {
            let version = state.version.written(told)?;
            Some(KeyState { content, version })
        };
        let observed = |told| {
            let version = state.version.observed(told)?;
            Some(KeyState {
                content: state.content,
                version,
            })
        };
        match *self {
            Self::Read { content, version } if content == state.content => observed(version),
            Self::Read { .. } => None,
            Self::Put { content, version } => written(content, version),
            Self::Delete { existed, version } => {
                let exists = state.content != ContentId::ABSENT;
                match (existed.unwrap_or(exists) == exists, exists) {
                    (false, _) => None,
                    (true, true) => written(ContentId::ABSENT, version),
                    (true, false) => Some(state),
                }
            }
            Self::Cas {
                condition,
                content,
                told,
            } => match told {
                CasTold::Mismatch(version) => condition
                    .can_fail(state)
                    .then(|| observed(version))
                    .flatten(),
                CasTold::Nothing | CasTold::Matched(_) => {
                    let version = match told {
                        CasTold::Matched(version) => version,
                        _ => None,
                    };
                    let known = condition.can_hold(state)?;
                    Some(KeyState {
                        content,
                        version: known.written(version)?,
                    })
                }
            },
            Self::Incr { by, sum, version } => {
                let value = contents.integer_of(state.content)?.checked_add(by)?;
                let content = contents.integer(value);
                if sum.is_some_and(|sum| sum != content) {
                    None
                } else {
                    written(content, version)
                }
            }
            Self::Append { chunk, version } => {
                written(contents.append(state.content, chunk), version)
            }
        }
    }

    /// The same act when nothing is known of its end, or `None` if it then can change nothing.
    pub(super) const fn untold(&self) -> Option<Self> {
        match *self {
            Self::Read { .. }
            | Self::Cas {
                told: CasTold::Mismatch(_),
                ..
            }
            | Self::Delete {
                existed: Some(false),
                ..
            } => None,
            Self::Put { content, .. } => Some(Self::Put {
                content,
                version: None,
            }),
            Self::Delete { .. } => Some(Self::Delete {
                existed: None,
                version: None,
            }),
            Self::Cas {
                condition, content, ..
            } => Some(Self::Cas {
                condition,
                content,
                told: CasTold::Nothing,
            }),
            Self::Incr { by, .. } => Some(Self::Incr {
                by,
                sum: None,
                version: None,
            }),
            Self::Append { chunk, .. } => Some(Self::Append {
                chunk,
                version: None,
            }),
        }
    }

    /// Whether it can change no state's content.
    pub(super) const fn is_observation(&self) -> bool {
        self.untold().is_none()
    }

    /// The version that it was told or named: the key's history is ordered by these.
    pub(super) const fn told_version(&self) -> Option<u64> {
        match *self {
            Self::Read { version, .. }
            | Self::Put { version, .. }
            | Self::Delete { version, .. }
            | Self::Incr { version, .. }
            | Self::Append { version, .. } => version,
            Self::Cas {
                told: CasTold::Matched(version) | CasTold::Mismatch(version),
                ..
            } => version,
            Self::Cas {
                told: CasTold::Nothing,
                ..
            } => None,
        }
    }

    /// Whether it says anything about versions.
    pub(super) const fn tracks_versions(&self) -> bool {
        self.told_version().is_some()
            || matches!(
                self,
                Self::Cas {
                    condition: Condition::Version(_),
                    ..
                }
            )
    }
}

impl Condition {
    /// What is known of the version if the condition holds in `state`; `None` if it cannot.
    fn can_hold(self, state: KeyState) -> Option<Version> {
        match self {
            Self::Content(content) => (content == state.content).then_some(state.version),
            Self::Version(_) if state.content == ContentId::ABSENT => None,
            Self::Version(version) => state.version.observed(Some(version)),
        }
    }

    fn can_fail(self, state: KeyState) -> bool {
        match self {
            Self::Content(content) => content != state.content,
            Self::Version(version) => {
                state.content == ContentId::ABSENT || state.version != Version::Known(version)
            }
        }
    }
}
