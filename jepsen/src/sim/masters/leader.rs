//! One master: its state, and, while it leads or thinks so, a term of the production loop.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use catena_chainnode::stage::World;
use catena_master::control::{self, Action, Observed, Since};
use catena_master::state::{Change, Command, Controller, MasterState, Mutant};
use catena_proto::config::{ClusterConfig, ConfigPosition, Delta, DeltaItem, Settings};
use catena_proto::ids::NodeId;
use catena_proto::report::NodeOpen;
use catena_proto::time::Mono;

use super::judge::Proposed;
use super::link::{Down, Up};
use super::{CLUSTER, Masters};
use crate::sim::planted::Bug;

/// A quiet subscription hears something this often.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// The whole state goes to the store at least this often.
const STORE_EVERY: Duration = Duration::from_secs(10);
/// A master that no majority answers stops to count itself as a leader after this.
const BELIEVES_FOR: Duration = Duration::from_millis(1_500);

/// One master.
#[derive(Debug)]
pub(super) struct Master {
    pub(super) up: bool,
    pub(super) state: MasterState,
    /// Entries of the log that it has applied.
    pub(super) applied: usize,
    /// It applies nothing for now.
    pub(super) lags: bool,
    pub(super) term: Option<Term>,
}

impl Master {
    /// A master with nothing in its log.
    pub(super) fn new(mutant: Option<Mutant>) -> Self {
        Self {
            up: true,
            state: MasterState::with_mutant(mutant),
            applied: 0,
            lags: false,
            term: None,
        }
    }
}

/// What one term of leadership has.
#[derive(Debug)]
pub(super) struct Term {
    pub(super) observed: Observed,
    since: Since,
    /// The stream of each node that subscribed, and how it opened it.
    subscribers: BTreeMap<NodeId, (u64, NodeOpen, Mono)>,
    debts: BTreeMap<NodeId, Debt>,
    /// Proposed and not committed, in order.
    pub(super) proposing: VecDeque<Command>,
    proposed_at: Mono,
    stored: ConfigPosition,
    stored_at: Option<Mono>,
    /// Raft has another leader since then, and this one does not know.
    pub(super) deposed: Option<Mono>,
}

/// What one subscription is owed (as `master/src/runtime/pushes.rs` keeps it).
#[derive(Debug, Default)]
struct Debt {
    acked: ConfigPosition,
    under_way: Option<ConfigPosition>,
    anew: bool,
}

impl Master {
    /// It leads from now on, with nothing seen yet.
    pub(super) fn begin(&mut self, now: Mono) {
        self.term = Some(Term {
            observed: Observed::new(now),
            since: Since::default(),
            subscribers: BTreeMap::new(),
            debts: BTreeMap::new(),
            proposing: VecDeque::new(),
            proposed_at: now,
            stored: ConfigPosition::default(),
            stored_at: None,
            deposed: None,
        });
    }
}

impl Masters {
    pub(super) fn masters_turn(&mut self, world: &mut World) {
        for m in 0..self.masters.len() {
            if !self.masters[m].up {
                continue;
            }
            self.catch_up_state(m);
            let over = self.masters[m]
                .term
                .as_ref()
                .and_then(|t| t.deposed)
                .is_some_and(|at| world.now.since(at) >= BELIEVES_FOR);
            if over {
                self.end_term(m, world.now);
            }
            let Some(mut term) = self.masters[m].term.take() else {
                continue;
            };
            self.hear_nodes(m, &mut term, world);
            self.commit_proposals(m, &mut term, world);
            self.act(m, &mut term, world);
            self.push(m, &mut term, world);
            self.write_snapshot(m, &mut term, world);
            self.masters[m].term = Some(term);
        }
    }

    /// Applies what is committed and not applied yet.
    pub(super) fn catch_up_state(&mut self, m: usize) {
        let master = &mut self.masters[m];
        let deposed = master.term.as_ref().is_some_and(|t| t.deposed.is_some());
        if master.lags || deposed {
            return;
        }
        for command in &self.log[master.applied..] {
            master.state.apply(command);
        }
        master.applied = self.log.len();
    }

