//! A device with a thread for each of its queues, behind a transport.

mod sleepers;

use super::*;
use crate::testing::{Driver, Transport};
use crate::transport::mmio::Mmio;
use crate::transport::status::{DRIVER_OK, NEEDS_RESET};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};

/// A host that does not answer until it is told to.
#[derive(Default)]
struct Gate {
    /// How many wait, and whether nobody has to.
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| !state.1).unwrap();
        state.0 -= 1;
    }

    fn until_waiting(&self, count: usize) {
        let state = self.state.lock().unwrap();
        let wait = |state: &mut (usize, bool)| state.0 != count;
        let waited = self.changed.wait_timeout_while(state, DEADLINE, wait);
        assert!(!waited.unwrap().1.timed_out(), "not {count} calls wait");
    }

    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

/// What a lane was called with, and which lane.
type Note = (u16, Call);

/// A lane that does what its chains say.
#[derive(Clone)]
struct Obedient {
    queue: u16,
    gate: Arc<Gate>,
    /// Whether lanes sleep.
    asleep: Arc<AtomicBool>,
    notes: Sender<Note>,
}

impl Obedient {
    fn note(&self, call: Call) {
        // Nobody listens any more while a test ends.
        let _ = self.notes.send((self.queue, call));
    }
}

impl Lane for Obedient {
    fn queues(&self) -> Range<u16> {
        self.queue..self.queue + 1
    }

    fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::SeqCst)
    }

    fn activate(&mut self, io: &mut Io) -> Result<(), Error> {
        let own = |queue: &u16| self.queues().contains(queue);
        assert!((0..LANES).all(|queue| io.has_queue(queue) == own(&queue)));
        let name = thread::current().name().unwrap_or_default().to_owned();
        self.note(Call::Activate(name));
        Ok(())
    }

    fn handle(&mut self, event: Event, io: &mut Io) -> Result<(), Error> {
        if matches!(event, Event::ConfigWritten | Event::Shared) {
            self.note(Call::Handle(event));
        }
        let mut tell = false;
        io.drain(self.queue, |chain| {
            let mut order = [0];
            chain.reader().read_exact(&mut order).unwrap();
            match &order {
                b"w" => self.gate.pass(),
                b"t" => tell = true,
                b"a" => {
                    self.asleep.store(false, Ordering::SeqCst);
                    tell = true;
                }
                b"p" => panic!("the driver ordered a panic"),
                b"f" => {
                    return Err(Error::Request {
                        queue: self.queue,
                        what: "the driver ordered a failure",
                    });
                }
                _ => {}
            }
            Ok(Step::Done(0))
        })?;
        if tell {
            io.tell_lanes()?;
        }
        Ok(())
    }

    fn quiesce(&mut self, _io: &mut Io) -> Result<(), Error> {
        self.note(Call::Quiesce);
        Ok(())
    }
}

const LANES: u16 = 3;

/// A device that is made of such lanes.
struct Divided {
    spec: Spec,
    first: Obedient,
    divides: bool,
}

impl Device for Divided {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn activate(&mut self, io: &mut Io) -> Result<(), Error> {
        self.first.activate(io)
    }

    fn handle(&mut self, event: Event, io: &mut Io) -> Result<(), Error> {
        self.first.handle(event, io)
    }

    fn quiesce(&mut self, io: &mut Io) -> Result<(), Error> {
        self.first.quiesce(io)
    }

    fn lanes(&self, _features: u64) -> Vec<Box<dyn Lane>> {
        assert!(self.divides, "a device that can't be divided");
        let lane = |queue| Obedient {
            queue,
            ..self.first.clone()
        };
        (1..LANES).map(|queue| Box::new(lane(queue)) as _).collect()
    }
}

struct Rig {
    driver: Driver<Mmio>,
    gate: Arc<Gate>,
    asleep: Arc<AtomicBool>,
    notes: Receiver<Note>,
}

impl Rig {
    fn new(mode: Mode) -> Self {
        Self::with(mode, true)
    }

    fn with(mode: Mode, divides: bool) -> Self {
        let (sender, notes) = channel();
        let gate = Arc::default();
        let asleep = Arc::default();
        let first = Obedient {
            queue: 0,
            gate: Arc::clone(&gate),
            asleep: Arc::clone(&asleep),
            notes: sender,
        };
        let spec = Spec {
            kind: Kind::Rng,
            name: "divided".to_owned(),
            features: 0,
            queues: vec![16; LANES.into()],
            config: Arc::new(ConfigSpace::with_writable(vec![0; 4], 0..4)),
        };
        let device = Box::new(Divided {
            spec,
            first,
            divides,
        });
        Rig {
            driver: Driver::mmio_in(device, mode),
            gate,
            asleep,
            notes,
        }
    }

    fn started() -> Self {
        let mut rig = Self::new(Mode::Thread);
        rig.driver.start(0);
        rig.take_notes(LANES.into());
        rig
    }

