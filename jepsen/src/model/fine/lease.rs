//! Rules R1 to R4: rounds, windows, promises and debts.

use super::mutation::Mutation;
use super::rules::FineRules;
use super::state::{EPOCHS, ROUNDS, State, Windows, window, windows_of};

impl FineRules {
    /// R1: a round begins at the head, whose own sighting this is.
    pub(super) fn start_round(self, state: &mut State, head: u8) {
        let epoch = state.node(head).epoch;
        let round = state.rounds_started() + 1;
        state.rounds[usize::from(round) - 1] = epoch;
        Self::open_window(state, head, round);
        Self::promise(state, head, epoch);
        if let Some(below) = self.live_successor(state, head) {
            state.node_mut(below).round_in = round;
        }
    }

    /// R1, R2: a sighting on the way down; it is passed on at the first one only, on the link of now.
    pub(super) fn on_round_down(self, state: &mut State, node: u8) {
        let round = std::mem::take(&mut state.node_mut(node).round_in);
        let epoch = state.round_epoch(round);
        let first = round > state.node(node).seen;
        if first {
            Self::open_window(state, node, round);
        }
        Self::promise(state, node, epoch);
        if !first {
            return;
        }
        if state
            .config(epoch)
            .members()
            .last()
            .is_some_and(|tail| tail.node == node)
        {
            state.node_mut(node).round_out = round;
        } else if let Some(below) = self.live_successor(state, node) {
            state.node_mut(below).round_in = round;
        }
    }

    /// R1: a sighting on the way up; at the head the round is complete.
    pub(super) fn on_round_up(self, state: &mut State, from: u8, to: u8) {
        let round = std::mem::take(&mut state.node_mut(from).round_out);
        let epoch = state.round_epoch(round);
        if !self.is(Mutation::PromiseOnlyDown) {
            Self::promise(state, to, epoch);
        }
        let head = state.config(epoch).position(to) == Some(0);
        let node = state.node_mut(to);
        if head {
            node.complete = node.complete.max(round);
        } else if node.linked {
            node.round_out = round;
        }
    }

    /// R2: the lease counts from the first sighting. Promises made before do not outlast it.
    fn open_window(state: &mut State, node: u8, round: u8) {
        state.node_mut(node).seen = round;
        Self::close_windows(state, window(node, round));
        state.windows |= window(node, round);
    }

    /// R1: bound until every lease that can come of an earlier sighting is over.
    fn promise(state: &mut State, node: u8, epoch: u8) {
        let of_epoch = (1..=ROUNDS as u8).filter(|round| state.round_epoch(*round) == epoch);
        let mask = of_epoch.fold(0, |mask, round| {
            (0..state.nodes.len() as u8).fold(mask, |mask, id| mask | window(id, round))
        });
        let open = state.windows & mask;
        state.node_mut(node).promises[usize::from(epoch)] = open;
    }

    /// These windows are over, also in what promises remember of them.
    pub(super) fn close_windows(state: &mut State, closed: Windows) {
        state.windows &= !closed;
        for node in &mut state.nodes {
            node.promises
                .iter_mut()
                .for_each(|promise| *promise &= !closed);
            node.ghosts &= !closed;
        }
    }

    /// The windows whose end somebody waits for: all others may as well stay open.
    pub(super) fn awaited_windows(self, state: &State) -> Windows {
        let debts = state
            .nodes
            .iter()
            .filter(|node| node.up)
            .fold(0, |mask, node| {
                let owing = (0..=EPOCHS).filter(|epoch| node.owed[*epoch] != 0);
                let mask = owing.fold(mask, |mask, epoch| mask | node.promises[epoch]);
                if node.unsure {
                    mask | node.ghosts
                } else {
                    mask
                }
            });
        // M4: a node is appended only after it was up for longer than L_max.
        let spares = (0..self.bounds.nodes).filter(|id| {
            state.newest < self.bounds.epochs && state.config(state.newest).position(*id).is_none()
        });
        spares.fold(debts, |mask, id| mask | state.node(id).ghosts)
    }

    /// R2: does this node hold a lease?
    pub(super) fn has_lease(self, state: &State, id: u8) -> bool {
        let node = state.node(id);
        (1..=ROUNDS as u8).any(|round| {
            let of_epoch =
                state.round_epoch(round) == node.epoch || self.is(Mutation::LeaseSurvivesEpoch);
            let covered = round <= node.complete
                || self.is(Mutation::LeaseBeforeCompletion)
                || (self.is(Mutation::CompletionCoversLater) && node.complete != 0);
            state.windows & window(id, round) != 0 && of_epoch && covered
        })
    }

    /// R3, R4: what a newer epoch makes a node owe.
    pub(super) fn go_into_debt(self, state: &mut State, id: u8, epoch: u8) {
        let before = state.node(id).epoch;
        if !self.is(Mutation::LeaseSurvivesEpoch) {
            Self::close_windows(state, windows_of(id));
        }
        let newer = state.config(epoch).mask();
        let mut fellows = if before == 0 {
            0
        } else {
            state.config(before).mask() & !(1 << id)
        };
        if self.is(Mutation::DebtToRemovedOnly) {
            fellows &= !newer;
        }
        let node = state.node_mut(id);
        if self.is(Mutation::DebtForgottenAtSecondChange) {
            node.owed = [0; EPOCHS + 1];
        }
        let at = usize::from(before);
        if node.promises[at] & !windows_of(id) != 0 && !self.is(Mutation::NoDebt) {
            node.owed[at] = fellows;
        }
        node.unsure |= node.ghosts != 0;
    }

    /// R4: what a node forgets in a crash, and has to reckon with afterwards.
    pub(super) fn forget_promises(self, state: &mut State, id: u8) {
        Self::close_windows(state, windows_of(id));
        let node = state.node_mut(id);
        let all = node
            .promises
            .iter()
            .fold(node.ghosts, |mask, promise| mask | promise);
        node.ghosts = if self.is(Mutation::DebtForgottenByRestart) {
            0
        } else {
            all
        };
        node.promises = [0; EPOCHS + 1];
        node.owed = [0; EPOCHS + 1];
        node.unsure = node.paid != node.epoch && node.ghosts != 0;
    }

    /// Debts that ran out, or that an announcement paid (R3, C5), are gone.
    pub(super) fn settle_debts(state: &mut State, id: u8) {
        let own = state.node(id).epoch;
        let announced = (0..state.nodes.len() as u8)
            .filter(|fellow| state.node(*fellow).epoch >= own)
            .fold(0, |mask, fellow| mask | 1 << fellow);
        let node = state.node_mut(id);
        for epoch in 0..=EPOCHS {
            let over = node.promises[epoch] & !windows_of(id) == 0;
            node.owed[epoch] = if over {
                0
            } else {
                node.owed[epoch] & !announced
            };
            // A promise of an older epoch that nobody is owed for has no further effect.
            if epoch != usize::from(own) && node.owed[epoch] == 0 {
                node.promises[epoch] = 0;
            }
        }
        node.unsure &= node.ghosts != 0;
    }

    /// Does it owe anybody?
    pub(super) fn in_debt(state: &State, id: u8) -> bool {
        let node = state.node(id);
        node.unsure || node.owed.iter().any(|owed| *owed != 0)
    }
}
