//! The fake's wire: `KvStream.Pipe`, the unary calls and the status of one node.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use catena_proto::call::*;
use catena_proto::conversion::kv::cluster_id;
use catena_proto::conversion::pipe;
use catena_proto::errors::{Reason, Refusal};
use catena_proto::ids::*;
use catena_proto::limits;
use catena_proto::op::*;
use catena_proto::wire;
use catena_proto::wire::admin_server::{Admin, AdminServer};
use catena_proto::wire::kv_server::{Kv, KvServer};
use catena_proto::wire::kv_stream_server::{KvStream, KvStreamServer};
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::world::{Reply, World};

#[derive(Clone)]
struct Node {
    world: Arc<Mutex<World>>,
    id: NodeId,
}

pub async fn serve(world: Arc<Mutex<World>>, id: NodeId, listener: std::net::TcpListener) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("inside the runtime");
    let node = Node { world, id };
    let kv = KvServer::new(node.clone())
        .max_decoding_message_size(limits::UNARY_BYTES_MAX)
        .max_encoding_message_size(limits::UNARY_BYTES_MAX);
    let stream = KvStreamServer::new(node.clone())
        .max_decoding_message_size(limits::PIPE_FRAME_BYTES_MAX + 1024);
    // `serve_with_incoming` leaves the sockets as they are: without this, Nagle and delayed
    // acknowledgements hold answers back for 40 ms.
    let incoming = TcpListenerStream::new(listener)
        .map(|socket| socket.and_then(|socket| socket.set_nodelay(true).map(|()| socket)));
    tonic::transport::Server::builder()
        .add_service(kv)
        .add_service(stream)
        .add_service(AdminServer::new(node))
        .serve_with_incoming(incoming)
        .await
        .expect("it is killed, it does not fail");
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Node {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no test panics with it")
    }

    fn check_cluster(&self, theirs: &[u8]) -> Result<(), Status> {
        let ours = self.world().cluster;
        match cluster_id(theirs).map_err(Refusal::from)? {
            Some(theirs) if theirs != ours => {
                let words = format!("this is cluster {ours}");
                Err(Refusal::new(Reason::ForeignCluster, words).to_status())
            }
            _ => Ok(()),
        }
    }

    /// All of a frame's answers; `None` breaks the connection.
    fn frame(&self, frame: wire::PipeRequest) -> Option<Vec<wire::Response>> {
        let mut world = self.world();
        let state = world.nodes.entry(self.id).or_default();
        state.frames += usize::from(!frame.requests.is_empty());
        state.frame_requests_max = state.frame_requests_max.max(frame.requests.len());
        let mut responses = Vec::with_capacity(frame.requests.len());
        for request in frame.requests {
            let id = CallId::new(request.id);
            let call = Call::try_from(request).expect("the SDK sends what can be read");
            match world.call(self.id, &call) {
                Reply::Answer(answer) => responses.push(pipe::response(id, answer)),
                Reply::Nothing => {}
                Reply::Break => return None,
            }
        }
        Some(responses)
    }

    fn unary_write(
        &self,
        header: Option<&wire::RequestHeader>,
        call: Result<WriteCall, catena_proto::conversion::ParseError>,
    ) -> Result<Response<wire::WriteResponse>, Status> {
        self.check_cluster(&header.map_or_else(Bytes::new, |h| h.cluster_id.clone()))?;
        let call = call.map_err(Refusal::from)?;
        let mut world = self.world();
        world.nodes.entry(self.id).or_default().unary += 1;
        let shard = ShardId::new(1);
        let command = Command::Write {
            key: call.key,
            op: call.op,
        };
        match world.command(call.request, &command) {
            Answer::Outcome(outcome) => Ok(Response::new(WriteAnswer { shard, outcome }.into())),
            Answer::Refused(refusal) => Err(refusal.to_status()),
            _ => Err(Status::internal("no outcome")),
        }
    }
}

#[tonic::async_trait]
impl KvStream for Node {
    type PipeStream = Boxed<wire::PipeResponse>;

