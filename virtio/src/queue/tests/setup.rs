//! What a driver may say about a queue before it runs.

use super::RAM;
use crate::queue::{Drained, Part, Queue, QueueConfig, QueueError, Step};
use crate::testing::ring::ram;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress, Le16};

/// A good configuration, changed.
fn start(change: impl FnOnce(&mut QueueConfig)) -> Result<Queue, QueueError> {
    let memory = ram(&[(0, 0x8000), (0x8000, RAM as usize - 0x8000)]);
    let mut config = QueueConfig {
        max_size: 256,
        size: 8,
        ready: true,
        desc: 0x1000,
        avail: 0x2000,
        used: 0x3000,
    };
    change(&mut config);
    Queue::new(&config, memory, 0)
}

fn refusal(change: impl FnOnce(&mut QueueConfig)) -> QueueError {
    start(change).map(drop).unwrap_err()
}

#[test]
fn a_good_configuration_starts_with_nothing_available() {
    let queue = start(|_| ()).unwrap();
    assert_eq!((queue.size(), queue.in_flight()), (8, 0));
    assert_eq!(queue.has_available(), Ok(false));
}

#[test]
fn a_queue_that_is_not_enabled_is_refused() {
    assert_eq!(refusal(|config| config.ready = false), QueueError::NotReady);
    let nothing = Queue::new(&QueueConfig::default(), ram(&[(0, 0x1000)]), 0);
    assert_eq!(nothing.map(drop), Err(QueueError::NotReady));
}

#[test]
fn sizes_that_are_no_power_of_two_or_above_the_maximum_are_refused() {
    for size in [0, 3, 255, 257, 512, 32768, 32769, 65535] {
        assert_eq!(
            refusal(|config| config.size = size),
            QueueError::Size { size, max: 256 }
        );
    }
    for size in [1, 2, 256] {
        assert_eq!(
            start(|config| config.size = size).map(|queue| queue.size()),
            Ok(size)
        );
    }
}

#[test]
fn a_maximum_beyond_the_specification_allows_no_more_than_that() {
    let refused = refusal(|config| (config.max_size, config.size) = (u16::MAX, u16::MAX));
    assert_eq!(
        refused,
        QueueError::Size {
            size: 65535,
            max: 32768
        }
    );
}

#[test]
fn the_largest_queue_of_the_specification_works() {
    let memory = ram(&[(0, 0x20_0000)]);
    let config = QueueConfig {
        max_size: 32768,
        size: 32768,
        ready: true,
        desc: 0x1000,
        avail: 0x10_0000,
        used: 0x12_0000,
    };
    assert_eq!(Queue::new(&config, memory, 0).unwrap().size(), 32768);
}

#[test]
fn addresses_of_zero_mean_that_none_was_set() {
    assert_eq!(
        refusal(|config| config.desc = 0),
        QueueError::NoAddress(Part::Descriptors)
    );
    assert_eq!(
        refusal(|config| config.avail = 0),
        QueueError::NoAddress(Part::Driver)
    );
    assert_eq!(
        refusal(|config| config.used = 0),
        QueueError::NoAddress(Part::Device)
    );
}

#[test]
fn misaligned_parts_are_refused() {
    let misaligned = |part, address, alignment| QueueError::Alignment {
        part,
        address,
        alignment,
    };
    let refused = refusal(|config| config.desc = 0x1008);
    assert_eq!(refused, misaligned(Part::Descriptors, 0x1008, 16));
    let refused = refusal(|config| config.avail = 0x2001);
    assert_eq!(refused, misaligned(Part::Driver, 0x2001, 2));
    let refused = refusal(|config| config.used = 0x3002);
    assert_eq!(refused, misaligned(Part::Device, 0x3002, 4));
}

#[test]
fn parts_outside_of_ram_or_across_regions_are_refused() {
    // Above RAM, over its end by one entry, at the end of the address space, over a border.
    for address in [RAM, RAM - 0x70, 0xffff_ffff_ffff_fff0, 0xd000_0000, 0x7ff0] {
        let refused = refusal(|config| config.desc = address);
        let (part, len) = (Part::Descriptors, 0x80);
        assert_eq!(refused, QueueError::Outside { part, address, len });
    }
    let (part, address, len) = (Part::Driver, RAM - 20, 22);
    assert_eq!(
        refusal(|config| config.avail = address),
        QueueError::Outside { part, address, len }
    );
    let (part, address, len) = (Part::Device, RAM - 68, 70);
    assert_eq!(
        refusal(|config| config.used = address),
        QueueError::Outside { part, address, len }
    );
}

#[test]
fn parts_that_end_where_ram_ends_are_accepted() {
    assert!(start(|config| config.desc = RAM - 0x80).is_ok());
    assert!(start(|config| config.avail = RAM - 22).is_ok());
    assert!(start(|config| config.used = RAM - 72).is_ok());
}

#[test]
fn parts_that_overlap_are_the_drivers_own_affair() {
    let memory = ram(&[(0, RAM as usize)]);
    let (size, all) = (8, 0x1000);
    let config = QueueConfig {
        max_size: size,
        size,
        ready: true,
        desc: all,
        avail: all,
        used: all,
    };
    let mut queue = Queue::new(&config, Arc::clone(&memory), 0).unwrap();
    // Index 1: one chain. What else is there makes descriptor 0 an empty one.
    memory
        .write_obj(Le16::from(1), GuestAddress(all + 2))
        .unwrap();
    let drained = queue.drain(|_| Ok::<_, QueueError>(Step::Done(7)));
    assert_eq!(
        drained,
        Ok(Drained {
            interrupt: true,
            more: false
        })
    );
}

#[test]
fn a_queue_can_be_sent_to_another_thread() {
    fn is_send<T: Send>(_: &T) {}
    is_send(&start(|_| ()).unwrap());
}
