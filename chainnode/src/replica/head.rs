//! The head: requests, decisions, log time, answers (DESIGN §3.1, §3.2, §3.4).

use bytes::Bytes;
use catena_proto::ids::{LogTime, Origin, Seq};
use catena_proto::limits;
use catena_proto::op::{Command, Outcome, RequestId, Row, WriteOp};
use catena_proto::record::{Effect, Group, GroupBuilder, Record, SessionChange};
use catena_proto::time::Mono;

use super::decide::{Present, decide};
use super::sessions::Seen;
use super::{Mutant, Outputs, Persist, Prior, Refusal, Replica, Reply, ReplyTo, Request, Timer};

/// Idle sessions closed in one go; the rest follow at the next round.
const SESSIONS_CLOSED_AT_ONCE: usize = 64;

/// A client that waits for its record to be committed.
#[derive(Clone, Debug)]
pub(super) struct Waiter {
    seq: Seq,
    to: ReplyTo,
    outcome: Outcome,
}

/// The replicated clock at this replica: the newest record's time, and since when it was the newest.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogClock {
    newest: LogTime,
    since: Mono,
}

impl LogClock {
    pub(super) const fn new(newest: LogTime, since: Mono) -> Self {
        Self { newest, since }
    }

    /// A record was added; time goes on from its own.
    pub(super) fn saw(&mut self, at: LogTime) {
        self.newest = self.newest.max(at);
    }

    /// A start or a new head adds nothing: time goes on from here.
    pub(super) const fn restart(&mut self, now: Mono) {
        self.since = now;
    }

    pub(super) const fn newest(&self) -> LogTime {
        self.newest
    }

    /// The time of a record made now at the head: it moves with this machine's monotonic clock.
    fn tick(&mut self, now: Mono) -> LogTime {
        let passed = now.since(self.since);
        let ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        // Whole milliseconds only: the rest is kept for the next record.
        self.since = self.since.plus(std::time::Duration::from_millis(ms));
        self.newest = self.newest.plus_ms(ms);
        self.newest
    }
}

impl Replica {
    /// All requests of the inbox: decided in order, appended as one group, forwarded at once by `settle`.
    pub(super) fn on_requests(&mut self, now: Mono, requests: Vec<Request>, out: &mut Outputs) {
        if let Some(refusal) = self.cannot_write() {
            out.replies.extend(requests.iter().map(|r| Reply {
                to: r.reply_to,
                result: Err(refusal.clone()),
            }));
            return;
        }
        let at = self.clock.tick(now);
        let mut batch = self.batch(at);
        for request in requests {
            let to = request.reply_to;
            match self.execute(now, &mut batch, request, out) {
                Ok(Some((seq, outcome))) => self.wait_for(seq, to, outcome),
                Ok(None) => {}
                Err(refusal) => out.replies.push(Reply {
                    to,
                    result: Err(refusal),
                }),
            }
        }
        self.finish(batch, out);
    }

    /// Why no write can be taken at present, if so.
    fn cannot_write(&self) -> Option<Refusal> {
        let shard = self.id.shard;
        let not_ready = |why| Some(Refusal::NotReady { shard, why });
        if self.is_fenced() {
            return not_ready("the replica is fenced; see `catena status`");
        }
        if !self.is_head() {
            return Some(Refusal::NotInCharge { shard });
        }
        if !self.serving_phase() {
            return not_ready("the shard is being created");
        }
        if !self.is_synced() {
            return not_ready("the head is not synced");
        }
        if self.read_only {
            return Some(Refusal::ReadOnly);
        }
        let uncommitted = self.log.bytes_after(self.commit);
        let unapplied = self.log.bytes_after(self.state.applied);
        if uncommitted > limits::PENDING_BYTES_MAX
            || unapplied > 2 * limits::PENDING_BYTES_MAX
            || self.waiters.len() > limits::PENDING_RECORDS_MAX
        {
            return Some(Refusal::Overloaded { shard });
        }
        None
    }

    fn batch(&self, at: LogTime) -> Batch {
        let origin = Origin {
            epoch: self.epoch(),
            incarnation: self.id.incarnation,
        };
        let builder = GroupBuilder::new(origin, self.log.last().next());
        Batch {
            at,
            next: self.log.last().next(),
            builder,
            groups: Vec::new(),
        }
    }

