//! The follower's end of a link: handshake and cut (L2), records and rounds (L3, R1), scan (M4).

use bytes::Bytes;
use catena_proto::config::Role;
use catena_proto::ids::{LinkId, NodeId, Seq};
use catena_proto::limits;
use catena_proto::message::{Body, CommitUp, Forward, Hello, PullPage, Round, StatePage, Welcome};
use catena_proto::time::Mono;

use super::log::{ForkPoint, Origins};
use super::sessions::Sessions;
use super::{Apply, Event, Mutant, Outputs, Persist, Replica, ScanCursor, StateProgress};

/// A follower says what it received after this many bytes, so that the sender's window opens in time.
const RECEIVED_EVERY_BYTES: usize = limits::FORWARD_WINDOW_BYTES_MAX / 8;

/// A learner says at this pace what it holds, news or not: a source that lost the link answers that it is gone.
const KNOCK_EVERY: std::time::Duration = std::time::Duration::from_millis(500);

/// The link to the predecessor, or to a learner's source.
#[derive(Clone, Debug)]
pub(super) struct UpLink {
    pub(super) peer: NodeId,
    pub(super) link: LinkId,
    /// Everybody above is durable up to here; from 0 on each link (L3).
    pub(super) watermark: Seq,
    /// The peer's commit point, as far as it told.
    pub(super) known_commit: Seq,
    pub(super) learner: bool,
    /// When a learner last let its source know that it is there.
    knocked: Mono,
    round_up: Option<Round>,
    sent_commit: Seq,
    sent_received: Seq,
    sent_durable: Seq,
    unsaid_bytes: usize,
    /// Something sent may be lost: say it all again.
    pub(super) dirty: bool,
    pub(super) scan: Option<ScanRun>,
}

/// A scan of the source's state, from the follower's side.
#[derive(Clone, Debug)]
pub(super) struct ScanRun {
    page_no: u64,
    after: Option<Bytes>,
    /// The first page replaces everything that is here.
    fresh: bool,
    /// The page in hand is being written; it is the last one if `Some(true)`.
    writing: Option<bool>,
    asked_at: Mono,
}

/// What the handshake makes of a Hello.
enum Greeting {
    /// The logs agree up to here.
    Resume(Seq),
    /// The log cannot bring us there.
    Scan,
    /// The sender is behind us; it shall come again.
    Wait,
    /// A real fork (L2).
    Fork(Seq, String),
}

impl Replica {
    /// L2: a predecessor or source begins a link.
    pub(super) fn on_hello(&mut self, now: Mono, from: NodeId, hello: Hello, out: &mut Outputs) {
        if !self.may_follow(from, &hello, out) {
            return;
        }
        let newer = |up: &UpLink| {
            up.peer != from
                || up.link.incarnation != hello.link.incarnation
                || up.link.no <= hello.link.no
        };
        if !self.up.as_ref().is_none_or(newer) {
            return;
        }
        match self.greet(&hello) {
            Greeting::Resume(at) => {
                if at < self.log.last() {
                    self.cut_log(at, out);
                    if !self.planted(Mutant::CutKeepsLinkDown) {
                        // L2: a cut breaks our own link downwards.
                        self.down.clear();
                    }
                }
                self.link_up(now, from, &hello, None);
                self.welcome(from, &hello, at, false, out);
            }
            Greeting::Scan => {
                let run = self.scan_run(now, &hello);
                self.link_up(now, from, &hello, Some(run));
                self.welcome(from, &hello, Seq::ZERO, true, out);
                self.pull(now, out);
                out.events.push(Event::Scan { done: false });
            }
            Greeting::Wait => {}
            Greeting::Fork(at, evidence) => {
                let body = Body::Fork {
                    link: hello.link,
                    at,
                    evidence: evidence.clone(),
                };
                self.send(from, body, out);
                self.fence(evidence, out);
            }
        }
    }

    /// Is the sender of this Hello the one we are to follow, and are we the ones it means (C4)?
    fn may_follow(&self, from: NodeId, hello: &Hello, out: &mut Outputs) -> bool {
        let Some(chain) = &self.chain else {
            return false;
        };
        let refused = |why: &str, out: &mut Outputs| {
            out.events.push(Event::PeerRefused {
                from,
                why: why.to_owned(),
            });
            false
        };
        let any_disk = self.planted(Mutant::DiskIdIgnored);
        if hello.to_disk != self.id.disk && !any_disk {
            return refused("its Hello is for another disk of this node (C4)", out);
        }
        if chain.member(from, hello.from_disk).is_none() && !any_disk {
            return refused("its Hello names a disk that is no member (C4)", out);
        }
        if hello.last < hello.retained_after || hello.origins.is_empty() {
            return refused("its Hello contradicts itself", out);
        }
        match self.role() {
            Some(Role::Middle | Role::Tail) => {
                !hello.learner
                    && chain
                        .predecessor(self.id.node)
                        .is_some_and(|m| m.node == from)
            }
            Some(Role::Head | Role::Solo) => false,
            None => hello.learner && self.learn,
        }
    }

