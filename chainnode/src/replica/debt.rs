//! Debts of leases that others may still use (rules R3 and R4).
//!
//! A member that takes a newer epoch must not let that epoch commit anything
//! while a fellow may still serve reads under an older one, on the strength of
//! this member's promise. Leases: Gray and Cheriton, SOSP 1989.

use catena_proto::ids::{Epoch, NodeId};
use catena_proto::time::Mono;

/// What was promised in one epoch, to everybody in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Promise {
    pub(super) epoch: Epoch,
    pub(super) fellows: Vec<NodeId>,
    pub(super) until: Mono,
}

/// What is owed, to whom, until when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Debts {
    owed: Vec<(NodeId, Mono)>,
    /// Owed to members that a restart forgot (R4): only time pays it.
    blanket: Mono,
}

impl Debts {
    pub(super) fn add(&mut self, to: NodeId, until: Mono) {
        match self.owed.iter_mut().find(|(node, _)| *node == to) {
            Some((_, old)) => *old = (*old).max(until),
            None => self.owed.push((to, until)),
        }
    }

    pub(super) fn add_blanket(&mut self, until: Mono) {
        self.blanket = self.blanket.max(until);
    }

    /// The fellow announced an epoch at least as new as ours: it serves no older one.
    pub(super) fn paid_by(&mut self, fellow: NodeId) {
        self.owed.retain(|(node, _)| *node != fellow);
    }

    /// Drops what has run out.
    pub(super) fn expire(&mut self, now: Mono) {
        self.owed.retain(|(_, until)| *until > now);
        if self.blanket <= now {
            self.blanket = Mono::ZERO;
        }
    }

    pub(super) fn clear(&mut self) {
        self.owed.clear();
    }

    pub(super) const fn none(&self) -> bool {
        self.owed.is_empty() && self.blanket.as_nanos() == 0
    }

    pub(super) fn fellows(&self) -> impl Iterator<Item = NodeId> {
        self.owed.iter().map(|(node, _)| *node)
    }

    /// When the next debt runs out.
    pub(super) fn next_end(&self) -> Option<Mono> {
        let blanket = (self.blanket != Mono::ZERO).then_some(self.blanket);
        self.owed
            .iter()
            .map(|(_, until)| *until)
            .chain(blanket)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debts_are_paid_by_announcement_or_time_and_a_blanket_by_time_only() {
        let mut debts = Debts::default();
        debts.add(NodeId::new(1), Mono::from_millis(10));
        debts.add(NodeId::new(1), Mono::from_millis(5));
        debts.add(NodeId::new(2), Mono::from_millis(20));
        debts.expire(Mono::from_millis(9));
        assert_eq!(debts.next_end(), Some(Mono::from_millis(10)));
        debts.paid_by(NodeId::new(1));
        debts.expire(Mono::from_millis(20));
        assert!(debts.none());
        debts.add_blanket(Mono::from_millis(30));
        debts.paid_by(NodeId::new(1));
        assert!(!debts.none());
        debts.expire(Mono::from_millis(30));
        assert!(debts.none());
    }
}
