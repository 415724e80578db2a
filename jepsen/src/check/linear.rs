//! The search for a linearization of one key's history.
//!
//! The algorithm is Wing and Gong's (1993) with Lowe's memoisation (2017), as
//! in porcupine: place one operation after the other, each called before the
//! first return that is not placed yet; remember each position that was
//! tried; go back when stuck. On top of it:
//!
//! - what every linearization must look like is derived first (`lineage`),
//!   which decides many histories by itself;
//! - observations that fit the state are placed at once, without an
//!   alternative: they change nothing, and placing them now forbids nothing;
//! - operations with the same act, and optional ones, are tried one per class
//!   (`timeline`), and positions that used fewer optional ones stand for those
//!   that used more (`visited`);
//! - positions that a later answer contradicts are left at once (`foresight`).
//!
//! The search reads no clock: it is bounded by steps and by bytes.

use std::collections::BTreeSet;

use super::chains::Chains;
use super::content::{ContentId, Contents};
use super::foresight::{Foresight, Outlook, Purpose, Remaining, can_be_contradicted};
use super::key_state::{Act, KeyState, Version};
use super::lineage::Lineage;
use super::model::KeyOp;
use super::timeline::Timeline;
use super::visited::{Used, Visited};

/// What a search may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Operations that may be tried; a step takes 20 to 500 ns.
    pub steps_max: u64,
    /// Bytes that remembered positions and values may take, about.
    pub memory_bytes_max: usize,
}

/// Why a search ended without a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// It tried [`Limits::steps_max`] operations.
    Steps,
    /// It remembered [`Limits::memory_bytes_max`].
    Memory,
}

/// The answer of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is a linearization.
    Linearizable,
    /// There is none.
    NotLinearizable,
    /// It could not be told.
    Undecided(Exhausted),
}

/// Decides whether the operations have a linearization from `initial`; `steps` is raised by what it cost.
pub(super) fn decide(
    ops: &[KeyOp],
    initial: KeyState,
    contents: &mut Contents,
    limits: Limits,
    steps: &mut u64,
) -> Found {
    *steps += ops.len() as u64;
    let Some(mut lineage) = Lineage::new(ops, initial.content, contents) else {
        let timeline = Timeline::new(ops);
        let mut search = Search::new(&timeline, None, contents, limits, Goal::Decide);
        let found = search.run(initial);
        *steps += search.steps;
        return found;
    };
    if lineage.contradicts() {
        return Found::NotLinearizable;
    }
    let timeline = Timeline::new(&lineage.simplify(ops));
    contents.restrict(Some(lineage.take_edges()));
    let mut search = Search::new(&timeline, Some(&lineage), contents, limits, Goal::Decide);
    let found = search.run(initial);
    *steps += search.steps;
    contents.restrict(None);
    found
}

/// All contents that the key can have when the certain operation that returns last has to
/// take effect, every other one being placed; `None` when that could not be told.
pub(super) fn contents_before_last(
    ops: &[KeyOp],
    initial: KeyState,
    contents: &mut Contents,
    limits: Limits,
    steps: &mut u64,
) -> Option<BTreeSet<ContentId>> {
    let timeline = Timeline::new(ops);
    let mut search = Search::new(&timeline, None, contents, limits, Goal::Survey);
    let found = search.run(initial);
    *steps += search.steps;
    (found == Found::NotLinearizable).then_some(search.surveyed)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// Find one linearization.
    Decide,
    /// Visit every position in which only the last return is left, and never place that one.
    Survey,
}

/// An operation that can be placed.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// A certain one, by its place in the order of returns.
    Certain(u32),
    /// The earliest unused optional one of a class.
    Optional(u32),
}

/// A position with what is still to be tried there.
#[derive(Debug)]
struct Frame {
    state: KeyState,
    first: u32,
    outlook: Outlook,
    /// How long the trail is at this position.
    trail_len: usize,
    /// Where its untried choices begin.
    choices_start: usize,
    /// Optional operations come last, when everything certain failed.
    optional_listed: bool,
}

/// What entering a position showed.
enum Entered {
    Done,
    DeadEnd,
    Branch,
}