    /// It leads no more: its streams end.
    pub(super) fn end_term(&mut self, m: usize, now: Mono) {
        self.masters[m].term = None;
        for stream in self.links.of_master(m) {
            self.links.say_down(stream, now, Down::Closed);
        }
    }

    fn hear_nodes(&mut self, m: usize, term: &mut Term, world: &World) {
        let now = world.now;
        for id in self.links.of_master(m) {
            let Some(node) = self.links.get(id).map(|s| s.node) else {
                continue;
            };
            if self.cut.contains(&(node, m)) {
                continue;
            }
            let name = NodeId::new(node);
            while let Some(said) = self.links.hear_up(id, now) {
                let present = term.subscribers.get(&name).is_some_and(|s| s.0 == id);
                match said {
                    Up::Open(mut open) => {
                        let before = term.observed.node(name).map(|seen| seen.incarnation);
                        if self.bug == Some(Bug::OlderIncarnationCounts) {
                            open.incarnation = before.unwrap_or(open.incarnation);
                        }
                        term.observed.on_open(now, &open);
                        let debt = Debt {
                            acked: open.position,
                            ..Debt::default()
                        };
                        term.debts.insert(name, debt);
                        term.subscribers.insert(name, (id, open, now));
                    }
                    Up::Report(report) if present => term.observed.on_report(now, name, report),
                    Up::Outcome(outcome) if present => {
                        if let Some(debt) = term.debts.get_mut(&name)
                            && debt.under_way == Some(outcome.to)
                        {
                            debt.under_way = None;
                            debt.acked = debt.acked.max(outcome.to);
                        }
                        term.observed.on_outcome(now, name, outcome);
                    }
                    Up::Closed => {
                        self.links.drop_stream(id);
                        if present {
                            forget(term, name, now);
                        }
                    }
                    Up::Report(_) | Up::Outcome(_) => {}
                }
            }
        }
    }

    /// Only the true leader's proposals are committed, in order; a deposed one waits in vain.
    fn commit_proposals(&mut self, m: usize, term: &mut Term, world: &mut World) {
        if self.leader != Some(m) || world.now < term.proposed_at.plus(self.commit_takes) {
            return;
        }
        while let Some(command) = term.proposing.pop_front() {
            self.commit(world, command);
            // A proposer knows that its command is committed by applying it.
            self.catch_up_state(m);
        }
    }

    fn act(&mut self, m: usize, term: &mut Term, world: &mut World) {
        self.judge.reached(world, m, &self.agents, &self.cut);
        let now = world.now;
        let state = &self.masters[m].state;
        let found = control::compare(state, &term.observed, now);
        term.since.note(&found, now);
        if !term.proposing.is_empty() {
            return;
        }
        let wall = Self::wall(now);
        let mut commands = beginnings(state, term, self.replicas, wall);
        for action in control::act(state, &term.observed, &found, &term.since, now, wall) {
            match action {
                Action::Propose(command) => commands.push(command),
                Action::PushAgain(node) => {
                    if let Some(debt) = term.debts.get_mut(&node) {
                        debt.under_way = None;
                        debt.anew = true;
                    }
                }
            }
        }
        for command in &commands {
            let proposed = Proposed {
                master: m,
                state,
                command,
                agents: &self.agents,
                cut: &self.cut,
                delayed: self.links.delays.values().any(|d| !d.is_zero()),
            };
            self.judge.proposed(world, &proposed);
        }
        if !commands.is_empty() {
            term.proposed_at = now;
        }
        term.proposing.extend(commands);
    }

