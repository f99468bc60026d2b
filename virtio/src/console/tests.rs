//! The console driven by the fake driver, without a worker: an event, then a look at rings and
//! streams.

mod threaded;

use super::*;
use crate::Queue;
use crate::testing::Interrupts;
use crate::testing::ring::{Descriptor, NEXT, Ring, ram};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(10);
const RAM: usize = 64 << 20;

/// A console that its driver has set up, and both sides of it.
struct Machine {
    console: Console,
    io: Io,
    receive: Ring,
    transmit: Ring,
    interrupts: Arc<Interrupts>,
}

impl Machine {
    fn new(input: Option<Input>, output: Option<Output>) -> Machine {
        Machine::with(Console::new(input, output))
    }

    fn with(mut console: Console) -> Machine {
        let memory = ram(&[(0, RAM)]);
        let receive = Ring::split(&memory, 0x1000..0x10_0000, QUEUE_SIZE, 0);
        let transmit = Ring::split(&memory, 0x10_0000..0x80_0000, QUEUE_SIZE, 0);
        let queues = [&receive, &transmit]
            .map(|ring| Some(Queue::new(&ring.config(), Arc::clone(&memory), 0).unwrap()));
        let interrupts = Arc::new(Interrupts::default());
        let config = Arc::clone(&console.spec().config);
        let irq = Arc::clone(&interrupts);
        let mut io = Io::new(memory, console.spec().features, config, irq, queues.into());
        console.activate(&mut io).unwrap();
        Machine {
            console,
            io,
            receive,
            transmit,
            interrupts,
        }
    }

    fn handle(&mut self, event: Event) {
        self.console.handle(event, &mut self.io).unwrap();
    }

    /// Makes a chain to transmit available and rings the doorbell. True: it was used at once.
    fn transmit(&mut self, readable: &[&[u8]], writable: &[usize]) -> bool {
        let id = self.transmit.add(readable, writable);
        self.handle(Event::Queue(TRANSMITQ));
        self.transmitted() == Some(id)
    }

    fn transmitted(&mut self) -> Option<u16> {
        let (id, written) = self.transmit.used()?;
        assert_eq!(written, 0);
        Some(id)
    }

    /// Offers a buffer to receive into and rings the doorbell.
    fn offer(&mut self, size: usize) {
        self.receive.add(&[], &[size]);
        self.handle(Event::Queue(RECEIVEQ));
    }

    fn received(&mut self) -> Option<Vec<u8>> {
        let (id, written) = self.receive.used()?;
        Some(self.receive.written(id, written as usize))
    }

    fn is_input_watched(&self) -> bool {
        self.io.interest(INPUT).is_some()
    }

    fn config(&self) -> [u8; CONFIG_SIZE] {
        let mut bytes = [0; CONFIG_SIZE];
        self.io.config().read(0, &mut bytes);
        bytes
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = io::pipe().unwrap();
    (reader.into(), writer.into())
}

fn wait_readable(fd: impl AsFd) {
    let ten_seconds = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    let ready = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&ten_seconds)).unwrap();
    assert_eq!(ready, 1, "nothing came");
}

fn input_of(bytes: &[u8]) -> (Input, OwnedFd) {
    let (reader, writer) = pipe();
    rustix::io::write(&writer, bytes).unwrap();
    (Input::fd(reader).unwrap(), writer)
}

#[test]
fn a_transmitted_chain_is_written_in_order() {
    let (output, captured) = Output::capture();
    let mut machine = Machine::new(None, Some(output.clone()));
    assert!(machine.transmit(&[b"Linux ", b"version"], &[]));
    assert!(machine.transmit(&[b" 6\n"], &[]));
    assert!(output.finish(LONG));
    assert_eq!(captured.bytes(), b"Linux version 6\n");
    assert_eq!(machine.interrupts.counts().queue, 2);
}

#[test]
fn a_transmitted_chain_with_a_writable_part_is_forwarded_and_not_written_to() {
    let (output, captured) = Output::capture();
    let mut machine = Machine::new(None, Some(output.clone()));
    assert!(machine.transmit(&[b"x"], &[16]));
    assert!(machine.transmit(&[], &[16]));
    assert!(output.finish(LONG));
    assert_eq!(captured.bytes(), b"x");
}

#[test]
fn a_transmitted_chain_of_no_bytes_is_used() {
    let (output, _captured) = Output::capture();
    let mut machine = Machine::new(None, Some(output.clone()));
    machine.transmit.as_split().set_descriptor(
        0,
        Descriptor {
            address: 0x1000,
            ..Descriptor::default()
        },
    );
    machine.transmit.as_split().push_avail(0);
    machine.handle(Event::Queue(TRANSMITQ));
    assert_eq!(machine.transmit.as_split().used_idx(), 1);
    assert_eq!(output.dropped(), 0);
}

