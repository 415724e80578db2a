//! The rules as steps, each of which can be weakened on purpose.

use stateright::{Model, Property};

use super::state::{Config, NODES, Node, Record, State};

/// How far a search goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Members of the first chain; the other nodes are spares.
    pub members: u8,
    /// Epochs, the first included.
    pub epochs: u8,
    /// Writes.
    pub writes: u8,
    /// Crashes.
    pub crashes: u8,
}

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// R3: a newer epoch brings no debt.
    NoDebt,
    /// R3: owed to removed members only, and forgotten otherwise.
    DebtToRemovedOnly,
    /// R3: forgotten at the next change.
    DebtForgottenAtSecondChange,
    /// R4: forgotten by a restart.
    DebtForgottenByRestart,
    /// R2: used before every member has promised.
    LeaseBeforeCompletion,
    /// L1: records told apart by (epoch, seq) alone.
    IdentityByEpochAndSeq,
    /// S2: no barrier.
    NoBarrier,
    /// S1: an unsynced member hands over.
    UnsyncedSource,
    /// The tail commits what it has not synced.
    CommitWithoutOwnSync,
    /// The watermark runs ahead of the own sync.
    WatermarkWithoutOwnSync,
    /// L5: a restarted replica takes its log's end as committed.
    CommitIsDurableOnStart,
    /// L2: a cut keeps the link downwards.
    CutKeepsLinkDown,
}

impl Mutation {
    /// Every mutation.
    pub const ALL: &'static [Self] = &[
        Self::NoDebt,
        Self::DebtToRemovedOnly,
        Self::DebtForgottenAtSecondChange,
        Self::DebtForgottenByRestart,
        Self::LeaseBeforeCompletion,
        Self::IdentityByEpochAndSeq,
        Self::NoBarrier,
        Self::UnsyncedSource,
        Self::CommitWithoutOwnSync,
        Self::WatermarkWithoutOwnSync,
        Self::CommitIsDurableOnStart,
        Self::CutKeepsLinkDown,
    ];
}

/// One step of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The head of its own epoch appends a write.
    Write(u8),
    /// A node's log is synced.
    Sync(u8),
    /// A predecessor and its successor agree where to go on (L2).
    Handshake(u8, u8),
    /// Records and watermark go down (DESIGN §3.2).
    Forward(u8, u8),
    /// The commit point goes up.
    CommitUp(u8, u8),
    /// A round goes down and up: everybody promises, everybody has a lease (R1, R2).
    Round(u8),
    /// A round goes down part of the chain and is lost: promises without leases.
    LostRound(u8),
    /// A node's lease ends.
    LeaseEnds(u8),
    /// A node's promise of an epoch ends; no lease that it backs is left.
    PromiseEnds(u8, u8),
    /// A node takes the config of a newer epoch (C1).
    Accept(u8, u8),
    /// A debt is paid by a fellow's announcement (C5).
    Announced(u8, u8),
    /// The master removes members, those that stay by bit (M1, M2).
    Remove(u8),
    /// The master appends a tail (M1).
    Append(u8),
    /// A process dies; what it did not sync is gone.
    Crash(u8),
    /// It starts again.
    Restart(u8),
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How far it goes.
    pub bounds: Bounds,
    /// The rule that is left out.
    pub mutation: Option<Mutation>,
}

impl Rules {
    fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// The neighbour below in a node's own epoch, if both act on that epoch.
    fn successor(state: &State, n: u8) -> Option<u8> {
        let config = state.own(n)?;
        let below = config.members.get(config.position(n)? + 1)?.0;
        let (a, b) = (
            &state.nodes[usize::from(n)],
            &state.nodes[usize::from(below)],
        );
        (a.up && b.up && !a.stopped && !b.stopped && a.epoch == b.epoch).then_some(below)
    }

