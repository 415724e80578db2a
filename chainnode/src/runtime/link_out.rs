//! Streams to fellows: one a node, all shards together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use catena_proto::config::ClusterConfig;
use catena_proto::conversion::chain::LinkOpen;
use catena_proto::ids::NodeId;
use catena_proto::message::Message;
use catena_proto::{limits, wire};
use tonic::transport::{Channel, Endpoint};

use super::clock;
use super::fellows;
use super::link_queue::LinkQueue;
use super::shared::{Shared, Work};

/// The first pause before another try, and the longest: a fellow that comes back is met within it.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(320);
/// A stream that lived this long was not refused: a refusal comes with the first answer.
const STREAM_OF_USE: Duration = Duration::from_secs(1);

/// HTTP/2 windows: a link carries frames of a mebibyte and more at once.
pub(crate) const WINDOW_BYTES: u32 = 16 << 20;

struct Peer {
    addr: String,
    queue: Arc<LinkQueue>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.queue.end();
    }
}

/// The streams to all fellows; owned by the driver.
pub(crate) struct Links {
    shared: Arc<Shared>,
    tokio: tokio::runtime::Handle,
    peers: BTreeMap<NodeId, Peer>,
}

impl Links {
    pub(crate) const fn new(shared: Arc<Shared>, tokio: tokio::runtime::Handle) -> Self {
        Self {
            shared,
            tokio,
            peers: BTreeMap::new(),
        }
    }

    /// Learns where fellows are.
    pub(crate) fn route(&mut self, config: &ClusterConfig) {
        let me = self.shared.me.node;
        self.peers
            .retain(|node, peer| config.nodes.get(node).is_some_and(|n| n.addr == peer.addr));
        for info in config.nodes.values().filter(|n| n.node != me) {
            if self.peers.contains_key(&info.node) {
                continue;
            }
            let queue = Arc::new(LinkQueue::default());
            let peer = Peer {
                addr: info.addr.clone(),
                queue: Arc::clone(&queue),
            };
            self.peers.insert(info.node, peer);
            let outgoing = Outgoing {
                shared: Arc::clone(&self.shared),
                to: info.node,
                addr: info.addr.clone(),
                queue,
            };
            self.tokio.spawn(outgoing.run());
        }
    }

    /// Sends messages, or tells the replicas that they are lost.
    pub(crate) fn send(&self, to: NodeId, messages: Vec<Message>) {
        // A node whose address is not known is as good as one that does not answer.
        let Some(peer) = self.peers.get(&to) else {
            return;
        };
        if !peer.queue.push(messages) {
            tracing::warn!(%to, "a fellow does not keep up: its links begin anew");
            self.shared.inbox.push(Work::LinkLost { to });
        }
    }
}

struct Outgoing {
    shared: Arc<Shared>,
    to: NodeId,
    addr: String,
    queue: Arc<LinkQueue>,
}

impl Outgoing {
    /// Connects and sends, again and again, until the node stops or the fellow moves.
    async fn run(self) {
        let mut pause = RETRY_MIN;
        // Each reason is said once, and again after it was over.
        let mut said = String::new();
        while !self.shared.stopping.load(Ordering::SeqCst) && !self.queue.has_ended() {
            let connected = tokio::select! {
                connected = channel(&self.addr) => connected,
                () = self.shared.closed() => return,
            };
            let why = match connected {
                Ok(channel) => {
                    let began = clock::now();
                    let why = self.stream(channel).await;
                    // A fellow that connects and then refuses is no better than one that is away:
                    // only a stream that was of use starts the pauses over.
                    if clock::now().since(began) >= STREAM_OF_USE {
                        (pause, said) = (RETRY_MIN, String::new());
                    }
                    why
                }
                Err(error) => error.to_string(),
            };
            if said != why {
                tracing::info!(to = %self.to, addr = self.addr, why, "no stream to a fellow; trying again");
                said = why;
            }
            // Jitter, so that nodes that lost each other at once do not try at once.
            let jitter = clock::now().as_nanos() % 50;
            self.shared.pause(pause * (75 + jitter as u32) / 100).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Keeps the link of a fellow busy, so that silence means something.
    async fn beat(&self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(fellows::beat_every(&self.shared.config())).await;
            if self.shared.fellows.contains(self.to) {
                self.queue.beat();
            }
        }
    }

    /// One stream, until it breaks; why it did.
    async fn stream(&self, channel: Channel) -> String {
        let me = self.shared.me;
        let open = LinkOpen {
            cluster: me.cluster,
            node: me.node,
            disk: me.disk,
            incarnation: me.incarnation,
            to: self.to,
        };
        let (frames, lost) = self.queue.connect(open);
        let to = self.to;
        if lost {
            self.shared.inbox.push(Work::LinkLost { to });
        }
        let mut client = wire::chain_client::ChainClient::new(channel)
            .max_encoding_message_size(limits::LINK_FRAME_BYTES_MAX);
        // The answer never comes while the stream lives.
        let why = tokio::select! {
            ended = client.link(frames) => match ended {
                Ok(_) => "it was closed".to_owned(),
                Err(status) => status.message().to_owned(),
            },
            () = self.shared.closed() => return "the node stops".to_owned(),
            never = self.beat() => match never {},
        };
        self.queue.disconnect();
        if self.shared.fellows.lose(to) {
            self.shared.changed.notify_one();
        }
        self.shared.inbox.push(Work::LinkLost { to });
        why
    }
}

/// A connection to another node.
pub(crate) async fn channel(addr: &str) -> Result<Channel, tonic::transport::Error> {
    endpoint(addr)?.connect().await
}

/// How nodes reach each other.
pub(crate) fn endpoint(addr: &str) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(format!("http://{addr}"))?
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(1))
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES))
}
