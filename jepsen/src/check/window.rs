//! The smallest part of a history that cannot be explained.
//!
//! First the shortest prefix that has no linearization: what returns after it
//! counts as unknown. Then operations are *loosened* as long as none appears:
//! an observation is left out, and a write may take effect at any time after
//! its call, or never. Each loosening only adds linearizations, so what is
//! left is a proof: these few operations contradict each other whatever the
//! rest did. (Leaving a write out would prove nothing: the read of its value
//! would be "unexplained" by our own doing.)

use std::collections::BTreeSet;

use super::content::{ContentId, Contents};
use super::key_state::{Act, CasTold, Condition};
use super::linear::{Found, Limits, contents_before_last, decide};
use super::model::{KeyHistory, KeyOp};

/// Most loosened writes that are shown: beyond a screen nobody reads them.
pub(super) const OPTIONAL_SHOWN_MAX: usize = 12;

/// Undecided attempts to find the shortest prefix that use up all steps: what is shown last rests on it.
const PREFIX_ATTEMPTS: u64 = 4;

/// Most steps that one attempt to loosen something may take.
const ATTEMPT_STEPS_MAX: u64 = 500_000;

/// Steps that every such attempt may take.
const ATTEMPT_STEPS_MIN: u64 = 20_000;

/// How much more than the last contradiction the next one may take to find.
///
/// An attempt that takes much longer is mostly one that has a linearization
/// in some far corner: the steps are better spent on smaller parts.
const ATTEMPT_FACTOR: u64 = 8;

/// A part of a key's history that cannot be explained.
#[derive(Debug)]
pub(super) struct Window {
    /// Indices of the operations that contradict each other, in the order of calls.
    pub(super) needed: Vec<usize>,
    /// The one of them that returns last: with the others before it, it cannot be explained.
    /// `None` when the shortest prefix was not found, so that it may lie earlier.
    pub(super) unexplained: Option<usize>,
    /// Loosened writes that could have supplied what the needed ones saw, if they had come at another time.
    pub(super) optional: Vec<usize>,
    /// How many more of these there are.
    pub(super) optional_more: usize,
    /// What the key could hold when the unexplained operation took effect; `None` when it could not be told.
    pub(super) could_hold: Option<BTreeSet<ContentId>>,
    /// Whether no single operation more could be loosened.
    pub(super) is_least: bool,
}

/// Shrinks a history without a linearization, within `limits` and some attempts more;
/// `cost` is what it took to find that it has none.
///
/// `None` if nothing certain is in it, which no history without a linearization is.
pub(super) fn shrink(history: &mut KeyHistory, limits: Limits, cost: u64) -> Option<Window> {
    let mut shrinker = Shrinker {
        history,
        limits,
        spent: 0,
        attempt_steps_max: (limits.steps_max / PREFIX_ATTEMPTS).max(cost * 2),
        last_cost: cost,
        gave_up: false,
    };
    let prefix = shrinker.shortest_prefix();
    let is_shortest = !shrinker.gave_up;
    let could_hold = if is_shortest {
        shrinker.could_hold(&prefix)
    } else {
        None
    };
    let least = shrinker.loosen(prefix);
    shrinker.describe(&least, is_shortest, could_hold)
}

struct Shrinker<'a> {
    history: &'a mut KeyHistory,
    limits: Limits,
    spent: u64,
    attempt_steps_max: u64,
    /// What the last contradiction took to find.
    last_cost: u64,
    /// Whether an attempt of the present round was not decided.
    gave_up: bool,
}

