//! The model: which steps there are, and what they do.

use stateright::{Model, Property};

use super::bounds::Bounds;
use super::mutation::Mutation;
use super::state::{Broken, Read, State, window, windows_of};
use super::step::Step;

/// The model of one shard.
#[derive(Clone, Copy, Debug)]
pub struct FineRules {
    /// How far it goes.
    pub bounds: Bounds,
    /// The rule that is left out.
    pub mutation: Option<Mutation>,
}

impl FineRules {
    pub(super) fn is(self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// What happens at once after each step, and what is without effect from then on.
    fn settle(self, state: &mut State) {
        for id in 0..self.bounds.nodes {
            Self::settle_debts(state, id);
            if state.node(id).up {
                self.settle_node(state, id);
            }
        }
        self.drop_rounds(state);
        for write in 1..=state.writes {
            let logged = state.nodes.iter().any(|node| node.log.has(write));
            if !logged && !state.committed.has(write) && state.late.write != write {
                state.origins[usize::from(write) - 1] = Default::default();
            }
        }
        self.note_confirmed(state);
        self.judge(state);
    }

    /// C3, L3: rounds under way that nobody will take.
    fn drop_rounds(self, state: &mut State) {
        for id in 0..self.bounds.nodes {
            let node = *state.node(id);
            if node.round_in != 0
                && (!node.linked || state.round_epoch(node.round_in) != node.epoch)
            {
                state.node_mut(id).round_in = 0;
            }
            if node.round_out != 0 && self.round_receiver(state, id).is_none() {
                state.node_mut(id).round_out = 0;
            }
        }
    }

    /// Who takes the round that is under way up from a node.
    fn round_receiver(self, state: &State, from: u8) -> Option<u8> {
        let epoch = state.round_epoch(state.node(from).round_out);
        let config = state.config(epoch);
        let above = config.members()[config.position(from)?.checked_sub(1)?].node;
        let node = state.node(above);
        (node.up && !node.fenced && node.epoch == epoch).then_some(above)
    }

    /// What a node that runs can do.
    fn node_steps(self, state: &State, id: u8, steps: &mut Vec<Step>) {
        let node = state.node(id);
        let place = self.membership(state, id);
        if let Some((position, member)) = place {
            let synced = member.joined == node.synced;
            if position == 0 && synced && state.writes < self.bounds.writes {
                steps.push(Step::Write { node: id });
            }
            self.link_steps(state, id, position == 0, steps);
        }
        if node.on_disk < node.log.last() {
            steps.push(Step::Sync { node: id });
        }
        if node.round_in != 0 {
            steps.push(Step::RoundDown { node: id });
        }
        for epoch in 1..=state.newest {
            let back = self.is(Mutation::OlderConfigAccepted) && epoch != node.epoch;
            if epoch > node.epoch || back {
                steps.push(Step::Accept { node: id, epoch });
            }
        }
        self.read_steps(state, id, steps);
        if state.late.write != 0 && state.late.to == id && node.log.last() == state.late.position {
            steps.push(Step::LateFrame { node: id });
        }
        if node.stale_sync > node.durable && node.log.last() > node.durable {
            steps.push(Step::StaleCompletion { node: id });
        }
    }

    /// What a member does on its link downwards.
    fn link_steps(self, state: &State, id: u8, head: bool, steps: &mut Vec<Step>) {
        let node = state.node(id);
        if let Some(to) = self.fellow_successor(state, id)
            && !state.node(to).linked
            && self.may_hand_over(state, id)
        {
            steps.push(Step::Handshake { from: id, to });
        }
        if let Some(to) = self.receiver(state, id) {
            let below = state.node(to);
            let news = node.log.last() > below.log.last()
                || self.watermark(node, head) > below.watermark
                || node.complete > below.complete;
            if news {
                steps.push(Step::Forward { from: id, to });
            }
        }
        if let Some(from) = self.live_successor(state, id) {
            let below = state.node(from);
            if below.commit.min(node.log.last()) > node.commit {
                steps.push(Step::Commit { from, to: id });
            }
            if head && node.in_sync && state.rounds_started() < self.bounds.rounds {
                steps.push(Step::StartRound { node: id });
            }
            if state.breaks < self.bounds.breaks {
                steps.push(Step::Break { to: from });
            }
        }
        if self.bounds.learners && node.in_sync && !Self::in_debt(state, id) {
            for to in 0..self.bounds.nodes {
                let learner = state.node(to);
                let outside = state.config(state.newest).position(to).is_none();
                let more = self.learners_end(node) > learner.commit;
                if outside && more && learner.up && !learner.fenced && learner.epoch == node.epoch {
                    steps.push(Step::Learn { from: id, to });
                }
            }
        }
    }

    /// R2: a read whose beginning and end are apart.
    fn read_steps(self, state: &State, id: u8, steps: &mut Vec<Step>) {
        match state.read {
            Read::None if state.reads < self.bounds.reads => {
                let member = self.membership(state, id).is_some();
                if self.serves(state, id) || (self.is(Mutation::ReadWithoutAdmit) && member) {
                    steps.push(Step::ReadAdmit { node: id });
                }
            }
            Read::Admitted(at) if at == id && !self.sees_all(state, id) => {
                steps.push(Step::ReadLook { node: id });
            }
            Read::LookedStale(at)
                if at == id && (self.serves(state, id) || self.is(Mutation::ReadWithoutVerify)) =>
            {
                steps.push(Step::ReadVerify { node: id });
            }
            _ => {}
        }
    }

    /// What the world does to a node.
    fn fault_steps(self, state: &State, id: u8, steps: &mut Vec<Step>) {
        let node = state.node(id);
        if !node.up {
            steps.push(Step::Restart { node: id });
            if state.swaps < self.bounds.swaps {
                steps.push(Step::SwapDisk { node: id });
            }
            if state.damages < self.bounds.damages {
                steps.push(Step::Damage { node: id });
            }
            return;
        }
        if state.crashes < self.bounds.crashes {
            let least = if state.rollbacks < self.bounds.rollbacks {
                0
            } else {
                node.on_disk
            };
            steps.extend((least..=node.log.last()).map(|kept| Step::Crash { node: id, kept }));
        }
    }
}

impl Model for FineRules {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(self.bounds)]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.broken != Broken::Nothing {
            return;
        }
        for id in 0..self.bounds.nodes {
            let node = state.node(id);
            if node.up && !node.fenced {
                self.node_steps(state, id, steps);
            }
            if node.round_out != 0 && self.round_receiver(state, id).is_some() {
                steps.push(Step::RoundUp { from: id });
            }
            self.fault_steps(state, id, steps);
            for round in 1..=state.rounds_started() {
                if self.awaited_windows(state) & window(id, round) != 0 {
                    steps.push(Step::WindowEnds { node: id, round });
                }
            }
        }
        self.changes(state, steps);
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut next = *last;
        let state = &mut next;
        match step {
            Step::Write { node } => self.write(state, node),
            Step::Sync { node } => {
                let node = state.node_mut(node);
                node.on_disk = node.log.last();
                node.durable = node.on_disk;
            }
            Step::Handshake { from, to } => self.handshake(state, from, to),
            Step::Forward { from, to } => self.forward(state, from, to),
            Step::Commit { from, to } => {
                let commit = state.node(from).commit;
                let node = state.node_mut(to);
                node.commit = commit.min(node.log.last());
            }
            Step::StartRound { node } => self.start_round(state, node),
            Step::RoundDown { node } => self.on_round_down(state, node),
            Step::RoundUp { from } => {
                let to = self.round_receiver(state, from)?;
                self.on_round_up(state, from, to);
            }
            Step::WindowEnds { node, round } => {
                // An earlier sighting's lease ends no later.
                let earlier = (1..=round).fold(0, |mask, round| mask | window(node, round));
                Self::close_windows(state, earlier & windows_of(node));
            }
            Step::Accept { node, epoch } => self.accept(state, node, epoch),
            Step::Remove { kept } => Self::remove(state, kept),
            Step::Append { node } => Self::append(state, node),
            Step::Crash { node, kept } => self.crash(state, node, kept),
            Step::Restart { node } => self.restart(state, node),
            Step::SwapDisk { node } => self.swap_disk(state, node),
            Step::Damage { node } => Self::damage(state, node),
            Step::Break { to } => {
                state.breaks += 1;
                self.unlink(state, to);
            }
            Step::Learn { from, to } => self.learn(state, from, to),
            Step::ReadAdmit { node } => {
                state.reads += 1;
                state.read = Read::Admitted(node);
            }
            Step::ReadLook { node } => state.read = Read::LookedStale(node),
            Step::ReadVerify { .. } => state.breaks_property(Broken::StaleRead),
            Step::LateFrame { node } => {
                let write = std::mem::take(&mut state.late).write;
                state.node_mut(node).log.push(write);
            }
            Step::StaleCompletion { node } => {
                let node = state.node_mut(node);
                let counted = std::mem::take(&mut node.stale_sync);
                node.durable = node.durable.max(counted.min(node.log.last()));
            }
        }
        self.settle(state);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        Self::all_properties()
    }
}
