//! Names for writes: one session per shard, a slot for each write under way, a rising number per slot.
//!
//! DESIGN §3.4: a slot has one request outstanding. A slot is given back when its
//! write has ended, whatever the outcome; should an abandoned try still
//! arrive, the slot has seen a later number by then and refuses it.

use catena_proto::ids::{RequestNo, SessionId, SlotNo};
use catena_proto::limits::SESSION_SLOTS_MAX;
use catena_proto::op::RequestId;

/// Why no name can be given now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoName {
    /// There is no session: open one.
    NoSession,
    /// Every slot has a write under way: wait for one to end.
    NoSlot,
}

/// The session of one shard, and what its slots do.
#[derive(Debug, Default)]
pub(crate) struct SessionPlan {
    session: Option<SessionId>,
    /// The last number used, by slot. It outlives the session: numbers only rise.
    last_no: Vec<RequestNo>,
    /// Slots that can be used; the one given back last is used first, so that few stay in use.
    free: Vec<SlotNo>,
    /// Slots from here on were never used under this session.
    fresh: u16,
}

impl SessionPlan {
    /// The open session.
    pub(crate) const fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// A name for a new write.
    pub(crate) fn take(&mut self) -> Result<RequestId, NoName> {
        let session = self.session.ok_or(NoName::NoSession)?;
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.fresh < SESSION_SLOTS_MAX => {
                let slot = SlotNo::new(self.fresh);
                self.fresh += 1;
                slot
            }
            None => return Err(NoName::NoSlot),
        };
        let at = usize::from(slot.get());
        if self.last_no.len() <= at {
            self.last_no.resize(at + 1, RequestNo::ZERO);
        }
        let no = self.last_no[at].next();
        self.last_no[at] = no;
        Ok(RequestId { session, slot, no })
    }

    /// The write of this name has ended.
    pub(crate) fn give_back(&mut self, request: RequestId) {
        if self.session == Some(request.session) {
            self.free.push(request.slot);
        }
    }

    /// A session was opened. One that is open already stays: the newer one ends by itself, idle.
    pub(crate) fn opened(&mut self, session: SessionId) {
        if self.session.is_none() {
            self.session = Some(session);
            self.free.clear();
            self.fresh = 0;
        }
    }

    /// A node does not know this session any more.
    pub(crate) fn lost(&mut self, session: SessionId) {
        if self.session == Some(session) {
            self.session = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slots_run_out_and_come_back() {
        let mut plan = SessionPlan::default();
        assert_eq!(plan.take(), Err(NoName::NoSession));
        plan.opened(SessionId::new(7));
        let names: Vec<_> = (0..SESSION_SLOTS_MAX)
            .map(|_| plan.take().expect("a slot is free"))
            .collect();
        assert_eq!(plan.take(), Err(NoName::NoSlot));
        plan.give_back(names[3]);
        let again = plan.take().expect("it was given back");
        assert_eq!(again.slot, names[3].slot);
        assert!(again.no > names[3].no);
    }

    #[test]
    fn a_name_of_a_lost_session_gives_nothing_back() {
        let mut plan = SessionPlan::default();
        plan.opened(SessionId::new(7));
        let old = plan.take().expect("fresh");
        plan.lost(SessionId::new(7));
        plan.opened(SessionId::new(9));
        plan.opened(SessionId::new(11));
        assert_eq!(plan.session(), Some(SessionId::new(9)));
        plan.give_back(old);
        let (a, b) = (plan.take().expect("fresh"), plan.take().expect("fresh"));
        assert_ne!(a.slot, b.slot);
        plan.lost(SessionId::new(7));
        assert_eq!(plan.session(), Some(SessionId::new(9)));
    }

    proptest! {
        #[test]
        fn no_name_is_ever_given_twice_and_no_slot_is_shared(steps in prop::collection::vec(0..10_u8, 1..400)) {
            let mut plan = SessionPlan::default();
            let mut next_session = 1;
            let mut held: Vec<RequestId> = Vec::new();
            let mut used = BTreeSet::new();
            let mut newest: BTreeMap<(SessionId, SlotNo), RequestNo> = BTreeMap::new();
            for step in steps {
                match step {
                    0 => {
                        plan.opened(SessionId::new(next_session));
                        next_session += 1;
                    }
                    1 => {
                        if let Some(session) = plan.session() {
                            plan.lost(session);
                        }
                    }
                    2..=4 if !held.is_empty() => plan.give_back(held.remove(usize::from(step) % held.len())),
                    _ => {
                        if let Ok(name) = plan.take() {
                            prop_assert!(used.insert(name));
                            prop_assert!(held.iter().all(|h| (h.session, h.slot) != (name.session, name.slot)));
                            let before = newest.insert((name.session, name.slot), name.no);
                            prop_assert!(before.is_none_or(|before| before < name.no));
                            held.push(name);
                        }
                    }
                }
            }
        }
    }
}
