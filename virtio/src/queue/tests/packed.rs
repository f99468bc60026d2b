//! Packed rings: what is peculiar to them, and drivers that break their rules.

use super::{Drained, Pair, Queue, RAM, at_the_last_moment};
use crate::features::{EVENT_IDX, INDIRECT_DESC, RING_PACKED};
use crate::queue::{Part, QueueConfig, QueueError, Step, Token};
use crate::testing::ring::packed::{AVAIL, DESC, DISABLE, ENABLE, USED};
use crate::testing::ring::{Descriptor, INDIRECT, NEXT, Packed, Ring, WRITE, ram};

const INTERRUPT: Drained = Drained {
    interrupt: true,
    more: false,
};

fn pair(size: u16, features: u64) -> Pair {
    Pair::new(size, RING_PACKED | features)
}

/// A descriptor of 16 good bytes. Its identifier is 3.
fn good(flags: u16) -> Descriptor {
    Descriptor {
        address: 0x8000,
        len: 16,
        flags,
        next: 3,
    }
}

/// Offers a chain and tells how draining it ends.
fn offer(features: u64, descriptors: &[Descriptor]) -> Result<usize, QueueError> {
    let mut pair = pair(8, features);
    pair.ring.as_packed().push_avail(descriptors);
    pair.drain().map(|(count, _)| count)
}

/// Offers a chain of one indirect descriptor with this table.
fn offer_table(table: &[Descriptor]) -> Result<(u32, u32), QueueError> {
    let mut pair = pair(8, INDIRECT_DESC);
    let bytes: Vec<u8> = table
        .iter()
        .flat_map(|each| each.to_packed_bytes())
        .collect();
    let address = pair.ring.alloc_bytes(&bytes);
    pair.ring.as_packed().push_avail(&[Descriptor {
        address,
        len: bytes.len() as u32,
        ..good(INDIRECT)
    }]);
    let mut lengths = None;
    let _ = pair.queue.drain(|chain| {
        lengths = Some((chain.readable_len(), chain.writable_len()));
        Ok::<_, QueueError>(Step::Done(0))
    })?;
    Ok(lengths.expect("a chain"))
}

fn keep(pair: &mut Pair) -> Vec<Token> {
    let mut tokens = Vec::new();
    let drained = pair.queue.drain(|chain| {
        tokens.push(chain.token());
        Ok::<_, QueueError>(Step::Later)
    });
    assert!(drained.is_ok());
    tokens
}

#[test]
fn descriptors_with_the_flags_of_another_round_are_not_available() {
    for flags in [0, USED, AVAIL | USED, NEXT | USED, NEXT | WRITE] {
        let mut pair = pair(8, 0);
        pair.ring.as_packed().set_descriptor(0, good(flags));
        assert_eq!(pair.queue.has_available(), Ok(false));
        assert_eq!(pair.drain().unwrap().0, 0);
        assert_eq!(pair.ring.as_packed().flags(0), flags);
    }
    let mut pair = pair(8, 0);
    pair.ring.as_packed().set_descriptor(0, good(AVAIL));
    assert_eq!(pair.queue.has_available(), Ok(true));
}

#[test]
fn descriptors_of_the_last_round_are_not_those_of_this_one() {
    // Chains of two: of each the second descriptor still says that it is available.
    let mut pair = pair(4, 0);
    for _ in 0..2 {
        pair.ring.as_packed().push_avail(&[good(NEXT), good(0)]);
    }
    assert_eq!(pair.drain().unwrap().0, 2);
    assert_eq!(pair.ring.as_packed().flags(1), AVAIL);
    assert_eq!(pair.drain().unwrap().0, 0);
    // Of the second round, AVAIL is what marks the first descriptor as not available.
    pair.ring.as_packed().set_flags(0, AVAIL);
    assert_eq!(pair.drain().unwrap().0, 0);
    pair.ring.as_packed().set_flags(0, USED);
    assert_eq!(pair.drain().unwrap().0, 1);
}

