//! The chain replica: a pure state machine (DESIGN §3, rules C, L, S, R and the learner's side of M4).
//!
//! [`Replica::step`] takes the time and one [`Input`] and adds to [`Outputs`].
//! There is no I/O, clock, randomness, task or lock in here, and nothing in
//! here may import any: the runtime, the simulation and the golden scenarios
//! all drive this very code.
//!
//! | file | knows |
//! |---|---|
//! | `io` | what goes in and out |
//! | `epochs` | configs, acceptance, entering an epoch, announcements, fencing (C, R3, R4) |
//! | `debt`, `lease` | what was promised, what is owed, what may be served (R) |
//! | `head` | requests, decisions, log time, answers (DESIGN §3.1, §3.4) |
//! | `uplink` | the follower's end of a link: handshake, cut, records, rounds, scan (L, M4) |
//! | `downlink` | the predecessor's and source's end of a link (L, M4) |
//! | `advance` | in sync, commit, apply: what follows from the rest (S2, DESIGN §3.2) |
//! | `log`, `overlay`, `sessions` | the log's end, pending effects, results |
//! | `recover` | a start, and cutting the log (L5) |
//! | `read` | the read path (DESIGN §3.3) |
//! | `meta` | what is remembered over a restart |

mod advance;
mod debt;
mod decide;
mod downlink;
mod epochs;
mod head;
mod io;
mod lease;
mod log;
mod meta;
mod mutant;
mod overlay;
mod read;
mod recover;
mod sessions;
mod status;
mod uplink;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use catena_proto::config::{ChainConfig, ChainPhase, KeyRange, Member, Role};
use catena_proto::ids::{DiskId, Epoch, LogTime, NodeId, Seq};
use catena_proto::limits;
use catena_proto::message::{Body, Message};
use catena_proto::time::Mono;

use self::debt::{Debts, Promise};
use self::downlink::{DownLink, Pin};
use self::head::{LogClock, Waiter};
use self::lease::Lease;
use self::log::LogWindow;
use self::overlay::Overlay;
use self::sessions::Sessions;
use self::uplink::UpLink;

pub use self::io::{
    Apply, Event, Identity, Input, LeaseSettings, LogRead, MetaNo, Outputs, PageRead, Persist,
    Prior, Recovered, Refusal, Reply, ReplyTo, Request, ScanCursor, Send, StateProgress, Timer,
};
pub use self::meta::{Meta, MetaError};
pub use self::mutant::{MUTANTS, Mutant, UnknownMutant};
pub use self::read::{KeyState, ReadRefusal, ReadView};
pub use self::status::Status;

/// One node's replica of one shard.
#[derive(Clone, Debug)]
pub struct Replica {
    id: Identity,
    settings: LeaseSettings,
    started: Mono,

    /// The config in force; `None` on a disk that has not accepted any.
    chain: Option<ChainConfig>,
    /// The config in force when the process started: what may have been promised and forgotten (R4).
    chain_at_start: Option<ChainConfig>,
    /// The metadata as last asked to persist; `None` before the first config.
    meta: Option<Meta>,
    /// The metadata as last made durable.
    meta_durable: Option<Meta>,
    meta_in_flight: VecDeque<(MetaNo, Meta)>,
    meta_no: MetaNo,
    /// Asked to follow as a learner.
    learn: bool,
    /// When a learner asks the next member, and which one it asks.
    follow_attempt: usize,

    log: LogWindow,
    commit: Seq,
    /// Handed to the engine up to here.
    applying: Seq,
    state: StateProgress,
    /// The state is worthless: only a scan can replace it.
    scan_needed: bool,
    flushed: Seq,
    overlay: Overlay,
    sessions: Sessions,

    /// The barrier of this epoch and start (S2).
    barrier: Option<Seq>,
    in_sync: bool,
    up: Option<UpLink>,
    down: Vec<DownLink>,
    links_made: u64,
    pins: BTreeMap<NodeId, Pin>,

