//! The predecessor's end of a link, and a learner's source (rules L2 to L4, R1, M4).

use std::collections::VecDeque;
use std::time::Duration;

use catena_proto::config::Role;
use catena_proto::ids::{DiskId, LinkId, NodeId, Seq};
use catena_proto::limits;
use catena_proto::message::{Body, CommitUp, Forward, Hello, PullPage, Round, StatePage, Welcome};
use catena_proto::record::Group;
use catena_proto::time::Mono;

use super::{Event, LogRead, Mutant, Outputs, PageRead, Replica, Timer, log};

/// Learners that one replica feeds at a time; more wait for their turn.
const LEARNERS_MAX: usize = 4;
/// A scan that nobody asks for any more holds the log this long.
const PIN_FOR: Duration = Duration::from_secs(60);

/// A link to the successor or to a learner.
#[derive(Clone, Debug)]
pub(super) struct DownLink {
    pub(super) peer: NodeId,
    disk: DiskId,
    link: LinkId,
    pub(super) learner: bool,
    /// The follower has welcomed us: the log is cut and records may flow.
    live: bool,
    /// What the follower wished at its first Welcome: where to go on, and whether it scans.
    welcomed: (Seq, bool),
    /// The follower pulls the state first; records wait.
    scanning: bool,
    /// The end that our Hello named.
    hello_last: Seq,
    hello_at: Option<Mono>,
    sent: Seq,
    in_flight: VecDeque<(Seq, usize)>,
    in_flight_bytes: usize,
    /// A part of the log is being read from disk for it.
    reading: bool,
    sent_watermark: Seq,
    sent_commit: Seq,
    sent_completed: Option<Round>,
    round: Option<Round>,
    /// What the follower says is durable there.
    pub(super) durable: Seq,
}

/// Keeps the log from `at` on for a follower that scans.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pin {
    pub(super) at: Seq,
    until: Mono,
}

impl DownLink {
    /// The follower has welcomed us.
    pub(super) const fn is_live(&self) -> bool {
        self.live
    }
}

impl Replica {
    /// Opens the link to the successor as soon as that is allowed (S1, R3).
    pub(super) fn open_links(&mut self, now: Mono, out: &mut Outputs) {
        if !self.may_hand_over() || self.down.iter().any(|d| !d.learner) {
            return;
        }
        let successor = self
            .chain
            .as_ref()
            .and_then(|c| c.successor(self.id.node))
            .copied();
        if let Some(member) = successor {
            let link = self.make_link(member.node, member.disk, false);
            self.down.insert(0, link);
            self.say_hello(now, member.node, out);
        }
    }

    fn may_hand_over(&self) -> bool {
        let unsynced = self.planted(Mutant::UnsyncedSource) && self.debts.none();
        (self.in_sync || unsynced)
            && self.role().is_some()
            && self.serving_phase()
            && !self.is_fenced()
    }

    fn make_link(&mut self, peer: NodeId, disk: DiskId, learner: bool) -> DownLink {
        self.links_made += 1;
        let link = LinkId {
            incarnation: self.id.incarnation,
            no: self.links_made,
        };
        DownLink {
            peer,
            disk,
            link,
            learner,
            live: false,
            welcomed: (Seq::ZERO, false),
            scanning: false,
            hello_last: Seq::ZERO,
            hello_at: None,
            sent: Seq::ZERO,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            reading: false,
            sent_watermark: Seq::ZERO,
            sent_commit: Seq::ZERO,
            sent_completed: None,
            round: None,
            durable: Seq::ZERO,
        }
    }

    fn find_down(&self, peer: NodeId) -> Option<usize> {
        self.down.iter().position(|d| d.peer == peer)
    }

    fn say_hello(&mut self, now: Mono, to: NodeId, out: &mut Outputs) {
        let Some(at) = self.find_down(to) else { return };
        let uncommitted = !self.down[at].learner || self.planted(Mutant::LearnerUncommitted);
        let last = if uncommitted {
            self.log.last()
        } else {
            self.commit
        };
        let retained_after = self.log.sendable_after().min(last);
        let origins = self
            .log
            .origins
            .from(retained_after)
            .into_iter()
            .filter(|s| s.first <= last)
            .collect();
        let down = &mut self.down[at];
        down.hello_at = Some(now);
        down.hello_last = last;
        let hello = Hello {
            link: down.link,
            learner: down.learner,
            from_disk: self.id.disk,
            to_disk: down.disk,
            retained_after,
            last,
            commit: self.commit,
            origins,
        };
        self.send(to, Body::Hello(hello), out);
        self.arm(Timer::Retry, now.plus(limits::RETRY_EVERY), out);
    }

