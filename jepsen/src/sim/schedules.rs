//! The directed schedule of each planted bug: it breaks a rule with the bug, and nothing without.

use catena_chainnode::replica::Mutant;
use catena_master::state::Mutant as MasterMutant;

use super::planted::{Bug, Planted};

/// A script for the stage, and the rule that it breaks when its bug is planted.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// The bug.
    pub mutant: Planted,
    /// How the broken rule's name begins.
    pub breaks: &'static str,
    /// The script.
    pub script: &'static str,
}

macro_rules! schedule {
    ($mutant:ident, $file:literal, $breaks:literal) => {
        schedule!(Replica(Mutant::$mutant), $file, $breaks)
    };
    ($kind:ident($mutant:expr), $file:literal, $breaks:literal) => {
        Schedule {
            mutant: Planted::$kind($mutant),
            breaks: $breaks,
            script: include_str!(concat!("../../schedules/", $file, ".txt")),
        }
    };
}

/// One for each of [`Planted::all`].
pub const SCHEDULES: &[Schedule] = &[
    schedule!(NoDebt, "no-debt", "no stale read"),
    schedule!(DebtToRemovedOnly, "debt-to-removed-only", "no stale read"),
    schedule!(
        DebtForgottenAtSecondChange,
        "debt-forgotten-at-second-change",
        "no stale read"
    ),
    schedule!(
        DebtForgottenByRestart,
        "debt-forgotten-by-restart",
        "no stale read"
    ),
    schedule!(
        LeaseBeforeCompletion,
        "lease-before-completion",
        "no stale read"
    ),
    schedule!(
        IdentityByEpochAndSeq,
        "identity-by-epoch-and-seq",
        "one committed record"
    ),
    schedule!(NoBarrier, "no-barrier", "S2"),
    schedule!(
        CutKeepsLinkDown,
        "cut-keeps-link-down",
        "one committed record"
    ),
    schedule!(CutBelowCommit, "cut-below-commit", "one committed record"),
    schedule!(
        StaleGeneration,
        "stale-generation",
        "acknowledged means durable"
    ),
    schedule!(LearnerUncommitted, "learner-uncommitted", "L4"),
    schedule!(CommitIsDurableOnStart, "commit-is-durable-on-start", "S2"),
    schedule!(
        CommitWithoutOwnSync,
        "commit-without-own-sync",
        "acknowledged means durable"
    ),
    schedule!(WatermarkWithoutOwnSync, "watermark-without-own-sync", "S2"),
    schedule!(OlderConfigAccepted, "older-config-accepted", "C1"),
    schedule!(ConfigBeforePersist, "config-before-persist", "C1"),
    schedule!(DiskIdIgnored, "disk-id-ignored", "S2"),
    schedule!(UnsyncedSource, "unsynced-source", "S2"),
    schedule!(RetryWithoutDedupe, "retry-without-dedupe", "exactly once"),
    schedule!(ReadIgnoresPending, "read-ignores-pending", "no stale read"),
    schedule!(
        Master(MasterMutant::UnwitnessedExclusion),
        "unwitnessed-exclusion",
        "a death needs a witness"
    ),
    schedule!(
        Master(MasterMutant::LastInSyncRemoved),
        "last-in-sync-removed",
        "M2"
    ),
    schedule!(
        Master(MasterMutant::LostSyncIgnored),
        "lost-sync-ignored",
        "M2"
    ),
    schedule!(
        Master(MasterMutant::AppendBeforeInSync),
        "append-before-in-sync",
        "M1"
    ),
    schedule!(
        Master(MasterMutant::LearnerAppendedEarly),
        "learner-appended-early",
        "M4"
    ),
    schedule!(
        Master(MasterMutant::BudgetForgotten),
        "budget-forgotten",
        "budget: one"
    ),
    schedule!(
        Master(MasterMutant::HalfExceeded),
        "half-exceeded",
        "budget: never"
    ),
    schedule!(
        Control(Bug::OlderIncarnationCounts),
        "older-incarnation-counts",
        "M2"
    ),
    schedule!(Control(Bug::StoreRolledBack), "store-rolled-back", "C1"),
    schedule!(
        Control(Bug::UnappliedPushed),
        "unapplied-pushed",
        "L2: no false alarm"
    ),
];