impl Shrinker<'_> {
    /// Whether these operations provably have no linearization.
    fn fails(&mut self, ops: &[KeyOp]) -> bool {
        let before = self.spent;
        let left = self.limits.steps_max.saturating_sub(before);
        let limits = Limits {
            steps_max: left.min(self.attempt_steps_max),
            ..self.limits
        };
        let KeyHistory {
            contents, initial, ..
        } = &mut *self.history;
        let found = decide(ops, *initial, contents, limits, &mut self.spent);
        match found {
            Found::Linearizable => {}
            Found::Undecided(_) => self.gave_up = true,
            Found::NotLinearizable => self.last_cost = self.spent - before,
        }
        found == Found::NotLinearizable
    }

    fn shortest_prefix(&mut self) -> Vec<KeyOp> {
        let ops = self.history.ops.clone();
        let mut ends: Vec<u32> = ops.iter().filter_map(|op| op.ret).collect();
        ends.sort_unstable();
        // The whole fails; find the first end at which the prefix does.
        let (mut low, mut high) = (0, ends.len().saturating_sub(1));
        while low < high {
            let middle = low + (high - low) / 2;
            if self.fails(&prefix(&ops, ends[middle])) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        ends.get(high).map_or(ops.clone(), |end| prefix(&ops, *end))
    }

    /// Loosens as much as possible: large parts first, then single operations, until a round changes nothing.
    fn loosen(&mut self, mut ops: Vec<KeyOp>) -> Vec<KeyOp> {
        let Some(last) = ops.iter().filter_map(|op| op.ret).max() else {
            return ops;
        };
        let certain = |ops: &[KeyOp]| {
            ops.iter()
                .filter(|op| op.ret.is_some_and(|ret| ret < last))
                .count()
        };
        let mut part = certain(&ops).div_ceil(2);
        while part > 0 {
            let before = certain(&ops);
            let mut start = 0;
            self.gave_up = false;
            while start < certain(&ops) {
                self.attempt_steps_max =
                    (self.last_cost * ATTEMPT_FACTOR).clamp(ATTEMPT_STEPS_MIN, ATTEMPT_STEPS_MAX);
                let looser = loosened(&ops, last, start..start + part);
                if self.fails(&looser) {
                    ops = looser;
                } else {
                    start += part;
                }
                if self.spent >= self.limits.steps_max {
                    self.gave_up = true;
                    return ops;
                }
            }
            part = match part {
                1 if certain(&ops) < before => 1,
                1 => 0,
                _ => part / 2,
            };
        }
        ops
    }

    /// What the key could hold when the last operation to return took effect, by all the others.
    fn could_hold(&mut self, prefix: &[KeyOp]) -> Option<BTreeSet<ContentId>> {
        let limits = Limits {
            steps_max: ATTEMPT_STEPS_MAX,
            ..self.limits
        };
        let KeyHistory {
            contents, initial, ..
        } = &mut *self.history;
        contents_before_last(prefix, *initial, contents, limits, &mut self.spent)
    }

    fn describe(
        &mut self,
        ops: &[KeyOp],
        is_shortest: bool,
        could_hold: Option<BTreeSet<ContentId>>,
    ) -> Option<Window> {
        let needed: Vec<usize> = ops
            .iter()
            .filter(|op| op.ret.is_some())
            .map(|op| op.source)
            .collect();
        let last = ops
            .iter()
            .filter(|op| op.ret.is_some())
            .max_by_key(|op| op.ret)?;
        let unexplained = is_shortest.then_some(last.source);
        let contents = &mut self.history.contents;
        let wanted: Vec<ContentId> = ops
            .iter()
            .filter(|op| op.ret.is_some())
            .filter_map(|op| wanted(&op.act))
            .collect();
        let mut optional: Vec<usize> = ops
            .iter()
            .filter(|op| op.ret.is_none())
            .filter(|op| {
                wanted
                    .iter()
                    .any(|content| could_supply(&op.act, *content, contents))
            })
            .map(|op| op.source)
            .collect();
        let optional_more = optional.len().saturating_sub(OPTIONAL_SHOWN_MAX);
        optional.drain(..optional_more);
        let is_least = is_shortest && !self.gave_up;
        Some(Window {
            needed,
            unexplained,
            optional,
            optional_more,
            could_hold,
            is_least,
        })
    }
}

/// What was known at the moment `end`: later calls are gone, later returns are not known.
fn prefix(ops: &[KeyOp], end: u32) -> Vec<KeyOp> {
    ops.iter()
        .filter(|op| op.call <= end)
        .filter_map(|op| match op.ret {
            Some(ret) if ret > end => loose(op),
            _ => Some(*op),
        })
        .collect()
}

/// Loosens some of the certain operations that return before `last`, counted in their order.
fn loosened(ops: &[KeyOp], last: u32, which: std::ops::Range<usize>) -> Vec<KeyOp> {
    let mut no = 0;
    ops.iter()
        .filter_map(|op| {
            if op.ret.is_none_or(|ret| ret >= last) {
                return Some(*op);
            }
            no += 1;
            if which.contains(&(no - 1)) {
                loose(op)
            } else {
                Some(*op)
            }
        })
        .collect()
}

fn loose(op: &KeyOp) -> Option<KeyOp> {
    Some(KeyOp {
        act: op.act.untold()?,
        ret: None,
        ..*op
    })
}

fn wanted(act: &Act) -> Option<ContentId> {
    match *act {
        Act::Read { content, .. } => Some(content),
        Act::Cas {
            condition: Condition::Content(content),
            told: CasTold::Matched(_),
            ..
        } => Some(content),
        Act::Incr { sum, .. } => sum,
        _ => None,
    }
}

/// Whether the write could have a part in making `content`.
fn could_supply(act: &Act, content: ContentId, contents: &mut Contents) -> bool {
    match *act {
        Act::Put { content: made, .. } | Act::Cas { content: made, .. } => made == content,
        Act::Append { chunk, .. } => {
            let (whole, chunk) = (contents.bytes(content), contents.bytes(chunk));
            !chunk.is_empty() && whole.windows(chunk.len()).any(|part| part == chunk)
        }
        Act::Delete { .. } => content == ContentId::ABSENT,
        Act::Incr { .. } => true,
        Act::Read { .. } => false,
    }
}
