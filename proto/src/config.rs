//! The desired state as nodes and clients see it: chains, nodes, settings.
//!
//! The epoch alone governs a chain; the config version only orders deltas
//! (DESIGN §2). Values here are well formed by construction or by
//! [`ClusterConfig::check`]; how they travel is in `conversion`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, ConfigVersion, DiskId, Epoch, Generation, NodeId, ShardId};
use crate::limits;

/// A member of a chain: a node with a certain disk, for one stint (rule C4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Its folder; a node whose disk id differs is not this member.
    pub disk: DiskId,
    /// The epoch in which its present stint began.
    pub joined_epoch: Epoch,
}

/// Whether a chain may serve in this epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChainPhase {
    /// The first epoch of a shard: members set up empty replicas, nobody serves (rule C4).
    Creating,
    /// The chain serves.
    Serving,
}

/// Keys from `start` (inclusive) to `end` (exclusive; `None` is the end of the key space).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyRange {
    /// First key of the range; empty is the beginning of the key space.
    pub start: Bytes,
    /// First key beyond the range.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// The whole key space.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            start: Bytes::new(),
            end: None,
        }
    }

    /// Whether `key` lies in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end.as_ref().is_none_or(|end| key < &end[..])
    }

    /// Whether the range holds no key at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end <= &self.start)
    }
}

/// One chain's configuration at one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChainConfig {
    /// The shard that the chain replicates.
    pub shard: ShardId,
    /// Raised with each change of this chain.
    pub epoch: Epoch,
    /// The shard's keys.
    pub range: KeyRange,
    /// Whether anybody serves in this epoch.
    pub phase: ChainPhase,
    /// The epoch of the newest recovery by an operator (rule M3), zero if there never was one: its only member's
    /// data counts since, and nobody else's from before it.
    #[serde(default)]
    pub recovered: Epoch,
    /// Head first, tail last; never empty.
    pub members: Vec<Member>,
}

/// What a node does in a chain; decided by its place in the member list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// First of several: takes the writes.
    Head,
    /// Neither first nor last.
    Middle,
    /// Last of several: the commit point.
    Tail,
    /// The only member: head and tail at once.
    Solo,
}

impl Role {
    /// The word used in JSON, tables and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Middle => "middle",
            Self::Tail => "tail",
            Self::Solo => "solo",
        }
    }
}

impl ChainConfig {
    /// The member entry of `node`, if it has one with exactly this disk (rule C4).
    #[must_use]
    pub fn member(&self, node: NodeId, disk: DiskId) -> Option<&Member> {
        self.members
            .iter()
            .find(|m| m.node == node && m.disk == disk)
    }

    /// Where `node` stands in the chain.
    #[must_use]
    pub fn position(&self, node: NodeId) -> Option<usize> {
        self.members.iter().position(|m| m.node == node)
    }

    /// The role of `node`, if it is a member.
    #[must_use]
    pub fn role(&self, node: NodeId) -> Option<Role> {
        let at = self.position(node)?;
        Some(match (at, self.members.len()) {
            (_, 1) => Role::Solo,
            (0, _) => Role::Head,
            (at, len) if at + 1 == len => Role::Tail,
            _ => Role::Middle,
        })
    }

    /// The member before `node`.
    #[must_use]
    pub fn predecessor(&self, node: NodeId) -> Option<&Member> {
        self.members.get(self.position(node)?.checked_sub(1)?)
    }

    /// The member after `node`.
    #[must_use]
    pub fn successor(&self, node: NodeId) -> Option<&Member> {
        self.members.get(self.position(node)? + 1)
    }

    /// M3: the member whose data an operator made count in this very epoch, if that is what began it.
    #[must_use]
    pub fn decreed(&self) -> Option<&Member> {
        self.members
            .first()
            .filter(|_| self.recovered == self.epoch)
    }

    /// The member that takes writes.
    #[must_use]
    pub fn head(&self) -> Option<&Member> {
        self.members.first()
    }

    /// The member that commits.
    #[must_use]
    pub fn tail(&self) -> Option<&Member> {
        self.members.last()
    }

