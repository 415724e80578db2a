//! A queue from many producers to one thread that takes everything at once.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A queue whose only consumer swaps the whole of it out.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    queue: Mutex<Queue<T>>,
    filled: Condvar,
    weight_max: usize,
}

#[derive(Debug)]
struct Queue<T> {
    items: Vec<T>,
    weight: usize,
    closed: bool,
}

/// The queue holds as much as it may; the item is given back.
#[derive(Debug)]
pub(crate) struct Full<T>(pub(crate) T);

impl<T> Inbox<T> {
    /// A queue that refuses new work beyond this weight.
    pub(crate) const fn new(weight_max: usize) -> Self {
        Self {
            queue: Mutex::new(Queue {
                items: Vec::new(),
                weight: 0,
                closed: false,
            }),
            filled: Condvar::new(),
            weight_max,
        }
    }

    /// Adds work that may be refused.
    pub(crate) fn offer(&self, item: T, weight: usize) -> Result<(), Full<T>> {
        let mut queue = self.queue.lock();
        if queue.weight.saturating_add(weight) > self.weight_max && !queue.items.is_empty() {
            return Err(Full(item));
        }
        self.add(&mut queue, item, weight);
        Ok(())
    }

    /// Adds work that is bounded elsewhere (completions of what this side asked for).
    pub(crate) fn push(&self, item: T) {
        let mut queue = self.queue.lock();
        self.add(&mut queue, item, 0);
    }

    fn add(&self, queue: &mut Queue<T>, item: T, weight: usize) {
        let was_empty = queue.items.is_empty();
        queue.items.push(item);
        queue.weight += weight;
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Takes everything, waiting at most `patience` for the first item; false once closed and empty.
    pub(crate) fn take(&self, into: &mut Vec<T>, patience: Option<Duration>) -> bool {
        debug_assert!(into.is_empty(), "what was taken is worked off first");
        let mut queue = self.queue.lock();
        if queue.items.is_empty() && !queue.closed {
            match patience {
                Some(patience) => {
                    let _ = self.filled.wait_for(&mut queue, patience);
                }
                None => self.filled.wait(&mut queue),
            }
        }
        std::mem::swap(&mut queue.items, into);
        queue.weight = 0;
        !(queue.closed && into.is_empty())
    }

    /// No more work comes; the consumer ends once it has taken the rest.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.filled.notify_all();
    }
}
