//! One turn of every node's end: processes, beats, subscriptions, reports, pushes.

use std::time::Duration;

use catena_chainnode::stage::World;
use catena_proto::config::ConfigPosition;
use catena_proto::time::Mono;

use super::agent::{Agent, Pushed, Subscribed};
use super::link::{Down, Up};
use super::{CLUSTER, Masters};
use crate::sim::planted::Bug;

/// A master that is silent for this long is left.
const SILENCE: Duration = Duration::from_secs(3);
/// Between two tries to reach a master.
const RETRY: Duration = Duration::from_millis(150);
/// How often the store is looked at while no master is connected.
const STORE_EVERY: Duration = Duration::from_secs(1);

impl Masters {
    /// Processes that died take their streams along; those that started begin on what their disk holds.
    pub(super) fn processes(&mut self, world: &mut World) {
        let nodes: Vec<u64> = world.nodes.keys().copied().collect();
        for n in nodes {
            let (Some(disk), Some(inc)) = (world.disk_of(n), world.incarnation_of(n)) else {
                continue;
            };
            let agent = self.agents.entry(n).or_insert_with(|| Agent::new(disk));
            let up = world.is_up(n);
            if agent.running && (!up || agent.incarnation != inc) {
                agent.running = false;
                if let Some(subscribed) = agent.subscribed.take() {
                    self.links.say_up(subscribed.stream, world.now, Up::Closed);
                }
                for (other, agent) in &mut self.agents {
                    // A host that lives says at once that the process is gone.
                    if !world.is_cut(n, *other) {
                        agent.lose(n);
                    }
                }
            }
            if let Some(agent) = self.agents.get_mut(&n).filter(|a| up && !a.running) {
                agent.start(n, world, disk, inc);
                self.boot(n, world);
            }
        }
    }

    /// A node without a config reads the store first.
    fn boot(&mut self, n: u64, world: &mut World) {
        let new = |a: &Agent| a.config.position == ConfigPosition::default();
        let found = self
            .agents
            .get(&n)
            .filter(|a| new(a))
            .and_then(|a| self.store.newest(CLUSTER, a.config.position));
        if let (Some(agent), Some(found)) = (self.agents.get_mut(&n), found) {
            agent.accept(n, world, &found);
        }
    }

    pub(super) fn agents_turn(&mut self, world: &mut World) {
        let nodes: Vec<u64> = self.agents.keys().copied().collect();
        let running: Vec<u64> = nodes
            .iter()
            .copied()
            .filter(|n| world.is_running(*n))
            .collect();
        for n in &running {
            let reach = |o: &&u64| **o != *n && !world.is_cut(**o, *n);
            let heard: Vec<u64> = running.iter().filter(reach).copied().collect();
            if let Some(agent) = self.agents.get_mut(n) {
                agent.beat(world.now, &heard);
            }
        }
        for n in running {
            self.hear(n, world);
            self.subscribe(n, world);
            self.report(n, world);
            self.read_store(n, world);
        }
    }

    fn hear(&mut self, n: u64, world: &mut World) {
        let now = world.now;
        while let Some(subscribed) = self.agents.get(&n).and_then(|a| a.subscribed) {
            let reachable = !self.cut.contains(&(n, subscribed.master));
            let silent = now.since(subscribed.heard) >= SILENCE;
            let said = match reachable {
                true => self.links.hear_down(subscribed.stream, now),
                false => None,
            };
            let Some(agent) = self.agents.get_mut(&n) else {
                return;
            };
            let Some(said) = said else {
                if silent {
                    self.leave(n, now);
                }
                return;
            };
            if let Some(subscribed) = &mut agent.subscribed {
                subscribed.heard = now;
            }
            match said {
                Down::Alive => {}
                Down::Closed => {
                    agent.subscribed = None;
                    agent.cursor += 1;
                    agent.retry_at = now.plus(RETRY);
                    self.links.drop_stream(subscribed.stream);
                }
                Down::ReadSnapshot => {
                    self.leave(n, now);
                    self.catch_up(n, subscribed.master, world);
                }
                Down::Push(delta) => match agent.accept_delta(n, world, &delta) {
                    Pushed::Missed => self.leave(n, now),
                    Pushed::Outcome(outcome) => {
                        self.links
                            .say_up(subscribed.stream, now, Up::Outcome(outcome));
                    }
                },
            }
        }
    }

    /// The store first, then the master's own state.
    fn catch_up(&mut self, n: u64, master: usize, world: &mut World) {
        let held = self.agents.get(&n).map(|a| a.config.position);
        let stored = held.and_then(|held| self.store.newest(CLUSTER, held));
        let fetched = self
            .masters
            .get(master)
            .and_then(|m| m.state.config())
            .map(|c| (**c).clone());
        if let (Some(agent), Some(found)) = (self.agents.get_mut(&n), stored.or(fetched)) {
            agent.accept(n, world, &found);
        }
    }

    fn leave(&mut self, n: u64, now: Mono) {
        let Some(agent) = self.agents.get_mut(&n) else {
            return;
        };
        if let Some(subscribed) = agent.subscribed.take() {
            self.links.say_up(subscribed.stream, now, Up::Closed);
        }
        agent.retry_at = now.plus(RETRY);
    }

    fn subscribe(&mut self, n: u64, world: &World) {
        let (now, count) = (world.now, self.masters.len());
        let Some(agent) = self.agents.get(&n) else {
            return;
        };
        if agent.subscribed.is_some() || now < agent.retry_at || count == 0 {
            return;
        }
        let master = agent.cursor % count;
        let leads = self.reaches(n, master) && self.masters[master].term.is_some();
        let stream = leads.then(|| self.links.open(n, master));
        let Some(agent) = self.agents.get_mut(&n) else {
            return;
        };
        let Some(stream) = stream else {
            agent.cursor += 1;
            agent.retry_at = now.plus(RETRY);
            return;
        };
        agent.subscribed = Some(Subscribed {
            stream,
            master,
            heard: now,
        });
        agent.forget_said();
        self.links.say_up(stream, now, Up::Open(agent.open(n)));
    }

    fn report(&mut self, n: u64, world: &World) {
        let Some(agent) = self.agents.get_mut(&n) else {
            return;
        };
        // Looked at also when nobody listens: the links' state is what witnesses are judged by.
        let report = agent.report(n, world);
        if let (Some(report), Some(subscribed)) = (report, agent.subscribed) {
            self.links
                .say_up(subscribed.stream, world.now, Up::Report(report));
        }
    }

    /// While no master is connected the store is the only source of newer configs.
    fn read_store(&mut self, n: u64, world: &mut World) {
        let Some(agent) = self.agents.get_mut(&n) else {
            return;
        };
        if agent.subscribed.is_some() || world.now < agent.store_at {
            return;
        }
        agent.store_at = world.now.plus(STORE_EVERY);
        if self.bug == Some(Bug::StoreRolledBack) {
            if let Some(found) = self.store.any(CLUSTER) {
                agent.accept_anything(n, world, &found);
            }
        } else if let Some(found) = self.store.newest(CLUSTER, agent.config.position) {
            agent.accept(n, world, &found);
        }
    }
}
