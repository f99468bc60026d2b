//! Every address and interrupt line of the machine, each with its reason.
//!
//! ```text
//!  0x0000_0000  RAM; the loader's scratch lies below 0x9_fc00
//!  0x000e_0000  ACPI tables (RAM that the memory map reserves)
//!  0x000f_fff0  the reset vector (likewise)
//!  0x0010_0000  RAM: kernel, initrd
//!  0xc000_0000  end of low RAM, start of the hole
//!  0xc000_0000  BARs of PCI functions
//!  0xd000_0000  virtio-mmio windows, 4 KiB each
//!  0xe000_0000  PCI configuration space (ECAM)
//!  0xfec0_0000  I/O APIC          } in KVM
//!  0xfee0_0000  local APICs       }
//!  0xfffb_c000  KVM's own pages (identity map, TSS)
//!  0x1_0000_0000  the rest of RAM
//! ```

use std::ops::Range;

/// RAM below ends here at the latest. One GiB is what PCI windows will want; a kernel with 1 GiB
/// pages can still map all of low RAM with three of them.
pub const MMIO_HOLE_START: u64 = 0xc000_0000;
/// RAM goes on here.
pub const HIGH_RAM_START: u64 = 0x1_0000_0000;

/// Where firmware tables are looked for on a PC, and nothing else wants to be.
pub const ACPI_TABLES: Range<u64> = 0xe_0000..0xf_f000;
/// F000:FFF0, where a PC's firmware begins; the page is the last of what belongs to firmware.
pub const RESET_VECTOR: u64 = 0xf_fff0;
/// There ends what belongs to firmware.
pub const FIRMWARE_END: u64 = 0x10_0000;

/// The first virtio-mmio window, well inside of the hole, where no chipset has anything.
pub const VIRTIO_MMIO_BASE: u64 = 0xd000_0000;
/// A page each: a window can then be mapped, and a doorbell trapped, for itself.
pub const VIRTIO_MMIO_SIZE: u64 = 0x1000;
/// As many windows as have a name of two hexadecimal digits in the ACPI namespace.
pub const VIRTIO_MMIO_MAX: usize = 256;

/// What the PCI host bridge passes on to the bus: BARs lie there, or nowhere. Below 4 GiB though
/// they have 64 bits, for then a kernel without 64-bit resources can use them, and a page table
/// that maps low memory reaches them.
pub const PCI_WINDOW: Range<u64> = MMIO_HOLE_START..VIRTIO_MMIO_BASE;
/// Configuration space of the one bus, a page for each function.
pub const PCI_ECAM: Range<u64> = 0xe000_0000..0xe010_0000;
/// `CONFIG_ADDRESS`: double words only, so that the reset port may lie in it.
pub const PCI_ADDRESS_PORT: Range<u64> = 0xcf8..0xcf9;
/// `CONFIG_DATA`.
pub const PCI_DATA_PORTS: Range<u64> = 0xcfc..0xd00;
/// Devices on the bus beside the host bridge.
pub const PCI_DEVICES: usize = 31;
/// A device has at most 8 functions.
pub const PCI_FUNCTIONS_MAX: usize = 8 * PCI_DEVICES;

/// Where Intel's chips, KVM's default and so every kernel have the I/O APIC.
pub const IO_APIC_BASE: u32 = 0xfec0_0000;
/// The local APIC at its power-on address.
pub const LOCAL_APIC_BASE: u32 = 0xfee0_0000;

/// COM1, where `ttyS0` is without any description.
pub const SERIAL_PORTS: Range<u64> = 0x3f8..0x400;
/// The first of them, where bytes are sent.
pub const SERIAL_DATA_PORT: u16 = 0x3f8;
/// COM1's line on a PC, which kernels without ACPI know.
pub const SERIAL_GSI: u32 = 4;

/// The keyboard controller: data at the first port, status and commands at the last. Port 0x61 in
/// between is the timer's gate, which KVM answers itself.
pub const I8042_PORTS: Range<u64> = 0x60..0x65;
/// System control port A: A20 gate and fast reset.
pub const FAST_RESET_PORT: Range<u64> = 0x92..0x93;
/// CMOS index and data.
pub const RTC_PORTS: Range<u64> = 0x70..0x72;
/// Where QEMU has pvpanic, and older drivers expect it.
pub const PVPANIC_PORT: Range<u64> = 0x505..0x506;
/// Power management: see `legacy::pm` for the registers. No chipset decodes this.
pub const PM_PORTS: Range<u64> = 0x600..0x604;
/// The chipset's reset control register, as ACPI's reset register too: one reset port serves both.
pub const RESET_PORT: Range<u64> = 0xcf9..0xcfa;

