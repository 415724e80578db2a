//! What one master asks of another, answered.
//!
//! Whom a message is meant for is checked before its payload is looked at: a
//! master of another cluster, or a mixed-up address, changes nothing here.

use std::io::Cursor;

use bytes::Bytes;
use catena_proto::errors::{Reason, Refusal};
use catena_proto::ids::{ClusterId, MasterId};
use catena_proto::wire;
use openraft::error::{InstallSnapshotError, SnapshotMismatch};
use openraft::raft::{InstallSnapshotRequest, InstallSnapshotResponse};
use openraft::{Raft, Snapshot, SnapshotSegmentId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tonic::{Request, Response, Status};

use super::snapshot;
use super::types::{MasterRaft, SNAPSHOT_BYTES_MAX, SnapshotMeta};

/// A snapshot of which pieces have come.
struct Receiving {
    meta: SnapshotMeta,
    bytes: Vec<u8>,
}

/// The `Raft` service of a master.
pub struct RaftService {
    cluster: ClusterId,
    me: MasterId,
    raft: Raft<MasterRaft>,
    /// At most one: a leader sends one at a time, and another leader's replaces it.
    receiving: Mutex<Option<Receiving>>,
}

impl RaftService {
    pub(super) fn new(cluster: ClusterId, me: MasterId, raft: Raft<MasterRaft>) -> Self {
        Self {
            cluster,
            me,
            raft,
            receiving: Mutex::new(None),
        }
    }

    /// The message, if it is meant for this master.
    fn open<Q: DeserializeOwned>(&self, request: Request<wire::RaftRequest>) -> Result<Q, Status> {
        let request = request.into_inner();
        let theirs = ClusterId::from_slice(&request.cluster_id).ok();
        if theirs != Some(self.cluster) {
            let why = format!(
                "this is master {} of cluster {}: check `masters` of master {}",
                self.me, self.cluster, request.from_master_id
            );
            return Err(Refusal::new(Reason::ForeignCluster, why).to_status());
        }
        if request.to_master_id != self.me.get() {
            let why = format!(
                "this is master {}, not {}: check the order of `masters`, of master {} and here",
                self.me, request.to_master_id, request.from_master_id
            );
            return Err(invalid(why));
        }
        serde_json::from_slice(&request.payload)
            .map_err(|why| invalid(format!("the message cannot be read: {why}")))
    }

    /// Takes in one piece; the whole after the last one.
    async fn receive(
        &self,
        piece: InstallSnapshotRequest<MasterRaft>,
    ) -> Result<Result<Option<Receiving>, InstallSnapshotError>, Status> {
        let mut receiving = self.receiving.lock().await;
        if piece.offset == 0 {
            *receiving = Some(Receiving {
                meta: piece.meta.clone(),
                bytes: Vec::new(),
            });
        }
        let expected = receiving
            .as_ref()
            .filter(|held| held.meta == piece.meta)
            .map(|held| held.bytes.len() as u64);
        let Some(held) = receiving
            .as_mut()
            .filter(|_| expected == Some(piece.offset))
        else {
            // Its sender begins anew.
            let segment = |offset| SnapshotSegmentId {
                id: piece.meta.snapshot_id.clone(),
                offset,
            };
            let mismatch = SnapshotMismatch {
                expect: segment(expected.unwrap_or(0)),
                got: segment(piece.offset),
            };
            return Ok(Err(mismatch.into()));
        };
        if held.bytes.len() + piece.data.len() > SNAPSHOT_BYTES_MAX {
            *receiving = None;
            return Err(invalid(format!(
                "the snapshot exceeds {SNAPSHOT_BYTES_MAX} bytes"
            )));
        }
        held.bytes.extend_from_slice(&piece.data);
        Ok(Ok(if piece.done { receiving.take() } else { None }))
    }
}

fn invalid(why: String) -> Status {
    Refusal::new(Reason::Invalid, why).to_status()
}

fn answer<A: Serialize>(answer: &A) -> Result<Response<wire::RaftReply>, Status> {
    let payload = serde_json::to_vec(answer)
        .map_err(|why| Status::internal(format!("the answer cannot be written: {why}")))?;
    Ok(Response::new(wire::RaftReply {
        payload: Bytes::from(payload),
    }))
}

/// Raft ended: whoever asked comes again, to the process that follows.
fn ended(why: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("this master stops: {why}"))
}

#[tonic::async_trait]
impl wire::raft_server::Raft for RaftService {
    async fn append(
        &self,
        request: Request<wire::RaftRequest>,
    ) -> Result<Response<wire::RaftReply>, Status> {
        let message = self.open(request)?;
        answer(&self.raft.append_entries(message).await.map_err(ended)?)
    }

    async fn vote(
        &self,
        request: Request<wire::RaftRequest>,
    ) -> Result<Response<wire::RaftReply>, Status> {
        let message = self.open(request)?;
        answer(&self.raft.vote(message).await.map_err(ended)?)
    }

    async fn install_snapshot(
        &self,
        request: Request<wire::RaftRequest>,
    ) -> Result<Response<wire::RaftReply>, Status> {
        type Answer = Result<InstallSnapshotResponse<MasterId>, InstallSnapshotError>;
        let piece: InstallSnapshotRequest<MasterRaft> = self.open(request)?;
        let vote = piece.vote;
        let mine = self
            .raft
            .with_raft_state(|state| *state.vote_ref())
            .await
            .map_err(ended)?;
        if vote < mine {
            // A leader that was replaced: it learns so from the vote.
            return answer(&Answer::Ok(InstallSnapshotResponse { vote: mine }));
        }
        let whole = match self.receive(piece).await? {
            Err(mismatch) => return answer(&Answer::Err(mismatch)),
            Ok(None) => return answer(&Answer::Ok(InstallSnapshotResponse { vote: mine })),
            Ok(Some(whole)) => whole,
        };
        // Raft ends on a snapshot that it cannot store, so that it never sees one that is not whole.
        let (cluster, bytes) = (self.cluster, whole.bytes);
        let judged = tokio::task::spawn_blocking(move || {
            snapshot::judge(cluster, &bytes).map(|judged| (judged.meta, bytes))
        })
        .await
        .map_err(ended)?;
        let bytes = match judged {
            Ok((meta, bytes)) if meta == whole.meta => bytes,
            Ok((meta, _)) => {
                return Err(invalid(format!(
                    "the snapshot stands for {meta}, not for {}",
                    whole.meta
                )));
            }
            Err(why) => return Err(invalid(why.to_string())),
        };
        let snapshot = Snapshot {
            meta: whole.meta,
            snapshot: Box::new(Cursor::new(bytes)),
        };
        let installed = self
            .raft
            .install_full_snapshot(vote, snapshot)
            .await
            .map_err(ended)?;
        answer(&Answer::Ok(installed.into()))
    }
}
