//! Rules L and S: links, records, commit points, barriers, crashes.

use super::mutation::Mutation;
use super::rules::FineRules;
use super::state::{Broken, Late, Log, Member, Origin, Read, State, UNKNOWN};

impl FineRules {
    /// A node's place in the chain of its own epoch, if it is a member with its present disk (C4).
    pub(super) fn membership(self, state: &State, id: u8) -> Option<(usize, Member)> {
        let node = state.node(id);
        let config = state.config(node.epoch);
        let position = config.position(id).filter(|_| node.epoch != 0)?;
        let member = config.members()[position];
        (member.disk == node.disk || self.is(Mutation::DiskIdIgnored)).then_some((position, member))
    }

    /// The successor in the config of a node's own epoch, if it runs.
    fn successor(self, state: &State, id: u8) -> Option<u8> {
        let (position, _) = self.membership(state, id)?;
        let below = state
            .config(state.node(id).epoch)
            .members()
            .get(position + 1)?
            .node;
        let runs = |id: u8| state.node(id).up && !state.node(id).fenced;
        (runs(id) && runs(below)).then_some(below)
    }

    /// The successor, if it is in the same epoch (C3).
    pub(super) fn fellow_successor(self, state: &State, id: u8) -> Option<u8> {
        let below = self.successor(state, id)?;
        self.membership(state, below)?;
        (state.node(below).epoch == state.node(id).epoch).then_some(below)
    }

    /// The successor, if the link to it is live.
    pub(super) fn live_successor(self, state: &State, id: u8) -> Option<u8> {
        self.fellow_successor(state, id)
            .filter(|below| state.node(*below).linked)
    }

    /// To whom records go: the live successor, or with C3 weakened one in a newer epoch.
    pub(super) fn receiver(self, state: &State, id: u8) -> Option<u8> {
        let late = || {
            let below = self
                .successor(state, id)
                .filter(|_| self.is(Mutation::OldEpochAccepted))?;
            (state.node(below).epoch > state.node(id).epoch).then_some(below)
        };
        self.live_successor(state, id).or_else(late)
    }

    /// S1, R3: only who is in sync and owes nothing hands over.
    pub(super) fn may_hand_over(self, state: &State, id: u8) -> bool {
        let unsynced = self.is(Mutation::UnsyncedSource) || self.is(Mutation::AppendWhileJoining);
        let in_debt = Self::in_debt(state, id) && !self.is(Mutation::DebtorHandsOver);
        (state.node(id).in_sync || unsynced) && !in_debt
    }

    /// The head's write: logged with its origin (L1).
    pub(super) fn write(self, state: &mut State, head: u8) {
        state.writes += 1;
        let write = state.writes;
        let node = state.node_mut(head);
        node.log.push(write);
        if self.is(Mutation::AckBeforeSync) {
            node.durable = node.log.last();
        }
        let origin = Origin {
            epoch: node.epoch,
            incarnation: node.incarnation,
        };
        state.origins[usize::from(write) - 1] = origin;
    }

    /// How far two logs agree, and whether they may part there (L1, L2).
    fn compare(self, state: &State, from: u8, to: u8) -> (u8, bool) {
        let (above, below) = (state.node(from).log, state.node(to));
        let origin = |write: u8| state.origins[usize::from(write.max(1)) - 1];
        let same = |x: u8, y: u8| {
            x == y
                || (self.is(Mutation::IdentityByEpochAndSeq) && origin(x).epoch == origin(y).epoch)
        };
        let shorter = above.last().min(below.log.last());
        let agree = (0..shorter)
            .take_while(|at| same(above.at(*at), below.log.at(*at)))
            .count() as u8;
        let synced = self
            .membership(state, to)
            .is_some_and(|(_, member)| member.joined == below.synced);
        let older =
            agree < shorter && origin(above.at(agree)).epoch < origin(below.log.at(agree)).epoch;
        (agree, agree >= below.commit && !(older && synced))
    }

    /// L2: a link begins.
    pub(super) fn handshake(self, state: &mut State, from: u8, to: u8) {
        let (agree, may_cut) = self.compare(state, from, to);
        if !may_cut && !self.is(Mutation::CutBelowCommit) {
            state.node_mut(from).fenced = true;
            state.node_mut(to).fenced = true;
            if state.rollbacks == 0 {
                state.breaks_property(Broken::FalseAlarm);
            }
            return;
        }
        let end = state.node(from).log.last();
        let resent = state.node(from).seen;
        let resent = if state.round_epoch(resent) == state.node(from).epoch {
            resent
        } else {
            0
        };
        self.cut(state, to, agree);
        let node = state.node_mut(to);
        node.commit = node.commit.min(agree);
        node.linked = true;
        node.watermark = 0;
        if !node.in_sync {
            node.barrier = if self.is(Mutation::NoBarrier) { 0 } else { end };
        }
        if self.is(Mutation::RoundResent) {
            node.round_in = resent;
        }
    }

