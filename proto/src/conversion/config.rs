//! `config.proto`: chains, nodes, settings, whole configurations and deltas.

use std::collections::BTreeMap;

use super::{ParseError, bounded, counted, each, id_bytes};
use crate::config::{
    ChainConfig, ChainPhase, ClusterConfig, ConfigPosition, Delta, DeltaItem, KeyRange, Learner,
    Member, NodeInfo, Settings,
};
use crate::ids::{ClusterId, ConfigVersion, DiskId, Epoch, Generation, NodeId, ShardId};
use crate::{limits, wire};

impl From<&Member> for wire::Member {
    fn from(member: &Member) -> Self {
        Self {
            node_id: member.node.get(),
            disk_id: id_bytes(member.disk.to_bytes()),
            joined_epoch: member.joined_epoch.get(),
        }
    }
}

impl TryFrom<wire::Member> for Member {
    type Error = ParseError;

    fn try_from(from: wire::Member) -> Result<Self, ParseError> {
        Ok(Self {
            node: NodeId::new(from.node_id),
            disk: DiskId::from_slice(&from.disk_id)?,
            joined_epoch: Epoch::new(from.joined_epoch),
        })
    }
}

impl From<&ChainConfig> for wire::ChainConfig {
    fn from(chain: &ChainConfig) -> Self {
        Self {
            shard_id: chain.shard.get(),
            epoch: chain.epoch.get(),
            start_key: chain.range.start.clone(),
            end_key: chain.range.end.clone(),
            phase: match chain.phase {
                ChainPhase::Creating => wire::ChainPhase::Creating,
                ChainPhase::Serving => wire::ChainPhase::Serving,
            }
            .into(),
            members: chain.members.iter().map(wire::Member::from).collect(),
            recovered_epoch: chain.recovered.get(),
        }
    }
}

impl TryFrom<wire::ChainConfig> for ChainConfig {
    type Error = ParseError;

    fn try_from(from: wire::ChainConfig) -> Result<Self, ParseError> {
        let chain = Self {
            shard: ShardId::new(from.shard_id),
            epoch: Epoch::new(from.epoch),
            range: KeyRange {
                start: bounded("start_key", from.start_key, limits::KEY_BYTES_MAX)?,
                end: from
                    .end_key
                    .map(|end| bounded("end_key", end, limits::KEY_BYTES_MAX))
                    .transpose()?,
            },
            phase: match wire::ChainPhase::try_from(from.phase) {
                Ok(wire::ChainPhase::Creating) => ChainPhase::Creating,
                Ok(wire::ChainPhase::Serving) => ChainPhase::Serving,
                Ok(wire::ChainPhase::Unspecified) | Err(_) => {
                    return Err(ParseError::Missing("phase"));
                }
            },
            recovered: Epoch::new(from.recovered_epoch),
            members: each(counted("members", from.members, limits::CHAIN_MEMBERS_MAX)?)?,
        };
        chain.check()?;
        Ok(chain)
    }
}

impl From<&NodeInfo> for wire::NodeInfo {
    fn from(info: &NodeInfo) -> Self {
        Self {
            node_id: info.node.get(),
            disk_id: id_bytes(info.disk.to_bytes()),
            addr: info.addr.clone(),
            http: info.http.clone(),
            zone: info.zone.clone(),
        }
    }
}

impl TryFrom<wire::NodeInfo> for NodeInfo {
    type Error = ParseError;

    fn try_from(from: wire::NodeInfo) -> Result<Self, ParseError> {
        Ok(Self {
            node: NodeId::new(from.node_id),
            disk: DiskId::from_slice(&from.disk_id)?,
            addr: address("addr", from.addr)?,
            http: if from.http.is_empty() {
                from.http
            } else {
                address("http", from.http)?
            },
            zone: bounded("zone", from.zone, limits::ZONE_BYTES_MAX)?,
        })
    }
}

