//! The first cluster state: which node holds which range before anything has happened.
//!
//! Pure: the caller draws ids and addresses. What comes out is an ordinary
//! [`ClusterConfig`], so that a new cluster takes the acceptance path that every
//! later change takes, and no code exists for "the first time" on a node.
//!
//! A shard begins in a `creating` epoch in which nobody serves (rule C4): only
//! there may a replica be in sync and empty. [`serving`] is the step out of it,
//! taken once every member has reported in sync.

use bytes::Bytes;
use catena_proto::config::{
    ChainConfig, ChainPhase, ClusterConfig, ConfigError, ConfigPosition, KeyRange, Member,
    NodeInfo, Settings,
};
use catena_proto::ids::{ClusterId, ConfigVersion, Epoch, Generation, ShardId};
use catena_proto::limits;

/// Most ranges that [`even_split_keys`] can cut: its boundaries have four hex digits.
pub const EVEN_SHARDS_MAX: usize = 1 << 16;

/// The epoch in which every chain of a new cluster is created (rule C4).
const FIRST_EPOCH: Epoch = Epoch::ZERO.next();

/// What a new cluster shall look like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name, drawn at random by the caller.
    pub cluster: ClusterId,
    /// Every node with its disk id and addresses; the order decides who heads which chain.
    pub nodes: Vec<NodeInfo>,
    /// Where one shard ends and the next begins: rising, none empty. `n` keys make `n + 1` shards.
    pub split_keys: Vec<Bytes>,
    /// Members of each chain, at most as many as there are nodes.
    pub replicas: usize,
    /// The settings in force from the start.
    pub settings: Settings,
}

/// Why no cluster can be made from a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// More copies than nodes, or none at all.
    #[error(
        "{replicas} replicas on {nodes} nodes: each copy needs a node of its own; ask for 1 to {most}"
    )]
    Replicas {
        /// Copies asked for.
        replicas: usize,
        /// Nodes there are.
        nodes: usize,
        /// Most copies possible with these nodes.
        most: usize,
    },
    /// Two nodes have the same id.
    #[error("node {0} is named twice: give each node its own id")]
    NodeTwice(catena_proto::ids::NodeId),
    /// A split key is empty, or not above the one before it.
    #[error(
        "split key {at} is empty or not above the one before it: give them in rising order, each once"
    )]
    SplitKeys {
        /// Which one, from 1.
        at: usize,
    },
    /// More even ranges than four hex digits can tell apart.
    #[error("{0} shards cannot be cut evenly: 1 to {EVEN_SHARDS_MAX} can")]
    EvenShards(usize),
    /// The result breaks a limit.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// The split keys that cut the space of hex-prefixed keys into `shards` even ranges.
///
/// They are prefixes of at most four lower-case hex digits: `2` gives `8`, `3` gives `5555` and `aaaa`.
///
/// # Errors
/// [`BootstrapError::EvenShards`] for 0 and for more than [`EVEN_SHARDS_MAX`].
pub fn even_split_keys(shards: usize) -> Result<Vec<Bytes>, BootstrapError> {
    if shards == 0 || shards > EVEN_SHARDS_MAX {
        return Err(BootstrapError::EvenShards(shards));
    }
    Ok((1..shards)
        .map(|i| {
            let digits = format!("{:04x}", i * EVEN_SHARDS_MAX / shards);
            // A shorter boundary is the same cut for hex keys, and easier to read.
            Bytes::from(digits.trim_end_matches('0').to_owned())
        })
        .collect())
}

/// The first state of a new cluster: version 1, every chain `creating` in epoch 1.
///
/// Chain `i` begins with node `i` (modulo their number) and takes the nodes that
/// follow, so that heads and tails, which work most, are spread.
///
/// # Errors
/// Names the part of the plan that makes no cluster.
pub fn creating(plan: Plan) -> Result<ClusterConfig, BootstrapError> {
    let most = plan.nodes.len().min(limits::CHAIN_MEMBERS_MAX);
    if plan.replicas == 0 || plan.replicas > most {
        return Err(BootstrapError::Replicas {
            replicas: plan.replicas,
            nodes: plan.nodes.len(),
            most,
        });
    }
    let mut config = ClusterConfig::empty(plan.cluster);
    config.position = ConfigPosition {
        generation: Generation::ZERO.next(),
        version: ConfigVersion::ZERO.next(),
    };
    config.settings = plan.settings;

    let mut shard = ShardId::ZERO;
    for (at, range) in ranges(&plan.split_keys)?.into_iter().enumerate() {
        shard = shard.next();
        let members = (0..plan.replicas)
            .map(|place| &plan.nodes[(at + place) % plan.nodes.len()])
            .map(|info| Member {
                node: info.node,
                disk: info.disk,
                joined_epoch: FIRST_EPOCH,
            })
            .collect();
        let chain = ChainConfig {
            shard,
            epoch: FIRST_EPOCH,
            range,
            phase: ChainPhase::Creating,
            recovered: Epoch::ZERO,
            members,
        };
        config.chains.insert(shard, chain);
    }
    for info in plan.nodes {
        if let Some(twice) = config.nodes.insert(info.node, info) {
            return Err(BootstrapError::NodeTwice(twice.node));
        }
    }
    config.check()?;
    Ok(config)
}

/// The state that follows once every member of every `creating` chain has reported in sync:
/// the same chains one epoch on, serving. `None` if no chain is being created.
#[must_use]
pub fn serving(config: &ClusterConfig) -> Option<ClusterConfig> {
    let mut next = config.clone();
    let mut changed = false;
    for chain in next.chains.values_mut() {
        if let Some(begun) = begun(chain) {
            *chain = begun;
            changed = true;
        }
    }
    next.position.version = next.position.version.next();
    changed.then_some(next)
}

