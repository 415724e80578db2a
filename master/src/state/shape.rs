//! A chain's next shape: a pure function of the chain, the facts and the step.
//!
//! This is the table in `docs/PROTOCOL.md`, "The next shape of a chain": a test
//! evaluates every cell of it (`master/tests/state_table.rs`), and fails when
//! page and code part. Whether the step was made for the present epoch, and
//! whether an operator wants the node at all, is looked at before
//! (`state/chains.rs`): here is only what rules M1 to M4 and C4 say.

use std::collections::{BTreeMap, BTreeSet};

use catena_proto::config::{ChainConfig, ChainPhase, Learner, Member, NodeInfo};
use catena_proto::ids::{DiskId, NodeId};
use catena_proto::limits;

use super::command::{ChainStep, Controller, Evidence, Refused, Removal};
use crate::bootstrap;

/// What a step is judged by, besides the chain itself.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Members in sync for their present stint.
    pub in_sync: &'a BTreeSet<NodeId>,
    /// Who wants the step.
    pub by: &'a Controller,
    /// The registered nodes: their disks count (C4).
    pub nodes: &'a BTreeMap<NodeId, NodeInfo>,
    /// Who follows which chain (M4).
    pub learners: &'a [Learner],
}

/// What becomes of `chain` by `step`: one epoch on, with another list of members.
///
/// # Errors
/// [`Refused::Rule`] with the rule that forbids it, [`Refused::NoNode`], or [`Refused::Invalid`] for a step that makes
/// no sense with this chain.
pub fn next_shape(
    chain: &ChainConfig,
    step: &ChainStep,
    facts: &Facts<'_>,
) -> Result<ChainConfig, Refused> {
    let members = match step {
        ChainStep::Remove(removals) => remove(chain, removals, facts)?,
        ChainStep::Append { node, disk } => append(chain, *node, *disk, facts)?,
        ChainStep::Reissue => chain.members.clone(),
        ChainStep::Recover { node } => recover(chain, *node, facts)?,
    };
    let epoch = chain.epoch.next();
    let recovered = match step {
        ChainStep::Recover { .. } => epoch,
        _ => chain.recovered,
    };
    Ok(ChainConfig {
        epoch,
        recovered,
        members,
        ..chain.clone()
    })
}

/// C4: the serving epoch that follows a `creating` one.
///
/// # Errors
/// [`Refused::Rule`] while a member is not confirmed, [`Refused::Invalid`] if the chain serves already.
pub fn begin_serving(
    chain: &ChainConfig,
    in_sync: &BTreeSet<NodeId>,
) -> Result<ChainConfig, Refused> {
    let next = bootstrap::begun(chain).ok_or_else(|| {
        Refused::Invalid(format!(
            "shard {} serves already, in epoch {}",
            chain.shard, chain.epoch
        ))
    })?;
    let missing = outside(chain, in_sync);
    if !missing.is_empty() {
        return Err(rule(
            "C4",
            format!(
                "not everybody of the creating epoch is confirmed, {} missing: start what is missing, or remove it",
                named(&missing)
            ),
        ));
    }
    Ok(next)
}

/// M1, M2: any subset may go, as long as somebody in sync stays and every removal has its evidence.
fn remove(
    chain: &ChainConfig,
    removals: &[Removal],
    facts: &Facts<'_>,
) -> Result<Vec<Member>, Refused> {
    let gone: BTreeSet<NodeId> = removals.iter().map(|r| r.node).collect();
    if gone.is_empty() || gone.len() != removals.len() {
        return Err(Refused::Invalid(
            "a removal names at least one member, and each once".into(),
        ));
    }
    for node in &gone {
        if chain.position(*node).is_none() {
            return Err(no_member(chain, *node));
        }
    }
    let stay: Vec<Member> = chain
        .members
        .iter()
        .filter(|m| !gone.contains(&m.node))
        .copied()
        .collect();
    if stay.is_empty() {
        return Err(rule(
            "M2",
            "no member would be left: append another one first".into(),
        ));
    }
    if chain.phase == ChainPhase::Creating {
        // C4: nobody has ever served, so there is nothing that a removal could lose and no evidence to ask for. The
        // next epoch is a creating one again, in which those that stay have to be confirmed, all of them. Without this
        // a node that dies between its registration and its first report would block its shards for ever.
        return Ok(stay);
    }
    if facts.in_sync.is_empty() {
        return Err(rule(
            "M3",
            "no member is in sync: the chain waits for one of them to come back; see `catena chain recover` for the \
             way out that loses data"
                .into(),
        ));
    }
    if !stay.iter().any(|m| facts.in_sync.contains(&m.node)) {
        return Err(rule(
            "M2",
            format!(
                "no member in sync would be left, of {}: wait until another one is",
                named(facts.in_sync)
            ),
        ));
    }
    let stays_in_sync =
        |node: &NodeId| facts.in_sync.contains(node) && stay.iter().any(|m| m.node == *node);
    for removal in removals {
        check_evidence(chain, removal, facts.in_sync, stays_in_sync)?;
    }
    Ok(stay)
}