    /// The fellow has just reached our epoch: an unanswered Hello is worth repeating at once.
    pub(super) fn greet_again(&mut self, now: Mono, to: NodeId, out: &mut Outputs) {
        if self.find_down(to).is_some_and(|at| !self.down[at].live) {
            self.say_hello(now, to, out);
        }
    }

    pub(super) fn on_welcome(
        &mut self,
        now: Mono,
        from: NodeId,
        welcome: Welcome,
        out: &mut Outputs,
    ) {
        let Some(at) = self.find_down(from) else {
            return;
        };
        let base = self.log.sendable_after();
        let any_disk = self.planted(Mutant::DiskIdIgnored);
        let down = &mut self.down[at];
        if down.link != welcome.link {
            return;
        }
        let wish = (welcome.resume_after, welcome.scan_wanted);
        if down.live {
            if down.welcomed != wish {
                // Our Hello came twice, and the follower followed somebody else in between: a new link (L3).
                let link = down.link;
                self.on_link_lost(from);
                self.send(from, Body::Unlink { link }, out);
            }
            return;
        }
        let in_log = welcome.scan_wanted
            || (welcome.resume_after >= base.min(down.hello_last)
                && welcome.resume_after <= down.hello_last);
        if (welcome.disk != down.disk && !any_disk) || !in_log {
            let why = format!("it wants to go on after {}", welcome.resume_after);
            out.events.push(Event::PeerRefused { from, why });
            return;
        }
        down.live = true;
        down.welcomed = wish;
        down.scanning = welcome.scan_wanted;
        down.sent = welcome.resume_after;
        let learner = down.learner;
        if !welcome.scan_wanted {
            self.pins.remove(&from);
        }
        out.events.push(Event::LinkUp { to: from, learner });
        if !learner && self.role() == Some(Role::Head) {
            // A new link carries a round at once: leases need not wait for the timer.
            self.start_round(now);
        }
    }

    /// R1: the head starts a round on the link that exists now.
    pub(super) fn start_round(&mut self, now: Mono) {
        let live = self.down.first().is_some_and(|d| !d.learner && d.live);
        if self.role() != Some(Role::Head) || !live {
            return;
        }
        let lease_ms = self.settings.lease_ms;
        let round = self.lease.start(now, self.id.incarnation, lease_ms);
        self.promise(now, round);
        if self.planted(Mutant::LeaseBeforeCompletion) {
            self.lease.complete(round);
        }
        self.forward_round(round);
    }

    /// On the successor's link of this moment, or not at all (R1).
    pub(super) fn forward_round(&mut self, round: Round) {
        if let Some(down) = self.down.first_mut().filter(|d| !d.learner && d.live) {
            down.round = Some(round);
        }
    }

    /// Commit point, receipts and rounds come up.
    pub(super) fn on_commit(
        &mut self,
        now: Mono,
        from: NodeId,
        commit: CommitUp,
        out: &mut Outputs,
    ) {
        let Some(at) = self.find_down(from) else {
            let outside = self
                .chain
                .as_ref()
                .is_some_and(|c| c.position(from).is_none());
            if outside {
                // M4: a learner follows a link that is gone here; it shall ask again.
                self.send(from, Body::Unlink { link: commit.link }, out);
            }
            return;
        };
        let down = &mut self.down[at];
        if down.link != commit.link || !down.live {
            return;
        }
        down.durable = down.durable.max(commit.durable);
        while down
            .in_flight
            .front()
            .is_some_and(|(last, _)| *last <= commit.received)
        {
            if let Some((_, bytes)) = down.in_flight.pop_front() {
                down.in_flight_bytes -= bytes;
            }
        }
        if down.learner {
            return;
        }
        // L5: at most our own log's end; and what is committed is durable everywhere, so here too.
        let commit_up = commit.commit.min(self.log.durable());
        self.commit = self.commit.max(commit_up);
        if let Some(round) = commit.round {
            self.on_round_up(now, round);
        }
    }

    fn on_round_up(&mut self, now: Mono, round: Round) {
        if Duration::from_millis(u64::from(round.lease_ms)) > limits::LEASE_MAX {
            return;
        }
        self.promise(now, round);
        match self.lease.on_up(round) {
            // It was ours: every member has seen it.
            Some(None) => self.lease.complete(round),
            Some(Some(_)) => self.return_round(round),
            None => {}
        }
    }

