//! The device driven by the fake driver, without a worker.

use super::*;
use crate::Queue;
use crate::features::{INDIRECT_DESC, RING_PACKED};
use crate::testing::Interrupts;
use crate::testing::ring::{Descriptor, Ring, WRITE, ram};
use rustix::event::{PollFd, PollFlags, poll};

/// Enough for the largest buffer. What is not touched costs nothing.
const RAM: usize = 4 << 30;
/// So long that it does not end while a test looks.
const LONG: Duration = Duration::from_secs(3600);

struct Machine {
    rng: Rng,
    io: Io,
    ring: Ring,
}

impl Machine {
    fn new(mut rng: Rng) -> Machine {
        let features = RING_PACKED | INDIRECT_DESC;
        let memory = ram(&[(0, RAM)]);
        let ring = Ring::new(&memory, 0x10_0000..0x200_0000, QUEUE_SIZE, features);
        let queue = Queue::new(&ring.config(), Arc::clone(&memory), features).unwrap();
        let config = Arc::clone(&rng.spec().config);
        let irq = Arc::new(Interrupts::default());
        let mut io = Io::new(memory, features, config, irq, vec![Some(queue)]);
        rng.activate(&mut io).unwrap();
        Machine { rng, io, ring }
    }

    /// What a request of buffers of these lengths gets at once, if it gets anything.
    fn ask(&mut self, writable: &[usize]) -> Option<Vec<u8>> {
        self.ring.add_indirect(&[], writable);
        self.handle(Event::Queue(REQUESTQ)).unwrap();
        self.answer()
    }

    fn answer(&mut self) -> Option<Vec<u8>> {
        let (id, len) = self.ring.used()?;
        Some(self.ring.written(id, len as usize))
    }

    fn handle(&mut self, event: Event) -> Result<(), Error> {
        self.rng.handle(event, &mut self.io)
    }

    /// Waits until the bucket is full again and says so.
    fn refill(&mut self) {
        assert_eq!(self.io.interest(FULL_AGAIN), Some(Interest::READ));
        let timer = self.rng.timer.as_ref().unwrap();
        let mut fds = [PollFd::new(timer, PollFlags::IN)];
        let deadline = Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        assert_eq!(poll(&mut fds, Some(&deadline)), Ok(1), "no timer");
        self.handle(Event::Fd(FULL_AGAIN)).unwrap();
    }
}

/// A device whose source is another one.
fn with_source(source: Source) -> Machine {
    Machine::new(Rng {
        source,
        ..Rng::new()
    })
}

#[test]
fn a_request_is_filled_with_bytes_that_differ() {
    let mut machine = Machine::new(Rng::new());
    let first = machine.ask(&[40, 24]).unwrap();
    let second = machine.ask(&[64]).unwrap();
    assert_eq!((first.len(), second.len()), (64, 64));
    // Each is true but once in 2^100 or so.
    assert_ne!(first, second);
    assert_ne!(first[..24], first[40..]);
    assert!(second.iter().any(|byte| *byte != second[0]));
}

#[test]
fn a_request_gets_64_kib_at_most() {
    for len in [REQUEST_LIMIT - 1, REQUEST_LIMIT, REQUEST_LIMIT + 1, 8 << 20] {
        let mut machine = Machine::new(Rng::new());
        let answer = machine.ask(&[len]).unwrap();
        assert_eq!(answer.len(), len.min(REQUEST_LIMIT));
    }
    let mut machine = Machine::new(Rng::new());
    let answer = machine.ask(&[REQUEST_LIMIT - 10, 4, 100]).unwrap();
    assert_eq!(answer.len(), REQUEST_LIMIT);
}

#[test]
fn a_request_of_4_gib_gets_64_kib() {
    let mut machine = Machine::new(Rng::new());
    machine.ring.as_packed().push_avail(&[Descriptor {
        address: 0,
        len: u32::MAX,
        flags: WRITE,
        next: 0,
    }]);
    machine.handle(Event::Queue(REQUESTQ)).unwrap();
    assert_eq!(machine.ring.used(), Some((0, REQUEST_LIMIT as u32)));
}

