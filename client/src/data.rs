//! Reads and writes of single keys: choose a node, try, and go on until there is an answer.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime: reads the clock once a try"
)]

use std::sync::Arc;

use bytes::Bytes;
use catena_proto::call::{
    Answer, Call, CallBody, CallId, GetAnswer, GetCall, StaleBound, WriteAnswer, WriteCall,
};
use catena_proto::conversion::kv::UnaryWrite;
use catena_proto::errors::{Reason, Refusal};
use catena_proto::ids::{NodeId, ShardId};
use catena_proto::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use catena_proto::op::{Command, Expect, Outcome, RequestId, WriteOp};
use catena_proto::wire;
use tokio::time::Instant;

use crate::answer::{Consistency, Value};
use crate::limits::{CLOSE_TRY, PIPE_REQUEST_BYTES_MAX, REQUEST_OVERHEAD_BYTES_MAX};
use crate::node::Node;
use crate::plan::retry::{Kind, Trouble};
use crate::session::Name;
use crate::shared::{Op, Shared, Step, Target};
use crate::topology::{Lane, Topology};
use crate::{Cause, Error};

impl Shared {
    /// Reads a key.
    pub(crate) async fn get(
        &self,
        key: Bytes,
        consistency: Consistency,
    ) -> Result<Option<Value>, Error> {
        check_key(&key)?;
        let stale = match consistency {
            Consistency::Linearizable => None,
            Consistency::Stale { lag_ms_max } => Some(StaleBound { lag_ms_max }),
        };
        let mut op = self.begin(Kind::Repeatable);
        let mut unary = false;
        loop {
            let lane = self.topology.lane(&key);
            let now = Instant::now();
            let from = self.topology.ground().options.read_from;
            let node = lane
                .as_deref()
                .and_then(|lane| lane.reader(from, op.tries(), self.millis(now)));
            let (Some(lane), Some(node)) = (&lane, node) else {
                self.lost_route(&mut op, &key, lane.as_deref()).await?;
                continue;
            };
            let until = op.try_until(now);
            let tried = if unary {
                self.get_unary(node, &key, stale, until).await
            } else {
                let body = CallBody::Get {
                    key: key.clone(),
                    stale,
                };
                let weight = key.len() + REQUEST_OVERHEAD_BYTES_MAX;
                self.pipe_call(lane, node, body, weight, until).await
            };
            let trouble = match tried {
                Ok(Answer::Row { row, freshness }) => {
                    Topology::welcome(lane, node.id());
                    return Ok(Some(Value {
                        value: own(row.value),
                        version: row.version,
                        shard: lane.shard,
                        freshness: stale.map(|_| freshness),
                    }));
                }
                Ok(Answer::Absent { .. }) => {
                    Topology::welcome(lane, node.id());
                    return Ok(None);
                }
                Ok(Answer::Refused(refusal)) => Trouble::Refused(Box::new(refusal)),
                Ok(Answer::Outcome(_)) => nonsense("a read was answered with a write's outcome"),
                Err(trouble) => trouble,
            };
            let step = self.again(&mut op, trouble, &key, lane, node.id()).await?;
            unary = step == Step::Unary;
        }
    }

    /// Changes a key.
    pub(crate) async fn write(
        &self,
        key: Bytes,
        write: WriteOp,
    ) -> Result<(ShardId, Outcome), Error> {
        check_key(&key)?;
        let bytes = check_write(&write)?;
        let weight = key.len() + bytes + REQUEST_OVERHEAD_BYTES_MAX;
        let kind = match self.topology.ground().options.sessions {
            true => Kind::Session,
            false => Kind::Once,
        };
        let mut op = self.begin(kind);
        let mut name: Option<Name> = None;
        let mut unary = weight > PIPE_REQUEST_BYTES_MAX;
        loop {
            let lane = self.topology.lane(&key);
            let node = lane.as_deref().and_then(Lane::head);
            let (Some(lane), Some(node)) = (&lane, node) else {
                self.lost_route(&mut op, &key, lane.as_deref()).await?;
                continue;
            };
            if kind == Kind::Session && name.is_none() {
                name = Some(self.name(&op, &key, lane).await?);
            }
            let request = name.as_ref().map(|name| name.request);
            let until = op.try_until(Instant::now());
            let tried = if unary {
                self.write_unary(node, &key, &write, request, until).await
            } else {
                let command = Command::Write {
                    key: key.clone(),
                    op: write.clone(),
                };
                let body = CallBody::Command { request, command };
                self.pipe_call(lane, node, body, weight, until).await
            };
            let trouble = match tried {
                Ok(Answer::Outcome(outcome)) => return Ok((lane.shard, outcome)),
                Ok(Answer::Refused(refusal)) => Trouble::Refused(Box::new(refusal)),
                Ok(Answer::Row { .. } | Answer::Absent { .. }) => {
                    nonsense("a write was answered with a row")
                }
                Err(trouble) => trouble,
            };
            let step = self.again(&mut op, trouble, &key, lane, node.id()).await?;
            unary |= step == Step::Unary;
            if step == Step::NewSession
                && let Some(name) = name.take()
            {
                lane.sessions.lost(name.request.session);
            }
        }
    }

