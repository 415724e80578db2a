//! The SDK's pipe: frames of requests in, frames of answers out.
//!
//! One task a connection does all of it, as the transport asks for the next
//! frame: it takes the replies that are there, reads what the client sent,
//! answers the reads with one lock a shard before and one after, hands writes to
//! the driver as one batch a shard, and packs whatever is ready. A client that
//! does not read is thus not read from either.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use catena_proto::call::{Answer, Call, CallBody, CallId, Freshness};
use catena_proto::conversion::kv::cluster_id;
use catena_proto::conversion::pipe;
use catena_proto::errors::{Reason, Refusal};
use catena_proto::ids::{Seq, ShardId};
use catena_proto::op::{Command, RequestId, Row};
use catena_proto::time::Mono;
use catena_proto::{limits, wire};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use tonic::{Response, Status, Streaming};

use super::clock;
use super::prior::{prior, weight};
use super::reads::Look;
use super::shared::{ReplyQueue, Shared, Work};
use super::waiting::{Waiting, WaitingList};
use crate::replica::{Refusal as ReplicaRefusal, Reply, ReplyTo, Request};

/// Requests of one connection that may be under way; more are refused early.
const UNDER_WAY_MAX: usize = 8192;
/// Frames that are read before what is ready is sent.
const FRAMES_AT_ONCE: usize = 4;
/// A request without a deadline gets this one.
pub(crate) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// A deadline further away than this is cut.
pub(crate) const TIMEOUT_MAX: Duration = Duration::from_secs(600);
const HOLD_OFF: Duration = Duration::from_millis(50);

/// The `KvStream` service.
pub(crate) struct PipeService {
    pub(crate) shared: Arc<Shared>,
}

#[tonic::async_trait]
impl wire::kv_stream_server::KvStream for PipeService {
    type PipeStream = Connection;

    async fn pipe(
        &self,
        request: tonic::Request<Streaming<wire::PipeRequest>>,
    ) -> Result<Response<Connection>, Status> {
        let shared = Arc::clone(&self.shared);
        let (number, queue) = shared.connect();
        Ok(Response::new(Connection {
            closed: shared.closed().boxed(),
            shared,
            number,
            queue,
            inbound: Some(request.into_inner()),
            waiting: WaitingList::default(),
            late: FuturesUnordered::new(),
            replies: Vec::new(),
            answers: VecDeque::new(),
            ended: None,
        }))
    }
}

/// A linearizable read of a frame.
struct Get {
    shard: ShardId,
    call: CallId,
    key: Bytes,
    deadline: Mono,
}

/// One pipe, as the stream of its answers.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    number: u64,
    queue: Arc<ReplyQueue>,
    /// `None` once the client sends no more.
    inbound: Option<Streaming<wire::PipeRequest>>,
    waiting: WaitingList,
    /// Reads that wait for a commit; they hold up nobody else.
    late: FuturesUnordered<BoxFuture<'static, (CallId, Answer)>>,
    replies: Vec<Reply>,
    answers: VecDeque<(CallId, Answer)>,
    /// Why the stream ends, once what is ready has been sent.
    ended: Option<Refusal>,
    closed: BoxFuture<'static, ()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.disconnect(self.number);
    }
}

