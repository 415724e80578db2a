//! The read path as pure functions over a published view (DESIGN §3.3).
//!
//! A reader takes a [`ReadView`], asks [`ReadView::admit`], looks at the
//! overlay and the engine, and asks [`ReadView::verify`] with a *fresh* view
//! before the answer leaves: a process that stalled in between answers nothing
//! (rule R2). A simulation interleaves these as separate steps.

use catena_proto::ids::{Epoch, Incarnation, Seq};
use catena_proto::time::Mono;

/// What a reader must know of a replica, taken at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadView {
    /// The epoch in force.
    pub epoch: Epoch,
    /// This start of the process.
    pub incarnation: Incarnation,
    /// Linearizable reads may be answered before this moment; [`Mono::ZERO`] without a lease. Solo needs none.
    pub lease_until: Mono,
    /// The only member: no lease is needed.
    pub solo: bool,
    /// A member of a serving chain, not fenced, in sync, commit point at or beyond the barrier (rule S2).
    pub barrier_passed: bool,
    /// The newest commit point known.
    pub commit: Seq,
    /// The state's applied position.
    pub applied: Seq,
}

/// Why a linearizable read is refused at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadRefusal {
    /// Not a member, not in sync, or behind the barrier.
    #[error("the replica is not in sync in this epoch")]
    NotInSync,
    /// The lease ran out, or was never had.
    #[error("the replica holds no lease")]
    NoLease,
    /// The chain changed while the read was under way.
    #[error("the chain changed during the read")]
    Changed,
}

impl ReadView {
    /// May a linearizable read begin now?
    ///
    /// # Errors
    /// [`ReadRefusal`]: another member may do better, or a retry.
    pub fn admit(&self, now: Mono) -> Result<(), ReadRefusal> {
        if !self.barrier_passed {
            return Err(ReadRefusal::NotInSync);
        }
        // R2: the lease is used strictly before its end.
        if !self.solo && now >= self.lease_until {
            return Err(ReadRefusal::NoLease);
        }
        Ok(())
    }

    /// May the answer of a read that began under `self` leave now, under the view `after`?
    ///
    /// # Errors
    /// [`ReadRefusal`]: the answer must be thrown away.
    pub fn verify(&self, after: &Self, now: Mono) -> Result<(), ReadRefusal> {
        // R2: the same epoch and incarnation at the start and at the answer.
        if after.epoch != self.epoch || after.incarnation != self.incarnation {
            return Err(ReadRefusal::Changed);
        }
        after.admit(now)
    }
}

/// What the overlay says about a key at a read's arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Nothing is committed and unapplied, nothing is pending: the engine has the answer.
    InEngine,
    /// The newest committed effect is here, and nothing newer is pending.
    Committed {
        /// The value, or `None` for a tombstone.
        value: Option<bytes::Bytes>,
        /// The record that did it.
        version: Seq,
    },
    /// A newer effect than the commit point is pending: wait until this position is committed, then look again.
    /// (What was not acknowledged may be cut; then the view's epoch or the overlay will say so.)
    WaitFor(Seq),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> ReadView {
        ReadView {
            epoch: Epoch::new(3),
            incarnation: Incarnation::new(9),
            lease_until: Mono::from_millis(500),
            solo: false,
            barrier_passed: true,
            commit: Seq::new(7),
            applied: Seq::new(7),
        }
    }

    #[test]
    fn a_read_is_refused_without_lease_and_when_it_ran_out_meanwhile() {
        let v = view();
        assert_eq!(v.admit(Mono::from_millis(499)), Ok(()));
        assert_eq!(v.admit(Mono::from_millis(500)), Err(ReadRefusal::NoLease));
        assert_eq!(
            v.verify(&v, Mono::from_millis(500)),
            Err(ReadRefusal::NoLease)
        );
    }

    #[test]
    fn an_answer_is_thrown_away_when_epoch_or_incarnation_changed() {
        let v = view();
        let now = Mono::from_millis(1);
        let newer = ReadView {
            epoch: Epoch::new(4),
            ..v
        };
        assert_eq!(v.verify(&newer, now), Err(ReadRefusal::Changed));
        let restarted = ReadView {
            incarnation: Incarnation::new(10),
            ..v
        };
        assert_eq!(v.verify(&restarted, now), Err(ReadRefusal::Changed));
    }

    #[test]
    fn solo_needs_no_lease_but_its_barrier() {
        let v = ReadView {
            solo: true,
            lease_until: Mono::ZERO,
            ..view()
        };
        assert_eq!(v.admit(Mono::from_millis(1)), Ok(()));
        let behind = ReadView {
            barrier_passed: false,
            ..v
        };
        assert_eq!(
            behind.admit(Mono::from_millis(1)),
            Err(ReadRefusal::NotInSync)
        );
    }
}
