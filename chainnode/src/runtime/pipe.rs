//! The SDK's pipe: frames of requests in, frames of answers out.
//!
//! Reads of a frame are answered on this connection's own task, with one lock a
//! shard before and one after; writes go to the driver as one batch a shard,
//! and their answers come back through one queue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use catena_proto::call::{Answer, Call, CallBody, CallId, Freshness};
use catena_proto::conversion::kv::cluster_id;
use catena_proto::conversion::pipe;
use catena_proto::errors::{Reason, Refusal};
use catena_proto::ids::{Seq, ShardId};
use catena_proto::op::{Command, Row};
use catena_proto::time::Mono;
use catena_proto::{limits, wire};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use super::clock;
use super::reads::Look;
use super::shared::{ReplyQueue, Shared, Work};
use crate::replica::{Prior, Refusal as ReplicaRefusal, ReplyTo, Request};

/// Requests of one connection that may be under way; more are refused early.
const UNDER_WAY_MAX: usize = 8192;
/// Frames of answers that wait for a client that does not read; then its requests are not read either.
const FRAMES_MAX: usize = 16;
/// A request without a deadline gets this one.
pub(crate) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
const HOLD_OFF: Duration = Duration::from_millis(50);

/// The `KvStream` service.
pub(crate) struct PipeService {
    pub(crate) shared: Arc<Shared>,
}

type Frames = mpsc::Sender<Result<wire::PipeResponse, Status>>;

#[tonic::async_trait]
impl wire::kv_stream_server::KvStream for PipeService {
    type PipeStream = ReceiverStream<Result<wire::PipeResponse, Status>>;

