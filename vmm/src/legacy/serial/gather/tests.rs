use super::*;
use crate::bus::{Action, BusDevice};
use crate::legacy::serial::registers::{
    DIVISOR_LATCH, IER, IIR, LCR, LOOPBACK, LSR, MCR, THRE_INTERRUPT,
};
use crate::legacy::serial::{DATA, Serial};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use virtio::stream::{Captured, Output};

/// What KVM does of it.
#[derive(Default)]
struct Kernel {
    ring: Arc<Mutex<Ring>>,
    /// Gets into the ring while the registration ends, which waits for this lock.
    late: Arc<Mutex<Vec<u8>>>,
    starts: AtomicUsize,
    refuses: bool,
}

#[derive(Default)]
struct Ring {
    registered: bool,
    bytes: Vec<u8>,
}

struct Registration {
    ring: Arc<Mutex<Ring>>,
    late: Arc<Mutex<Vec<u8>>>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let late = std::mem::take(&mut *self.late.lock().unwrap());
        let mut ring = self.ring.lock().unwrap();
        ring.bytes.extend(late);
        ring.registered = false;
    }
}

impl Gather for Kernel {
    fn start(&self) -> Result<Box<dyn Send>, kvm::Error> {
        self.starts.fetch_add(1, Ordering::SeqCst);
        if self.refuses {
            return Err(kvm::Error::Coalesce {
                at: IoAddress::Pio(0x3f8),
                len: 1,
                source: std::io::ErrorKind::Unsupported.into(),
            });
        }
        self.ring.lock().unwrap().registered = true;
        Ok(Box::new(Registration {
            ring: Arc::clone(&self.ring),
            late: Arc::clone(&self.late),
        }))
    }

    fn drain(&self, each: &mut dyn FnMut(u8)) {
        let bytes = std::mem::take(&mut self.ring.lock().unwrap().bytes);
        bytes.into_iter().for_each(each);
    }
}

impl Kernel {
    fn gathers(&self) -> bool {
        self.ring.lock().unwrap().registered
    }

    fn starts(&self) -> usize {
        self.starts.load(Ordering::SeqCst)
    }
}

struct Bench {
    kernel: Arc<Kernel>,
    serial: Option<Serial>,
    device: Arc<dyn BusDevice>,
    interrupts: Arc<AtomicUsize>,
    output: Output,
    captured: Captured,
}

impl Bench {
    fn new(kernel: Kernel) -> Self {
        let kernel = Arc::new(kernel);
        let (output, captured) = Output::capture();
        let interrupts = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&interrupts);
        let interrupt = move || {
            counter.fetch_add(1, Ordering::SeqCst);
        };
        let gather = Arc::clone(&kernel) as Arc<dyn Gather>;
        let serial = Serial::start(interrupt, None, Some(output.clone()), Some(gather)).unwrap();
        Bench {
            kernel,
            device: serial.device(),
            serial: Some(serial),
            interrupts,
            output,
            captured,
        }
    }

    /// One whose guest polls, and whose kernel gathers.
    fn gathering() -> Self {
        let bench = Bench::new(Kernel::default());
        bench.poll(&[b'.'; 64]);
        bench.wait("gathering", || bench.kernel.gathers());
        bench
    }

    fn read(&self, register: u8) -> u8 {
        let mut data = [0x55];
        self.device.read(register.into(), &mut data);
        data[0]
    }

    fn write(&self, register: u8, value: u8) {
        assert_eq!(self.device.write(register.into(), &[value]), Action::None);
    }

    /// A byte that the guest sends. Tells whether that was an exit.
    fn send(&self, byte: u8) -> bool {
        let mut ring = self.kernel.ring.lock().unwrap();
        if ring.registered {
            ring.bytes.push(byte);
            return false;
        }
        drop(ring);
        self.write(DATA, byte);
        true
    }

    /// Sends as Linux does on a port that nobody has opened. Returns how many bytes were exits.
    fn poll(&self, text: &[u8]) -> usize {
        let exits = text.iter().filter(|byte| {
            assert_eq!(self.read(LSR) & 0x60, 0x60);
            self.send(**byte)
        });
        exits.count()
    }

    fn wait(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "{what} did not happen");
            std::thread::yield_now();
        }
    }

    /// Everything that was sent.
    fn finish(mut self) -> Vec<u8> {
        drop(self.serial.take());
        assert!(self.output.finish(Duration::from_secs(10)));
        self.captured.bytes()
    }
}

fn text(len: usize) -> Vec<u8> {
    (0..=255).cycle().take(len).collect()
}

#[test]
fn a_guest_that_polls_is_gathered_and_every_byte_arrives_in_order() {
    let bench = Bench::new(Kernel::default());
    let text = text(20_000);
    let (first, rest) = text.split_at(64);
    assert_eq!(bench.poll(first), 64);
    bench.wait("gathering", || bench.kernel.gathers());
    assert_eq!(bench.poll(rest), 0);
    assert_eq!(bench.finish(), text);
}

#[test]
fn a_guest_that_never_looks_is_never_gathered() {
    let bench = Bench::new(Kernel::default());
    let text = text(10_000);
    text.iter().for_each(|byte| bench.write(DATA, *byte));
    assert!(
        bench
            .serial
            .as_ref()
            .unwrap()
            .port
            .lock()
            .gatherer
            .is_none()
    );
    assert_eq!(bench.kernel.starts(), 0);
    assert_eq!(bench.finish(), text);
}