    /// Compares the logs (L2). Nothing changes here.
    fn greet(&self, hello: &Hello) -> Greeting {
        let kept = self.commit.max(self.state.applied);
        // Whoever is synced for this stint has all that is committed; a scan is for the others.
        let may_scan = !self.is_synced();
        if self.scan_needed && may_scan {
            return Greeting::Scan;
        }
        let theirs = Origins::new(hello.origins.clone(), hello.retained_after);
        let by_epoch_only = self.planted(Mutant::IdentityByEpochAndSeq);
        let fork = self
            .log
            .origins
            .fork(self.log.last(), &theirs, hello.last, |a, b| {
                a == b || (by_epoch_only && a.epoch == b.epoch)
            });
        match fork {
            ForkPoint::Agreed { at, mine, theirs } => {
                if at < kept {
                    if hello.learner && theirs.is_none() {
                        // A source that knows of less than we do is not wrong, only late.
                        return Greeting::Wait;
                    }
                    if self.planted(Mutant::CutBelowCommit) {
                        return Greeting::Resume(at);
                    }
                    return Greeting::Fork(
                        at,
                        self.fork_evidence(at, hello, "below what is committed here"),
                    );
                }
                if let (Some(mine), Some(theirs)) = (mine, theirs)
                    && theirs.epoch < mine.epoch
                    && self.is_synced()
                {
                    return Greeting::Fork(
                        at,
                        self.fork_evidence(at, hello, "with an older epoch's record above"),
                    );
                }
                if self.state.scan.is_some() {
                    if at < self.state.applied || self.is_synced() {
                        return Greeting::Wait;
                    }
                    return Greeting::Scan;
                }
                Greeting::Resume(at)
            }
            ForkPoint::Below { known } if known <= kept => Greeting::Fork(
                known,
                self.fork_evidence(known, hello, "at or below what is committed here"),
            ),
            ForkPoint::Below { .. } | ForkPoint::Apart if may_scan && hello.last >= kept => {
                Greeting::Scan
            }
            ForkPoint::Below { .. } | ForkPoint::Apart if hello.learner => Greeting::Wait,
            ForkPoint::Below { known: at } => Greeting::Fork(
                at,
                self.fork_evidence(at, hello, "and nothing earlier is retained"),
            ),
            ForkPoint::Apart => {
                let at = self.log.last();
                Greeting::Fork(
                    at,
                    self.fork_evidence(at, hello, "and the logs share no position"),
                )
            }
        }
    }

    fn fork_evidence(&self, at: Seq, hello: &Hello, what: &str) -> String {
        format!(
            "rule L2: in epoch {} the logs of node {} (ends at {}, committed {}) and of its predecessor \
             (holds {}..{}) part after {at}, {what}",
            self.epoch(),
            self.id.node,
            self.log.last(),
            self.commit,
            hello.retained_after,
            hello.last,
        )
    }

    /// A scan goes on where it stopped if the source still has the log from its base on; else it starts anew.
    fn scan_run(&self, now: Mono, hello: &Hello) -> ScanRun {
        let resumable = !self.scan_needed && hello.retained_after <= self.state.applied;
        match self.state.scan.clone().filter(|_| resumable) {
            Some(ScanCursor { after, page_no }) => ScanRun {
                page_no,
                after,
                fresh: false,
                writing: None,
                asked_at: now,
            },
            None => ScanRun {
                page_no: 0,
                after: None,
                fresh: true,
                writing: None,
                asked_at: now,
            },
        }
    }

    fn link_up(&mut self, now: Mono, from: NodeId, hello: &Hello, scan: Option<ScanRun>) {
        self.up = Some(UpLink {
            peer: from,
            link: hello.link,
            watermark: Seq::ZERO,
            known_commit: if scan.is_some() {
                Seq::ZERO
            } else {
                hello.commit
            },
            learner: hello.learner,
            knocked: now,
            round_up: None,
            sent_commit: Seq::ZERO,
            sent_received: Seq::ZERO,
            sent_durable: Seq::ZERO,
            unsaid_bytes: 0,
            dirty: true,
            scan,
        });
        if self.role().is_some() && !self.in_sync {
            // S2: the end of the predecessor's log at this handshake.
            self.barrier = Some(hello.last);
        }
    }