/// M2: what a removal rests on.
fn check_evidence(
    chain: &ChainConfig,
    removal: &Removal,
    in_sync: &BTreeSet<NodeId>,
    stays_in_sync: impl Fn(&NodeId) -> bool,
) -> Result<(), Refused> {
    let node = removal.node;
    let refuse = |why: String| Err(rule("M2", format!("removing node {node}: {why}")));
    match &removal.evidence {
        Evidence::SeemsDead {
            survivor,
            survivor_reported,
            last_sign,
            witness,
        } => {
            if !stays_in_sync(survivor) {
                return refuse(format!(
                    "node {survivor} does not stay as a member in sync: name one that does"
                ));
            }
            if *witness == node {
                return refuse("nobody bears witness to its own death: name another node".into());
            }
            if survivor_reported <= last_sign {
                return refuse(format!(
                    "its last sign of life is not older than the last report of node {survivor}: it may be the one \
                     that lives; wait for a newer report"
                ));
            }
        }
        Evidence::Lives { fellow, epoch, .. } => {
            if !stays_in_sync(fellow) {
                return refuse(format!(
                    "node {fellow} does not stay as a member in sync: name one that does"
                ));
            }
            if *epoch != chain.epoch {
                return refuse(format!(
                    "node {fellow} reported epoch {epoch} and the chain is at {}: wait until it has taken that",
                    chain.epoch
                ));
            }
        }
        Evidence::Unsynced => {
            if in_sync.contains(&node) {
                return refuse("it is in sync: say that it seems dead, or that it lives".into());
            }
        }
    }
    Ok(())
}

/// M1, M4: one tail, once everybody before it is in sync; it has followed with this very disk.
fn append(
    chain: &ChainConfig,
    node: NodeId,
    disk: DiskId,
    facts: &Facts<'_>,
) -> Result<Vec<Member>, Refused> {
    if chain.phase == ChainPhase::Creating {
        return Err(rule(
            "C4",
            "the chain is being created: append once it serves".into(),
        ));
    }
    let info = facts.nodes.get(&node).ok_or(Refused::NoNode(node))?;
    if chain.position(node).is_some() {
        return Err(entry_exists(chain, info));
    }
    if chain.members.len() >= limits::CHAIN_MEMBERS_MAX {
        return Err(full(chain));
    }
    // M1 says "the previous joiner", the last member. Any member that is not in sync is, or follows, a joiner whose
    // records come through it, and a damaged one (S1) repairs from the same predecessor: so it is all of them.
    let missing = outside(chain, facts.in_sync);
    if !missing.is_empty() {
        return Err(rule(
            "M1",
            format!(
                "not every member is in sync, {} missing: wait, or remove what is missing",
                named(&missing)
            ),
        ));
    }
    if info.disk != disk {
        return Err(rule(
            "C4",
            format!("node {node} has another disk by now: let it follow with that one"),
        ));
    }
    let follows = |l: &Learner| (l.shard, l.node, l.disk) == (chain.shard, node, disk);
    if !facts.learners.iter().any(follows) {
        return Err(rule(
            "M4",
            format!("node {node} does not follow the chain: add it as a learner first"),
        ));
    }
    let mut members = chain.members.clone();
    members.push(Member {
        node,
        disk,
        joined_epoch: chain.epoch.next(),
    });
    Ok(members)
}

/// M3: by an operator only; the member alone, in a new stint.
fn recover(chain: &ChainConfig, node: NodeId, facts: &Facts<'_>) -> Result<Vec<Member>, Refused> {
    if *facts.by != Controller::Operator {
        return Err(rule(
            "M3",
            "only an operator may choose which data to lose".into(),
        ));
    }
    if chain.phase == ChainPhase::Creating {
        return Err(rule(
            "C4",
            "the chain has never served, so there is nothing to recover: remove the members that are gone".into(),
        ));
    }
    let info = facts.nodes.get(&node).ok_or(Refused::NoNode(node))?;
    if let Some(at) = chain.position(node)
        && info.disk != chain.members[at].disk
    {
        return Err(rule(
            "C4",
            format!("node {node} has another disk by now: what it held as a member is gone"),
        ));
    }
    // A former member may be the one that still has the data: one that was removed just before the rest was lost.
    Ok(vec![Member {
        node,
        disk: info.disk,
        joined_epoch: chain.epoch.next(),
    }])
}

/// Why a node that has a member entry cannot follow or be appended (C4).
pub(super) fn entry_exists(chain: &ChainConfig, info: &NodeInfo) -> Refused {
    match chain.member(info.node, info.disk) {
        Some(_) => Refused::Invalid(format!(
            "node {} is a member of shard {} already",
            info.node, chain.shard
        )),
        None => rule(
            "C4",
            format!(
                "node {} is still listed with its former disk: remove that entry first",
                info.node
            ),
        ),
    }
}

pub(super) fn full(chain: &ChainConfig) -> Refused {
    Refused::Invalid(format!(
        "shard {} has {} members, the most that a chain may have: remove one first",
        chain.shard,
        chain.members.len()
    ))
}

pub(super) fn rule(rule: &str, why: String) -> Refused {
    Refused::Rule {
        rule: rule.into(),
        why,
    }
}

fn no_member(chain: &ChainConfig, node: NodeId) -> Refused {
    Refused::Invalid(format!(
        "node {node} is not a member of shard {}: see `catena chain show {}`",
        chain.shard, chain.shard
    ))
}

/// Members that are not in sync.
fn outside(chain: &ChainConfig, in_sync: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let nodes = chain.members.iter().map(|m| m.node);
    nodes.filter(|n| !in_sync.contains(n)).collect()
}

fn named(nodes: &BTreeSet<NodeId>) -> String {
    let list: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    let word = if list.len() == 1 { "node" } else { "nodes" };
    format!("{word} {}", list.join(", "))
}
