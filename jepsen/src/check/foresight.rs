//! Reasons why a search cannot succeed from where it is, seen long before it fails.
//!
//! Each rule is a necessary condition of success, so it never changes a
//! verdict; it only spares the search the orders of operations that some
//! later answer contradicts.
//!
//! - **Supply**: an operation that was told the content `v` (it *needs* `v`)
//!   is still to be placed, the key does not have `v` now, and no operation
//!   that could make `v` is left.
//! - **Next need**: as above for the first need in the order of returns, and
//!   counting only makers that were called before it returned.
//! - **Prefix**: with appends, the content must be a prefix of the next need,
//!   unless something that sets the whole value can still come in between.
//! - **Version**: versions only grow, so the lowest version that is still to
//!   be told must lie ahead.
//! - **Purpose**: an optional write is placed only if something can depend on
//!   it: a need that it fulfils or begins, another optional write that is
//!   conditional on it, or an answer that the present content contradicts.
//!   What depends on it comes before the next need does, or is the next need:
//!   if the write is overwritten before that, nothing saw it, and without it
//!   everything else is as it was.

use super::chains::Chains;
use super::content::{ContentId, Contents};
use super::key_state::{Act, CasTold, Condition, KeyState};
use super::lineage::{Lineage, needed};
use super::timeline::Timeline;
use super::word_hash::WordMap;

/// A class that could make more needed contents than this counts as able to make any.
const SUPPLIES_MAX: usize = 64;

/// What is still needed, and what could still supply it.
#[derive(Debug)]
pub(super) struct Foresight {
    /// The contents that certain operations need.
    contents: Vec<ContentId>,
    /// Where a content is in `contents`.
    index: WordMap<u32, u32>,
    /// Per certain operation: the need, an index into `contents`.
    need_of: Vec<Option<u32>>,
    /// Per class: the need of its optional operation, if that must happen.
    need_of_optional: Vec<Option<u32>>,
    /// Per place in the order of returns: the first operation from there on that needs something.
    next_needing: Vec<u32>,
    /// Per need: unplaced operations that need it, and that could make it.
    needed: Vec<u32>,
    makers: Vec<u32>,
    /// Per class: the needs it could make; `None` when it could make any.
    supplies: Vec<Option<Vec<u32>>>,
    /// Unplaced operations that could make anything.
    makers_of_any: u32,
    /// Per need: the classes that could make it, apart from those that can make any.
    maker_classes: Vec<Vec<u32>>,
    /// The classes that could make any content.
    wild_classes: Vec<u32>,
    /// With appends and without increments: the classes that set the whole value, and to what.
    resets: Option<Vec<(u32, ContentId)>>,
    /// Per need, once asked: the classes whose value is a prefix of it.
    bases: Vec<Option<Vec<u32>>>,
    /// Whether contents are appended to.
    has_appends: bool,
    /// Whether contents are added to: then any write may be a step to any sum.
    has_increments: bool,
    /// Optional writes that are conditional on a content: the class, and that content.
    conditional: Vec<(u32, ContentId)>,
    /// Optional writes that are conditional on a version, which any write can bring.
    by_version: Vec<u32>,
}

/// What an optional write must do to be worth placing.
#[derive(Debug)]
pub(super) enum Purpose {
    /// Anything may be of use.
    Any,
    /// Lead to one of these contents, or to a prefix of one where contents are appended to.
    Towards(Vec<ContentId>),
}

/// What is left of the operations, as the search keeps it.
pub(super) struct Remaining<'a> {
    pub(super) timeline: &'a Timeline,
    /// The unplaced certain operations, by call.
    pub(super) unplaced: &'a Chains,
    /// Per class: its unplaced certain operations.
    pub(super) members: &'a Chains,
    /// Per class: how many of its optional operations are placed.
    pub(super) used: &'a [u32],
    pub(super) placed: &'a [bool],
}