/// The chain that follows a `creating` one once all its members are in sync: one epoch on, serving (rule C4).
/// `None` if it serves already.
pub(crate) fn begun(chain: &ChainConfig) -> Option<ChainConfig> {
    (chain.phase == ChainPhase::Creating).then(|| ChainConfig {
        epoch: chain.epoch.next(),
        phase: ChainPhase::Serving,
        ..chain.clone()
    })
}

/// The ranges that the split keys cut, in order.
pub(crate) fn ranges(split_keys: &[Bytes]) -> Result<Vec<KeyRange>, BootstrapError> {
    let mut ranges = Vec::with_capacity(split_keys.len() + 1);
    let mut start = Bytes::new();
    for (at, key) in split_keys.iter().enumerate() {
        if *key <= start {
            return Err(BootstrapError::SplitKeys { at: at + 1 });
        }
        ranges.push(KeyRange {
            start: start.clone(),
            end: Some(key.clone()),
        });
        start = key.clone();
    }
    ranges.push(KeyRange { start, end: None });
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use catena_proto::ids::{DiskId, NodeId};
    use proptest::prelude::*;

    use super::*;

    fn node(id: u64) -> NodeInfo {
        NodeInfo {
            node: NodeId::new(id),
            disk: DiskId::new(u128::from(id) + 1_000),
            addr: format!("127.0.0.1:{}", 7_000 + id),
            http: String::new(),
            zone: String::new(),
        }
    }

    fn plan(nodes: u64, shards: usize, replicas: usize) -> Plan {
        Plan {
            cluster: ClusterId::new(7),
            nodes: (1..=nodes).map(node).collect(),
            split_keys: even_split_keys(shards).expect("a valid count"),
            replicas,
            settings: Settings::default(),
        }
    }

    #[test]
    fn heads_rotate_over_the_nodes() {
        let config = creating(plan(3, 3, 3)).expect("a valid plan");
        let heads: Vec<u64> = config
            .chains
            .values()
            .filter_map(|c| c.head().map(|m| m.node.get()))
            .collect();
        assert_eq!(heads, [1, 2, 3]);
        let orders: Vec<u64> = config.chains[&ShardId::new(2)]
            .members
            .iter()
            .map(|m| m.node.get())
            .collect();
        assert_eq!(orders, [2, 3, 1]);
    }

    #[test]
    fn a_new_cluster_serves_nothing_until_the_next_epoch() {
        let first = creating(plan(3, 2, 2)).expect("a valid plan");
        assert_eq!(first.position.version, ConfigVersion::new(1));
        for chain in first.chains.values() {
            assert_eq!(
                (chain.epoch, chain.phase),
                (Epoch::new(1), ChainPhase::Creating)
            );
        }
        let second = serving(&first).expect("chains are being created");
        assert_eq!(second.position.version, ConfigVersion::new(2));
        for (shard, chain) in &second.chains {
            assert_eq!(
                (chain.epoch, chain.phase),
                (Epoch::new(2), ChainPhase::Serving)
            );
            // Same stints: what `synced_for` names (rule S1) still holds.
            assert_eq!(chain.members, first.chains[shard].members);
        }
        assert_eq!(serving(&second), None);
    }

    #[test]
    fn even_boundaries_are_short_hex_prefixes() {
        let text = |shards| -> Vec<String> {
            even_split_keys(shards)
                .expect("a valid count")
                .iter()
                .map(|k| String::from_utf8_lossy(k).into_owned())
                .collect()
        };
        assert_eq!(text(1), Vec::<String>::new());
        assert_eq!(text(2), ["8"]);
        assert_eq!(text(3), ["5555", "aaaa"]);
        assert_eq!(text(16)[14], "f");
        assert_eq!(even_split_keys(0), Err(BootstrapError::EvenShards(0)));
    }

    #[test]
    fn a_plan_that_makes_no_cluster_is_refused() {
        assert!(matches!(
            creating(plan(2, 1, 3)),
            Err(BootstrapError::Replicas { most: 2, .. })
        ));
        assert!(matches!(
            creating(plan(2, 1, 0)),
            Err(BootstrapError::Replicas { .. })
        ));
        let mut twice = plan(2, 1, 2);
        twice.nodes[1].node = NodeId::new(1);
        assert_eq!(
            creating(twice),
            Err(BootstrapError::NodeTwice(NodeId::new(1)))
        );
        let mut falling = plan(2, 1, 2);
        falling.split_keys = vec![Bytes::from("b"), Bytes::from("a")];
        assert_eq!(creating(falling), Err(BootstrapError::SplitKeys { at: 2 }));
        let mut empty = plan(2, 1, 2);
        empty.split_keys = vec![Bytes::new()];
        assert_eq!(creating(empty), Err(BootstrapError::SplitKeys { at: 1 }));
    }

    proptest! {
        #[test]
        fn every_key_has_exactly_one_chain(
            nodes in 1u64..6,
            shards in 1usize..40,
            replicas in 1usize..6,
            key in proptest::collection::vec(any::<u8>(), 0..6),
        ) {
            let replicas = replicas.min(usize::try_from(nodes).expect("small"));
            let config = creating(plan(nodes, shards, replicas)).expect("a valid plan");
            let holders = config.chains.values().filter(|c| c.range.contains(&key)).count();
            prop_assert_eq!(holders, 1);
            prop_assert_eq!(config.chains.len(), shards);
            for chain in config.chains.values() {
                prop_assert_eq!(chain.members.len(), replicas);
            }
        }
    }
}