    /// S2 and the tail's commit follow from the rest.
    fn settle(&self, state: &mut State) {
        for n in 0..NODES as u8 {
            let Some(config) = state.own(n).cloned() else {
                continue;
            };
            let Some(at) = config.position(n) else {
                continue;
            };
            let joined = config.joined(n).unwrap_or(0);
            let last = at + 1 == config.members.len();
            let node = &mut state.nodes[usize::from(n)];
            if !node.up || node.stopped || node.debts != 0 || node.unsure {
                continue;
            }
            node.paid = node.epoch;
            let met = if at == 0 {
                node.synced == joined && node.barrier.is_some_and(|b| b <= node.durable)
            } else {
                node.linked
                    && node
                        .barrier
                        .is_some_and(|b| b <= node.durable || self.is(Mutation::NoBarrier))
            };
            if met && !node.in_sync {
                node.synced = joined;
                node.in_sync = true;
            }
            if last && node.in_sync {
                let own = if self.is(Mutation::CommitWithoutOwnSync) {
                    node.log.len() as u8
                } else {
                    node.durable
                };
                let reached = if at == 0 {
                    node.durable
                } else {
                    own.min(node.watermark)
                };
                node.commit = node.commit.max(reached);
            }
        }
        self.acknowledge(state);
    }

    /// The head of its own epoch tells clients what it knows to be committed.
    fn acknowledge(&self, state: &mut State) {
        for n in 0..NODES as u8 {
            let is_head = state.own(n).is_some_and(|c| c.position(n) == Some(0));
            let node = &state.nodes[usize::from(n)];
            let may = node.barrier.is_some_and(|b| b <= node.commit);
            if !is_head || !node.up || node.stopped || !node.in_sync || !may {
                continue;
            }
            let commit = usize::from(node.commit).min(node.log.len());
            if commit > state.acknowledged.len() {
                state.acknowledged = node.log[..commit].to_vec();
            }
        }
    }

    fn begin_epoch(state: &mut State, n: u8) {
        let is_head = state.own(n).is_some_and(|c| c.position(n) == Some(0));
        let node = &mut state.nodes[usize::from(n)];
        node.in_sync = false;
        node.lease = false;
        node.linked = false;
        node.watermark = 0;
        node.barrier = is_head.then_some(node.log.len() as u8);
        Self::unlink_below(state, n);
    }

    /// Whoever followed this node has no link any more.
    fn unlink_below(state: &mut State, n: u8) {
        for below in 0..NODES as u8 {
            let follows = state.own(below).is_some_and(|c| {
                c.position(below)
                    .and_then(|at| at.checked_sub(1))
                    .map(|at| c.members[at].0)
                    == Some(n)
            });
            if follows {
                let node = &mut state.nodes[usize::from(below)];
                node.linked = false;
                node.watermark = 0;
            }
        }
    }

    fn accept(&self, state: &mut State, n: u8, epoch: u8) {
        let newer = state.config(epoch).map_or(0, Config::mask);
        let mut debts = 0;
        for old in 1..epoch {
            if state.nodes[usize::from(n)].promised & (1 << old) == 0 {
                continue;
            }
            let fellows = state.config(old).map_or(0, Config::mask) & !(1 << n);
            if self.is(Mutation::DebtToRemovedOnly) {
                debts |= fellows & !newer;
            } else {
                debts |= fellows;
            }
        }
        let before = state.nodes[usize::from(n)].epoch;
        let node = &mut state.nodes[usize::from(n)];
        if self.is(Mutation::DebtToRemovedOnly) {
            node.promised = 0;
        }
        if self.is(Mutation::DebtForgottenAtSecondChange) {
            let own = if node.promised & (1 << before) == 0 {
                0
            } else {
                debts
            };
            node.promised &= 1 << before;
            node.debts = own;
        } else if !self.is(Mutation::NoDebt) {
            node.debts |= debts;
        }
        node.epoch = epoch;
        Self::begin_epoch(state, n);
    }

