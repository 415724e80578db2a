//! The model of the rules: clean at small bounds, each mutation caught, and its traces played by production replicas.
#![allow(missing_docs, reason = "a test")]

use catena_chainnode::stage;
use catena_jepsen::model::{Bounds, Mutation, Rules, script, search};
use stateright::Model;

const SMALL: Bounds = Bounds {
    members: 2,
    epochs: 2,
    writes: 1,
    crashes: 1,
};
const WIDE: Bounds = Bounds {
    members: 3,
    epochs: 3,
    writes: 2,
    crashes: 1,
};
const SPARE: Bounds = Bounds {
    members: 2,
    epochs: 4,
    writes: 1,
    crashes: 0,
};

/// One epoch, in which a head may use a seq twice.
const SAME: Bounds = Bounds {
    members: 3,
    epochs: 1,
    writes: 2,
    crashes: 1,
};

/// States that a mutation's search may see: each is caught far below.
const STATES_MAX: usize = 400_000;

#[test]
fn the_rules_hold_at_small_bounds_exhaustively() {
    let found = search(SMALL, None, None);
    assert_eq!(found.broken, None);
    assert!(
        found.exhausted && found.states > 1_000,
        "{} states",
        found.states
    );
}

#[test]
fn a_slice_of_wider_bounds_holds() {
    for bounds in [WIDE, SPARE] {
        let found = search(bounds, None, Some(60_000));
        assert_eq!(found.broken, None, "{bounds:?}");
    }
}

#[test]
fn every_mutation_is_caught() {
    for mutation in Mutation::ALL {
        let caught = [SMALL, SAME, SPARE, WIDE]
            .into_iter()
            .find_map(|bounds| search(bounds, Some(*mutation), Some(STATES_MAX)).broken);
        let (rule, steps) = caught.unwrap_or_else(|| panic!("{mutation:?} was not caught"));
        println!("{mutation:?}: {rule}, {} steps", steps.len());
    }
}

/// Walks of the clean model, chosen by a fixed rule, played by the production replica: its oracle must be content.
#[test]
fn traces_of_the_model_are_clean_on_the_production_replica() {
    let mut played = 0;
    for seed in 0..300_usize {
        let bounds = if seed % 2 == 0 { WIDE } else { SPARE };
        let rules = Rules {
            bounds,
            mutation: None,
        };
        let mut state = rules.init_states().pop().expect("a first state");
        let mut steps = Vec::new();
        let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for _ in 0..25 {
            let mut actions = Vec::new();
            rules.actions(&state, &mut actions);
            if actions.is_empty() {
                break;
            }
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            let step = actions.swap_remove(dice % actions.len());
            state = rules
                .next_state(&state, step.clone())
                .expect("a step that was offered");
            steps.push(step);
        }
        let text = script(bounds, &steps);
        let result = stage::play(&text, None).expect("a script");
        assert_eq!(result.violation, None, "seed {seed}\n{}", result.transcript);
        played += 1;
    }
    assert_eq!(played, 300);
}
