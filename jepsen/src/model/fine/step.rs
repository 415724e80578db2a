//! The model's steps, as plain data: a counterexample is a list of them.
//!
//! Each maps to inputs of `catena_chainnode::replica::Replica::step`:
//!
//! | step | inputs of the production replica |
//! |---|---|
//! | `Write` | `Input::Request` at the head |
//! | `Sync` | `Input::Persisted` up to the log's end |
//! | `Handshake` | messages `Hello`, `Welcome` and the first `Forward` between the two |
//! | `Forward`, `Commit` | the messages of that name that are under way |
//! | `StartRound` | `Input::Timer` of the round, at the head |
//! | `RoundDown`, `RoundUp` | the `Forward` or `Commit` that carries the round |
//! | `WindowEnds` | time passes at that node until its lease of the round is over |
//! | `Accept` | `Input::Config`, then `Input::Persisted` of it |
//! | `Crash`, `Restart` | the replica is dropped; `Replica::recover` on what the disk kept |
//! | `ReadAdmit`, `ReadLook`, `ReadVerify` | `ReadView::admit`, a look at the state, `ReadView::verify` |
//! | `Remove`, `Append` | the scripted master makes a config; nobody has it yet |

use std::fmt;

/// One step. Nodes count from 0 in the data and from 1 in print; epochs, rounds and writes from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The head of its own epoch takes a write and appends it.
    Write {
        /// The head.
        node: u8,
    },
    /// The whole log of a node is synced.
    Sync {
        /// The node.
        node: u8,
    },
    /// A link begins (L2).
    Handshake {
        /// The predecessor.
        from: u8,
        /// The successor.
        to: u8,
    },
    /// Records, watermark and the news of a complete round go down.
    Forward {
        /// The predecessor.
        from: u8,
        /// The successor.
        to: u8,
    },
    /// The commit point goes up.
    Commit {
        /// The successor.
        from: u8,
        /// The predecessor.
        to: u8,
    },
    /// The head starts a round and sends it down (R1).
    StartRound {
        /// The head.
        node: u8,
    },
    /// A member sees a round go down, promises, and passes it on (R1, R2).
    RoundDown {
        /// The member.
        node: u8,
    },
    /// A member's successor's answer to a round arrives: it promises and passes it up (R1).
    RoundUp {
        /// The successor that sent it.
        from: u8,
    },
    /// The time of a node's lease for a round, and for earlier ones, is over.
    WindowEnds {
        /// The node.
        node: u8,
        /// The round.
        round: u8,
    },
    /// A node persists the config of an epoch and acts on it (C1).
    Accept {
        /// The node.
        node: u8,
        /// The epoch.
        epoch: u8,
    },
    /// The master removes members (M1, M2).
    Remove {
        /// Who stays, by bit.
        kept: u8,
    },
    /// The master appends a tail (M1).
    Append {
        /// The node.
        node: u8,
    },
    /// A process dies.
    Crash {
        /// The node.
        node: u8,
        /// How much of its log is found again.
        kept: u8,
    },
    /// It starts again.
    Restart {
        /// The node.
        node: u8,
    },
    /// The disk of a node that is down is replaced by an empty one.
    SwapDisk {
        /// The node.
        node: u8,
    },
    /// The log of a node that is down is damaged: it is unsynced, and starts with an empty one (S1).
    Damage {
        /// The node.
        node: u8,
    },
    /// A link breaks; what was under way on it is lost.
    Break {
        /// The successor of the link.
        to: u8,
    },
    /// A learner gets records from a member (L4).
    Learn {
        /// The member.
        from: u8,
        /// The learner.
        to: u8,
    },
    /// A node takes its view and its clock for a read (R2).
    ReadAdmit {
        /// The node.
        node: u8,
    },
    /// A read begins, and the state is looked at. Only looks that miss an acknowledged write are steps.
    ReadLook {
        /// The node.
        node: u8,
    },
    /// The read is answered.
    ReadVerify {
        /// The node.
        node: u8,
    },
    /// Mutation of L3: a frame of a link that is gone arrives.
    LateFrame {
        /// Where.
        node: u8,
    },
    /// Mutation of L3: a completion of an older generation arrives.
    StaleCompletion {
        /// Where.
        node: u8,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = |id: &u8| format!("node {}", id + 1);
        match self {
            Self::Write { node } => write!(f, "{} takes a write", n(node)),
            Self::Sync { node } => write!(f, "{} syncs its log", n(node)),
            Self::Handshake { from, to } => write!(f, "{} links to {} (L2)", n(from), n(to)),
            Self::Forward { from, to } => write!(f, "{} forwards to {}", n(from), n(to)),
            Self::Commit { from, to } => write!(f, "{} tells {} its commit point", n(from), n(to)),
            Self::StartRound { node } => write!(f, "{} starts a round (R1)", n(node)),
            Self::RoundDown { node } => {
                write!(f, "{} sees the round go down, and promises (R1)", n(node))
            }
            Self::RoundUp { from } => write!(f, "the round comes up from {} (R1)", n(from)),
            Self::WindowEnds { node, round } => {
                write!(
                    f,
                    "the lease time of {} for round {round} is over (R2)",
                    n(node)
                )
            }
            Self::Accept { node, epoch } => write!(f, "{} accepts epoch {epoch} (C1)", n(node)),
            Self::Remove { kept } => {
                let stay: Vec<String> = (0..8_u8)
                    .filter(|id| kept & (1 << id) != 0)
                    .map(|id| (id + 1).to_string())
                    .collect();
                write!(
                    f,
                    "the master leaves nodes {} as members (M2)",
                    stay.join(",")
                )
            }
            Self::Append { node } => write!(f, "the master appends {} (M1)", n(node)),
            Self::Crash { node, kept } => write!(f, "{} crashes; {kept} records are left", n(node)),
            Self::Restart { node } => write!(f, "{} restarts", n(node)),
            Self::SwapDisk { node } => write!(f, "{} gets an empty disk (C4)", n(node)),
            Self::Damage { node } => write!(f, "the log of {} is damaged (S1)", n(node)),
            Self::Break { to } => write!(f, "the link to {} breaks (L3)", n(to)),
            Self::Learn { from, to } => write!(f, "{} learns from {} (L4)", n(to), n(from)),
            Self::ReadAdmit { node } => write!(f, "{} admits a read (R2)", n(node)),
            Self::ReadLook { node } => write!(
                f,
                "a read begins at {}, and misses what was acknowledged",
                n(node)
            ),
            Self::ReadVerify { node } => write!(f, "{} answers the read (R2)", n(node)),
            Self::LateFrame { node } => {
                write!(f, "a frame of an older link reaches {} (L3)", n(node))
            }
            Self::StaleCompletion { node } => {
                write!(
                    f,
                    "a completion of an older generation reaches {} (L3)",
                    n(node)
                )
            }
        }
    }
}

/// A trace for people: one numbered line a step.
#[must_use]
pub fn numbered(steps: &[Step]) -> String {
    steps
        .iter()
        .enumerate()
        .map(|(at, step)| format!("{:>3}. {step}\n", at + 1))
        .collect()
}
