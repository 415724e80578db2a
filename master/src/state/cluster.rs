//! The cluster as a whole: its beginnings, its nodes, settings, switches and notes.

use std::sync::Arc;

use bytes::Bytes;
use catena_proto::config::{
    ChainConfig, ClusterConfig, ConfigPosition, Delta, DeltaItem, Learner, NodeInfo, Settings,
};
use catena_proto::ids::{ClusterId, ConfigVersion, Generation, NodeId, ShardId};
use catena_proto::limits;

use super::command::{Applied, Command, Refused};
use super::{CONTROLLERS, MasterState, Plan, ShardRecord};
use crate::bootstrap;

impl MasterState {
    pub(super) fn create_cluster(
        &mut self,
        command: &Command,
        cluster: ClusterId,
        split_keys: &[Bytes],
        replicas: usize,
        settings: &Settings,
    ) -> Result<Applied, Refused> {
        if let Some(ours) = self.cluster() {
            // Names are drawn at random: the same one is the same command, proposed twice.
            return if ours == cluster {
                Ok(Applied::Kept)
            } else {
                Err(Refused::Invalid(format!(
                    "the masters have cluster {ours} already: use that, or start new masters in empty folders"
                )))
            };
        }
        let invalid = |why: String| Err(Refused::Invalid(why));
        if replicas == 0 || replicas > limits::CHAIN_MEMBERS_MAX {
            return invalid(format!(
                "{replicas} replicas: a chain has 1 to {} members",
                limits::CHAIN_MEMBERS_MAX
            ));
        }
        if split_keys.len() >= limits::SHARDS_MAX {
            return invalid(format!(
                "{} split keys: a cluster has at most {} shards",
                split_keys.len(),
                limits::SHARDS_MAX
            ));
        }
        if let Some(at) = split_keys
            .iter()
            .position(|k| k.len() > limits::KEY_BYTES_MAX)
        {
            return invalid(format!(
                "split key {} exceeds {} bytes",
                at + 1,
                limits::KEY_BYTES_MAX
            ));
        }
        bootstrap::ranges(split_keys).map_err(|why| Refused::Invalid(why.to_string()))?;
        check_settings(settings)?;

        let mut config = ClusterConfig::empty(cluster);
        let base = config.position;
        config.settings = settings.clone();
        config.position = ConfigPosition {
            generation: Generation::ZERO.next(),
            version: ConfigVersion::ZERO.next(),
        };
        let delta = Delta {
            cluster,
            base,
            to: config.position,
            items: vec![DeltaItem::Settings(settings.clone())],
        };
        self.history.push(delta.clone());
        self.config = Some(Arc::new(config));
        self.plan = Plan {
            split_keys: split_keys.to_vec(),
            replicas,
        };
        self.log(command, "create-cluster", "cluster");
        Ok(Applied::Changed(delta))
    }

    pub(super) fn register_node(
        &mut self,
        command: &Command,
        info: NodeInfo,
    ) -> Result<Applied, Refused> {
        check_info(&info)?;
        let config = self.seen();
        let node = info.node;
        let held = config.nodes.get(&node);
        if held == Some(&info) {
            return Ok(Applied::Kept);
        }
        let (action, new_disk) = match held {
            None if config.nodes.len() >= limits::NODES_MAX => {
                return Err(Refused::Invalid(format!(
                    "{} nodes are registered, the most that a cluster may have: forget one first",
                    config.nodes.len()
                )));
            }
            None => ("register", false),
            Some(held) if held.disk == info.disk => ("readdress", false),
            Some(_) => ("new-disk", true),
        };
        let told = match held.filter(|_| new_disk) {
            Some(held) => command.told(&format!(
                "{} (disk {} instead of {}: in sync nowhere, until it is added again)",
                command.cause, info.disk, held.disk
            )),
            None => command.clone(),
        };
        let mut items = Vec::new();
        let mut left = Vec::new();
        if new_disk {
            // C4: it is a stranger to whatever names its old disk. The member entries stay, for whoever removes them
            // needs evidence like for any other; but what that disk held is gone, so that it is in sync nowhere.
            left = self.learning(node);
            items.extend(left.iter().map(|s| self.learners_without(*s, node)));
            for record in self.shards.values_mut() {
                record.in_sync.remove(&node);
            }
        }
        let chains = self.first_chains(&info)?;
        items.extend(chains.iter().cloned().map(DeltaItem::Chain));
        items.push(DeltaItem::Node(info));
        let delta = self.publish(items);
        for chain in &chains {
            self.shards.insert(chain.shard, ShardRecord::default());
        }
        self.log(&told, action, &format!("node {node}"));
        for shard in left {
            self.log(
                command,
                "drop-learner",
                &format!("shard {shard} node {node}"),
            );
        }
        if !chains.is_empty() {
            // One line for all of them: a cluster of many shards would push everything else out of the log.
            let told = command.told(&format!(
                "nodes registered: {}, as many as each chain wants members; chains made: {}",
                self.plan.replicas,
                chains.len()
            ));
            self.log(&told, "create-chains", "cluster");
        }
        Ok(Applied::Changed(delta))
    }

