//! The `Admin` service of a master.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use catena_proto::redirect;
use catena_proto::wire;
use futures::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::changes::Asked;
use super::subscriptions::Heard;
use super::views::{self, LeaderView};
use super::{Inner, clock};
use crate::raft::ProposeError;
use crate::state::{Applied, Change, Command, Controller, Event};

/// The leader's loop answers within this time, or is not the leader any more.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Events that wait for one follower.
const EVENTS_MAX: usize = 256;
/// The names of the automatic loops.
pub(crate) const CONTROLLERS: &[&str] = &["membership"];

/// The `Admin` service.
pub(crate) struct AdminService {
    pub(crate) inner: Arc<Inner>,
    pub(crate) heard: mpsc::Sender<Heard>,
}

#[tonic::async_trait]
impl wire::admin_server::Admin for AdminService {
    async fn node_status(
        &self,
        _: Request<wire::NodeStatusRequest>,
    ) -> Result<Response<wire::NodeStatusResponse>, Status> {
        let master = self.inner.me;
        Err(Status::unimplemented(format!(
            "this is master {master}: a node answers that"
        )))
    }

    async fn master_status(
        &self,
        request: Request<wire::MasterStatusRequest>,
    ) -> Result<Response<wire::MasterStatusResponse>, Status> {
        let inner = &self.inner;
        inner.check_cluster_bytes(&request.get_ref().cluster_id)?;
        let (metrics, state) = (inner.raft.metrics(), inner.state());
        let view = self.view().await;
        let (leader_id, leader_addr) = metrics
            .leader
            .map_or((0, String::new()), |(id, addr)| (id.get(), addr));
        Ok(Response::new(wire::MasterStatusResponse {
            cluster_id: Bytes::copy_from_slice(&inner.cluster.to_bytes()),
            master_id: inner.me.get(),
            role: metrics.role.to_owned(),
            term: metrics.term,
            applied: metrics.applied,
            leader_id,
            leader_addr,
            masters: inner.raft.members(),
            config: state.config().map(|config| (&**config).into()),
            nodes: view.nodes,
            alarms: views::alarms(&state),
            paused_controllers: CONTROLLERS
                .iter()
                .filter(|name| state.is_paused(name))
                .map(|name| (*name).to_owned())
                .collect(),
            chains: view.chains,
            uptime_ms: u64::try_from(clock::now().since(inner.started).as_millis())
                .unwrap_or(u64::MAX),
        }))
    }

    async fn change_chain(
        &self,
        request: Request<wire::ChangeChainRequest>,
    ) -> Result<Response<wire::ChangeChainResponse>, Status> {
        self.inner
            .check_cluster_bytes(&request.get_ref().cluster_id)?;
        self.inner.check_leading()?;
        let (answer, answered) = oneshot::channel();
        let asked = Heard::Asked(Asked {
            request: request.into_inner(),
            answer,
        });
        let gone = || Status::unavailable("the master stops");
        self.heard.send(asked).await.map_err(|_| gone())?;
        match tokio::time::timeout(ANSWER_WITHIN, answered).await {
            Ok(Ok(answer)) => answer.map(Response::new),
            // The loop drops what was asked when another master took over.
            Ok(Err(_)) => Err(self.inner.not_leader()),
            Err(_) => Err(Status::deadline_exceeded(
                "no majority of the masters answered: the change may or may not be made; see `catena events`",
            )),
        }
    }

    type EventsStream = Pin<Box<dyn Stream<Item = Result<wire::ControlEvent, Status>> + Send>>;

    async fn events(
        &self,
        request: Request<wire::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let request = request.into_inner();
        self.inner.check_cluster_bytes(&request.cluster_id)?;
        self.inner.check_leading()?;
        let (out, events) = mpsc::channel(EVENTS_MAX);
        let mut states = self.inner.raft.states();
        let stopped = self.inner.stopped();
        tokio::spawn(async move {
            let mut after = request.after_no;
            let mut limit = match request.limit {
                0 => usize::MAX,
                limit => limit as usize,
            };
            tokio::pin!(stopped);
            loop {
                let state = Arc::clone(&states.borrow_and_update());
                let fresh: Vec<Event> = state
                    .events()
                    .rev()
                    .take_while(|event| event.no > after)
                    .take(limit)
                    .cloned()
                    .collect();
                limit = usize::MAX;
                for event in fresh.into_iter().rev() {
                    after = event.no;
                    if out.send(Ok(event_to_wire(event))).await.is_err() {
                        return;
                    }
                }
                if !request.follow {
                    return;
                }
                tokio::select! {
                    changed = states.changed() => if changed.is_err() { return },
                    () = out.closed() => return,
                    () = &mut stopped => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }

    async fn switch_controller(
        &self,
        request: Request<wire::SwitchControllerRequest>,
    ) -> Result<Response<wire::SwitchControllerResponse>, Status> {
        let request = request.into_inner();
        self.inner.check_cluster_bytes(&request.cluster_id)?;
        if !CONTROLLERS.contains(&request.name.as_str()) {
            return Err(redirect::no_such(format!(
                "there is no controller `{}`; there is: {}",
                request.name,
                CONTROLLERS.join(", ")
            )));
        }
        let command = Command {
            at: clock::wall(),
            by: Controller::Operator,
            cause: "an operator asked for it".to_owned(),
            change: Change::SwitchController {
                name: request.name,
                paused: request.paused,
            },
        };
        match self.inner.raft.propose(command).await {
            Ok(Applied::Refused(why)) => Err(redirect::change_refused(why.to_string())),
            Ok(_) => Ok(Response::new(wire::SwitchControllerResponse {})),
            Err(why) => Err(self.inner.unproposed(&why)),
        }
    }
}

impl AdminService {
    /// What the leader sees; nothing on a master that does not lead.
    async fn view(&self) -> LeaderView {
        if !self.inner.is_leading() {
            return LeaderView::default();
        }
        let (answer, answered) = oneshot::channel();
        if self.heard.send(Heard::Viewed(answer)).await.is_err() {
            return LeaderView::default();
        }
        let answered = tokio::time::timeout(ANSWER_WITHIN, answered).await;
        answered.ok().and_then(Result::ok).unwrap_or_default()
    }
}

impl Inner {
    /// What a client hears when a command was not proposed.
    pub(crate) fn unproposed(&self, why: &ProposeError) -> Status {
        match why {
            ProposeError::NotLeader { .. } => self.not_leader(),
            other => Status::unavailable(other.to_string()),
        }
    }
}

fn event_to_wire(event: Event) -> wire::ControlEvent {
    let controller = match event.by {
        Controller::Membership => "membership",
        Controller::Operator => "operator",
        Controller::System => "system",
    };
    wire::ControlEvent {
        no: event.no,
        at_ms: event.at.0,
        controller: controller.to_owned(),
        cause: event.cause,
        action: event.action,
        subject: event.subject,
        config_version: event.version.get(),
    }
}