    /// Refuses what no master would ever make; parsed configs pass through here.
    ///
    /// # Errors
    /// Names the part that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |why: String| {
            Err(ConfigError::Chain {
                shard: self.shard,
                why,
            })
        };
        if self.epoch == Epoch::ZERO {
            return bad("its epoch is 0; epochs start at 1".into());
        }
        if self.members.is_empty() || self.members.len() > limits::CHAIN_MEMBERS_MAX {
            return bad(format!(
                "it has {} members; 1 to {} are allowed",
                self.members.len(),
                limits::CHAIN_MEMBERS_MAX
            ));
        }
        for (at, member) in self.members.iter().enumerate() {
            if self.members[..at].iter().any(|m| m.node == member.node) {
                return bad(format!("node {} is in it twice", member.node));
            }
            if member.joined_epoch == Epoch::ZERO || member.joined_epoch > self.epoch {
                return bad(format!(
                    "node {} joined in epoch {}, outside 1..={}",
                    member.node, member.joined_epoch, self.epoch
                ));
            }
        }
        if self.recovered > self.epoch {
            return bad(format!(
                "it was recovered in epoch {}, beyond its own",
                self.recovered
            ));
        }
        if self.recovered == self.epoch && self.members.len() != 1 {
            return bad("a recovery leaves one member (M3)".into());
        }
        if self.range.is_empty() {
            return bad("its key range is empty".into());
        }
        let ends = [Some(&self.range.start), self.range.end.as_ref()];
        if ends
            .into_iter()
            .flatten()
            .any(|k| k.len() > limits::KEY_BYTES_MAX)
        {
            return bad(format!(
                "a bound of its range exceeds {} bytes",
                limits::KEY_BYTES_MAX
            ));
        }
        Ok(())
    }
}

/// How to reach a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The node.
    pub node: NodeId,
    /// The disk it registered with.
    pub disk: DiskId,
    /// Its gRPC address, `host:port`.
    pub addr: String,
    /// Its HTTP address, `host:port`; empty when unknown.
    pub http: String,
    /// Its failure domain; empty when unset.
    pub zone: String,
}

/// A node that follows a chain from outside, to become a member (rule M4). Not governed by the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Learner {
    /// The shard it follows.
    pub shard: ShardId,
    /// The node.
    pub node: NodeId,
    /// Its disk.
    pub disk: DiskId,
}

/// Cluster settings that nodes need; typed, each with a default and bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// L of the rules R, in milliseconds; at most `L_max`.
    pub lease_ms: u64,
    /// Time between two lease rounds, in milliseconds.
    pub lease_round_ms: u64,
    /// Silence after which a link counts as broken, in milliseconds.
    pub link_silence_ms: u64,
    /// Log retained per node for members and learners that were away, in bytes.
    pub log_retained_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease_ms: limits::LEASE_MS_DEFAULT,
            lease_round_ms: limits::LEASE_ROUND_MS_DEFAULT,
            link_silence_ms: limits::LINK_SILENCE_MS_DEFAULT,
            log_retained_bytes: limits::LOG_RETAINED_BYTES_DEFAULT,
        }
    }
}

impl Settings {
    /// Refuses values outside their bounds.
    ///
    /// # Errors
    /// Names the setting, its value and the bounds.
    pub fn check(&self) -> Result<(), ConfigError> {
        let lease_max = u64::try_from(limits::LEASE_MAX.as_millis()).unwrap_or(u64::MAX);
        let bounds = [
            ("lease_ms", self.lease_ms, 10, lease_max),
            ("lease_round_ms", self.lease_round_ms, 1, self.lease_ms / 2),
            (
                "link_silence_ms",
                self.link_silence_ms,
                self.lease_round_ms * 2,
                60_000,
            ),
            (
                "log_retained_bytes",
                self.log_retained_bytes,
                64 << 20,
                1 << 42,
            ),
        ];
        for (name, value, min, max) in bounds {
            if value < min || value > max {
                return Err(ConfigError::Setting {
                    name,
                    value,
                    min,
                    max,
                });
            }
        }
        Ok(())
    }
}

/// A position in the history of cluster states: (generation, version), in this order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ConfigPosition {
    /// Raised by a restore from backup.
    pub generation: Generation,
    /// Raised with every change of anything.
    pub version: ConfigVersion,
}

/// The whole cluster state as far as nodes and clients need it: what a snapshot object holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// The cluster it belongs to; a foreign one is refused (FAULTS 25).
    pub cluster: ClusterId,
    /// Its place in the history.
    pub position: ConfigPosition,
    /// Nodes by id.
    pub nodes: BTreeMap<NodeId, NodeInfo>,
    /// Chains by shard.
    pub chains: BTreeMap<ShardId, ChainConfig>,
    /// Learners, in order.
    pub learners: Vec<Learner>,
    /// Settings in force.
    pub settings: Settings,
}