impl Remaining<'_> {
    /// Whether an unplaced operation of the class was called before `moment`.
    fn any_called_before(&self, class: u32, moment: u32) -> bool {
        let certain = self.members.first(class);
        let optional = &self.timeline.classes[class as usize].optional;
        certain.is_some_and(|id| self.timeline.certain[id as usize].call < moment)
            || optional
                .get(self.used[class as usize] as usize)
                .is_some_and(|call| *call < moment)
    }
}

/// What the rules say of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outlook {
    /// Some answer can no longer be explained.
    Hopeless,
    /// Nothing speaks against it.
    Open,
    /// Nothing speaks against it, but whatever is appended next must follow this content.
    Along(ContentId),
}

impl Foresight {
    /// Looks at the answers of the first `needing` certain operations in the order of returns.
    pub(super) fn new(
        timeline: &Timeline,
        lineage: Option<&Lineage>,
        needing: usize,
        contents: &mut Contents,
    ) -> Self {
        // Sums tell the number before only where every content is a number as we spell it.
        let sums_tell = timeline.classes.iter().all(|class| {
            matches!(
                class.act,
                Act::Read { .. } | Act::Incr { .. } | Act::Delete { .. }
            )
        });
        let mut index: WordMap<u32, u32> = WordMap::default();
        let mut needs: Vec<ContentId> = Vec::new();
        let mut needed: Vec<u32> = Vec::new();
        let mut note = |content: ContentId| {
            let need = *index.entry(content.get()).or_insert_with(|| {
                needs.push(content);
                needed.push(0);
                needs.len() as u32 - 1
            });
            needed[need as usize] += 1;
            need
        };
        // An append that is pinned needs the content before it; what begins from nothing needs nothing.
        let pin = |act: &Act, contents: &Contents| match (lineage, *act) {
            (Some(lineage), Act::Append { chunk, .. }) => lineage
                .pin(chunk)
                .filter(|before| contents.len(*before) > 0),
            _ => None,
        };
        let mut need_of = Vec::with_capacity(timeline.certain.len());
        for (place, op) in timeline.certain.iter().enumerate() {
            let told = if place < needing {
                need(&op.act, sums_tell, contents)
            } else {
                None
            };
            need_of.push(told.or_else(|| pin(&op.act, contents)).map(&mut note));
        }
        // A pinned item is appended once, so its class has one operation, and an optional one must happen.
        let need_of_optional = timeline
            .classes
            .iter()
            .map(|class| {
                let before = (!class.optional.is_empty()).then(|| pin(&class.act, contents));
                before.flatten().map(&mut note)
            })
            .collect();
        let mut next_needing = vec![timeline.certain.len() as u32; timeline.certain.len() + 1];
        for place in (0..timeline.certain.len()).rev() {
            next_needing[place] = match need_of[place] {
                Some(_) => place as u32,
                None => next_needing[place + 1],
            };
        }
        let mut foresight = Self {
            bases: vec![None; needs.len()],
            makers: vec![0; needs.len()],
            maker_classes: vec![Vec::new(); needs.len()],
            contents: needs,
            index,
            need_of,
            need_of_optional,
            next_needing,
            needed,
            supplies: Vec::with_capacity(timeline.classes.len()),
            makers_of_any: 0,
            wild_classes: Vec::new(),
            resets: resets(timeline),
            has_appends: timeline
                .classes
                .iter()
                .any(|class| matches!(class.act, Act::Append { .. })),
            has_increments: timeline
                .classes
                .iter()
                .any(|class| matches!(class.act, Act::Incr { .. })),
            conditional: conditional(timeline),
            by_version: by_version(timeline),
        };
        foresight.count_supplies(timeline, contents);
        foresight
    }

