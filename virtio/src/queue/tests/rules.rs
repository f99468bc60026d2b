//! Drivers that break the rules: each costs the queue, none of them the process.

use super::{Pair, RAM};
use crate::features::INDIRECT_DESC;
use crate::queue::{QueueError, Step};
use crate::testing::ring::{Descriptor, INDIRECT, NEXT, Ring, WRITE};

/// Offers a chain of `descriptors`, put at 0 and up, and tells how draining it ends.
fn offer(features: u64, descriptors: &[Descriptor]) -> Result<usize, QueueError> {
    let mut pair = Pair::new(8, features);
    put(&mut pair.ring, descriptors);
    pair.drain().map(|(count, _)| count)
}

/// Offers a chain of one indirect descriptor with this table.
fn offer_table(table: &[Descriptor]) -> Result<usize, QueueError> {
    let mut pair = Pair::new(8, INDIRECT_DESC);
    let descriptor = pair.ring.table(table);
    put(&mut pair.ring, &[descriptor]);
    pair.drain().map(|(count, _)| count)
}

fn put(ring: &mut Ring, descriptors: &[Descriptor]) {
    for (index, descriptor) in (0..).zip(descriptors) {
        ring.as_split().set_descriptor(index, *descriptor);
    }
    ring.as_split().push_avail(0);
}

/// A descriptor of 16 good bytes.
fn good(flags: u16, next: u16) -> Descriptor {
    Descriptor {
        address: 0x8000,
        len: 16,
        flags,
        next,
    }
}

fn buffer(address: u64, len: u32) -> Descriptor {
    Descriptor {
        address,
        len,
        flags: WRITE,
        next: 0,
    }
}

#[test]
fn an_available_index_that_jumps_ahead_is_refused_before_any_chain_is_processed() {
    let mut pair = Pair::new(8, 0);
    pair.ring.as_split().set_avail_idx(9);
    let jump = QueueError::AvailIndexJump {
        from: 0,
        to: 9,
        size: 8,
    };
    assert_eq!(pair.drain(), Err(jump));
    assert_eq!(pair.queue.has_available(), Err(jump));
    assert_eq!(pair.ring.as_split().used_idx(), 0);
}

#[test]
fn an_available_index_that_goes_backwards_is_refused() {
    let mut pair = Pair::new(8, 0);
    pair.ring.add(&[b"x"], &[]);
    assert_eq!(pair.drain().unwrap().0, 1);
    pair.ring.as_split().set_avail_idx(0);
    assert_eq!(
        pair.drain(),
        Err(QueueError::AvailIndexJump {
            from: 1,
            to: 0,
            size: 8
        })
    );
}

#[test]
fn a_full_ring_is_no_jump() {
    let mut pair = Pair::new(8, 0);
    for head in 0..8 {
        pair.ring.as_split().set_descriptor(head, good(0, 0));
        pair.ring.as_split().push_avail(head);
    }
    assert_eq!(pair.drain().unwrap().0, 8);
}

#[test]
fn a_head_outside_of_the_table_is_refused() {
    for head in [8, 0xffff] {
        let mut pair = Pair::new(8, 0);
        pair.ring.as_split().push_avail(head);
        assert_eq!(
            pair.drain(),
            Err(QueueError::HeadOutOfRange { head, size: 8 })
        );
    }
}

#[test]
fn chains_that_go_in_circles_end_at_the_queue_size() {
    let too_long = Err(QueueError::ChainTooLong { limit: 8 });
    assert_eq!(offer(0, &[good(NEXT, 0)]), too_long);
    assert_eq!(offer(0, &[good(NEXT, 1), good(NEXT, 0)]), too_long);
    assert_eq!(
        offer(0, &[good(NEXT, 1), good(NEXT, 2), good(NEXT, 1)]),
        too_long
    );
}

#[test]
fn circles_of_empty_descriptors_end_too() {
    let empty = Descriptor {
        len: 0,
        ..good(NEXT, 0)
    };
    assert_eq!(
        offer(0, &[empty]),
        Err(QueueError::ChainTooLong { limit: 8 })
    );
}

