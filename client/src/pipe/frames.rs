//! The sending side of a pipe: a stream that the transport asks for frames when the socket is free.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use catena_proto::ids::ClusterId;
use catena_proto::wire;
use tokio::time::Instant;
use tokio_stream::Stream;

use super::Pipe;

/// Frames of one connection, for as long as it lives.
#[derive(Debug)]
pub(super) struct Frames {
    pipe: Arc<Pipe>,
    connection: u64,
    /// What the first frame says: which cluster is meant.
    opening: Option<ClusterId>,
    gathered: bool,
}

impl Frames {
    pub(super) fn new(pipe: Arc<Pipe>, cluster: ClusterId) -> Self {
        let connection = pipe.flight.lock().connection();
        Self {
            pipe,
            connection,
            opening: Some(cluster),
            gathered: false,
        }
    }
}

impl Stream for Frames {
    type Item = wire::PipeRequest;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(cluster) = this.opening.take() {
            // Sent at once and alone: a foreign cluster refuses before it is given any work.
            return Poll::Ready(Some(wire::PipeRequest {
                cluster_id: Bytes::copy_from_slice(&cluster.to_bytes()),
                requests: Vec::new(),
            }));
        }
        let mut flight = this.pipe.flight.lock();
        // Tasks that are ready to run get their turn first, once: their requests share the frame.
        if !this.gathered && flight.has_queued() {
            drop(flight);
            this.gathered = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.gathered = false;
        #[allow(
            clippy::disallowed_methods,
            reason = "runtime: deadlines travel as what is left of them"
        )]
        let now = Instant::now();
        let packed = flight.pack(this.connection, now, context.waker());
        packed.map(|requests| {
            Some(wire::PipeRequest {
                cluster_id: Bytes::new(),
                requests: requests?,
            })
        })
    }
}
