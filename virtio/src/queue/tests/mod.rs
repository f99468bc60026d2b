//! Tests of the rings: a fake driver on one side, a queue on the other.

mod chain;
mod notification;
mod packed;
mod rules;
mod setup;
mod traffic;

use super::{Drained, Queue, QueueError, Step};
use crate::features::{EVENT_IDX, RING_PACKED};
use crate::testing::ring::{Ring, ram};
use std::cell::RefCell;

/// Each layout with and without event indices.
const LAYOUTS: [u64; 4] = [0, EVENT_IDX, RING_PACKED, RING_PACKED | EVENT_IDX];

/// RAM from 0 to here; nothing above.
const RAM: u64 = 0x10_0000;

/// A driver and its queue, both fresh.
struct Pair {
    ring: Ring,
    queue: Queue,
}

impl Pair {
    fn new(size: u16, features: u64) -> Pair {
        let memory = ram(&[(0, RAM as usize)]);
        let ring = Ring::new(&memory, 0x1000..RAM, size, features);
        let queue = Queue::new(&ring.config(), memory, features).unwrap();
        Pair { ring, queue }
    }

    /// Completes whatever is there, and tells how many chains that was.
    fn drain(&mut self) -> Result<(usize, Drained), QueueError> {
        let mut count = 0;
        let drained = self.queue.drain(|_| {
            count += 1;
            Ok::<_, QueueError>(Step::Done(0))
        })?;
        Ok((count, drained))
    }
}

thread_local! {
    static DRIVER: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// What the driver does, once, after a drain has found the ring empty and before it turns
/// doorbells on. Threads would meet there too seldom for a test.
fn at_the_last_moment(driver: impl FnOnce() + 'static) {
    DRIVER.with_borrow_mut(|slot| *slot = Some(Box::new(driver)));
}

/// The moment has come.
pub(super) fn meanwhile() {
    if let Some(driver) = DRIVER.take() {
        driver();
    }
}