    fn welcome(
        &self,
        to: NodeId,
        hello: &Hello,
        resume_after: Seq,
        scan_wanted: bool,
        out: &mut Outputs,
    ) {
        let welcome = Welcome {
            link: hello.link,
            incarnation: self.id.incarnation,
            disk: self.id.disk,
            resume_after,
            scan_wanted,
        };
        self.send(to, Body::Welcome(welcome), out);
    }

    /// Records, watermark and rounds come down.
    pub(super) fn on_forward(
        &mut self,
        now: Mono,
        from: NodeId,
        forward: Forward,
        out: &mut Outputs,
    ) {
        let on_link = |up: &UpLink| up.peer == from && up.link == forward.link;
        if !self.up.as_ref().is_some_and(on_link) {
            // L3: frames of other ids are dropped; the sender learns that its link is gone.
            return self.send(from, Body::Unlink { link: forward.link }, out);
        }
        for group in forward.groups {
            if group.last <= self.log.last() {
                continue;
            }
            let records = match group.decode() {
                Ok(records) if group.first == self.log.last().next() => records,
                found => {
                    let why = match found {
                        Ok(_) => format!(
                            "records from {} on do not follow {}",
                            group.first,
                            self.log.last()
                        ),
                        Err(error) => error.to_string(),
                    };
                    out.events.push(Event::PeerRefused { from, why });
                    self.up = None;
                    return self.send(from, Body::Unlink { link: forward.link }, out);
                }
            };
            if let Some(up) = &mut self.up {
                up.unsaid_bytes += group.weight();
            }
            out.persist.push(Persist::Append(group.clone()));
            self.take_in(group, records);
        }
        if let Some(up) = &mut self.up {
            up.watermark = up.watermark.max(forward.watermark);
            up.known_commit = up.known_commit.max(forward.commit);
        }
        if let Some(round) = forward.round {
            self.on_round_down(now, round, forward.link);
        }
        if let Some(round) = forward.completed {
            self.lease.complete(round);
        }
    }

    /// R1: promise, and pass the round on at the first sighting, on the link that exists now, or turn it round at the tail.
    fn on_round_down(&mut self, now: Mono, round: Round, via: LinkId) {
        if std::time::Duration::from_millis(u64::from(round.lease_ms)) > limits::LEASE_MAX {
            return;
        }
        self.promise(now, round);
        if !self.lease.on_down(now, round, via) {
            return;
        }
        if self.planted(Mutant::LeaseBeforeCompletion) {
            self.lease.complete(round);
        }
        match self.role() {
            Some(Role::Middle) => self.forward_round(round),
            Some(Role::Tail) => self.return_round(round),
            Some(Role::Head | Role::Solo) | None => {}
        }
    }

    /// The round goes up the link that it came down on.
    pub(super) fn return_round(&mut self, round: Round) {
        let via = self.lease.on_up(round).flatten();
        if let Some(up) = self.up.as_mut().filter(|up| Some(up.link) == via) {
            up.round_up = Some(round);
        }
    }

    /// Says upwards what is new: the commit point, what was received, what is durable, a round.
    pub(super) fn flush_up(&mut self, out: &mut Outputs) {
        let commit = self.commit.min(self.log.last());
        let (received, durable) = (self.log.last(), self.log.durable());
        // The window stays shut while the engine lags: memory is bounded by what the sender may send.
        let lagging = self.log.bytes_after(self.state.applied) > 2 * limits::PENDING_BYTES_MAX;
        let Some(up) = &mut self.up else { return };
        let received = if lagging { up.sent_received } else { received };
        let due = up.dirty
            || up.round_up.is_some()
            || (!up.learner && commit > up.sent_commit)
            || (up.learner && durable > up.sent_durable)
            || (up.unsaid_bytes >= RECEIVED_EVERY_BYTES && received > up.sent_received);
        if !due {
            return;
        }
        up.dirty = false;
        if received > up.sent_received {
            up.unsaid_bytes = 0;
        }
        (up.sent_commit, up.sent_received, up.sent_durable) = (commit, received, durable);
        let body = CommitUp {
            link: up.link,
            // A learner has no say in what is committed.
            commit: if up.learner { Seq::ZERO } else { commit },
            received,
            durable,
            round: up.round_up.take(),
        };
        let peer = up.peer;
        self.send(peer, Body::Commit(body), out);
    }

