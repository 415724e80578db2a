//! Exclusions: who is suspected, whether that is certain enough, and whether the budget allows it.

use std::collections::BTreeSet;
use std::time::Duration;

use catena_proto::config::NodeInfo;
use catena_proto::ids::{NodeId, ShardId};

use super::act::Turn;
use super::compare::behind;
use super::discrepancy::{Discrepancy, SignGone};
use super::evidence::{NoEvidence, evidence};
use super::history::apart;
use super::limits::{
    EXCLUSION_EVERY, GRACE, LINK_BROKEN_AFTER, NOTED_AFTER, STALE_EXCLUDED_AFTER, out_max,
};
use super::suspicion::{Unwitnessed, in_service, who_goes, witness};
use crate::state::{ChainStep, Evidence, Mutant, Removal};

/// The words under which operators find a hold, and the way past it.
const HOLD: &str = "SUSPICION_HOLD";
const OVERRIDE: &str = "`catena chain remove-member` overrides this";

/// A node that should go.
struct Suspect {
    node: NodeId,
    /// Why, for the event log.
    why: String,
    /// For how long.
    lasting: Duration,
    /// Only from these shards; `None` is all.
    shards: Option<BTreeSet<ShardId>>,
}

/// Excludes at most one node, from every chain that can do without it; what is held is noted.
pub(super) fn run(turn: &mut Turn<'_>) {
    let mut suspects = hopeless(turn);
    suspects.extend(dead(turn));
    suspects.extend(cut_off(turn));
    suspects.extend(stale(turn));
    blocked(turn);
    let mut named = BTreeSet::new();
    let mut excluded = false;
    for suspect in suspects {
        if named.insert(suspect.node) {
            excluded |= exclude(turn, &suspect, excluded);
        }
    }
}

/// C4, S2: an entry with a disk that is no more never comes back, nor does a head that lost its data. The node itself
/// said so: no other witness is needed.
fn hopeless(turn: &Turn<'_>) -> Vec<Suspect> {
    let mut suspects: Vec<Suspect> = Vec::new();
    for discrepancy in turn.found {
        let (Discrepancy::WrongDisk { shard, node, .. }
        | Discrepancy::HeadUnsynced { shard, node }) = discrepancy
        else {
            continue;
        };
        if let Some(held) = suspects.iter_mut().find(|s| s.node == *node) {
            held.shards.get_or_insert_default().insert(*shard);
            continue;
        }
        suspects.push(Suspect {
            node: *node,
            why: discrepancy.to_string(),
            lasting: turn.lasting(discrepancy),
            shards: Some(BTreeSet::from([*shard])),
        });
    }
    suspects
}

/// Nodes that give no sign of life, and of which a fellow bears witness that they are dead.
fn dead(turn: &mut Turn<'_>) -> Vec<Suspect> {
    if !is_settled(turn) {
        return Vec::new();
    }
    let gone: Vec<(NodeId, SignGone, Duration)> = turn
        .found
        .iter()
        .filter_map(|d| match d {
            Discrepancy::SeemsDead { node, sign } => Some((*node, *sign, turn.lasting(d))),
            _ => None,
        })
        .collect();
    let serving = in_service(turn.config).len();
    // FAULTS 20: when most are gone at once, it is more likely this master that is cut off.
    if gone.len() * 2 > serving {
        if gone.iter().any(|(_, _, lasting)| *lasting >= NOTED_AFTER) {
            let nodes = listed(gone.iter().map(|(node, _, _)| *node));
            let cause = format!(
                "{HOLD}: {} of {serving} nodes in service give this leader no sign of life ({nodes}): it may be cut off itself, and excludes none of them; {OVERRIDE}",
                gone.len()
            );
            turn.notes.hold("cluster".to_owned(), cause);
        }
        return Vec::new();
    }
    let mut suspects = Vec::new();
    for (node, sign, lasting) in gone {
        let missed = format!("node {node} {}", sign.as_str());
        match witness(turn.config, turn.observed, node, turn.now) {
            Ok(by) => suspects.push(Suspect {
                node,
                why: format!("{missed}, and node {by} reports that its link to it is broken"),
                lasting,
                shards: None,
            }),
            Err(_) if turn.desired.planted(Mutant::UnwitnessedExclusion) => {
                suspects.push(Suspect {
                    node,
                    why: missed,
                    lasting,
                    shards: None,
                })
            }
            Err(why) if lasting >= NOTED_AFTER => {
                let why = match why {
                    Unwitnessed::Heard(by) => format!("node {by} still hears it"),
                    Unwitnessed::Nobody => "no node that reports bears witness".to_owned(),
                };
                let cause = format!("{HOLD}: {missed}, but {why}: it is not excluded; {OVERRIDE}");
                turn.notes.hold(format!("node {node}"), cause);
            }
            Err(_) => {}
        }
    }
    suspects
}

/// Whether this leader has been there long enough to call anybody dead.
fn is_settled(turn: &Turn<'_>) -> bool {
    let mut registered = turn.config.nodes.keys();
    turn.now.since(turn.observed.leader_since()) >= GRACE
        || registered.all(|node| turn.observed.node(*node).is_some())
}

