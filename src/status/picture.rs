//! What the nodes said, as one picture: a pure function from [`Seen`] to the lines that scripts and people read.

use std::collections::BTreeMap;

use catena_proto::wire;
use serde::Serialize;

use super::Seen;
use super::gather::NodeSeen;
use super::when::rfc3339;
use crate::output::{JsonBytes, printable};

/// The whole cluster.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StatusLine {
    cluster_id: String,
    config_version: u64,
    control_plane: &'static str,
    masters: Vec<MasterLine>,
    pub(crate) nodes: Vec<NodeLine>,
    pub(crate) chains: Vec<ChainLine>,
    pub(crate) alarms: Vec<AlarmLine>,
}

/// One master.
#[derive(Clone, Debug, Serialize)]
struct MasterLine {
    id: u64,
    addr: String,
    role: &'static str,
    term: u64,
    applied: u64,
}

/// One node.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NodeLine {
    pub(crate) id: u64,
    addr: String,
    incarnation: Option<u64>,
    state: &'static str,
    zone: String,
    /// Only a master knows what it sent.
    sent_version: Option<u64>,
    acked_version: Option<u64>,
    /// Absent while a replica that the config names is not yet in its epoch.
    effective_version: Option<u64>,
    config_source: Option<String>,
    why: String,
}

/// One chain.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ChainLine {
    pub(crate) shard: u64,
    start: JsonBytes,
    end: Option<JsonBytes>,
    epoch: u64,
    pub(crate) state: &'static str,
    pub(crate) members: Vec<MemberLine>,
    learners: Vec<LearnerLine>,
    pub(crate) why: String,
    #[serde(skip)]
    range: String,
}

/// One member of a chain.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MemberLine {
    pub(crate) node: u64,
    pub(crate) role: &'static str,
    pub(crate) in_sync: bool,
    pub(crate) last_seq: Option<u64>,
    pub(crate) commit_seq: Option<u64>,
    #[serde(skip)]
    pub(crate) details: Option<wire::ReplicaStatus>,
}

/// One learner of a chain.
#[derive(Clone, Debug, Serialize)]
struct LearnerLine {
    node: u64,
    progress: Option<u64>,
}

/// Something that a person should look at.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AlarmLine {
    pub(crate) name: String,
    pub(crate) since: String,
    pub(crate) detail: String,
}

/// Draws the picture.
pub(crate) fn picture(seen: &Seen) -> StatusLine {
    let mut alarms = Vec::new();
    for (id, node) in &seen.nodes {
        let Ok(status) = &node.status else { continue };
        alarms.extend(status.alarms.iter().map(|alarm| AlarmLine {
            name: alarm.name.clone(),
            since: rfc3339(alarm.since_ms),
            detail: format!("node {id}: {}", alarm.detail),
        }));
    }
    StatusLine {
        cluster_id: seen.cluster.to_string(),
        config_version: seen.config.position.map_or(0, |p| p.version),
        // No process that could be one has been asked: a cluster of nodes alone serves all the same.
        control_plane: "unreachable",
        masters: Vec::new(),
        nodes: seen
            .nodes
            .iter()
            .map(|(id, node)| node_line(*id, node))
            .collect(),
        chains: newest_chains(seen)
            .values()
            .map(|chain| chain_line(chain, seen))
            .collect(),
        alarms,
    }
}

/// Each chain as the newest config of it says that anybody holds: a chain's config spreads along
/// the chain, so a node can know a newer epoch than the newest cluster config (rule C3).
fn newest_chains(seen: &Seen) -> BTreeMap<u64, &wire::ChainConfig> {
    let answers = seen.nodes.values().filter_map(|n| n.status.as_ref().ok());
    let held = answers
        .flat_map(|a| &a.replicas)
        .filter_map(|r| r.chain.as_ref());
    let mut newest: BTreeMap<u64, &wire::ChainConfig> = BTreeMap::new();
    for chain in seen.config.chains.iter().chain(held) {
        let known = newest.entry(chain.shard_id).or_insert(chain);
        if chain.epoch > known.epoch {
            *known = chain;
        }
    }
    newest
}