#[test]
fn of_a_transmitted_chain_of_nearly_4_gib_a_bounded_part_is_copied() {
    let (output, captured) = Output::capture();
    let mut machine = Machine::new(None, Some(output.clone()));
    let split = machine.transmit.as_split();
    let count = QUEUE_SIZE - 1;
    for index in 0..count {
        let (flags, next) = if index + 1 < count {
            (NEXT, index + 1)
        } else {
            (0, 0)
        };
        split.set_descriptor(
            index,
            Descriptor {
                address: 0,
                len: RAM as u32,
                flags,
                next,
            },
        );
    }
    split.push_avail(0);
    let started = Instant::now();
    machine.handle(Event::Queue(TRANSMITQ));
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(machine.transmit.as_split().used_idx(), 1);
    output.finish(LONG);
    let total = u64::from(count) * RAM as u64;
    assert!(captured.bytes().len() <= TRANSMIT_LIMIT);
    assert_eq!(captured.bytes().len() as u64 + output.dropped(), total);
}

#[test]
fn without_an_output_transmitted_chains_are_used_all_the_same() {
    let mut machine = Machine::new(None, None);
    assert!(machine.transmit(&[b"nobody listens"], &[]));
}

#[test]
fn a_host_that_is_slow_loses_nothing() {
    let (reader, writer) = pipe();
    let output = Output::fd(writer).unwrap();
    output.wait_long_for_room();
    let mut machine = Machine::new(None, Some(output.clone()));
    let mut reader = File::from(reader);
    let lines = 1000;
    let reading = std::thread::spawn(move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        all
    });
    for line in 0..lines {
        let text = format!("{line:01023}\n");
        let mut used = machine.transmit(&[text.as_bytes()], &[]);
        while !used {
            wait_readable(output.room().unwrap());
            machine.handle(Event::Fd(ROOM));
            used = machine.transmitted().is_some();
        }
    }
    assert!(output.finish(LONG));
    let all = reading.join().unwrap();
    assert_eq!(output.dropped(), 0);
    assert_eq!(all.len(), lines * 1024);
    assert!(all.ends_with(b"0999\n"));
}

#[test]
fn a_flood_to_a_host_that_does_not_read_costs_bytes_and_not_the_guest() {
    let (_reader, writer) = pipe();
    let output = Output::fd(writer).unwrap();
    let mut machine = Machine::new(None, Some(output.clone()));
    let chunk = [b'x'; 32 << 10];
    let chunks = 32_768; // 1 GiB
    let mut waits = 0;
    for _ in 0..chunks {
        let mut used = machine.transmit(&[&chunk], &[]);
        while !used {
            waits += 1;
            wait_readable(output.room().unwrap());
            machine.handle(Event::Fd(ROOM));
            used = machine.transmitted().is_some();
        }
    }
    assert!(waits <= 2, "the guest was held up {waits} times");
    assert!(output.dropped() >= (1 << 30) - (1 << 20));
}

#[test]
fn a_host_that_has_gone_costs_bytes_and_not_the_guest() {
    let (reader, writer) = pipe();
    drop(reader);
    let output = Output::fd(writer).unwrap();
    let mut machine = Machine::new(None, Some(output.clone()));
    for _ in 0..100 {
        assert!(machine.transmit(&[b"nobody reads this\n"], &[]));
    }
    output.finish(LONG);
    assert_eq!(output.dropped(), 1800);
}

#[test]
fn input_arrives_once_the_driver_offers_a_buffer() {
    let (input, _writer) = input_of(b"ls\n");
    let mut machine = Machine::new(Some(input), None);
    assert!(!machine.is_input_watched());
    machine.offer(4096);
    assert_eq!(machine.received().unwrap(), b"ls\n");
    assert!(machine.interrupts.counts().queue > 0);
}

#[test]
fn input_larger_than_a_buffer_goes_on_in_the_next() {
    let (input, _writer) = input_of(b"abcdefgh");
    let mut machine = Machine::new(Some(input), None);
    machine.receive.add(&[], &[3]);
    machine.receive.add(&[], &[2, 1]);
    machine.offer(4096);
    assert_eq!(machine.received().unwrap(), b"abc");
    assert_eq!(machine.received().unwrap(), b"def");
    assert_eq!(machine.received().unwrap(), b"gh");
}

#[test]
fn input_is_watched_only_while_the_driver_has_a_buffer_for_it() {
    let (input, writer) = input_of(b"");
    let mut machine = Machine::new(Some(input), None);
    machine.offer(16);
    assert!(machine.is_input_watched());
    rustix::io::write(&writer, b"x").unwrap();
    machine.handle(Event::Fd(INPUT));
    assert_eq!(machine.received().unwrap(), b"x");
    rustix::io::write(&writer, b"y").unwrap();
    machine.handle(Event::Fd(INPUT));
    assert!(!machine.is_input_watched());
    machine.offer(16);
    assert_eq!(machine.received().unwrap(), b"y");
}

