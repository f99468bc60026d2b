use super::*;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

const DATA: u64 = 0;
const IER: u64 = 1;
const LCR: u64 = 3;
const MCR: u64 = 4;
const LSR: u64 = 5;
const SCRATCH: u64 = 7;
const DATA_READY: u8 = 1;
const LOOPBACK: u8 = 1 << 4;
const DIVISOR_LATCH: u8 = 1 << 7;

struct Bench {
    serial: Serial,
    device: Arc<dyn BusDevice>,
    raised: Arc<AtomicUsize>,
}

impl Bench {
    fn new(input: Option<Input>, output: Option<Output>) -> Self {
        let raised = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&raised);
        let interrupt = move || {
            counter.fetch_add(1, Ordering::SeqCst);
        };
        let serial = Serial::start(interrupt, input, output, None).unwrap();
        let device = serial.device();
        Bench {
            serial,
            device,
            raised,
        }
    }

    fn read(&self, offset: u64) -> u8 {
        let mut data = [0x55];
        self.device.read(offset, &mut data);
        data[0]
    }

    fn write(&self, offset: u64, value: u8) {
        assert_eq!(self.device.write(offset, &[value]), Action::None);
    }

    fn wait(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition(self) {
            assert!(Instant::now() < deadline, "{what} did not happen");
            std::thread::yield_now();
        }
    }

    /// Reads as a driver does, until `count` bytes are there.
    fn receive(&self, count: usize) -> Vec<u8> {
        (0..count)
            .map(|_| {
                self.wait("a byte", |bench| bench.read(LSR) & DATA_READY != 0);
                self.read(DATA)
            })
            .collect()
    }
}

fn pipe() -> (Input, io::PipeWriter) {
    let (reader, writer) = io::pipe().unwrap();
    (Input::fd(reader.into()).unwrap(), writer)
}

/// The bytes that nobody has read yet.
fn unread(writer: &io::PipeWriter) -> u64 {
    rustix::io::ioctl_fionread(writer.as_fd()).unwrap()
}

#[test]
fn what_the_guest_sends_arrives_in_order() {
    let (output, captured) = Output::capture();
    let bench = Bench::new(None, Some(output.clone()));
    let text: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    for byte in &text {
        bench.write(DATA, *byte);
    }
    assert!(output.finish(Duration::from_secs(10)));
    assert_eq!(captured.bytes(), text);
}

#[test]
fn without_an_output_ten_million_bytes_go_nowhere_and_nobody_waits() {
    let bench = Bench::new(None, None);
    for _ in 0..10_000_000 {
        bench.write(DATA, b'x');
    }
    assert_eq!(bench.read(LSR) & 0x60, 0x60);
}

#[test]
fn a_stuck_host_costs_bytes_but_not_time() {
    let (reader, mut writer) = io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[0; 4096]).is_ok() {}
    let output = Output::fd(writer.into()).unwrap();
    let bench = Bench::new(None, Some(output.clone()));
    let start = Instant::now();
    for _ in 0..1_000_000 {
        bench.write(DATA, b'x');
    }
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    assert!(output.dropped() > 0);
    drop(reader);
}

#[test]
fn input_arrives_complete_and_in_order_and_interrupts() {
    let (input, mut writer) = pipe();
    let bench = Bench::new(Some(input), None);
    bench.write(IER, 1);
    let text: Vec<u8> = (0..=255).cycle().take(5_000).collect();
    writer.write_all(&text).unwrap();
    assert_eq!(bench.receive(text.len()), text);
    assert!(bench.raised.load(Ordering::SeqCst) > 0);
}

#[test]
fn a_guest_that_does_not_read_leaves_the_input_with_the_host() {
    let (input, mut writer) = pipe();
    let bench = Bench::new(Some(input), None);
    let text = [b'a'; 1000];
    writer.write_all(&text).unwrap();
    bench.wait("a full FIFO", |bench| {
        unread(&writer) == 1000 - 64 && bench.read(LSR) & 1 != 0
    });
    bench.wait("the feeder to wait", |bench| {
        bench.serial.port.waiting.load(Ordering::SeqCst)
    });
    let pending_wake = rustix::io::read(&bench.serial.port.wake, &mut [0; 8]);
    assert!(pending_wake.is_err(), "the feeder has no reason to wake up");
    assert_eq!(unread(&writer), 1000 - 64);
    assert_eq!(bench.receive(1000), text);
}