    fn count_supplies(&mut self, timeline: &Timeline, contents: &mut Contents) {
        let by_suffix = self.needs_by_appended_suffix(timeline, contents);
        for (class, no) in timeline.classes.iter().zip(0u32..) {
            let fixed = |content: ContentId| {
                self.index
                    .get(&content.get())
                    .copied()
                    .into_iter()
                    .collect()
            };
            let supplies: Option<Vec<u32>> = match class.act {
                _ if class.act.is_observation() => Some(Vec::new()),
                Act::Put { content, .. } | Act::Cas { content, .. } => Some(fixed(content)),
                Act::Delete { .. } => Some(fixed(ContentId::ABSENT)),
                Act::Incr { sum: Some(sum), .. } => Some(fixed(sum)),
                Act::Incr { sum: None, .. } => None,
                Act::Append { chunk, .. } if contents.len(chunk) == 0 => None,
                Act::Append { chunk, .. } => {
                    Some(by_suffix.get(&chunk.get()).cloned().unwrap_or_default())
                }
                Act::Read { .. } => Some(Vec::new()),
            };
            let supplies = supplies.filter(|supplies| supplies.len() <= SUPPLIES_MAX);
            let members = (class.certain.len() + class.optional.len()) as u32;
            match &supplies {
                Some(supplies) => {
                    for need in supplies {
                        self.makers[*need as usize] += members;
                        self.maker_classes[*need as usize].push(no);
                    }
                }
                None => {
                    self.makers_of_any += members;
                    self.wild_classes.push(no);
                }
            }
            self.supplies.push(supplies);
        }
    }

    /// Per appended chunk: the needs that end with it.
    fn needs_by_appended_suffix(
        &self,
        timeline: &Timeline,
        contents: &mut Contents,
    ) -> WordMap<u32, Vec<u32>> {
        let mut chunks_by_len: std::collections::BTreeMap<usize, WordMap<u32, ()>> =
            std::collections::BTreeMap::new();
        for class in &timeline.classes {
            if let Act::Append { chunk, .. } = class.act {
                chunks_by_len
                    .entry(contents.len(chunk))
                    .or_default()
                    .insert(chunk.get(), ());
            }
        }
        let mut ends: WordMap<u32, Vec<u32>> = WordMap::default();
        for (content, need) in self.contents.iter().zip(0u32..) {
            let bytes = contents.bytes(*content);
            for (len, chunks) in chunks_by_len
                .iter()
                .filter(|(len, _)| (1..=bytes.len()).contains(*len))
            {
                if let Some(chunk) = contents.find(&bytes[bytes.len() - *len..])
                    && chunks.contains_key(&chunk.get())
                {
                    ends.entry(chunk.get()).or_default().push(need);
                }
            }
        }
        ends
    }

    /// Notes that a certain operation was placed.
    pub(super) fn place(&mut self, id: u32, class: u32) {
        if let Some(need) = self.need_of[id as usize] {
            self.needed[need as usize] -= 1;
        }
        self.spend(class);
    }

    /// Takes [`Foresight::place`] back.
    pub(super) fn take_back(&mut self, id: u32, class: u32) {
        if let Some(need) = self.need_of[id as usize] {
            self.needed[need as usize] += 1;
        }
        self.unspend(class);
    }

    /// Notes that an optional operation of a class was placed.
    pub(super) fn use_up(&mut self, class: u32) {
        if let Some(need) = self.need_of_optional[class as usize] {
            self.needed[need as usize] -= 1;
        }
        self.spend(class);
    }

    /// Takes [`Foresight::use_up`] back.
    pub(super) fn give_back(&mut self, class: u32) {
        if let Some(need) = self.need_of_optional[class as usize] {
            self.needed[need as usize] += 1;
        }
        self.unspend(class);
    }

    fn spend(&mut self, class: u32) {
        match &self.supplies[class as usize] {
            Some(supplies) => {
                for need in supplies {
                    self.makers[*need as usize] -= 1;
                }
            }
            None => self.makers_of_any -= 1,
        }
    }

