//! Long runs: indices and wrap counters go round many times, and nobody is left asleep.

use super::{Pair, RAM};
use crate::features::{EVENT_IDX, INDIRECT_DESC, RING_PACKED};
use crate::queue::{Chain, Queue, QueueError, Step, Token};
use crate::testing::ring::{Ring, ram};
use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

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
fn packed_rings_wrap_without_a_lost_notification() {
    let requests = if cfg!(miri) { 300 } else { 70_000 };
    for (size, seed) in [(1, 6), (3, 7), (8, 8), (100, 9)] {
        wake_each_other(RING_PACKED, size, requests / 7, seed);
        wake_each_other(RING_PACKED | EVENT_IDX, size, requests, seed);
    }
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
    wake_each_other(RING_PACKED | EVENT_IDX, 1000, 70_000, 6);
}

/// The same with two threads. It can't tell whether a fence is missing: the time in which a
/// processor lets both sides see the past is far shorter than the steps of a debug build.
fn race(features: u64, requests: u32) {
    let memory = ram(&[(0, RAM as usize)]);
    let mut ring = Ring::new(&memory, 0x1000..RAM, 4, features);
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
    for layout in [0, RING_PACKED] {
        race(layout | EVENT_IDX, if cfg!(miri) { 50 } else { 50_000 });
    }
}

#[test]
fn two_threads_lose_no_notification_without_event_indices() {
    for layout in [0, RING_PACKED] {
        race(layout, if cfg!(miri) { 50 } else { 50_000 });
    }
}

/// What a chain asked for, and the descriptors that it took.
struct Sent {
    text: Vec<u8>,
    writable: bool,
    slots: u16,
}

/// Chains of any shape, each done at once or later, in any order; each is answered once, with its
/// own bytes.
fn shuffle(features: u64, size: u16, requests: u32, seed: u64) {
    let mut pair = Pair::new(size, features);
    let mut random = Random(seed);
    let mut sent: HashMap<u16, Sent> = HashMap::new();
    let mut kept: Vec<(Token, u32)> = Vec::new();
    let (mut added, mut free) = (0, size);
    while added < requests || !sent.is_empty() {
        while added < requests && free > 0 {
            let indirect = features & INDIRECT_DESC != 0 && random.below(2) == 0;
            let readable = 1 + random.below(u64::from(if indirect { size } else { free })) as u16;
            let readable = readable.min(4);
            // All of the same size, for the fake driver's heap cuts nothing.
            let room = 16 * (2 * (4 - usize::from(readable)) + 1);
            let writable = if readable < free.min(4) {
                vec![room]
            } else {
                vec![]
            };
            let slots = if indirect {
                1
            } else {
                readable + writable.len() as u16
            };
            let text = added.to_le_bytes().repeat(usize::from(readable));
            let parts: Vec<&[u8]> = text.chunks(4).collect();
            let id = match indirect {
                true => pair.ring.add_indirect(&parts, &writable),
                false => pair.ring.add(&parts, &writable),
            };
            let writable = !writable.is_empty();
            let before = sent.insert(
                id,
                Sent {
                    text,
                    writable,
                    slots,
                },
            );
            assert!(before.is_none(), "an identifier twice");
            (added, free) = (added + 1, free - slots);
            if random.below(3) == 0 {
                break;
            }
        }
        let drained = pair.queue.drain(|chain| {
            let answer = echo(chain);
            Ok::<_, QueueError>(match random.below(8) {
                0 => Step::Stop,
                1..4 => {
                    kept.push((chain.token(), answer));
                    Step::Later
                }
                _ => Step::Done(answer),
            })
        });
        assert!(drained.is_ok(), "{drained:?}");
        assert_eq!(usize::from(pair.queue.in_flight()), kept.len());
        while !kept.is_empty() && random.below(4) > 0 {
            let (token, answer) = kept.swap_remove(random.below(kept.len() as u64) as usize);
            pair.queue.complete(token, answer).unwrap();
        }
        while let Some((id, len)) = pair.ring.used() {
            let Sent {
                text,
                writable,
                slots,
            } = sent.remove(&id).expect("a chain that was sent");
            let expected = if writable { text } else { Vec::new() };
            assert_eq!(pair.ring.written(id, len as usize), expected);
            assert_eq!(len as usize, expected.len());
            free += slots;
        }
    }
    assert_eq!((free, kept.len()), (size, 0));
}

/// Copies what is readable to what is writable, as far as that goes. Does it again if the chain
/// comes again after a stop.
fn echo(chain: &mut Chain<'_>) -> u32 {
    let mut text = vec![0; chain.readable_len() as usize];
    chain.reader().read_exact(&mut text).unwrap();
    let len = text.len().min(chain.writable_len() as usize);
    chain.writer().write_all(&text[..len]).unwrap();
    chain.written()
}

#[test]
fn chains_of_any_shape_are_each_answered_once_in_any_order() {
    let (few, many) = if cfg!(miri) {
        (100, 200)
    } else {
        (5_000, 70_000)
    };
    for (size, seed) in [(1, 11), (3, 12), (8, 13), (1000, 14)] {
        shuffle(RING_PACKED, size, few, seed);
        shuffle(RING_PACKED | EVENT_IDX | INDIRECT_DESC, size, many, seed);
    }
    shuffle(0, 8, few, 17);
    shuffle(EVENT_IDX | INDIRECT_DESC, 8, many, 18);
}