    /// M4: a node asks to follow as a learner.
    pub(super) fn on_follow(&mut self, now: Mono, from: NodeId, disk: DiskId, out: &mut Outputs) {
        let is_member = self
            .chain
            .as_ref()
            .is_some_and(|c| c.position(from).is_some());
        let learners = self
            .down
            .iter()
            .filter(|d| d.learner && d.peer != from)
            .count();
        if !self.may_hand_over() || is_member || learners >= LEARNERS_MAX {
            return;
        }
        self.down.retain(|d| d.peer != from);
        let link = self.make_link(from, disk, true);
        self.down.push(link);
        self.say_hello(now, from, out);
    }

    pub(super) fn on_pull_page(
        &mut self,
        now: Mono,
        from: NodeId,
        pull: PullPage,
        out: &mut Outputs,
    ) {
        let known = self
            .down
            .iter()
            .any(|d| d.peer == from && d.link == pull.link && d.scanning);
        if !known {
            return self.send(from, Body::Unlink { link: pull.link }, out);
        }
        if let Some(pin) = self.pins.get_mut(&from) {
            pin.until = now.plus(PIN_FOR);
        }
        let PullPage {
            link,
            page_no,
            after,
        } = pull;
        out.page_reads.push(PageRead {
            to: from,
            link,
            page_no,
            after,
        });
    }

    pub(super) fn on_page_read(
        &mut self,
        now: Mono,
        to: NodeId,
        page: Box<StatePage>,
        out: &mut Outputs,
    ) {
        let known = self
            .down
            .iter()
            .any(|d| d.peer == to && d.link == page.link && d.scanning);
        if !known {
            return;
        }
        // M4: the log from the first page's position on is what makes the copy whole.
        let pin = self.pins.entry(to).or_insert(Pin {
            at: page.applied,
            until: Mono::ZERO,
        });
        if page.page_no == 0 {
            pin.at = page.applied;
        }
        pin.until = now.plus(PIN_FOR);
        self.send(to, Body::StatePage(page), out);
    }

    /// The other end gives the link up: the successor is greeted anew, a learner asks again.
    pub(super) fn on_unlink(&mut self, from: NodeId, link: LinkId) {
        self.down.retain(|d| d.peer != from || d.link != link);
        if self
            .up
            .as_ref()
            .is_some_and(|up| up.peer == from && up.link == link)
        {
            self.up = None;
        }
    }

    /// The other end found a real fork: we stop as well (L2).
    pub(super) fn on_fork(
        &mut self,
        from: NodeId,
        link: LinkId,
        evidence: String,
        out: &mut Outputs,
    ) {
        if self.down.iter().any(|d| d.peer == from && d.link == link) {
            self.fence(evidence, out);
        }
    }

    /// Messages to this fellow may be lost: links to it begin anew, and what was said upwards is said again.
    pub(super) fn on_link_lost(&mut self, to: NodeId) {
        if let Some(at) = self.find_down(to) {
            let old = self.down.remove(at);
            if !old.learner {
                // Greeted by the retry timer: the stream is down at this moment.
                let link = self.make_link(to, old.disk, false);
                self.down.insert(0, link);
            }
        }
        if let Some(up) = self.up.as_mut().filter(|up| up.peer == to) {
            up.dirty = true;
        }
    }

    pub(super) fn on_log_read(&mut self, link: LinkId, groups: Vec<Group>, out: &mut Outputs) {
        let Some(at) = self.down.iter().position(|d| d.link == link && d.reading) else {
            return;
        };
        self.down[at].reading = false;
        let limit = self.send_limit(at);
        let sent = self.down[at].sent;
        let groups: Vec<Group> = groups
            .iter()
            .filter_map(|g| log::slice(g, sent, limit))
            .collect();
        if groups.first().is_none_or(|g| g.first != sent.next()) {
            // The log no longer has it: a new handshake finds out what to do.
            let peer = self.down[at].peer;
            self.on_link_lost(peer);
            return;
        }
        self.forward(at, groups, out);
    }

    /// How far this follower may be sent records: a learner gets what is committed (L4).
    fn send_limit(&self, at: usize) -> Seq {
        if self.down[at].learner && !self.planted(Mutant::LearnerUncommitted) {
            self.commit
        } else {
            self.log.last()
        }
    }

