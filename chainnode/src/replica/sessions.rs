//! The table of sessions as of the log's end, with a way back for records that a cut takes away.
//!
//! A session exists only through a logged record; a slot keeps the newest
//! request's result, so a retry is answered and never executed again (DESIGN §3.4).

use std::collections::{BTreeMap, VecDeque};

use catena_proto::ids::{LogTime, Seq, SessionId, SlotNo};
use catena_proto::limits;
use catena_proto::message::{SessionState, SlotState};
use catena_proto::op::RequestId;
use catena_proto::record::{Record, SessionChange};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Session {
    used: LogTime,
    slots: BTreeMap<SlotNo, SlotState>,
}

/// How to take one record back.
#[derive(Clone, Debug)]
enum Undo {
    Slot {
        session: SessionId,
        slot: SlotNo,
        before: Option<SlotState>,
        used: LogTime,
    },
    Opened(SessionId),
    Closed(SessionId, Session),
}

/// What the table says about a request before it is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Not executed yet: go on.
    New,
    /// Executed by the record at this position, with this result.
    Done(SlotState),
    /// The slot has seen a later one.
    Superseded,
    /// There is no such session.
    UnknownSession,
}

/// The sessions of a shard.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    open: BTreeMap<SessionId, Session>,
    /// Slots of all open sessions that hold a result.
    slots_used: usize,
    undo: VecDeque<(Seq, Undo)>,
}