#[test]
fn a_chain_as_long_as_the_queue_is_accepted() {
    let mut chain: Vec<_> = (1..9).map(|next| good(NEXT, next)).collect();
    chain[7].flags = 0;
    assert_eq!(offer(0, &chain), Ok(1));
}

#[test]
fn a_next_outside_of_the_table_is_refused() {
    for next in [8, 0xffff] {
        let refused = offer(0, &[good(NEXT, next)]);
        assert_eq!(
            refused,
            Err(QueueError::NextOutOfRange { next, entries: 8 })
        );
    }
}

#[test]
fn next_without_its_flag_means_nothing() {
    assert_eq!(offer(0, &[good(0, 0xffff)]), Ok(1));
}

#[test]
fn buffers_outside_of_ram_are_refused() {
    let outside = [
        (RAM, 1),
        (RAM - 1, 2),
        (RAM - 16, 17),
        (0, RAM as u32 + 1),
        (0, u32::MAX),
        (0xd000_0000, 4),
        (0xfee0_0000, 4),
        (u64::MAX, 1),
        (u64::MAX - 3, 8),
        (u64::MAX, u32::MAX),
    ];
    for (address, len) in outside {
        let refused = offer(0, &[buffer(address, len)]);
        assert_eq!(refused, Err(QueueError::BadAddress { address, len }));
    }
}

#[test]
fn buffers_at_the_borders_of_ram_are_accepted() {
    assert_eq!(offer(0, &[buffer(0, 1)]), Ok(1));
    assert_eq!(offer(0, &[buffer(RAM - 16, 16)]), Ok(1));
    assert_eq!(offer(0, &[buffer(0, RAM as u32)]), Ok(1));
}

#[test]
fn a_buffer_that_is_the_ring_itself_costs_nothing_but_the_ring() {
    let mut pair = Pair::new(8, 0);
    let config = pair.ring.config();
    put(
        &mut pair.ring,
        &[buffer(config.desc, (config.used - config.desc) as u32 + 70)],
    );
    let drained = pair.queue.drain(|chain| {
        let room = chain.writable_len() as usize;
        chain.writer().write_all(&vec![0xff; room]).unwrap();
        Ok::<_, QueueError>(Step::Done(chain.written()))
    });
    // All ones: an available index that is far off.
    assert!(matches!(
        drained,
        Err(QueueError::AvailIndexJump {
            from: 1,
            to: 0xffff,
            ..
        })
    ));
}

#[test]
fn empty_descriptors_count_for_nothing_wherever_they_are() {
    let mut pair = Pair::new(8, 0);
    let nowhere = |flags, next| Descriptor {
        address: u64::MAX,
        len: 0,
        flags,
        next,
    };
    put(
        &mut pair.ring,
        &[
            nowhere(NEXT, 1),
            good(NEXT, 2),
            nowhere(NEXT | WRITE, 3),
            good(WRITE, 0),
        ],
    );
    let mut lengths = None;
    let drained = pair.queue.drain(|chain| {
        lengths = Some((chain.readable_len(), chain.writable_len()));
        Ok::<_, QueueError>(Step::Done(0))
    });
    assert!(drained.is_ok());
    assert_eq!(lengths, Some((16, 16)));
}

