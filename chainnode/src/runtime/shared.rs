//! What all threads and tasks of a node share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

use catena_proto::config::{ChainConfig, ClusterConfig, ConfigPosition, NodeInfo};
use catena_proto::errors::{Reason, Refusal as WireRefusal};
use catena_proto::ids::{ClusterId, DiskId, Incarnation, NodeId, Seq, ShardId};
use catena_proto::time::Mono;
use futures::task::AtomicWaker;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::fellows::Fellows;
use super::folder::Folder;
use super::inbox::Inbox;
use super::metrics::Metrics;
use super::switch::Switch;
use crate::engine::SharedEngine;
use crate::replica::{Identity, LeaseSettings, Refusal, Replica, Reply, ReplyTo, Request};

/// Requests that may be queued for the driver, in bytes; beyond it they are refused early.
pub(crate) const INBOX_BYTES_MAX: usize = 128 << 20;

/// Who this process is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Me {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) disk: DiskId,
    pub(crate) incarnation: Incarnation,
}

impl Me {
    pub(crate) const fn identity(&self, shard: ShardId) -> Identity {
        Identity {
            node: self.node,
            disk: self.disk,
            incarnation: self.incarnation,
            shard,
        }
    }
}

/// One replica and what hangs on it.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) id: ShardId,
    pub(crate) replica: RwLock<Replica>,
    /// Moves when the commit point, the epoch or the lease may let a waiting read go on.
    pub(crate) moved: watch::Sender<Seq>,
}

/// What the driver is asked to do.
#[derive(Debug)]
pub(crate) enum Work {
    /// Messages of one fellow, in order.
    Messages {
        from: NodeId,
        messages: Vec<catena_proto::message::Message>,
    },
    /// Clients' requests.
    Requests {
        shard: ShardId,
        requests: Vec<Request>,
    },
    /// Any other input.
    Input {
        shard: ShardId,
        input: crate::replica::Input,
    },
    /// The stream to a fellow broke.
    LinkLost { to: NodeId },
    /// A newer cluster config was accepted by the node.
    Config(Arc<ClusterConfig>),
    /// The disk has no room, or has again.
    ReadOnly(bool),
    /// Leave.
    Stop,
}

/// Why the process has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fatal {
    /// The disk failed (status 4).
    Disk,
    /// A thread of the node panicked: an invariant does not hold, and going on could do harm.
    Bug,
}

/// Answers that wait for one connection.
#[derive(Debug, Default)]
pub(crate) struct ReplyQueue {
    replies: Mutex<Vec<Reply>>,
    owner: AtomicWaker,
}

impl ReplyQueue {
    /// Moves what is there into `into`, which is empty; the caller's task is woken when there is more.
    pub(crate) fn take(&self, into: &mut Vec<Reply>, owner: &Waker) {
        self.owner.register(owner);
        std::mem::swap(&mut *self.replies.lock(), into);
    }
}

/// A unary call that waits for its answer.
type Unary = oneshot::Sender<Result<catena_proto::op::Outcome, Refusal>>;

/// A node's common state.
pub(crate) struct Shared {
    pub(crate) me: Me,
    pub(crate) engine: SharedEngine,
    pub(crate) inbox: Inbox<Work>,
    pub(crate) shards: RwLock<BTreeMap<ShardId, Arc<Shard>>>,
    /// The newest cluster config: routes, addresses, settings. The epochs in force are the replicas'.
    pub(crate) config: RwLock<Arc<ClusterConfig>>,
    pub(crate) config_source: Mutex<&'static str>,
    /// The newest state that was seen to be in force on every replica that it names.
    pub(crate) effective: Mutex<ConfigPosition>,
    /// Who shares a chain with this node, and how the links to them are.
    pub(crate) fellows: Fellows,
    /// Something changed that the master wants to hear of at once; only the control task waits for it.
    pub(crate) changed: Notify,
    /// The subscription has to begin anew; only the control task waits for it.
    pub(crate) resubscribe: Notify,
    /// A master has said something on the present subscription.
    pub(crate) master_connected: AtomicBool,
    /// The disk has no room.
    pub(crate) read_only: AtomicBool,
    pub(crate) switch: Switch,
    pub(crate) metrics: Metrics,
    pub(crate) fatal: watch::Sender<Option<Fatal>>,
    pub(crate) stopping: AtomicBool,
    pub(crate) started: Mono,
    pub(crate) version: &'static str,
    connections: RwLock<BTreeMap<u64, Arc<ReplyQueue>>>,
    connections_made: AtomicU64,
    unary: Mutex<BTreeMap<u64, Unary>>,
    unary_made: AtomicU64,
    /// Streams end when this becomes true, whatever their clients want.
    closing: watch::Sender<bool>,
    /// Last, so that the folder's lock is given back, and this is dropped, only when the engine is closed.
    pub(crate) held: Held,
}