    fn push(&mut self, m: usize, term: &mut Term, world: &World) {
        let now = world.now;
        let hasty = self.bug == Some(Bug::UnappliedPushed) && !term.proposing.is_empty();
        let ahead = hasty.then(|| {
            let mut state = self.masters[m].state.clone();
            for command in &term.proposing {
                state.apply(command);
            }
            state
        });
        let state = ahead.as_ref().unwrap_or(&self.masters[m].state);
        let Some(config) = state.config() else {
            return;
        };
        let newest = state.position();
        let owed = |d: &Debt| d.under_way.is_none() && (d.anew || d.acked < newest);
        let due = term.debts.iter().filter(|(_, d)| owed(d));
        let due: Vec<(NodeId, bool, ConfigPosition)> =
            due.map(|(n, d)| (*n, d.anew, d.acked)).collect();
        for (node, anew, acked) in due {
            let Some((stream, ..)) = term.subscribers.get(&node) else {
                continue;
            };
            let delta = match anew {
                true => Some(everything(config, acked)),
                false => state.delta_since(acked),
            };
            let Some(delta) = delta else {
                self.links.say_down(*stream, now, Down::ReadSnapshot);
                forget(term, node, now);
                continue;
            };
            self.links.say_down(*stream, now, Down::Push(delta));
            if let Some(debt) = term.debts.get_mut(&node) {
                debt.under_way = Some(newest);
                debt.anew = false;
            }
            term.observed.on_pushed(now, node, newest);
        }
        for (stream, _, said) in term.subscribers.values_mut() {
            if now.since(*said) >= ALIVE_EVERY {
                *said = now;
                self.links.say_down(*stream, now, Down::Alive);
            }
        }
    }

    /// At a fixed pace, and sooner when something is new.
    fn write_snapshot(&mut self, m: usize, term: &mut Term, world: &World) {
        let Some(config) = self.masters[m].state.config() else {
            return;
        };
        let due = term
            .stored_at
            .is_none_or(|at| world.now.since(at) >= STORE_EVERY);
        if !due && config.position <= term.stored {
            return;
        }
        term.stored_at = Some(world.now);
        if self.store.write(config) && config.position > term.stored {
            term.stored = config.position;
            let command = Command {
                at: Self::wall(world.now),
                by: Controller::System,
                cause: "a snapshot was written".to_owned(),
                change: Change::SnapshotStored(config.position),
            };
            term.proposing.push_back(command);
        }
    }
}

fn forget(term: &mut Term, node: NodeId, now: Mono) {
    term.subscribers.remove(&node);
    term.debts.remove(&node);
    term.observed.on_closed(now, node);
}

/// The cluster's creation, and registrations.
fn beginnings(
    state: &MasterState,
    term: &Term,
    replicas: usize,
    at: catena_master::state::WallMs,
) -> Vec<Command> {
    let by_system = |change: Change| Command {
        at,
        by: Controller::System,
        cause: "it begins".to_owned(),
        change,
    };
    let Some(config) = state.config() else {
        return vec![by_system(Change::CreateCluster {
            cluster: CLUSTER,
            split_keys: Vec::new(),
            replicas,
            settings: Settings::default(),
        })];
    };
    let subscribers = term.subscribers.values();
    let unregistered = subscribers.filter(|(_, open, _)| {
        let held = config.nodes.get(&open.node);
        held.is_none_or(|held| held.disk != open.disk)
    });
    unregistered
        .map(|(_, open, _)| {
            by_system(Change::RegisterNode {
                node: open.node,
                disk: open.disk,
                addr: open.addr.clone(),
                http: open.http.clone(),
                zone: open.zone.clone(),
            })
        })
        .collect()
}

/// Everything once more, as `master/src/runtime/pushes.rs` says it.
fn everything(config: &ClusterConfig, base: ConfigPosition) -> Delta {
    let nodes = config.nodes.values().cloned().map(DeltaItem::Node);
    let chains = config.chains.values().cloned().map(DeltaItem::Chain);
    let learners = config.chains.keys().map(|shard| {
        let of = config.learners.iter().filter(|l| l.shard == *shard);
        DeltaItem::Learners(*shard, of.copied().collect())
    });
    let settings = DeltaItem::Settings(config.settings.clone());
    Delta {
        cluster: config.cluster,
        base,
        to: config.position,
        items: nodes
            .chain(chains)
            .chain(learners)
            .chain(std::iter::once(settings))
            .collect(),
    }
}