    lease: Lease,
    promises: Vec<Promise>,
    debts: Debts,
    /// The newest epoch that each fellow is known to have persisted (C5).
    announced: BTreeMap<NodeId, Epoch>,
    /// Fellows that are told our epoch again until they answer or the time is over.
    unheard: Vec<NodeId>,
    announce_until: Mono,
    refused: BTreeMap<NodeId, (Epoch, Mono)>,

    clock: LogClock,
    waiters: VecDeque<Waiter>,
    read_only: bool,
    armed: [Option<Mono>; 3],

    #[cfg(feature = "mutants")]
    mutant: Option<Mutant>,
}

impl Replica {
    /// One input, its consequences, and everything that follows from them. `out` is added to.
    pub fn step(&mut self, now: Mono, input: Input, out: &mut Outputs) {
        match input {
            Input::Config(chain) => self.on_config(now, chain, out),
            Input::Learn(on) => self.on_learn(on),
            Input::Message { from, message } => self.on_message(now, from, message, out),
            Input::LinkLost { to } => self.on_link_lost(to),
            Input::Requests(requests) => self.on_requests(now, requests, out),
            Input::Persisted {
                generation,
                durable,
                meta,
            } => {
                self.on_persisted(now, generation, durable, meta, out);
            }
            Input::Applied { applied, flushed } => self.on_applied(applied, flushed),
            Input::PageApplied { page_no } => self.on_page_applied(now, page_no, out),
            Input::LogRead { link, groups } => self.on_log_read(link, groups, out),
            Input::PageRead { to, page } => self.on_page_read(now, to, page, out),
            Input::LogTrimmed { start } => self.log.trimmed(start),
            Input::ReadOnly(read_only) => self.read_only = read_only,
            Input::Settings(settings) => self.settings = settings,
            Input::Timer(timer) => self.on_timer(now, timer, out),
        }
        self.settle(now, out);
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
    }

    fn on_message(&mut self, now: Mono, from: NodeId, message: Message, out: &mut Outputs) {
        let Message { epoch, body, .. } = message;
        // A message's epoch is one that its sender has persisted: as good as an announcement (C5).
        self.note_epoch(now, from, epoch, out);
        if let Body::Refuse(chain) = body {
            return self.on_refuse(now, from, *chain, out);
        }
        if epoch != self.epoch() {
            // C3: refused, and told what we hold; the newer of the two learns.
            return self.refuse(now, from, out);
        }
        if let Body::Announce { reply_wanted } = body {
            return self.on_announce(from, reply_wanted, out);
        }
        if self.is_fenced() {
            return;
        }
        match body {
            Body::Hello(hello) => self.on_hello(now, from, hello, out),
            Body::Welcome(welcome) => self.on_welcome(now, from, welcome, out),
            Body::Forward(forward) => self.on_forward(now, from, forward, out),
            Body::Commit(commit) => self.on_commit(now, from, commit, out),
            Body::Follow { disk, .. } => self.on_follow(now, from, disk, out),
            Body::PullPage(pull) => self.on_pull_page(now, from, pull, out),
            Body::StatePage(page) => self.on_state_page(now, from, *page, out),
            Body::Unlink { link } => self.on_unlink(from, link),
            Body::Fork { link, evidence, .. } => self.on_fork(from, link, evidence, out),
            Body::Announce { .. } | Body::Refuse(_) => {}
        }
    }

    fn on_persisted(
        &mut self,
        now: Mono,
        generation: catena_proto::ids::LogGeneration,
        durable: Seq,
        meta: MetaNo,
        out: &mut Outputs,
    ) {
        self.log
            .persisted(generation, durable, self.planted(Mutant::StaleGeneration));
        while self
            .meta_in_flight
            .front()
            .is_some_and(|(no, _)| *no <= meta)
        {
            self.meta_durable = self.meta_in_flight.pop_front().map(|(_, meta)| meta);
        }
        self.enter_persisted_epoch(now, out);
    }

