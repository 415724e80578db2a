//! One master: its state, and, while it leads or thinks so, a term of the production loop.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use catena_chainnode::stage::World;
use catena_master::control::{self, Action, Observed, Since};
use catena_master::push::{Due, Pushes, everything};
use catena_master::state::{Change, Command, Controller, MasterState, Mutant};
use catena_proto::config::{ConfigPosition, Settings};
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
    /// It applies nothing until a step of the script says otherwise.
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
    pushes: Pushes,
    /// Proposed and not committed, in order.
    pub(super) proposing: VecDeque<Command>,
    proposed_at: Mono,
    stored: ConfigPosition,
    stored_at: Option<Mono>,
    /// Raft has another leader since then, and this one does not know.
    pub(super) deposed: Option<Mono>,
}

impl Master {
    /// It leads from now on, with nothing seen yet.
    pub(super) fn begin(&mut self, now: Mono) {
        self.term = Some(Term {
            observed: Observed::new(now),
            since: Since::default(),
            subscribers: BTreeMap::new(),
            pushes: Pushes::default(),
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
                        term.pushes.opened(name, open.position);
                        term.subscribers.insert(name, (id, open, now));
                    }
                    Up::Report(report) if present => term.observed.on_report(now, name, report),
                    Up::Outcome(outcome) if present => {
                        term.pushes.answered(name, outcome.to);
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
                Action::PushAgain(node) => term.pushes.again(node),
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
        for (node, due) in term.pushes.due(newest) {
            let Some((stream, ..)) = term.subscribers.get(&node) else {
                continue;
            };
            let delta = match due {
                Due::Anew(held) => Some(everything(config, held)),
                Due::Since(held) => state.delta_since(held),
            };
            let Some(delta) = delta else {
                self.links.say_down(*stream, now, Down::ReadSnapshot);
                forget(term, node, now);
                continue;
            };
            self.links.say_down(*stream, now, Down::Push(delta));
            term.pushes.sent(node, newest);
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
    term.pushes.closed(node);
    term.observed.on_closed(now, node);
}

/// The cluster's creation, and registrations.
fn beginnings(
    state: &MasterState,
    term: &Term,
    replicas: usize,
    at: catena_master::state::WallMs,
) -> Vec<Command> {
    let Some(config) = state.config() else {
        return vec![Command {
            at,
            by: Controller::System,
            cause: "it begins".to_owned(),
            change: Change::CreateCluster {
                cluster: CLUSTER,
                split_keys: Vec::new(),
                replicas,
                settings: Settings::default(),
            },
        }];
    };
    let opens = term.subscribers.values().map(|(_, open, _)| open);
    control::registrations(config, opens, at)
}