    /// A name for a write, under a session that is opened if there is none.
    async fn name(&self, op: &Op, key: &Bytes, lane: &Arc<Lane>) -> Result<Name, Error> {
        let named = async {
            loop {
                if let Some(name) = lane.sessions.name().await {
                    return Ok(name);
                }
                Box::pin(self.open_session(op, key, lane)).await?;
            }
        };
        match tokio::time::timeout_at(op.deadline(), named).await {
            Ok(named) => named,
            Err(_) => Err(Error::Failed(Cause::Overloaded(format!(
                "every slot of the session in shard {} stayed in use",
                lane.shard
            )))),
        }
    }

    /// Opens the session of a shard; one caller does, the others wait for it.
    async fn open_session(&self, part_of: &Op, key: &Bytes, lane: &Arc<Lane>) -> Result<(), Error> {
        let sessions = &lane.sessions;
        let _one_at_a_time = sessions.opening.lock().await;
        if sessions.session().is_some() {
            return Ok(());
        }
        // An opening whose answer is lost leaves a session that ends by itself: it may be repeated.
        let mut op = self.begin_part(Kind::Repeatable, part_of);
        loop {
            let lane = self.topology.lane(key);
            let node = lane.as_deref().and_then(Lane::head);
            let (Some(lane), Some(node)) = (&lane, node) else {
                self.lost_route(&mut op, key, lane.as_deref()).await?;
                continue;
            };
            let command = Command::OpenSession;
            let body = CallBody::Command {
                request: None,
                command,
            };
            let until = op.try_until(Instant::now());
            let tried = self
                .pipe_call(lane, node, body, REQUEST_OVERHEAD_BYTES_MAX, until)
                .await;
            let trouble = match tried {
                Ok(Answer::Outcome(Outcome::SessionOpened { session })) => {
                    sessions.opened(session);
                    return Ok(());
                }
                Ok(Answer::Refused(refusal)) => Trouble::Refused(Box::new(refusal)),
                Ok(_) => nonsense("the opening of a session was answered with something else"),
                Err(trouble) => trouble,
            };
            self.again(&mut op, trouble, key, lane, node.id()).await?;
        }
    }

    /// Closes every session that is open, as far as its head can be reached in a moment.
    pub(crate) async fn close_sessions(&self) {
        let until = Instant::now() + CLOSE_TRY;
        let lanes = self.topology.lanes();
        let closing = lanes.iter().filter_map(|lane| {
            let command = Command::CloseSession(lane.sessions.session()?);
            let node = lane.head()?;
            let body = CallBody::Command {
                request: None,
                command,
            };
            Some(self.pipe_call(lane, node, body, REQUEST_OVERHEAD_BYTES_MAX, until))
        });
        // One that cannot be closed ends by itself.
        futures::future::join_all(closing).await;
    }

    /// One try on the node's pipe.
    async fn pipe_call(
        &self,
        lane: &Lane,
        node: &Node,
        body: CallBody,
        weight: usize,
        until: Instant,
    ) -> Result<Answer, Trouble> {
        let request = wire::Request::from(Call {
            id: CallId::new(0),
            shard: lane.shard,
            epoch: Some(lane.epoch),
            timeout: None,
            body,
        });
        let pipe = node.pipe(&self.topology.ground().runtime);
        let tried = pipe.call(request, weight, until).await;
        if let Err(Trouble::NotSent(_)) = tried {
            node.want();
        }
        tried
    }

    /// No node is known to ask: find out.
    async fn lost_route(&self, op: &mut Op, key: &Bytes, lane: Option<&Lane>) -> Result<(), Error> {
        let trouble = Trouble::NotSent("the chain that holds the key is not known yet".into());
        let node = None;
        let target = Target { key, lane, node };
        Box::pin(self.recover(op, trouble, target)).await.map(drop)
    }

    /// Apart and boxed, so that the usual way stays small.
    async fn again(
        &self,
        op: &mut Op,
        trouble: Trouble,
        key: &Bytes,
        lane: &Lane,
        node: NodeId,
    ) -> Result<Step, Error> {
        let target = Target {
            key,
            lane: Some(lane),
            node: Some(node),
        };
        Box::pin(self.recover(op, trouble, target)).await
    }

