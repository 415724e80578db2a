//! Who seems dead, who bears witness, and which end of a broken link goes (DESIGN §4.3).

use std::collections::{BTreeMap, BTreeSet};

use catena_proto::config::ClusterConfig;
use catena_proto::ids::NodeId;
use catena_proto::time::Mono;

use super::observed::Observed;

/// Nodes that are a member of any chain.
pub(super) fn in_service(config: &ClusterConfig) -> BTreeSet<NodeId> {
    let chains = config.chains.values();
    chains
        .flat_map(|chain| chain.members.iter().map(|m| m.node))
        .collect()
}

/// Why nobody can bear witness to a death.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unwitnessed {
    /// A fellow still hears it.
    Heard(NodeId),
    /// No fellow that reports knows it.
    Nobody,
}

/// A fellow that reports, since the suspect's last sign of life, that its link to it is broken; if no fellow reports
/// since then that it hears it.
///
/// A link that never carried anything speaks only for neighbours: others need not have one.
pub(super) fn witness(
    config: &ClusterConfig,
    observed: &Observed,
    suspect: NodeId,
    now: Mono,
) -> Result<NodeId, Unwitnessed> {
    let last_sign = observed.last_sign(suspect);
    let mut found = None;
    for (fellow, seen) in observed.nodes() {
        let registered = config.nodes.contains_key(&fellow);
        if fellow == suspect || !registered || !seen.is_reporting(now) {
            continue;
        }
        let newer = seen.last.as_ref().is_some_and(|r| r.at > last_sign);
        let Some(link) = seen.link(suspect).filter(|_| newer) else {
            continue;
        };
        if link.alive {
            return Err(Unwitnessed::Heard(fellow));
        }
        let speaks = link.silent.is_some() || are_neighbours(config, fellow, suspect);
        if speaks && found.is_none() {
            found = Some(fellow);
        }
    }
    found.ok_or(Unwitnessed::Nobody)
}

fn are_neighbours(config: &ClusterConfig, a: NodeId, b: NodeId) -> bool {
    config.chains.values().any(|chain| {
        let pairs = chain.members.windows(2);
        pairs.into_iter().any(|pair| {
            let pair = (pair[0].node, pair[1].node);
            pair == (a, b) || pair == (b, a)
        })
    })
}

/// Pairs of neighbours (lower id first) that both report, of which one at least says that the link is broken.
pub(super) fn broken_links(
    config: &ClusterConfig,
    observed: &Observed,
    now: Mono,
) -> BTreeSet<(NodeId, NodeId)> {
    let mut looked_at = BTreeSet::new();
    let mut broken = BTreeSet::new();
    let report = |(a, b)| observed.is_reporting(a, now) && observed.is_reporting(b, now);
    for chain in config.chains.values() {
        for pair in chain.members.windows(2) {
            let (a, b) = (pair[0].node, pair[1].node);
            let link = (a.min(b), a.max(b));
            if looked_at.insert(link) && report(link) && is_broken(observed, a, b) {
                broken.insert(link);
            }
        }
    }
    broken
}

/// Whether one end at least says that it does not hear the other.
pub(super) fn is_broken(observed: &Observed, a: NodeId, b: NodeId) -> bool {
    let says_broken = |from: NodeId, to: NodeId| {
        let link = observed.node(from).and_then(|seen| seen.link(to));
        link.is_some_and(|link| !link.alive)
    };
    says_broken(a, b) || says_broken(b, a)
}

/// The end of a broken link that goes, the one that stays, and why it is this way round.
pub(super) struct Broken {
    pub(super) goes: NodeId,
    pub(super) stays: NodeId,
    pub(super) because: &'static str,
}

/// Of a broken link's two ends, the one with more broken links; ties, the later in a chain that has both.
pub(super) fn who_goes(
    config: &ClusterConfig,
    broken: &BTreeSet<(NodeId, NodeId)>,
    (a, b): (NodeId, NodeId),
) -> Broken {
    let mut count: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (low, high) in broken {
        *count.entry(*low).or_default() += 1;
        *count.entry(*high).or_default() += 1;
    }
    let of = |node: NodeId| count.get(&node).copied().unwrap_or(0);
    let a_later = config.chains.values().find_map(|chain| {
        let (at_a, at_b) = (chain.position(a)?, chain.position(b)?);
        Some(at_a > at_b)
    });
    let tie = of(a) == of(b);
    let a_goes = of(a) > of(b) || (tie && a_later.unwrap_or(false));
    let (goes, stays) = if a_goes { (a, b) } else { (b, a) };
    let because = if tie {
        "is the later in the chain"
    } else {
        "has more broken links"
    };
    Broken {
        goes,
        stays,
        because,
    }
}
