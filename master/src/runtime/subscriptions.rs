//! The `Control` service: nodes' subscriptions, and whole configs for those that find no snapshot store.
//!
//! A subscription's frames go to the leader's loop, which answers on the
//! stream's own small queue: a node that does not read loses its subscription,
//! never the loop's time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use catena_proto::conversion::ParseError;
use catena_proto::errors::{Reason, Refusal};
use catena_proto::ids::{ClusterId, NodeId};
use catena_proto::report::{NodeFrame, NodeOpen, PushOutcome, Report};
use catena_proto::{limits, wire};
use futures::Stream;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Inner;

/// Frames that wait for one node: a push, and a sign of life behind it.
const FRAMES_MAX: usize = 4;
/// The first frame comes within this time.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
/// Subscriptions at once: every node, and its next start before the last one is found dead.
const SUBSCRIPTIONS_MAX: usize = 2 * limits::NODES_MAX;
/// Bytes of whole configs that go out a second at most, and at once (DESIGN §4.2): what a master's network carries easily
/// beside its own traffic. A node boots from the snapshot store as a rule.
const FETCH_BYTES_PER_SECOND: u32 = 16 << 20;
/// Who comes too much comes again after this long.
const FETCH_AGAIN: Duration = Duration::from_secs(1);

/// One subscription; a node that subscribes again has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SubscriptionId(u64);

/// Where a subscription's frames go.
pub(crate) type Outgoing = mpsc::Sender<Result<wire::MasterFrame, Status>>;

/// What the leader's loop hears.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A node subscribed.
    Opened(SubscriptionId, NodeOpen, Outgoing),
    /// It reported.
    Report(SubscriptionId, NodeId, Report),
    /// It answered a push.
    Outcome(SubscriptionId, NodeId, PushOutcome),
    /// The stream is over.
    Closed(SubscriptionId, NodeId),
    /// An operator wants something.
    Asked(super::changes::Asked),
    /// Somebody wants to see what the leader sees.
    Viewed(oneshot::Sender<super::views::LeaderView>),
}

/// The `Control` service of a master.
pub(crate) struct ControlService {
    inner: Arc<Inner>,
    heard: mpsc::Sender<Heard>,
    count: AtomicU64,
    open: Arc<tokio::sync::Semaphore>,
    fetches: DefaultDirectRateLimiter,
}

impl ControlService {
    pub(crate) fn new(inner: Arc<Inner>, heard: mpsc::Sender<Heard>) -> Self {
        let per_second =
            std::num::NonZeroU32::new(FETCH_BYTES_PER_SECOND).unwrap_or(std::num::NonZeroU32::MIN);
        let largest = u32::try_from(limits::CONFIG_BYTES_MAX).unwrap_or(u32::MAX);
        // One config of any size must fit the bucket.
        let burst = std::num::NonZeroU32::new(largest).unwrap_or(std::num::NonZeroU32::MIN);
        Self {
            inner,
            heard,
            count: AtomicU64::new(0),
            open: Arc::new(tokio::sync::Semaphore::new(SUBSCRIPTIONS_MAX)),
            fetches: RateLimiter::direct(Quota::per_second(per_second).allow_burst(burst)),
        }
    }
}