    /// The next notes, in the order of their lanes.
    fn take_notes(&self, count: usize) -> Vec<Note> {
        let next = |_| self.notes.recv_timeout(DEADLINE).expect("a call of a lane");
        let mut notes: Vec<Note> = (0..count).map(next).collect();
        notes.sort_by_key(|note| note.0);
        notes
    }

    /// What was noted and not taken.
    fn other_notes(&self) -> Vec<Note> {
        self.notes.try_iter().collect()
    }

    fn order(&mut self, queue: u16, order: &[u8; 1]) -> u16 {
        self.driver.send(queue, &[order], &[])
    }

    fn order_all(&mut self, order: &[u8; 1]) -> [u16; LANES as usize] {
        [0, 1, 2].map(|queue| self.order(queue, order))
    }

    /// A lane does its work.
    fn works(&mut self, queue: u16) {
        let id = self.order(queue, b"-");
        assert_eq!(self.driver.receive(queue).0, id);
    }

    fn used(&self, queue: u16) -> u16 {
        self.driver.rings[usize::from(queue)].used_waiting()
    }
}

fn on_all(call: impl Fn() -> Call) -> Vec<Note> {
    (0..LANES).map(|queue| (queue, call())).collect()
}

#[test]
fn each_lane_has_its_queue_and_a_thread_that_is_named_after_it() {
    let mut rig = Rig::new(Mode::Thread);
    rig.driver.start(0);
    let names = ["divided", "divided/1", "divided/2"].map(str::to_owned);
    let expected: Vec<Note> = (0..).zip(names.map(Call::Activate)).collect();
    assert_eq!(rig.take_notes(3), expected);
    (0..LANES).for_each(|queue| rig.works(queue));

    rig.driver.reset();

    assert_eq!(rig.other_notes().len(), 3);
    rig.driver.start(0);
    assert_eq!(rig.take_notes(3), expected, "new ones");
}

#[test]
fn a_lane_that_waits_for_the_host_keeps_no_other_one_waiting() {
    let mut rig = Rig::started();
    let first = rig.order(0, b"w");
    let second = rig.order(2, b"w");
    rig.gate.until_waiting(2);
    (0..20).for_each(|_| rig.works(1));
    rig.gate.open();
    assert_eq!(rig.driver.receive(0).0, first);
    assert_eq!(rig.driver.receive(2).0, second);
}

#[test]
fn a_lane_whose_queue_is_not_enabled_costs_no_thread() {
    let mut rig = Rig::new(Mode::Thread);
    assert!(rig.driver.negotiate(0));
    rig.driver.set_up_queues(16);
    assert!(!rig.driver.transport.enable_queue(1, false));
    rig.driver.add_status(DRIVER_OK);
    let lanes: Vec<u16> = rig.take_notes(2).iter().map(|note| note.0).collect();
    assert_eq!(lanes, [0, 2]);
    rig.driver.transport.pause().unwrap();
    assert_eq!(rig.take_notes(2), [(0, Call::Quiesce), (2, Call::Quiesce)]);
    assert_eq!(rig.other_notes(), []);
}

#[test]
fn a_write_to_the_configuration_space_reaches_all_lanes() {
    let mut rig = Rig::started();
    rig.driver.transport.write_config(0, &[1]);
    let written = || Call::Handle(Event::ConfigWritten);
    assert_eq!(rig.take_notes(3), on_all(written));
}

#[test]
fn a_stop_while_all_lanes_wait_for_the_host_is_over_when_it_answers() {
    let mut rig = Rig::started();
    for queue in 0..LANES {
        for _ in 0..5 {
            rig.order(queue, b"w");
        }
    }
    rig.gate.until_waiting(3);
    rig.driver.transport.life().ask_to_stop();
    rig.gate.open();

    rig.driver.transport.stop();

    assert_eq!(rig.take_notes(3), on_all(|| Call::Quiesce));
    let used: Vec<u16> = (0..LANES).map(|queue| rig.used(queue)).collect();
    assert_eq!(used, [1, 1, 1], "a stop comes before the next chain");
}

#[test]
fn a_pause_that_one_lane_refuses_leaves_all_as_they_were() {
    let mut rig = Rig::started();
    let first = rig.order(1, b"w");
    let second = rig.order(1, b"-");
    rig.gate.until_waiting(1);

    let before = Instant::now();
    let error = rig.driver.transport.pause().unwrap_err();

    assert!(error.to_string().contains("to be idle"), "{error}");
    let took = before.elapsed();
    assert!(took < STOP_PATIENCE + Duration::from_secs(2), "{took:?}");
    rig.works(0);
    rig.works(2);
    rig.gate.open();
    assert_eq!(rig.driver.receive(1).0, first);
    assert_eq!(rig.driver.receive(1).0, second);
    assert_eq!(rig.other_notes(), [], "nothing was activated or quiesced");
    rig.driver.transport.pause().unwrap();
    rig.driver.transport.resume().unwrap();
    (0..LANES).for_each(|queue| rig.works(queue));
    assert_eq!(rig.driver.machine.failures(), []);
}

