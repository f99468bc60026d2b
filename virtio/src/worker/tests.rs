mod lanes;

use super::*;
use crate::device::{Kind, Spec};
use crate::io::Interest;
use crate::testing::driver::{DEADLINE, Machine};
use crate::testing::ring::Ring;
use crate::{ConfigSpace, Event, Step};
use std::fs::File;
use std::io::{PipeReader, Read, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::Sender;
use std::thread;

/// What the device was called with.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    Activate(String),
    Handle(Event),
    Quiesce,
}

/// Says how it is called, and watches a descriptor if it has one.
struct Recorder {
    spec: Spec,
    calls: Sender<Call>,
    watched: Option<OwnedFd>,
    /// Takes what a descriptor has, or looks at it only.
    reads: bool,
}

impl Recorder {
    fn new(calls: Sender<Call>) -> Self {
        let spec = Spec {
            kind: Kind::Rng,
            name: "recorder7".to_owned(),
            features: 0,
            queues: vec![8, 8],
            config: Arc::new(ConfigSpace::new(vec![])),
        };
        Recorder {
            spec,
            calls,
            watched: None,
            reads: true,
        }
    }

    fn say(&self, call: Call) {
        // Nobody listens any more while a test ends.
        let _ = self.calls.send(call);
    }
}

impl Device for Recorder {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn activate(&mut self, io: &mut Io) -> Result<(), Error> {
        self.say(Call::Activate(
            thread::current().name().unwrap_or_default().to_owned(),
        ));
        match &self.watched {
            Some(fd) => io.watch(5, fd.as_fd(), Interest::READ),
            None => Ok(()),
        }
    }

    fn handle(&mut self, event: Event, io: &mut Io) -> Result<(), Error> {
        self.say(Call::Handle(event));
        if let (Event::Fd(token), Some(fd)) = (event, &self.watched) {
            let file = File::from(fd.try_clone().unwrap());
            if self.reads && (&file).read(&mut [0; 16]).unwrap() == 0 {
                io.unwatch(token);
            }
        }
        Ok(())
    }

    fn quiesce(&mut self, _io: &mut Io) -> Result<(), Error> {
        self.say(Call::Quiesce);
        Ok(())
    }
}

fn idle(stopped: Stopped) -> Parts {
    match stopped {
        Stopped::Idle(parts) => *parts,
        Stopped::Panicked => panic!("the device is gone"),
        Stopped::Stuck => panic!("the device does not stop"),
    }
}

struct Bench {
    machine: Machine,
    link: Arc<Link>,
    calls: Receiver<Call>,
}

impl Bench {
    /// Starts a recorder; of its two queues, the second is enabled.
    fn start(change: impl FnOnce(&mut Recorder)) -> (Self, Worker) {
        let machine = Machine::default();
        let environment = machine.environment();
        let (sender, calls) = channel();
        let mut device = Recorder::new(sender);
        change(&mut device);
        let ring = Ring::split(&machine.memory, 0x1000..0x10000, 8, 0);
        let queue = Queue::new(&ring.config(), Arc::clone(&machine.memory), 0).unwrap();
        let spec = &device.spec;
        let link = Link::new(
            &spec.name,
            2,
            Arc::clone(&environment.irq),
            environment.failed,
        );
        let link = Arc::new(link.unwrap());
        let io = Io::new(
            environment.memory,
            0,
            Arc::clone(&spec.config),
            environment.irq,
            vec![None, Some(queue)],
        );
        let parts = Parts {
            device: Box::new(device),
            io,
            lanes: Vec::new(),
        };
        let worker = Worker::start(parts, &link, Mode::Thread);
        (
            Bench {
                machine,
                link,
                calls,
            },
            worker.map_err(|refused| refused.1).unwrap(),
        )
    }

    fn next(&self) -> Call {
        self.calls
            .recv_timeout(DEADLINE)
            .expect("a call of the device")
    }

    /// Starts a recorder and listens until it waits.
    fn started(change: impl FnOnce(&mut Recorder)) -> (Self, Worker) {
        let (bench, worker) = Self::start(change);
        assert_eq!(bench.next(), Call::Activate("recorder7".to_owned()));
        assert_eq!(bench.next(), Call::Handle(Event::Queue(1)));
        (bench, worker)
    }
}

fn watching(reader: PipeReader) -> impl FnOnce(&mut Recorder) {
    |device| device.watched = Some(reader.into())
}

#[test]
fn a_device_is_activated_on_its_thread_then_served_then_quiesced_and_handed_back() {
    let (bench, worker) = Bench::started(|_| {});
    ring(&bench.link.doorbells()[1]);
    assert_eq!(bench.next(), Call::Handle(Event::Queue(1)));
    worker.config_written();
    assert_eq!(bench.next(), Call::Handle(Event::ConfigWritten));
    let parts = idle(worker.stop());
    assert_eq!(bench.next(), Call::Quiesce);
    assert_eq!(parts.device.spec().name, "recorder7");
    assert!(parts.io.has_queue(1) && !parts.io.has_queue(0));
    assert_eq!(bench.machine.failures(), []);
}

#[test]
fn dropping_a_worker_stops_it() {
    let (bench, worker) = Bench::started(|_| {});
    drop(worker);
    assert_eq!(bench.next(), Call::Quiesce);
    assert!(bench.calls.recv().is_err(), "the device is gone");
}

#[test]
fn a_doorbell_of_a_queue_that_is_not_enabled_is_not_served() {
    let (bench, worker) = Bench::started(|_| {});
    ring(&bench.link.doorbells()[0]);
    drop(worker);
    assert_eq!(bench.next(), Call::Quiesce);
}

