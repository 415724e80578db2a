//! What the model remembers. Everything is a small number, so that millions of states fit.

use super::bounds::Bounds;

/// Most nodes.
pub(super) const NODES: usize = 3;
/// Most epochs.
pub(super) const EPOCHS: usize = 4;
/// Most writes.
pub(super) const WRITES: usize = 3;
/// Most rounds.
pub(super) const ROUNDS: usize = 2;
/// A barrier that is not known yet (S2).
pub(super) const UNKNOWN: u8 = u8::MAX;

/// A set of nodes, by bit.
pub(super) type Nodes = u8;
/// A set of windows, by bit: see [`window`].
pub(super) type Windows = u8;

/// The bit of a node's window for a round.
pub(super) fn window(node: u8, round: u8) -> Windows {
    1 << (usize::from(node) * ROUNDS + usize::from(round) - 1)
}

/// All windows of a node.
pub(super) fn windows_of(node: u8) -> Windows {
    ((1 << ROUNDS) - 1) << (usize::from(node) * ROUNDS)
}

/// A log: the number of the write at each position, 0 behind its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Log([u8; WRITES]);

impl Log {
    pub(super) fn last(&self) -> u8 {
        self.0.iter().take_while(|write| **write != 0).count() as u8
    }

    /// The write at a position, which counts from 0; 0 is none.
    pub(super) fn at(&self, position: u8) -> u8 {
        self.0.get(usize::from(position)).copied().unwrap_or(0)
    }

    pub(super) fn set(&mut self, position: u8, write: u8) {
        if let Some(place) = self.0.get_mut(usize::from(position)) {
            *place = write;
        }
    }

    pub(super) fn push(&mut self, write: u8) {
        self.set(self.last(), write);
    }

    pub(super) fn cut(&mut self, last: u8) {
        self.0
            .iter_mut()
            .skip(usize::from(last))
            .for_each(|write| *write = 0);
    }

    /// Does the first part of this log, up to `last`, hold all of `other`?
    pub(super) fn holds(&self, other: &Self, last: u8) -> bool {
        other.last() <= last && (0..other.last()).all(|at| self.at(at) == other.at(at))
    }

    pub(super) fn has(&self, write: u8) -> bool {
        self.0.contains(&write)
    }
}

/// One node with its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) up: bool,
    /// It stopped for a fork (L2).
    pub(super) fenced: bool,
    pub(super) incarnation: u8,
    pub(super) disk: u8,
    /// The newest accepted epoch, persisted (C1).
    pub(super) epoch: u8,
    /// The newest epoch whose debts are paid, persisted (R3).
    pub(super) paid: u8,
    /// The stint on this disk for which it is synced, persisted (S1); 0 is none.
    pub(super) synced: u8,
    pub(super) log: Log,
    /// What a crash leaves of the log.
    pub(super) on_disk: u8,
    /// What it believes to be durable: the same, unless a rule is weakened.
    pub(super) durable: u8,
    pub(super) commit: u8,
    pub(super) in_sync: bool,
    /// Its link to its predecessor is live (L2).
    pub(super) linked: bool,
    pub(super) barrier: u8,
    pub(super) watermark: u8,
    /// The newest round that it saw go down.
    pub(super) seen: u8,
    /// The newest round that it knows to be complete.
    pub(super) complete: u8,
    /// The round that is under way to it, from its predecessor.
    pub(super) round_in: u8,
    /// The round that is under way from it, to its predecessor.
    pub(super) round_out: u8,
    /// By epoch: the windows that its promise outlasts; none means that the promise is over.
    pub(super) promises: [Windows; EPOCHS + 1],
    /// By epoch: the fellows that it owes (R3).
    pub(super) owed: [Nodes; EPOCHS + 1],
    /// The windows that promises from before its last start outlast (R4).
    pub(super) ghosts: Windows,
    /// In debt until the ghosts are gone (R4).
    pub(super) unsure: bool,
    /// A completion of an older generation is under way, for so many records (mutation of L3).
    pub(super) stale_sync: u8,
}

/// A member's entry in a config (C4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Member {
    pub(super) node: u8,
    pub(super) joined: u8,
    pub(super) disk: u8,
}

/// A chain's config: members in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Config {
    entries: [Member; NODES],
    count: u8,
}

impl Config {
    pub(super) fn members(&self) -> &[Member] {
        &self.entries[..usize::from(self.count)]
    }

    pub(super) fn position(&self, node: u8) -> Option<usize> {
        self.members().iter().position(|member| member.node == node)
    }

    pub(super) fn mask(&self) -> Nodes {
        self.members()
            .iter()
            .fold(0, |mask, member| mask | 1 << member.node)
    }