    /// L2, L3: a cut is a new generation, and breaks the link downwards.
    fn cut(self, state: &mut State, id: u8, last: u8) {
        let node = state.node_mut(id);
        let before = node.log.last();
        if last >= before {
            return;
        }
        if self.is(Mutation::StaleGeneration) && node.on_disk < before {
            node.stale_sync = before;
        }
        node.log.cut(last);
        node.on_disk = node.on_disk.min(last);
        node.durable = node.durable.min(last);
        if !self.is(Mutation::CutKeepsLinkDown) {
            self.unlink_below(state, id);
        }
    }

    /// Records, watermark, and the news of a complete round.
    pub(super) fn forward(self, state: &mut State, from: u8, to: u8) {
        let above = *state.node(from);
        let head = self
            .membership(state, from)
            .is_some_and(|(position, _)| position == 0);
        let node = state.node_mut(to);
        for at in node.log.last()..above.log.last() {
            node.log.push(above.log.at(at));
        }
        if self.is(Mutation::AckBeforeSync) {
            node.durable = node.log.last();
        }
        node.watermark = node.watermark.max(self.watermark(&above, head));
        node.complete = node.complete.max(above.complete);
    }

    /// Everybody above, and the sender, is durable up to here.
    pub(super) fn watermark(self, sender: &super::state::Node, head: bool) -> u8 {
        let own = if self.is(Mutation::WatermarkWithoutOwnSync) {
            sender.log.last()
        } else {
            sender.durable
        };
        if head { own } else { own.min(sender.watermark) }
    }

    /// L4: a learner gets committed records only, and takes them as such.
    pub(super) fn learn(self, state: &mut State, from: u8, to: u8) {
        let (agree, may_cut) = self.compare(state, from, to);
        if !may_cut {
            state.node_mut(to).fenced = true;
            state.breaks_property(Broken::FalseAlarm);
            return;
        }
        let source = *state.node(from);
        let end = self.learners_end(&source);
        let node = state.node_mut(to);
        node.log.cut(agree.min(end));
        for at in node.log.last()..end {
            node.log.push(source.log.at(at));
        }
        node.on_disk = node.log.last();
        node.durable = node.on_disk;
        node.commit = end;
        self.note_commit(state, to);
    }

    /// Up to where a learner gets records.
    pub(super) fn learners_end(self, source: &super::state::Node) -> u8 {
        if self.is(Mutation::LearnerUncommitted) {
            source.log.last()
        } else {
            source.commit
        }
    }

    /// C1, S2: a node enters an epoch.
    pub(super) fn accept(self, state: &mut State, id: u8, epoch: u8) {
        if epoch < state.node(id).epoch {
            state.breaks_property(Broken::EpochWentBack);
        }
        self.go_into_debt(state, id, epoch);
        state.node_mut(id).epoch = epoch;
        if !self.is(Mutation::LeaseSurvivesEpoch) {
            state.node_mut(id).complete = 0;
        }
        self.start_epoch(state, id);
        if matches!(state.read, Read::Admitted(n) | Read::LookedStale(n) if n == id)
            && !self.is(Mutation::ReadWithoutVerify)
        {
            state.read = Read::None;
        }
    }

    /// S2: links and barrier are gone; the head's barrier is its own end.
    fn start_epoch(self, state: &mut State, id: u8) {
        let head = self
            .membership(state, id)
            .is_some_and(|(position, _)| position == 0);
        let node = state.node_mut(id);
        node.in_sync = false;
        node.linked = false;
        node.watermark = 0;
        node.round_in = 0;
        node.barrier = if head { node.log.last() } else { UNKNOWN };
    }

    /// L3: whoever follows this node has no link any more, and what was under way on it is lost.
    fn unlink_below(self, state: &mut State, id: u8) {
        let epoch = state.node(id).epoch;
        let config = *state.config(epoch);
        let Some(below) = config
            .position(id)
            .and_then(|at| config.members().get(at + 1))
        else {
            return;
        };
        if state.node(below.node).epoch == epoch {
            self.unlink(state, below.node);
        } else {
            state.node_mut(below.node).round_out = 0;
        }
    }