    fn handshake(&self, state: &mut State, a: u8, b: u8) {
        let above = state.nodes[usize::from(a)].clone();
        let joined = state.own(b).and_then(|c| c.joined(b)).unwrap_or(0);
        let node = &mut state.nodes[usize::from(b)];
        let same = |x: &Record, y: &Record| {
            x == y || (self.is(Mutation::IdentityByEpochAndSeq) && x.epoch == y.epoch)
        };
        let agree = above
            .log
            .iter()
            .zip(&node.log)
            .take_while(|(x, y)| same(x, y))
            .count();
        let older = above
            .log
            .get(agree)
            .zip(node.log.get(agree))
            .is_some_and(|(x, y)| x.epoch < y.epoch);
        if agree < usize::from(node.commit) || (older && node.synced == joined) {
            // L2: a fork. In this model disks are true, so it is always a false alarm.
            node.stopped = true;
            state.false_alarm = true;
            return;
        }
        let cut = agree < node.log.len();
        node.log.truncate(agree);
        node.durable = node.durable.min(agree as u8);
        node.linked = true;
        node.watermark = 0;
        if !node.in_sync {
            node.barrier = Some(above.log.len() as u8);
        }
        if cut && !self.is(Mutation::CutKeepsLinkDown) {
            Self::unlink_below(state, b);
        }
    }

    fn forward(&self, state: &mut State, a: u8, b: u8) {
        let is_head = state.own(a).is_some_and(|c| c.position(a) == Some(0));
        let above = state.nodes[usize::from(a)].clone();
        let node = &mut state.nodes[usize::from(b)];
        // Contiguous with what the link carried; a mutant's link may have lost its place.
        let from = node.log.len().min(above.log.len());
        node.log.extend_from_slice(&above.log[from..]);
        let own = if self.is(Mutation::WatermarkWithoutOwnSync) {
            above.log.len() as u8
        } else {
            above.durable
        };
        let watermark = if is_head {
            own
        } else {
            own.min(above.watermark)
        };
        node.watermark = node.watermark.max(watermark);
    }

    fn crash(state: &mut State, n: u8) {
        let node = &mut state.nodes[usize::from(n)];
        node.up = false;
        node.log.truncate(usize::from(node.durable));
        node.in_sync = false;
        node.lease = false;
        node.linked = false;
        node.barrier = None;
        node.debts = 0;
        state.crashes += 1;
        Self::unlink_below(state, n);
    }

    fn restart(&self, state: &mut State, n: u8) {
        let node = &mut state.nodes[usize::from(n)];
        node.up = true;
        node.incarnation += 1;
        // L5: nothing is known to be committed but what was applied, which a crash may take to zero.
        node.commit = if self.is(Mutation::CommitIsDurableOnStart) {
            node.durable
        } else {
            0
        };
        let forgets = self.is(Mutation::DebtForgottenByRestart);
        node.unsure = node.paid != node.epoch && !forgets && node.promised != 0;
        if forgets {
            node.promised = 0;
        }
        Self::begin_epoch(state, n);
    }
}