    pub(super) fn append(&self, member: Member) -> Self {
        let mut config = *self;
        config.entries[usize::from(config.count)] = member;
        config.count += 1;
        config
    }

    pub(super) fn keep(&self, kept: Nodes) -> Self {
        let stay = self
            .members()
            .iter()
            .filter(|member| kept & (1 << member.node) != 0);
        stay.fold(Self::default(), |config, member| config.append(*member))
    }
}

/// Where a record comes from (L1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub(super) epoch: u8,
    pub(super) incarnation: u8,
}

/// A read whose beginning and end are apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Read {
    /// There is none.
    #[default]
    None,
    /// The node took a view, and its clock.
    Admitted(u8),
    /// It looked at the state, for a read that began then, and what it saw lacks an acknowledged write.
    LookedStale(u8),
}

/// A frame that was under way when its link went (mutation of L3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Late {
    pub(super) to: u8,
    pub(super) position: u8,
    /// 0: there is no such frame.
    pub(super) write: u8,
}

/// A property that does not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Broken {
    /// All hold.
    #[default]
    Nothing,
    EpochWentBack,
    TwoRecords,
    FalseAlarm,
    AcknowledgedLost,
    AcknowledgedNotDurable,
    StaleRead,
    LastInSyncRemoved,
}

/// Everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub(super) nodes: [Node; NODES],
    /// By epoch, which counts from 1.
    pub(super) configs: [Config; EPOCHS],
    pub(super) newest: u8,
    /// The open windows.
    pub(super) windows: Windows,
    /// By round, which counts from 1: the epoch it belongs to; 0 is not started.
    pub(super) rounds: [u8; ROUNDS],
    /// By write, which counts from 1: where it comes from.
    pub(super) origins: [Origin; WRITES],
    /// What was committed anywhere, by position.
    pub(super) committed: Log,
    /// What clients were told, by position.
    pub(super) acknowledged: Log,
    pub(super) read: Read,
    pub(super) late: Late,
    /// Whom the master believes to be in sync in the newest config (mutation of C4).
    pub(super) confirmed: Nodes,
    pub(super) writes: u8,
    pub(super) crashes: u8,
    pub(super) breaks: u8,
    pub(super) reads: u8,
    pub(super) swaps: u8,
    pub(super) damages: u8,
    pub(super) rollbacks: u8,
    pub(super) broken: Broken,
}

impl State {
    /// The first chain in epoch 1, linked and in sync, with empty logs.
    pub(super) fn first(bounds: Bounds) -> Self {
        let mut config = Config::default();
        let mut nodes = [Node::default(); NODES];
        for id in 0..bounds.nodes {
            let member = id < bounds.members;
            if member {
                config = config.append(Member {
                    node: id,
                    joined: 1,
                    disk: 1,
                });
            }
            nodes[usize::from(id)] = Node {
                up: true,
                incarnation: 1,
                disk: 1,
                epoch: 1,
                paid: 1,
                synced: u8::from(member),
                in_sync: member,
                linked: member && id > 0,
                barrier: if member { 0 } else { UNKNOWN },
                ..Node::default()
            };
        }
        let mut configs = [Config::default(); EPOCHS];
        configs[0] = config;
        Self {
            nodes,
            configs,
            newest: 1,
            windows: 0,
            rounds: [0; ROUNDS],
            origins: [Origin::default(); WRITES],
            committed: Log::default(),
            acknowledged: Log::default(),
            read: Read::None,
            late: Late::default(),
            confirmed: config.mask(),
            writes: 0,
            crashes: 0,
            breaks: 0,
            reads: 0,
            swaps: 0,
            damages: 0,
            rollbacks: 0,
            broken: Broken::Nothing,
        }
    }

    pub(super) fn node(&self, id: u8) -> &Node {
        &self.nodes[usize::from(id)]
    }

    pub(super) fn node_mut(&mut self, id: u8) -> &mut Node {
        &mut self.nodes[usize::from(id)]
    }

    /// The config of an epoch.
    pub(super) fn config(&self, epoch: u8) -> &Config {
        &self.configs[usize::from(epoch.max(1)) - 1]
    }

    /// The epoch of a round.
    pub(super) fn round_epoch(&self, round: u8) -> u8 {
        self.rounds[usize::from(round.max(1)) - 1]
    }

    /// How many rounds were started.
    pub(super) fn rounds_started(&self) -> u8 {
        self.rounds.iter().filter(|epoch| **epoch != 0).count() as u8
    }

    /// The first property that broke wins.
    pub(super) fn breaks_property(&mut self, broken: Broken) {
        if self.broken == Broken::Nothing {
            self.broken = broken;
        }
    }
}
