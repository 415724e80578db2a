//! What the event log tells the loop: budgets, damping and open notes are derived from it, so that a change of
//! leader resets none of them (DESIGN §4.3).
//!
//! Times in the log are wall clocks of different masters, for budgets only. A
//! clock that jumped (FAULTS 17) makes an event look hours away, on either side;
//! that is never "just now".

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use catena_proto::ids::{NodeId, ShardId};

use super::limits::{FLAP_WAIT_FIRST, FLAP_WAIT_MAX, FLAP_WINDOW, FLAPS_MIN};
use super::notes::Word;
use crate::state::{Controller, Event, WallMs};

/// One member that the loop took out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exclusion {
    pub(super) at: WallMs,
    pub(super) node: NodeId,
    pub(super) shard: ShardId,
}

/// The event log as far as the loop cares.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// Exclusions, oldest first.
    pub(super) exclusions: Vec<Exclusion>,
    /// Nodes that were taken out and appended nowhere since.
    pub(super) out: BTreeSet<NodeId>,
    /// The number of the event with which a node left a shard last.
    pub(super) left: BTreeMap<(ShardId, NodeId), u64>,
    /// When a shard was reissued last.
    pub(super) reissued: BTreeMap<ShardId, WallMs>,
    /// Notes that began and are not over.
    pub(super) open: BTreeSet<(Word, String)>,
    /// The times at which a node went out of service, each once however many chains it was in.
    outages: BTreeMap<NodeId, Vec<WallMs>>,
}

/// The time between two wall clocks, whichever is ahead.
pub(super) fn apart(a: WallMs, b: WallMs) -> Duration {
    Duration::from_millis(a.0.abs_diff(b.0))
}

impl History {
    pub(super) fn read<'a>(events: impl Iterator<Item = &'a Event>) -> Self {
        let mut history = Self::default();
        for event in events {
            history.take(event);
        }
        history
    }

    fn take(&mut self, event: &Event) {
        let by_loop = event.by == Controller::Membership;
        match event.action.as_str() {
            "remove-member" => {
                let Some((shard, node)) = shard_and_node(&event.subject) else {
                    return;
                };
                self.left.insert((shard, node), event.no);
                if !by_loop {
                    return;
                }
                self.exclusions.push(Exclusion {
                    at: event.at,
                    node,
                    shard,
                });
                if self.out.insert(node) {
                    self.outages.entry(node).or_default().push(event.at);
                }
            }
            "append-member" => {
                if let Some((_, node)) = shard_and_node(&event.subject) {
                    self.out.remove(&node);
                }
            }
            "reissue" => {
                if let Some(shard) = shard_of(&event.subject) {
                    self.reissued.insert(shard, event.at);
                }
            }
            action if by_loop => {
                if let Some((word, begins)) = Word::parse(action) {
                    let note = (word, event.subject.clone());
                    if begins {
                        self.open.insert(note);
                    } else {
                        self.open.remove(&note);
                    }
                }
            }
            _ => {}
        }
    }

    /// How long a node that flaps must still wait before it is taken in again; `None` if it need not (FAULTS 21).
    pub(super) fn flap_wait(&self, node: NodeId, wall: WallMs) -> Option<Duration> {
        let outages = self.outages.get(&node)?.iter();
        let recent: Vec<WallMs> = outages
            .filter(|at| apart(wall, **at) < FLAP_WINDOW)
            .copied()
            .collect();
        let last = *recent.last()?;
        let count = u32::try_from(recent.len()).unwrap_or(u32::MAX);
        let beyond = count.checked_sub(FLAPS_MIN)?;
        let factor = 2_u32.saturating_pow(beyond);
        let wait = FLAP_WAIT_FIRST.saturating_mul(factor).min(FLAP_WAIT_MAX);
        wait.checked_sub(apart(wall, last))
            .filter(|left| !left.is_zero())
    }
}

/// `shard 1 node 3`, as `state` writes it.
fn shard_and_node(subject: &str) -> Option<(ShardId, NodeId)> {
    let rest = subject.strip_prefix("shard ")?;
    let (shard, node) = rest.split_once(" node ")?;
    Some((
        ShardId::new(shard.parse().ok()?),
        NodeId::new(node.parse().ok()?),
    ))
}

fn shard_of(subject: &str) -> Option<ShardId> {
    let shard = subject.strip_prefix("shard ")?.split(' ').next()?;
    Some(ShardId::new(shard.parse().ok()?))
}
