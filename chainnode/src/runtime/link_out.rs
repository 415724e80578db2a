//! Streams to fellows: one a node, all shards together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use catena_proto::config::ClusterConfig;
use catena_proto::conversion::chain::LinkOpen;
use catena_proto::ids::NodeId;
use catena_proto::message::{Body, Message};
use catena_proto::{limits, wire};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use super::shared::{Shared, Work};

/// Batches that wait for a stream; more means that the fellow does not keep up, and the link begins anew.
const BATCHES_MAX: usize = 4096;
/// Frames between the packer and the transport.
const FRAMES_MAX: usize = 4;
/// The first pause before another try, and the longest.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// HTTP/2 windows: a link carries frames of a mebibyte and more at once.
pub(crate) const WINDOW_BYTES: u32 = 16 << 20;

struct Peer {
    addr: String,
    batches: mpsc::Sender<Vec<Message>>,
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
        for info in config
            .nodes
            .values()
            .filter(|n| n.node != self.shared.me.node)
        {
            if self
                .peers
                .get(&info.node)
                .is_some_and(|p| p.addr == info.addr)
            {
                continue;
            }
            let (batches, taken) = mpsc::channel(BATCHES_MAX);
            let peer = Peer {
                addr: info.addr.clone(),
                batches,
            };
            // Replacing a peer drops its sender, which ends the task of the old address.
            self.peers.insert(info.node, peer);
            let stream = Outgoing {
                shared: Arc::clone(&self.shared),
                to: info.node,
                addr: info.addr.clone(),
                batches: taken,
            };
            self.tokio.spawn(stream.run());
        }
    }

    /// Sends messages, or tells the replicas that they are lost.
    pub(crate) fn send(&self, to: NodeId, messages: Vec<Message>) {
        let sent = self
            .peers
            .get(&to)
            .is_some_and(|p| p.batches.try_send(messages).is_ok());
        if !sent {
            self.shared.inbox.push(Work::LinkLost { to });
        }
    }
}

struct Outgoing {
    shared: Arc<Shared>,
    to: NodeId,
    addr: String,
    batches: mpsc::Receiver<Vec<Message>>,
}

impl Outgoing {
    /// Connects and sends for as long as the node lives.
    async fn run(mut self) {
        let mut pause = RETRY_MIN;
        let mut said = false;
        while !self.shared.stopping.load(Ordering::SeqCst) {
            let error = match channel(&self.addr).await {
                Ok(channel) => {
                    pause = RETRY_MIN;
                    said = false;
                    match self.stream(channel).await {
                        Ok(()) => return,
                        Err(error) => error,
                    }
                }
                Err(error) => error.to_string(),
            };
            if !said {
                tracing::info!(to = %self.to, addr = self.addr, error, "no stream to a fellow; trying again");
                said = true;
            }
            // What waited is lost, and the replicas begin their links anew.
            let mut lost = false;
            while self.batches.try_recv().is_ok() {
                lost = true;
            }
            if lost {
                self.shared.inbox.push(Work::LinkLost { to: self.to });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
            if self.batches.is_closed() && self.batches.is_empty() {
                return;
            }
        }
    }

    /// One stream, until it breaks; `Ok` when the driver has gone.
    async fn stream(&mut self, channel: Channel) -> Result<(), String> {
        let (frames, outgoing) = mpsc::channel(FRAMES_MAX);
        let me = self.shared.me;
        let open = LinkOpen {
            cluster: me.cluster,
            node: me.node,
            disk: me.disk,
            incarnation: me.incarnation,
            to: self.to,
        };
        let first = wire::LinkFrame {
            open: Some(open.into()),
            messages: Vec::new(),
        };
        frames.send(first).await.map_err(|e| e.to_string())?;
        let mut client = wire::chain_client::ChainClient::new(channel)
            .max_encoding_message_size(limits::LINK_FRAME_BYTES_MAX);
        let call = client.link(ReceiverStream::new(outgoing));
        tokio::pin!(call);
        let result = loop {
            tokio::select! {
                biased;
                ended = &mut call => {
                    break Err(ended.err().map_or_else(|| "it was closed".to_owned(), |s| s.message().to_owned()));
                }
                batch = self.batches.recv() => {
                    let Some(batch) = batch else { break Ok(()) };
                    if let Err(error) = self.pack(batch, &frames).await {
                        break Err(error);
                    }
                }
            }
        };
        if result.is_err() {
            self.shared.inbox.push(Work::LinkLost { to: self.to });
        }
        result
    }

    /// Packs what is queued into as few frames as fit.
    async fn pack(
        &mut self,
        batch: Vec<Message>,
        frames: &mpsc::Sender<wire::LinkFrame>,
    ) -> Result<(), String> {
        let mut frame = wire::LinkFrame::default();
        let mut bytes = 0;
        let mut next = Some(batch);
        while let Some(batch) = next.take() {
            for message in batch {
                let weight = weight(&message);
                if bytes > 0 && bytes + weight > limits::LINK_FRAME_BYTES_TARGET {
                    let full = std::mem::take(&mut frame);
                    frames
                        .send(full)
                        .await
                        .map_err(|_| "the stream broke".to_owned())?;
                    bytes = 0;
                }
                bytes += weight;
                frame.messages.push(message.into());
            }
            next = self.batches.try_recv().ok();
        }
        frames
            .send(frame)
            .await
            .map_err(|_| "the stream broke".to_owned())
    }
}

fn weight(message: &Message) -> usize {
    match &message.body {
        Body::Forward(forward) => {
            forward
                .groups
                .iter()
                .map(catena_proto::record::Group::weight)
                .sum::<usize>()
                + 64
        }
        Body::StatePage(page) => {
            page.rows
                .iter()
                .map(|r| r.key.len() + r.value.len() + 32)
                .sum::<usize>()
                + page
                    .sessions
                    .iter()
                    .map(|s| 32 + s.slots.len() * 64)
                    .sum::<usize>()
        }
        _ => 64,
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