    /// One try of a read whose answer does not fit the pipe.
    async fn get_unary(
        &self,
        node: &Node,
        key: &Bytes,
        stale: Option<StaleBound>,
        until: Instant,
    ) -> Result<Answer, Trouble> {
        let request = wire::GetRequest::from(GetCall {
            header: self.header(),
            key: key.clone(),
            stale,
        });
        let mut kv = node.kv();
        let response = bulk(node, until, kv.get(timed(request, until))).await?;
        let answer = GetAnswer::try_from(response).map_err(garbled)?;
        let freshness = answer.freshness;
        Ok(match answer.row {
            Some(row) => Answer::Row { row, freshness },
            None => Answer::Absent { freshness },
        })
    }

    /// One try of a write that does not fit the pipe.
    async fn write_unary(
        &self,
        node: &Node,
        key: &Bytes,
        write: &WriteOp,
        request: Option<RequestId>,
        until: Instant,
    ) -> Result<Answer, Trouble> {
        let call = WriteCall {
            header: self.header(),
            request,
            key: key.clone(),
            op: write.clone(),
        };
        let mut kv = node.kv();
        let response = match UnaryWrite::from(call) {
            UnaryWrite::Put(w) => bulk(node, until, kv.put(timed(w, until))).await,
            UnaryWrite::Delete(w) => bulk(node, until, kv.delete(timed(w, until))).await,
            UnaryWrite::CompareAndSwap(w) => {
                bulk(node, until, kv.compare_and_swap(timed(w, until))).await
            }
            UnaryWrite::Increment(w) => bulk(node, until, kv.increment(timed(w, until))).await,
            UnaryWrite::Append(w) => bulk(node, until, kv.append(timed(w, until))).await,
        };
        let answer = WriteAnswer::try_from(response?).map_err(garbled)?;
        Ok(Answer::Outcome(answer.outcome))
    }
}

/// Waits for a unary call's turn and for its answer.
async fn bulk<T>(
    node: &Node,
    until: Instant,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, Trouble> {
    let waited = tokio::time::timeout_at(until, node.bulk_permits.acquire()).await;
    let Ok(Ok(_permit)) = waited else {
        return Err(Trouble::NotSent(
            "too many large requests are under way".into(),
        ));
    };
    match tokio::time::timeout_at(until, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(from_status(&status)),
        Err(_) => Err(Trouble::Silent),
    }
}

/// What a status of a unary call means.
pub(crate) fn from_status(status: &tonic::Status) -> Trouble {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return Trouble::NotSent(crate::pipe::root(error).into());
        }
        source = error.source();
    }
    Trouble::Refused(Box::new(Refusal::from_status(status)))
}

/// A unary request that tells the node how long its client waits.
pub(crate) fn timed<T>(message: T, until: Instant) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(until.saturating_duration_since(Instant::now()));
    request
}

fn garbled(error: catena_proto::conversion::ParseError) -> Trouble {
    nonsense(&error.to_string())
}

/// An answer that makes no sense: whether the request was executed is not known.
fn nonsense(what: &str) -> Trouble {
    let mut refusal = Refusal::new(Reason::Internal, what);
    refusal.indefinite = true;
    Trouble::Refused(Box::new(refusal))
}

/// A small value is copied out of its frame, which would otherwise live as long as the value does.
fn own(value: Bytes) -> Bytes {
    const COPIED_BYTES_MAX: usize = 4 << 10;
    if value.len() <= COPIED_BYTES_MAX {
        Bytes::copy_from_slice(&value)
    } else {
        value
    }
}

fn check_key(key: &Bytes) -> Result<(), Error> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Error::Failed(Cause::Invalid(format!(
            "the key has {} bytes; 1 to {KEY_BYTES_MAX} are allowed",
            key.len()
        ))));
    }
    Ok(())
}

/// The bytes of a write besides its key.
fn check_write(write: &WriteOp) -> Result<usize, Error> {
    let parts = match write {
        WriteOp::Put { value } => [value.len(), 0],
        WriteOp::Delete | WriteOp::Incr { .. } => [0, 0],
        WriteOp::Cas { expect, value } => match expect {
            Expect::Value(old) => [value.len(), old.len()],
            Expect::Version(_) | Expect::Absent => [value.len(), 0],
        },
        WriteOp::Append { suffix } => [suffix.len(), 0],
    };
    if let Some(bytes) = parts.iter().find(|bytes| **bytes > VALUE_BYTES_MAX) {
        return Err(Error::Failed(Cause::Invalid(format!(
            "the value has {bytes} bytes; at most {VALUE_BYTES_MAX} are allowed"
        ))));
    }
    Ok(parts.iter().sum())
}
