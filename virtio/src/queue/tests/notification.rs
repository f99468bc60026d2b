//! Who wakes whom, and when: doorbells, interrupts, and what comes in between.

use super::{LAYOUTS, Pair, at_the_last_moment};
use crate::features::{EVENT_IDX, RING_PACKED};
use crate::queue::{Drained, QueueError, Step, Token};

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
    for features in LAYOUTS {
        let mut pair = Pair::new(8, features);
        assert_eq!(pair.drain(), Ok((0, NOTHING)));
        pair.ring.add(&[b"x"], &[]);
        assert!(pair.ring.must_kick());
    }
}

#[test]
fn many_chains_are_one_interrupt() {
    for features in LAYOUTS {
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
    // With event indices, a split ring has no way to say so.
    for features in [0, RING_PACKED, RING_PACKED | EVENT_IDX] {
        let mut pair = Pair::new(8, features);
        pair.ring.disable_interrupts();
        pair.ring.add(&[b"x"], &[]);
        assert_eq!(pair.drain(), Ok((1, NOTHING)));
        assert!(pair.ring.enable_interrupts(), "the chain was used already");
    }
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
    for features in LAYOUTS {
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
    for features in LAYOUTS {
        let Pair {
            mut ring,
            mut queue,
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
    for features in LAYOUTS {
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
    for features in LAYOUTS {
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
    for features in LAYOUTS {
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
    for features in LAYOUTS {
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
    for features in LAYOUTS {
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
