//! Who holds a key, as far as this client was told.
//!
//! The table learns from pages of routes and from wrong-chain answers, which any
//! node may give and which may be old. Only a higher epoch replaces what is
//! known (rule C1), and nothing is ever forgotten because it could not be
//! refreshed (FAULTS 35).

use std::collections::BTreeMap;

use catena_proto::config::{ChainConfig, NodeInfo};
use catena_proto::ids::{NodeId, ShardId};
use catena_proto::limits::{NODES_MAX, SHARDS_MAX};

/// A chain, and where the caller keeps what belongs to it.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// The newest config known.
    pub(crate) chain: ChainConfig,
    /// The shard's number in the order of first sight; it never changes.
    pub(crate) place: usize,
}

/// What became of an offered chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    /// It was not known, or its epoch is higher: it is the route now.
    Newer,
    /// It is known already.
    Same,
    /// A higher epoch is known.
    Older,
    /// The same epoch with other content (rule C2 makes that an alarm at the nodes): ignored.
    Conflict,
    /// The table is full.
    Full,
}

/// Chains by key, and the nodes they name.
#[derive(Clone, Debug, Default)]
pub(crate) struct RouteTable {
    routes: Vec<Route>,
    by_shard: BTreeMap<ShardId, usize>,
    /// Places, ordered by their chains' start keys.
    by_start: Vec<usize>,
    nodes: BTreeMap<NodeId, NodeInfo>,
}