/// The line of the generic event device: ACPI's traditional one (the SCI).
pub const GED_GSI: u32 = 9;

/// Lines for virtio devices, best first. Those below 16 reach the 8259 as well, so they work in
/// a guest without ACPI. Left out: 0 timer, 1 keyboard, 2 cascade, 3 and 4 serial, 8 clock,
/// 9 event device, 13 floating point.
const VIRTIO_GSIS: [u32; 16] = [5, 6, 7, 10, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23];
/// Devices beyond the lines share these, and only these: the first ones stay for themselves.
const SHARED_GSIS: Range<usize> = 8..16;

/// Where a virtio-mmio device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first address.
    pub base: u64,
    /// The number of bytes.
    pub size: u64,
    /// The interrupt line; edge triggered, active high.
    pub gsi: u32,
}

/// The window of the virtio-mmio device `index`; there are [`VIRTIO_MMIO_MAX`] of them.
pub fn window(index: usize) -> Option<Window> {
    if index >= VIRTIO_MMIO_MAX {
        return None;
    }
    let line = if index < VIRTIO_GSIS.len() {
        index
    } else {
        SHARED_GSIS.start + (index - VIRTIO_GSIS.len()) % SHARED_GSIS.len()
    };
    Some(Window {
        base: VIRTIO_MMIO_BASE + VIRTIO_MMIO_SIZE * u64::try_from(index).ok()?,
        size: VIRTIO_MMIO_SIZE,
        gsi: *VIRTIO_GSIS.get(line)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// KVM's I/O APIC has so many.
    const IO_APIC_PINS: u32 = 24;

    #[test]
    fn windows_are_disjoint_and_inside_of_the_hole() {
        let windows: Vec<_> = (0..).map_while(window).collect();
        assert_eq!(windows.len(), VIRTIO_MMIO_MAX);
        for pair in windows.windows(2) {
            assert_eq!(pair[0].base + pair[0].size, pair[1].base);
        }
        let last = windows[VIRTIO_MMIO_MAX - 1];
        assert!(windows[0].base >= MMIO_HOLE_START);
        assert!(last.base + last.size <= u64::from(IO_APIC_BASE));
        assert_eq!(window(usize::MAX), None);
    }

    #[test]
    fn pci_has_room_for_every_function_beside_everything_else() {
        let bars = PCI_FUNCTIONS_MAX as u64 * virtio::transport::pci::Pci::BAR_SIZE;
        assert!(bars <= PCI_WINDOW.end - PCI_WINDOW.start);
        assert_eq!(PCI_ECAM.end - PCI_ECAM.start, 1 << 20);
        const { assert!(PCI_WINDOW.start >= MMIO_HOLE_START && PCI_WINDOW.end <= VIRTIO_MMIO_BASE) };
        let windows = VIRTIO_MMIO_SIZE * VIRTIO_MMIO_MAX as u64;
        assert!(VIRTIO_MMIO_BASE + windows <= PCI_ECAM.start);
        assert!(PCI_ECAM.end <= u64::from(IO_APIC_BASE));
    }

    #[test]
    fn the_first_sixteen_devices_have_a_line_for_themselves() {
        let lines: HashSet<_> = (0..VIRTIO_MMIO_MAX)
            .filter_map(window)
            .map(|w| w.gsi)
            .collect();
        let first: HashSet<_> = (0..16).filter_map(window).map(|w| w.gsi).collect();
        assert_eq!(first.len(), 16);
        assert_eq!(lines, first);
    }

    #[test]
    fn no_device_gets_a_line_that_the_board_uses_or_that_does_not_exist() {
        for gsi in (0..VIRTIO_MMIO_MAX).filter_map(window).map(|w| w.gsi) {
            assert!(gsi < IO_APIC_PINS);
            assert!(
                ![0, 1, 2, 3, SERIAL_GSI, 8, GED_GSI, 13].contains(&gsi),
                "{gsi}"
            );
        }
    }

    #[test]
    fn devices_seventeen_and_up_share_none_of_the_lines_that_work_without_acpi() {
        for index in 16..VIRTIO_MMIO_MAX {
            assert!(window(index).unwrap().gsi >= 16);
        }
    }
}
