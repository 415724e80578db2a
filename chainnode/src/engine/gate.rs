//! Keeps writers out while a store without snapshots is being read at one moment.
//!
//! Not a read-write lock from a library, because a view may move to another
//! thread, and their guards may not.

use parking_lot::{Condvar, Mutex};

/// The gate: any number of readers, or one writer. A waiting writer goes before new readers, so that scans cannot starve it.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    readers: usize,
    writers_waiting: usize,
    writing: bool,
}

impl Gate {
    /// Waits for the writers that are there, then keeps new ones out until the pass is dropped.
    pub(super) fn read(&self) -> ReadPass<'_> {
        let mut state = self.state.lock();
        while state.writing || state.writers_waiting > 0 {
            self.changed.wait(&mut state);
        }
        state.readers += 1;
        ReadPass(self)
    }

    /// Waits for readers and other writers, then keeps everyone out until the pass is dropped.
    pub(super) fn write(&self) -> WritePass<'_> {
        let mut state = self.state.lock();
        state.writers_waiting += 1;
        while state.writing || state.readers > 0 {
            self.changed.wait(&mut state);
        }
        state.writers_waiting -= 1;
        state.writing = true;
        WritePass(self)
    }
}

/// A reader is inside.
#[derive(Debug)]
pub(super) struct ReadPass<'a>(&'a Gate);

impl Drop for ReadPass<'_> {
    fn drop(&mut self) {
        self.0.state.lock().readers -= 1;
        self.0.changed.notify_all();
    }
}

/// The writer is inside.
#[derive(Debug)]
pub(super) struct WritePass<'a>(&'a Gate);

impl Drop for WritePass<'_> {
    fn drop(&mut self) {
        self.0.state.lock().writing = false;
        self.0.changed.notify_all();
    }
}