/// Nodes that reach this master and not their neighbours. Each broken link has two ends, and one of them goes.
fn cut_off(turn: &Turn<'_>) -> Vec<Suspect> {
    let lasting: Vec<(&Discrepancy, (NodeId, NodeId))> = turn
        .found
        .iter()
        .filter(|d| turn.lasting(d) >= LINK_BROKEN_AFTER)
        .filter_map(|d| match d {
            Discrepancy::LinkBroken { low, high } => Some((d, (*low, *high))),
            _ => None,
        })
        .collect();
    let broken: BTreeSet<(NodeId, NodeId)> = lasting.iter().map(|(_, link)| *link).collect();
    let suspects = lasting.iter().map(|(discrepancy, link)| {
        let end = who_goes(turn.config, &broken, *link);
        let (node, stays) = (end.goes, end.stays);
        Suspect {
            node,
            why: format!(
                "the link of nodes {node} and {stays} is broken though both report; node {node} {}",
                end.because
            ),
            lasting: turn.lasting(discrepancy),
            shards: None,
        }
    });
    suspects.collect()
}

/// Connected nodes that stay behind, or refuse, although they had their pushes.
fn stale(turn: &mut Turn<'_>) -> Vec<Suspect> {
    let mut suspects: Vec<Suspect> = Vec::new();
    let serving = in_service(turn.config);
    for discrepancy in turn.found {
        let Some(node) = behind(discrepancy).filter(|node| serving.contains(node)) else {
            continue;
        };
        let lasting = turn.lasting(discrepancy);
        let late = lasting >= STALE_EXCLUDED_AFTER && had_its_pushes(turn, node);
        if late && suspects.iter().all(|s| s.node != node) {
            suspects.push(Suspect {
                node,
                why: turn.why_behind(node),
                lasting,
                shards: None,
            });
        }
    }
    // When most of them refuse the same thing, the thing is bad, not the nodes.
    if suspects.len() * 2 > serving.len() && serving.len() > 1 {
        let nodes = listed(suspects.iter().map(|s| s.node));
        let cause = format!(
            "{HOLD}: {} of {} nodes in service stay behind or refuse ({nodes}): what is pushed may be bad, and none of them is excluded; {OVERRIDE}",
            suspects.len(),
            serving.len()
        );
        turn.notes.hold("pushes".to_owned(), cause);
        return Vec::new();
    }
    suspects
}

/// It reports, so that it could answer, and what it lacks was on its way for long enough: a master that is slow to
/// push must not blame the node. A silent one is a matter for witnesses.
fn had_its_pushes(turn: &Turn<'_>, node: NodeId) -> bool {
    turn.observed.node(node).is_some_and(|seen| {
        let has_it = seen.acked >= turn.desired.position();
        let unanswered = seen.unanswered_since;
        let long = unanswered.is_some_and(|at| turn.now.since(at) >= STALE_EXCLUDED_AFTER);
        let refuses = seen.refusal.is_some();
        seen.is_reporting(turn.now) && (has_it || long || refuses)
    })
}

/// Chains that wait for a member in sync (M3); nothing is said while most of the cluster is out of sight.
fn blocked(turn: &mut Turn<'_>) {
    if !is_settled(turn) {
        return;
    }
    let gone = |d: &&Discrepancy| matches!(d, Discrepancy::SeemsDead { .. });
    let unseen = turn.found.iter().filter(gone).count() * 2 > in_service(turn.config).len();
    for discrepancy in turn.found {
        let Discrepancy::Blocked { shard } = discrepancy else {
            continue;
        };
        if unseen || turn.lasting(discrepancy) < NOTED_AFTER {
            continue;
        }
        let in_sync = turn.desired.shard(*shard).map(|r| r.in_sync().clone());
        let in_sync = in_sync.unwrap_or_default();
        let cause = if in_sync.is_empty() {
            format!(
                "no member of shard {shard} is in sync (M3): it waits; `catena chain recover` is the way out that loses data"
            )
        } else {
            format!(
                "{discrepancy} (nodes {}): bring one of them back (M3); `catena chain recover` is the way out that loses data",
                listed(in_sync.into_iter())
            )
        };
        turn.notes.alarm(format!("shard {shard}"), cause);
    }
}

