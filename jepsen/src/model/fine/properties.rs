//! What must hold in every state.

use stateright::Property;

use super::rules::FineRules;
use super::state::{Broken, State};

impl FineRules {
    /// The properties, by the numbers of DESIGN §3.5.
    pub(super) fn all_properties() -> Vec<Property<Self>> {
        vec![
            Property::always("C1: epochs never go back", |_, s: &State| {
                s.broken != Broken::EpochWentBack
            }),
            Property::always("L1, L2: one committed record per seq", |_, s: &State| {
                s.broken != Broken::TwoRecords
            }),
            Property::always("L2: no false alarm", |_, s: &State| {
                s.broken != Broken::FalseAlarm
            }),
            Property::always(
                "S2: what was acknowledged stays on every synced member",
                |_, s: &State| s.broken != Broken::AcknowledgedLost,
            ),
            Property::always(
                "DESIGN 3.2: acknowledged means durable on every synced member",
                |_, s: &State| s.broken != Broken::AcknowledgedNotDurable,
            ),
            Property::always("R2, R3: no stale read", |_, s: &State| {
                s.broken != Broken::StaleRead
            }),
            Property::always("M2: never the last in sync removed", |_, s: &State| {
                s.broken != Broken::LastInSyncRemoved
            }),
        ]
    }

    /// A commit point rose: there is one committed record at each position.
    pub(super) fn note_commit(self, state: &mut State, id: u8) {
        let node = *state.node(id);
        for at in 0..node.commit {
            match (state.committed.at(at), node.log.at(at)) {
                (0, write) => state.committed.set(at, write),
                (one, other) if one != other => state.breaks_property(Broken::TwoRecords),
                _ => {}
            }
        }
        self.acknowledge(state, id);
    }

    /// The head answers whatever is committed in its own epoch, once commit ≥ barrier (S2).
    fn acknowledge(self, state: &mut State, id: u8) {
        let node = *state.node(id);
        let head = self
            .membership(state, id)
            .is_some_and(|(position, _)| position == 0);
        if !head || !node.up || node.fenced || !node.in_sync || node.commit < node.barrier {
            return;
        }
        for at in state.acknowledged.last()..node.commit {
            let write = node.log.at(at);
            state.acknowledged.set(at, write);
            let members = *state.config(node.epoch);
            let lies = state.rollbacks != 0;
            // One that joins has it before its barrier is met (S2).
            let mut synced = members
                .members()
                .iter()
                .filter(|member| Self::is_synced(state, member));
            let durable = synced.all(|member| {
                let fellow = state.node(member.node);
                fellow.on_disk > at && fellow.log.at(at) == write
            });
            if !durable && !lies {
                state.breaks_property(Broken::AcknowledgedNotDurable);
            }
        }
    }

    /// S1, S2, R2: may this node answer a linearizable read at this moment?
    pub(super) fn serves(self, state: &State, id: u8) -> bool {
        let node = state.node(id);
        let Some(_) = self.membership(state, id) else {
            return false;
        };
        let solo = state.config(node.epoch).members().len() == 1;
        let barrier = node.commit >= node.barrier;
        node.up && !node.fenced && node.in_sync && barrier && (solo || self.has_lease(state, id))
    }

    /// Would a read at this node see every acknowledged write? The tail answers from what it committed,
    /// any other member waits for what it has pending (DESIGN 3.3).
    pub(super) fn sees_all(self, state: &State, id: u8) -> bool {
        let node = state.node(id);
        let tail = state
            .config(node.epoch)
            .members()
            .last()
            .is_some_and(|member| member.node == id);
        let end = if tail { node.commit } else { node.log.last() };
        node.log.holds(&state.acknowledged, end)
    }

    /// Looks at what no single step can know.
    pub(super) fn judge(self, state: &mut State) {
        for id in 0..self.bounds.nodes {
            if self.serves(state, id) && !self.sees_all(state, id) {
                state.breaks_property(Broken::StaleRead);
            }
        }
        let newest = *state.config(state.newest);
        for member in newest.members() {
            let node = *state.node(member.node);
            let synced = Self::is_synced(state, member);
            if synced && state.rollbacks == 0 && !node.log.holds(&state.acknowledged, node.on_disk)
            {
                state.breaks_property(Broken::AcknowledgedLost);
            }
        }
    }
}