#[test]
fn a_doorbell_that_was_rung_while_nobody_waited_is_served() {
    let (bench, worker) = Bench::started(|_| {});
    let parts = idle(worker.stop());
    assert_eq!(bench.next(), Call::Quiesce);
    ring(&bench.link.doorbells()[1]);
    let _worker = Worker::start(parts, &bench.link, Mode::Thread);
    assert_eq!(bench.next(), Call::Activate("recorder7".to_owned()));
    assert_eq!(bench.next(), Call::Handle(Event::Queue(1)));
}

#[test]
fn every_ring_of_a_doorbell_is_served_though_its_counter_is_never_read() {
    let (bench, _worker) = Bench::started(|_| {});
    for _ in 0..1000 {
        ring(&bench.link.doorbells()[1]);
        assert_eq!(bench.next(), Call::Handle(Event::Queue(1)));
    }
}

#[test]
fn a_descriptor_is_reported_until_its_end_was_seen() {
    let (reader, mut writer) = pipe().unwrap();
    let (bench, worker) = Bench::started(watching(reader));
    writer.write_all(&[0; 40]).unwrap();
    for _ in 0..3 {
        assert_eq!(bench.next(), Call::Handle(Event::Fd(5)));
    }
    drop(writer);
    assert_eq!(bench.next(), Call::Handle(Event::Fd(5)), "the end");
    drop(worker);
    assert_eq!(
        bench.next(),
        Call::Quiesce,
        "unwatched, it is not reported any more"
    );
}

#[test]
fn a_device_watches_anew_after_a_pause() {
    let (reader, mut writer) = pipe().unwrap();
    let (bench, worker) = Bench::started(watching(reader));
    let parts = idle(worker.stop());
    assert_eq!(bench.next(), Call::Quiesce);
    assert_eq!(parts.io.interest(5), None);
    let _worker = Worker::start(parts, &bench.link, Mode::Thread);
    assert_eq!(bench.next(), Call::Activate("recorder7".to_owned()));
    assert_eq!(bench.next(), Call::Handle(Event::Queue(1)));
    writer.write_all(&[0]).unwrap();
    assert_eq!(bench.next(), Call::Handle(Event::Fd(5)));
    assert!(!bench.link.needs_reset());
}

#[test]
fn a_file_and_a_null_device_are_ready_until_unwatched() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[1; 20]).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let null = File::open("/dev/null").unwrap();
    for (watched, reports) in [(file, 3), (null, 1)] {
        let (bench, worker) = Bench::start(|device| device.watched = Some(watched.into()));
        let mut reported = 0;
        while reported < reports {
            reported += u32::from(bench.next() == Call::Handle(Event::Fd(5)));
        }
        drop(worker);
        let rest: Vec<Call> = bench
            .calls
            .iter()
            .filter(|call| *call == Call::Handle(Event::Fd(5)))
            .collect();
        assert_eq!(rest, [], "unwatched at its end");
    }
}

#[test]
fn a_device_that_ignores_a_ready_descriptor_still_stops() {
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(&[0]).unwrap();
    let (bench, worker) = Bench::started(|device| {
        watching(reader)(device);
        device.reads = false;
    });
    assert_eq!(bench.next(), Call::Handle(Event::Fd(5)));
    ring(&bench.link.doorbells()[1]);
    while bench.next() != Call::Handle(Event::Queue(1)) {}
    idle(worker.stop());
}

/// A driver that keeps a queue full.
struct Endless {
    spec: Spec,
    ring: Ring,
}

impl Device for Endless {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn activate(&mut self, _io: &mut Io) -> Result<(), Error> {
        Ok(())
    }

    fn handle(&mut self, event: Event, io: &mut Io) -> Result<(), Error> {
        if event == Event::ConfigWritten {
            return Err(Error::Request {
                queue: 0,
                what: "served amid an endless queue",
            });
        }
        io.drain(0, |_| {
            self.ring.as_split().push_avail(0);
            Ok(Step::Done(0))
        })
    }

    fn quiesce(&mut self, _io: &mut Io) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn a_queue_that_never_ends_keeps_nobody_else_waiting() {
    let machine = Machine::default();
    let environment = machine.environment();
    let mut ring = Ring::split(&machine.memory, 0x1000..0x10000, 8, 0);
    let queue = Queue::new(&ring.config(), Arc::clone(&machine.memory), 0).unwrap();
    ring.add(&[b"again and again"], &[]);
    let config = Arc::new(ConfigSpace::new(vec![]));
    let name = "endless".to_owned();
    let spec = Spec {
        kind: Kind::Rng,
        name,
        features: 0,
        queues: vec![8],
        config: Arc::clone(&config),
    };
    let link = Link::new(
        "endless",
        1,
        Arc::clone(&environment.irq),
        environment.failed,
    );
    let link = Arc::new(link.unwrap());
    let io = Io::new(
        environment.memory,
        0,
        config,
        environment.irq,
        vec![Some(queue)],
    );
    let parts = Parts {
        device: Box::new(Endless { spec, ring }),
        io,
        lanes: Vec::new(),
    };
    let worker = Worker::start(parts, &link, Mode::Thread)
        .map_err(|refused| refused.1)
        .unwrap();

    worker.config_written();

    assert!(
        machine
            .interrupts
            .wait(DEADLINE, |counts| counts.config == 1)
    );
    assert!(link.needs_reset());
    idle(worker.stop());
}