impl Model for Rules {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let members = self.bounds.members;
        let node = |n: u8| Node {
            up: true,
            incarnation: 1,
            epoch: 1,
            log: Vec::new(),
            durable: 0,
            commit: 0,
            synced: u8::from(n < members),
            in_sync: false,
            barrier: (n == 0).then_some(0),
            linked: false,
            watermark: 0,
            lease: false,
            promised: 0,
            debts: 0,
            paid: 1,
            unsure: false,
            stopped: false,
        };
        let mut state = State {
            nodes: (0..NODES as u8).map(node).collect(),
            configs: vec![Config {
                members: (0..members).map(|n| (n, 1)).collect(),
            }],
            acknowledged: Vec::new(),
            writes: 0,
            crashes: 0,
            false_alarm: false,
        };
        self.settle(&mut state);
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        let newest = state.configs.len() as u8;
        for n in 0..NODES as u8 {
            let node = &state.nodes[usize::from(n)];
            if !node.up {
                actions.push(Step::Restart(n));
                continue;
            }
            let own = state.own(n);
            let position = own.and_then(|c| c.position(n));
            if position == Some(0) && !node.stopped && state.writes < self.bounds.writes {
                let joined = own.and_then(|c| c.joined(n));
                if joined == Some(node.synced) {
                    actions.push(Step::Write(n));
                }
            }
            if usize::from(node.durable) < node.log.len() {
                actions.push(Step::Sync(n));
            }
            if let Some(below) = Self::successor(state, n) {
                let b = &state.nodes[usize::from(below)];
                let hands_over = node.in_sync
                    || (self.is(Mutation::UnsyncedSource) && node.debts == 0 && !node.unsure);
                if hands_over && !b.linked {
                    actions.push(Step::Handshake(n, below));
                }
                if b.linked {
                    let more = b.log.len() < node.log.len();
                    let mark = if position == Some(0) {
                        node.durable
                    } else {
                        node.durable.min(node.watermark)
                    };
                    if more || mark > b.watermark {
                        actions.push(Step::Forward(n, below));
                    }
                    if b.commit > node.commit && node.in_sync {
                        actions.push(Step::CommitUp(below, n));
                    }
                }
            }
            if position == Some(0) && node.in_sync {
                let config = own.cloned();
                let chain: Vec<u8> = config
                    .iter()
                    .flat_map(|c| c.members.iter().map(|(m, _)| *m))
                    .collect();
                let all = chain.windows(2).all(|w| {
                    Self::successor(state, w[0]) == Some(w[1])
                        && state.nodes[usize::from(w[1])].linked
                });
                let fresh = chain.iter().any(|m| !state.nodes[usize::from(*m)].lease);
                if chain.len() > 1 && all && fresh {
                    actions.push(Step::Round(n));
                }
                let first = chain.get(1).is_some_and(|m| {
                    Self::successor(state, n) == Some(*m) && state.nodes[usize::from(*m)].linked
                });
                if self.is(Mutation::LeaseBeforeCompletion) && chain.len() > 2 && first && fresh {
                    actions.push(Step::LostRound(n));
                }
            }
            if node.lease {
                actions.push(Step::LeaseEnds(n));
            }
            for epoch in (1..=newest).filter(|e| node.promised & (1 << e) != 0) {
                // R1, R2: the promise outlives every lease of that epoch, whoever holds it.
                let backed = state
                    .nodes
                    .iter()
                    .any(|m| m.up && m.lease && m.epoch == epoch);
                if !backed {
                    actions.push(Step::PromiseEnds(n, epoch));
                }
            }
            actions.extend((node.epoch + 1..=newest).map(|epoch| Step::Accept(n, epoch)));
            for fellow in (0..NODES as u8).filter(|f| node.debts & (1 << f) != 0) {
                let other = &state.nodes[usize::from(fellow)];
                if other.up && other.epoch >= node.epoch {
                    actions.push(Step::Announced(n, fellow));
                }
            }
            if state.crashes < self.bounds.crashes {
                actions.push(Step::Crash(n));
            }
        }
        if newest < self.bounds.epochs {
            let config = &state.configs[usize::from(newest) - 1];
            let synced = |m: u8, joined: u8| state.nodes[usize::from(m)].synced == joined;
            for stay in 1..(1_u8 << NODES) {
                let kept = config.mask() & stay;
                let safe = config
                    .members
                    .iter()
                    .any(|(m, j)| kept & (1 << m) != 0 && synced(*m, *j));
                if stay == kept && kept != config.mask() && safe {
                    actions.push(Step::Remove(kept));
                }
            }
            let joiner_done = config.members.iter().all(|(m, j)| synced(*m, *j));
            for n in 0..NODES as u8 {
                // M1: nobody is appended until the previous joiner is in sync. With the hand-over half of S1
                // off, this half is off as well: either alone suffices.
                let allowed = joiner_done || self.is(Mutation::UnsyncedSource);
                if config.position(n).is_none() && allowed {
                    actions.push(Step::Append(n));
                }
            }
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Write(n) => {
                state.writes += 1;
                let write = state.writes;
                let node = &mut state.nodes[usize::from(n)];
                let record = Record {
                    epoch: node.epoch,
                    incarnation: node.incarnation,
                    write,
                };
                node.log.push(record);
            }
            Step::Sync(n) => {
                let node = &mut state.nodes[usize::from(n)];
                node.durable = node.log.len() as u8;
            }
            Step::Handshake(a, b) => self.handshake(&mut state, a, b),
            Step::Forward(a, b) => self.forward(&mut state, a, b),
            Step::CommitUp(b, a) => {
                let commit = state.nodes[usize::from(b)].commit;
                let node = &mut state.nodes[usize::from(a)];
                node.commit = node.commit.max(commit.min(node.durable));
            }
            Step::Round(n) => {
                let epoch = state.nodes[usize::from(n)].epoch;
                let chain = state.own(n).cloned()?;
                for (m, _) in chain.members {
                    let node = &mut state.nodes[usize::from(m)];
                    node.promised |= 1 << epoch;
                    node.lease = true;
                }
            }
            Step::LostRound(n) => {
                let epoch = state.nodes[usize::from(n)].epoch;
                for m in [n, Self::successor(last, n)?] {
                    let node = &mut state.nodes[usize::from(m)];
                    node.promised |= 1 << epoch;
                    node.lease = true;
                }
            }
            Step::LeaseEnds(n) => state.nodes[usize::from(n)].lease = false,
            Step::PromiseEnds(n, epoch) => {
                let node = &mut state.nodes[usize::from(n)];
                node.promised &= !(1 << epoch);
                if node.promised & !(1 << node.epoch) == 0 {
                    // Every older promise is over: so are the debts that came of them.
                    node.debts = 0;
                    node.unsure = false;
                }
            }
            Step::Accept(n, epoch) => self.accept(&mut state, n, epoch),
            Step::Announced(n, fellow) => state.nodes[usize::from(n)].debts &= !(1 << fellow),
            Step::Remove(kept) => {
                let mut config = state.configs.last()?.clone();
                config.members.retain(|(m, _)| kept & (1 << m) != 0);
                state.configs.push(config);
            }
            Step::Append(n) => {
                let mut config = state.configs.last()?.clone();
                config.members.push((n, state.configs.len() as u8 + 1));
                state.configs.push(config);
            }
            Step::Crash(n) => Self::crash(&mut state, n),
            Step::Restart(n) => self.restart(&mut state, n),
        }
        self.settle(&mut state);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "L1, L2: one committed record per seq",
                |_, state: &State| {
                    let committed =
                        |n: &Node| n.log[..usize::from(n.commit).min(n.log.len())].to_vec();
                    state.nodes.iter().all(|a| {
                        state
                            .nodes
                            .iter()
                            .all(|b| committed(a).iter().zip(&committed(b)).all(|(x, y)| x == y))
                    })
                },
            ),
            Property::always("R2, R3: no stale read", |_, state: &State| {
                (0..NODES as u8).filter(|n| state.serves(*n)).all(|n| {
                    let log = &state.nodes[usize::from(n)].log;
                    log.len() >= state.acknowledged.len()
                        && log.iter().zip(&state.acknowledged).all(|(x, y)| x == y)
                })
            }),
            Property::always(
                "S2: what was acknowledged stays in the chain",
                |_, state: &State| {
                    // Some synced member of the newest chain has all of it durable.
                    let Some(config) = state.configs.last() else {
                        return true;
                    };
                    let holds = |n: &Node| {
                        usize::from(n.durable) >= state.acknowledged.len()
                            && n.log.iter().zip(&state.acknowledged).all(|(x, y)| x == y)
                    };
                    config
                        .members
                        .iter()
                        .filter(|(m, j)| state.nodes[usize::from(*m)].synced == *j)
                        .all(|(m, _)| holds(&state.nodes[usize::from(*m)]))
                },
            ),
            Property::always("L2: no false alarm", |_, state: &State| !state.false_alarm),
        ]
    }
}