    fn on_applied(&mut self, applied: Seq, flushed: Seq) {
        // One step late: a row that was read before this input is still covered (see `overlay`).
        self.overlay.drop_to(self.state.applied);
        self.state.applied = self.state.applied.max(applied.min(self.commit));
        self.state.applied_origin = self.log.origins.at(self.state.applied);
        self.flushed = self.flushed.max(flushed.min(self.state.applied));
        self.log.release(self.state.applied);
    }

    fn on_timer(&mut self, now: Mono, timer: Timer, out: &mut Outputs) {
        self.armed[timer as usize] = None;
        match timer {
            Timer::Round => self.on_round_timer(now, out),
            Timer::Retry => self.on_retry_timer(now, out),
            Timer::Debt => {}
        }
    }

    /// Sets a timer unless it is set to fire earlier already.
    fn arm(&mut self, timer: Timer, at: Mono, out: &mut Outputs) {
        let armed = &mut self.armed[timer as usize];
        if armed.is_none_or(|old| at < old) {
            *armed = Some(at);
            out.timers.push((timer, at));
        }
    }

    fn send(&self, to: NodeId, body: Body, out: &mut Outputs) {
        let message = Message {
            shard: self.id.shard,
            epoch: self.epoch(),
            body,
        };
        out.send.push(Send { to, message });
    }

    /// The epoch in force; zero before the first config.
    fn epoch(&self) -> Epoch {
        self.chain.as_ref().map_or(Epoch::ZERO, |c| c.epoch)
    }

    /// Our member entry in the config in force (rule C4).
    fn membership(&self) -> Option<Member> {
        let chain = self.chain.as_ref()?;
        if self.planted(Mutant::DiskIdIgnored) {
            return chain
                .members
                .iter()
                .find(|m| m.node == self.id.node)
                .copied();
        }
        chain.member(self.id.node, self.id.disk).copied()
    }

    /// Our role, if we are a member.
    fn role(&self) -> Option<Role> {
        self.membership()?;
        self.chain.as_ref()?.role(self.id.node)
    }

    fn is_head(&self) -> bool {
        matches!(self.role(), Some(Role::Head | Role::Solo))
    }

    fn serving_phase(&self) -> bool {
        self.chain
            .as_ref()
            .is_some_and(|c| c.phase == ChainPhase::Serving)
    }

    /// C2, L2: stopped, from the moment of the alarm until the epoch that ends it is in force (M3).
    fn is_fenced(&self) -> bool {
        let metas = self.meta.iter().chain(&self.meta_durable);
        metas.into_iter().any(|m| m.fenced.is_some())
    }

    /// S1: synced for the present stint, and that is durable.
    fn is_synced(&self) -> bool {
        let synced = self.meta_durable.as_ref().and_then(|m| m.synced_for);
        if self.planted(Mutant::DiskIdIgnored) {
            return self.membership().map(|m| m.joined_epoch) == synced.map(|(_, joined)| joined);
        }
        self.membership()
            .is_some_and(|m| synced == Some((self.id.disk, m.joined_epoch)))
    }

    /// S1, for whoever decides about members: synced for this stint, and that is durable.
    #[must_use]
    pub fn is_synced_for(&self, disk: DiskId, joined_epoch: Epoch) -> bool {
        !self.is_fenced()
            && self.meta_durable.as_ref().and_then(|m| m.synced_for) == Some((disk, joined_epoch))
    }

    /// Whether a bug was planted; constantly false in ordinary builds.
    #[inline]
    fn planted(&self, mutant: Mutant) -> bool {
        #[cfg(feature = "mutants")]
        return self.mutant == Some(mutant);
        #[cfg(not(feature = "mutants"))]
        {
            let _ = mutant;
            false
        }
    }

