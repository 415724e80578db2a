//! How far a search goes.

use super::state::{EPOCHS, NODES, ROUNDS, WRITES};

/// Bounds of one search. Whatever is 0 does not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Members of the first chain, 1 to 3; they start linked and in sync.
    pub members: u8,
    /// All nodes, at most 3: those that are not members are spares.
    pub nodes: u8,
    /// Epochs, the first included, at most 4.
    pub epochs: u8,
    /// Writes that heads accept, at most 3.
    pub writes: u8,
    /// Crashes; whoever crashed may restart.
    pub crashes: u8,
    /// Rounds that heads start, at most 2.
    pub rounds: u8,
    /// Links that break without a crash.
    pub breaks: u8,
    /// Reads whose beginning and end are apart. With 0, a read is one moment.
    pub reads: u8,
    /// Disks that are replaced by empty ones while their node is down (C4).
    pub swaps: u8,
    /// Logs that are found damaged at a start: the replica is unsynced, with an empty log (S1, M3).
    pub damages: u8,
    /// Crashes after which the disk holds less than it promised. Only with one epoch.
    pub rollbacks: u8,
    /// Spares follow as learners before they are appended (L4).
    pub learners: bool,
}

impl Bounds {
    /// Nothing but three members and one epoch.
    const NONE: Self = Self {
        members: 3,
        nodes: 3,
        epochs: 1,
        writes: 0,
        crashes: 0,
        rounds: 0,
        breaks: 0,
        reads: 0,
        swaps: 0,
        damages: 0,
        rollbacks: 0,
        learners: false,
    };

    /// What the checks of every day search whole.
    pub const TINY: Self = Self {
        members: 2,
        nodes: 2,
        epochs: 2,
        writes: 2,
        crashes: 1,
        rounds: 1,
        ..Self::NONE
    };

    /// Three members, three epochs, two writes, one crash.
    pub const THREE: Self = Self {
        epochs: 3,
        writes: 2,
        crashes: 1,
        rounds: 1,
        ..Self::NONE
    };

    /// Two members and a spare, four epochs.
    pub const SPARE: Self = Self {
        members: 2,
        epochs: 4,
        writes: 1,
        rounds: 1,
        ..Self::NONE
    };
}

impl Bounds {
    /// The same within what the model can hold: a larger bound is cut to the largest.
    #[must_use]
    pub fn clamped(self) -> Self {
        let nodes = self.nodes.clamp(1, NODES as u8);
        let epochs = self.epochs.clamp(1, EPOCHS as u8);
        Self {
            nodes,
            epochs,
            members: self.members.clamp(1, nodes),
            writes: self.writes.min(WRITES as u8),
            rounds: self.rounds.min(ROUNDS as u8),
            // A solo member cannot see a rollback: with more epochs there would be one.
            rollbacks: if epochs == 1 { self.rollbacks } else { 0 },
            ..self
        }
    }
}

/// Named bounds, for the command line, and for the mutations that need few kinds of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Its name, in kebab case.
    pub name: &'static str,
    /// Its bounds.
    pub bounds: Bounds,
}

impl Scenario {
    /// Every scenario. The rules hold in each; a test says so.
    pub const ALL: &'static [Self] = &[
        Self {
            name: "tiny",
            bounds: Bounds::TINY,
        },
        Self {
            name: "three",
            bounds: Bounds::THREE,
        },
        Self {
            name: "spare",
            bounds: Bounds::SPARE,
        },
        Self {
            name: "lease",
            bounds: Bounds {
                epochs: 2,
                writes: 1,
                rounds: 1,
                ..Bounds::NONE
            },
        },
        Self {
            name: "two-rounds",
            bounds: Bounds {
                epochs: 2,
                writes: 1,
                rounds: 2,
                ..Bounds::NONE
            },
        },
        Self {
            name: "debts",
            bounds: Bounds {
                members: 2,
                epochs: 3,
                writes: 1,
                rounds: 1,
                ..Bounds::NONE
            },
        },
        Self {
            name: "debts-three",
            bounds: Bounds {
                epochs: 3,
                writes: 1,
                rounds: 1,
                ..Bounds::NONE
            },
        },
        Self {
            name: "restart",
            bounds: Bounds {
                members: 2,
                nodes: 2,
                epochs: 2,
                writes: 1,
                crashes: 1,
                rounds: 1,
                ..Bounds::NONE
            },
        },
        Self {
            name: "new-link",
            bounds: Bounds {
                members: 2,
                nodes: 2,
                epochs: 2,
                writes: 1,
                crashes: 1,
                rounds: 1,
                breaks: 1,
                ..Bounds::NONE
            },
        },
        Self {
            name: "suffix",
            bounds: Bounds {
                writes: 2,
                crashes: 1,
                ..Bounds::NONE
            },
        },
        Self {
            name: "suffix-two",
            bounds: Bounds {
                members: 2,
                nodes: 2,
                writes: 2,
                crashes: 1,
                ..Bounds::NONE
            },
        },
        Self {
            name: "removal",
            bounds: Bounds {
                epochs: 2,
                writes: 2,
                ..Bounds::NONE
            },
        },
        Self {
            name: "removal-crash",
            bounds: Bounds {
                epochs: 2,
                writes: 2,
                crashes: 1,
                ..Bounds::NONE
            },
        },
        Self {
            name: "joining",
            bounds: Bounds {
                members: 1,
                epochs: 4,
                writes: 1,
                ..Bounds::NONE
            },
        },
        Self {
            name: "learner",
            bounds: Bounds {
                members: 2,
                writes: 2,
                crashes: 1,
                epochs: 1,
                learners: true,
                ..Bounds::NONE
            },
        },
        Self {
            name: "read",
            bounds: Bounds {
                members: 2,
                nodes: 2,
                epochs: 2,
                writes: 1,
                crashes: 1,
                rounds: 1,
                reads: 1,
                ..Bounds::NONE
            },
        },
        Self {
            name: "disk",
            bounds: Bounds {
                members: 2,
                nodes: 2,
                epochs: 2,
                writes: 1,
                crashes: 1,
                swaps: 1,
                ..Bounds::NONE
            },
        },
        Self {
            name: "damage",
            bounds: Bounds {
                epochs: 1,
                writes: 1,
                crashes: 1,
                damages: 1,
                ..Bounds::NONE
            },
        },
        Self {
            name: "rollback",
            bounds: Bounds {
                members: 2,
                nodes: 2,
                writes: 2,
                crashes: 1,
                rounds: 1,
                rollbacks: 1,
                ..Bounds::NONE
            },
        },
    ];

    /// The scenario of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|scenario| scenario.name == name)
    }
}