#[test]
fn input_that_comes_during_loopback_is_delivered_afterwards() {
    let (input, mut writer) = pipe();
    let bench = Bench::new(Some(input), None);
    bench.write(MCR, LOOPBACK);
    bench.write(DATA, b'l');
    writer.write_all(b"host").unwrap();
    bench.wait("reading", |_| unread(&writer) == 0);
    assert_eq!(bench.read(DATA), b'l');
    assert_eq!(bench.read(LSR) & DATA_READY, 0);
    bench.write(MCR, 0);
    assert_eq!(bench.receive(4), b"host");
}

#[test]
fn loopback_is_bounded_and_reaches_nobody() {
    let (output, captured) = Output::capture();
    let bench = Bench::new(None, Some(output.clone()));
    bench.write(MCR, LOOPBACK);
    for _ in 0..1000 {
        bench.write(DATA, b'x');
    }
    let looped = (0..1000).take_while(|_| bench.read(LSR) & 1 != 0 && bench.read(DATA) == b'x');
    assert_eq!(looped.count(), 64);
    assert!(output.finish(Duration::from_secs(10)));
    assert_eq!(captured.bytes(), b"");
}

#[test]
fn every_register_takes_every_value_in_every_mode() {
    let bench = Bench::new(None, None);
    for mode in [0, LOOPBACK] {
        for latch in [0, DIVISOR_LATCH] {
            for register in 0..REGISTERS {
                for value in 0..=255 {
                    bench.write(LCR, latch);
                    bench.write(MCR, mode);
                    bench.write(register, value);
                    (0..REGISTERS).for_each(|register| {
                        bench.read(register);
                    });
                    assert_eq!(bench.read(LSR) & 0x60, 0x60, "ready to send");
                }
            }
        }
    }
}

#[test]
fn divisor_and_scratch_are_remembered_zero_included() {
    let bench = Bench::new(None, None);
    for value in [0, 1, 0xff] {
        bench.write(SCRATCH, value);
        bench.write(LCR, DIVISOR_LATCH);
        bench.write(0, value);
        bench.write(1, value);
        assert_eq!([0, 1, 7].map(|register| bench.read(register)), [value; 3]);
    }
}

#[test]
fn wide_and_odd_accesses_go_to_one_register_a_byte_and_stop_at_the_end() {
    let bench = Bench::new(None, None);
    for offset in [0, 1, 5, 6, 7, 8, 1 << 32, u64::MAX] {
        for length in [0, 1, 2, 3, 4, 5, 8, 64] {
            let mut data = vec![0; length];
            assert_eq!(bench.device.write(offset, &data), Action::None);
            bench.device.read(offset, &mut data);
            let beyond = usize::try_from(REGISTERS.saturating_sub(offset)).unwrap();
            assert!(
                data.iter().skip(beyond).all(|byte| *byte == 0xff),
                "{offset:#x}"
            );
        }
    }
}

#[test]
fn a_word_at_the_scratch_register_does_not_wrap_to_the_data_register() {
    let (output, captured) = Output::capture();
    let bench = Bench::new(None, Some(output.clone()));
    assert_eq!(bench.device.write(SCRATCH, b"sx"), Action::None);
    assert!(output.finish(Duration::from_secs(10)));
    assert_eq!(captured.bytes(), b"");
    assert_eq!(bench.read(SCRATCH), b's');
}

#[test]
fn dropping_the_port_ends_its_thread_in_each_state() {
    for filled in [0, 10, 1000] {
        let (input, mut writer) = pipe();
        let bench = Bench::new(Some(input), None);
        writer.write_all(&vec![b'a'; filled]).unwrap();
        let Bench { serial, device, .. } = bench;
        drop(serial);
        // The thread had the reading end.
        assert!(writer.write(b"x").is_err());
        let mut data = [0];
        device.read(LSR, &mut data);
    }
}

#[test]
fn the_end_of_the_input_ends_the_thread_and_keeps_what_came_before() {
    let (input, mut writer) = pipe();
    let bench = Bench::new(Some(input), None);
    writer.write_all(b"bye").unwrap();
    drop(writer);
    assert_eq!(bench.receive(3), b"bye");
    bench.wait("the thread's end", |bench| {
        bench
            .serial
            .feeder
            .as_ref()
            .is_some_and(JoinHandle::is_finished)
    });
}