#[test]
fn a_receive_chain_without_room_is_used_and_takes_no_input() {
    let (input, _writer) = input_of(b"x");
    let mut machine = Machine::new(Some(input), None);
    machine.receive.add(&[b"readable only"], &[]);
    machine.handle(Event::Queue(RECEIVEQ));
    assert_eq!(machine.received().unwrap(), b"");
    machine.offer(16);
    assert_eq!(machine.received().unwrap(), b"x");
}

#[test]
fn input_that_no_buffer_is_offered_for_stays_with_the_host() {
    let (reader, writer) = pipe();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    let mut machine = Machine::new(Some(Input::fd(reader).unwrap()), None);
    machine.handle(Event::Queue(RECEIVEQ));
    machine.handle(Event::Fd(INPUT));
    let mut written = 0;
    while let Ok(size) = rustix::io::write(&writer, &[b'x'; 4096]) {
        written += size;
        machine.handle(Event::Fd(INPUT));
        assert!(written <= 1 << 20);
    }
    assert!(!machine.is_input_watched());
}

#[test]
fn the_end_of_the_input_is_handled_once() {
    let (input, writer) = input_of(b"bye");
    drop(writer);
    let mut machine = Machine::new(Some(input), None);
    machine.offer(16);
    assert_eq!(machine.received().unwrap(), b"bye");
    machine.offer(16);
    machine.handle(Event::Fd(INPUT));
    assert!(!machine.is_input_watched());
    machine.offer(16);
    assert!(!machine.is_input_watched());
    assert_eq!(machine.received(), None);
}

#[test]
fn dev_null_as_input_is_not_watched() {
    let input = Input::fd(File::open("/dev/null").unwrap().into()).unwrap();
    let mut machine = Machine::new(Some(input), None);
    machine.offer(16);
    assert!(!machine.is_input_watched());
    assert_eq!(machine.received(), None);
}

#[test]
fn a_file_as_input_arrives_as_a_whole_and_ends() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[b'x'; 5000]).unwrap();
    file.rewind().unwrap();
    let mut machine = Machine::new(Some(Input::fd(file.into()).unwrap()), None);
    for _ in 0..4 {
        machine.offer(4096);
        machine.handle(Event::Fd(INPUT));
    }
    assert_eq!(machine.received().unwrap().len(), 4096);
    assert_eq!(machine.received().unwrap().len(), 904);
    assert_eq!(machine.received(), None);
    assert!(!machine.is_input_watched());
}

#[test]
fn input_waits_through_a_pause() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut machine = Machine::new(Some(Input::fd(ours.into()).unwrap()), None);
    machine.offer(16);
    machine.console.quiesce(&mut machine.io).unwrap();
    assert!(!machine.is_input_watched());
    theirs.write_all(b"typed meanwhile").unwrap();
    machine.console.activate(&mut machine.io).unwrap();
    machine.handle(Event::Queue(RECEIVEQ));
    assert_eq!(machine.received().unwrap(), b"typed meanwhile");
}

#[test]
fn a_size_announced_before_the_driver_is_there_is_in_the_configuration() {
    let console = Console::new(None, None);
    console.resizer().resize(80, 25);
    let machine = Machine::with(console);
    assert_eq!(machine.config()[..4], [80, 0, 25, 0]);
}

#[test]
fn of_many_sizes_the_last_one_counts_with_one_interrupt() {
    let mut machine = Machine::new(None, None);
    let resizer = machine.console.resizer();
    let resizing = std::thread::spawn(move || {
        for columns in 0..10_000 {
            resizer.resize(columns, 1);
        }
        resizer.resize(300, 0x1234);
    });
    resizing.join().unwrap();
    wait_readable(machine.console.resized.as_ref().unwrap());
    machine.handle(Event::Fd(RESIZED));
    assert_eq!(machine.config()[..4], [44, 1, 0x34, 0x12]);
    assert_eq!(machine.interrupts.counts().config, 1);
}

#[test]
fn an_emergency_write_is_a_character_of_output() {
    let (output, captured) = Output::capture();
    let mut machine = Machine::new(None, Some(output.clone()));
    for character in b"oops" {
        let word = u32::from(*character).to_le_bytes();
        assert!(machine.io.config().write(EMERG_WR as u64, &word));
        machine.handle(Event::ConfigWritten);
    }
    machine.handle(Event::ConfigWritten);
    assert!(output.finish(LONG));
    assert_eq!(captured.bytes(), b"oops");
}

#[test]
fn the_size_is_not_the_drivers_to_write() {
    let machine = Machine::new(None, None);
    assert!(!machine.io.config().write(0, &[1, 2, 3, 4]));
    assert!(!machine.io.config().write(EMERG_WR as u64 - 1, &[1, 2]));
    assert_eq!(machine.config(), [0; CONFIG_SIZE]);
}

#[test]
fn events_that_are_not_the_consoles_change_nothing() {
    let mut machine = Machine::new(None, None);
    machine.handle(Event::Queue(7));
    machine.handle(Event::Fd(99));
    machine.handle(Event::Fd(INPUT));
    machine.handle(Event::Fd(ROOM));
    assert_eq!(machine.interrupts.counts().queue, 0);
}
