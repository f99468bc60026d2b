//! Who wakes whom, and when: doorbells, interrupts, and what comes in between.

use super::{Pair, RAM, at_the_last_moment};
use crate::features::EVENT_IDX;
use crate::queue::{Drained, Queue, QueueError, Step, Token};
use crate::testing::ring::{Ring, ram};
use std::sync::{Arc, mpsc};
use std::time::Duration;

const NOTHING: Drained = Drained {
    interrupt: false,
    more: false,
};
const INTERRUPT: Drained = Drained {
    interrupt: true,
    more: false,
};

#[test]
fn an_empty_queue_wants_doorbells_and_no_interrupt() {
    for features in [0, EVENT_IDX] {
        let mut pair = Pair::new(8, features);
        assert_eq!(pair.drain(), Ok((0, NOTHING)));
        pair.ring.add(&[b"x"], &[]);
        assert!(pair.ring.must_kick());
    }
}

#[test]
fn many_chains_are_one_interrupt() {
    for features in [0, EVENT_IDX] {
        let mut pair = Pair::new(8, features);
        for _ in 0..5 {
            pair.ring.add(&[b"x"], &[]);
        }
        assert_eq!(pair.drain(), Ok((5, INTERRUPT)));
        assert_eq!(pair.drain(), Ok((0, NOTHING)));
    }
}

#[test]
fn a_driver_that_wants_no_interrupt_gets_none() {
    let mut pair = Pair::new(8, 0);
    pair.ring.disable_interrupts();
    pair.ring.add(&[b"x"], &[]);
    assert_eq!(pair.drain(), Ok((1, NOTHING)));
    assert!(pair.ring.enable_interrupts(), "the chain was used already");
}

#[test]
fn an_interrupt_comes_when_the_used_index_passes_used_event() {
    let mut pair = Pair::new(8, EVENT_IDX);
    pair.ring.as_split().set_used_event(2);
    let mut interrupts = Vec::new();
    for _ in 0..5 {
        pair.ring.add(&[b"x"], &[]);
        interrupts.push(pair.drain().unwrap().1.interrupt);
    }
    assert_eq!(interrupts, [false, false, true, false, false]);
}

#[test]
fn garbage_in_the_event_fields_costs_interrupts_at_most() {
    for poison in [0, 1, 0x7fff, 0x8000, 0xffff] {
        let mut pair = Pair::new(8, EVENT_IDX);
        pair.ring.as_split().set_used_event(poison);
        pair.ring.as_split().set_avail_flags(poison);
        pair.ring.add(&[b"x"], &[]);
        assert_eq!(pair.drain().unwrap().0, 1);
        let mut pair = Pair::new(8, 0);
        pair.ring.as_split().set_avail_flags(poison);
        pair.ring.add(&[b"x"], &[]);
        assert_eq!(
            pair.drain().unwrap(),
            (
                1,
                Drained {
                    interrupt: poison & 1 == 0,
                    more: false
                }
            )
        );
    }
}

#[test]
fn doorbells_are_off_while_chains_are_taken_and_on_afterwards() {
    for features in [0, EVENT_IDX] {
        let mut pair = Pair::new(8, features);
        pair.ring.add(&[b"x"], &[]);
        assert!(pair.ring.must_kick());
        let mut kicks = 0;
        let mut left = 3;
        let drained = pair.queue.drain(|_| {
            if left > 0 {
                left -= 1;
                pair.ring.add(&[b"x"], &[]);
                kicks += usize::from(pair.ring.must_kick());
            }
            Ok::<_, QueueError>(Step::Done(0))
        });
        assert_eq!((drained, kicks), (Ok(INTERRUPT), 0));
        pair.ring.add(&[b"x"], &[]);
        assert!(pair.ring.must_kick());
    }
}

#[test]
fn a_chain_added_at_the_last_moment_without_a_doorbell_is_seen() {
    for features in [0, EVENT_IDX] {
        let Pair {
            mut ring,
            mut queue,
            ..
        } = Pair::new(8, features);
        ring.add(&[b"x"], &[]);
        assert!(ring.must_kick());
        at_the_last_moment(move || {
            ring.add(&[b"x"], &[]);
            assert!(!ring.must_kick(), "doorbells are off");
        });
        let mut count = 0;
        let drained = queue.drain(|_| {
            count += 1;
            Ok::<_, QueueError>(Step::Done(0))
        });
        assert_eq!((drained, count), (Ok(INTERRUPT), 2));
    }
}

