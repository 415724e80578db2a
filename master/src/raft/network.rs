//! One master calls another: openraft's messages as JSON over gRPC.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use catena_proto::ids::{ClusterId, MasterId};
use catena_proto::wire;
use catena_proto::wire::raft_client::RaftClient;
use openraft::error::{
    InstallSnapshotError, NetworkError, PayloadTooLarge, RPCError, RaftError, RemoteError, Timeout,
    Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{AnyError, RPCTypes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use super::timing::UNREACHABLE_PAUSE;
use super::types::{MasterNode, MasterRaft, RAFT_MESSAGE_BYTES_MAX, SNAPSHOT_CHUNK_BYTES};

/// Room that the envelope of a message needs beside its payload.
const ENVELOPE_BYTES: usize = 64 << 10;

/// Makes the connections to other masters.
#[derive(Clone, Debug)]
pub struct Network {
    /// The cluster.
    pub cluster: ClusterId,
    /// Who calls.
    pub me: MasterId,
    /// Where masters are, as this one was told; what Raft says of them counts only for others.
    pub masters: Arc<BTreeMap<MasterId, MasterNode>>,
}

impl RaftNetworkFactory<MasterRaft> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: MasterId, node: &MasterNode) -> Peer {
        let node = self.masters.get(&target).unwrap_or(node);
        Peer {
            cluster: self.cluster,
            me: self.me,
            target,
            addr: node.addr.clone(),
            client: None,
        }
    }
}

/// The connection to one master: made when it is first needed.
#[derive(Debug)]
pub struct Peer {
    cluster: ClusterId,
    me: MasterId,
    target: MasterId,
    addr: String,
    client: Option<RaftClient<Channel>>,
}

/// Why a call had no answer.
enum Failure {
    Late(RPCTypes, std::time::Duration),
    TooLarge(usize),
    Refused(Status),
    Garbled(String),
    Address(String),
}

impl Peer {
    fn client(&mut self) -> Result<RaftClient<Channel>, Failure> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{}", self.addr))
            .map_err(|why| Failure::Address(format!("{}: {why}", self.addr)))?
            .tcp_nodelay(true);
        let client = RaftClient::new(endpoint.connect_lazy())
            .max_decoding_message_size(RAFT_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(RAFT_MESSAGE_BYTES_MAX);
        Ok(self.client.insert(client).clone())
    }

    async fn call<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        kind: RPCTypes,
        message: &Q,
        option: &RPCOption,
    ) -> Result<A, Failure> {
        let payload =
            serde_json::to_vec(message).map_err(|why| Failure::Garbled(why.to_string()))?;
        if payload.len() > RAFT_MESSAGE_BYTES_MAX - ENVELOPE_BYTES {
            return Err(Failure::TooLarge(payload.len()));
        }
        let request = Request::new(wire::RaftRequest {
            cluster_id: Bytes::copy_from_slice(&self.cluster.to_bytes()),
            from_master_id: self.me.get(),
            to_master_id: self.target.get(),
            payload: payload.into(),
        });
        let mut client = self.client()?;
        let within = option.hard_ttl();
        let called = async {
            match kind {
                RPCTypes::Vote => client.vote(request).await,
                RPCTypes::AppendEntries => client.append(request).await,
                RPCTypes::InstallSnapshot => client.install_snapshot(request).await,
            }
        };
        let answer = match tokio::time::timeout(within, called).await {
            Err(_) => return Err(Failure::Late(kind, within)),
            Ok(answer) => answer.map(Response::into_inner).map_err(Failure::Refused)?,
        };
        serde_json::from_slice(&answer.payload).map_err(|why| Failure::Garbled(why.to_string()))
    }

    fn failed<E: std::error::Error>(
        &self,
        failure: Failure,
        entries: usize,
    ) -> RPCError<MasterId, MasterNode, RaftError<MasterId, E>> {
        match failure {
            Failure::Late(action, timeout) => Timeout {
                action,
                id: self.me,
                target: self.target,
                timeout,
            }
            .into(),
            Failure::TooLarge(_) if entries > 1 => {
                PayloadTooLarge::new_entries_hint(entries as u64 / 2).into()
            }
            Failure::TooLarge(bytes) => {
                let why = format!("a message of {bytes} bytes to master {}", self.target);
                unreachable_because(why).into()
            }
            Failure::Refused(status) => {
                let why = format!("master {} at {}: {status}", self.target, self.addr);
                unreachable_because(why).into()
            }
            Failure::Address(why) => unreachable_because(why).into(),
            Failure::Garbled(why) => NetworkError::from(AnyError::error(why)).into(),
        }
    }
}

fn unreachable_because(why: String) -> Unreachable {
    Unreachable::from(AnyError::error(why))
}

impl RaftNetwork<MasterRaft> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<MasterRaft>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<MasterId>, RPCError<MasterId, MasterNode, RaftError<MasterId>>>
    {
        let called = self.call(RPCTypes::AppendEntries, &rpc, &option).await;
        called.map_err(|failure| self.failed(failure, rpc.entries.len()))
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<MasterRaft>,
        option: RPCOption,
    ) -> Result<
        InstallSnapshotResponse<MasterId>,
        RPCError<MasterId, MasterNode, RaftError<MasterId, InstallSnapshotError>>,
    > {
        debug_assert!(
            rpc.data.len() <= SNAPSHOT_CHUNK_BYTES,
            "pieces have the size that openraft was configured with"
        );
        let called = self.call(RPCTypes::InstallSnapshot, &rpc, &option).await;
        let answer: Result<_, InstallSnapshotError> =
            called.map_err(|failure| self.failed(failure, 0))?;
        answer.map_err(|why| RemoteError::new(self.target, RaftError::APIError(why)).into())
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<MasterId>,
        option: RPCOption,
    ) -> Result<VoteResponse<MasterId>, RPCError<MasterId, MasterNode, RaftError<MasterId>>> {
        let called = self.call(RPCTypes::Vote, &rpc, &option).await;
        called.map_err(|failure| self.failed(failure, 0))
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE))
    }
}