/// One independent part of a delta; each is accepted or refused by itself (DESIGN §4.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeltaItem {
    /// A chain's new configuration; applied only if its epoch is higher (C1).
    Chain(ChainConfig),
    /// A node registered, moved to another address or came with another disk.
    Node(NodeInfo),
    /// A node left for good.
    NodeForgotten(NodeId),
    /// The learners of one shard, all of them.
    Learners(ShardId, Vec<Learner>),
    /// New settings.
    Settings(Settings),
}

/// The way from one cluster state to a later one; it names its base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The state it starts from.
    pub base: ConfigPosition,
    /// The state it leads to.
    pub to: ConfigPosition,
    /// Chains first, then settings.
    pub items: Vec<DeltaItem>,
}

/// Why a configuration, a delta or an item was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It names another cluster.
    #[error(
        "the config is of cluster {theirs}, this is cluster {ours}: point the process at its own cluster"
    )]
    ForeignCluster {
        /// Ours.
        ours: ClusterId,
        /// The one it names.
        theirs: ClusterId,
    },
    /// A delta does not start where we are: something between was missed.
    #[error(
        "the delta starts at version {base}, this process is at {ours}: ask for the delta since {ours}"
    )]
    WrongBase {
        /// Where the delta starts.
        base: ConfigVersion,
        /// Where we are.
        ours: ConfigVersion,
    },
    /// A chain is not well formed.
    #[error("the config of shard {shard} is refused: {why}")]
    Chain {
        /// The shard.
        shard: ShardId,
        /// What is wrong.
        why: String,
    },
    /// A chain's epoch is older than, or equal to, the one held (C1).
    #[error("the config of shard {shard} has epoch {offered}, epoch {held} is held already")]
    StaleEpoch {
        /// The shard.
        shard: ShardId,
        /// The epoch offered.
        offered: Epoch,
        /// The epoch held.
        held: Epoch,
    },
    /// Equal epoch, different content: an alarm (C2).
    #[error(
        "two different configs of shard {shard} claim epoch {epoch} (rule C2): the replica stops; see `catena status`"
    )]
    Conflict {
        /// The shard.
        shard: ShardId,
        /// The epoch that both claim.
        epoch: Epoch,
    },
    /// A setting is out of bounds.
    #[error("setting {name} = {value} is outside {min}..={max}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: u64,
        /// Least value allowed.
        min: u64,
        /// Greatest value allowed.
        max: u64,
    },
    /// Ranges overlap, or a chain names an unknown node, or a bound is exceeded.
    #[error("the cluster config is refused: {0}")]
    Inconsistent(String),
}

/// What became of one offered chain configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It is newer: take it, after persisting it.
    Newer,
    /// It is the one already held.
    Same,
}

/// Rule C1 and C2 at the point of acceptance: may `offered` replace `held`?
///
/// # Errors
/// [`ConfigError::StaleEpoch`] for an older epoch, [`ConfigError::Conflict`] for the same epoch with other content.
pub fn accept_chain(
    held: Option<&ChainConfig>,
    offered: &ChainConfig,
) -> Result<Acceptance, ConfigError> {
    offered.check()?;
    let Some(held) = held else {
        return Ok(Acceptance::Newer);
    };
    match offered.epoch.cmp(&held.epoch) {
        std::cmp::Ordering::Greater => Ok(Acceptance::Newer),
        std::cmp::Ordering::Equal if offered == held => Ok(Acceptance::Same),
        std::cmp::Ordering::Equal => Err(ConfigError::Conflict {
            shard: held.shard,
            epoch: held.epoch,
        }),
        std::cmp::Ordering::Less => Err(ConfigError::StaleEpoch {
            shard: held.shard,
            offered: offered.epoch,
            held: held.epoch,
        }),
    }
}

impl ClusterConfig {
    /// A state with nothing in it yet.
    #[must_use]
    pub fn empty(cluster: ClusterId) -> Self {
        Self {
            cluster,
            position: ConfigPosition::default(),
            nodes: BTreeMap::new(),
            chains: BTreeMap::new(),
            learners: Vec::new(),
            settings: Settings::default(),
        }
    }

    /// The chain whose range holds `key`.
    #[must_use]
    pub fn chain_of(&self, key: &[u8]) -> Option<&ChainConfig> {
        self.chains.values().find(|c| c.range.contains(key))
    }