#[test]
fn a_stopped_chain_is_put_back_and_comes_first() {
    for features in [0, EVENT_IDX] {
        let mut pair = Pair::new(8, features);
        let first = pair.ring.add(&[b"first"], &[]);
        pair.ring.add(&[b"second"], &[]);
        let stopped = pair.queue.drain(|_| Ok::<_, QueueError>(Step::Stop));
        assert_eq!(stopped, Ok(NOTHING));
        assert_eq!(
            (pair.queue.has_available(), pair.ring.used()),
            (Ok(true), None)
        );
        assert_eq!(pair.drain(), Ok((2, INTERRUPT)));
        assert_eq!(pair.ring.used(), Some((first, 0)));
    }
}

#[test]
fn doorbells_stay_off_after_a_stop() {
    for features in [0, EVENT_IDX] {
        let mut pair = Pair::new(8, features);
        pair.ring.add(&[b"x"], &[]);
        assert!(pair.ring.must_kick());
        assert_eq!(
            pair.queue.drain(|_| Ok::<_, QueueError>(Step::Stop)),
            Ok(NOTHING)
        );
        pair.ring.add(&[b"x"], &[]);
        assert!(!pair.ring.must_kick());
        assert_eq!(pair.drain().unwrap().0, 2);
        pair.ring.add(&[b"x"], &[]);
        assert!(pair.ring.must_kick());
    }
}

#[test]
fn a_driver_that_adds_as_fast_as_chains_are_used_does_not_keep_the_device() {
    for features in [0, EVENT_IDX] {
        let mut pair = Pair::new(8, features);
        pair.ring.add(&[b"x"], &[]);
        let mut count = 0;
        let drained = pair.queue.drain(|_| {
            count += 1;
            pair.ring.add(&[b"x"], &[]);
            while pair.ring.used().is_some() {}
            Ok::<_, QueueError>(Step::Done(0))
        });
        assert_eq!(
            drained,
            Ok(Drained {
                interrupt: true,
                more: true
            })
        );
        assert_eq!(count, 8);
    }
}

#[test]
fn a_drain_that_ends_with_its_budget_and_an_empty_ring_wants_doorbells() {
    for features in [0, EVENT_IDX] {
        let mut pair = Pair::new(4, features);
        for _ in 0..4 {
            pair.ring.add(&[b"x"], &[]);
        }
        assert!(pair.ring.must_kick());
        assert_eq!(pair.drain(), Ok((4, INTERRUPT)));
        while pair.ring.used().is_some() {}
        pair.ring.add(&[b"x"], &[]);
        assert!(pair.ring.must_kick());
    }
}

#[test]
fn chains_kept_for_later_are_completed_in_any_order() {
    for features in [0, EVENT_IDX] {
        let mut pair = Pair::new(8, features);
        let heads = [1, 2, 3].map(|len| pair.ring.add(&[], &[len]));
        let mut tokens: Vec<Token> = Vec::new();
        let drained = pair.queue.drain(|chain| {
            tokens.push(chain.token());
            Ok::<_, QueueError>(Step::Later)
        });
        assert_eq!((drained, pair.queue.in_flight()), (Ok(NOTHING), 3));

        let last = pair.queue.complete(tokens.pop().unwrap(), 3);
        assert_eq!((last, pair.queue.in_flight()), (Ok(true), 2));
        assert_eq!(pair.ring.used(), Some((heads[2], 3)));
        assert!(!pair.ring.enable_interrupts());
        assert_eq!(pair.queue.complete(tokens.remove(0), 1), Ok(true));
        assert_eq!(pair.ring.used(), Some((heads[0], 1)));
        assert_eq!(pair.queue.in_flight(), 1);
    }
}

#[test]
fn an_error_of_the_device_ends_the_drain_with_its_chain_not_consumed() {
    #[derive(Debug, PartialEq)]
    enum Error {
        Queue(QueueError),
        Device,
    }
    impl From<QueueError> for Error {
        fn from(error: QueueError) -> Self {
            Error::Queue(error)
        }
    }
    let mut pair = Pair::new(8, 0);
    pair.ring.add(&[b"x"], &[]);
    assert_eq!(pair.queue.drain(|_| Err(Error::Device)), Err(Error::Device));
    assert_eq!(
        (pair.queue.has_available(), pair.ring.used()),
        (Ok(true), None)
    );
    pair.ring.as_split().set_avail_idx(100);
    assert_eq!(pair.queue.drain(|_| Err(Error::Device)), Err(Error::Device));
    // The index is looked at again when the chains that are known of are taken.
    let jump = QueueError::AvailIndexJump {
        from: 1,
        to: 100,
        size: 8,
    };
    let drained = pair.queue.drain(|_| Ok::<_, Error>(Step::Done(0)));
    assert_eq!(drained, Err(Error::Queue(jump)));
}

