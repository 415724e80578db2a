//! Streams from fellows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use catena_proto::conversion::chain::LinkOpen;
use catena_proto::errors::{Reason, Refusal};
use catena_proto::ids::NodeId;
use catena_proto::message::{Body, Message};
use catena_proto::wire;
use parking_lot::Mutex;
use tonic::{Request, Response, Status, Streaming};

use super::clock;
use super::link_queue::weight;
use super::shared::{Shared, Work};

/// How long a full inbox is waited for before it is looked at again.
const BACK_PRESSURE: Duration = Duration::from_millis(1);

/// The `Chain` service.
pub(crate) struct ChainService {
    shared: Arc<Shared>,
    /// How many streams each fellow has opened: only the newest one counts.
    streams: Mutex<BTreeMap<NodeId, u64>>,
}

#[tonic::async_trait]
impl wire::chain_server::Chain for ChainService {
    async fn link(
        &self,
        request: Request<Streaming<wire::LinkFrame>>,
    ) -> Result<Response<wire::LinkClosed>, Status> {
        let mut frames = request.into_inner();
        tokio::select! {
            ended = self.receive(&mut frames) => ended,
            () = self.shared.closed() => Ok(()),
        }?;
        Ok(Response::new(wire::LinkClosed {}))
    }
}

impl ChainService {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            streams: Mutex::new(BTreeMap::new()),
        }
    }

    /// Hands frames to the driver, until the stream ends or a newer one takes its place.
    async fn receive(&self, frames: &mut Streaming<wire::LinkFrame>) -> Result<(), Status> {
        let first = frames.message().await?.and_then(|f| f.open);
        let open = first.ok_or_else(|| invalid("the first frame must name its sender"))?;
        let open = LinkOpen::try_from(open).map_err(|e| invalid(&e.to_string()))?;
        if let Err(refusal) = self.check(&open) {
            tracing::warn!(from = %open.node, why = refusal.message, "a stream is refused");
            return Err(refusal.to_status());
        }
        let from = open.node;
        let stream = {
            let mut streams = self.streams.lock();
            let newest = streams.entry(from).or_default();
            *newest += 1;
            *newest
        };
        // However the stream ends, even if this call is dropped, the link is broken from then on.
        let _open = Open {
            service: self,
            from,
            stream,
        };
        self.hand_over(from, stream, frames).await
    }

    /// No newer stream of this fellow is there.
    fn is_newest(&self, from: NodeId, stream: u64) -> bool {
        self.streams.lock().get(&from) == Some(&stream)
    }

    async fn hand_over(
        &self,
        from: NodeId,
        stream: u64,
        frames: &mut Streaming<wire::LinkFrame>,
    ) -> Result<(), Status> {
        let link = self.shared.fellows.link(from);
        if link.hear(clock::now()) {
            self.shared.changed.notify_one();
        }
        while let Some(frame) = frames.message().await? {
            // What an older stream still holds must not fall between the frames of a newer one.
            if !self.is_newest(from, stream) {
                return Err(invalid("a newer stream has taken its place"));
            }
            if link.hear(clock::now()) {
                self.shared.changed.notify_one();
            }
            if frame.messages.is_empty() {
                // It only says that the fellow lives.
                continue;
            }
            let mut messages = frame
                .messages
                .into_iter()
                .map(Message::try_from)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| {
                    tracing::warn!(%from, why = %e, "a frame of a fellow is refused");
                    invalid(&e.to_string())
                })?;
            if !self.shared.switch.is_off() {
                // A test wants no newer config here, not even one that a fellow teaches (C3).
                messages.retain(|m| !matches!(m.body, Body::Refuse(_)));
            }
            let weight = messages.iter().map(weight).sum();
            let mut work = Work::Messages { from, messages };
            while let Err(full) = self.shared.inbox.offer(work, weight) {
                work = full.0;
                tokio::time::sleep(BACK_PRESSURE).await;
                // A full inbox here says nothing about the fellow.
                link.hear(clock::now());
            }
        }
        Ok(())
    }

    /// Refuses strangers before anything is looked at (FAULTS 22).
    fn check(&self, open: &LinkOpen) -> Result<(), Refusal> {
        let me = self.shared.me;
        if open.cluster != me.cluster {
            let why = format!(
                "this is cluster {}, the sender is of {}",
                me.cluster, open.cluster
            );
            return Err(Refusal::new(Reason::ForeignCluster, why));
        }
        let refused = |why: String| Err(Refusal::new(Reason::Invalid, why));
        if open.to != me.node {
            return refused(format!(
                "this is node {}, the stream is for node {}",
                me.node, open.to
            ));
        }
        let config = self.shared.config();
        match config.nodes.get(&open.node) {
            Some(info) if open.node != me.node => {
                if info.disk == open.disk {
                    return Ok(());
                }
                // C4, C5: it speaks for the disk that the cluster knows, or for none.
                refused(format!(
                    "node {} is known with disk {}, the sender has disk {}: it has to be registered anew",
                    open.node, info.disk, open.disk
                ))
            }
            _ => refused(format!("node {} is not known here", open.node)),
        }
    }
}

/// A stream that is open.
struct Open<'a> {
    service: &'a ChainService,
    from: NodeId,
    stream: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let shared = &self.service.shared;
        if self.service.is_newest(self.from, self.stream) && shared.fellows.lose(self.from) {
            shared.changed.notify_one();
        }
    }
}

fn invalid(why: &str) -> Status {
    Refusal::new(Reason::Invalid, why).to_status()
}
