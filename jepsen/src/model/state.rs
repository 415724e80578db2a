//! What the model remembers of nodes, configs and clients.

/// Most nodes of a model.
pub(super) const NODES: usize = 3;

/// A record: who made it (rule L1). Its position is its place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Record {
    pub(super) epoch: u8,
    pub(super) incarnation: u8,
    /// Which write it is: tells records apart that share epoch and seq.
    pub(super) write: u8,
}

/// One node with its disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) up: bool,
    pub(super) incarnation: u8,
    /// The newest accepted epoch, persisted (C1).
    pub(super) epoch: u8,
    pub(super) log: Vec<Record>,
    /// How much of the log is durable.
    pub(super) durable: u8,
    pub(super) commit: u8,
    /// The stint for which it is synced (S1); 0 is none.
    pub(super) synced: u8,
    pub(super) in_sync: bool,
    pub(super) barrier: Option<u8>,
    /// Linked to its predecessor since the last change of either.
    pub(super) linked: bool,
    pub(super) watermark: u8,
    /// It may serve reads in its present epoch.
    pub(super) lease: bool,
    /// Epochs in which its promise still runs, by bit.
    pub(super) promised: u8,
    /// Fellows that it owes, by bit (R3).
    pub(super) debts: u8,
    /// The newest epoch whose debts are paid (R4).
    pub(super) paid: u8,
    /// Not sure since its start what it owes: only time pays it (R4).
    pub(super) unsure: bool,
    /// It stopped for a fork (L2).
    pub(super) stopped: bool,
}

/// A chain's config: members in order, with the epoch in which each joined.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Config {
    pub(super) members: Vec<(u8, u8)>,
}

impl Config {
    pub(super) fn position(&self, n: u8) -> Option<usize> {
        self.members.iter().position(|(m, _)| *m == n)
    }

    pub(super) fn joined(&self, n: u8) -> Option<u8> {
        self.members
            .iter()
            .find(|(m, _)| *m == n)
            .map(|(_, joined)| *joined)
    }

    pub(super) fn mask(&self) -> u8 {
        self.members.iter().fold(0, |mask, (m, _)| mask | 1 << m)
    }
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub(super) nodes: Vec<Node>,
    /// By epoch; the first serving one is epoch 1, at index 0.
    pub(super) configs: Vec<Config>,
    /// What clients were told, in order.
    pub(super) acknowledged: Vec<Record>,
    pub(super) writes: u8,
    pub(super) crashes: u8,
    /// A replica stopped although nothing was wrong.
    pub(super) false_alarm: bool,
}

impl State {
    pub(super) fn config(&self, epoch: u8) -> Option<&Config> {
        self.configs.get(usize::from(epoch).checked_sub(1)?)
    }

    /// The config that a node acts on.
    pub(super) fn own(&self, n: u8) -> Option<&Config> {
        self.config(self.nodes[usize::from(n)].epoch)
    }

    /// Could this node answer a linearizable read now?
    pub(super) fn serves(&self, n: u8) -> bool {
        let node = &self.nodes[usize::from(n)];
        let solo = self
            .own(n)
            .is_some_and(|c| c.members.len() == 1 && c.position(n).is_some());
        node.up
            && !node.stopped
            && node.in_sync
            && (node.lease || solo)
            && node.barrier.is_some_and(|b| b <= node.commit)
    }
}