impl Sessions {
    pub(super) fn new(states: Vec<SessionState>) -> Self {
        let open: BTreeMap<SessionId, Session> = states
            .into_iter()
            .map(|s| {
                let slots = s.slots.into_iter().map(|slot| (slot.slot, slot)).collect();
                (
                    s.session,
                    Session {
                        used: s.used,
                        slots,
                    },
                )
            })
            .collect();
        Self {
            slots_used: open.values().map(|s| s.slots.len()).sum(),
            open,
            undo: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn look_up(&self, request: RequestId) -> Seen {
        let Some(session) = self.open.get(&request.session) else {
            return Seen::UnknownSession;
        };
        match session.slots.get(&request.slot) {
            Some(done) if done.no == request.no => Seen::Done(*done),
            Some(done) if done.no > request.no => Seen::Superseded,
            _ => Seen::New,
        }
    }

    /// Whether a request would need a slot beyond `max` of the whole shard.
    pub(super) fn lacks_room_for(&self, request: RequestId, max: usize) -> bool {
        let held = self
            .open
            .get(&request.session)
            .is_some_and(|s| s.slots.contains_key(&request.slot));
        !held && self.slots_used >= max
    }

    pub(super) fn contains(&self, session: SessionId) -> bool {
        self.open.contains_key(&session)
    }

    /// Takes a record in, the newest so far.
    pub(super) fn add(&mut self, seq: Seq, record: &Record) {
        if let Some(request) = record.request
            && let Some(session) = self.open.get_mut(&request.session)
        {
            let state = SlotState {
                slot: request.slot,
                no: request.no,
                seq,
                outcome: record.outcome,
            };
            let before = session.slots.insert(request.slot, state);
            self.slots_used += usize::from(before.is_none());
            let used = std::mem::replace(&mut session.used, record.at);
            let undo = Undo::Slot {
                session: request.session,
                slot: request.slot,
                before,
                used,
            };
            self.undo.push_back((seq, undo));
        }
        match record.session {
            SessionChange::None => {}
            SessionChange::Open => {
                let id = SessionId::new(seq.get());
                self.open.insert(
                    id,
                    Session {
                        used: record.at,
                        slots: BTreeMap::new(),
                    },
                );
                self.undo.push_back((seq, Undo::Opened(id)));
            }
            SessionChange::Close(id) => {
                if let Some(session) = self.open.remove(&id) {
                    self.slots_used -= session.slots.len();
                    self.undo.push_back((seq, Undo::Closed(id, session)));
                }
            }
        }
    }

    /// Takes back what is above `after` (rule L2).
    pub(super) fn cut(&mut self, after: Seq) {
        while self.undo.back().is_some_and(|(seq, _)| *seq > after) {
            match self.undo.pop_back().expect("the back was just seen").1 {
                Undo::Slot {
                    session,
                    slot,
                    before,
                    used,
                } => {
                    if let Some(session) = self.open.get_mut(&session) {
                        session.used = used;
                        match before {
                            Some(state) => session.slots.insert(slot, state),
                            None => {
                                self.slots_used -= 1;
                                session.slots.remove(&slot)
                            }
                        };
                    }
                }
                Undo::Opened(id) => {
                    self.open.remove(&id);
                }
                Undo::Closed(id, session) => {
                    self.slots_used += session.slots.len();
                    self.open.insert(id, session);
                }
            }
        }
    }

    /// What is committed is never taken back.
    pub(super) fn commit(&mut self, commit: Seq) {
        while self.undo.front().is_some_and(|(seq, _)| *seq <= commit) {
            self.undo.pop_front();
        }
    }

    /// Sessions that nobody used for [`limits::SESSION_IDLE_LOG_MS`], at most `max` of them.
    pub(super) fn idle(&self, now: LogTime, max: usize) -> Vec<SessionId> {
        self.open
            .iter()
            .filter(|(_, s)| s.used.plus_ms(limits::SESSION_IDLE_LOG_MS) < now)
            .map(|(id, _)| *id)
            .take(max)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use catena_proto::ids::RequestNo;
    use catena_proto::op::Outcome;

    fn request(no: u64) -> RequestId {
        RequestId {
            session: SessionId::new(1),
            slot: SlotNo::new(0),
            no: RequestNo::new(no),
        }
    }

    fn record(request: Option<RequestId>, session: SessionChange) -> Record {
        let outcome = Outcome::Written {
            version: Seq::new(7),
        };
        Record {
            at: LogTime::new(5),
            request,
            outcome,
            effects: Vec::new(),
            session,
        }
    }

    #[test]
    fn a_retry_is_recognised_and_a_cut_forgets_it_again() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.look_up(request(1)), Seen::UnknownSession);
        sessions.add(Seq::new(1), &record(None, SessionChange::Open));
        assert_eq!(sessions.look_up(request(1)), Seen::New);
        sessions.add(Seq::new(2), &record(Some(request(1)), SessionChange::None));
        assert!(matches!(sessions.look_up(request(1)), Seen::Done(s) if s.seq == Seq::new(2)));
        sessions.add(Seq::new(3), &record(Some(request(2)), SessionChange::None));
        assert_eq!(sessions.look_up(request(1)), Seen::Superseded);
        sessions.cut(Seq::new(2));
        assert!(matches!(sessions.look_up(request(1)), Seen::Done(_)));
        sessions.cut(Seq::new(1));
        assert_eq!(sessions.look_up(request(1)), Seen::New);
        sessions.cut(Seq::ZERO);
        assert_eq!(sessions.look_up(request(1)), Seen::UnknownSession);
    }

    #[test]
    fn slots_in_use_are_counted_through_cuts_and_closes() {
        let id = |slot| RequestId {
            slot: SlotNo::new(slot),
            ..request(1)
        };
        let mut sessions = Sessions::default();
        sessions.add(Seq::new(1), &record(None, SessionChange::Open));
        assert!(!sessions.lacks_room_for(id(0), 1));
        sessions.add(Seq::new(2), &record(Some(id(0)), SessionChange::None));
        assert!(!sessions.lacks_room_for(id(0), 1), "it has its slot");
        assert!(sessions.lacks_room_for(id(1), 1));
        let close = record(None, SessionChange::Close(SessionId::new(1)));
        sessions.add(Seq::new(3), &close);
        assert!(!sessions.lacks_room_for(id(1), 1));
        sessions.cut(Seq::new(2));
        assert!(sessions.lacks_room_for(id(1), 1), "the close was cut");
        sessions.cut(Seq::new(1));
        assert!(!sessions.lacks_room_for(id(1), 1), "the request was cut");
    }

    #[test]
    fn a_closed_session_comes_back_with_its_results_when_the_close_is_cut() {
        let mut sessions = Sessions::default();
        sessions.add(Seq::new(1), &record(None, SessionChange::Open));
        sessions.add(Seq::new(2), &record(Some(request(1)), SessionChange::None));
        sessions.commit(Seq::new(2));
        sessions.add(
            Seq::new(3),
            &record(None, SessionChange::Close(SessionId::new(1))),
        );
        assert_eq!(sessions.look_up(request(1)), Seen::UnknownSession);
        sessions.cut(Seq::new(2));
        assert!(matches!(sessions.look_up(request(1)), Seen::Done(_)));
    }
}