    /// What must hold between steps, by rule.
    ///
    /// # Panics
    /// When it does not: the process must not go on.
    pub fn check_invariants(&self) {
        #[cfg(feature = "mutants")]
        if self.mutant.is_some() {
            // A planted bug shall be found by what it does, not by an assertion next to it.
            return;
        }
        assert!(
            self.state.applied <= self.commit,
            "only what is committed is applied"
        );
        assert!(
            self.applying <= self.commit,
            "only what is committed is handed to the engine"
        );
        assert!(
            self.commit <= self.log.durable(),
            "the commit point is durable here"
        );
        assert!(
            self.log.durable() <= self.log.last(),
            "durable is a prefix of the log"
        );
        assert!(
            self.flushed <= self.state.applied,
            "flushed is a prefix of applied"
        );
        if self.in_sync {
            assert!(self.debts.none(), "R3: nobody in debt is in sync");
            assert!(
                self.is_synced(),
                "S1: in sync implies synced for this stint"
            );
            assert!(
                self.barrier.is_some_and(|b| b <= self.log.durable()),
                "S2: durable to the barrier"
            );
            assert!(
                self.flushed >= self.log.start(),
                "S2: what the log does not hold survives in the state"
            );
            assert!(
                !self.is_fenced(),
                "C2, L2: a fenced replica is never in sync"
            );
        }
        if self.down.iter().any(|d| !d.learner) {
            assert!(
                self.in_sync,
                "S1, R3: only who is in sync and owes nothing hands over"
            );
        }
    }

    /// What a reader must know; take it anew for [`ReadView::verify`].
    #[must_use]
    pub fn read_view(&self) -> ReadView {
        let barrier =
            self.planted(Mutant::NoBarrier) || self.barrier.is_some_and(|b| b <= self.commit);
        ReadView {
            epoch: self.epoch(),
            incarnation: self.id.incarnation,
            lease_until: self.lease.until(),
            solo: self.role() == Some(Role::Solo),
            barrier_passed: self.in_sync && barrier,
            commit: self.commit,
            applied: self.state.applied,
        }
    }

    /// What a read of `key` finds before the engine.
    #[must_use]
    pub fn key_state(&self, key: &[u8]) -> KeyState {
        match self.overlay.key_state(key, self.commit) {
            KeyState::WaitFor(_) if self.planted(Mutant::ReadIgnoresPending) => {
                self.overlay.committed(key, self.commit)
            }
            found => found,
        }
    }

    /// The newest record beyond the commit point that touches `range`: a scan waits for it.
    #[must_use]
    pub fn range_wait(&self, range: &KeyRange) -> Option<Seq> {
        self.overlay.range_wait(range, self.commit)
    }

    /// The newest committed effect per key of `range` that the engine may not have yet, in key order.
    #[must_use]
    pub fn overlay_range(&self, range: &KeyRange) -> Vec<(Bytes, Option<Bytes>, Seq)> {
        self.overlay.range(range, self.commit)
    }

    /// The state's applied position, as this replica knows it.
    #[must_use]
    pub const fn applied(&self) -> Seq {
        self.state.applied
    }

    /// The commit point, as this replica knows it.
    #[must_use]
    pub const fn commit(&self) -> Seq {
        self.commit
    }

    /// The config in force.
    #[must_use]
    pub const fn chain(&self) -> Option<&ChainConfig> {
        self.chain.as_ref()
    }

    /// Records at or below this are needed neither for recovery nor for a follower that scans.
    #[must_use]
    pub fn log_floor(&self) -> Seq {
        let pinned = self.pins.values().map(|p| p.at).min();
        let floor = self.commit.min(self.flushed);
        pinned.map_or(floor, |p| floor.min(p))
    }

    /// The end of the log.
    #[must_use]
    pub const fn last(&self) -> Seq {
        self.log.last()
    }

    /// The log time of the newest record, for tests.
    #[must_use]
    pub const fn log_time(&self) -> LogTime {
        self.clock.newest()
    }
}

const _: () = assert!(limits::FORWARD_WINDOW_BYTES_MAX < 2 * limits::PENDING_BYTES_MAX);