/// `host:port`; whether the host exists is for the resolver to say.
fn address(field: &'static str, addr: String) -> Result<String, ParseError> {
    let addr = bounded(field, addr, limits::ADDR_BYTES_MAX)?;
    let well_formed = addr.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_graphic())
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if !well_formed {
        return Err(ParseError::Invalid {
            field,
            why: format!("`{}` is not `host:port`", addr.escape_debug()),
        });
    }
    Ok(addr)
}

impl From<&Learner> for wire::Learner {
    fn from(learner: &Learner) -> Self {
        Self {
            shard_id: learner.shard.get(),
            node_id: learner.node.get(),
            disk_id: id_bytes(learner.disk.to_bytes()),
        }
    }
}

impl TryFrom<wire::Learner> for Learner {
    type Error = ParseError;

    fn try_from(from: wire::Learner) -> Result<Self, ParseError> {
        Ok(Self {
            shard: ShardId::new(from.shard_id),
            node: NodeId::new(from.node_id),
            disk: DiskId::from_slice(&from.disk_id)?,
        })
    }
}

impl From<&Settings> for wire::Settings {
    fn from(settings: &Settings) -> Self {
        Self {
            lease_ms: settings.lease_ms,
            lease_round_ms: settings.lease_round_ms,
            link_silence_ms: settings.link_silence_ms,
            log_retained_bytes: settings.log_retained_bytes,
        }
    }
}

impl TryFrom<wire::Settings> for Settings {
    type Error = ParseError;

    fn try_from(from: wire::Settings) -> Result<Self, ParseError> {
        // The bounds of one setting are multiples of another: refused before they are multiplied.
        if from.lease_round_ms > limits::LEASE_MAX.as_secs() * 1000 {
            return Err(ParseError::Invalid {
                field: "lease_round_ms",
                why: format!("{} ms exceed the longest lease", from.lease_round_ms),
            });
        }
        let settings = Self {
            lease_ms: from.lease_ms,
            lease_round_ms: from.lease_round_ms,
            link_silence_ms: from.link_silence_ms,
            log_retained_bytes: from.log_retained_bytes,
        };
        settings.check()?;
        Ok(settings)
    }
}

impl From<ConfigPosition> for wire::ConfigPosition {
    fn from(position: ConfigPosition) -> Self {
        Self {
            generation: position.generation.get(),
            version: position.version.get(),
        }
    }
}

impl From<wire::ConfigPosition> for ConfigPosition {
    fn from(from: wire::ConfigPosition) -> Self {
        Self {
            generation: Generation::new(from.generation),
            version: ConfigVersion::new(from.version),
        }
    }
}

impl From<&ClusterConfig> for wire::ClusterConfig {
    fn from(config: &ClusterConfig) -> Self {
        Self {
            cluster_id: id_bytes(config.cluster.to_bytes()),
            position: Some(config.position.into()),
            nodes: config.nodes.values().map(wire::NodeInfo::from).collect(),
            chains: config
                .chains
                .values()
                .map(wire::ChainConfig::from)
                .collect(),
            learners: config.learners.iter().map(wire::Learner::from).collect(),
            settings: Some((&config.settings).into()),
        }
    }
}

impl TryFrom<wire::ClusterConfig> for ClusterConfig {
    type Error = ParseError;

    fn try_from(from: wire::ClusterConfig) -> Result<Self, ParseError> {
        let mut nodes = BTreeMap::new();
        for info in counted("nodes", from.nodes, limits::NODES_MAX)? {
            let info = NodeInfo::try_from(info)?;
            if let Some(twin) = nodes.insert(info.node, info) {
                return Err(twice("nodes", format!("node {}", twin.node)));
            }
        }
        let mut chains = BTreeMap::new();
        for chain in counted("chains", from.chains, limits::SHARDS_MAX)? {
            let chain = ChainConfig::try_from(chain)?;
            if let Some(twin) = chains.insert(chain.shard, chain) {
                return Err(twice("chains", format!("shard {}", twin.shard)));
            }
        }
        let learners_max = limits::SHARDS_MAX * limits::CHAIN_MEMBERS_MAX;
        let config = Self {
            cluster: ClusterId::from_slice(&from.cluster_id)?,
            position: from.position.ok_or(ParseError::Missing("position"))?.into(),
            nodes,
            chains,
            learners: each(counted("learners", from.learners, learners_max)?)?,
            settings: from
                .settings
                .ok_or(ParseError::Missing("settings"))?
                .try_into()?,
        };
        config.check()?;
        Ok(config)
    }
}