    /// M4: a source that gave the link up (its stream broke, it restarted) has forgotten us, and will not say so by itself.
    pub(super) fn knock(&mut self, now: Mono) {
        let due = |up: &&mut UpLink| up.learner && now.since(up.knocked) >= KNOCK_EVERY;
        if let Some(up) = self.up.as_mut().filter(due) {
            up.knocked = now;
            up.dirty = true;
        }
    }

    /// Asks for the next page of the source's state.
    fn pull(&mut self, now: Mono, out: &mut Outputs) {
        let Some(up) = &mut self.up else { return };
        let Some(scan) = &mut up.scan else { return };
        scan.asked_at = now;
        let pull = PullPage {
            link: up.link,
            page_no: scan.page_no,
            after: scan.after.clone(),
        };
        let peer = up.peer;
        self.send(peer, Body::PullPage(pull), out);
    }

    /// A page that did not come is asked for again.
    pub(super) fn pull_again(&mut self, now: Mono, out: &mut Outputs) {
        let waiting = self
            .up
            .as_ref()
            .and_then(|up| up.scan.as_ref())
            .filter(|s| s.writing.is_none());
        if waiting.is_some_and(|s| now.since(s.asked_at) >= 5 * limits::RETRY_EVERY) {
            self.pull(now, out);
        }
    }

    pub(super) fn on_state_page(
        &mut self,
        now: Mono,
        from: NodeId,
        page: StatePage,
        out: &mut Outputs,
    ) {
        let Some(up) = self
            .up
            .as_mut()
            .filter(|up| up.peer == from && up.link == page.link)
        else {
            return;
        };
        let Some(scan) = up.scan.as_mut().filter(|s| s.writing.is_none()) else {
            return;
        };
        // A source that restarted may be behind the position that this scan goes on from: its page would bring
        // back what was overwritten since. It is asked again once it has caught up.
        let behind = !scan.fresh && page.applied < self.state.applied;
        if page.page_no != scan.page_no || behind {
            return;
        }
        let in_order = page.rows.windows(2).all(|w| w[0].key < w[1].key)
            && page
                .rows
                .first()
                .is_none_or(|r| scan.after.as_ref().is_none_or(|a| r.key > *a));
        if !in_order || (page.rows.is_empty() && !page.last) {
            out.events.push(Event::PeerRefused {
                from,
                why: "its page is out of order".into(),
            });
            let link = page.link;
            self.up = None;
            return self.send(from, Body::Unlink { link }, out);
        }
        scan.after = page
            .rows
            .last()
            .map(|r| r.key.clone())
            .or(scan.after.take());
        scan.page_no += 1;
        scan.writing = Some(page.last);
        let cursor = ScanCursor {
            after: scan.after.clone(),
            page_no: scan.page_no,
        };
        let fresh = std::mem::take(&mut scan.fresh);
        if fresh {
            self.begin_state(now, &page, out);
        }
        self.state.merge_until = self.state.merge_until.max(page.applied);
        self.state.scan = Some(cursor);
        let progress = StateProgress {
            scan: self.state.scan.clone().filter(|_| !page.last),
            ..self.state.clone()
        };
        out.apply.push(Apply::Page {
            rows: page.rows,
            sessions: fresh.then_some(page.sessions),
            progress,
            page_no: page.page_no,
        });
    }

    /// The first page of a scan replaces log and state; both go on from the page's position.
    fn begin_state(&mut self, now: Mono, page: &StatePage, out: &mut Outputs) {
        self.lose_sync(out);
        self.scan_needed = false;
        self.reset_log(page.applied, page.applied_origin, out);
        out.apply.push(Apply::Wipe);
        self.commit = page.applied;
        self.applying = page.applied;
        self.flushed = Seq::ZERO;
        self.sessions = Sessions::new(page.sessions.clone());
        self.clock = super::head::LogClock::new(page.log_time, now);
        self.state = StateProgress {
            applied: page.applied,
            applied_origin: Some(page.applied_origin),
            log_time: page.log_time,
            merge_until: page.applied,
            scan: None,
        };
    }

    pub(super) fn on_page_applied(&mut self, now: Mono, page_no: u64, out: &mut Outputs) {
        let Some(up) = self.up.as_mut() else { return };
        let Some(scan) = up.scan.as_mut().filter(|s| s.page_no == page_no + 1) else {
            return;
        };
        match scan.writing.take() {
            None => {}
            Some(false) => self.pull(now, out),
            Some(true) => {
                // The rest comes from the log: the source is asked for a new handshake.
                self.state.scan = None;
                let (peer, link) = (up.peer, up.link);
                self.up = None;
                self.take_descent(out);
                self.send(peer, Body::Unlink { link }, out);
                out.events.push(Event::Scan { done: true });
            }
        }
    }
}
