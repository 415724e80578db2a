//! The writes of one connection that wait for their answers.

use catena_proto::call::CallId;
use catena_proto::ids::ShardId;
use catena_proto::op::{Command, RequestId};
use catena_proto::time::Mono;

/// Bits of a request's number that name its place; the rest count how often the place was used.
const PLACE_BITS: u32 = 32;

/// A write that waits for its answer.
pub(crate) struct Waiting {
    pub(crate) call: CallId,
    pub(crate) shard: ShardId,
    /// For writes that are decided by the key's row, in case it was read too early.
    pub(crate) again: Option<(Option<RequestId>, Command, Mono)>,
}

/// Writes by number. A number is used once, so that an answer never meets another write.
#[derive(Default)]
pub(crate) struct WaitingList {
    places: Vec<(u32, Option<Waiting>)>,
    vacant: Vec<u32>,
}

impl WaitingList {
    /// Adds a write, and gives it its number.
    pub(crate) fn add(&mut self, waiting: Waiting) -> u64 {
        let at = self.vacant.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            self.places.len() as u32 - 1
        });
        let (uses, place) = &mut self.places[at as usize];
        *place = Some(waiting);
        u64::from(*uses) << PLACE_BITS | u64::from(at)
    }

    /// Takes the write with this number out, if it still waits.
    pub(crate) fn remove(&mut self, number: u64) -> Option<Waiting> {
        let at = number as u32;
        let (uses, place) = self.places.get_mut(at as usize)?;
        if u64::from(*uses) != number >> PLACE_BITS {
            return None;
        }
        let waiting = place.take()?;
        *uses = uses.wrapping_add(1);
        self.vacant.push(at);
        Some(waiting)
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.vacant.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(call: u64) -> Waiting {
        Waiting {
            call: CallId::new(call),
            shard: ShardId::new(1),
            again: None,
        }
    }

    #[test]
    fn an_answer_meets_its_own_write_once_and_no_later_one_in_the_same_place() {
        let mut list = WaitingList::default();
        let (a, b) = (list.add(waiting(1)), list.add(waiting(2)));
        assert_eq!(list.remove(a).map(|w| w.call), Some(CallId::new(1)));
        assert!(list.remove(a).is_none());
        let c = list.add(waiting(3));
        assert!(list.remove(a).is_none());
        assert_eq!(list.len(), 2);
        assert_eq!(list.remove(c).map(|w| w.call), Some(CallId::new(3)));
        assert_eq!(list.remove(b).map(|w| w.call), Some(CallId::new(2)));
        assert!(list.is_empty());
        assert!(list.remove(99).is_none());
    }
}