/// What a node holds for as long as any thread or task of it lives.
#[derive(Debug)]
pub(crate) struct Held {
    /// Its folder, locked.
    pub(crate) folder: Folder,
    /// Dropped with the last of them; whoever has the receiver sees that.
    pub(crate) _alive: mpsc::Sender<std::convert::Infallible>,
}

/// An answer that a unary call waits for. A caller that goes away leaves nothing behind.
pub(crate) struct Expected<'a> {
    shared: &'a Shared,
    pub(crate) to: ReplyTo,
    pub(crate) answer: oneshot::Receiver<Result<catena_proto::op::Outcome, Refusal>>,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.shared.unary.lock().remove(&self.to.request);
    }
}

/// The connection number of unary calls.
const UNARY: u64 = 0;

impl Shared {
    pub(crate) fn new(
        me: Me,
        engine: SharedEngine,
        config: ClusterConfig,
        started: Mono,
        version: &'static str,
        held: Held,
    ) -> Self {
        Self {
            me,
            engine,
            inbox: Inbox::new(INBOX_BYTES_MAX),
            shards: RwLock::default(),
            config: RwLock::new(Arc::new(config)),
            config_source: Mutex::new("disk"),
            effective: Mutex::default(),
            fellows: Fellows::default(),
            changed: Notify::new(),
            resubscribe: Notify::new(),
            master_connected: AtomicBool::new(false),
            read_only: AtomicBool::new(false),
            switch: Switch::default(),
            metrics: Metrics::default(),
            fatal: watch::Sender::new(None),
            stopping: AtomicBool::new(false),
            started,
            version,
            connections: RwLock::default(),
            connections_made: AtomicU64::new(UNARY),
            unary: Mutex::default(),
            unary_made: AtomicU64::new(0),
            closing: watch::Sender::new(false),
            held,
        }
    }

    /// Streams of clients and fellows end now.
    pub(crate) fn close(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.closing.send_replace(true);
        // Whoever still waits learns that the node stops.
        self.unary.lock().clear();
    }

