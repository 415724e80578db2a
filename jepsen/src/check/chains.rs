//! Linked lists over numbers, from which an entry can leave and come back in constant time.
//!
//! A search takes operations out and puts them back in the reverse order
//! (Knuth's "dancing links"): an entry that left still knows its neighbours.

/// Several disjoint lists over the entries `0..n`; each keeps the order that it was made with.
#[derive(Debug)]
pub(super) struct Chains {
    next: Vec<u32>,
    prev: Vec<u32>,
    entries: u32,
}

impl Chains {
    /// Lists over `entries` entries; an entry is in one list at most.
    pub(super) fn new(entries: u32, lists: &[Vec<u32>]) -> Self {
        let size = entries as usize + lists.len();
        let own: Vec<u32> = (entries..).take(size - entries as usize).collect();
        let alone = (0..entries).chain(own.iter().copied());
        let mut chains = Self {
            next: alone.clone().collect(),
            prev: alone.collect(),
            entries,
        };
        for (list, end) in lists.iter().zip(own) {
            let mut last = end;
            for entry in list {
                chains.next[last as usize] = *entry;
                chains.prev[*entry as usize] = last;
                last = *entry;
            }
            chains.next[last as usize] = end;
            chains.prev[end as usize] = last;
        }
        chains
    }

    /// The first entry of a list.
    pub(super) fn first(&self, list: u32) -> Option<u32> {
        self.entry(self.next[(self.entries + list) as usize])
    }

    /// The entry after this one in its list.
    pub(super) fn after(&self, entry: u32) -> Option<u32> {
        self.entry(self.next[entry as usize])
    }

    /// Takes an entry out; harmless for one that is in no list.
    pub(super) fn take(&mut self, entry: u32) {
        let (prev, next) = (self.prev[entry as usize], self.next[entry as usize]);
        self.next[prev as usize] = next;
        self.prev[next as usize] = prev;
    }

    /// Puts back the entry that was taken out last among those that are out.
    pub(super) fn put_back(&mut self, entry: u32) {
        let (prev, next) = (self.prev[entry as usize], self.next[entry as usize]);
        self.next[prev as usize] = entry;
        self.prev[next as usize] = entry;
    }

    fn entry(&self, place: u32) -> Option<u32> {
        (place < self.entries).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(chains: &Chains, no: u32) -> Vec<u32> {
        std::iter::successors(chains.first(no), |entry| chains.after(*entry)).collect()
    }

    #[test]
    fn entries_come_back_to_where_they_were() {
        let mut chains = Chains::new(5, &[vec![3, 0, 2], vec![], vec![1]]);
        for entry in [0, 3, 4] {
            chains.take(entry);
        }
        assert_eq!(list(&chains, 0), [2]);
        for entry in [4, 3, 0] {
            chains.put_back(entry);
        }
        assert_eq!(list(&chains, 0), [3, 0, 2]);
        assert_eq!(list(&chains, 1), Vec::<u32>::new());
        assert_eq!(list(&chains, 2), [1]);
    }
}
