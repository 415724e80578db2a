//! Rules that are left out on purpose, to see that the search would notice.

macro_rules! mutations {
    ($($(#[doc = $doc:literal])+ $name:ident = $kebab:literal in $scenario:literal;)+) => {
        /// One weakened rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Mutation {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Mutation {
            /// Every mutation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Its name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $kebab,)+ }
            }

            /// A scenario that catches it within seconds.
            #[must_use]
            pub fn scenario(self) -> &'static str {
                match self { $(Self::$name => $scenario,)+ }
            }

            /// What it leaves out.
            #[must_use]
            pub fn rule(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

mutations! {
    /// C1: an older config is accepted.
    OlderConfigAccepted = "older-config-accepted" in "removal";
    /// C3: records of an older epoch are accepted.
    OldEpochAccepted = "old-epoch-accepted" in "removal-crash";
    /// C4: a disk's id does not matter.
    DiskIdIgnored = "disk-id-ignored" in "disk";
    /// L1: records are told apart by (epoch, seq) alone.
    IdentityByEpochAndSeq = "identity-by-epoch-and-seq" in "suffix-two";
    /// L2: a cut keeps the link downwards.
    CutKeepsLinkDown = "cut-keeps-link-down" in "suffix";
    /// L2: a cut may go below the own commit.
    CutBelowCommit = "cut-below-commit" in "rollback";
    /// L3: a frame of an older link is accepted.
    OldLinkAccepted = "old-link-accepted" in "suffix-two";
    /// L3: a completion of an older log generation counts.
    StaleGeneration = "stale-generation" in "suffix-two";
    /// L4: a learner gets uncommitted records.
    LearnerUncommitted = "learner-uncommitted" in "learner";
    /// L5: a restart takes the log's end as committed.
    CommitIsDurableOnStart = "commit-is-durable-on-start" in "suffix-two";
    /// DESIGN 3.2: the tail commits what it has not synced.
    CommitWithoutOwnSync = "commit-without-own-sync" in "suffix-two";
    /// DESIGN 3.2: the watermark runs ahead of the own sync.
    WatermarkWithoutOwnSync = "watermark-without-own-sync" in "suffix-two";
    /// DESIGN 3.2: what is appended counts as synced.
    AckBeforeSync = "ack-before-sync" in "suffix-two";
    /// S1: who is not in sync hands over.
    UnsyncedSource = "unsynced-source" in "damage";
    /// S2: no barrier.
    NoBarrier = "no-barrier" in "joining";
    /// S2: in sync on receipt of the barrier, before it is durable.
    InSyncOnReceipt = "in-sync-on-receipt" in "joining";
    /// R1: a round goes down again on a later link.
    RoundResent = "round-resent" in "new-link";
    /// R1: only the sighting on the way down promises.
    PromiseOnlyDown = "promise-only-down" in "lease";
    /// R2: a lease is used before its round completed.
    LeaseBeforeCompletion = "lease-before-completion" in "lease";
    /// R2: a complete round covers later ones.
    CompletionCoversLater = "completion-covers-later" in "two-rounds";
    /// R2: a lease goes on in a newer epoch.
    LeaseSurvivesEpoch = "lease-survives-epoch" in "debts-three";
    /// R2: a read checks the lease only at its start.
    ReadWithoutVerify = "read-without-verify" in "read";
    /// R2: a read checks the lease only at its end.
    ReadWithoutAdmit = "read-without-admit" in "read";
    /// R3: a newer epoch brings no debt.
    NoDebt = "no-debt" in "lease";
    /// R3: owed to removed members only.
    DebtToRemovedOnly = "debt-to-removed-only" in "debts-three";
    /// R3: forgotten at the next change.
    DebtForgottenAtSecondChange = "debt-forgotten-at-second-change" in "debts-three";
    /// R3: a debtor is in sync and hands over; it only does not commit.
    DebtorHandsOver = "debtor-hands-over" in "debts";
    /// R4: forgotten by a restart.
    DebtForgottenByRestart = "debt-forgotten-by-restart" in "restart";
    /// M1: appended while another joins, and S1's hand-over off too (either alone suffices).
    AppendWhileJoining = "append-while-joining" in "joining";
    /// M2: the last in sync may be removed.
    RemovesLastInSync = "removes-last-in-sync" in "joining";
    /// M3: an unsynced head or solo becomes in sync by itself.
    UnsyncedHeadServes = "unsynced-head-serves" in "damage";
}

impl Mutation {
    /// The mutation of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|mutation| mutation.name() == name)
    }
}