#[test]
fn a_chain_of_nothing_is_a_request_without_bytes() {
    assert_eq!(offer(0, &[Descriptor::default()]), Ok(1));
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes when interpreted")]
fn lengths_that_add_up_beyond_32_bits_are_refused() {
    // The same megabyte, over and over: each buffer is good.
    let mut pair = Pair::new(8192, 0);
    for index in 0..8191 {
        let flags = if index < 4000 { NEXT } else { NEXT | WRITE };
        let descriptor = Descriptor {
            address: 0,
            len: RAM as u32,
            flags,
            next: index + 1,
        };
        pair.ring.as_split().set_descriptor(index, descriptor);
    }
    pair.ring.as_split().push_avail(0);
    assert_eq!(pair.drain(), Err(QueueError::LengthOverflow));
}

#[test]
fn readable_after_writable_is_refused() {
    let refused = Err(QueueError::ReadableAfterWritable);
    assert_eq!(offer(0, &[good(NEXT | WRITE, 1), good(0, 0)]), refused);
    assert_eq!(offer_table(&[good(NEXT | WRITE, 1), good(0, 0)]), refused);
}

#[test]
fn unknown_flags_are_ignored() {
    let unknown = !(NEXT | WRITE | INDIRECT);
    assert_eq!(
        offer(0, &[good(unknown | NEXT, 1), good(unknown, 0xffff)]),
        Ok(1)
    );
}

#[test]
fn indirect_without_the_feature_is_refused() {
    let mut pair = Pair::new(8, 0);
    pair.ring.add_indirect(&[b"x"], &[4]);
    assert_eq!(pair.drain(), Err(QueueError::IndirectNotNegotiated));
}

#[test]
fn indirect_with_next_is_refused() {
    let both = good(INDIRECT | NEXT, 1);
    assert_eq!(
        offer(INDIRECT_DESC, &[both, good(0, 0)]),
        Err(QueueError::IndirectWithNext)
    );
}

#[test]
fn the_write_flag_of_an_indirect_descriptor_is_ignored() {
    let mut pair = Pair::new(8, INDIRECT_DESC);
    let table = pair.ring.table(&[good(0, 0)]);
    put(
        &mut pair.ring,
        &[Descriptor {
            flags: INDIRECT | WRITE,
            ..table
        }],
    );
    assert_eq!(pair.drain().unwrap().0, 1);
}

#[test]
fn indirect_in_indirect_is_refused() {
    assert_eq!(
        offer_table(&[good(INDIRECT, 0)]),
        Err(QueueError::NestedIndirect)
    );
    let later = [good(NEXT, 1), good(INDIRECT, 0)];
    assert_eq!(offer_table(&later), Err(QueueError::NestedIndirect));
}

#[test]
fn indirect_tables_of_bad_lengths_are_refused() {
    for len in [0, 1, 15, 17, 8 * 16 - 1, u32::MAX] {
        let refused = offer(
            INDIRECT_DESC,
            &[Descriptor {
                len,
                ..good(INDIRECT, 0)
            }],
        );
        assert_eq!(refused, Err(QueueError::IndirectLength { len }));
    }
}

#[test]
fn indirect_tables_larger_than_the_queue_are_refused() {
    for entries in [9, 0x1_0000, 0x0fff_ffff] {
        let table = Descriptor {
            len: entries * 16,
            ..good(INDIRECT, 0)
        };
        let refused = offer(INDIRECT_DESC, &[table]);
        assert_eq!(refused, Err(QueueError::ChainTooLong { limit: 8 }));
    }
}

#[test]
fn indirect_tables_outside_of_ram_are_refused() {
    for address in [RAM, RAM - 16, u64::MAX, u64::MAX - 31, 0xd000_0000] {
        let table = Descriptor {
            address,
            len: 32,
            ..good(INDIRECT, 0)
        };
        let refused = offer(INDIRECT_DESC, &[table]);
        assert_eq!(refused, Err(QueueError::BadAddress { address, len: 32 }));
    }
}

#[test]
fn indirect_tables_that_go_in_circles_or_out_of_themselves_are_refused() {
    let circle = [good(NEXT, 1), good(NEXT, 0)];
    assert_eq!(
        offer_table(&circle),
        Err(QueueError::ChainTooLong { limit: 8 })
    );
    // 2 is in the ring's table, but not in this one.
    let out = [good(NEXT, 2), good(0, 0)];
    assert_eq!(
        offer_table(&out),
        Err(QueueError::NextOutOfRange {
            next: 2,
            entries: 2
        })
    );
}

#[test]
fn direct_descriptors_before_an_indirect_one_count_with_its_table() {
    let mut pair = Pair::new(8, INDIRECT_DESC);
    let six: Vec<_> = (1..7)
        .map(|next| good(if next < 6 { NEXT } else { 0 }, next))
        .collect();
    let table = pair.ring.table(&six);
    put(&mut pair.ring, &[good(NEXT, 1), good(NEXT, 2), table]);
    assert_eq!(pair.drain().unwrap().0, 1);
    put(
        &mut pair.ring,
        &[good(NEXT, 1), good(NEXT, 2), good(NEXT, 3), table],
    );
    assert_eq!(pair.drain(), Err(QueueError::ChainTooLong { limit: 8 }));
}

#[test]
fn an_indirect_table_at_an_odd_address_works() {
    let mut pair = Pair::new(8, INDIRECT_DESC);
    let table = pair.ring.alloc(33) + 1;
    pair.ring.write(table, &good(NEXT, 1).to_bytes());
    pair.ring.write(table + 16, &good(WRITE, 0).to_bytes());
    put(
        &mut pair.ring,
        &[Descriptor {
            address: table,
            len: 32,
            flags: INDIRECT,
            next: 0,
        }],
    );
    assert_eq!(pair.drain().unwrap().0, 1);
}

#[test]
fn a_chain_that_is_in_flight_can_not_be_offered_again() {
    let mut pair = Pair::new(8, 0);
    let head = pair.ring.add(&[b"x"], &[]);
    let drained = pair.queue.drain(|_| Ok::<_, QueueError>(Step::Later));
    assert!(drained.is_ok());
    pair.ring.as_split().push_avail(head);
    assert_eq!(pair.drain(), Err(QueueError::HeadInFlight { head }));
}

#[test]
fn a_chain_twice_in_one_batch_is_answered_twice_or_refused() {
    let mut pair = Pair::new(8, 0);
    let head = pair.ring.add(&[b"x"], &[]);
    pair.ring.as_split().push_avail(head);
    assert_eq!(pair.drain().unwrap().0, 2);

    pair.ring.as_split().push_avail(head);
    pair.ring.as_split().push_avail(head);
    let drained = pair.queue.drain(|_| Ok::<_, QueueError>(Step::Later));
    assert_eq!(drained, Err(QueueError::HeadInFlight { head }));
}

#[test]
fn a_completion_of_what_is_not_in_flight_is_refused() {
    let mut pair = Pair::new(8, 0);
    let head = pair.ring.add(&[b"x"], &[]);
    let mut token = None;
    let drained = pair.queue.drain(|chain| {
        token = Some(chain.token());
        Ok::<_, QueueError>(Step::Done(0))
    });
    assert!(drained.is_ok());
    let refused = pair.queue.complete(token.unwrap(), 0);
    assert_eq!(refused, Err(QueueError::NotInFlight { id: head }));
    assert_eq!(pair.ring.as_split().used_idx(), 1);
}

#[test]
fn a_used_ring_that_the_driver_scribbles_on_does_not_move_the_device() {
    let mut pair = Pair::new(8, 0);
    pair.ring.add(&[b"x"], &[]);
    assert_eq!(pair.drain().unwrap().0, 1);
    pair.ring.as_split().set_used_idx(0x1234);
    pair.ring.add(&[b"x"], &[]);
    assert_eq!(pair.drain().unwrap().0, 1);
    assert_eq!(pair.ring.as_split().used_idx(), 2);
}

#[test]
fn a_descriptor_that_changes_after_it_was_checked_makes_no_difference() {
    let mut pair = Pair::new(8, 0);
    let head = pair.ring.add(&[b"good"], &[4]);
    let mut bytes = [0; 4];
    let drained = pair.queue.drain(|chain| {
        let evil = Descriptor {
            address: u64::MAX,
            len: u32::MAX,
            flags: NEXT,
            next: 0xffff,
        };
        for index in 0..8 {
            pair.ring.as_split().set_descriptor(index, evil);
        }
        chain.reader().read_exact(&mut bytes).unwrap();
        chain.writer().write_all(&bytes).unwrap();
        Ok::<_, QueueError>(Step::Done(chain.written()))
    });
    assert!(drained.is_ok());
    assert_eq!(pair.ring.used(), Some((head, 4)));
    assert_eq!(pair.ring.written(head, 4), b"good");
}
