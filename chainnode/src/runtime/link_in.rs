//! Streams from fellows.

use std::sync::Arc;
use std::time::Duration;

use catena_proto::conversion::chain::LinkOpen;
use catena_proto::message::Message;
use catena_proto::{errors::Reason, errors::Refusal, wire};
use tonic::{Request, Response, Status, Streaming};

use super::shared::{Shared, Work};

/// How long a full inbox is waited for before it is looked at again.
const BACK_PRESSURE: Duration = Duration::from_millis(1);

/// The `Chain` service.
pub(crate) struct ChainService {
    pub(crate) shared: Arc<Shared>,
}

#[tonic::async_trait]
impl wire::chain_server::Chain for ChainService {
    async fn link(
        &self,
        request: Request<Streaming<wire::LinkFrame>>,
    ) -> Result<Response<wire::LinkClosed>, Status> {
        let mut frames = request.into_inner();
        let first = frames.message().await?.and_then(|f| f.open);
        let open = first.ok_or_else(|| invalid("the first frame must name its sender"))?;
        let open = LinkOpen::try_from(open).map_err(|e| invalid(&e.to_string()))?;
        self.check(&open)?;
        while let Some(frame) = frames.message().await? {
            let messages = frame
                .messages
                .into_iter()
                .map(Message::try_from)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| {
                    tracing::warn!(from = %open.node, why = %e, "a frame of a fellow is refused");
                    invalid(&e.to_string())
                })?;
            let weight = messages.len() * 256;
            let mut work = Work::Messages {
                from: open.node,
                messages,
            };
            while let Err(full) = self.shared.inbox.offer(work, weight) {
                work = full.0;
                tokio::time::sleep(BACK_PRESSURE).await;
            }
        }
        Ok(Response::new(wire::LinkClosed {}))
    }
}

impl ChainService {
    /// Refuses strangers before anything is looked at (FAULTS 22).
    fn check(&self, open: &LinkOpen) -> Result<(), Status> {
        let me = self.shared.me;
        if open.cluster != me.cluster {
            let why = format!(
                "this is cluster {}, the sender is of {}",
                me.cluster, open.cluster
            );
            tracing::warn!(from = %open.node, why, "a stranger is refused");
            return Err(Refusal::new(Reason::ForeignCluster, why).to_status());
        }
        if open.to != me.node {
            return Err(invalid(&format!(
                "this is node {}, the stream is for node {}",
                me.node, open.to
            )));
        }
        let config = self.shared.config();
        if open.node == me.node || !config.nodes.contains_key(&open.node) {
            return Err(invalid(&format!("node {} is not known here", open.node)));
        }
        Ok(())
    }
}

fn invalid(why: &str) -> Status {
    Refusal::new(Reason::Invalid, why).to_status()
}