struct Search<'a> {
    timeline: &'a Timeline,
    lineage: Option<&'a Lineage>,
    /// Whether a write that leads to "other" changes nothing for anyone when the key holds that already.
    others_place_themselves: bool,
    contents: &'a mut Contents,
    limits: Limits,
    goal: Goal,
    foresight: Foresight,
    visited: Visited,
    /// Unplaced certain operations, by call.
    unplaced: Chains,
    /// The same per class.
    members: Chains,
    /// The same for those that were told a version, by version.
    versions: Chains,
    placed: Vec<bool>,
    /// Per class: optional operations placed.
    used: Vec<u32>,
    /// The same, sparse.
    used_set: Used,
    /// Everything placed, in order, so that it can be taken back.
    trail: Vec<Place>,
    choices: Vec<(Place, KeyState)>,
    frames: Vec<Frame>,
    surveyed: BTreeSet<ContentId>,
    position: Vec<u64>,
    contents_at_start: usize,
    steps: u64,
}

/// Whether a write leads to a content that no answer names, wherever it is placed.
const fn leads_to_other(act: &Act) -> bool {
    matches!(
        act,
        Act::Put {
            content: ContentId::OTHER,
            ..
        }
    )
}

/// What an interned value costs beside the bytes that it shares with the history.
const CONTENT_BYTES: usize = 192;

impl<'a> Search<'a> {
    fn new(
        timeline: &'a Timeline,
        lineage: Option<&'a Lineage>,
        contents: &'a mut Contents,
        limits: Limits,
        goal: Goal,
    ) -> Self {
        let entries = timeline.certain.len() as u32;
        // A survey asks what the last operation could be told, so what it was told does not count.
        let needing = match goal {
            Goal::Decide => timeline.certain.len(),
            Goal::Survey => timeline.certain.len().saturating_sub(1),
        };
        let members: Vec<_> = timeline
            .classes
            .iter()
            .map(|class| class.certain.clone())
            .collect();
        Self {
            foresight: Foresight::new(timeline, lineage, needing, contents),
            lineage,
            others_place_themselves: lineage.is_some()
                && !timeline
                    .classes
                    .iter()
                    .any(|class| can_be_contradicted(&class.act)),
            contents_at_start: contents.count(),
            contents,
            limits,
            goal,
            visited: Visited::default(),
            unplaced: Chains::new(entries, std::slice::from_ref(&timeline.by_call)),
            members: Chains::new(entries, &members),
            versions: Chains::new(entries, std::slice::from_ref(&timeline.by_version)),
            placed: vec![false; timeline.certain.len()],
            used: vec![0; timeline.classes.len()],
            used_set: Vec::new(),
            trail: Vec::new(),
            choices: Vec::new(),
            frames: Vec::new(),
            surveyed: BTreeSet::new(),
            position: Vec::new(),
            steps: 0,
            timeline,
        }
    }

    fn run(&mut self, initial: KeyState) -> Found {
        if let Entered::Done = self.enter(initial, 0) {
            return Found::Linearizable;
        }
        while let Some(frame) = self.frames.last() {
            if self.steps >= self.limits.steps_max {
                return Found::Undecided(Exhausted::Steps);
            }
            if self.memory_bytes() >= self.limits.memory_bytes_max {
                return Found::Undecided(Exhausted::Memory);
            }
            let (trail_len, choices_start) = (frame.trail_len, frame.choices_start);
            let optional_listed = frame.optional_listed;
            self.take_back_to(trail_len);
            if self.choices.len() > choices_start {
                if let Some((place, after)) = self.choices.pop()
                    && let Entered::Done = self.try_choice(place, after)
                {
                    return Found::Linearizable;
                }
            } else if optional_listed {
                self.frames.pop();
            } else {
                self.list_optional();
            }
        }
        Found::NotLinearizable
    }

    fn memory_bytes(&self) -> usize {
        self.visited.bytes() + (self.contents.count() - self.contents_at_start) * CONTENT_BYTES
    }

    fn try_choice(&mut self, place: Place, after: KeyState) -> Entered {
        let Some(frame) = self.frames.last() else {
            return Entered::DeadEnd;
        };
        let (before, first) = (frame.state, frame.first);
        self.place(place);
        let class = match place {
            Place::Certain(id) => self.timeline.certain[id as usize].class,
            Place::Optional(class) => class,
        };
        if self
            .foresight
            .is_supplied(class, before.content, after.content)
        {
            self.enter(after, first)
        } else {
            Entered::DeadEnd
        }
    }