fn node_line(id: u64, node: &NodeSeen) -> NodeLine {
    let mut line = NodeLine {
        id,
        addr: node.info.addr.clone(),
        incarnation: None,
        state: "down",
        zone: node.info.zone.clone(),
        sent_version: None,
        acked_version: None,
        effective_version: None,
        config_source: None,
        why: String::new(),
    };
    let status = match &node.status {
        Ok(status) => status,
        Err(why) => {
            line.why.clone_from(why);
            return line;
        }
    };
    let version = status
        .config
        .as_ref()
        .and_then(|c| c.position)
        .map(|p| p.version);
    line.state = "up";
    line.incarnation = Some(status.incarnation);
    line.acked_version = version;
    line.effective_version = version.filter(|_| is_effective(status));
    line.config_source = Some(status.config_source.clone());
    line
}

/// Whether every replica that the node's config names is in (at least) the epoch it names.
fn is_effective(status: &wire::NodeStatusResponse) -> bool {
    let chains = status.config.iter().flat_map(|c| &c.chains);
    let named = chains.filter(|chain| {
        let mut members = chain.members.iter();
        members.any(|m| m.node_id == status.node_id && m.disk_id == status.disk_id)
    });
    named.into_iter().all(|chain| {
        let mut held = status.replicas.iter().filter_map(|r| r.chain.as_ref());
        held.any(|c| c.shard_id == chain.shard_id && c.epoch >= chain.epoch)
    })
}

fn chain_line(chain: &wire::ChainConfig, seen: &Seen) -> ChainLine {
    let members: Vec<MemberLine> = (0..chain.members.len())
        .map(|place| member_line(chain, place, seen))
        .collect();
    let (state, why) = judge(chain, &members);
    let end = chain.end_key.as_ref();
    let range = format!(
        "[{}, {})",
        printable(&chain.start_key),
        end.map_or_else(|| "end".into(), |end| printable(end))
    );
    let learners = seen
        .config
        .learners
        .iter()
        .filter(|l| l.shard_id == chain.shard_id);
    ChainLine {
        shard: chain.shard_id,
        start: JsonBytes::from(&chain.start_key[..]),
        end: end.map(|end| JsonBytes::from(&end[..])),
        epoch: chain.epoch,
        state,
        members,
        learners: learners
            .map(|l| LearnerLine {
                node: l.node_id,
                progress: replica(seen, l.node_id, chain.shard_id).map(|r| r.applied_seq),
            })
            .collect(),
        why,
        range,
    }
}

fn replica(seen: &Seen, node: u64, shard: u64) -> Option<&wire::ReplicaStatus> {
    let status = seen.nodes.get(&node)?.status.as_ref().ok()?;
    let mut replicas = status.replicas.iter();
    replicas.find(|r| r.chain.as_ref().is_some_and(|c| c.shard_id == shard))
}

fn member_line(chain: &wire::ChainConfig, place: usize, seen: &Seen) -> MemberLine {
    let node = chain.members[place].node_id;
    let found = replica(seen, node, chain.shard_id);
    MemberLine {
        node,
        role: match (place, chain.members.len()) {
            (_, 1) => "solo",
            (0, _) => "head",
            (place, len) if place + 1 == len => "tail",
            _ => "middle",
        },
        in_sync: found.is_some_and(|r| r.in_sync),
        last_seq: found.map(|r| r.last_seq),
        commit_seq: found.map(|r| r.commit_seq),
        details: found.cloned(),
    }
}

