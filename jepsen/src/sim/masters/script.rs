//! The masters' part of the script language (the stage's own is in `chainnode/src/stage/script.rs`).
//!
//! | command | what it does |
//! |---|---|
//! | `masters 3 REPLICAS` | three masters, of which 0 leads, make a cluster of the nodes that come |
//! | `lead M [late K]` | master M leads; the old one knows, and K of its commands under way are still committed |
//! | `usurp M [late K]` | the same, and the old one goes on believing that it leads |
//! | `deposed` | nobody leads: the majority is dead |
//! | `mcrash M`, `mstart M` | a master's process |
//! | `mcut N M`, `mheal N M`, `alone M`, `mheal` | who reaches whom; nobody reaches M; everybody reaches everybody |
//! | `mlag M`, `mgo M` | a master applies nothing; it goes on |
//! | `mode N normal\|deaf\|nack` | how a node treats configs |
//! | `delay N MS`, `commits MS` | how long a message, or a commit, takes |
//! | `store down\|up\|empty\|garbage\|back` | the snapshot store |

use std::time::Duration;

use catena_chainnode::stage::World;
use catena_master::control::removal_evidence;
use catena_master::state::{ChainStep, Change, Command, Controller, Removal};
use catena_proto::ids::NodeId;

use super::agent::Mode;
use super::{Masters, SHARD};

impl Masters {
    /// Plays a command of the masters; `None` if it is none.
    pub(in crate::sim) fn play(&mut self, world: &mut World, words: &[&str]) -> Option<()> {
        match words {
            ["lead", m, rest @ ..] => self.elect(world, m, rest, true)?,
            ["usurp", m, rest @ ..] => self.elect(world, m, rest, false)?,
            ["deposed"] => self.depose(world, 0, false),
            ["mcrash", m] => {
                let m = self.index(m)?;
                if self.leader == Some(m) {
                    self.depose(world, 0, true);
                }
                self.end_term(m, world.now);
                self.masters[m].up = false;
            }
            ["mstart", m] => {
                let m = self.index(m)?;
                self.masters[m].up = true;
            }
            ["mcut", n, m] => {
                let pair = (n.parse().ok()?, self.index(m)?);
                self.cut.insert(pair);
            }
            ["mheal", n, m] => {
                let pair = (n.parse().ok()?, self.index(m)?);
                self.cut.remove(&pair);
            }
            ["mheal"] => self.cut.clear(),
            ["alone", m] => {
                let m = self.index(m)?;
                self.cut.extend(world.nodes.keys().map(|n| (*n, m)));
            }
            ["mlag", m] => {
                let m = self.index(m)?;
                self.masters[m].lags = true;
            }
            ["mgo", m] => {
                let m = self.index(m)?;
                self.masters[m].lags = false;
            }
            ["mode", n, mode] => {
                let n: u64 = n.parse().ok()?;
                let mode = match *mode {
                    "normal" => Mode::Normal,
                    "deaf" => Mode::Deaf,
                    "nack" => Mode::Nack,
                    _ => return None,
                };
                let agent = self.agents.get_mut(&n)?;
                agent.mode = mode;
                if world.is_up(n) {
                    agent.put_in_force(n, world);
                }
            }
            ["delay", n, ms] => {
                let delay = Duration::from_millis(ms.parse().ok()?);
                self.links.delays.insert(n.parse().ok()?, delay);
            }
            ["commits", ms] => self.commit_takes = Duration::from_millis(ms.parse().ok()?),
            ["op", "remove", n] => self.operator_removes(world, n.parse().ok()?),
            ["op", "add", n] => {
                let node = NodeId::new(n.parse().ok()?);
                self.ask(world, Change::WantMember { shard: SHARD, node });
            }
            ["store", "down"] => self.store.down = true,
            ["store", "up"] => self.store.down = false,
            ["store", "empty"] => self.store.empty(),
            ["store", "garbage"] => self.store.fill_with_garbage(),
            ["store", "back"] => self.store.roll_back(),
            _ => return None,
        }
        Some(())
    }

    /// What `catena chain remove-member` makes of it, if the leader has the evidence that M2 wants.
    fn operator_removes(&mut self, world: &World, n: u64) {
        let node = NodeId::new(n);
        let Some(master) = self.leader.and_then(|m| self.masters.get(m)) else {
            return;
        };
        let Some((term, chain)) = master.term.as_ref().zip(
            master
                .state
                .config()
                .and_then(|config| config.chains.get(&SHARD)),
        ) else {
            return;
        };
        let seen = &term.observed;
        let Ok(evidence) = removal_evidence(&master.state, seen, SHARD, node, world.now) else {
            return;
        };
        let change = Change::ReconfigureChain {
            shard: SHARD,
            expected_epoch: chain.epoch,
            step: ChainStep::Remove(vec![Removal { node, evidence }]),
        };
        self.ask(world, change);
    }

    fn ask(&mut self, world: &World, change: Change) {
        let command = Command {
            at: Self::wall(world.now),
            by: Controller::Operator,
            cause: "an operator wants it".to_owned(),
            change,
        };
        self.asked
            .push_back((world.now.plus(self.commit_takes), command));
    }

    fn index(&self, word: &str) -> Option<usize> {
        word.parse().ok().filter(|m| *m < self.masters.len())
    }

    /// A new leader: what the old one had under way is committed before anything of the new one, or lost.
    fn elect(&mut self, world: &mut World, m: &str, rest: &[&str], knows: bool) -> Option<()> {
        let m = self.index(m)?;
        let late = match rest {
            [] => 0,
            ["late", k] => k.parse().ok()?,
            _ => return None,
        };
        if self.leader == Some(m) || !self.masters[m].up {
            return Some(());
        }
        self.depose(world, late, knows);
        // Whoever was deposed before and is elected again has learnt of it.
        self.end_term(m, world.now);
        let master = &mut self.masters[m];
        master.lags = false;
        // Raft's barrier: it has applied everything of the terms before.
        for command in &self.log[master.applied..] {
            master.state.apply(command);
        }
        master.applied = self.log.len();
        master.begin(world.now);
        self.leader = Some(m);
        Some(())
    }

    fn depose(&mut self, world: &mut World, late: usize, knows: bool) {
        let Some(old) = self.leader.take() else {
            return;
        };
        let proposing = self.masters[old]
            .term
            .as_ref()
            .map(|t| t.proposing.clone())
            .unwrap_or_default();
        for command in proposing.into_iter().take(late) {
            self.commit(world, command);
        }
        self.asked.clear();
        if knows {
            self.end_term(old, world.now);
        } else if let Some(term) = &mut self.masters[old].term {
            term.deposed = Some(world.now);
        }
    }
}
