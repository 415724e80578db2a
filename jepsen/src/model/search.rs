//! Searching the model.

use stateright::{Checker, Model};

use super::rules::{Bounds, Mutation, Rules, Step};

/// What a search found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Distinct states that were seen.
    pub states: usize,
    /// The search saw everything within its bounds.
    pub exhausted: bool,
    /// A broken property and the shortest way to it that was found.
    pub broken: Option<(&'static str, Vec<Step>)>,
}

/// Searches breadth first, on one thread, up to about `states_max` states (`None`: all).
#[must_use]
pub fn search(bounds: Bounds, mutation: Option<Mutation>, states_max: Option<usize>) -> Found {
    let mut builder = Rules { bounds, mutation }.checker().threads(1);
    if let Some(most) = states_max {
        builder = builder.target_state_count(most);
    }
    let checker = builder.spawn_bfs().join();
    let states = checker.unique_state_count();
    let broken = checker
        .discoveries()
        .into_iter()
        .map(|(name, path)| (name, path.into_actions()))
        .min_by_key(|(_, steps)| steps.len());
    let exhausted = states_max.is_none_or(|most| states < most);
    Found {
        states,
        exhausted,
        broken,
    }
}