/// Takes one suspect out of every chain that can do without it. False if nothing was proposed.
fn exclude(turn: &mut Turn<'_>, suspect: &Suspect, another: bool) -> bool {
    let node = suspect.node;
    let noted = suspect.lasting >= NOTED_AFTER;
    let mut removals: Vec<(ShardId, Evidence)> = Vec::new();
    let chains = turn.config.chains.values();
    let of = |shard: &ShardId| suspect.shards.as_ref().is_none_or(|s| s.contains(shard));
    for chain in chains.filter(|c| c.position(node).is_some() && of(&c.shard)) {
        let shard = chain.shard;
        if turn.is_changed(shard) {
            continue;
        }
        match evidence(turn.desired, turn.observed, shard, node, turn.now) {
            Ok(evidence) => removals.push((shard, evidence)),
            Err(NoEvidence::LastInSync { .. } | NoEvidence::OnlyMember { .. }) if noted => {
                let cause = format!(
                    "{}; it is the last in-sync member of shard {shard} and is not excluded: bring it back",
                    suspect.why
                );
                turn.notes
                    .alarm(format!("shard {shard} node {node}"), cause);
            }
            // Somebody's report is missing: it comes within a second.
            Err(_) => {}
        }
    }
    if removals.is_empty() {
        return false;
    }
    let over = rate(turn, node).and_then(|()| match out_of_service(turn, node) {
        // What is not in sync is no loss, and may be just what keeps its chain from healing: it may always go (M2).
        Err(_) if removals.iter().any(|(_, e)| *e == Evidence::Unsynced) => {
            removals.retain(|(_, e)| *e == Evidence::Unsynced);
            Ok(())
        }
        other => other,
    });
    if let Err(why) = over {
        if noted {
            let cause = format!("{HOLD}: {}; {}; {OVERRIDE}", suspect.why, why.text());
            turn.notes.hold(format!("node {node}"), cause);
            if let OverBudget::Half { .. } = why {
                turn.notes.alarm("cluster".to_owned(), why.text());
            }
        }
        return false;
    }
    if another {
        // One node a call: in the next one the budget counts this call's.
        return false;
    }
    for (shard, evidence) in removals {
        let removal = Removal { node, evidence };
        let step = ChainStep::Remove(vec![removal]);
        turn.reconfigure(shard, suspect.why.clone(), step);
    }
    true
}

/// What of the budget is used up.
enum OverBudget {
    Rate {
        node: NodeId,
    },
    Half {
        of: String,
        out: Vec<NodeId>,
        max: usize,
    },
}

impl OverBudget {
    fn text(&self) -> String {
        match self {
            Self::Rate { node } => format!(
                "node {node} was excluded less than {} s ago and its chains have not healed",
                EXCLUSION_EVERY.as_secs()
            ),
            Self::Half { of, out, max } => format!(
                "out of service in {of} already: {}; the loop leaves at most {max} out at once",
                listed(out.iter().copied())
            ),
        }
    }
}

/// One node at once, then one each time that [`EXCLUSION_EVERY`] has passed: for dead, stale and refusing ones
/// together, derived from the event log.
fn rate(turn: &Turn<'_>, node: NodeId) -> Result<(), OverBudget> {
    let recent = turn.history.exclusions.iter().rev().find(|e| {
        e.node != node && apart(turn.wall, e.at) < EXCLUSION_EVERY && !has_healed(turn, e.shard)
    });
    recent.map_or(Ok(()), |other| Err(OverBudget::Rate { node: other.node }))
}

/// Never past half of the cluster's nodes, nor of a zone's, without an operator.
fn out_of_service(turn: &Turn<'_>, node: NodeId) -> Result<(), OverBudget> {
    let zone = turn.config.nodes.get(&node).map_or("", |info| &info.zone);
    half(turn, node, "the cluster".to_owned(), |_| true)?;
    if zone.is_empty() {
        return Ok(());
    }
    half(turn, node, format!("zone {zone}"), |info| info.zone == zone)
}

fn half(
    turn: &Turn<'_>,
    node: NodeId,
    of: String,
    within: impl Fn(&NodeInfo) -> bool,
) -> Result<(), OverBudget> {
    let nodes: Vec<NodeId> = turn
        .config
        .nodes
        .values()
        .filter(|info| within(info))
        .map(|info| info.node)
        .collect();
    let others = nodes.iter().copied().filter(|n| *n != node);
    let out: Vec<NodeId> = others.filter(|n| is_out(turn, *n)).collect();
    let max = out_max(nodes.len());
    if out.len() < max || turn.desired.planted(Mutant::HalfExceeded) {
        Ok(())
    } else {
        Err(OverBudget::Half { of, out, max })
    }
}

/// Taken out by the loop and not made up for, or simply of no use: a dead spare counts as well.
fn is_out(turn: &Turn<'_>, node: NodeId) -> bool {
    let well = turn.is_well(node);
    let excluded = turn.history.out.contains(&node);
    let unhealed = turn
        .history
        .exclusions
        .iter()
        .any(|e| e.node == node && !has_healed(turn, e.shard));
    let serving = in_service(turn.config).contains(&node);
    (excluded && (!well || unhealed)) || (!serving && !well)
}

/// The shard's chain has its wanted length again, all of it in sync: it could lose another member.
fn has_healed(turn: &Turn<'_>, shard: ShardId) -> bool {
    let chain = turn.config.chains.get(&shard);
    chain
        .zip(turn.desired.shard(shard))
        .is_none_or(|(chain, record)| {
            chain.members.len() >= turn.desired.replicas_wanted()
                && chain
                    .members
                    .iter()
                    .all(|m| record.in_sync().contains(&m.node))
        })
}

fn listed(nodes: impl Iterator<Item = NodeId>) -> String {
    let nodes: Vec<String> = nodes.map(|n| n.to_string()).collect();
    nodes.join(", ")
}
