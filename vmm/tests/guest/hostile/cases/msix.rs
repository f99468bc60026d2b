//! MSI-X (PCI 3.0, 6.8.2; virtio 1.2, 4.1.5.1): what a vector may say, and what becomes of it when
//! it is masked.
//!
//! Interrupts arrive in the kernel: the vectors say what one of its own inter-processor interrupts
//! says, which it counts, and takes for a wake-up with nothing to do.

use super::{Case, case, ignored};
use crate::hostile::rig::{RUNNING, Rig};
use crate::hostile::target::{MEMORY, MEMORY_LEN};
use crate::hostile::transport::Pci;
use crate::support::read_to_string;
use vmm::virtio::transport::pci::common::register::{
    CONFIG_MSIX_VECTOR, QUEUE_MSIX_VECTOR, QUEUE_SELECT,
};

const ENABLE: u16 = 1 << 15;
const MASK: u16 = 1 << 14;
/// The local APIC of the first processor.
const APIC: u64 = 0xfee0_0000;
/// RAM that is used for nothing else.
const SPARE: u64 = MEMORY + MEMORY_LEN as u64 - PAGE;
const PAGE: u64 = 4096;

/// An interrupt that the kernel counts.
#[derive(Clone, Copy)]
pub struct Sink {
    pub vector: u32,
    /// What /proc/interrupts calls it.
    name: &'static str,
}

impl Sink {
    /// "Rescheduling interrupts": a lone processor never sends any.
    pub const RESCHEDULE: Sink = Sink {
        vector: 0xfd,
        name: "RES:",
    };
    /// "IRQ work interrupts", which are rare among several processors too.
    pub const WORK: Sink = Sink {
        vector: 0xf6,
        name: "IWI:",
    };

    /// How many there were.
    pub fn count(self) -> u64 {
        let interrupts = read_to_string("/proc/interrupts");
        let line = interrupts
            .lines()
            .find(|line| line.trim().starts_with(self.name));
        let numbers = line.expect(self.name).split_whitespace().skip(1);
        numbers.map_while(|number| number.parse::<u64>().ok()).sum()
    }
}

const SINK: Sink = Sink::RESCHEDULE;

/// MSI-X in use, until this is dropped.
pub struct Listening<'a>(&'a Pci);

impl Listening<'_> {
    /// Has the queue and the configuration interrupt by vector 0.
    pub fn to(pci: &Pci, sink: Sink) -> Listening<'_> {
        pci.msix.program(0, APIC, sink.vector, false);
        pci.function.write(pci.msix.at + 2, ENABLE);
        pci.common.write(CONFIG_MSIX_VECTOR, 0u16);
        pci.common.write(QUEUE_SELECT, 0u16);
        pci.common.write(QUEUE_MSIX_VECTOR, 0u16);
        Listening(pci)
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.0.function.write(self.0.msix.at + 2, 0u16);
        for vector in 0..self.0.msix.vectors {
            self.0.msix.program(vector, 0, 0, true);
        }
    }
}

pub fn cases() -> Vec<Case> {
    let mut cases = masks();
    cases.extend(messages());
    cases.extend(numbers());
    cases.extend(table());
    cases
}

/// A case in which the device interrupts.
fn heard(name: &str, run: impl Fn(&mut Rig) + 'static) -> Case {
    case(name, move |rig| {
        let registers = rig.registers.clone();
        let _listening = Listening::to(registers.pci(), SINK);
        run(rig);
    })
}

/// A request of a driver that wants to be interrupted.
pub fn request(rig: &mut Rig) {
    rig.main().enable_interrupts();
    rig.works();
}

/// A request, and one interrupt for it.
fn interrupts(rig: &mut Rig) {
    let before = SINK.count();
    request(rig);
    rig.until("an interrupt", |_| {
        (SINK.count() == before + 1).then_some(())
    });
}

/// A request without one.
fn is_silent(rig: &mut Rig) {
    let before = SINK.count();
    request(rig);
    assert_eq!(SINK.count(), before, "interrupts");
}

/// The device raises its vector some time after the request is used.
fn is_pending(rig: &mut Rig) {
    rig.until("a pending vector", |rig| {
        rig.pci().msix.is_pending(0).then_some(())
    });
}

fn control(rig: &Rig, bits: u16) {
    rig.pci().function.write(rig.pci().msix.at + 2, bits);
}

fn masks() -> Vec<Case> {
    vec![
        heard("a vector that is not masked, which interrupts", |rig| {
            for _ in 0..20 {
                interrupts(rig);
            }
        }),
        heard(
            "a masked vector is pending, and sent once when it is unmasked",
            |rig| {
                for _ in 0..5 {
                    rig.pci().msix.mask(0, true);
                    is_silent(rig);
                    is_silent(rig);
                    is_pending(rig);
                    let before = SINK.count();
                    rig.pci().msix.mask(0, false);
                    rig.until("an interrupt", |_| {
                        (SINK.count() == before + 1).then_some(())
                    });
                    assert!(!rig.pci().msix.is_pending(0));
                    interrupts(rig);
                }
            },
        ),
        heard(
            "all vectors are masked, and sent when they are not",
            |rig| {
                control(rig, ENABLE | MASK);
                is_silent(rig);
                is_pending(rig);
                let before = SINK.count();
                control(rig, ENABLE);
                rig.until("an interrupt", |_| {
                    (SINK.count() == before + 1).then_some(())
                });
            },
        ),
        heard("MSI-X is switched off and on", |rig| {
            for _ in 0..10 {
                control(rig, 0);
                is_silent(rig);
                control(rig, MASK);
                is_silent(rig);
                control(rig, ENABLE);
                interrupts(rig);
            }
        }),
        heard("the device says by a vector that it can't go on", |rig| {
            let before = SINK.count();
            rig.main().corrupt();
            rig.kick();
            rig.refuses();
            rig.until("an interrupt", |_| (SINK.count() > before).then_some(()));
        }),
    ]
}