    /// Resolves when streams have to end.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut closing = self.closing.subscribe();
        async move {
            // The sender is in `self`: if it is gone, so is the node.
            let _ = closing.wait_for(|closing| *closing).await;
        }
    }

    /// Waits a while, or until streams have to end.
    pub(crate) async fn pause(&self, span: std::time::Duration) {
        // Either way the caller looks at what it waits for.
        let _ = tokio::time::timeout(span, self.closed()).await;
    }

    pub(crate) fn config(&self) -> Arc<ClusterConfig> {
        Arc::clone(&self.config.read())
    }

    pub(crate) fn lease_settings(&self) -> LeaseSettings {
        let settings = &self.config().settings;
        LeaseSettings {
            lease_ms: u32::try_from(settings.lease_ms).unwrap_or(u32::MAX),
            round_ms: u32::try_from(settings.lease_round_ms).unwrap_or(u32::MAX),
        }
    }

    pub(crate) fn shard(&self, shard: ShardId) -> Option<Arc<Shard>> {
        self.shards.read().get(&shard).cloned()
    }

    /// The chain that holds a key, as newest known: a replica's own config counts if it is newer.
    pub(crate) fn chain_of(&self, key: &[u8]) -> Option<ChainConfig> {
        let chain = self.config().chain_of(key).cloned()?;
        Some(self.newest(chain))
    }

    /// The newest config of a chain that this node knows.
    pub(crate) fn newest(&self, chain: ChainConfig) -> ChainConfig {
        let held = self
            .shard(chain.shard)
            .and_then(|s| s.replica.read().chain().cloned());
        held.filter(|held| held.epoch > chain.epoch)
            .unwrap_or(chain)
    }

    pub(crate) fn nodes_of(&self, chain: &ChainConfig) -> Vec<NodeInfo> {
        let config = self.config();
        chain
            .members
            .iter()
            .filter_map(|m| config.nodes.get(&m.node).cloned())
            .collect()
    }

    /// A new connection's queue of answers.
    pub(crate) fn connect(&self) -> (u64, Arc<ReplyQueue>) {
        let number = self.connections_made.fetch_add(1, Ordering::Relaxed) + 1;
        let queue = Arc::new(ReplyQueue::default());
        self.connections.write().insert(number, Arc::clone(&queue));
        (number, queue)
    }

    pub(crate) fn disconnect(&self, number: u64) {
        self.connections.write().remove(&number);
    }

    pub(crate) fn connection_count(&self) -> usize {
        self.connections.read().len()
    }

    /// Names a unary call; its answer comes through what is returned.
    pub(crate) fn expect_unary(&self) -> Expected<'_> {
        let request = self.unary_made.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, answer) = oneshot::channel();
        self.unary.lock().insert(request, sender);
        let to = ReplyTo {
            connection: UNARY,
            request,
        };
        Expected {
            shared: self,
            to,
            answer,
        }
    }

    /// Hands answers to their connections: one lock and one wake-up a connection.
    pub(crate) fn deliver(&self, replies: &mut Vec<Reply>) {
        if replies.is_empty() {
            return;
        }
        replies.sort_by_key(|r| r.to.connection);
        let connections = self.connections.read();
        let mut rest = replies.drain(..).peekable();
        while let Some(first) = rest.next() {
            let number = first.to.connection;
            if number == UNARY {
                if let Some(waiting) = self.unary.lock().remove(&first.to.request) {
                    // The caller may have gone; then nobody wants the answer.
                    let _ = waiting.send(first.result);
                }
                continue;
            }
            let Some(queue) = connections.get(&number) else {
                continue;
            };
            let mut held = queue.replies.lock();
            held.push(first);
            while let Some(next) = rest.next_if(|r| r.to.connection == number) {
                held.push(next);
            }
            drop(held);
            queue.owner.wake();
        }
    }

    /// A replica's refusal as clients see it, with the route that they lack.
    pub(crate) fn explain(&self, shard: ShardId, refusal: &Refusal) -> WireRefusal {
        let reason = match refusal {
            Refusal::NotInCharge { .. } | Refusal::OutOfRange { .. } => Reason::WrongChain,
            Refusal::NotReady { .. } | Refusal::ReadAgain => Reason::NotReady,
            Refusal::Overloaded { .. } => Reason::Overloaded,
            Refusal::UnknownSession => Reason::UnknownSession,
            Refusal::Superseded => Reason::Superseded,
            Refusal::SessionsExhausted { .. } | Refusal::SlotsExhausted { .. } => {
                Reason::SessionsExhausted
            }
            Refusal::DeadlinePassed => Reason::Deadline,
            Refusal::ReadOnly => Reason::ReadOnly,
            Refusal::Interrupted => Reason::Interrupted,
        };
        self.metrics.refused(reason.as_str());
        let said = WireRefusal::new(reason, refusal.to_string());
        match reason {
            Reason::WrongChain | Reason::NotReady => self.routed(shard, said),
            Reason::Overloaded | Reason::ReadOnly => {
                said.retry_after(std::time::Duration::from_millis(100))
            }
            _ => said,
        }
    }

    /// Adds the newest config of a shard's chain.
    pub(crate) fn routed(&self, shard: ShardId, refusal: WireRefusal) -> WireRefusal {
        let known = self.config().chains.get(&shard).cloned();
        match known {
            Some(chain) => {
                let chain = self.newest(chain);
                let nodes = self.nodes_of(&chain);
                refusal.route(chain, nodes)
            }
            None => refusal,
        }
    }

    /// The process must end; the reason was logged.
    pub(crate) fn die(&self, why: Fatal) {
        self.close();
        self.fatal.send_replace(Some(why));
    }
}