    async fn pipe(
        &self,
        request: Request<Streaming<wire::PipeRequest>>,
    ) -> Result<Response<Self::PipeStream>, Status> {
        let mut frames = request.into_inner();
        let first = frames.message().await?.unwrap_or_default();
        self.check_cluster(&first.cluster_id)?;
        let node = self.clone();
        let answers = frames.filter_map(move |frame| {
            let answer = match frame {
                Ok(frame) => match node.frame(frame) {
                    Some(responses) if responses.is_empty() => None,
                    Some(responses) => Some(Ok(wire::PipeResponse { responses })),
                    None => Some(Err(Status::unavailable("broken on purpose"))),
                },
                Err(status) => Some(Err(status)),
            };
            std::future::ready(answer)
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

#[tonic::async_trait]
impl Kv for Node {
    type ScanStream = Boxed<wire::ScanResponse>;

    async fn get(
        &self,
        request: Request<wire::GetRequest>,
    ) -> Result<Response<wire::GetResponse>, Status> {
        let call = GetCall::try_from(request.into_inner()).map_err(Refusal::from)?;
        let mut world = self.world();
        world.nodes.entry(self.id).or_default().unary += 1;
        let answer = GetAnswer {
            shard: ShardId::new(1),
            row: world.data.get(&call.key).cloned(),
            freshness: Freshness::default(),
        };
        Ok(Response::new(answer.into()))
    }

    async fn put(
        &self,
        request: Request<wire::PutRequest>,
    ) -> Result<Response<wire::WriteResponse>, Status> {
        let message = request.into_inner();
        self.unary_write(message.header.clone().as_ref(), message.try_into())
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteRequest>,
    ) -> Result<Response<wire::WriteResponse>, Status> {
        let message = request.into_inner();
        self.unary_write(message.header.clone().as_ref(), message.try_into())
    }

    async fn compare_and_swap(
        &self,
        request: Request<wire::CompareAndSwapRequest>,
    ) -> Result<Response<wire::WriteResponse>, Status> {
        let message = request.into_inner();
        self.unary_write(message.header.clone().as_ref(), message.try_into())
    }

    async fn increment(
        &self,
        request: Request<wire::IncrementRequest>,
    ) -> Result<Response<wire::WriteResponse>, Status> {
        let message = request.into_inner();
        self.unary_write(message.header.clone().as_ref(), message.try_into())
    }

    async fn append(
        &self,
        request: Request<wire::AppendRequest>,
    ) -> Result<Response<wire::WriteResponse>, Status> {
        let message = request.into_inner();
        self.unary_write(message.header.clone().as_ref(), message.try_into())
    }

    async fn scan(
        &self,
        request: Request<wire::ScanRequest>,
    ) -> Result<Response<Self::ScanStream>, Status> {
        let call = ScanCall::try_from(request.into_inner()).map_err(Refusal::from)?;
        let world = self.world();
        let chain = (world.chains_of(self.id).iter())
            .find(|c| c.range.contains(&call.range.start))
            .ok_or_else(|| Status::internal("no chain"))?;
        let inside = chain.range.end.is_none()
            || (call.range.end.as_ref()).is_some_and(|end| Some(end) <= chain.range.end.as_ref());
        if !inside || chain.position(self.id).is_none() {
            return Err(world.wrong_chain(chain.clone()).to_status());
        }
        let shard = chain.shard;
        let mut rows: Vec<ScanRow> = (world.data.iter())
            .filter(|(key, _)| call.range.contains(key))
            .map(|(key, row)| ScanRow {
                key: key.clone(),
                row: row.clone(),
            })
            .collect();
        if call.reverse {
            rows.reverse();
        }
        rows.truncate(call.limit.map_or(usize::MAX, |l| l as usize));
        let (send, receive) = mpsc::channel(1);
        let page_rows = world.scan_page_rows;
        drop(world);
        let node = self.clone();
        tokio::spawn(async move {
            for page in rows.chunks(page_rows) {
                let rows = page.to_vec();
                if send
                    .send(Ok(ScanPage { shard, rows }.into()))
                    .await
                    .is_err()
                {
                    return;
                }
                let fault = node
                    .world()
                    .nodes
                    .entry(node.id)
                    .or_default()
                    .script
                    .pop_front();
                if fault.is_some() {
                    drop(
                        send.send(Err(Status::unavailable("broken on purpose")))
                            .await,
                    );
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }

    async fn open_session(
        &self,
        _: Request<wire::OpenSessionRequest>,
    ) -> Result<Response<wire::OpenSessionResponse>, Status> {
        Err(Status::unimplemented("by the pipe only"))
    }

    async fn close_session(
        &self,
        _: Request<wire::CloseSessionRequest>,
    ) -> Result<Response<wire::CloseSessionResponse>, Status> {
        Err(Status::unimplemented("by the pipe only"))
    }

    async fn routes(
        &self,
        request: Request<wire::RoutesRequest>,
    ) -> Result<Response<wire::RoutesResponse>, Status> {
        let call = RoutesCall::try_from(request.into_inner()).map_err(Refusal::from)?;
        if let Some(theirs) = call.header.cluster {
            self.check_cluster(&theirs.to_bytes())?;
        }
        let mut world = self.world();
        world.nodes.entry(self.id).or_default().route_questions += 1;
        // One chain a page: paging is always exercised.
        let chains = world.chains_of(self.id);
        let chain = (chains.iter())
            .find(|c| c.range.contains(&call.start))
            .cloned();
        let page = RoutesPage {
            cluster: world.cluster,
            next: chain.as_ref().and_then(|c| c.range.end.clone()),
            chains: chain.into_iter().collect(),
            nodes: world.infos.clone(),
        };
        Ok(Response::new((&page).into()))
    }
}

#[tonic::async_trait]
impl Admin for Node {
    async fn node_status(
        &self,
        _: Request<wire::NodeStatusRequest>,
    ) -> Result<Response<wire::NodeStatusResponse>, Status> {
        Ok(Response::new(wire::NodeStatusResponse {
            node_id: self.id.get(),
            ..wire::NodeStatusResponse::default()
        }))
    }

    async fn master_status(
        &self,
        _: tonic::Request<wire::MasterStatusRequest>,
    ) -> Result<Response<wire::MasterStatusResponse>, Status> {
        Err(Status::unimplemented("a node"))
    }

    async fn change_chain(
        &self,
        _: tonic::Request<wire::ChangeChainRequest>,
    ) -> Result<Response<wire::ChangeChainResponse>, Status> {
        Err(Status::unimplemented("a node"))
    }

    type EventsStream = futures::stream::Empty<Result<wire::ControlEvent, Status>>;

    async fn events(
        &self,
        _: tonic::Request<wire::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        Err(Status::unimplemented("a node"))
    }

    async fn switch_controller(
        &self,
        _: tonic::Request<wire::SwitchControllerRequest>,
    ) -> Result<Response<wire::SwitchControllerResponse>, Status> {
        Err(Status::unimplemented("a node"))
    }
}