#[test]
fn bytes_by_exit_because_the_ring_is_full_do_not_overtake_what_is_in_it() {
    let bench = Bench::gathering();
    let text = text(20_000);
    for (index, byte) in text.iter().enumerate() {
        if index % 7 == 0 {
            bench.read(LSR);
        }
        if index % 5 == 0 {
            bench.write(DATA, *byte);
        } else {
            bench.send(*byte);
        }
    }
    assert_eq!(bench.finish()[64..], text);
}

#[test]
fn the_last_bytes_are_seen_though_the_guest_does_nothing_more() {
    let bench = Bench::gathering();
    bench.send(b'#');
    bench.send(b' ');
    bench.wait("the prompt", || bench.captured.bytes().ends_with(b"# "));
}

#[test]
fn silence_ends_gathering_and_a_guest_that_goes_on_is_gathered_again() {
    let bench = Bench::gathering();
    bench.wait("the end", || !bench.kernel.gathers());
    assert_eq!(bench.poll(&[b'x'; 64]), 64);
    bench.wait("gathering", || bench.kernel.gathers());
    assert_eq!(bench.kernel.starts(), 2);
}

/// Sends as a driver does from its interrupt handler, which looks again before it is left.
fn send_by_interrupts(bench: &Bench, text: &[u8]) {
    for burst in text.chunks(16) {
        bench.read(IIR);
        for byte in burst {
            bench.send(*byte);
        }
    }
    bench.read(IIR);
}

#[test]
fn a_guest_that_looks_again_in_its_interrupt_handler_is_gathered() {
    let bench = Bench::new(Kernel::default());
    bench.write(IER, THRE_INTERRUPT);
    let text = text(10_000);
    let (first, rest) = text.split_at(64);
    send_by_interrupts(&bench, first);
    bench.wait("gathering", || bench.kernel.gathers());
    send_by_interrupts(&bench, rest);
    assert_eq!(bench.finish(), text);
}

#[test]
fn a_guest_that_waits_for_its_interrupt_gets_it_and_is_no_longer_gathered() {
    let bench = Bench::gathering();
    bench.write(IER, THRE_INTERRUPT);
    // As if it had sent nothing for a while.
    bench.serial.as_ref().unwrap().port.lock().habit.take_sent();
    bench.read(IIR);
    let interrupts = || bench.interrupts.load(Ordering::SeqCst);
    let before = interrupts();
    assert!(!bench.send(b'x'));
    bench.wait("the interrupt", || interrupts() > before);
    bench.wait("the end", || !bench.kernel.gathers());
    assert_eq!(bench.poll(&[b'x'; 127]), 127);
    assert_eq!(bench.kernel.starts(), 1);
}

#[test]
fn a_byte_that_gets_into_the_ring_while_gathering_ends_interrupts() {
    let bench = Bench::gathering();
    let mut late = bench.kernel.late.lock().unwrap();
    bench.write(MCR, LOOPBACK);
    bench.write(MCR, 0);
    bench.write(IER, THRE_INTERRUPT);
    bench.read(IIR);
    let interrupts = || bench.interrupts.load(Ordering::SeqCst);
    let before = interrupts();
    late.push(b'x');
    drop(late);
    bench.wait("the interrupt", || interrupts() > before);
    assert!(!bench.kernel.gathers());
    assert_eq!(bench.finish().last(), Some(&b'x'));
}

#[test]
fn a_gathered_divisor_is_the_divisor() {
    let bench = Bench::gathering();
    let mut late = bench.kernel.late.lock().unwrap();
    bench.write(LCR, DIVISOR_LATCH);
    late.push(0x7b);
    drop(late);
    bench.wait("the end", || !bench.kernel.gathers());
    assert_eq!(bench.read(DATA), 0x7b);
    assert_eq!(bench.finish(), [b'.'; 64]);
}

#[test]
fn a_vcpu_that_is_about_to_hold_leaves_nothing_in_the_ring() {
    let bench = Bench::gathering();
    bench.send(b'x');
    bench.device.settle();
    assert!(bench.kernel.ring.lock().unwrap().bytes.is_empty());
    assert_eq!(bench.finish().last(), Some(&b'x'));
}

#[test]
fn the_end_of_the_port_takes_out_what_is_in_the_ring_and_ends_gathering() {
    let bench = Bench::gathering();
    let kernel = Arc::clone(&bench.kernel);
    bench.send(b'x');
    assert_eq!(bench.finish().last(), Some(&b'x'));
    assert!(!kernel.gathers());
}

#[test]
fn a_kernel_that_refuses_is_not_asked_again() {
    let bench = Bench::new(Kernel {
        refuses: true,
        ..Kernel::default()
    });
    let text = text(10_000);
    assert_eq!(bench.poll(&text), 10_000);
    bench.wait("the refusal", || bench.kernel.starts() > 0);
    assert_eq!(bench.poll(&text), 10_000);
    assert_eq!(bench.kernel.starts(), 1);
    assert_eq!(bench.finish(), [text.clone(), text].concat());
}

#[test]
fn a_guest_that_changes_its_habits_for_ever_is_gathered_ever_less_often() {
    let bench = Bench::new(Kernel::default());
    for _ in 0..2_000 {
        bench.poll(&[b'x'; 64]);
        bench.write(LCR, DIVISOR_LATCH);
        bench.write(LCR, 0);
    }
    // 64 bytes in a row are never enough for the second time.
    assert!(bench.kernel.starts() <= 1);
    assert_eq!(bench.finish(), [b'x'; 128_000]);
}