    /// C4: with this node there are as many as each chain wants members: all chains, creating in epoch 1.
    fn first_chains(&self, last: &NodeInfo) -> Result<Vec<ChainConfig>, Refused> {
        let config = self.seen();
        let mut nodes = config.nodes.clone();
        nodes.insert(last.node, last.clone());
        if !config.chains.is_empty() || nodes.len() < self.plan.replicas {
            return Ok(Vec::new());
        }
        let first = bootstrap::creating(bootstrap::Plan {
            cluster: config.cluster,
            nodes: nodes.into_values().collect(),
            split_keys: self.plan.split_keys.clone(),
            replicas: self.plan.replicas,
            settings: config.settings.clone(),
        });
        let first = first.map_err(|why| Refused::Invalid(why.to_string()))?;
        Ok(first.chains.into_values().collect())
    }

    /// Shards that the node follows.
    fn learning(&self, node: NodeId) -> Vec<ShardId> {
        let learners = self.seen().learners.iter();
        learners
            .filter(|l| l.node == node)
            .map(|l| l.shard)
            .collect()
    }

    /// The learners of one shard without this node, as nodes are told.
    pub(super) fn learners_without(&self, shard: ShardId, node: NodeId) -> DeltaItem {
        let learners = self.seen().learners.iter();
        let stay = |l: &&Learner| l.shard == shard && l.node != node;
        DeltaItem::Learners(shard, learners.filter(stay).copied().collect())
    }

    pub(super) fn set_settings(
        &mut self,
        command: &Command,
        settings: &Settings,
    ) -> Result<Applied, Refused> {
        check_settings(settings)?;
        let held = &self.seen().settings;
        if held == settings {
            return Ok(Applied::Kept);
        }
        let told = command.told(&format!("{} ({})", command.cause, changes(held, settings)));
        let delta = self.publish(vec![DeltaItem::Settings(settings.clone())]);
        self.log(&told, "settings", "cluster");
        Ok(Applied::Changed(delta))
    }

    pub(super) fn switch_controller(
        &mut self,
        command: &Command,
        name: &str,
        paused: bool,
    ) -> Result<Applied, Refused> {
        if !CONTROLLERS.contains(&name) {
            return Err(Refused::Invalid(format!(
                "there is no controller of that name, only: {}",
                CONTROLLERS.join(", ")
            )));
        }
        let changed = if paused {
            self.paused.insert(name.to_owned())
        } else {
            self.paused.remove(name)
        };
        if changed {
            let action = if paused { "pause" } else { "resume" };
            self.log(command, action, name);
        }
        Ok(Applied::Kept)
    }

    pub(super) fn note(&mut self, command: &Command, subject: &str, what: &str) -> Applied {
        if !self.events.says(what, subject, &command.cause) {
            self.log(command, what, subject);
        }
        Applied::Kept
    }

    /// No event: snapshots are stored all the time, and would push what happened out of the log.
    pub(super) fn snapshot_stored(&mut self, position: ConfigPosition) -> Result<Applied, Refused> {
        let now = self.position();
        if position > now {
            return Err(Refused::Invalid(format!(
                "a snapshot of version {} is ahead of version {}: it is of another history",
                position.version, now.version
            )));
        }
        self.history.store(position);
        Ok(Applied::Kept)
    }
}

fn check_settings(settings: &Settings) -> Result<(), Refused> {
    settings
        .check()
        .map_err(|why| Refused::Invalid(why.to_string()))
}

/// What differs between two settings, for the event log.
fn changes(held: &Settings, next: &Settings) -> String {
    let pairs = [
        ("lease_ms", held.lease_ms, next.lease_ms),
        ("lease_round_ms", held.lease_round_ms, next.lease_round_ms),
        (
            "link_silence_ms",
            held.link_silence_ms,
            next.link_silence_ms,
        ),
        (
            "log_retained_bytes",
            held.log_retained_bytes,
            next.log_retained_bytes,
        ),
    ];
    let changed = pairs.iter().filter(|(_, from, to)| from != to);
    let words: Vec<String> = changed
        .map(|(name, from, to)| format!("{name} {from} to {to}"))
        .collect();
    words.join(", ")
}

/// Nodes refuse an item that breaks these (FAULTS 27); so does the master, before it tells anybody.
fn check_info(info: &NodeInfo) -> Result<(), Refused> {
    let invalid = |what: &str, why: String| {
        Err(Refused::Invalid(format!(
            "node {}: its {what} {why}: mend its configuration",
            info.node
        )))
    };
    for (what, addr, may_be_empty) in [("addr", &info.addr, false), ("http", &info.http, true)] {
        if addr.len() > limits::ADDR_BYTES_MAX {
            return invalid(what, format!("exceeds {} bytes", limits::ADDR_BYTES_MAX));
        }
        let host_and_port = addr.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_graphic())
                && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
        if !(host_and_port || may_be_empty && addr.is_empty()) {
            return invalid(
                what,
                format!("`{}` is not `host:port`", addr.escape_debug()),
            );
        }
    }
    if info.zone.len() > limits::ZONE_BYTES_MAX {
        return invalid("zone", format!("exceeds {} bytes", limits::ZONE_BYTES_MAX));
    }
    if info.node == NodeId::ZERO {
        return invalid("id", "is 0: ids start at 1".into());
    }
    Ok(())
}