    /// Decides one request; the record's position and outcome, or `None` if a waiter was attached to an earlier try.
    fn execute(
        &mut self,
        now: Mono,
        batch: &mut Batch,
        request: Request,
        out: &mut Outputs,
    ) -> Result<Option<(Seq, Outcome)>, Refusal> {
        if now >= request.deadline {
            return Err(Refusal::DeadlinePassed);
        }
        if let Some(id) = request.id
            && self.answer_retry(id, request.reply_to, out)?
        {
            return Ok(None);
        }
        let seq = batch.next;
        let record = match request.command {
            Command::Write { key, op } => {
                let in_range = self.chain.as_ref().is_some_and(|c| c.range.contains(&key));
                if !in_range {
                    return Err(Refusal::OutOfRange {
                        shard: self.id.shard,
                    });
                }
                self.write_record(batch.at, request.id, key, &op, request.prior, seq)?
            }
            Command::OpenSession => {
                if self.sessions.len() >= limits::SESSIONS_PER_SHARD_MAX {
                    return Err(Refusal::SessionsExhausted {
                        shard: self.id.shard,
                        max: limits::SESSIONS_PER_SHARD_MAX,
                    });
                }
                let session = catena_proto::ids::SessionId::new(seq.get());
                let outcome = Outcome::SessionOpened { session };
                session_record(batch.at, outcome, SessionChange::Open)
            }
            Command::CloseSession(session) => {
                if !self.sessions.contains(session) {
                    return Err(Refusal::UnknownSession);
                }
                session_record(
                    batch.at,
                    Outcome::SessionClosed,
                    SessionChange::Close(session),
                )
            }
        };
        let outcome = record.outcome;
        self.add(batch, record);
        Ok(Some((seq, outcome)))
    }

    /// Exactly once: true if the request was executed before and its answer is given or will be.
    fn answer_retry(
        &mut self,
        id: RequestId,
        to: ReplyTo,
        out: &mut Outputs,
    ) -> Result<bool, Refusal> {
        match self.sessions.look_up(id) {
            Seen::New
                if self
                    .sessions
                    .lacks_room_for(id, limits::SLOTS_PER_SHARD_MAX) =>
            {
                Err(Refusal::SlotsExhausted {
                    shard: self.id.shard,
                    max: limits::SLOTS_PER_SHARD_MAX,
                })
            }
            Seen::New => Ok(false),
            Seen::Done(_) if self.planted(Mutant::RetryWithoutDedupe) => Ok(false),
            Seen::Superseded => Err(Refusal::Superseded),
            Seen::UnknownSession => Err(Refusal::UnknownSession),
            Seen::Done(done) if self.may_answer(done.seq) => {
                out.replies.push(Reply {
                    to,
                    result: Ok(done.outcome),
                });
                Ok(true)
            }
            Seen::Done(done) => {
                self.wait_for(done.seq, to, done.outcome);
                Ok(true)
            }
        }
    }

    fn write_record(
        &self,
        at: LogTime,
        request: Option<RequestId>,
        key: Bytes,
        op: &WriteOp,
        prior: Option<Prior>,
        seq: Seq,
    ) -> Result<Record, Refusal> {
        let row;
        let present = match self.overlay.newest(&key) {
            Some((version, value)) => value.map(|value| Present { value, version }),
            None if !op.needs_prior() => None,
            None => {
                // The engine's row counts only if it is at least as new as what the overlay forgot.
                let prior = prior.filter(|p| p.as_of >= self.overlay.floor());
                row = prior.ok_or(Refusal::ReadAgain)?.row;
                row.as_ref().map(|Row { value, version }| Present {
                    value,
                    version: *version,
                })
            }
        };
        let (outcome, change) = decide(op, present, seq);
        let effects = change
            .map(|value| Effect {
                key,
                value,
                expires: None,
            })
            .into_iter()
            .collect();
        Ok(Record {
            at,
            request,
            outcome,
            effects,
            session: SessionChange::None,
        })
    }