#[test]
fn a_used_descriptor_says_what_was_written_and_skips_the_chain() {
    let mut pair = pair(8, 0);
    let first = pair.ring.add(&[b"a", b"b"], &[4]);
    let second = pair.ring.add(&[b"c"], &[]);
    let mut written = [4, 0].into_iter();
    let drained = pair
        .queue
        .drain(|_| Ok::<_, QueueError>(Step::Done(written.next().unwrap())));
    assert!(drained.is_ok());
    let flags = |packed: &Packed| [0, 1, 2, 3].map(|index| packed.flags(index));
    assert_eq!(
        flags(pair.ring.as_packed()),
        [
            AVAIL | USED | WRITE,
            AVAIL | NEXT,
            AVAIL | WRITE,
            AVAIL | USED
        ]
    );
    assert_eq!(pair.ring.used(), Some((first, 4)));
    assert_eq!(pair.ring.used(), Some((second, 0)));
}

#[test]
fn a_chain_that_wraps_is_one_chain() {
    for size in [3, 4, 5] {
        let mut pair = pair(size, 0);
        for _ in 0..3 {
            let head = pair.ring.add(&[b"pi", b"ng"], &[4]);
            let drained = pair.queue.drain(|chain| {
                let mut bytes = [0; 4];
                chain.reader().read_exact(&mut bytes).unwrap();
                chain.writer().write_all(&bytes).unwrap();
                Ok::<_, QueueError>(Step::Done(4))
            });
            assert!(drained.is_ok());
            assert_eq!(pair.ring.used(), Some((head, 4)));
            assert_eq!(pair.ring.written(head, 4), b"ping");
        }
    }
}

#[test]
fn chains_that_never_end_are_refused_at_the_queue_size() {
    for size in [1, 3, 8] {
        let mut pair = pair(size, 0);
        let all = vec![good(NEXT); usize::from(size)];
        pair.ring.as_packed().push_avail(&all);
        assert_eq!(
            pair.drain(),
            Err(QueueError::ChainTooLong { limit: size }),
            "size {size}"
        );
    }
}

#[test]
fn a_chain_as_long_as_the_queue_is_accepted() {
    let mut chain = vec![good(NEXT); 8];
    chain[7].flags = 0;
    assert_eq!(offer(0, &chain), Ok(1));
}

#[test]
fn a_chain_over_descriptors_in_flight_is_refused() {
    let mut pair = pair(4, 0);
    pair.ring.add(&[b"x", b"y"], &[]);
    let tokens = keep(&mut pair);
    let three = [good(NEXT), good(NEXT), good(0)];
    pair.ring.as_packed().push_avail(&three);
    let refused = QueueError::DescriptorsInFlight { len: 3, free: 2 };
    assert_eq!(pair.drain(), Err(refused));
    // What is in flight stays so.
    assert_eq!((tokens.len(), pair.queue.in_flight()), (1, 1));
}

#[test]
fn a_full_ring_has_no_room_for_another_chain() {
    let mut pair = pair(1, 0);
    pair.ring.add(&[b"x"], &[]);
    let _tokens = keep(&mut pair);
    pair.ring.as_packed().push_avail(&[good(0)]);
    let refused = QueueError::DescriptorsInFlight { len: 1, free: 0 };
    assert_eq!(pair.drain(), Err(refused));
}

#[test]
fn identifiers_are_the_drivers_own_whatever_the_size() {
    for id in [0, 7, 8, 0x7fff, 0xffff] {
        let mut pair = pair(8, 0);
        let named = Descriptor {
            next: id,
            ..good(0)
        };
        pair.ring.as_packed().push_avail(&[good(NEXT), named]);
        for token in keep(&mut pair) {
            assert_eq!(pair.queue.complete(token, 0), Ok(true));
        }
        assert_eq!(pair.ring.used(), Some((id, 0)));
    }
}

#[test]
fn an_identifier_that_is_in_flight_can_not_be_offered_again() {
    let mut pair = pair(8, 0);
    pair.ring.as_packed().push_avail(&[good(0)]);
    let tokens = keep(&mut pair);
    pair.ring.as_packed().push_avail(&[good(0)]);
    assert_eq!(pair.drain(), Err(QueueError::HeadInFlight { head: 3 }));
    assert_eq!(tokens.len(), 1);
}

#[test]
fn a_token_is_good_for_one_completion() {
    let mut pair = pair(8, 0);
    pair.ring.add(&[b"x"], &[]);
    let mut tokens = Vec::new();
    let drained = pair.queue.drain(|chain| {
        tokens.extend([chain.token(), chain.token()]);
        Ok::<_, QueueError>(Step::Later)
    });
    assert!(drained.is_ok());
    let (first, second) = (tokens.remove(0), tokens.remove(0));
    assert_eq!(pair.queue.complete(first, 0), Ok(true));
    assert!(matches!(
        pair.queue.complete(second, 0),
        Err(QueueError::NotInFlight { .. })
    ));
}