    /// The link of a node to its predecessor breaks.
    pub(super) fn unlink(self, state: &mut State, id: u8) {
        if self.is(Mutation::OldLinkAccepted) {
            self.keep_late_frame(state, id);
        }
        let node = state.node_mut(id);
        node.linked = false;
        node.watermark = 0;
        node.round_in = 0;
        node.round_out = 0;
    }

    /// Mutation of L3: the frame that was under way arrives after all, later.
    fn keep_late_frame(self, state: &mut State, to: u8) {
        let Some((position, _)) = self.membership(state, to) else {
            return;
        };
        let members = *state.config(state.node(to).epoch);
        let Some(from) = position.checked_sub(1).map(|at| members.members()[at].node) else {
            return;
        };
        let (above, last) = (state.node(from).log, state.node(to).log.last());
        if state.node(to).linked && above.last() > last && state.late.write == 0 {
            state.late = Late {
                to,
                position: last,
                write: above.at(last),
            };
        }
    }

    /// A process dies; `kept` records are found again.
    pub(super) fn crash(self, state: &mut State, id: u8, kept: u8) {
        state.crashes += 1;
        if kept < state.node(id).on_disk {
            state.rollbacks += 1;
        }
        self.unlink_below(state, id);
        self.forget_promises(state, id);
        let node = state.node_mut(id);
        node.up = false;
        node.log.cut(kept);
        node.on_disk = kept;
        node.durable = kept;
        node.commit = 0;
        node.in_sync = false;
        node.linked = false;
        node.barrier = UNKNOWN;
        node.watermark = 0;
        node.seen = 0;
        node.complete = 0;
        node.round_in = 0;
        node.round_out = 0;
        node.stale_sync = 0;
        if matches!(state.read, Read::Admitted(n) | Read::LookedStale(n) if n == id) {
            state.read = Read::None;
        }
    }

    /// L5: it starts on what the disk kept; nothing is known to be committed.
    pub(super) fn restart(self, state: &mut State, id: u8) {
        let node = state.node_mut(id);
        node.up = true;
        node.incarnation += 1;
        if self.is(Mutation::CommitIsDurableOnStart) {
            node.commit = node.durable;
        }
        self.start_epoch(state, id);
    }

    /// C4: an empty disk; epoch and stint are gone with the old one.
    pub(super) fn swap_disk(self, state: &mut State, id: u8) {
        state.swaps += 1;
        let node = state.node_mut(id);
        node.disk += 1;
        node.epoch = 0;
        node.paid = 0;
        node.synced = 0;
        node.log = Log::default();
        node.on_disk = 0;
        node.durable = 0;
        node.unsure = node.ghosts != 0;
    }

    /// S1: what is left of a damaged log counts as nothing; only a fellow can repair it.
    pub(super) fn damage(state: &mut State, id: u8) {
        state.damages += 1;
        let node = state.node_mut(id);
        node.synced = 0;
        node.log = Log::default();
        node.on_disk = 0;
        node.durable = 0;
    }

    /// S2 and the tail's part of the commit point: what follows at once.
    pub(super) fn settle_node(self, state: &mut State, id: u8) {
        let in_debt = Self::in_debt(state, id);
        let node = *state.node(id);
        if !in_debt {
            state.node_mut(id).paid = node.epoch;
        }
        let Some((position, member)) = self.membership(state, id) else {
            return;
        };
        let stops = in_debt && !self.is(Mutation::DebtorHandsOver);
        if stops || !node.up || node.fenced {
            return;
        }
        let reached = if self.is(Mutation::InSyncOnReceipt) {
            node.log.last()
        } else {
            node.durable
        };
        let synced = node.synced == member.joined || self.is(Mutation::UnsyncedHeadServes);
        let follows = if position == 0 { synced } else { node.linked };
        if follows && node.barrier <= reached && node.barrier != UNKNOWN {
            let node = state.node_mut(id);
            node.in_sync = true;
            node.synced = member.joined;
        }
        let tail = position + 1 == state.config(node.epoch).members().len();
        if tail && state.node(id).in_sync && !in_debt {
            let own = if self.is(Mutation::CommitWithoutOwnSync) {
                node.log.last()
            } else {
                node.durable
            };
            let reached = if position == 0 {
                own
            } else {
                own.min(node.watermark)
            };
            let node = state.node_mut(id);
            node.commit = node.commit.max(reached);
        }
        self.note_commit(state, id);
    }
}