    /// Goes on from a state: places what needs no choice, and lists the certain choices.
    fn enter(&mut self, state: KeyState, first: u32) -> Entered {
        let first = self.place_observations(state, first);
        if first as usize == self.placed.len() {
            return Entered::Done;
        }
        let outlook = self.outlook(state, first);
        if outlook == Outlook::Hopeless || self.was_tried(state, first) {
            return Entered::DeadEnd;
        }
        if self.is_last(first) {
            self.surveyed.insert(state.content);
        }
        self.frames.push(Frame {
            state,
            first,
            outlook,
            trail_len: self.trail.len(),
            choices_start: self.choices.len(),
            optional_listed: false,
        });
        self.list_certain(state, first, outlook);
        Entered::Branch
    }

    /// Whether `id` is the operation that a survey never places.
    fn is_last(&self, id: u32) -> bool {
        self.goal == Goal::Survey && id as usize + 1 == self.placed.len()
    }

    /// Places observations that fit the state, and returns the first unplaced operation in the order of returns.
    fn place_observations(&mut self, state: KeyState, mut first: u32) -> u32 {
        loop {
            while self.placed.get(first as usize) == Some(&true) {
                first += 1;
            }
            let Some(bound) = self.timeline.certain.get(first as usize) else {
                return first;
            };
            let mut at = self.unplaced.first(0);
            while let Some(id) = at {
                at = self.unplaced.after(id);
                let op = &self.timeline.certain[id as usize];
                if op.call > bound.ret {
                    break;
                }
                let free = op.act.is_observation()
                    || (self.others_place_themselves && leads_to_other(&op.act));
                if free && !self.is_last(id) {
                    self.steps += 1;
                    if op.act.step(state, self.contents) == Some(state) {
                        self.place(Place::Certain(id));
                    }
                }
            }
            if !self.placed[first as usize] {
                return first;
            }
        }
    }

    fn outlook(&mut self, state: KeyState, first: u32) -> Outlook {
        if state.version != Version::Untracked
            && let Some(lowest) = self.versions.first(0)
            && !self.is_last(lowest)
        {
            let act = self.timeline.certain[lowest as usize].act;
            let told = act.told_version().unwrap_or(u64::MAX);
            let floor = state.version.floor();
            if told < floor || (told == floor && !act.is_observation()) {
                return Outlook::Hopeless;
            }
        }
        let remaining = Remaining {
            timeline: self.timeline,
            unplaced: &self.unplaced,
            members: &self.members,
            used: &self.used,
            placed: &self.placed,
        };
        self.foresight
            .outlook(state, first, &remaining, self.contents)
    }

    fn was_tried(&mut self, state: KeyState, first: u32) -> bool {
        self.position.clear();
        self.position
            .push(u64::from(first) << 32 | u64::from(state.content.get()));
        match state.version {
            Version::Untracked => {}
            Version::Known(version) => self.position.extend([0, version]),
            Version::AtLeast(bound) => self.position.extend([1, bound]),
        }
        let mask = self.position.len();
        self.position.resize(mask + self.timeline.mask_words, 0);
        let bound = self.timeline.certain[first as usize].ret;
        let mut at = self.unplaced.first(0);
        while let Some(id) = at {
            let op = &self.timeline.certain[id as usize];
            if op.call > bound {
                break;
            }
            self.position[mask + (op.slot / 64) as usize] |= 1 << (op.slot % 64);
            at = self.unplaced.after(id);
        }
        self.visited
            .was_tried(&self.position, &self.used_set, &mut self.steps)
    }

    fn list_certain(&mut self, state: KeyState, first: u32, outlook: Outlook) {
        let start = self.choices.len();
        let bound = self.timeline.certain[first as usize].ret;
        let mut at = self.unplaced.first(0);
        while let Some(id) = at {
            let op = &self.timeline.certain[id as usize];
            if op.call > bound {
                break;
            }
            at = self.unplaced.after(id);
            if self.is_last(id) || !self.may_follow(&op.act, state, outlook) {
                continue;
            }
            self.steps += 1;
            if let Some(after) = op.act.step(state, self.contents) {
                self.choices.push((Place::Certain(id), after));
            }
        }
        self.keep_one_per_class(start);
    }