    /// Refuses a state that no master would ever make.
    ///
    /// # Errors
    /// Names the part that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.nodes.len() > limits::NODES_MAX || self.chains.len() > limits::SHARDS_MAX {
            return Err(ConfigError::Inconsistent(format!(
                "{} nodes and {} chains exceed {} and {}",
                self.nodes.len(),
                self.chains.len(),
                limits::NODES_MAX,
                limits::SHARDS_MAX
            )));
        }
        for (shard, chain) in &self.chains {
            chain.check()?;
            if *shard != chain.shard {
                return Err(ConfigError::Inconsistent(format!(
                    "the chain of shard {} is filed under {shard}",
                    chain.shard
                )));
            }
        }
        let mut ranges: Vec<&ChainConfig> = self.chains.values().collect();
        ranges.sort_by(|a, b| a.range.start.cmp(&b.range.start));
        for pair in ranges.windows(2) {
            let open_or_past = pair[0]
                .range
                .end
                .as_ref()
                .is_none_or(|end| end > &pair[1].range.start);
            if open_or_past {
                return Err(ConfigError::Inconsistent(format!(
                    "the ranges of shards {} and {} overlap",
                    pair[0].shard, pair[1].shard
                )));
            }
        }
        self.settings.check()
    }

    /// Applies one item; everything else stays as it is.
    ///
    /// # Errors
    /// The item is refused as a whole and nothing has changed.
    pub fn apply_item(&mut self, item: &DeltaItem) -> Result<Acceptance, ConfigError> {
        match item {
            DeltaItem::Chain(chain) => {
                let found = accept_chain(self.chains.get(&chain.shard), chain)?;
                if found == Acceptance::Newer {
                    self.chains.insert(chain.shard, chain.clone());
                }
                return Ok(found);
            }
            DeltaItem::Node(info) => {
                if self.nodes.get(&info.node) == Some(info) {
                    return Ok(Acceptance::Same);
                }
                self.nodes.insert(info.node, info.clone());
            }
            DeltaItem::NodeForgotten(node) => {
                if self.nodes.remove(node).is_none() {
                    return Ok(Acceptance::Same);
                }
            }
            DeltaItem::Learners(shard, learners) => {
                self.learners.retain(|l| l.shard != *shard);
                self.learners
                    .extend(learners.iter().filter(|l| l.shard == *shard));
                self.learners.sort();
            }
            DeltaItem::Settings(settings) => {
                settings.check()?;
                self.settings = settings.clone();
            }
        }
        Ok(Acceptance::Newer)
    }

    /// Applies a delta item by item; a refused item holds back nothing else. Returns a verdict per item.
    ///
    /// # Errors
    /// The delta as a whole: a foreign cluster, or a base that is not this state (FAULTS 28).
    pub fn apply(
        &mut self,
        delta: &Delta,
    ) -> Result<Vec<Result<Acceptance, ConfigError>>, ConfigError> {
        self.check_cluster(delta.cluster)?;
        if delta.base != self.position || delta.to < delta.base {
            return Err(ConfigError::WrongBase {
                base: delta.base.version,
                ours: self.position.version,
            });
        }
        let verdicts = delta
            .items
            .iter()
            .map(|item| self.apply_item(item))
            .collect();
        self.position = delta.to;
        Ok(verdicts)
    }

    /// The delta that leads from `self` to `later`, chains first.
    #[must_use]
    pub fn delta_to(&self, later: &Self) -> Delta {
        let mut items = Vec::new();
        for (node, info) in &later.nodes {
            if self.nodes.get(node) != Some(info) {
                items.push(DeltaItem::Node(info.clone()));
            }
        }
        for (shard, chain) in &later.chains {
            if self.chains.get(shard) != Some(chain) {
                items.push(DeltaItem::Chain(chain.clone()));
            }
        }
        for shard in later.chains.keys().chain(self.chains.keys()) {
            let of = |config: &Self| -> Vec<Learner> {
                config
                    .learners
                    .iter()
                    .filter(|l| l.shard == *shard)
                    .copied()
                    .collect()
            };
            let item = DeltaItem::Learners(*shard, of(later));
            if of(self) != of(later) && !items.contains(&item) {
                items.push(item);
            }
        }
        for node in self.nodes.keys().filter(|n| !later.nodes.contains_key(n)) {
            items.push(DeltaItem::NodeForgotten(*node));
        }
        if self.settings != later.settings {
            items.push(DeltaItem::Settings(later.settings.clone()));
        }
        Delta {
            cluster: self.cluster,
            base: self.position,
            to: later.position,
            items,
        }
    }

    /// Refuses anything of another cluster.
    ///
    /// # Errors
    /// [`ConfigError::ForeignCluster`].
    pub fn check_cluster(&self, theirs: ClusterId) -> Result<(), ConfigError> {
        if theirs == self.cluster {
            Ok(())
        } else {
            Err(ConfigError::ForeignCluster {
                ours: self.cluster,
                theirs,
            })
        }
    }
}