fn twice(field: &'static str, what: String) -> ParseError {
    ParseError::Invalid {
        field,
        why: format!("{what} is in it twice"),
    }
}

impl From<&DeltaItem> for wire::DeltaItem {
    fn from(item: &DeltaItem) -> Self {
        use wire::delta_item::Item;
        Self {
            item: Some(match item {
                DeltaItem::Chain(chain) => Item::Chain(chain.into()),
                DeltaItem::Node(info) => Item::Node(info.into()),
                DeltaItem::NodeForgotten(node) => Item::NodeForgotten(node.get()),
                DeltaItem::Learners(shard, learners) => Item::Learners(wire::LearnerSet {
                    shard_id: shard.get(),
                    learners: learners.iter().map(wire::Learner::from).collect(),
                }),
                DeltaItem::Settings(settings) => Item::Settings(settings.into()),
            }),
        }
    }
}

impl TryFrom<wire::DeltaItem> for DeltaItem {
    type Error = ParseError;

    fn try_from(from: wire::DeltaItem) -> Result<Self, ParseError> {
        use wire::delta_item::Item;
        Ok(match from.item.ok_or(ParseError::Missing("item"))? {
            Item::Chain(chain) => Self::Chain(chain.try_into()?),
            Item::Node(info) => Self::Node(info.try_into()?),
            Item::NodeForgotten(node) => Self::NodeForgotten(NodeId::new(node)),
            Item::Learners(set) => {
                let shard = ShardId::new(set.shard_id);
                let learners: Vec<Learner> =
                    each(counted("learners", set.learners, limits::NODES_MAX)?)?;
                if let Some(stray) = learners.iter().find(|l| l.shard != shard) {
                    return Err(ParseError::Invalid {
                        field: "learners",
                        why: format!("shard {} in the set of shard {shard}", stray.shard),
                    });
                }
                Self::Learners(shard, learners)
            }
            Item::Settings(settings) => Self::Settings(settings.try_into()?),
        })
    }
}

impl From<&Delta> for wire::Delta {
    fn from(delta: &Delta) -> Self {
        Self {
            cluster_id: id_bytes(delta.cluster.to_bytes()),
            base: Some(delta.base.into()),
            to: Some(delta.to.into()),
            items: delta.items.iter().map(wire::DeltaItem::from).collect(),
        }
    }
}

/// A delta whose items are judged one by one: a bad one holds back nothing else (FAULTS 27).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedDelta {
    /// The delta with the items that could be read.
    pub delta: Delta,
    /// The others: their place among the items as sent, and what is wrong.
    pub refused: Vec<(usize, ParseError)>,
}

impl TryFrom<wire::Delta> for ParsedDelta {
    type Error = ParseError;

    /// Refuses the delta as a whole only if cluster, base or target cannot be read, or it has too many items.
    fn try_from(from: wire::Delta) -> Result<Self, ParseError> {
        let items_max = limits::DELTA_ITEMS_MAX;
        let mut delta = Delta {
            cluster: ClusterId::from_slice(&from.cluster_id)?,
            base: from.base.ok_or(ParseError::Missing("base"))?.into(),
            to: from.to.ok_or(ParseError::Missing("to"))?.into(),
            items: Vec::new(),
        };
        let mut refused = Vec::new();
        for (place, item) in counted("items", from.items, items_max)?
            .into_iter()
            .enumerate()
        {
            match DeltaItem::try_from(item) {
                Ok(item) => delta.items.push(item),
                Err(error) => refused.push((place, error)),
            }
        }
        Ok(Self { delta, refused })
    }
}
