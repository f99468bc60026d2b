//! An interrupt that counts, and that can be waited for.

use crate::Irq;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Counts the interrupts of a device.
#[derive(Debug, Default)]
pub struct Interrupts {
    counts: Mutex<Counts>,
    changed: Condvar,
}

/// How many interrupts there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// For used buffers, of all queues.
    pub queue: u64,
    /// For changes of the configuration or the status.
    pub config: u64,
}

impl Interrupts {
    /// How many there were so far.
    pub fn counts(&self) -> Counts {
        *self.lock()
    }

    /// Waits until `enough` says so of the counts. Tells whether it did before the deadline.
    pub fn wait(&self, deadline: Duration, mut enough: impl FnMut(&Counts) -> bool) -> bool {
        let wait = self
            .changed
            .wait_timeout_while(self.lock(), deadline, |counts| !enough(counts));
        !wait.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

impl Irq for Interrupts {
    fn queue(&self, _queue: u16) {
        self.count(|counts| counts.queue += 1);
    }

    fn config(&self) {
        self.count(|counts| counts.config += 1);
    }
}
