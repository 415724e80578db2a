//! Which node is owed which push: at most one unacknowledged each, newer ones coalesce (DESIGN §4.2).
//!
//! Pure: the leader asks what is due, sends it, and tells what came of it. The runtime and the simulation drive this code.

use std::collections::BTreeMap;

use catena_proto::config::{ClusterConfig, ConfigPosition, Delta, DeltaItem};
use catena_proto::ids::NodeId;

/// One node's subscription.
#[derive(Clone, Debug, Default)]
struct Debtor {
    /// What it has accepted and persisted.
    acked: ConfigPosition,
    /// The push that is not acknowledged yet.
    under_way: Option<ConfigPosition>,
    /// Everything is to be sent once more, whatever it says it has.
    anew: bool,
}

/// All subscriptions of this leader.
#[derive(Clone, Debug, Default)]
pub struct Pushes {
    nodes: BTreeMap<NodeId, Debtor>,
}

/// What a node gets next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// What changed since the state that it holds.
    Since(ConfigPosition),
    /// Every chain and the settings, on top of what it holds: it refused something, or does not act on it.
    Anew(ConfigPosition),
}

impl Pushes {
    /// A node subscribed, and holds this.
    pub fn opened(&mut self, node: NodeId, held: ConfigPosition) {
        let debtor = Debtor {
            acked: held,
            ..Debtor::default()
        };
        self.nodes.insert(node, debtor);
    }

    /// Its subscription is over.
    pub fn closed(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    /// What is due to each node with nothing under way, members of the state's newest changes or not: in order of ids.
    #[must_use]
    pub fn due(&self, newest: ConfigPosition) -> Vec<(NodeId, Due)> {
        self.nodes
            .iter()
            .filter(|(_, d)| d.under_way.is_none())
            .filter_map(|(node, d)| match d.anew {
                true => Some((*node, Due::Anew(d.acked))),
                false if d.acked < newest => Some((*node, Due::Since(d.acked))),
                false => None,
            })
            .collect()
    }

    /// A push left.
    pub fn sent(&mut self, node: NodeId, to: ConfigPosition) {
        if let Some(debtor) = self.nodes.get_mut(&node) {
            debtor.under_way = Some(to);
            debtor.anew = false;
        }
    }

    /// The node answered a push; an answer to none that is under way says nothing.
    pub fn answered(&mut self, node: NodeId, to: ConfigPosition) {
        let debtor = self.nodes.get_mut(&node);
        if let Some(debtor) = debtor.filter(|d| d.under_way == Some(to)) {
            debtor.under_way = None;
            debtor.acked = debtor.acked.max(to);
        }
    }

    /// The loop wants everything sent to this node once more, also if a push to it is still without an answer.
    pub fn again(&mut self, node: NodeId) {
        if let Some(debtor) = self.nodes.get_mut(&node) {
            debtor.under_way = None;
            debtor.anew = true;
        }
    }
}

/// The delta that says everything once more: each item is accepted or refused by itself, and what the node has
/// already is "the same" to it (C1).
#[must_use]
pub fn everything(config: &ClusterConfig, base: ConfigPosition) -> Delta {
    let chains = config.chains.values().cloned().map(DeltaItem::Chain);
    let nodes = config.nodes.values().cloned().map(DeltaItem::Node);
    let settings = DeltaItem::Settings(config.settings.clone());
    let learners = config.chains.keys().map(|shard| {
        let of = config.learners.iter().filter(|l| l.shard == *shard);
        DeltaItem::Learners(*shard, of.copied().collect())
    });
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

#[cfg(test)]
mod tests {
    use super::*;
    use catena_proto::ids::{ConfigVersion, Generation};

    const NODE: NodeId = NodeId::new(1);

    fn at(version: u64) -> ConfigPosition {
        ConfigPosition {
            generation: Generation::ZERO,
            version: ConfigVersion::new(version),
        }
    }

    #[test]
    fn one_push_at_a_time_and_newer_ones_coalesce() {
        let mut pushes = Pushes::default();
        pushes.opened(NODE, at(1));
        assert_eq!(pushes.due(at(1)), vec![]);
        assert_eq!(pushes.due(at(2)), vec![(NODE, Due::Since(at(1)))]);
        pushes.sent(NODE, at(2));
        assert_eq!(pushes.due(at(5)), vec![], "one is under way");
        pushes.answered(NODE, at(4));
        assert_eq!(pushes.due(at(5)), vec![], "that was no answer to it");
        pushes.answered(NODE, at(2));
        assert_eq!(pushes.due(at(5)), vec![(NODE, Due::Since(at(2)))]);
    }

    #[test]
    fn again_sends_everything_though_the_node_says_that_it_has_it() {
        let mut pushes = Pushes::default();
        pushes.opened(NODE, at(3));
        pushes.again(NODE);
        assert_eq!(pushes.due(at(3)), vec![(NODE, Due::Anew(at(3)))]);
        pushes.sent(NODE, at(3));
        pushes.answered(NODE, at(3));
        assert_eq!(pushes.due(at(3)), vec![]);
        pushes.again(NODE);
        pushes.closed(NODE);
        assert_eq!(pushes.due(at(9)), vec![], "nobody is there");
    }
}
