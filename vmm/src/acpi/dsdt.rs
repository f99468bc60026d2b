//! The devices, as bytecode: what the guest can't find by asking a bus.
//!
//! In ASL, with one device of each kind:
//!
//! ```text
//!  Name (_S5, Package () { 5 })
//!  Scope (_SB) {
//!      Device (C000) { Name (_HID, "ACPI0007") Name (_UID, 0) }                  processor
//!      Device (VR00) { Name (_HID, "LNRO0005") Name (_UID, 0) Name (_CRS, …) }   virtio-mmio
//!      Device (PCI0) { Name (_HID, EisaId ("PNP0A08")) … }                       PCI host bridge
//!      Device (MCFG) { Name (_HID, EisaId ("PNP0C02")) … }                       its ECAM window
//!      Device (COM1) { Name (_HID, EisaId ("PNP0501")) … }                       serial port
//!      Device (RTC0) { Name (_HID, EisaId ("PNP0B00")) … }                       CMOS clock
//!      Device (PNIC) { Name (_HID, "QEMU0001") … }                               pvpanic
//!      Device (PWRB) { Name (_HID, EisaId ("PNP0C0C")) }                         power button
//!      Device (GED0) { Name (_HID, "ACPI0013") Name (_CRS, …) Method (_EVT, 1) {…} }
//!  }
//! ```

use super::{AcpiInfo, Error};
use crate::arch::layout::{self, Window};
use crate::legacy::pm;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Arg, Device, EISAName, Equal, Field, FieldAccessType,
    FieldEntry, FieldLockRule, FieldUpdateRule, IO, If, Interrupt, Local, Memory32Fixed, Method,
    Name, Notify, OpRegion, OpRegionSpace, Package, Path, ResourceTemplate, Return, Scope, Store,
    ZERO,
};
use acpi_tables::{Aml, AmlSink};
use std::ops::Range;

/// Processors are `C000` to `CFFF`.
const MAX_CPUS: u32 = 0x1000;
/// What a Notify says when a button was pressed (5.6.6, table for power button devices).
const BUTTON_PRESSED: u8 = 0x80;
/// `_STA`: present, enabled, shown, working (6.3.7).
const WORKING: u8 = 0xf;

/// The bytecode without the table's header.
pub(super) fn body(info: &AcpiInfo<'_>) -> Result<Vec<u8>, Error> {
    if info.cpus > MAX_CPUS {
        return Err(Error::TooManyCpus {
            count: info.cpus,
            limit: MAX_CPUS,
        });
    }
    let count = info.virtio_mmio.len();
    if count > layout::VIRTIO_MMIO_MAX {
        return Err(Error::TooManyDevices {
            count,
            limit: layout::VIRTIO_MMIO_MAX,
        });
    }
    let mut devices = Code::default();
    for cpu in 0..info.cpus {
        devices.processor(cpu);
    }
    for (index, window) in info.virtio_mmio.iter().enumerate() {
        let shared = info
            .virtio_mmio
            .iter()
            .filter(|other| other.gsi == window.gsi)
            .count()
            > 1;
        devices.virtio_mmio(index, window, shared)?;
    }
    if info.pci {
        devices.pci();
    }
    if info.serial {
        devices.serial();
    }
    if info.rtc {
        devices.rtc();
    }
    devices.pvpanic();
    devices.power_button();

    let mut body = Code::default();
    // The first value goes to the sleep control register (7.4.2); the other three are reserved. A
    // package of one integer would be taken for the old, packed form.
    let sleep_type = pm::SLEEP_TYPE_S5;
    body.add(&Name::new(
        Path::new("_S5_"),
        &Package::new(vec![&sleep_type, &ZERO, &ZERO, &ZERO]),
    ));
    body.add(&Scope::new(Path::new("_SB_"), vec![&devices]));
    Ok(body.0)
}

/// Bytecode that has been made already.
#[derive(Default)]
struct Code(Vec<u8>);

impl Aml for Code {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

impl Code {
    fn add(&mut self, object: &dyn Aml) {
        object.to_aml_bytes(&mut self.0);
    }

    fn processor(&mut self, cpu: u32) {
        self.add(&Device::new(
            Path::new(&format!("C{cpu:03X}")),
            vec![&name("_HID", &"ACPI0007"), &name("_UID", &cpu)],
        ));
    }

    fn virtio_mmio(&mut self, index: usize, window: &Window, shared: bool) -> Result<(), Error> {
        let Window { base, size, gsi } = *window;
        let outside = Error::Window { base, size };
        let (Ok(base), Ok(size)) = (u32::try_from(base), u32::try_from(size)) else {
            return Err(outside);
        };
        if base.checked_add(size).is_none() {
            return Err(outside);
        }
        self.add(&Device::new(
            Path::new(&format!("VR{index:02X}")),
            vec![
                &name("_HID", &"LNRO0005"),
                &name("_UID", &index),
                // Device DMA and CPU caches are coherent.
                &name("_CCA", &1u8),
                &name(
                    "_CRS",
                    &ResourceTemplate::new(vec![
                        &Memory32Fixed::new(true, base, size),
                        &edge(gsi, shared),
                    ]),
                ),
            ],
        ));
        Ok(())
    }