    /// Sends down every link what is new: records, the watermark, a round.
    pub(super) fn flush_down(&mut self, out: &mut Outputs) {
        for at in 0..self.down.len() {
            if !self.down[at].live {
                continue;
            }
            let limit = self.send_limit(at);
            loop {
                let down = &self.down[at];
                let window = limits::FORWARD_WINDOW_BYTES_MAX.saturating_sub(down.in_flight_bytes);
                if down.scanning || down.reading || down.sent >= limit || window == 0 {
                    break;
                }
                let bytes_max = window.min(limits::LINK_FRAME_BYTES_TARGET);
                match self.log.read(down.sent, limit, bytes_max) {
                    Some(groups) if !groups.is_empty() => self.forward(at, groups, out),
                    Some(_) => break,
                    None => {
                        let read = LogRead {
                            link: down.link,
                            after: down.sent,
                            bytes_max,
                        };
                        self.down[at].reading = true;
                        out.log_reads.push(read);
                        break;
                    }
                }
            }
            let watermark = self.watermark_down();
            let down = &self.down[at];
            let news = down.round.is_some()
                || (!down.learner && watermark > down.sent_watermark)
                || (!down.learner && self.lease.completed() != down.sent_completed)
                || (down.learner && self.commit > down.sent_commit && down.sent >= self.commit);
            if news {
                self.forward(at, Vec::new(), out);
            }
        }
    }

    fn forward(&mut self, at: usize, groups: Vec<Group>, out: &mut Outputs) {
        let watermark = self.watermark_down();
        let (commit, completed) = (self.commit, self.lease.completed());
        let down = &mut self.down[at];
        if let Some(last) = groups.last().map(|g| g.last) {
            let bytes = groups.iter().map(Group::weight).sum();
            down.in_flight.push_back((last, bytes));
            down.in_flight_bytes += bytes;
            down.sent = last;
        }
        let learner = down.learner;
        down.sent_watermark = watermark;
        down.sent_commit = commit;
        down.sent_completed = completed;
        let forward = Forward {
            link: down.link,
            groups,
            watermark: if learner { Seq::ZERO } else { watermark },
            commit: if learner { commit } else { Seq::ZERO },
            round: down.round.take(),
            completed: completed.filter(|_| !learner),
        };
        let peer = down.peer;
        self.send(peer, Body::Forward(forward), out);
    }

    /// Everybody from the head to here is durable up to this position.
    fn watermark_down(&self) -> Seq {
        let own = if self.planted(Mutant::WatermarkWithoutOwnSync) {
            self.log.last()
        } else {
            self.log.durable()
        };
        match (&self.up, self.role()) {
            (_, Some(Role::Head | Role::Solo)) => own,
            (Some(up), _) => own.min(up.watermark),
            (None, _) => Seq::ZERO,
        }
    }

    /// What was not answered is said again: announcements, Hellos, Follow, pulls, and what may be lost.
    pub(super) fn on_retry_timer(&mut self, now: Mono, out: &mut Outputs) {
        if now < self.announce_until || !self.debts.none() {
            self.announce(out);
        }
        for peer in self
            .down
            .iter()
            .filter(|d| !d.live)
            .map(|d| d.peer)
            .collect::<Vec<_>>()
        {
            self.say_hello(now, peer, out);
        }
        self.pull_again(now, out);
        self.knock(now);
        self.follow(now, out);
        self.pins.retain(|_, pin| pin.until > now);
    }

    /// Keeps the retry timer running while there is something to say again.
    pub(super) fn arm_retry(&mut self, now: Mono, out: &mut Outputs) {
        let announcing = !self.unheard.is_empty() && now < self.announce_until;
        let scanning = self.up.as_ref().is_some_and(|up| up.scan.is_some());
        let following = self.up.as_ref().is_some_and(|up| up.learner);
        let seeking = self.learn && self.role().is_none() && self.up.is_none();
        if announcing
            || scanning
            || following
            || seeking
            || !self.debts.none()
            || !self.pins.is_empty()
            || self.down.iter().any(|d| !d.live)
        {
            let at = now.plus(limits::RETRY_EVERY);
            if self.armed[Timer::Retry as usize].is_none() {
                self.arm(Timer::Retry, at, out);
            }
        }
    }

    /// M4: a learner without a link asks a member to be its source: the tail first, then the others in turn.
    pub(super) fn follow(&mut self, now: Mono, out: &mut Outputs) {
        if !self.learn || self.role().is_some() || self.up.is_some() || self.is_fenced() {
            return;
        }
        let Some(chain) = self.chain.as_ref().filter(|_| self.serving_phase()) else {
            return;
        };
        let members = chain.members.len();
        // A few tries each: a source that is about to answer is not given up at once.
        let source = chain.members[members - 1 - (self.follow_attempt / 4) % members].node;
        self.follow_attempt += 1;
        let (disk, incarnation) = (self.id.disk, self.id.incarnation);
        self.send(source, Body::Follow { disk, incarnation }, out);
        self.arm(Timer::Retry, now.plus(limits::RETRY_EVERY), out);
    }

    pub(super) fn on_learn(&mut self, on: bool) {
        self.learn = on;
        if !on && self.role().is_none() {
            self.up = None;
        }
    }
}