/// A chain's state, and the first reason for it, gravest first.
///
/// A write needs every member, so a member that does not answer blocks the chain
/// until it is back or a new epoch is without it.
fn judge(chain: &wire::ChainConfig, members: &[MemberLine]) -> (&'static str, String) {
    let mut first: Option<(u8, &'static str, String)> = None;
    let mut note = |grade: u8, state: &'static str, why: String| {
        if first.as_ref().is_none_or(|(worst, ..)| grade < *worst) {
            first = Some((grade, state, why));
        }
    };
    for member in members {
        let node = member.node;
        let Some(replica) = &member.details else {
            note(
                0,
                "blocked",
                format!("node {node} ({}) does not answer for it", member.role),
            );
            continue;
        };
        let epoch = replica.chain.as_ref().map_or(0, |c| c.epoch);
        if replica.fenced {
            note(
                0,
                "blocked",
                format!("node {node} is fenced: {}", replica.why),
            );
        } else if epoch != chain.epoch {
            note(
                1,
                "reconfiguring",
                format!(
                    "node {node} is in epoch {epoch}, the chain in {}",
                    chain.epoch
                ),
            );
        } else if !replica.in_sync {
            note(
                2,
                "degraded",
                format!("node {node} is not in sync: {}", reason(replica)),
            );
        } else if !replica.serving_reads && chain.phase() == wire::ChainPhase::Serving {
            note(
                3,
                "degraded",
                format!("node {node} serves no reads: {}", reason(replica)),
            );
        }
    }
    if chain.phase() == wire::ChainPhase::Creating {
        note(
            1,
            "reconfiguring",
            "it is being created; nobody serves in this epoch".into(),
        );
    }
    first.map_or(("healthy", String::new()), |(_, state, why)| (state, why))
}

fn reason(replica: &wire::ReplicaStatus) -> &str {
    if replica.why.is_empty() {
        "it gives no reason"
    } else {
        &replica.why
    }
}

impl StatusLine {
    /// The first line of the screen.
    pub(crate) fn headline(&self) -> String {
        let up = self.nodes.iter().filter(|n| n.state == "up").count();
        let healthy = self.chains.iter().filter(|c| c.state == "healthy").count();
        let masters = if self.masters.is_empty() {
            "no masters"
        } else {
            self.control_plane
        };
        format!(
            "cluster {}   config version {}   control plane: {} ({masters})   nodes {up}/{} up   chains {healthy}/{} healthy",
            self.cluster_id,
            self.config_version,
            self.control_plane,
            self.nodes.len(),
            self.chains.len(),
        )
    }
}

impl NodeLine {
    /// Headings of [`NodeLine::row`].
    pub(crate) const HEADS: [&'static str; 7] = [
        "node",
        "address",
        "state",
        "config",
        "effective",
        "source",
        "why",
    ];

    /// The node as a row of a table.
    pub(crate) fn row(&self) -> Vec<String> {
        let number = |n: Option<u64>| n.map_or_else(|| "-".into(), |n| n.to_string());
        vec![
            self.id.to_string(),
            self.addr.clone(),
            self.state.into(),
            number(self.acked_version),
            number(self.effective_version),
            self.config_source.clone().unwrap_or_else(|| "-".into()),
            self.why.clone(),
        ]
    }
}

impl ChainLine {
    /// Headings of [`ChainLine::row`].
    pub(crate) const HEADS: [&'static str; 6] = [
        "shard",
        "keys",
        "epoch",
        "state",
        "members, head first",
        "why",
    ];

    /// The chain as a row of a table; a member that is not in sync carries an exclamation mark.
    pub(crate) fn row(&self) -> Vec<String> {
        let members = self.members.iter().map(|member| {
            let mark = if member.in_sync { "" } else { "!" };
            let commit = member
                .commit_seq
                .map_or_else(|| "-".into(), |seq| seq.to_string());
            format!("{}{mark}@{commit}", member.node)
        });
        vec![
            self.shard.to_string(),
            self.range.clone(),
            self.epoch.to_string(),
            self.state.into(),
            members.collect::<Vec<_>>().join(" > "),
            self.why.clone(),
        ]
    }
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