    /// The host bridge, and that nothing else is where configuration space is: without that,
    /// Linux does not trust the MCFG table.
    fn pci(&mut self) {
        let windows = layout::PCI_WINDOW;
        self.add(&Device::new(
            Path::new("PCI0"),
            vec![
                &name("_HID", &EISAName::new("PNP0A08")),
                &name("_CID", &EISAName::new("PNP0A03")),
                &name("_UID", &0u8),
                &name("_SEG", &0u8),
                &name("_BBN", &0u8),
                &name("_CCA", &1u8),
                &name(
                    "_CRS",
                    &ResourceTemplate::new(vec![
                        &AddressSpace::new_bus_number(0u16, 0),
                        &ports(&(layout::PCI_ADDRESS_PORT.start..layout::PCI_DATA_PORTS.end)),
                        &AddressSpace::new_memory(
                            AddressSpaceCacheable::NotCacheable,
                            true,
                            low(windows.start),
                            low(windows.end - 1),
                            None,
                        ),
                    ]),
                ),
                // All that the guest asks to control it may: there is nothing that firmware would.
                &Method::new(Path::new("_OSC"), 4, false, vec![&Return::new(&Arg(3))]),
            ],
        ));
        let ecam = layout::PCI_ECAM;
        self.add(&Device::new(
            Path::new("MCFG"),
            vec![
                &name("_HID", &EISAName::new("PNP0C02")),
                &name("_UID", &0u8),
                &name(
                    "_CRS",
                    &ResourceTemplate::new(vec![&Memory32Fixed::new(
                        true,
                        low(ecam.start),
                        low(ecam.end - ecam.start),
                    )]),
                ),
            ],
        ));
    }

    fn serial(&mut self) {
        self.add(&Device::new(
            Path::new("COM1"),
            vec![
                &name("_HID", &EISAName::new("PNP0501")),
                &name("_UID", &0u8),
                &name(
                    "_CRS",
                    &ResourceTemplate::new(vec![
                        &ports(&layout::SERIAL_PORTS),
                        &edge(layout::SERIAL_GSI, false),
                    ]),
                ),
            ],
        ));
    }

    /// Without an interrupt: the clock has no alarms.
    fn rtc(&mut self) {
        self.add(&Device::new(
            Path::new("RTC0"),
            vec![
                &name("_HID", &EISAName::new("PNP0B00")),
                &name(
                    "_CRS",
                    &ResourceTemplate::new(vec![&ports(&layout::RTC_PORTS)]),
                ),
            ],
        ));
    }

    fn pvpanic(&mut self) {
        self.add(&Device::new(
            Path::new("PNIC"),
            vec![
                &name("_HID", &"QEMU0001"),
                &name("_STA", &WORKING),
                &name(
                    "_CRS",
                    &ResourceTemplate::new(vec![&ports(&layout::PVPANIC_PORT)]),
                ),
            ],
        ));
    }

    /// The button, and the device whose interrupt tells that it was pressed (5.6.9).
    fn power_button(&mut self) {
        self.add(&Device::new(
            Path::new("PWRB"),
            vec![
                &name("_HID", &EISAName::new("PNP0C0C")),
                &name("_UID", &0u8),
            ],
        ));
        let events = layout::PM_PORTS.start + pm::EVENTS;
        self.add(&Device::new(
            Path::new("GED0"),
            vec![
                &name("_HID", &"ACPI0013"),
                &name("_UID", &0u8),
                &name(
                    "_CRS",
                    &ResourceTemplate::new(vec![&edge(layout::GED_GSI, false)]),
                ),
                &OpRegion::new(Path::new("EVTR"), OpRegionSpace::SystemIO, &events, &1u8),
                &Field::new(
                    Path::new("EVTR"),
                    FieldAccessType::Byte,
                    FieldLockRule::NoLock,
                    FieldUpdateRule::WriteAsZeroes,
                    vec![FieldEntry::Named(*b"EVTS", 8)],
                ),
                &Method::new(
                    Path::new("_EVT"),
                    1,
                    // Reading clears the register, so two runs must not share one reading.
                    true,
                    vec![&If::new(
                        &Equal::new(&Arg(0), &layout::GED_GSI),
                        vec![
                            &Store::new(&Local(0), &Path::new("EVTS")),
                            &And::new(&Local(0), &Local(0), &pm::EVENT_POWER_BUTTON),
                            &If::new(
                                &Local(0),
                                vec![&Notify::new(&Path::new("\\_SB_.PWRB"), &BUTTON_PRESSED)],
                            ),
                        ],
                    )],
                ),
            ],
        ));
    }
}

fn name(path: &str, value: &dyn Aml) -> Name {
    Name::new(Path::new(path), value)
}

/// A number of the table of addresses; those of PCI have 32 bits.
fn low(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(u32::MAX)
}

/// An interrupt as irqfd makes it: an edge, active high.
fn edge(gsi: u32, shared: bool) -> Interrupt {
    Interrupt::new(true, true, false, shared, gsi)
}

/// Ports of the table of addresses; all of them fit the descriptor.
fn ports(range: &Range<u64>) -> IO {
    let first = u16::try_from(range.start).unwrap_or(u16::MAX);
    let length = u8::try_from(range.end - range.start).unwrap_or(u8::MAX);
    IO::new(first, first, 1, length)
}