#[test]
fn requests_without_room_get_nothing_and_cost_nothing() {
    let mut machine = Machine::new(Rng::new().rate(10, LONG));
    machine.ring.add(&[b"readable"], &[]);
    machine.handle(Event::Queue(REQUESTQ)).unwrap();
    assert_eq!(machine.answer(), Some(Vec::new()));
    assert_eq!(machine.ask(&[0]), Some(Vec::new()));
    assert_eq!(machine.ask(&[10]).unwrap().len(), 10);
}

#[test]
fn what_the_driver_lets_the_device_read_is_left_alone() {
    let mut machine = Machine::new(Rng::new());
    let text = [b'x'; 64];
    let id = machine.ring.add(&[&text], &[64]);
    machine.handle(Event::Queue(REQUESTQ)).unwrap();
    assert_eq!(machine.ring.used(), Some((id, 64)));
}

#[test]
fn an_empty_bucket_leaves_requests_in_the_ring_until_it_is_full() {
    let period = Duration::from_millis(5);
    let mut machine = Machine::new(Rng::new().rate(100, period));
    // The last one gets what is left.
    assert_eq!(machine.ask(&[60]).unwrap().len(), 60);
    assert_eq!(machine.ask(&[60]).unwrap().len(), 40);
    assert_eq!(machine.ask(&[60]), None);
    machine.refill();
    assert_eq!(machine.answer().unwrap().len(), 60);
}

#[test]
fn a_bucket_is_not_filled_before_its_time() {
    let mut machine = Machine::new(Rng::new().rate(10, LONG));
    assert_eq!(machine.ask(&[10]).unwrap().len(), 10);
    machine.handle(Event::Fd(FULL_AGAIN)).unwrap();
    assert_eq!(machine.ask(&[10]), None);
}

#[test]
fn neither_a_reset_nor_a_pause_fills_the_bucket() {
    let mut machine = Machine::new(Rng::new().rate(10, LONG));
    assert_eq!(machine.ask(&[10]).unwrap().len(), 10);
    machine.rng.quiesce(&mut machine.io).unwrap();
    assert_eq!(machine.io.interest(FULL_AGAIN), None);
    machine.rng.reset();
    let mut machine = Machine::new(machine.rng);
    assert_eq!(machine.ask(&[10]), None);
}

#[test]
fn a_thousand_requests_of_64_kib_take_the_time_that_the_rate_says() {
    let period = Duration::from_millis(1);
    let mut machine = Machine::new(Rng::new().rate(BUCKET, period));
    let mut refills = 0;
    for _ in 0..1000 {
        let answer = match machine.ask(&[REQUEST_LIMIT]) {
            Some(answer) => answer,
            None => {
                machine.refill();
                refills += 1;
                machine.answer().unwrap()
            }
        };
        assert_eq!(answer.len(), REQUEST_LIMIT);
    }
    // 16 each time; the first bucket was full.
    assert_eq!(refills, 1000 / 16);
}

#[test]
fn a_source_that_gives_less_answers_with_less() {
    let mut machine = with_source(|slice| {
        let few = slice.subslice(0, slice.len().min(7)).unwrap();
        few.copy_from(&[1u8; 7]);
        Ok(few.len())
    });
    assert_eq!(machine.ask(&[7, 3, 50]).unwrap(), [1; 17]);
}

#[test]
fn a_host_that_has_no_random_bytes_yet_is_asked_again_later() {
    let mut machine = with_source(|_| Err(ErrorKind::WouldBlock.into()));
    assert_eq!(machine.ask(&[10]), None);
    machine.rng.source = fill_randomly;
    machine.refill();
    assert_eq!(machine.answer().unwrap().len(), 10);
}

#[test]
fn a_source_that_fails_costs_the_device() {
    let mut machine = with_source(|_| Err(ErrorKind::PermissionDenied.into()));
    machine.ring.add(&[], &[10]);
    let error = machine.handle(Event::Queue(REQUESTQ)).unwrap_err();
    assert_eq!(error.to_string(), "getting random bytes");
    assert_eq!(machine.ring.used(), None);
}