impl Stream for Connection {
    type Item = Result<wire::PipeResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.closed.poll_unpin(context).is_ready() {
            return Poll::Ready(None);
        }
        this.take_replies(context);
        while let Poll::Ready(Some((call, answer))) = this.late.poll_next_unpin(context) {
            this.answers.push_back((call, answer));
        }
        let mut frames = 0;
        while this.ended.is_none() && frames < FRAMES_AT_ONCE {
            let Some(inbound) = &mut this.inbound else {
                break;
            };
            match inbound.poll_next_unpin(context) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(frame))) => {
                    frames += 1;
                    this.ended = this.on_frame(frame).err();
                }
                // What is under way is still answered.
                Poll::Ready(None | Some(Err(_))) => this.inbound = None,
            }
        }
        if frames > 0 {
            // Reads that have just begun to wait are polled once, so that they are woken.
            while let Poll::Ready(Some((call, answer))) = this.late.poll_next_unpin(context) {
                this.answers.push_back((call, answer));
            }
        }
        if !this.answers.is_empty() {
            return Poll::Ready(Some(Ok(this.pack())));
        }
        if let Some(why) = &this.ended {
            let status = why.to_status();
            this.inbound = None;
            this.waiting = WaitingList::default();
            this.late.clear();
            this.ended = None;
            return Poll::Ready(Some(Err(status)));
        }
        if this.inbound.is_none() && this.waiting.is_empty() && this.late.is_empty() {
            return Poll::Ready(None);
        }
        if frames == FRAMES_AT_ONCE {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Connection {
    fn on_frame(&mut self, frame: wire::PipeRequest) -> Result<(), Refusal> {
        pipe::check_frame(&frame).map_err(|e| Refusal::new(Reason::Invalid, e.to_string()))?;
        check_cluster(&self.shared, &frame.cluster_id)?;
        let now = clock::now();
        let mut gets: Vec<Get> = Vec::new();
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
            let deadline = now.plus(call.timeout.unwrap_or(TIMEOUT_DEFAULT).min(TIMEOUT_MAX));
            let shard = call.shard;
            match call.body {
                CallBody::Get { key, stale: None } => gets.push(Get {
                    shard,
                    call: id,
                    key,
                    deadline,
                }),
                CallBody::Get {
                    key,
                    stale: Some(bound),
                } => {
                    let answer = self.stale(shard, &key, bound.lag_ms_max);
                    self.answers.push_back((id, answer));
                }
                CallBody::Command { request, command } => {
                    match self.write(shard, id, request, command, deadline) {
                        Ok(write) => match writes.iter_mut().find(|(s, _)| *s == shard) {
                            Some((_, batch)) => batch.push(write),
                            None => writes.push((shard, vec![write])),
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
        self.answers.push_back((id, Answer::Refused(refusal)));
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
        id: Option<RequestId>,
        command: Command,
        deadline: Mono,
    ) -> Result<Request, Refusal> {
        if self.waiting.len() >= UNDER_WAY_MAX {
            return Err(self.overloaded("writes are under way"));
        }
        let prior = prior(&self.shared, shard, &command, false)?;
        // A write that is decided by the key's row may have to be handed in again.
        let needs_prior = matches!(&command, Command::Write { op, .. } if op.needs_prior());
        let again = needs_prior.then(|| (id, command.clone(), deadline));
        let request = self.waiting.add(Waiting { call, shard, again });
        Ok(Request {
            reply_to: self.reply_to(request),
            id,
            command,
            prior,
            deadline,
        })
    }

    const fn reply_to(&self, request: u64) -> ReplyTo {
        ReplyTo {
            connection: self.number,
            request,
        }
    }

    fn overloaded(&self, what: &str) -> Refusal {
        self.shared.metrics.refused(Reason::Overloaded.as_str());
        let why = format!("{UNDER_WAY_MAX} {what} on this connection: retry later");
        Refusal::new(Reason::Overloaded, why).retry_after(HOLD_OFF)
    }

    fn submit(&mut self, shard: ShardId, requests: Vec<Request>) {
        let weight = requests.iter().map(weight).sum();
        let work = Work::Requests { shard, requests };
        let Err(full) = self.shared.inbox.offer(work, weight) else {
            return;
        };
        let Work::Requests { requests, .. } = full.0 else {
            return;
        };
        let refusal = ReplicaRefusal::Overloaded { shard };
        for request in requests {
            if let Some(waiting) = self.waiting.remove(request.reply_to.request) {
                let refusal = self.shared.explain(shard, &refusal);
                self.refuse(waiting.call, refusal);
            }
        }
    }

    /// All linearizable reads of a frame: one lock and one check a shard, before and after.
    fn get_all(&mut self, mut gets: Vec<Get>) {
        gets.sort_by_key(|get| get.shard);
        for batch in gets.chunk_by(|a, b| a.shard == b.shard) {
            self.get_shard(batch);
        }
    }

    fn get_shard(&mut self, batch: &[Get]) {
        let id = batch[0].shard;
        let Some(shard) = self.shared.shard(id) else {
            for get in batch {
                self.refuse(get.call, not_here(&self.shared, id));
            }
            return;
        };
        let (view, states) = {
            let replica = shard.replica.read();
            let here = |key: &Bytes| replica.chain().is_some_and(|c| c.range.contains(key));
            let states: Vec<_> = batch
                .iter()
                .map(|get| here(&get.key).then(|| replica.key_state(&get.key)))
                .collect();
            (replica.read_view(), states)
        };
        if let Err(refusal) = self.shared.admitted(&shard, &view) {
            for get in batch {
                self.refuse(get.call, refusal.clone());
            }
            return;
        }
        let first = self.answers.len();
        for (get, state) in batch.iter().zip(states) {
            let Some(state) = state else {
                self.refuse(get.call, not_here(&self.shared, id));
                continue;
            };
            match self.shared.look(&get.key, state) {
                Ok(Look::Found(row)) => self.answers.push_back((get.call, read_answer(row))),
                Ok(Look::Wait(_)) if self.late.len() >= UNDER_WAY_MAX => {
                    let refusal = self.overloaded("reads wait for a commit");
                    self.refuse(get.call, refusal);
                }
                Ok(Look::Wait(seq)) => {
                    let (shared, shard) = (Arc::clone(&self.shared), Arc::clone(&shard));
                    let (call, key, deadline) = (get.call, get.key.clone(), get.deadline);
                    let read = async move {
                        let read = shared.get_after(&shard, &key, view, seq, deadline).await;
                        (call, read.map_or_else(Answer::Refused, read_answer))
                    };
                    self.late.push(read.boxed());
                }
                Err(refusal) => self.refuse(get.call, refusal),
            }
        }
        self.shared.metrics.reads.inc_by(batch.len() as u64);
        if let Err(refusal) = self.shared.verified(&shard, &view) {
            for (_, answer) in self.answers.range_mut(first..) {
                if matches!(answer, Answer::Row { .. } | Answer::Absent { .. }) {
                    *answer = Answer::Refused(refusal.clone());
                }
            }
        }
    }

    fn take_replies(&mut self, context: &Context<'_>) {
        let mut replies = std::mem::take(&mut self.replies);
        self.queue.take(&mut replies, context.waker());
        for reply in replies.drain(..) {
            self.on_reply(reply);
        }
        self.replies = replies;
    }

    fn on_reply(&mut self, reply: Reply) {
        let Some(waiting) = self.waiting.remove(reply.to.request) else {
            return;
        };
        let answer = match (reply.result, waiting.again) {
            (Ok(outcome), _) => {
                self.shared.metrics.writes.inc();
                Answer::Outcome(outcome)
            }
            (Err(ReplicaRefusal::ReadAgain), Some((id, command, deadline))) => {
                return self.hand_in_again(waiting.call, waiting.shard, id, command, deadline);
            }
            (Err(refusal), _) => Answer::Refused(self.shared.explain(waiting.shard, &refusal)),
        };
        self.answers.push_back((waiting.call, answer));
    }

    /// The key's row was read too early, or not at all: it is read now.
    fn hand_in_again(
        &mut self,
        call: CallId,
        shard: ShardId,
        id: Option<RequestId>,
        command: Command,
        deadline: Mono,
    ) {
        let prior = match prior(&self.shared, shard, &command, true) {
            Ok(prior) => prior,
            Err(refusal) => return self.refuse(call, refusal),
        };
        let again = Some((id, command.clone(), deadline));
        let request = self.waiting.add(Waiting { call, shard, again });
        let request = Request {
            reply_to: self.reply_to(request),
            id,
            command,
            prior,
            deadline,
        };
        self.submit(shard, vec![request]);
    }

    /// One frame of what is ready; the rest stays for the next one.
    fn pack(&mut self) -> wire::PipeResponse {
        let mut responses = Vec::with_capacity(self.answers.len());
        let mut bytes = 0;
        while let Some((call, mut answer)) = self.answers.pop_front() {
            let mut weight = answer_weight(&answer);
            if weight > limits::PIPE_FRAME_BYTES_MAX / 2 {
                let why = "the value exceeds a frame of the pipe: ask by the unary call";
                answer = Answer::Refused(Refusal::new(Reason::UseUnary, why));
                weight = answer_weight(&answer);
            }
            if bytes + weight > limits::PIPE_FRAME_BYTES_MAX && bytes > 0 {
                self.answers.push_front((call, answer));
                break;
            }
            bytes += weight;
            responses.push(pipe::response(call, answer));
        }
        wire::PipeResponse { responses }
    }
}

/// Bytes that an answer takes in a frame, at most.
fn answer_weight(answer: &Answer) -> usize {
    match answer {
        Answer::Row { row, .. } => row.value.len() + 64,
        Answer::Refused(refusal) => {
            let nodes = refusal
                .nodes
                .iter()
                .map(|n| 128 + n.addr.len() + n.http.len());
            let chain = refusal.chain.as_ref().map_or(0, |chain| {
                let end = chain.range.end.as_ref().map_or(0, Bytes::len);
                256 + 64 * chain.members.len() + chain.range.start.len() + end
            });
            128 + refusal.message.len() + chain + nodes.sum::<usize>()
        }
        Answer::Absent { .. } | Answer::Outcome(_) => 64,
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
