//! Rules M1 to M4: which changes the master makes.

use super::mutation::Mutation;
use super::rules::FineRules;
use super::state::{Broken, Config, Member, Nodes, State};
use super::step::Step;

impl FineRules {
    /// Is this entry's node really in sync for its stint, with that disk (S1, C4)?
    pub(super) fn is_synced(state: &State, member: &Member) -> bool {
        let node = state.node(member.node);
        node.synced == member.joined && node.disk == member.disk
    }

    /// Whom the master takes to be in sync. It knows the truth, unless it ignores disk ids.
    fn confirmed(self, state: &State, config: &Config) -> Nodes {
        let synced = config
            .members()
            .iter()
            .filter(|member| Self::is_synced(state, member));
        let truth = synced.fold(0, |mask, member| mask | 1 << member.node);
        if self.is(Mutation::DiskIdIgnored) {
            truth | (state.confirmed & config.mask())
        } else {
            truth
        }
    }

    /// Mutation of C4: who was once confirmed stays so, whatever becomes of its disk.
    pub(super) fn note_confirmed(self, state: &mut State) {
        let config = *state.config(state.newest);
        state.confirmed = if self.is(Mutation::DiskIdIgnored) {
            self.confirmed(state, &config)
        } else {
            0
        };
    }

    /// The changes that the master may make now.
    pub(super) fn changes(self, state: &State, steps: &mut Vec<Step>) {
        if state.newest >= self.bounds.epochs {
            return;
        }
        let config = state.config(state.newest);
        let confirmed = self.confirmed(state, config);
        for kept in 1..config.mask() {
            // M2: who is in sync stays, at least one of them.
            let leaves = kept & confirmed != 0 || self.is(Mutation::RemovesLastInSync);
            if kept & !config.mask() == 0 && leaves {
                steps.push(Step::Remove { kept });
            }
        }
        // M1: the previous joiner is in sync.
        if confirmed != config.mask() && !self.is(Mutation::AppendWhileJoining) {
            return;
        }
        for node in 0..self.bounds.nodes {
            let spare = state.node(node);
            // M4: up for longer than L_max.
            if config.position(node).is_none() && spare.up && spare.ghosts == 0 && !spare.fenced {
                steps.push(Step::Append { node });
            }
        }
    }

    /// M2: members leave.
    pub(super) fn remove(state: &mut State, kept: Nodes) {
        let config = state.config(state.newest).keep(kept);
        if !config
            .members()
            .iter()
            .any(|member| Self::is_synced(state, member))
        {
            state.breaks_property(Broken::LastInSyncRemoved);
        }
        Self::issue(state, config);
    }

    /// M1: a tail is appended; this begins its stint.
    pub(super) fn append(state: &mut State, node: u8) {
        let member = Member {
            node,
            joined: state.newest + 1,
            disk: state.node(node).disk,
        };
        let config = state.config(state.newest).append(member);
        Self::issue(state, config);
    }

    fn issue(state: &mut State, config: Config) {
        state.configs[usize::from(state.newest)] = config;
        state.newest += 1;
        state.confirmed &= config.mask();
    }
}
