//! Routes that lead somewhere: the pure table, and behind each chain the nodes and the session it needs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use catena_proto::config::{ChainConfig, KeyRange, NodeInfo};
use catena_proto::ids::{Epoch, NodeId, ShardId};
use parking_lot::RwLock;
use tokio::time::Instant;

use crate::ReadFrom;
use crate::limits::{AVOID, READ_STRIDE};
use crate::node::{Ground, Node};
use crate::pipe::Pipe;
use crate::plan::routes::{Learned, RouteTable};
use crate::session::Sessions;

/// A chain at one epoch, ready to be asked.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) shard: ShardId,
    pub(crate) epoch: Epoch,
    pub(crate) range: KeyRange,
    head: NodeId,
    /// Head first; without those whose address is not known.
    members: Vec<Seat>,
    pub(crate) sessions: Arc<Sessions>,
    turn: AtomicU32,
}

/// A member, and whether reads leave it alone.
#[derive(Debug)]
struct Seat {
    node: Arc<Node>,
    /// Milliseconds since the client's start; 0: not avoided.
    avoided_until: AtomicU64,
}

impl Lane {
    /// Who takes the writes, if its address is known.
    pub(crate) fn head(&self) -> Option<&Arc<Node>> {
        self.members
            .first()
            .map(|seat| &seat.node)
            .filter(|node| node.id() == self.head)
    }

    /// How many members could answer a read.
    pub(crate) fn readers(&self) -> usize {
        self.members.len()
    }

    /// Who is to answer a read at its `tries`-th try; each try begins with another member.
    pub(crate) fn reader(&self, from: ReadFrom, tries: usize, now_ms: u64) -> Option<&Arc<Node>> {
        let len = self.members.len();
        let first = match from {
            ReadFrom::Any => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) / READ_STRIDE;
                turn as usize + tries
            }
            ReadFrom::Tail => len.checked_sub(1)? + tries,
        };
        let order = |at: usize| self.members.get((first + at) % len.max(1));
        (0..len)
            .filter_map(order)
            .find(|seat| seat.serves(now_ms))
            .or_else(|| order(0))
            .map(|seat| &seat.node)
    }

    /// Leaves a member alone for a while: it was not ready, or silent.
    pub(crate) fn avoid(&self, node: NodeId, now_ms: u64) {
        let until = now_ms + u64::try_from(AVOID.as_millis()).unwrap_or(u64::MAX);
        if let Some(seat) = self.members.iter().find(|seat| seat.node.id() == node) {
            seat.avoided_until.store(until, Ordering::Relaxed);
        }
    }
}