#[test]
fn indirect_descriptors_stand_alone() {
    let both = QueueError::IndirectWithNext;
    assert_eq!(
        offer(INDIRECT_DESC, &[good(INDIRECT | NEXT), good(0)]),
        Err(both)
    );
    let later = QueueError::IndirectInList;
    assert_eq!(
        offer(INDIRECT_DESC, &[good(NEXT), good(INDIRECT)]),
        Err(later)
    );
    assert_eq!(
        offer(0, &[good(INDIRECT)]),
        Err(QueueError::IndirectNotNegotiated)
    );
}

#[test]
fn all_entries_of_a_table_are_used_and_only_their_write_flag_counts() {
    let noise = NEXT | INDIRECT | AVAIL | USED | 0x7078;
    let table = [good(0), good(noise), good(WRITE), good(WRITE | noise)];
    assert_eq!(offer_table(&table), Ok((32, 32)));
}

#[test]
fn the_identifier_of_a_table_is_that_of_the_ring() {
    let mut pair = pair(8, INDIRECT_DESC);
    let other = Descriptor { next: 5, ..good(0) };
    let address = pair.ring.alloc_bytes(&other.to_packed_bytes());
    pair.ring.as_packed().push_avail(&[Descriptor {
        address,
        ..good(INDIRECT | WRITE)
    }]);
    assert_eq!(pair.drain().unwrap().0, 1);
    assert_eq!(pair.ring.used(), Some((3, 0)));
}

#[test]
fn indirect_tables_of_bad_lengths_are_refused() {
    for len in [0, 1, 15, 17, 8 * 16 - 1, u32::MAX] {
        let refused = offer(
            INDIRECT_DESC,
            &[Descriptor {
                len,
                ..good(INDIRECT)
            }],
        );
        assert_eq!(refused, Err(QueueError::IndirectLength { len }));
    }
    for entries in [9, 0x1_0000, 0x0fff_ffff] {
        let table = Descriptor {
            len: entries * 16,
            ..good(INDIRECT)
        };
        assert_eq!(
            offer(INDIRECT_DESC, &[table]),
            Err(QueueError::ChainTooLong { limit: 8 })
        );
    }
}

#[test]
fn tables_and_buffers_outside_of_ram_are_refused() {
    for address in [RAM, RAM - 15, u64::MAX, u64::MAX - 15, 0xd000_0000] {
        for flags in [0, WRITE, INDIRECT] {
            let outside = Descriptor {
                address,
                ..good(flags)
            };
            let refused = QueueError::BadAddress { address, len: 16 };
            assert_eq!(offer(INDIRECT_DESC, &[outside]), Err(refused));
        }
    }
}

#[test]
fn readable_after_writable_is_refused() {
    let refused = Err(QueueError::ReadableAfterWritable);
    assert_eq!(offer(0, &[good(NEXT | WRITE), good(0)]), refused);
    assert_eq!(
        offer_table(&[good(WRITE), good(0)]),
        Err(QueueError::ReadableAfterWritable)
    );
}

#[test]
fn a_head_that_is_toggled_before_the_rest_gives_what_lies_there() {
    // The ring is zero beyond: an empty descriptor that ends the chain.
    let mut pair = pair(8, 0);
    pair.ring.as_packed().push_avail(&[good(NEXT)]);
    let mut readable = 0;
    let drained = pair.queue.drain(|chain| {
        readable = chain.readable_len();
        Ok::<_, QueueError>(Step::Done(0))
    });
    assert!(drained.is_ok());
    assert_eq!(readable, 16);
}

#[test]
fn a_descriptor_that_changes_after_it_was_checked_makes_no_difference() {
    let mut pair = pair(8, 0);
    let head = pair.ring.add(&[b"good"], &[4]);
    let mut bytes = [0; 4];
    let drained = pair.queue.drain(|chain| {
        for index in 0..8 {
            pair.ring.as_packed().set_descriptor(
                index,
                Descriptor {
                    address: u64::MAX,
                    len: u32::MAX,
                    flags: NEXT | INDIRECT,
                    next: 0xffff,
                },
            );
        }
        chain.reader().read_exact(&mut bytes).unwrap();
        chain.writer().write_all(&bytes).unwrap();
        Ok::<_, QueueError>(Step::Done(chain.written()))
    });
    assert!(drained.is_ok());
    assert_eq!(pair.ring.used(), Some((head, 4)));
    assert_eq!(pair.ring.written(head, 4), b"good");
}

