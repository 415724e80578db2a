//! M2: what allows a member to be taken out, from what the leader has seen.

use catena_proto::config::ChainPhase;
use catena_proto::ids::{Epoch, NodeId, ShardId};
use catena_proto::time::Mono;

use super::observed::{NodeSeen, Observed};
use super::suspicion::witness;
use crate::state::{Evidence, MasterState, Mutant};

/// Why there is no evidence for a removal, and what would help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoEvidence {
    #[error("node {node} is no member of shard {shard}: see `catena chain show {shard}`")]
    NoMember { shard: ShardId, node: NodeId },
    #[error("node {node} is the only member of shard {shard}: append another one first")]
    OnlyMember { shard: ShardId, node: NodeId },
    #[error(
        "M2 forbids it: node {node} is the last in-sync member of shard {shard}; append another one first, or wait until one is in sync"
    )]
    LastInSync { shard: ShardId, node: NodeId },
    #[error(
        "M3 forbids it: no member of shard {shard} is in sync; it waits for one, or for `catena chain recover`"
    )]
    NobodyInSync { shard: ShardId },
    #[error(
        "M2 forbids it now: no other in-sync member of shard {shard} has reported epoch {epoch} to this leader since node {node} was heard last; try again in a second"
    )]
    NoReport {
        shard: ShardId,
        node: NodeId,
        epoch: Epoch,
    },
}

/// What allows `node` to be removed from `shard` (M2), for the loop and for an operator alike.
///
/// A node that is gone and has a witness gives [`Evidence::SeemsDead`]; any other one that is in sync
/// [`Evidence::Lives`], from a fellow that reports the current epoch just now. Whether it *should* be removed is
/// another question: the loop excludes nobody without a witness.
///
/// # Errors
/// The rule that forbids it, or the report that is missing, and what would help; for people.
pub fn removal_evidence(
    desired: &MasterState,
    observed: &Observed,
    shard: ShardId,
    node: NodeId,
    now: Mono,
) -> Result<Evidence, String> {
    evidence(desired, observed, shard, node, now).map_err(|why| why.to_string())
}

pub(super) fn evidence(
    desired: &MasterState,
    observed: &Observed,
    shard: ShardId,
    node: NodeId,
    now: Mono,
) -> Result<Evidence, NoEvidence> {
    let no_member = NoEvidence::NoMember { shard, node };
    let Some((config, record)) = desired.config().zip(desired.shard(shard)) else {
        return Err(no_member);
    };
    let chain = config
        .chains
        .get(&shard)
        .filter(|c| c.position(node).is_some());
    let chain = chain.ok_or(no_member)?;
    if chain.members.len() == 1 {
        return Err(NoEvidence::OnlyMember { shard, node });
    }
    let everybody = chain.members.iter().map(|m| m.node).collect();
    let in_sync = match desired.planted(Mutant::LastInSyncRemoved) {
        true => &everybody,
        false => record.in_sync(),
    };
    // C4: nobody has served yet, so there is nothing to lose and nothing to prove.
    if chain.phase == ChainPhase::Creating {
        return Ok(Evidence::Unsynced);
    }
    if in_sync.is_empty() {
        return Err(NoEvidence::NobodyInSync { shard });
    }
    if !in_sync.contains(&node) {
        return Ok(Evidence::Unsynced);
    }
    if in_sync.len() == 1 {
        return Err(NoEvidence::LastInSync { shard, node });
    }

    let last_sign = observed.last_sign(node);
    let seen = observed.node(node);
    let gone = seen.is_none_or(|seen| !seen.is_connected() || seen.is_silent(now));
    let is_current = |seen: &NodeSeen| seen.replica(shard).is_some_and(|r| r.epoch == chain.epoch);
    // Whoever stays must be there, with the disk that the chain knows, and have spoken since a suspect that is gone.
    let staying: Vec<(NodeId, &NodeSeen)> = chain
        .members
        .iter()
        .filter(|m| m.node != node && in_sync.contains(&m.node))
        .filter_map(|m| {
            let seen = observed.node(m.node)?;
            let newer = seen.last.as_ref().is_some_and(|r| r.at > last_sign);
            // What it was confirmed for it may have lost since, and said so already.
            let ignored = desired.planted(Mutant::LastInSyncRemoved)
                || desired.planted(Mutant::LostSyncIgnored);
            let synced = ignored || seen.replica(shard).is_some_and(|r| r.synced);
            let counts =
                seen.disk == m.disk && synced && seen.is_reporting(now) && (newer || !gone);
            counts.then_some((m.node, seen))
        })
        .collect();
    let current = staying.iter().find(|(_, seen)| is_current(seen));

    if gone
        && let Ok(witness) = witness(config, observed, node, now)
        // One that is up to date rather than one that is not; either is in sync.
        && let Some((survivor, seen)) = current.or_else(|| staying.first())
    {
        let reported = seen.last.as_ref().map_or(last_sign, |r| r.at);
        return Ok(Evidence::SeemsDead {
            survivor: *survivor,
            survivor_reported: observed.span(reported),
            last_sign: observed.span(last_sign),
            witness,
        });
    }
    let (fellow, seen) = current.ok_or(NoEvidence::NoReport {
        shard,
        node,
        epoch: chain.epoch,
    })?;
    Ok(Evidence::Lives {
        fellow: *fellow,
        epoch: chain.epoch,
        incarnation: seen.incarnation,
    })
}