    async fn pipe(
        &self,
        request: tonic::Request<Streaming<wire::PipeRequest>>,
    ) -> Result<Response<Self::PipeStream>, Status> {
        let (frames, answers) = mpsc::channel(FRAMES_MAX);
        let shared = Arc::clone(&self.shared);
        let (number, queue) = shared.connect();
        let connection = Connection {
            shared,
            number,
            queue,
            frames,
            waiting: BTreeMap::new(),
            next: 0,
            answers: Vec::new(),
        };
        tokio::spawn(connection.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

/// A write that waits for its answer.
struct Waiting {
    call: CallId,
    shard: ShardId,
    /// Kept for writes that need the key's row, in case it was read too early.
    again: Option<Request>,
}

struct Connection {
    shared: Arc<Shared>,
    number: u64,
    queue: Arc<ReplyQueue>,
    frames: Frames,
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
    answers: Vec<(CallId, Answer)>,
}

impl Connection {
    async fn run(mut self, mut inbound: Streaming<wire::PipeRequest>) {
        let queue = Arc::clone(&self.queue);
        loop {
            let went_on = tokio::select! {
                biased;
                () = queue.filled.notified() => {
                    self.on_replies();
                    true
                }
                frame = inbound.message() => match frame {
                    Ok(Some(frame)) => match self.on_frame(frame) {
                        Ok(()) => true,
                        Err(refusal) => {
                            // The client learns why before the stream ends; if it is gone, nobody cares.
                            let _ = self.frames.send(Err(refusal.to_status())).await;
                            false
                        }
                    },
                    Ok(None) => self.drain().await,
                    Err(_) => false,
                },
                () = self.frames.closed() => false,
            };
            if !self.flush().await || !went_on {
                break;
            }
        }
        self.shared.disconnect(self.number);
    }

    /// The client sends no more: answers to what is under way still go out.
    async fn drain(&mut self) -> bool {
        let queue = Arc::clone(&self.queue);
        while !self.waiting.is_empty() {
            let patience = tokio::time::timeout(TIMEOUT_DEFAULT, queue.filled.notified());
            if patience.await.is_err() {
                return false;
            }
            self.on_replies();
            if !self.flush().await {
                return false;
            }
        }
        false
    }

    fn on_frame(&mut self, frame: wire::PipeRequest) -> Result<(), Refusal> {
        pipe::check_frame(&frame).map_err(|e| Refusal::new(Reason::Invalid, e.to_string()))?;
        check_cluster(&self.shared, &frame.cluster_id)?;
        let now = clock::now();
        let mut gets: Vec<(ShardId, CallId, Bytes, Mono)> = Vec::new();
        let mut writes: Vec<(ShardId, Vec<Request>)> = Vec::new();
        for request in frame.requests {
            let id = CallId::new(request.id);
            let call = match Call::try_from(request) {
                Ok(call) => call,
                Err(why) => {
                    self.refuse(id, Refusal::new(Reason::Invalid, why.to_string()));
                    continue;
                }
            };
            let deadline = now.plus(call.timeout.unwrap_or(TIMEOUT_DEFAULT));
            match call.body {
                CallBody::Get { key, stale: None } => gets.push((call.shard, id, key, deadline)),
                CallBody::Get {
                    key,
                    stale: Some(bound),
                } => {
                    let answer = self.stale(call.shard, &key, bound.lag_ms_max);
                    self.answers.push((id, answer));
                }
                CallBody::Command { request, command } => {
                    if self.waiting.len() >= UNDER_WAY_MAX {
                        let why =
                            format!("{UNDER_WAY_MAX} writes are under way on this connection");
                        self.refuse(
                            id,
                            Refusal::new(Reason::Overloaded, why).retry_after(HOLD_OFF),
                        );
                        continue;
                    }
                    let write = self.write(call.shard, id, request, command, deadline);
                    match write {
                        Ok(write) => match writes.iter_mut().find(|(s, _)| *s == call.shard) {
                            Some((_, batch)) => batch.push(write),
                            None => writes.push((call.shard, vec![write])),
                        },
                        Err(refusal) => self.refuse(id, refusal),
                    }
                }
            }
        }
        for (shard, requests) in writes {
            self.submit(shard, requests);
        }
        self.get_all(gets);
        Ok(())
    }

    fn refuse(&mut self, id: CallId, refusal: Refusal) {
        self.answers.push((id, Answer::Refused(refusal)));
    }

    fn stale(&self, shard: ShardId, key: &[u8], lag_ms_max: Option<u64>) -> Answer {
        let Some(held) = self.shared.shard(shard) else {
            return Answer::Refused(not_here(&self.shared, shard));
        };
        match self.shared.get_stale(&held, key) {
            Ok((_, fresh)) if lag_ms_max.is_some_and(|max| fresh.lag_ms > max) => {
                let why = format!("the replica is {} ms behind", fresh.lag_ms);
                Answer::Refused(Refusal::new(Reason::TooStale, why))
            }
            Ok((Some(row), freshness)) => Answer::Row { row, freshness },
            Ok((None, freshness)) => Answer::Absent { freshness },
            Err(refusal) => Answer::Refused(refusal),
        }
    }

    fn write(
        &mut self,
        shard: ShardId,
        call: CallId,
        id: Option<catena_proto::op::RequestId>,
        command: Command,
        deadline: Mono,
    ) -> Result<Request, Refusal> {
        let prior = prior(&self.shared, shard, &command)?;
        self.next += 1;
        let reply_to = ReplyTo {
            connection: self.number,
            request: self.next,
        };
        let request = Request {
            reply_to,
            id,
            command,
            prior,
            deadline,
        };
        let again = request.prior.is_some().then(|| request.clone());
        self.waiting
            .insert(self.next, Waiting { call, shard, again });
        Ok(request)
    }

    fn submit(&mut self, shard: ShardId, requests: Vec<Request>) {
        let weight = requests.iter().map(weight).sum();
        if let Err(full) = self
            .shared
            .inbox
            .offer(Work::Requests { shard, requests }, weight)
        {
            let Work::Requests { requests, .. } = full.0 else {
                return;
            };
            for request in requests {
                if let Some(waiting) = self.waiting.remove(&request.reply_to.request) {
                    let why = format!("node {} has too much under way", self.shared.me.node);
                    self.refuse(
                        waiting.call,
                        Refusal::new(Reason::Overloaded, why).retry_after(HOLD_OFF),
                    );
                }
            }
        }
    }

    /// All linearizable reads of a frame: one lock and one check a shard, before and after.
    fn get_all(&mut self, mut gets: Vec<(ShardId, CallId, Bytes, Mono)>) {
        gets.sort_by_key(|(shard, ..)| *shard);
        let mut rest = &gets[..];
        while let Some((id, ..)) = rest.first() {
            let id = *id;
            let count = rest.iter().take_while(|(s, ..)| *s == id).count();
            let (batch, others) = rest.split_at(count);
            rest = others;
            let Some(shard) = self.shared.shard(id) else {
                for (_, call, ..) in batch {
                    self.refuse(*call, not_here(&self.shared, id));
                }
                continue;
            };
            let (view, states) = {
                let replica = shard.replica.read();
                let out_of_range =
                    |key: &Bytes| !replica.chain().is_some_and(|c| c.range.contains(key));
                let states: Vec<_> = batch
                    .iter()
                    .map(|(_, _, key, _)| (!out_of_range(key)).then(|| replica.key_state(key)))
                    .collect();
                (replica.read_view(), states)
            };
            let first = self.answers.len();
            if let Err(refusal) = self.shared.admitted(&shard, &view) {
                for (_, call, ..) in batch {
                    self.refuse(*call, refusal.clone());
                }
                continue;
            }
            for ((_, call, key, deadline), state) in batch.iter().zip(states) {
                let Some(state) = state else {
                    self.refuse(*call, not_here(&self.shared, id));
                    continue;
                };
                match self.shared.look(key, state) {
                    Ok(Look::Found(row)) => self.answers.push((*call, read_answer(row))),
                    Ok(Look::Wait(_)) => self.get_later(&shard, *call, key.clone(), *deadline),
                    Err(refusal) => self.refuse(*call, refusal),
                }
            }
            if let Err(refusal) = self.shared.verified(&shard, &view) {
                for (_, answer) in &mut self.answers[first..] {
                    if matches!(answer, Answer::Row { .. } | Answer::Absent { .. }) {
                        *answer = Answer::Refused(refusal.clone());
                    }
                }
            }
            self.shared.metrics.reads.inc_by(count as u64);
        }
    }

    /// A read that waits for a commit does not hold up its neighbours.
    fn get_later(
        &self,
        shard: &Arc<super::shared::Shard>,
        call: CallId,
        key: Bytes,
        deadline: Mono,
    ) {
        let (shared, shard) = (Arc::clone(&self.shared), Arc::clone(shard));
        let frames = self.frames.clone();
        tokio::spawn(async move {
            let answer = match shared.get(&shard, &key, deadline).await {
                Ok(row) => read_answer(row),
                Err(refusal) => Answer::Refused(refusal),
            };
            let responses = vec![pipe::response(call, answer)];
            // A client that has gone wants no answer.
            let _ = frames.send(Ok(wire::PipeResponse { responses })).await;
        });
    }

    fn on_replies(&mut self) {
        for reply in self.queue.take() {
            let Some(mut waiting) = self.waiting.remove(&reply.to.request) else {
                continue;
            };
            let answer = match reply.result {
                Ok(outcome) => {
                    self.shared.metrics.writes.inc();
                    Answer::Outcome(outcome)
                }
                Err(ReplicaRefusal::ReadAgain) if waiting.again.is_some() => {
                    if let Some(mut request) = waiting.again.take() {
                        match prior(&self.shared, waiting.shard, &request.command) {
                            Ok(fresh) => {
                                request.prior = fresh;
                                let again = Some(request.clone());
                                let shard = waiting.shard;
                                self.waiting
                                    .insert(reply.to.request, Waiting { again, ..waiting });
                                self.submit(shard, vec![request]);
                            }
                            Err(refusal) => self.refuse(waiting.call, refusal),
                        }
                    }
                    continue;
                }
                Err(refusal) => Answer::Refused(self.shared.explain(waiting.shard, &refusal)),
            };
            self.answers.push((waiting.call, answer));
        }
    }

    /// Sends what is ready; false if the client has gone.
    async fn flush(&mut self) -> bool {
        let mut responses = Vec::new();
        let mut bytes = 0;
        for (call, mut answer) in std::mem::take(&mut self.answers) {
            let weight = answer_weight(&answer);
            if weight > limits::PIPE_FRAME_BYTES_MAX / 2 {
                let why = "the value exceeds a frame of the pipe";
                answer = Answer::Refused(Refusal::new(Reason::UseUnary, why));
            } else if bytes + weight > limits::PIPE_FRAME_BYTES_MAX / 2 {
                let full = std::mem::take(&mut responses);
                if self
                    .frames
                    .send(Ok(wire::PipeResponse { responses: full }))
                    .await
                    .is_err()
                {
                    return false;
                }
                bytes = 0;
            }
            bytes += weight.min(limits::PIPE_FRAME_BYTES_MAX / 2);
            responses.push(pipe::response(call, answer));
        }
        responses.is_empty()
            || self
                .frames
                .send(Ok(wire::PipeResponse { responses }))
                .await
                .is_ok()
    }
}

fn answer_weight(answer: &Answer) -> usize {
    match answer {
        Answer::Row { row, .. } => row.value.len() + 40,
        Answer::Refused(_) => 512,
        Answer::Absent { .. } | Answer::Outcome(_) => 32,
    }
}

fn read_answer(row: Option<Row>) -> Answer {
    let freshness = Freshness {
        applied: Seq::ZERO,
        lag_ms: 0,
    };
    match row {
        Some(row) => Answer::Row { row, freshness },
        None => Answer::Absent { freshness },
    }
}

fn weight(request: &Request) -> usize {
    use catena_proto::op::WriteOp;
    match &request.command {
        Command::Write { key, op } => {
            let value = match op {
                WriteOp::Put { value } | WriteOp::Cas { value, .. } => value.len(),
                WriteOp::Append { suffix } => suffix.len(),
                WriteOp::Delete | WriteOp::Incr { .. } => 0,
            };
            key.len() + value + 128
        }
        Command::OpenSession | Command::CloseSession(_) => 128,
    }
}

/// The key's row for commands that are decided by it, read here and not on the driver's thread.
pub(crate) fn prior(
    shared: &Shared,
    shard: ShardId,
    command: &Command,
) -> Result<Option<Prior>, Refusal> {
    let Command::Write { key, op } = command else {
        return Ok(None);
    };
    if !op.needs_prior() {
        return Ok(None);
    }
    let Some(held) = shared.shard(shard) else {
        return Ok(None);
    };
    // The position first, the row second: the row is at least as new as the position says.
    let as_of = held.replica.read().applied();
    let row = shared
        .engine
        .get(key)
        .map_err(|e| super::reads::engine_failed(&e))?;
    Ok(Some(Prior {
        as_of,
        row: row.map(|r| Row {
            value: r.value,
            version: r.version,
        }),
    }))
}

/// The shard is not on this node.
pub(crate) fn not_here(shared: &Shared, shard: ShardId) -> Refusal {
    let why = format!(
        "shard {shard}, or the key in it, is not on node {}",
        shared.me.node
    );
    shared.metrics.refused(Reason::WrongChain.as_str());
    shared.routed(shard, Refusal::new(Reason::WrongChain, why))
}

/// A foreign cluster's request is refused before it is looked at; clients may leave the id out.
pub(crate) fn check_cluster(shared: &Shared, id: &[u8]) -> Result<(), Refusal> {
    match cluster_id(id) {
        Ok(None) => Ok(()),
        Ok(Some(theirs)) if theirs == shared.me.cluster => Ok(()),
        Ok(Some(theirs)) => {
            let why = format!(
                "this is cluster {}, the request is for {theirs}",
                shared.me.cluster
            );
            Err(Refusal::new(Reason::ForeignCluster, why))
        }
        Err(why) => Err(Refusal::new(Reason::Invalid, why.to_string())),
    }
}
