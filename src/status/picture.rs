//! What the nodes said, as one picture: a pure function from [`Seen`] to the lines that scripts and people read.

use std::collections::BTreeMap;

use catena_proto::wire;

use super::Seen;
use super::gather::{MasterSeen, NodeSeen};
use super::lines::{
    AlarmLine, ChainLine, LearnerLine, MasterLine, MemberLine, NodeLine, StatusLine,
};
use super::when::rfc3339;
use crate::output::{JsonBytes, printable};

/// Draws the picture. What the leader knows comes first; without one, everybody speaks for itself.
pub(crate) fn picture(seen: &Seen) -> StatusLine {
    let leader = seen.leader();
    StatusLine {
        cluster_id: seen.cluster.to_string(),
        config_version: seen.config.position.map_or(0, |p| p.version),
        control_plane: control_plane(seen),
        masters: seen
            .masters
            .iter()
            .map(|(id, master)| master_line(*id, master))
            .collect(),
        nodes: seen
            .nodes
            .iter()
            .map(|(id, node)| node_line(*id, node, view_of(leader, *id)))
            .collect(),
        chains: newest_chains(seen)
            .values()
            .map(|chain| chain_line(chain, seen))
            .collect(),
        alarms: alarms(seen),
        paused_controllers: leader.map_or_else(Vec::new, |l| l.paused_controllers.clone()),
    }
}

/// Whether the masters can change anything, and whether they could still after one more is lost.
fn control_plane(seen: &Seen) -> &'static str {
    let all_answer = seen.masters.values().all(|master| master.status.is_ok());
    match seen.leader() {
        None => "unreachable",
        Some(_) if all_answer => "healthy",
        Some(_) => "degraded",
    }
}

fn alarms(seen: &Seen) -> Vec<AlarmLine> {
    let line = |alarm: &wire::Alarm, detail: String| AlarmLine {
        name: alarm.name.clone(),
        since: rfc3339(alarm.since_ms),
        detail,
    };
    let of_leader = seen.leader().into_iter().flat_map(|leader| &leader.alarms);
    let mut alarms: Vec<AlarmLine> = of_leader
        .map(|alarm| line(alarm, alarm.detail.clone()))
        .collect();
    for (id, node) in &seen.nodes {
        let Ok(status) = &node.status else { continue };
        let of_node = status.alarms.iter();
        alarms.extend(of_node.map(|alarm| line(alarm, format!("node {id}: {}", alarm.detail))));
    }
    alarms
}

fn master_line(id: u64, master: &MasterSeen) -> MasterLine {
    let (status, why) = match &master.status {
        Ok(status) => (Some(status), String::new()),
        Err(why) => (None, why.clone()),
    };
    MasterLine {
        id,
        addr: master.addr.clone(),
        role: status.map_or_else(|| "down".into(), |status| status.role.clone()),
        term: status.map(|status| status.term),
        applied: status.map(|status| status.applied),
        why,
    }
}

fn view_of(leader: Option<&wire::MasterStatusResponse>, node: u64) -> Option<&wire::NodeView> {
    leader?.nodes.iter().find(|view| view.node_id == node)
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

/// The age of a report that never came.
const NEVER: u64 = u64::MAX;

fn node_line(id: u64, node: &NodeSeen, view: Option<&wire::NodeView>) -> NodeLine {
    let mut line = by_itself(id, node);
    let Some(view) = view else { return line };
    let version = |position: Option<wire::ConfigPosition>| position.map(|p| p.version);
    line.state.clone_from(&view.state);
    line.sent_version = version(view.sent).unwrap_or(0);
    line.acked_version = version(view.acked).or(line.acked_version);
    line.effective_version = version(view.effective).or(line.effective_version);
    if line.incarnation.is_none() && view.incarnation > 0 {
        line.incarnation = Some(view.incarnation);
    }
    if line.config_source.is_none() && !view.config_source.is_empty() {
        line.config_source = Some(view.config_source.clone());
    }
    line.report_age_ms = Some(view.report_age_ms).filter(|ms| *ms < NEVER);
    line.refusal.clone_from(&view.refusal);
    if line.why.is_empty() && !view.refusal.is_empty() {
        line.why = format!("it refuses a config: {}", view.refusal);
    }
    line
}

/// The node by its own words alone.
fn by_itself(id: u64, node: &NodeSeen) -> NodeLine {
    let mut line = NodeLine {
        id,
        addr: node.info.addr.clone(),
        incarnation: None,
        state: "down".into(),
        zone: node.info.zone.clone(),
        sent_version: 0,
        acked_version: None,
        effective_version: None,
        config_source: None,
        why: String::new(),
        report_age_ms: None,
        refusal: String::new(),
    };
    let status = match &node.status {
        Ok(status) => status,
        Err(why) => {
            line.why.clone_from(why);
            return line;
        }
    };
    let held = status.config.as_ref().and_then(|c| c.position);
    let version = held.map(|p| p.version);
    line.state = "up".into();
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
    let view = seen.leader().and_then(|leader| {
        let mut views = leader.chains.iter();
        views.find(|view| view.shard_id == chain.shard_id)
    });
    let learners = learners(chain, seen, view, &members);
    let (state, why) = judge(chain, &members);
    let (state, why) = match view {
        Some(view) if state == "healthy" => by_leader(view, members.len(), &learners),
        _ => (state, why),
    };
    let end = chain.end_key.as_ref();
    let range = format!(
        "[{}, {})",
        printable(&chain.start_key),
        end.map_or_else(|| "end".into(), |end| printable(end))
    );
    ChainLine {
        shard: chain.shard_id,
        start: JsonBytes::from(&chain.start_key[..]),
        end: end.map(|end| JsonBytes::from(&end[..])),
        epoch: chain.epoch,
        state,
        members,
        learners,
        why,
        range,
    }
}

/// A chain whose members all serve is not healthy as long as it has fewer of them than it shall have.
fn by_leader(
    view: &wire::ChainView,
    members: usize,
    learners: &[LearnerLine],
) -> (&'static str, String) {
    let wanted = usize::try_from(view.replicas_wanted).unwrap_or(usize::MAX);
    if members >= wanted {
        return ("healthy", view.why.clone());
    }
    if !view.why.is_empty() {
        return ("degraded", view.why.clone());
    }
    let mut why = format!("it has {members} members of {wanted}");
    for learner in learners {
        why += &format!("; node {} follows as learner", learner.text());
    }
    ("degraded", why)
}

fn learners(
    chain: &wire::ChainConfig,
    seen: &Seen,
    view: Option<&wire::ChainView>,
    members: &[MemberLine],
) -> Vec<LearnerLine> {
    if let Some(view) = view {
        let line = |learner: &wire::LearnerView| LearnerLine {
            node: learner.node_id,
            progress: Some(learner.progress.clamp(0.0, 1.0)),
        };
        return view.learners.iter().map(line).collect();
    }
    let committed = members.iter().filter_map(|m| m.commit_seq).max();
    let line = |learner: &wire::Learner| LearnerLine {
        node: learner.node_id,
        progress: replica(seen, learner.node_id, chain.shard_id)
            .and_then(|replica| part(replica.applied_seq, committed?)),
    };
    let all = seen.config.learners.iter();
    all.filter(|learner| learner.shard_id == chain.shard_id)
        .map(line)
        .collect()
}

/// How much of `all` is `done`, 0 to 1; good enough for people.
#[allow(
    clippy::cast_precision_loss,
    reason = "a part of one, for people: three digits are enough"
)]
fn part(done: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| (done.min(all) as f64) / (all as f64))
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

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