#[test]
fn doorbells_are_asked_for_by_place_with_event_indices() {
    let mut pair = pair(3, EVENT_IDX);
    let mut seen = Vec::new();
    for _ in 0..4 {
        pair.ring.add(&[b"x"], &[]);
        let _ = pair.queue.drain(|_| {
            seen.push(pair.ring.as_packed().device_event().1);
            Ok::<_, QueueError>(Step::Done(0))
        });
        while pair.ring.used().is_some() {}
        let (place, event) = (
            pair.ring.as_packed().next_avail(),
            pair.ring.as_packed().device_event(),
        );
        assert_eq!(event, (place.off_wrap(), DESC));
    }
    assert_eq!(seen, [DISABLE; 4]);
}

#[test]
fn doorbells_are_asked_for_behind_the_chains_in_flight() {
    let mut pair = pair(8, EVENT_IDX);
    pair.ring.add(&[b"x", b"y"], &[]);
    let tokens = keep(&mut pair);
    assert_eq!(pair.ring.as_packed().device_event(), (2 | 1 << 15, DESC));
    assert_eq!(tokens.len(), 1);
}

#[test]
fn doorbells_are_asked_for_without_a_place_without_event_indices() {
    let mut pair = pair(8, 0);
    pair.ring.add(&[b"x"], &[]);
    assert_eq!(pair.drain().unwrap().0, 1);
    assert_eq!(pair.ring.as_packed().device_event(), (0, ENABLE));
}

/// Which of a number of chains of `len` descriptors, used one by one, interrupt a driver that
/// never changes what it asks for.
fn interrupts(size: u16, len: usize, chains: usize, off_wrap: u16, flags: u16) -> Vec<usize> {
    let mut pair = pair(size, EVENT_IDX);
    pair.ring.as_packed().set_driver_event(off_wrap, flags);
    let mut interrupts = Vec::new();
    for chain in 0..chains {
        pair.ring.add(&vec![&b"x"[..]; len], &[]);
        if pair.drain().unwrap().1.interrupt {
            interrupts.push(chain);
        }
        assert!(pair.ring.used().is_some());
    }
    interrupts
}

#[test]
fn an_interrupt_comes_when_the_descriptor_that_was_asked_for_is_used() {
    let wrap = 1 << 15;
    assert_eq!(interrupts(4, 1, 12, 2 | wrap, DESC), [2, 10]);
    assert_eq!(interrupts(4, 1, 12, 2, DESC), [6]);
    assert_eq!(interrupts(3, 1, 9, 0, DESC), [3]);
    // It may be any one of a chain, and the chain may wrap.
    assert_eq!(interrupts(5, 2, 5, 3 | wrap, DESC), [1]);
    assert_eq!(interrupts(5, 2, 5, 0, DESC), [2]);
    assert_eq!(interrupts(5, 2, 5, 4 | wrap, DESC), [2]);
}

#[test]
fn what_makes_no_sense_in_the_driver_area_interrupts() {
    let all: Vec<usize> = (0..10).collect();
    for off_wrap in [0, 1, 0x8000, 0xffff] {
        assert_eq!(interrupts(4, 1, 10, off_wrap, ENABLE), all);
        assert_eq!(interrupts(4, 1, 10, off_wrap, 3), all, "reserved");
        assert_eq!(interrupts(4, 1, 10, off_wrap, 0xfffc), all, "reserved bits");
        assert!(interrupts(4, 1, 10, off_wrap, DISABLE).is_empty());
    }
    for beyond in [4, 5, 0x7fff] {
        assert_eq!(interrupts(4, 1, 10, beyond, DESC), all);
        assert_eq!(interrupts(4, 1, 10, beyond | 0x8000, DESC), all);
    }
}

#[test]
fn an_event_for_a_descriptor_counts_as_any_event_if_that_was_not_negotiated() {
    let mut pair = pair(8, 0);
    pair.ring.as_packed().set_driver_event(7, DESC);
    pair.ring.add(&[b"x"], &[]);
    assert_eq!(pair.drain(), Ok((1, INTERRUPT)));
}

