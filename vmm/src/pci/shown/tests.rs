use super::*;
use crate::bus::Action;
use crate::pci::tests::Machine;
use std::ops::Range;
use std::sync::atomic::AtomicUsize;
use vm_memory::GuestMemoryBackend;

/// A console's window to BAR 0: the registers behind its header.
const WINDOW: Range<u16> = 0x94..0xa4;
const WINDOW_OFFSET: u16 = 0x98;
const WINDOW_LENGTH: u16 = 0x9c;
const WINDOW_DATA: u16 = 0xa0;
/// Function 0 of the first device.
const FIRST: u8 = 1 << 3;

struct Bench {
    machine: Machine,
    memory: Arc<GuestMemory>,
    hides: Arc<AtomicUsize>,
}

impl Bench {
    fn new(functions: usize) -> Self {
        let memory = Shown::memory().unwrap();
        let hides = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&hides);
        let hide = Box::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let shown = Shown::new(Arc::clone(&memory), hide);
        Bench {
            machine: Machine::shown(functions, true, Some(shown)),
            memory,
            hides,
        }
    }

    /// What the guest reads of a function.
    fn seen(&self, slot: u8) -> [u8; 0x1000] {
        let mut page = [0; 0x1000];
        let at = GuestAddress(address(slot, 0));
        self.memory.read_slice(&mut page, at).unwrap();
        page
    }

    /// What it reads by exits: the ports reach 256 bytes.
    fn asked(&self, slot: u8) -> [u8; 0x1000] {
        let mut page = [0; 0x1000];
        for (offset, word) in (0..).step_by(4).zip(page.chunks_exact_mut(4)) {
            if offset < 0x100 {
                self.select(slot, offset);
                self.machine.pio.read(0xcfc, word);
            } else {
                self.machine.mmio.read(address(slot, offset), word);
            }
        }
        page
    }

    fn select(&self, slot: u8, offset: u16) {
        let register = 1 << 31 | u32::from(slot) << 8 | u32::from(offset & 0xfc);
        let written = self.machine.pio.write(0xcf8, &register.to_le_bytes());
        assert_eq!(written, Action::None);
    }

    fn write(&self, by_port: bool, slot: u8, offset: u16, data: &[u8]) {
        let written = if by_port && offset < 0x100 {
            self.select(slot, offset);
            self.machine.pio.write(0xcfc + u64::from(offset & 3), data)
        } else {
            self.machine.mmio.write(address(slot, offset), data)
        };
        assert_eq!(written, Action::None);
    }

    fn check_all(&self) {
        for slot in 0..=u8::MAX {
            assert!(self.seen(slot) == self.asked(slot), "{slot:#x}");
        }
    }

    fn hides(&self) -> usize {
        self.hides.load(Ordering::SeqCst)
    }
}

/// A linear congruential generator: the same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[test]
fn memory_covers_ecam_and_shows_functions_and_ones_where_there_are_none() {
    let bench = Bench::new(33);

    let last = GuestAddress(PCI_ECAM.end - 1);
    assert!(bench.memory.address_in_range(last));
    assert_eq!(bench.seen(FIRST)[..4], [0xf4, 0x1a, 0x43, 0x10]);
    assert_eq!(bench.seen(FIRST)[0x0e], 0x80, "more functions");
    assert_eq!(bench.seen(3 << 3 | 1), [0xff; 0x1000]);
    bench.check_all();
}

#[test]
fn memory_shows_what_the_ports_say_after_any_writes_but_to_the_window() {
    for functions in [1, 3, 33] {
        let bench = Bench::new(functions);
        let mut random = Random(functions as u64);
        for round in 0..300 {
            let slot = random.below(5 * 8) as u8;
            let offset = random.below(if round % 8 == 0 { 0x1000 } else { 0x100 }) as u16;
            let len = [1, 2, 4, 8][random.below(4) as usize];
            if offset < WINDOW.end && offset + len > WINDOW.start {
                continue;
            }
            let data = random.below(1 << 31).to_le_bytes().map(|byte| byte ^ 0x80);
            let by_port = random.below(2) == 0;

            bench.write(by_port, slot, offset, &data[..usize::from(len)]);

            let same = bench.seen(slot) == bench.asked(slot);
            assert!(same, "{slot:#x}: {offset:#x}, {len} bytes");
        }
        bench.check_all();
        assert_eq!(bench.hides(), 0);
    }
}

#[test]
fn sizing_a_bar_shows_its_mask_and_then_its_address() {
    let bench = Bench::new(1);
    let before = bench.seen(FIRST);

    bench.write(false, FIRST, 0x10, &[0xff; 4]);
    assert_eq!(bench.seen(FIRST)[0x10..0x14], [0x04, 0x00, 0xff, 0xff]);
    bench.write(false, FIRST, 0x10, &before[0x10..0x14]);
    assert_eq!(bench.seen(FIRST), before);
}

#[test]
fn any_write_to_the_window_takes_the_memory_away_once_for_all() {
    let cases = [
        (WINDOW.start - 3, 4),
        (WINDOW.start, 1),
        (WINDOW_OFFSET, 4),
        (WINDOW.end - 1, 1),
    ];
    for (offset, len) in cases {
        let bench = Bench::new(2);

        bench.write(offset % 4 == 0, FIRST, offset, &vec![0; len]);

        assert_eq!(bench.hides(), 1, "{offset:#x}");
        bench.write(false, FIRST + 8, WINDOW.start, &[1]);
        assert_eq!(bench.hides(), 1, "{offset:#x}");
    }
}

#[test]
fn window_shows_the_bar_once_the_memory_is_gone() {
    let bench = Bench::new(1);
    assert_eq!(bench.seen(FIRST)[usize::from(WINDOW_DATA)], 0xff);

    // The number of queues: 2 bytes.
    bench.write(false, FIRST, WINDOW_OFFSET, &[0x12, 0, 0, 0]);
    bench.write(false, FIRST, WINDOW_LENGTH, &[2, 0, 0, 0]);

    assert_eq!(bench.hides(), 1);
    let mut data = [0; 2];
    let at = address(FIRST, WINDOW_DATA);
    bench.machine.mmio.read(at, &mut data);
    assert_eq!(data, [2, 0]);
}