/// Messages that go to no processor.
fn messages() -> Vec<Case> {
    let places = [
        ("nowhere", 0),
        ("to RAM", SPARE),
        ("to the I/O APIC", 0xfec0_0000),
        ("to where no local APIC is", 0xfef0_0000),
        ("to where a local APIC is not yet", 0xfedf_fffc),
        ("beyond 4 GiB", 1 << 32 | APIC),
        ("to the end of the address space", !3),
    ];
    let mut cases: Vec<Case> = places
        .into_iter()
        .map(|(name, address)| {
            heard(&format!("a vector sends {name}"), move |rig| {
                rig.fill(SPARE, 0xa5);
                for data in [SINK.vector, 0, u32::MAX] {
                    rig.pci().msix.program(0, address, data, false);
                    is_silent(rig);
                }
                assert!(rig.is_filled(SPARE, 0xa5));
                rig.pci().msix.program(0, APIC, SINK.vector, false);
                interrupts(rig);
            })
        })
        .collect();
    cases.push(heard("a vector sends to the device itself", |rig| {
        let doorbell = rig.registers.doorbell();
        rig.pci().msix.program(0, doorbell, SINK.vector, false);
        is_silent(rig);
        rig.pci().msix.program(0, APIC, SINK.vector, false);
        interrupts(rig);
    }));
    cases.push(heard("what a vector sends changes 300 times", |rig| {
        for turn in 0..300 {
            let address = [APIC, 0, SPARE][turn % 3];
            rig.pci().msix.program(0, address, SINK.vector, false);
            rig.kick();
        }
        rig.pci().msix.program(0, APIC, SINK.vector, false);
        interrupts(rig);
    }));
    cases
}

fn numbers() -> Vec<Case> {
    vec![heard("vectors that do not exist are chosen", |rig| {
        let vectors = rig.pci().msix.vectors;
        for vector in [vectors, vectors + 1, 0x7ff, 0x800, 0x8000, 0xfffe, 0xffff] {
            let common = &rig.pci().common;
            for field in [CONFIG_MSIX_VECTOR, QUEUE_MSIX_VECTOR] {
                common.write(field, vector);
                assert_eq!(common.read::<u16>(field), 0xffff, "{vector:#x}");
            }
            is_silent(rig);
            rig.pci().common.write(QUEUE_MSIX_VECTOR, 0u16);
            interrupts(rig);
        }
        assert_eq!(rig.status(), RUNNING);
    })]
}

fn table() -> Vec<Case> {
    vec![
        heard("the table is used in widths that it does not have", |rig| {
            let table = &rig.pci().msix.table;
            for offset in 0..32 {
                table.write(offset, u8::MAX);
                table.write(offset, u16::MAX);
                assert_eq!(table.read::<u8>(offset), 0, "{offset:#x}");
                assert_eq!(table.read::<u16>(offset), 0, "{offset:#x}");
                if offset % 4 != 0 {
                    table.write(offset, u32::MAX);
                    assert_eq!(table.get(offset), 0, "{offset:#x}");
                }
                if offset % 8 != 0 {
                    table.write(offset, u64::MAX);
                    assert_eq!(table.read::<u64>(offset), 0, "{offset:#x}");
                }
            }
            interrupts(rig);
        }),
        heard("the table is used behind its end", |rig| {
            let msix = &rig.pci().msix;
            for offset in [u64::from(msix.vectors) * 16, PAGE - 8] {
                msix.table.write(offset, u64::MAX);
                msix.table.set(offset + 4, 0);
                assert_eq!(msix.table.read::<u64>(offset), 0, "{offset:#x}");
            }
            interrupts(rig);
        }),
        heard("pending bits are written", |rig| {
            let pending = &rig.pci().msix.pending;
            for offset in [0, 1, 4, 8, PAGE - 8] {
                pending.write(offset, u8::MAX);
                pending.write(offset, u32::MAX);
                pending.write(offset, u64::MAX);
                assert_eq!(pending.get(offset), 0, "{offset:#x}");
            }
            interrupts(rig);
        }),
        case("the table is full of nonsense", |rig| {
            let msix = &rig.pci().msix;
            for word in 0..u64::from(msix.vectors) * 4 {
                msix.table.set(word * 4, 0xa5a5_a5a5);
            }
            control(rig, ENABLE);
            ignored(rig);
            control(rig, 0);
        }),
    ]
}
