//! The masters of a simulated cluster: one ordered log, several appliers, and the production loop on top.
//!
//! Raft itself is not played. What it promises is: one order of commands, at
//! most one leader a term, whose commands are committed or lost when it falls,
//! and deposed leaders that do not know it yet. Everything that decides is the
//! production code: `MasterState`, `compare`, `act`, `Delta`, snapshot objects.
//!
//! | file | knows |
//! |---|---|
//! | `agent` | the node's end: config, reports, subscription |
//! | `link` | what travels between a node and a master |
//! | `leader` | one master: its state, its term |
//! | `store` | the snapshot store |
//! | `judge` | what the masters must never do |
//! | `script` | commands |

mod agent;
mod agents;
mod judge;
mod leader;
mod link;
mod script;
mod store;
mod views;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use catena_chainnode::stage::World;
use catena_master::state::{Applied, Command, MasterState, WallMs};
use catena_proto::ids::{ClusterId, ShardId};
use catena_proto::time::Mono;

use self::agent::Agent;
use self::judge::Judge;
use self::leader::Master;
use self::link::Links;
use self::store::Store;
use super::planted::{Bug, Planted};

/// Masters look at the world this often.
const TURN: Duration = Duration::from_millis(25);
/// The shard of the stage.
const SHARD: ShardId = ShardId::new(1);
const CLUSTER: ClusterId = ClusterId::new(0xca7e);
/// Where the masters' wall clocks begin: any date does.
const WALL_BEGIN_MS: u64 = 1_800_000_000_000;

/// All masters, what the nodes know of them, and what lies between.
#[derive(Debug)]
pub(in crate::sim) struct Masters {
    /// Committed commands, in order.
    log: Vec<Command>,
    /// The state after the whole log.
    truth: MasterState,
    masters: Vec<Master>,
    /// The one that Raft would let commit; `None` while there is none.
    leader: Option<usize>,
    /// Members wanted in each chain.
    replicas: usize,
    agents: BTreeMap<u64, Agent>,
    links: Links,
    /// Pairs of node and master that do not reach each other.
    cut: BTreeSet<(u64, usize)>,
    store: Store,
    judge: Judge,
    next_turn: Mono,
    bug: Option<Bug>,
    /// How long a proposal takes until it is committed.
    commit_takes: Duration,
    /// What operators asked, and when it is committed.
    asked: VecDeque<(Mono, Command)>,
}

impl Masters {
    /// `count` masters without a cluster; the first one leads.
    pub(super) fn new(count: usize, replicas: usize, now: Mono, planted: Option<Planted>) -> Self {
        let mutant = planted.and_then(Planted::master);
        let mut masters: Vec<Master> = (0..count).map(|_| Master::new(mutant)).collect();
        if let Some(first) = masters.first_mut() {
            first.begin(now);
        }
        Self {
            log: Vec::new(),
            truth: MasterState::with_mutant(mutant),
            masters,
            leader: (count > 0).then_some(0),
            replicas,
            agents: BTreeMap::new(),
            links: Links::default(),
            cut: BTreeSet::new(),
            store: Store::default(),
            judge: Judge::default(),
            next_turn: now,
            bug: planted.and_then(Planted::control),
            commit_takes: Duration::ZERO,
            asked: VecDeque::new(),
        }
    }

    /// The moment of the next turn.
    pub(super) const fn next_turn(&self) -> Mono {
        self.next_turn
    }

    /// Takes in what a command of the stage did: processes that died or started.
    pub(super) fn settle(&mut self, world: &mut World) {
        self.processes(world);
        if world.now >= self.next_turn {
            self.turn(world);
            self.next_turn = world.now.plus(TURN);
        }
    }

    fn turn(&mut self, world: &mut World) {
        self.agents_turn(world);
        while self.leader.is_some()
            && self.asked.front().is_some_and(|(due, _)| *due <= world.now)
            && let Some((_, command)) = self.asked.pop_front()
        {
            self.commit(world, command);
        }
        self.masters_turn(world);
        self.judge.look(world, &self.agents);
    }

    /// The order of commands grows by one: that decides.
    fn commit(&mut self, world: &mut World, command: Command) -> Applied {
        let before = self.truth.config().cloned();
        let applied = self.truth.apply(&command);
        self.judge.committed(
            world,
            &self.agents,
            &self.truth,
            before.as_deref(),
            &command,
            &applied,
        );
        let done = match &applied {
            Applied::Changed(_) => "done".to_owned(),
            Applied::Kept => "kept".to_owned(),
            Applied::Refused(why) => format!("refused: {why}"),
        };
        world.say(&format!(
            "  masters: {:?} ({}): {done}",
            command.change, command.cause
        ));
        if matches!(applied, Applied::Changed(_))
            && let Some(chain) = self.truth.config().and_then(|c| c.chains.get(&SHARD))
            && world.chain().map(|c| c.epoch) != Some(chain.epoch)
        {
            world.decide(chain.clone());
        }
        self.log.push(command);
        applied
    }

    fn wall(now: Mono) -> WallMs {
        WallMs(WALL_BEGIN_MS + now.as_millis())
    }

    fn reaches(&self, node: u64, master: usize) -> bool {
        self.masters.get(master).is_some_and(|m| m.up) && !self.cut.contains(&(node, master))
    }
}
