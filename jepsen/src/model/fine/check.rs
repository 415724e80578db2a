//! Searching the model.

use std::fmt;

use stateright::{Checker, HasDiscoveries, Model};

use super::bounds::{Bounds, Scenario};
use super::mutation::Mutation;
use super::rules::FineRules;
use super::step::{Step, numbered};

/// Where a search ends at the latest. The default is no limit, on one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// About how many states are generated.
    pub states_max: Option<usize>,
    /// How many steps a trace has.
    pub depth_max: Option<usize>,
    /// Threads; 0 counts as 1. Only with one is a counterexample the shortest.
    pub threads: usize,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Distinct states.
    pub states: usize,
    /// States that were generated, those that were known already included.
    pub generated: usize,
    /// The longest of the shortest ways to a state.
    pub depth: usize,
    /// It saw everything within its bounds: no limit ended it, and no broken property.
    pub complete: bool,
    /// A broken property and the way to it.
    pub broken: Option<(&'static str, Vec<Step>)>,
}

/// Searches breadth first until a property breaks, all is seen, or a limit is met.
#[must_use]
pub fn check(bounds: Bounds, mutation: Option<Mutation>, limits: Limits) -> Report {
    let mut builder = FineRules {
        bounds: bounds.clamped(),
        mutation,
    }
    .checker()
    .threads(limits.threads.max(1))
    .finish_when(HasDiscoveries::Any);
    if let Some(most) = limits.states_max {
        builder = builder.target_state_count(most);
    }
    if let Some(most) = limits.depth_max {
        builder = builder.target_max_depth(most);
    }
    let checker = builder.spawn_bfs().join();
    let broken = checker
        .discoveries()
        .into_iter()
        .map(|(name, path)| (name, path.into_actions()))
        // Ties go by name, so that a search reports the same each time.
        .min_by_key(|(name, steps)| (steps.len(), *name));
    Report {
        states: checker.unique_state_count(),
        generated: checker.state_count(),
        depth: checker.max_depth(),
        complete: broken.is_none()
            && limits
                .states_max
                .is_none_or(|most| checker.state_count() < most)
            && limits
                .depth_max
                .is_none_or(|most| checker.max_depth() < most),
        broken,
    }
}

/// The bounds of the scenario in which a mutation is known to be caught.
#[must_use]
pub fn scenario(mutation: Mutation) -> Bounds {
    Scenario::named(mutation.scenario()).map_or(Bounds::THREE, |scenario| scenario.bounds)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.complete {
            "all of them"
        } else {
            "not all that there are"
        };
        writeln!(
            f,
            "{} states ({how}), {} generated, depth {}",
            self.states, self.generated, self.depth
        )?;
        match &self.broken {
            None => write!(f, "every property holds"),
            Some((name, steps)) => write!(f, "broken: {name}\n{}", numbered(steps)),
        }
    }
}
