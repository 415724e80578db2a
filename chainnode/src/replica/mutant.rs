//! Bugs that can be planted on purpose, to prove that simulation and scenarios would find them.
//!
//! Only builds with the `mutants` feature can plant one; elsewhere
//! [`super::Replica::planted`] is constantly false and the compiler drops the branch.

use std::fmt;

/// Whether this build has the places where bugs can be planted.
pub const MUTANTS: bool = cfg!(feature = "mutants");

macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A planted bug: one rule left out or weakened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant {
            $($(#[$doc])* $name,)*
        }

        impl Mutant {
            /// Every mutant, in the order of the table in `docs/TESTING.md`.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name used on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }

        impl fmt::Display for Mutant {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl std::str::FromStr for Mutant {
            type Err = UnknownMutant;

            fn from_str(text: &str) -> Result<Self, UnknownMutant> {
                Self::ALL
                    .iter()
                    .find(|m| m.name() == text)
                    .copied()
                    .ok_or_else(|| UnknownMutant(text.to_owned()))
            }
        }
    };
}

/// No mutant has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no mutant is named `{0}`: `--list-mutants` shows them")]
pub struct UnknownMutant(String);

mutants! {
    /// R3: a newer epoch brings no debt.
    NoDebt = "no-debt",
    /// R3: debt is owed to removed members only.
    DebtToRemovedOnly = "debt-to-removed-only",
    /// R3: debts are forgotten at the next change.
    DebtForgottenAtSecondChange = "debt-forgotten-at-second-change",
    /// R4: debts are forgotten by a restart.
    DebtForgottenByRestart = "debt-forgotten-by-restart",
    /// R2: a lease is used before its round completed.
    LeaseBeforeCompletion = "lease-before-completion",
    /// L1: records are told apart by (epoch, seq) alone.
    IdentityByEpochAndSeq = "identity-by-epoch-and-seq",
    /// S2: no barrier.
    NoBarrier = "no-barrier",
    /// L2: a cut keeps the link downwards.
    CutKeepsLinkDown = "cut-keeps-link-down",
    /// L2: a cut may go below the commit point.
    CutBelowCommit = "cut-below-commit",
    /// L3: completions of an older log generation count.
    StaleGeneration = "stale-generation",
    /// L4: a learner is given records that are not committed.
    LearnerUncommitted = "learner-uncommitted",
    /// L5: a restarted replica takes its log's end as committed.
    CommitIsDurableOnStart = "commit-is-durable-on-start",
    /// The tail commits what it has not synced.
    CommitWithoutOwnSync = "commit-without-own-sync",
    /// The watermark runs ahead of the own sync.
    WatermarkWithoutOwnSync = "watermark-without-own-sync",
    /// C1: an older config is accepted.
    OlderConfigAccepted = "older-config-accepted",
    /// C1: a config is acted on before it is persisted.
    ConfigBeforePersist = "config-before-persist",
    /// C4: another disk of the same node counts as the member.
    DiskIdIgnored = "disk-id-ignored",
    /// S1: an unsynced member hands over.
    UnsyncedSource = "unsynced-source",
    /// A retry is executed again.
    RetryWithoutDedupe = "retry-without-dedupe",
    /// CRAQ: a read does not wait for what is pending on its key.
    ReadIgnoresPending = "read-ignores-pending",
}