    fn unspend(&mut self, class: u32) {
        match &self.supplies[class as usize] {
            Some(supplies) => {
                for need in supplies {
                    self.makers[*need as usize] += 1;
                }
            }
            None => self.makers_of_any += 1,
        }
    }

    /// The rule *supply*, for what changed when an operation of `class` led from `before` to `after`.
    pub(super) fn is_supplied(&self, class: u32, before: ContentId, after: ContentId) -> bool {
        if self.makers_of_any > 0 || before == after {
            return true;
        }
        let starved = |need: u32| {
            self.needed[need as usize] > 0
                && self.makers[need as usize] == 0
                && self.contents[need as usize] != after
        };
        let left = self.index.get(&before.get()).copied();
        let used = self.supplies[class as usize].iter().flatten().copied();
        !left.into_iter().chain(used).any(starved)
    }

    /// The other rules, in a state whose first unplaced operation in the order of returns is `first`.
    pub(super) fn outlook(
        &mut self,
        state: KeyState,
        first: u32,
        remaining: &Remaining<'_>,
        contents: &mut Contents,
    ) -> Outlook {
        let next = self.next_needing(first, remaining);
        let Some(Some(need)) = self.need_of.get(next as usize).copied() else {
            return Outlook::Open;
        };
        let content = self.contents[need as usize];
        let before = remaining.timeline.certain[next as usize].ret;
        let comes = |class: &u32| remaining.any_called_before(*class, before);
        if content != state.content
            && !self.wild_classes.iter().any(comes)
            && !self.maker_classes[need as usize].iter().any(comes)
        {
            return Outlook::Hopeless;
        }
        if content == ContentId::ABSENT || self.resets.is_none() {
            return Outlook::Open;
        }
        if self.bases(need, contents).iter().any(comes) {
            return Outlook::Open;
        }
        if contents.is_prefix(state.content, content) {
            Outlook::Along(content)
        } else {
            Outlook::Hopeless
        }
    }

    /// The first unplaced operation in the order of returns that needs something, from `first` on.
    fn next_needing(&self, first: u32, remaining: &Remaining<'_>) -> u32 {
        let mut next = self.next_needing[first as usize];
        while remaining.placed.get(next as usize) == Some(&true) {
            next = self.next_needing[next as usize + 1];
        }
        next
    }

    /// The rule *purpose*.
    pub(super) fn purpose(
        &self,
        state: KeyState,
        first: u32,
        remaining: &Remaining<'_>,
        contents: &mut Contents,
    ) -> Purpose {
        if self.has_increments {
            return Purpose::Any;
        }
        let next = self.next_needing(first, remaining);
        let before = remaining
            .timeline
            .certain
            .get(next as usize)
            .map_or(u32::MAX, |op| op.ret);
        let mut towards = Vec::new();
        let mut at = remaining.unplaced.first(0);
        while let Some(id) = at {
            at = remaining.unplaced.after(id);
            let op = &remaining.timeline.certain[id as usize];
            if op.call > before {
                break;
            }
            if let Some(need) = self.need_of[id as usize] {
                towards.push(self.contents[need as usize]);
            }
            match contradicts(&op.act) {
                Contradicts::Nothing => {}
                // With appends, what comes in between can lead from here to the content.
                Contradicts::Content(content)
                    if self.has_appends && contents.is_prefix(state.content, content) =>
                {
                    return Purpose::Any;
                }
                Contradicts::Content(content) if content != state.content => {}
                Contradicts::Content(_) | Contradicts::Version => return Purpose::Any,
            }
        }
        if self
            .by_version
            .iter()
            .any(|class| remaining.any_called_before(*class, before))
        {
            return Purpose::Any;
        }
        let conditional = self.conditional.iter().filter_map(|(class, content)| {
            remaining
                .any_called_before(*class, before)
                .then_some(*content)
        });
        towards.extend(conditional);
        towards.sort_unstable();
        towards.dedup();
        Purpose::Towards(towards)
    }