#[test]
fn a_reset_that_one_lane_refuses_costs_the_machine() {
    let mut rig = Rig::started();
    rig.order(2, b"w");
    rig.gate.until_waiting(1);

    rig.driver.reset();

    let said = "waits for the host, and can't be reset".to_owned();
    let failures = rig.driver.machine.failures();
    assert_eq!(failures, [("divided".to_owned(), said)]);
    assert_eq!(rig.other_notes().len(), 2, "the others are idle");
    rig.gate.open();
    assert_eq!(rig.take_notes(1), [(2, Call::Quiesce)]);
}

#[test]
fn an_error_in_one_lane_ends_them_all_until_a_reset() {
    let mut rig = Rig::started();
    rig.order(1, b"f");
    rig.driver.wait_for_needs_reset();
    assert_eq!(rig.take_notes(3), on_all(|| Call::Quiesce));
    rig.order_all(b"-");
    rig.driver.transport.pause().unwrap();
    assert_eq!([0, 1, 2].map(|queue| rig.used(queue)), [0; 3]);
    assert_eq!(rig.driver.interrupts().config, 1);

    rig.driver.start(0);

    assert_eq!(rig.driver.transport.status() & NEEDS_RESET, 0);
    (0..LANES).for_each(|queue| rig.works(queue));
    assert_eq!(rig.driver.machine.failures(), []);
}

#[test]
fn errors_in_all_lanes_are_one_failure() {
    let mut rig = Rig::started();
    for _ in 0..50 {
        let before = rig.driver.interrupts().config;
        rig.order_all(b"f");
        rig.driver.wait_for_needs_reset();
        rig.driver.transport.pause().unwrap();
        assert_eq!(rig.driver.interrupts().config, before + 1);
        rig.driver.start(0);
    }
}

#[test]
fn an_error_in_one_lane_waits_for_no_other_one() {
    let mut rig = Rig::started();
    rig.order(0, b"w");
    let behind = rig.order(0, b"-");
    rig.gate.until_waiting(1);
    rig.order(1, b"f");
    assert_eq!(rig.take_notes(2), [(1, Call::Quiesce), (2, Call::Quiesce)]);
    rig.gate.open();
    assert_eq!(rig.take_notes(1), [(0, Call::Quiesce)]);
    assert_eq!(rig.used(0), 1, "chain {behind} is left in the ring");
}

#[test]
fn a_panic_in_one_lane_costs_the_machine() {
    let mut rig = Rig::started();
    rig.order(2, b"p");
    assert_eq!(rig.take_notes(2), [(0, Call::Quiesce), (1, Call::Quiesce)]);
    // What is left of the device is harmless.
    rig.driver.transport.pause().unwrap();
    rig.driver.transport.resume().unwrap();
    assert!(rig.driver.negotiate(0));
    rig.driver.add_status(DRIVER_OK);
    rig.driver.transport.stop();
    let said = "panicked: the driver ordered a panic".to_owned();
    let failures = rig.driver.machine.failures();
    assert_eq!(failures, [("divided".to_owned(), said)]);
}

#[test]
fn a_panic_of_a_device_that_divides_itself_costs_the_machine() {
    let mut rig = Rig::with(Mode::Thread, false);
    rig.driver.start(0);
    let said = "panicked: a device that can't be divided".to_owned();
    let failures = rig.driver.machine.failures();
    assert_eq!(failures, [("divided".to_owned(), said)]);
    assert_ne!(rig.driver.transport.status() & NEEDS_RESET, 0);
    rig.driver.reset();
    assert_eq!(rig.other_notes(), []);
}

#[test]
fn lanes_without_threads_have_their_turns() {
    let mut rig = Rig::new(Mode::Inline);
    rig.driver.start(0);
    rig.take_notes(3);
    let ids = rig.order_all(b"-");
    rig.driver.transport.turn();
    let used = [0, 1, 2].map(|queue: usize| rig.driver.rings[queue].used());
    assert_eq!(used, ids.map(|id| Some((id, 0))));
    rig.driver.transport.pause().unwrap();
    assert_eq!(rig.take_notes(3), on_all(|| Call::Quiesce));
}

#[test]
fn pauses_and_resets_amid_traffic_on_all_lanes_lose_nothing() {
    let mut rig = Rig::started();
    for round in 0..100 {
        let ids = rig.order_all(b"-");
        rig.driver.transport.pause().unwrap();
        rig.driver.transport.resume().unwrap();
        let used = [0, 1, 2].map(|queue| rig.driver.receive(queue).0);
        assert_eq!(used, ids, "round {round}");
        rig.order_all(b"-");
        rig.driver.start(0);
    }
    assert_eq!(rig.driver.machine.failures(), []);
}