impl Seat {
    fn serves(&self, now_ms: u64) -> bool {
        let until = self.avoided_until.load(Ordering::Relaxed);
        if until > 0 {
            if until > now_ms {
                return false;
            }
            // One read tries it; the others stay away until that one is answered, or for another while.
            let next = now_ms + u64::try_from(AVOID.as_millis()).unwrap_or(u64::MAX);
            let exchanged = self.avoided_until.compare_exchange(
                until,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            return exchanged.is_ok();
        }
        if self.node.is_down() {
            self.node.want();
            return false;
        }
        true
    }

    fn welcome(&self) {
        if self.avoided_until.load(Ordering::Relaxed) > 0 {
            self.avoided_until.store(0, Ordering::Relaxed);
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Topology {
    ground: Ground,
    map: RwLock<Map>,
}

#[derive(Debug, Default)]
struct Map {
    table: RouteTable,
    /// By the place of the table's routes.
    lanes: Vec<Arc<Lane>>,
    nodes: BTreeMap<NodeId, Arc<Node>>,
}

impl Topology {
    pub(crate) fn new(ground: Ground) -> Self {
        Self {
            ground,
            map: RwLock::default(),
        }
    }

    pub(crate) const fn ground(&self) -> &Ground {
        &self.ground
    }

    /// The chain that holds `key`.
    pub(crate) fn lane(&self, key: &[u8]) -> Option<Arc<Lane>> {
        let map = self.map.read();
        let place = map.table.of_key(key)?.place;
        map.lanes.get(place).cloned()
    }

    /// The chain that holds the last key before `end`.
    pub(crate) fn lane_before(&self, end: Option<&[u8]>) -> Option<Arc<Lane>> {
        let map = self.map.read();
        let place = map.table.before(end)?.place;
        map.lanes.get(place).cloned()
    }

    /// Takes what is news; true if a chain is.
    pub(crate) fn learn(&self, chains: &[ChainConfig], nodes: &[NodeInfo]) -> bool {
        let mut map = self.map.write();
        let moved = map.learn_nodes(nodes, &self.ground);
        let verdicts = map.table.learn(chains);
        let mut news = false;
        for (chain, verdict) in chains.iter().zip(&verdicts) {
            match verdict {
                Learned::Newer => news = true,
                Learned::Conflict => tracing::warn!(
                    shard = %chain.shard, epoch = %chain.epoch,
                    "two configs claim one epoch (rule C2); the one that was known first is kept"
                ),
                Learned::Same | Learned::Older | Learned::Full => {}
            }
        }
        if news || !moved.is_empty() {
            map.rebuild(&moved);
            drop(map);
            self.ground.changed.send_modify(|count| *count += 1);
        }
        news
    }

    /// A node by name.
    pub(crate) fn node(&self, id: NodeId) -> Option<Arc<Node>> {
        self.map.read().nodes.get(&id).cloned()
    }

    /// Every node, those known to work first.
    pub(crate) fn nodes_by_health(&self) -> Vec<Arc<Node>> {
        let mut nodes: Vec<_> = self.map.read().nodes.values().cloned().collect();
        nodes.sort_by_key(|node| (!node.is_up(), node.is_down()));
        nodes
    }

    /// What the table holds.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&RouteTable) -> T) -> T {
        at(&self.map.read().table)
    }

    /// Tries ever sent on pipes.
    pub(crate) fn asked(&self) -> u64 {
        let map = self.map.read();
        let pipes = map.nodes.values().flat_map(|node| node.pipes());
        pipes.map(Pipe::asked).sum()
    }

    /// Ends the requests whose time has passed.
    pub(crate) fn expire(&self, now: Instant) {
        let map = self.map.read();
        let pipes = map.nodes.values().flat_map(|node| node.pipes());
        pipes.for_each(|pipe| pipe.expire(now));
    }

    /// Every chain.
    pub(crate) fn lanes(&self) -> Vec<Arc<Lane>> {
        self.map.read().lanes.clone()
    }

    /// A member answered a read: it need not be avoided.
    pub(crate) fn welcome(lane: &Lane, node: NodeId) {
        if let Some(seat) = lane.members.iter().find(|seat| seat.node.id() == node) {
            seat.welcome();
        }
    }
}

impl Map {
    /// Returns the nodes that have a new address.
    fn learn_nodes(&mut self, nodes: &[NodeInfo], ground: &Ground) -> Vec<NodeId> {
        let mut moved = Vec::new();
        for info in nodes {
            let held = self.nodes.get(&info.node);
            let works = held.is_some_and(|node| node.is_up());
            if !self.table.learn_node(info, works) {
                continue;
            }
            if held.is_some_and(|node| node.info.addr == info.addr) {
                continue;
            }
            match Node::new(info.clone(), ground) {
                Ok(node) => {
                    self.nodes.insert(info.node, Arc::new(node));
                    moved.push(info.node);
                }
                Err(error) => tracing::warn!(node = %info.node, %error, "its address is no use"),
            }
        }
        moved
    }

    /// Makes the lanes anew whose chain, or one of whose nodes, is not what it was.
    fn rebuild(&mut self, moved: &[NodeId]) {
        for route in self.table.routes() {
            let chain = &route.chain;
            let held = self.lanes.get(route.place);
            let stays = held.is_some_and(|lane| lane.epoch == chain.epoch)
                && !chain.members.iter().any(|m| moved.contains(&m.node));
            if stays {
                continue;
            }
            let seat = |id: &NodeId| {
                self.nodes.get(id).map(|node| Seat {
                    node: Arc::clone(node),
                    avoided_until: AtomicU64::new(0),
                })
            };
            let lane = Arc::new(Lane {
                shard: chain.shard,
                epoch: chain.epoch,
                range: chain.range.clone(),
                head: chain.members.first().map_or(NodeId::ZERO, |m| m.node),
                members: chain.members.iter().filter_map(|m| seat(&m.node)).collect(),
                sessions: held.map_or_else(Arc::default, |lane| Arc::clone(&lane.sessions)),
                turn: AtomicU32::new(0),
            });
            match self.lanes.get_mut(route.place) {
                Some(place) => *place = lane,
                // Places are given in order, and each was missing only until now.
                None => self.lanes.push(lane),
            }
        }
    }
}
