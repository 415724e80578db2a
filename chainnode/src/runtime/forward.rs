//! One hop to the node that is in charge, for clients that know only one address.

use std::collections::BTreeMap;
use std::sync::Arc;

use catena_proto::call::{
    CloseSessionCall, GetAnswer, GetCall, OpenSessionCall, ScanCall, WriteCall,
};
use catena_proto::conversion::kv::UnaryWrite;
use catena_proto::errors::{Reason, Refusal};
use catena_proto::ids::NodeId;
use catena_proto::time::Mono;
use catena_proto::{limits, wire};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::clock;
use super::link_out::endpoint;
use super::shared::Shared;

type Client = wire::kv_client::KvClient<Channel>;

/// Connections to other nodes for forwarded calls, made when first needed.
#[derive(Clone)]
pub(crate) struct Forwarder {
    shared: Arc<Shared>,
    channels: Arc<Mutex<BTreeMap<(NodeId, String), Channel>>>,
}

impl Forwarder {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            channels: Arc::default(),
        }
    }

    fn client(&self, node: NodeId) -> Result<Client, Status> {
        let info = self
            .shared
            .config()
            .nodes
            .get(&node)
            .cloned()
            .ok_or_else(|| {
                let why = format!("the address of node {node} is not known");
                Refusal::new(Reason::NotReady, why).to_status()
            })?;
        let mut channels = self.channels.lock();
        let key = (node, info.addr);
        let channel = match channels.get(&key) {
            Some(channel) => channel.clone(),
            None => {
                let lazy = endpoint(&key.1)
                    .map_err(|e| Refusal::new(Reason::NotReady, e.to_string()).to_status())?
                    .connect_lazy();
                channels.insert(key, lazy.clone());
                lazy
            }
        };
        Ok(Client::new(channel)
            .max_decoding_message_size(limits::UNARY_BYTES_MAX)
            .max_encoding_message_size(limits::UNARY_BYTES_MAX))
    }

    fn request<T>(message: T, deadline: Mono) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(clock::until(deadline));
        request
    }

    /// A write goes to the head; its lost answer is unknown, and it is never sent again from here.
    pub(crate) async fn write(
        &self,
        to: NodeId,
        mut call: WriteCall,
        deadline: Mono,
    ) -> Result<wire::WriteResponse, Status> {
        let mut client = self.client(to)?;
        call.header.forwarded = true;
        let answer = match UnaryWrite::from(call) {
            UnaryWrite::Put(m) => client.put(Self::request(m, deadline)).await,
            UnaryWrite::Delete(m) => client.delete(Self::request(m, deadline)).await,
            UnaryWrite::CompareAndSwap(m) => {
                client.compare_and_swap(Self::request(m, deadline)).await
            }
            UnaryWrite::Increment(m) => client.increment(Self::request(m, deadline)).await,
            UnaryWrite::Append(m) => client.append(Self::request(m, deadline)).await,
        };
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| Self::passed_on(to, status))
    }

    /// The owner's own answer is passed on; what the transport says is put in words.
    fn passed_on(to: NodeId, status: Status) -> Status {
        let refusal = Refusal::from_status(&status);
        let message = format!("node {to}: {}", refusal.message);
        Refusal { message, ..refusal }.to_status()
    }

    pub(crate) async fn get(
        &self,
        to: NodeId,
        mut call: GetCall,
        deadline: Mono,
    ) -> Result<GetAnswer, Status> {
        let mut client = self.client(to)?;
        call.header.forwarded = true;
        let answer = client.get(Self::request(call.into(), deadline)).await;
        let answer = answer
            .map_err(|status| Self::passed_on(to, status))?
            .into_inner();
        answer
            .try_into()
            .map_err(|e: catena_proto::conversion::ParseError| {
                Refusal::new(Reason::Internal, e.to_string()).to_status()
            })
    }

    /// Relays another node's pages; the number of rows, or `None` if the client has gone.
    pub(crate) async fn scan(
        &self,
        to: NodeId,
        mut call: ScanCall,
        deadline: Mono,
        pages: &mpsc::Sender<Result<wire::ScanResponse, Status>>,
    ) -> Result<Option<u64>, Status> {
        let mut client = self.client(to)?;
        call.header.forwarded = true;
        let mut stream = client
            .scan(Self::request(call.into(), deadline))
            .await?
            .into_inner();
        let mut sent = 0;
        while let Some(page) = stream.message().await? {
            sent += page.rows.len() as u64;
            if pages.send(Ok(page)).await.is_err() {
                return Ok(None);
            }
        }
        Ok(Some(sent))
    }

    pub(crate) async fn open_session(
        &self,
        to: NodeId,
        mut call: OpenSessionCall,
        deadline: Mono,
    ) -> Result<wire::OpenSessionResponse, Status> {
        let mut client = self.client(to)?;
        call.header.forwarded = true;
        Ok(client
            .open_session(Self::request(call.into(), deadline))
            .await?
            .into_inner())
    }

    pub(crate) async fn close_session(
        &self,
        to: NodeId,
        mut call: CloseSessionCall,
        deadline: Mono,
    ) -> Result<wire::CloseSessionResponse, Status> {
        let mut client = self.client(to)?;
        call.header.forwarded = true;
        Ok(client
            .close_session(Self::request(call.into(), deadline))
            .await?
            .into_inner())
    }
}
