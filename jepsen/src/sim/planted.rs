//! Bugs that can be planted in a simulated cluster: in the replica, or in the control plane.

use std::fmt;
use std::str::FromStr;

use catena_chainnode::replica::{Mutant, UnknownMutant};

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A bug of the control plane: one rule left out or weakened.
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
    /// In the masters, or in a node's end of the control plane.
    Control(Bug),
}

impl Planted {
    /// The name used on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Replica(mutant) => mutant.name(),
            Self::Control(bug) => bug.name(),
        }
    }

    pub(super) const fn replica(self) -> Option<Mutant> {
        match self {
            Self::Replica(mutant) => Some(mutant),
            Self::Control(_) => None,
        }
    }

    pub(super) const fn control(self) -> Option<Bug> {
        match self {
            Self::Control(bug) => Some(bug),
            Self::Replica(_) => None,
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
        let bug = Bug::ALL.iter().find(|bug| bug.name() == text);
        match bug {
            Some(bug) => Ok(Self::Control(*bug)),
            None => text.parse().map(Self::Replica),
        }
    }
}