/// What a test needs to look random and be the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Both sides sleep until they are woken; wraps all indices; one side is never left asleep.
///
/// The driver only looks at its used ring after an interrupt, the device only at its available
/// ring after a doorbell. A notification that is lost would stop both.
fn wake_each_other(features: u64, size: u16, requests: u32, seed: u64) {
    let mut pair = Pair::new(size, features);
    let mut random = Random(seed);
    let (mut added, mut used, mut wakes) = (0, 0, 0);
    while used < requests {
        let burst = u32::try_from(1 + random.below(u64::from(size))).unwrap();
        let burst = burst
            .min(requests - added)
            .min(u32::from(size) - (added - used));
        for _ in 0..burst {
            pair.ring.add(&[b"x"], &[]);
            added += 1;
        }
        let mut interrupt = false;
        if pair.ring.must_kick() {
            wakes += 1;
            let late = random.below(3);
            let mut extra = 0;
            let drained = pair.queue.drain(|_| {
                // While the device is at work, the driver adds some more.
                if extra < late && added < requests && added - used < u32::from(size) {
                    extra += 1;
                    pair.ring.add(&[b"x"], &[]);
                    assert!(added >= used);
                    added += 1;
                }
                Ok::<_, QueueError>(Step::Done(0))
            });
            let mut drained = drained.unwrap();
            interrupt = drained.interrupt;
            while drained.more {
                drained = pair.drain().unwrap().1;
                interrupt |= drained.interrupt;
            }
        }
        assert!(interrupt || added > used, "something to do");
        if interrupt {
            wakes += 1;
            loop {
                pair.ring.disable_interrupts();
                while let Some((_, len)) = pair.ring.used() {
                    assert_eq!(len, 0);
                    used += 1;
                }
                if !pair.ring.enable_interrupts() {
                    break;
                }
            }
        }
        // Neither side knows of anything to do, and something is to be done: a wake-up was lost.
        assert_eq!(added, used, "a notification was lost at request {used}");
    }
    assert!(wakes <= 2 * requests, "more wake-ups than requests");
}

#[test]
fn indices_wrap_without_a_lost_notification_with_event_indices() {
    let requests = if cfg!(miri) { 300 } else { 200_000 };
    wake_each_other(EVENT_IDX, 8, requests, 1);
    wake_each_other(EVENT_IDX, 1, requests, 2);
}

#[test]
fn indices_wrap_without_a_lost_notification_without_event_indices() {
    let requests = if cfg!(miri) { 300 } else { 200_000 };
    wake_each_other(0, 16, requests, 3);
    wake_each_other(0, 2, requests, 4);
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes when interpreted")]
fn a_large_queue_wraps_too() {
    wake_each_other(EVENT_IDX, 2048, 200_000, 5);
}

/// The same with two threads. It can't tell whether a fence is missing: the time in which a
/// processor lets both sides see the past is far shorter than the steps of a debug build.
fn race(features: u64, requests: u32) {
    let memory = ram(&[(0, RAM as usize)]);
    let mut ring = Ring::split(&memory, 0x1000..RAM, 4, features);
    let mut queue = Queue::new(&ring.config(), Arc::clone(&memory), features).unwrap();
    let (doorbell, rung) = mpsc::channel::<()>();
    let (irq, raised) = mpsc::channel::<()>();
    let patience = Duration::from_secs(30);

    let device = std::thread::spawn(move || {
        while rung.recv().is_ok() {
            loop {
                let drained = queue.drain(|_| Ok::<_, QueueError>(Step::Done(0))).unwrap();
                if drained.interrupt {
                    let _ = irq.send(());
                }
                if !drained.more {
                    break;
                }
            }
        }
    });
    let (mut added, mut used) = (0, 0);
    while used < requests {
        while added < requests && added - used < 4 {
            ring.add(&[b"x"], &[]);
            added += 1;
            if ring.must_kick() {
                doorbell.send(()).unwrap();
            }
        }
        let before = used;
        while ring.used().is_some() {
            used += 1;
        }
        if used == before && !ring.enable_interrupts() {
            raised
                .recv_timeout(patience)
                .expect("a notification was lost");
        }
    }
    drop(doorbell);
    device.join().unwrap();
    assert_eq!(used, requests);
}

#[test]
fn two_threads_lose_no_notification_with_event_indices() {
    race(EVENT_IDX, if cfg!(miri) { 50 } else { 50_000 });
}

#[test]
fn two_threads_lose_no_notification_without_event_indices() {
    race(0, if cfg!(miri) { 50 } else { 50_000 });
}
