//! What follows from everything else, after each step: in sync, commit, links, answers, applying (S2, DESIGN §3.2).

use catena_proto::config::Role;
use catena_proto::ids::Seq;
use catena_proto::time::Mono;

use super::{Apply, Event, Mutant, Outputs, Replica};

impl Replica {
    /// Draws every conclusion that the last input allows. Idempotent.
    pub(super) fn settle(&mut self, now: Mono, out: &mut Outputs) {
        self.settle_debts(now, out);
        self.settle_in_sync(out);
        self.advance_commit();
        self.open_links(now, out);
        self.flush_down(out);
        self.flush_up(out);
        self.reply_committed(out);
        self.apply_committed(out);
        self.arm_round(now, out);
        self.arm_retry(now, out);
    }

    /// S2: in sync once durable up to the barrier, the predecessor being in sync; not in debt (R3); durable before it counts (S1).
    fn settle_in_sync(&mut self, out: &mut Outputs) {
        if self.in_sync || !self.debts.none() || self.is_fenced() || !self.serving_phase() {
            return;
        }
        let Some(member) = self.membership() else {
            return;
        };
        let barrier_met = match (self.role(), self.barrier) {
            (_, None) => false,
            (Some(Role::Head | Role::Solo), Some(barrier)) => {
                // M3: an unsynced head or solo never becomes in sync by itself.
                self.is_synced() && self.log.durable() >= barrier
            }
            (_, Some(barrier)) => {
                // Only a predecessor that is in sync makes a link; a scan has to be over.
                let whole = self.up.as_ref().is_some_and(|up| up.scan.is_none())
                    && self.state.scan.is_none()
                    && !self.scan_needed;
                let reached = self.log.durable();
                // What a scan brought is in the state only: it must have survived a flush to count as durable.
                let whole = whole && self.flushed >= self.log.start();
                whole && (reached >= barrier || self.planted(Mutant::NoBarrier))
            }
        };
        if !barrier_met {
            return;
        }
        if !self.is_synced() {
            let stint = (member.disk, member.joined_epoch);
            self.change_meta(out, |meta| meta.synced_for = Some(stint));
            return;
        }
        self.in_sync = true;
        let event = Event::InSync {
            epoch: self.epoch(),
            joined_epoch: member.joined_epoch,
        };
        out.events.push(event);
    }

    /// The tail commits up to min(own durable, watermark); a follower knows what its peer told it.
    fn advance_commit(&mut self) {
        let durable = self.log.durable();
        if let Some(up) = self.up.as_ref().filter(|up| up.scan.is_none()) {
            self.commit = self.commit.max(up.known_commit.min(durable));
        }
        if !self.in_sync || !self.debts.none() {
            return;
        }
        let own = if self.planted(Mutant::CommitWithoutOwnSync) {
            self.log.last()
        } else {
            durable
        };
        let reached = match (self.role(), &self.up) {
            (Some(Role::Solo), _) => durable,
            (Some(Role::Tail), Some(up)) => own.min(up.watermark),
            _ => Seq::ZERO,
        };
        self.commit = self.commit.max(reached);
    }

    /// Hands the engine what was committed since the last time, in order.
    fn apply_committed(&mut self, out: &mut Outputs) {
        self.sessions.commit(self.commit);
        let scanning = self.state.scan.is_some() || self.scan_needed;
        if self.commit <= self.applying || scanning {
            return;
        }
        // Everything above `applying` is in memory: only what is applied is released.
        let groups = self
            .log
            .read(self.applying, self.commit, usize::MAX)
            .unwrap_or_default();
        if let Some(last) = groups.last().map(|g| g.last) {
            self.applying = last;
            out.apply.push(Apply::Groups {
                groups,
                merge_until: self.state.merge_until,
            });
        }
    }
}
