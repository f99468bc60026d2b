use super::*;
use crate::testing::driver::Machine;
use crate::testing::irq::Counts;
use crate::testing::ring::Ring;
use std::io::{Write, pipe};
use std::os::fd::AsFd;

/// A world with one queue of 8, the second.
fn world() -> (Io, Ring, Machine) {
    let machine = Machine::default();
    let ring = Ring::split(&machine.memory, 0x1000..0x10000, 8, 0);
    let queue = Queue::new(&ring.config(), Arc::clone(&machine.memory), 0).unwrap();
    let config = Arc::new(ConfigSpace::new(vec![1, 2]));
    let irq = Arc::clone(&machine.interrupts) as _;
    let io = Io::new(
        Arc::clone(&machine.memory),
        3,
        config,
        irq,
        vec![None, Some(queue)],
    );
    (io, ring, machine)
}

/// What is ready now.
fn ready(io: &mut Io) -> Vec<Source> {
    let mut ready = Vec::new();
    io.wait(false, &mut ready).unwrap();
    ready
}

#[test]
fn a_queue_that_is_not_enabled_has_no_chains() {
    let (mut io, _ring, machine) = world();
    for queue in [0, 2, u16::MAX] {
        assert!(!io.has_queue(queue));
        io.drain(queue, |_| panic!("a chain of queue {queue}"))
            .unwrap();
        assert!(!io.take_due(queue));
    }
    assert_eq!(machine.interrupts.counts(), Counts::default());
}

#[test]
fn a_drain_interrupts_once_for_all_its_chains() {
    let (mut io, mut ring, machine) = world();
    let ids = [
        ring.add(&[b"a"], &[]),
        ring.add(&[b"b"], &[]),
        ring.add(&[b"c"], &[]),
    ];
    io.drain(1, |_| Ok(Step::Done(0))).unwrap();
    assert_eq!(ids.map(|_| ring.used()), ids.map(|id| Some((id, 0))));
    assert_eq!(
        machine.interrupts.counts(),
        Counts {
            queue: 1,
            config: 0
        }
    );
}

#[test]
fn a_queue_is_due_until_a_drain_has_seen_its_end() {
    let (mut io, mut ring, _machine) = world();
    ring.add(&[b"again"], &[]);
    let mut again = 20;
    io.drain(1, |_| {
        if again > 0 {
            again -= 1;
            ring.as_split().push_avail(0);
        }
        Ok(Step::Done(0))
    })
    .unwrap();
    assert!(io.take_due(1), "there is more than one turn takes");
    assert!(!io.take_due(1), "it counts as called");
    for _ in 0..2 {
        io.drain(1, |_| Ok(Step::Done(0))).unwrap();
    }
    assert!(!io.take_due(1));
}

#[test]
fn a_chain_kept_for_later_is_completed_with_an_interrupt() {
    let (mut io, mut ring, machine) = world();
    let id = ring.add(&[], &[4]);
    let mut kept = None;
    io.drain(1, |chain| {
        kept = Some(chain.token());
        Ok(Step::Later)
    })
    .unwrap();
    assert_eq!((ring.used(), machine.interrupts.counts().queue), (None, 0));
    io.complete(1, kept.unwrap(), 4).unwrap();
    assert_eq!(
        (ring.used(), machine.interrupts.counts().queue),
        (Some((id, 4)), 1)
    );
}

#[test]
fn an_error_of_the_ring_names_the_queue_and_one_of_the_device_is_its_own() {
    let (mut io, mut ring, _machine) = world();
    ring.add(&[b"a"], &[]);
    let own = io.drain(1, |_| Err(Error::QueueMissing(9)));
    assert!(matches!(own, Err(Error::QueueMissing(9))));
    ring.as_split().set_avail_idx(100);
    let corrupt = io.drain(1, |_| Ok(Step::Done(0)));
    assert!(matches!(corrupt, Err(Error::Queue { queue: 1, .. })));
}

#[test]
fn a_change_of_the_configuration_is_told() {
    let (io, _ring, machine) = world();
    io.update_config(|bytes| bytes[1] = 7);
    let mut bytes = [0; 2];
    io.config().read(0, &mut bytes);
    assert_eq!((bytes, io.config().generation()), ([1, 7], 1));
    assert_eq!(
        machine.interrupts.counts(),
        Counts {
            queue: 0,
            config: 1
        }
    );
}

#[test]
fn watches_are_remembered_without_a_worker() {
    let (mut io, _ring, _machine) = world();
    let (reader, _writer) = pipe().unwrap();
    io.watch(4, reader.as_fd(), Interest::READ).unwrap();
    io.watch(4, reader.as_fd(), Interest::READ | Interest::WRITE)
        .unwrap();
    assert_eq!(io.interest(4), Some(Interest::READ | Interest::WRITE));
    assert_eq!(io.interest(5), None);
    io.unwatch(4);
    io.unwatch(5);
    assert_eq!(io.interest(4), None);
}

#[test]
fn what_is_watched_follows_the_last_word() {
    let (mut io, _ring, _machine) = world();
    io.attach(Poll::new().unwrap(), Arc::new(Signal::new().unwrap()));
    let (reader, mut writer) = pipe().unwrap();
    let (other, mut far) = pipe().unwrap();
    writer.write_all(b"x").unwrap();
    far.write_all(b"y").unwrap();

    io.watch(4, reader.as_fd(), Interest::READ).unwrap();
    assert_eq!(ready(&mut io), [Source::Host(4)]);
    assert_eq!(ready(&mut io), [Source::Host(4)], "level-triggered");
    io.watch(4, reader.as_fd(), Interest::WRITE).unwrap();
    assert_eq!(ready(&mut io), [], "another interest");
    io.watch(4, writer.as_fd(), Interest::WRITE).unwrap();
    assert_eq!(ready(&mut io), [Source::Host(4)], "another descriptor");
    io.watch(6, other.as_fd(), Interest::READ).unwrap();
    assert_eq!(ready(&mut io).len(), 2, "another token");
    io.unwatch(4);
    assert_eq!(ready(&mut io), [Source::Host(6)]);
    io.detach();
    assert_eq!((ready(&mut io), io.interest(6)), (vec![], None));
}

#[test]
fn a_descriptor_closed_before_it_is_unwatched_does_no_harm() {
    let (mut io, _ring, _machine) = world();
    io.attach(Poll::new().unwrap(), Arc::new(Signal::new().unwrap()));
    let (reader, writer) = pipe().unwrap();
    io.watch(4, reader.as_fd(), Interest::READ).unwrap();
    drop((reader, writer));
    assert_eq!(ready(&mut io), []);
    io.unwatch(4);
    assert_eq!(io.interest(4), None);
}

#[test]
fn a_descriptor_watched_twice_is_an_error_that_names_it() {
    let (mut io, _ring, _machine) = world();
    io.attach(Poll::new().unwrap(), Arc::new(Signal::new().unwrap()));
    let (reader, _writer) = pipe().unwrap();
    io.watch(4, reader.as_fd(), Interest::READ).unwrap();
    let error = io.watch(5, reader.as_fd(), Interest::READ).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("watching descriptor {}", reader.as_raw_fd())
    );
    assert_eq!(io.interest(5), None);
}