#[tonic::async_trait]
impl wire::control_server::Control for ControlService {
    type SubscribeStream =
        Pin<Box<dyn Stream<Item = Result<wire::MasterFrame, Status>> + Send + 'static>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<wire::NodeFrame>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        self.inner.check_leading()?;
        let mut cut = self.inner.cut_nodes.subscribe();
        if *cut.borrow_and_update() {
            return Err(Status::unavailable("a test cuts nodes off this master"));
        }
        let permit = Arc::clone(&self.open).try_acquire_owned().map_err(|_| {
            let why = format!("{SUBSCRIPTIONS_MAX} nodes are subscribed: come again later");
            Refusal::new(Reason::Overloaded, why)
                .retry_after(FETCH_AGAIN)
                .to_status()
        })?;
        let mut frames = request.into_inner();
        let first = tokio::time::timeout(OPEN_WITHIN, frames.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no first frame came"))??;
        let first = first.ok_or_else(|| Status::invalid_argument("the stream is empty"))?;
        let NodeFrame::Open(open) = parse(first)? else {
            let why = "the first frame of a subscription must be `open`";
            return Err(Status::invalid_argument(why));
        };
        self.inner.check_cluster(open.cluster)?;
        let node = open.node;
        let id = SubscriptionId(self.count.fetch_add(1, Ordering::Relaxed));
        let (out, incoming) = mpsc::channel(FRAMES_MAX);
        // The leader's loop alone holds the stream open: when it forgets the node, the stream ends.
        let weak = out.downgrade();
        self.hear(Heard::Opened(id, open, out)).await?;
        let heard = self.heard.clone();
        let stopped = self.inner.stopped();
        tokio::spawn(async move {
            let why = tokio::select! {
                why = listen(&mut frames, id, node, &heard) => why,
                () = stopped => Status::unavailable("the master stops"),
                _ = cut.wait_for(|cut| *cut) => Status::unavailable("a test cuts nodes off this master"),
            };
            tracing::debug!(%node, %why, "a subscription is over");
            // A full queue is no reason to forget that it is over.
            let _ = heard.send(Heard::Closed(id, node)).await;
            if let Some(out) = weak.upgrade() {
                let _ = out.try_send(Err(why));
            }
            drop(permit);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(incoming))))
    }

    async fn fetch_config(
        &self,
        request: Request<wire::FetchConfigRequest>,
    ) -> Result<Response<wire::FetchConfigResponse>, Status> {
        self.inner
            .check_cluster_bytes(&request.get_ref().cluster_id)?;
        let state = self.inner.state();
        let Some(config) = state.config() else {
            return Err(Status::unavailable(
                "the cluster is not created yet: come again",
            ));
        };
        let answer = wire::FetchConfigResponse {
            config: Some((&**config).into()),
        };
        let bytes = u32::try_from(answer.encoded_len().max(1)).unwrap_or(u32::MAX);
        let weight = std::num::NonZeroU32::new(bytes).unwrap_or(std::num::NonZeroU32::MIN);
        match self.fetches.check_n(weight) {
            Ok(Ok(())) => Ok(Response::new(answer)),
            _ => {
                let why =
                    "too many nodes fetch whole configs: come again, or mend the snapshot store";
                Err(Refusal::new(Reason::Overloaded, why)
                    .retry_after(FETCH_AGAIN)
                    .to_status())
            }
        }
    }
}

impl ControlService {
    async fn hear(&self, heard: Heard) -> Result<(), Status> {
        self.heard
            .send(heard)
            .await
            .map_err(|_| Status::unavailable("the master stops"))
    }
}

fn parse(frame: wire::NodeFrame) -> Result<NodeFrame, Status> {
    NodeFrame::try_from(frame).map_err(|why: ParseError| Refusal::from(why).to_status())
}

/// Hands frames on until the stream ends; why it did.
async fn listen(
    frames: &mut Streaming<wire::NodeFrame>,
    id: SubscriptionId,
    node: NodeId,
    heard: &mpsc::Sender<Heard>,
) -> Status {
    loop {
        let frame = match frames.message().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Status::ok("it was closed"),
            Err(why) => return why,
        };
        let heard_now = match parse(frame) {
            Ok(NodeFrame::Report(report)) => Heard::Report(id, node, report),
            Ok(NodeFrame::Outcome(outcome)) => Heard::Outcome(id, node, outcome),
            Ok(NodeFrame::Open(_)) => {
                return Status::invalid_argument("`open` comes once, as the first frame");
            }
            Err(why) => {
                tracing::warn!(%node, %why, "a frame of a node makes no sense");
                return why;
            }
        };
        if heard.send(heard_now).await.is_err() {
            return Status::unavailable("the master stops");
        }
    }
}

impl Inner {
    /// A request of another cluster is refused before it is looked at.
    pub(crate) fn check_cluster(&self, theirs: ClusterId) -> Result<(), Status> {
        if theirs == self.cluster {
            return Ok(());
        }
        let why = format!(
            "this is cluster {}, the request is for {theirs}",
            self.cluster
        );
        Err(Refusal::new(Reason::ForeignCluster, why).to_status())
    }

    /// The same where the id may be left out.
    pub(crate) fn check_cluster_bytes(&self, theirs: &[u8]) -> Result<(), Status> {
        if theirs.is_empty() {
            return Ok(());
        }
        let theirs = ClusterId::from_slice(theirs)
            .map_err(|why| Refusal::new(Reason::Invalid, why.to_string()).to_status())?;
        self.check_cluster(theirs)
    }
}