    /// Whether a write that leads to `content` has the purpose.
    pub(super) fn serves(
        &self,
        purpose: &Purpose,
        content: ContentId,
        contents: &mut Contents,
    ) -> bool {
        match purpose {
            Purpose::Any => true,
            Purpose::Towards(towards) => towards.iter().any(|whole| {
                *whole == content || (self.has_appends && contents.is_prefix(content, *whole))
            }),
        }
    }

    fn bases(&mut self, need: u32, contents: &mut Contents) -> &[u32] {
        let whole = self.contents[need as usize];
        let resets = self.resets.as_deref().unwrap_or_default();
        self.bases[need as usize].get_or_insert_with(|| {
            resets
                .iter()
                .filter(|(_, value)| contents.is_prefix(*value, whole))
                .map(|(class, _)| *class)
                .collect()
        })
    }
}

/// The content that a certain operation was told that the key had before it.
fn need(act: &Act, sums_tell: bool, contents: &mut Contents) -> Option<ContentId> {
    match *act {
        Act::Incr {
            by, sum: Some(sum), ..
        } if sums_tell => {
            // 0 may also be "absent".
            let before = contents
                .integer_of(sum)?
                .checked_sub(by)
                .filter(|before| *before != 0)?;
            Some(contents.integer(before))
        }
        _ => needed(act),
    }
}

/// In which states an operation cannot have been told what it was told, apart from its need.
enum Contradicts {
    Nothing,
    Content(ContentId),
    /// It depends on the version.
    Version,
}

/// Whether some state's content or version contradicts the operation, apart from its need.
pub(super) fn can_be_contradicted(act: &Act) -> bool {
    !matches!(contradicts(act), Contradicts::Nothing)
}

fn contradicts(act: &Act) -> Contradicts {
    match *act {
        Act::Cas {
            condition: Condition::Version(_),
            ..
        } => Contradicts::Version,
        // A version that no certain write made is one that an optional write may have made.
        Act::Cas {
            told: CasTold::Mismatch(Some(_)),
            ..
        } => Contradicts::Version,
        Act::Cas {
            condition: Condition::Content(content),
            told: CasTold::Mismatch(None),
            ..
        } => Contradicts::Content(content),
        Act::Delete {
            existed: Some(true),
            ..
        } => Contradicts::Content(ContentId::ABSENT),
        _ => Contradicts::Nothing,
    }
}

fn conditional(timeline: &Timeline) -> Vec<(u32, ContentId)> {
    let condition = |class: &u32| match timeline.classes[*class as usize].act {
        Act::Cas {
            condition: Condition::Content(content),
            ..
        } => Some((*class, content)),
        _ => None,
    };
    timeline
        .optional_classes
        .iter()
        .filter_map(condition)
        .collect()
}

fn by_version(timeline: &Timeline) -> Vec<u32> {
    let named = |class: &u32| {
        let act = timeline.classes[*class as usize].act;
        matches!(
            act,
            Act::Cas {
                condition: Condition::Version(_),
                ..
            }
        )
    };
    timeline
        .optional_classes
        .iter()
        .copied()
        .filter(named)
        .collect()
}

fn resets(timeline: &Timeline) -> Option<Vec<(u32, ContentId)>> {
    let acts = || timeline.classes.iter().map(|class| class.act);
    if !acts().any(|act| matches!(act, Act::Append { .. }))
        || acts().any(|act| matches!(act, Act::Incr { .. }))
    {
        return None;
    }
    let resets = acts().zip(0u32..).filter_map(|(act, class)| match act {
        _ if act.is_observation() => None,
        Act::Put { content, .. } | Act::Cas { content, .. } => Some((class, content)),
        Act::Delete { .. } => Some((class, ContentId::ABSENT)),
        Act::Read { .. } | Act::Incr { .. } | Act::Append { .. } => None,
    });
    Some(resets.collect())
}