    /// Gives the record its `seq`; later requests of the batch see it.
    fn add(&mut self, batch: &mut Batch, record: Record) {
        let seq = batch.builder.push(&record);
        debug_assert_eq!(seq, batch.next, "positions are dense");
        batch.next = seq.next();
        self.sessions.add(seq, &record);
        for effect in record.effects {
            self.overlay.add(seq, effect);
        }
        if batch.builder.len() >= limits::GROUP_BYTES_TARGET {
            batch.groups.extend(batch.builder.take());
        }
    }

    fn finish(&mut self, mut batch: Batch, out: &mut Outputs) {
        batch.groups.extend(batch.builder.take());
        for group in batch.groups {
            self.log.append(group.clone());
            out.persist.push(Persist::Append(group));
        }
    }

    fn wait_for(&mut self, seq: Seq, to: ReplyTo, outcome: Outcome) {
        let waiter = Waiter { seq, to, outcome };
        if self.waiters.back().is_none_or(|last| last.seq <= seq) {
            self.waiters.push_back(waiter);
        } else {
            let at = self.waiters.partition_point(|w| w.seq <= seq);
            self.waiters.insert(at, waiter);
        }
    }

    /// Is the record at `seq` committed, and may that be said (S2)?
    fn may_answer(&self, seq: Seq) -> bool {
        seq <= self.commit && self.barrier.is_some_and(|b| b <= self.commit)
    }

    /// Answers whoever waited for what is committed by now.
    pub(super) fn reply_committed(&mut self, out: &mut Outputs) {
        while self.waiters.front().is_some_and(|w| self.may_answer(w.seq)) {
            if let Some(waiter) = self.waiters.pop_front() {
                out.replies.push(Reply {
                    to: waiter.to,
                    result: Ok(waiter.outcome),
                });
            }
        }
    }

    /// Not the head any more: what was appended may or may not be committed by others.
    pub(super) fn interrupt_waiters(&mut self, out: &mut Outputs) {
        out.replies.extend(self.waiters.drain(..).map(|w| Reply {
            to: w.to,
            result: Err(Refusal::Interrupted),
        }));
    }

    /// The head's round timer: a lease round (R1), and sessions that nobody uses are closed.
    pub(super) fn on_round_timer(&mut self, now: Mono, out: &mut Outputs) {
        if !self.is_head() || self.is_fenced() || !self.serving_phase() {
            return;
        }
        self.start_round(now);
        if self.cannot_write().is_none() {
            self.close_idle_sessions(now, out);
        }
    }

    fn close_idle_sessions(&mut self, now: Mono, out: &mut Outputs) {
        if self.sessions.len() == 0 {
            return;
        }
        let passed = u64::try_from(now.since(self.clock.since).as_millis()).unwrap_or(u64::MAX);
        let log_now = self.clock.newest.plus_ms(passed);
        let idle = self.sessions.idle(log_now, SESSIONS_CLOSED_AT_ONCE);
        if idle.is_empty() {
            return;
        }
        let at = self.clock.tick(now);
        let mut batch = self.batch(at);
        for session in idle {
            let change = SessionChange::Close(session);
            self.add(
                &mut batch,
                session_record(at, Outcome::SessionClosed, change),
            );
        }
        self.finish(batch, out);
    }

    /// Rounds of all shards fall on the same moments, so that a link's frames carry them together (R1).
    pub(super) fn arm_round(&mut self, now: Mono, out: &mut Outputs) {
        if self.is_head() && self.serving_phase() && !self.is_fenced() {
            let every = u64::from(self.settings.round_ms.max(1)) * 1_000_000;
            let at = Mono::from_nanos((now.as_nanos() / every + 1) * every);
            if self.armed[Timer::Round as usize].is_none() {
                self.arm(Timer::Round, at, out);
            }
        }
    }
}

/// The records of one step.
struct Batch {
    at: LogTime,
    next: Seq,
    builder: GroupBuilder,
    groups: Vec<Group>,
}

const fn session_record(at: LogTime, outcome: Outcome, session: SessionChange) -> Record {
    Record {
        at,
        request: None,
        outcome,
        effects: Vec::new(),
        session,
    }
}
