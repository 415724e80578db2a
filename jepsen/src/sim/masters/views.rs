//! What random runs and their endings want to know of the masters.

use catena_chainnode::stage::World;
use catena_proto::ids::NodeId;

use super::{Masters, SHARD};

impl Masters {
    /// Why the cluster is not as it is wanted yet; `None` once it is.
    pub(in crate::sim) fn lacks(&self, world: &World) -> Option<String> {
        let Some(config) = self.truth.config() else {
            return Some("there is no cluster".to_owned());
        };
        let (chain, record) = match (config.chains.get(&SHARD), self.truth.shard(SHARD)) {
            (Some(chain), Some(record)) => (chain, record),
            _ => return Some("there is no chain".to_owned()),
        };
        if chain.members.len() < self.replicas {
            return Some(format!(
                "the chain has {} members of {}",
                chain.members.len(),
                self.replicas
            ));
        }
        if let Some(m) = chain
            .members
            .iter()
            .find(|m| !record.in_sync().contains(&m.node))
        {
            return Some(format!("node {} is not in sync", m.node));
        }
        if world.chain() != Some(chain) {
            return Some("the stage's chain is another one".to_owned());
        }
        for (n, agent) in &self.agents {
            let node = NodeId::new(*n);
            let concerned =
                chain.position(node).is_some() || config.learners.iter().any(|l| l.node == node);
            let behind = agent.config.position < config.position
                || (concerned && agent.effective < config.position);
            if agent.running && behind {
                return Some(format!(
                    "node {n} holds version {}, {} is in force, {} is wanted",
                    agent.config.position.version, agent.effective.version, config.position.version
                ));
            }
        }
        None
    }

    /// The newest lines of the event log.
    pub(in crate::sim) fn story(&self) -> String {
        let lines: Vec<String> = self
            .truth
            .events()
            .rev()
            .take(25)
            .map(|e| {
                format!(
                    "  {} {} {}: {}\n",
                    e.at.0 - super::WALL_BEGIN_MS,
                    e.action,
                    e.subject,
                    e.cause
                )
            })
            .collect();
        lines.into_iter().rev().collect()
    }

    /// Masters, and which of them leads.
    pub(in crate::sim) fn count(&self) -> usize {
        self.masters.len()
    }

    pub(in crate::sim) const fn leader(&self) -> Option<usize> {
        self.leader
    }

    /// Commands of the leader and of operators that are proposed and not committed.
    pub(in crate::sim) fn in_flight(&self) -> usize {
        let term = self.leader.and_then(|m| self.masters[m].term.as_ref());
        self.asked.len() + term.map_or(0, |t| t.proposing.len())
    }

    /// Whether the leader has a report of the present start of every member.
    pub(in crate::sim) fn knows_all(&self, world: &World) -> bool {
        let Some(term) = self.leader.and_then(|m| self.masters[m].term.as_ref()) else {
            return false;
        };
        let is_known = |node: NodeId| {
            let seen = term.observed.node(node).filter(|seen| seen.last.is_some());
            seen.is_some_and(|seen| world.incarnation_of(node.get()) == Some(seen.incarnation))
        };
        world
            .chain()
            .is_some_and(|chain| chain.members.iter().all(|m| is_known(m.node)))
    }

    /// Whether the node's subscription to the true leader stands.
    pub(in crate::sim) fn is_subscribed(&self, n: u64) -> bool {
        let to = self.agents.get(&n).and_then(|a| a.subscribed);
        to.is_some_and(|s| Some(s.master) == self.leader && !self.cut.contains(&(n, s.master)))
    }
}