impl RouteTable {
    /// Takes what is newer than the table; a verdict per chain.
    pub(crate) fn learn<'a>(
        &mut self,
        chains: impl IntoIterator<Item = &'a ChainConfig>,
    ) -> Vec<Learned> {
        let verdicts: Vec<Learned> = chains
            .into_iter()
            .map(|chain| self.learn_one(chain))
            .collect();
        if verdicts.contains(&Learned::Newer) {
            let routes = &self.routes;
            self.by_start = (0..routes.len()).collect();
            self.by_start.sort_by(|a, b| {
                routes[*a]
                    .chain
                    .range
                    .start
                    .cmp(&routes[*b].chain.range.start)
            });
        }
        verdicts
    }

    fn learn_one(&mut self, chain: &ChainConfig) -> Learned {
        let Some(place) = self.by_shard.get(&chain.shard) else {
            if self.routes.len() >= SHARDS_MAX {
                return Learned::Full;
            }
            let place = self.routes.len();
            self.by_shard.insert(chain.shard, place);
            self.routes.push(Route {
                chain: chain.clone(),
                place,
            });
            return Learned::Newer;
        };
        let held = &mut self.routes[*place].chain;
        match chain.epoch.cmp(&held.epoch) {
            std::cmp::Ordering::Greater => {
                *held = chain.clone();
                Learned::Newer
            }
            std::cmp::Ordering::Equal if chain == held => Learned::Same,
            std::cmp::Ordering::Equal => Learned::Conflict,
            std::cmp::Ordering::Less => Learned::Older,
        }
    }

    /// Takes a node's address; true if it is news.
    ///
    /// Addresses carry no version, and a node that was away may tell an old one: what works is kept.
    pub(crate) fn learn_node(&mut self, info: &NodeInfo, works: bool) -> bool {
        match self.nodes.get(&info.node) {
            Some(held) if held == info || (works && held.addr != info.addr) => false,
            None if self.nodes.len() >= NODES_MAX => false,
            _ => {
                self.nodes.insert(info.node, info.clone());
                true
            }
        }
    }

    /// The route of the chain that holds `key`.
    ///
    /// While a split spreads, an old config of the lower half still covers the
    /// upper one: of two that hold the key, the one that starts later is newer.
    pub(crate) fn of_key(&self, key: &[u8]) -> Option<&Route> {
        self.starting_before(|start| start <= key)
            .find(|route| route.chain.range.contains(key))
    }

    /// The route of the chain that holds the last key before `end` (`None`: of the key space).
    pub(crate) fn before(&self, end: Option<&[u8]>) -> Option<&Route> {
        self.starting_before(|start| end.is_none_or(|end| start < end))
            .find(|route| match (route.chain.range.end.as_deref(), end) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(last), Some(end)) => last >= end,
            })
    }

    /// Routes whose start key passes, the greatest first.
    fn starting_before(&self, passes: impl Fn(&[u8]) -> bool) -> impl Iterator<Item = &Route> {
        let end = self
            .by_start
            .partition_point(|place| passes(&self.routes[*place].chain.range.start));
        self.by_start[..end]
            .iter()
            .rev()
            .map(|place| &self.routes[*place])
    }

    /// Routes by place.
    pub(crate) fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Chains in the order of their ranges.
    pub(crate) fn chains(&self) -> impl Iterator<Item = &ChainConfig> {
        self.by_start.iter().map(|place| &self.routes[*place].chain)
    }

    /// The nodes known.
    pub(crate) const fn nodes(&self) -> &BTreeMap<NodeId, NodeInfo> {
        &self.nodes
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use catena_proto::config::{ChainPhase, KeyRange, Member};
    use catena_proto::ids::{DiskId, Epoch};
    use proptest::prelude::*;

    use super::*;

    fn chain(shard: u64, epoch: u64, start: &str, end: Option<&str>) -> ChainConfig {
        ChainConfig {
            shard: ShardId::new(shard),
            epoch: Epoch::new(epoch),
            range: KeyRange {
                start: Bytes::copy_from_slice(start.as_bytes()),
                end: end.map(|end| Bytes::copy_from_slice(end.as_bytes())),
            },
            phase: ChainPhase::Serving,
            recovered: Epoch::ZERO,
            members: vec![Member {
                node: NodeId::new(shard * 10 + epoch),
                disk: DiskId::new(1),
                joined_epoch: Epoch::new(1),
            }],
        }
    }

    fn shard_of(table: &RouteTable, key: &str) -> Option<u64> {
        table
            .of_key(key.as_bytes())
            .map(|route| route.chain.shard.get())
    }

    #[test]
    fn only_a_higher_epoch_replaces_a_route() {
        let mut table = RouteTable::default();
        let (old, new) = (chain(1, 1, "", None), chain(1, 3, "", None));
        assert_eq!(
            table.learn([&old, &new, &old]),
            [Learned::Newer, Learned::Newer, Learned::Older]
        );
        let mut twin = new.clone();
        twin.members.clear();
        assert_eq!(
            table.learn([&new, &twin]),
            [Learned::Same, Learned::Conflict]
        );
        assert_eq!(table.routes()[0].chain, new);
    }

    #[test]
    fn keys_are_found_at_and_between_the_bounds() {
        let mut table = RouteTable::default();
        table.learn([&chain(2, 1, "m", None), &chain(1, 1, "b", Some("m"))]);
        assert_eq!(shard_of(&table, "a"), None);
        assert_eq!(shard_of(&table, "b"), Some(1));
        assert_eq!(shard_of(&table, "lzz"), Some(1));
        assert_eq!(shard_of(&table, "m"), Some(2));
        assert_eq!(shard_of(&table, "zzz"), Some(2));
        let before = |end: Option<&[u8]>| table.before(end).map(|r| r.chain.shard.get());
        assert_eq!(before(None), Some(2));
        assert_eq!(before(Some(b"n")), Some(2));
        assert_eq!(before(Some(b"m")), Some(1));
        assert_eq!(before(Some(b"b")), None);
    }

    #[test]
    fn the_upper_half_of_a_split_wins_over_an_old_whole() {
        let mut table = RouteTable::default();
        table.learn([&chain(1, 1, "", None), &chain(2, 1, "m", None)]);
        assert_eq!(shard_of(&table, "z"), Some(2));
        assert_eq!(shard_of(&table, "c"), Some(1));
        let before = |end: &[u8]| table.before(Some(end)).map(|r| r.chain.shard.get());
        assert_eq!(before(b"m"), Some(1));
    }

    #[test]
    fn an_address_that_works_is_not_given_up_for_another() {
        let mut table = RouteTable::default();
        let info = |addr: &str| NodeInfo {
            node: NodeId::new(1),
            disk: DiskId::new(1),
            addr: addr.into(),
            http: String::new(),
            zone: String::new(),
        };
        assert!(table.learn_node(&info("a:1"), false));
        assert!(!table.learn_node(&info("b:1"), true));
        assert!(table.learn_node(&info("b:1"), false));
        assert!(!table.learn_node(&info("b:1"), false));
    }

    proptest! {
        #[test]
        fn the_highest_epoch_ever_offered_is_the_route(
            offers in prop::collection::vec((0..4_u64, 1..6_u64), 1..60),
        ) {
            let bounds = ["", "g", "n", "t"];
            let mut table = RouteTable::default();
            let mut highest = BTreeMap::new();
            for (shard, epoch) in offers {
                let at = usize::try_from(shard).expect("small");
                let offered = chain(shard, epoch, bounds[at], bounds.get(at + 1).copied());
                let seen = highest.entry(shard).or_insert(0);
                let verdict = table.learn([&offered])[0];
                prop_assert_eq!(verdict == Learned::Newer, epoch > *seen);
                *seen = epoch.max(*seen);
                for (shard, epoch) in &highest {
                    let at = usize::try_from(*shard).expect("small");
                    let route = table.of_key(format!("{}a", bounds[at]).as_bytes()).expect("never forgotten");
                    prop_assert_eq!(route.chain.epoch.get(), *epoch);
                }
            }
        }
    }
}
