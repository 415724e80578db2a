//! Bugs that can be planted in a simulated cluster: in the replica, or in the control plane.

use std::fmt;
use std::str::FromStr;

use catena_chainnode::replica::{Mutant, UnknownMutant};
use catena_master::state::Mutant as MasterMutant;

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A bug in what lies around the masters' pure cores: one rule left out or weakened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Bug {
            $($(#[$doc])* $name,)*
        }

        impl Bug {
            /// All of them, in the order of the table in `docs/TESTING.md`.
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

bugs! {
    /// §4.3: what an older start of a node has reported counts for the newer one.
    OlderIncarnationCounts = "older-incarnation-counts",
    /// C1: whatever the store holds is taken, newer or not.
    StoreRolledBack = "store-rolled-back",
    /// §4.1: a leader pushes what is not committed.
    UnappliedPushed = "unapplied-pushed",
}

/// What is planted in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Planted {
    /// In every replica.
    Replica(Mutant),
    /// In the masters' state or loop.
    Master(MasterMutant),
    /// In what a master or a node does around them.
    Control(Bug),
}

impl Planted {
    /// All of them, in the order of the tables in `docs/TESTING.md`.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let replica = Mutant::ALL.iter().copied().map(Self::Replica);
        let masters = MasterMutant::ALL.iter().copied().map(Self::Master);
        let control = Bug::ALL.iter().copied().map(Self::Control);
        replica.chain(masters).chain(control).collect()
    }

    /// The name used on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Replica(mutant) => mutant.name(),
            Self::Master(mutant) => mutant.name(),
            Self::Control(bug) => bug.name(),
        }
    }

    pub(super) const fn replica(self) -> Option<Mutant> {
        match self {
            Self::Replica(mutant) => Some(mutant),
            Self::Master(_) | Self::Control(_) => None,
        }
    }

    pub(super) const fn master(self) -> Option<MasterMutant> {
        match self {
            Self::Master(mutant) => Some(mutant),
            Self::Replica(_) | Self::Control(_) => None,
        }
    }

    pub(super) const fn control(self) -> Option<Bug> {
        match self {
            Self::Control(bug) => Some(bug),
            Self::Replica(_) | Self::Master(_) => None,
        }
    }
}

impl fmt::Display for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Planted {
    type Err = UnknownMutant;

    fn from_str(text: &str) -> Result<Self, UnknownMutant> {
        let control = Bug::ALL.iter().copied().map(Self::Control);
        let masters = MasterMutant::ALL.iter().copied().map(Self::Master);
        let named = control.chain(masters).find(|p| p.name() == text);
        named.map_or_else(|| text.parse().map(Self::Replica), Ok)
    }
}
