//! Bugs that can be planted on purpose, to prove that the simulation would find them.
//!
//! Only builds with the `mutants` feature can plant one; elsewhere
//! [`super::MasterState::planted`] is constantly false and the compiler drops the branch.

macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A planted bug: one rule of the control plane left out or weakened.
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
    };
}

mutants! {
    /// §4.3: who gives no sign of life is excluded, whatever its fellows say.
    UnwitnessedExclusion = "unwitnessed-exclusion",
    /// M2: every member counts as in sync when one is removed.
    LastInSyncRemoved = "last-in-sync-removed",
    /// S1, M2: a member that says that it is not synced any more still counts as in sync.
    LostSyncIgnored = "lost-sync-ignored",
    /// M1: the next one is appended while the previous joiner is not in sync.
    AppendBeforeInSync = "append-before-in-sync",
    /// M4, R4: a learner is appended however far behind it is, and however young its process.
    LearnerAppendedEarly = "learner-appended-early",
    /// §4.3: a new leader counts only its own exclusions.
    BudgetForgotten = "budget-forgotten",
    /// §4.3: exclusions go on past half of the nodes.
    HalfExceeded = "half-exceeded",
}