#[test]
fn any_event_is_passed_when_one_drain_goes_twice_round() {
    for event in [0, 1, 0x8000, 0x8001] {
        let Pair {
            mut ring,
            mut queue,
        } = pair(2, EVENT_IDX);
        ring.as_packed().set_driver_event(event, DESC);
        ring.add(&[b"x", b"y"], &[]);
        at_the_last_moment(move || {
            assert!(ring.used().is_some());
            ring.add(&[b"x", b"y"], &[]);
        });
        let mut chains = 0;
        let drained = queue.drain(|_| {
            chains += 1;
            Ok::<_, QueueError>(Step::Done(0))
        });
        assert_eq!((drained, chains), (Ok(INTERRUPT), 2), "event {event:#x}");
    }
}

/// A good configuration, changed.
fn start(change: impl FnOnce(&mut QueueConfig)) -> Result<u16, QueueError> {
    let memory = ram(&[(0, 0x8000), (0x8000, RAM as usize - 0x8000)]);
    let mut config = QueueConfig {
        max_size: 32768,
        size: 8,
        ready: true,
        desc: 0x1000,
        avail: 0x2000,
        used: 0x3000,
    };
    change(&mut config);
    Queue::new(&config, memory, RING_PACKED).map(|queue| queue.size())
}

#[test]
fn any_size_up_to_the_maximum_is_fine() {
    for size in [1, 2, 3, 255, 1000, 32767, 32768] {
        let started = start(|config| (config.size, config.desc) = (size, 0x8000));
        assert_eq!(started, Ok(size));
        assert!(Queue::is_size(size, RING_PACKED));
    }
    for size in [0, 32769, 65535] {
        let refused = start(|config| (config.size, config.max_size) = (size, u16::MAX));
        assert_eq!(refused, Err(QueueError::Size { size, max: 32768 }));
        assert!(!Queue::is_size(size, RING_PACKED));
    }
    let refused = start(|config| (config.size, config.max_size) = (9, 8));
    assert_eq!(refused, Err(QueueError::Size { size: 9, max: 8 }));
}

#[test]
fn misaligned_parts_are_refused() {
    let misaligned = |part, address, alignment| {
        Err(QueueError::Alignment {
            part,
            address,
            alignment,
        })
    };
    assert_eq!(
        start(|config| config.desc = 0x1008),
        misaligned(Part::Descriptors, 0x1008, 16)
    );
    assert_eq!(
        start(|config| config.avail = 0x2002),
        misaligned(Part::Driver, 0x2002, 4)
    );
    assert_eq!(
        start(|config| config.used = 0x3001),
        misaligned(Part::Device, 0x3001, 4)
    );
}

#[test]
fn parts_outside_of_ram_or_across_regions_are_refused() {
    for address in [RAM, RAM - 0x70, 0xffff_ffff_ffff_fff0, 0xd000_0000, 0x7ff0] {
        let (part, len) = (Part::Descriptors, 0x80);
        assert_eq!(
            start(|config| config.desc = address),
            Err(QueueError::Outside { part, address, len })
        );
    }
    for address in [RAM, u64::MAX - 3] {
        let (part, len) = (Part::Driver, 4);
        assert_eq!(
            start(|config| config.avail = address),
            Err(QueueError::Outside { part, address, len })
        );
    }
    assert_eq!(start(|config| config.desc = RAM - 0x80), Ok(8));
    assert_eq!(start(|config| config.used = RAM - 4), Ok(8));
}

#[test]
fn parts_that_overlap_are_the_drivers_own_affair() {
    let memory = ram(&[(0, RAM as usize)]);
    let mut ring = Ring::new(&memory, 0x1000..RAM, 8, RING_PACKED);
    let config = ring.config();
    let overlapping = QueueConfig {
        used: config.desc,
        avail: config.desc + 4,
        ..config
    };
    let mut queue = Queue::new(&overlapping, memory, RING_PACKED).unwrap();
    ring.add(&[b"x"], &[]);
    // "No doorbells" is written over the address, which then is another one in RAM.
    let drained = queue.drain(|_| Ok::<_, QueueError>(Step::Done(0)));
    assert_eq!(drained, Ok(INTERRUPT));
}
