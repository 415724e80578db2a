//! The cache that makes the search finite in practice: which positions were already tried.
//!
//! A position is the set of placed certain operations, the key's state, and
//! which optional operations were used up (Lowe's memoisation of Wing and
//! Gong). Using fewer optional operations leaves strictly more to choose from,
//! so a position is hopeless as soon as one with the same rest and no more
//! of any class used was tried.

use super::word_hash::WordMap;

/// How many optional operations of each class are used, without zeros, by class.
pub(super) type Used = Vec<(u32, u32)>;

/// Positions that were tried.
#[derive(Debug, Default)]
pub(super) struct Visited {
    /// Per (bound, mask, state): the least sets of used operations, none of which contains another.
    positions: WordMap<Box<[u64]>, Vec<u32>>,
    /// The sets by number, and back.
    sets: Vec<Used>,
    numbers: WordMap<Used, u32>,
    bytes: usize,
}

/// What an entry of the map costs beside its key: the key's pointer, the list's head and the map's own byte, at 7/8 load.
const ENTRY_BYTES: usize = 64;

impl Visited {
    /// Whether the position, or a better one, was tried before; if not, it counts as tried from now on.
    ///
    /// `work` is raised by the number of comparisons.
    pub(super) fn was_tried(&mut self, position: &[u64], used: &Used, work: &mut u64) -> bool {
        if let Some(tried) = self.positions.get(position) {
            *work += tried.len() as u64 / 8;
            if tried
                .iter()
                .any(|set| contains(used, &self.sets[*set as usize]))
            {
                return true;
            }
        }
        let number = match self.numbers.get(used) {
            Some(number) => *number,
            None => {
                // The memory bound ends a search long before 2^32 sets.
                let number = self.sets.len() as u32;
                self.sets.push(used.clone());
                self.numbers.insert(used.clone(), number);
                self.bytes += 2 * (ENTRY_BYTES + size_of_val(used.as_slice()));
                number
            }
        };
        match self.positions.get_mut(position) {
            Some(tried) => {
                let before = tried.len();
                tried.retain(|set| !contains(&self.sets[*set as usize], used));
                tried.push(number);
                self.bytes = self.bytes + tried.len() * 4 - before * 4;
            }
            None => {
                self.positions.insert(position.into(), vec![number]);
                self.bytes += ENTRY_BYTES + size_of_val(position) + 16;
            }
        }
        false
    }

    /// About how many bytes the cache holds.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Whether `more` uses at least as many of each class as `less`.
fn contains(more: &Used, less: &Used) -> bool {
    let mut more = more.iter();
    less.iter().all(|(class, count)| {
        more.by_ref()
            .find(|(other, _)| other >= class)
            .is_some_and(|(other, has)| other == class && has >= count)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_with_fewer_operations_used_stands_for_those_with_more() {
        let mut visited = Visited::default();
        let mut work = 0;
        let mut tried = |used: &[(u32, u32)]| visited.was_tried(&[7, 7], &used.to_vec(), &mut work);
        assert!(!tried(&[(1, 2), (4, 1)]));
        assert!(tried(&[(1, 2), (4, 1)]));
        assert!(tried(&[(1, 2), (3, 1), (4, 2)]));
        assert!(!tried(&[(1, 1)]));
        assert!(tried(&[(1, 1), (9, 1)]));
        assert!(!tried(&[(4, 5)]));
        assert!(!tried(&[]));
        assert!(tried(&[(4, 1)]));
        assert!(!visited.was_tried(&[7, 8], &vec![(4, 1)], &mut work));
    }
}