    /// Sorts the choices so that the first return is tried first (from the end), one per class.
    fn keep_one_per_class(&mut self, start: usize) {
        let certain = &self.timeline.certain;
        let id = |choice: &(Place, KeyState)| match choice.0 {
            Place::Certain(id) | Place::Optional(id) => id,
        };
        let class = |choice: &(Place, KeyState)| certain[id(choice) as usize].class;
        let choices = &mut self.choices[start..];
        choices.sort_unstable_by_key(|choice| (class(choice), id(choice)));
        let mut kept = 0;
        for index in 0..choices.len() {
            if kept == 0 || class(&choices[kept - 1]) != class(&choices[index]) {
                choices.swap(kept, index);
                kept += 1;
            }
        }
        choices[..kept].sort_unstable_by_key(|choice| std::cmp::Reverse(id(choice)));
        self.choices.truncate(start + kept);
    }

    /// Lists the optional choices of the last frame.
    fn list_optional(&mut self) {
        let Some(frame) = self.frames.last_mut() else {
            return;
        };
        frame.optional_listed = true;
        let (state, first, outlook) = (frame.state, frame.first, frame.outlook);
        let bound = self.timeline.certain[first as usize].ret;
        let purpose = match self.goal {
            // A survey wants everything that is possible, whether or not it serves an answer.
            Goal::Survey => Purpose::Any,
            Goal::Decide => {
                let remaining = Remaining {
                    timeline: self.timeline,
                    unplaced: &self.unplaced,
                    members: &self.members,
                    used: &self.used,
                    placed: &self.placed,
                };
                self.foresight
                    .purpose(state, first, &remaining, self.contents)
            }
        };
        for class in &self.timeline.optional_classes {
            let info = &self.timeline.classes[*class as usize];
            let next = info.optional.get(self.used[*class as usize] as usize);
            let certain = self.members.first(*class);
            let certain_first = certain.is_some_and(|id| {
                !self.is_last(id) && self.timeline.certain[id as usize].call < bound
            });
            if certain_first
                || next.is_none_or(|call| *call > bound)
                || !self.may_follow(&info.act, state, outlook)
            {
                continue;
            }
            self.steps += 1;
            if let Some(after) = info.act.step(state, self.contents)
                && after != state
                && self
                    .foresight
                    .serves(&purpose, after.content, self.contents)
            {
                self.choices.push((Place::Optional(*class), after));
            }
        }
    }

    fn may_follow(&mut self, act: &Act, state: KeyState, outlook: Outlook) -> bool {
        let Act::Append { chunk, .. } = *act else {
            return true;
        };
        match (self.lineage.and_then(|lineage| lineage.pin(chunk)), outlook) {
            (Some(before), _) => {
                let lens = [before, state.content].map(|content| self.contents.len(content));
                before == state.content || lens == [0, 0]
            }
            (None, Outlook::Along(whole)) => {
                self.contents.goes_on_with(whole, state.content, chunk)
            }
            (None, Outlook::Open | Outlook::Hopeless) => true,
        }
    }

    fn place(&mut self, place: Place) {
        match place {
            Place::Certain(id) => {
                self.unplaced.take(id);
                self.members.take(id);
                self.versions.take(id);
                self.placed[id as usize] = true;
                self.foresight
                    .place(id, self.timeline.certain[id as usize].class);
            }
            Place::Optional(class) => {
                self.used[class as usize] += 1;
                self.foresight.use_up(class);
                match self
                    .used_set
                    .binary_search_by_key(&class, |(class, _)| *class)
                {
                    Ok(at) => self.used_set[at].1 += 1,
                    Err(at) => self.used_set.insert(at, (class, 1)),
                }
            }
        }
        self.trail.push(place);
    }

    fn take_back_to(&mut self, len: usize) {
        while self.trail.len() > len {
            match self.trail.pop() {
                Some(Place::Certain(id)) => {
                    self.versions.put_back(id);
                    self.members.put_back(id);
                    self.unplaced.put_back(id);
                    self.placed[id as usize] = false;
                    self.foresight
                        .take_back(id, self.timeline.certain[id as usize].class);
                }
                Some(Place::Optional(class)) => {
                    self.used[class as usize] -= 1;
                    self.foresight.give_back(class);
                    if let Ok(at) = self
                        .used_set
                        .binary_search_by_key(&class, |(class, _)| *class)
                    {
                        self.used_set[at].1 -= 1;
                        if self.used_set[at].1 == 0 {
                            self.used_set.remove(at);
                        }
                    }
                }
                None => return,
            }
        }
    }
}
