//! Lease rounds and promises (rules R1 and R2) of one replica in one epoch.

use std::collections::VecDeque;
use std::time::Duration;

use catena_proto::ids::{Incarnation, LinkId, RoundNo};
use catena_proto::limits;
use catena_proto::message::Round;
use catena_proto::time::Mono;

/// Rounds remembered: as many as can be under way within the longest lease at the shortest pace that is sensible.
const SEEN_MAX: usize = 64;

#[derive(Clone, Debug)]
struct SeenRound {
    round: Round,
    /// Read before the round was forwarded (R2).
    at: Mono,
    /// The link that it came down on; `None` at the head that started it.
    via: Option<LinkId>,
}

/// The lease of one member in one epoch; a new epoch starts with none.
#[derive(Clone, Debug, Default)]
pub(super) struct Lease {
    seen: VecDeque<SeenRound>,
    until: Mono,
    completed: Option<Round>,
    last_no: RoundNo,
}

impl Lease {
    /// Linearizable reads may be answered before this moment.
    pub(super) const fn until(&self) -> Mono {
        self.until
    }

    /// The newest round known to be complete.
    pub(super) const fn completed(&self) -> Option<Round> {
        self.completed
    }

    /// The head starts a round (R1).
    pub(super) fn start(&mut self, now: Mono, head: Incarnation, lease_ms: u32) -> Round {
        self.last_no = self.last_no.next();
        let round = Round {
            incarnation: head,
            no: self.last_no,
            lease_ms,
        };
        self.remember(SeenRound {
            round,
            at: now,
            via: None,
        });
        round
    }

    /// A round came down; true on the first sighting, when it is to be forwarded (R1).
    pub(super) fn on_down(&mut self, now: Mono, round: Round, via: LinkId) -> bool {
        if self.find(round).is_some() {
            return false;
        }
        self.remember(SeenRound {
            round,
            at: now,
            via: Some(via),
        });
        true
    }

    /// A round came up; the link that it had come down on (`Some(None)` at the head), or `None` if it was never seen.
    pub(super) fn on_up(&self, round: Round) -> Option<Option<LinkId>> {
        self.find(round).map(|seen| seen.via)
    }

    /// The round is complete: every member has promised. The lease counts from this round's own sighting (R2).
    pub(super) fn complete(&mut self, round: Round) {
        let Some(at) = self.find(round).map(|seen| seen.at) else {
            return;
        };
        self.until = self.until.max(at.plus(limits::shortened(lease_of(round))));
        let newer = self
            .completed
            .is_none_or(|c| c.incarnation != round.incarnation || c.no < round.no);
        if newer {
            self.completed = Some(round);
        }
    }

    fn find(&self, round: Round) -> Option<&SeenRound> {
        self.seen.iter().rev().find(|seen| seen.round == round)
    }

    fn remember(&mut self, seen: SeenRound) {
        if self.seen.len() == SEEN_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(seen);
    }
}

/// L of a round.
pub(super) fn lease_of(round: Round) -> Duration {
    Duration::from_millis(u64::from(round.lease_ms))
}

/// Until when a sighting at `now` binds the member that made it (R1).
pub(super) fn promise_until(now: Mono, round: Round) -> Mono {
    now.plus(limits::stretched(lease_of(round)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Incarnation = Incarnation::new(4);
    const VIA: LinkId = LinkId {
        incarnation: HEAD,
        no: 1,
    };

    #[test]
    fn a_lease_counts_from_its_own_rounds_sighting_and_only_once_complete() {
        let mut lease = Lease::default();
        let first = Round {
            incarnation: HEAD,
            no: RoundNo::new(1),
            lease_ms: 500,
        };
        let second = Round {
            no: RoundNo::new(2),
            ..first
        };
        assert!(lease.on_down(Mono::from_millis(100), first, VIA));
        assert!(
            !lease.on_down(Mono::from_millis(150), first, VIA),
            "the second sighting"
        );
        assert!(lease.on_down(Mono::from_millis(200), second, VIA));
        assert_eq!(lease.until(), Mono::ZERO);
        lease.complete(first);
        assert!(lease.until() < Mono::from_millis(600));
        assert!(lease.until() > Mono::from_millis(599));
        let unknown = Round {
            no: RoundNo::new(9),
            ..first
        };
        lease.complete(unknown);
        assert!(
            lease.until() < Mono::from_millis(600),
            "a round that was never seen gives nothing"
        );
    }
}
