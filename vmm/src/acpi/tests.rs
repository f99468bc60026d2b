use super::*;
use crate::arch::layout;
use crate::memory;
use vm_memory::Bytes;

fn windows(count: usize) -> Vec<Window> {
    (0..count).filter_map(layout::window).collect()
}

fn info(cpus: u32, windows: &[Window]) -> AcpiInfo<'_> {
    AcpiInfo {
        cpus,
        virtio_mmio: windows,
        pci: false,
        serial: true,
        rtc: true,
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// A guest that follows the pointers, and checks each table on the way.
struct Walk {
    base: u64,
    bytes: Vec<u8>,
}

impl Walk {
    fn new(info: &AcpiInfo<'_>, low_end: u64) -> (Self, Tables) {
        let (bytes, tables) = assemble(info, low_end).unwrap();
        (
            Walk {
                base: tables.rsdp.0,
                bytes,
            },
            tables,
        )
    }

    fn table(&self, address: u64, signature: &[u8; 4]) -> &[u8] {
        let start = usize::try_from(address - self.base).unwrap();
        let length = u32_at(&self.bytes, start + 4) as usize;
        let table = &self.bytes[start..start + length];
        assert_eq!(&table[..4], signature);
        assert_eq!(sum(table), 0, "checksum of {signature:?}");
        table
    }

    /// FADT, MADT, DSDT.
    fn tables(&self) -> [&[u8]; 3] {
        let rsdp = &self.bytes[..36];
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        assert_eq!((sum(&rsdp[..20]), sum(rsdp)), (0, 0));
        assert_eq!((rsdp[15], u32_at(rsdp, 20)), (2, 36));
        let xsdt = self.table(u64_at(rsdp, 24), b"XSDT");
        let fadt = self.table(u64_at(xsdt, 36), b"FACP");
        let madt = self.table(u64_at(xsdt, 44), b"APIC");
        let dsdt = self.table(u64_at(fadt, 140), b"DSDT");
        [fadt, madt, dsdt]
    }
}

/// Type, and all bytes, of each entry of a MADT.
fn entries(madt: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut rest = &madt[44..];
    let mut entries = Vec::new();
    while let [kind, length, ..] = *rest {
        let (entry, tail) = rest.split_at(usize::from(length));
        entries.push((kind, entry.to_vec()));
        rest = tail;
    }
    assert!(rest.is_empty());
    entries
}

#[test]
fn checksums_lengths_and_pointers_hold_for_many_shapes() {
    for cpus in [1, 2, 64, 255, 256, 1024, 4096] {
        for count in [0, 1, 17, 256] {
            for (serial, rtc) in [(false, false), (true, false), (true, true)] {
                let windows = windows(count);
                let info = AcpiInfo {
                    cpus,
                    virtio_mmio: &windows,
                    pci: serial,
                    serial,
                    rtc,
                };
                let (walk, tables) = Walk::new(&info, 64 << 20);
                walk.tables();
                let end = tables.rsdp.0 + walk.bytes.len() as u64;
                assert!(tables.reserved.contains(&tables.rsdp.0));
                assert!(end <= tables.reserved.end && tables.reserved.end - end < 4096);
                assert_eq!(tables.reserved.start % 4096, 0);
                assert_eq!(tables.reserved.end % 4096, 0);
            }
        }
    }
}

#[test]
fn a_machine_of_usual_size_has_its_tables_in_the_bios_area() {
    let windows = windows(16);
    let (_, tables) = Walk::new(&info(512, &windows), memory::MINIMUM);
    assert_eq!(tables.rsdp, GuestAddress(0xe_0000));
    assert!(tables.reserved.end <= 0x10_0000);
}

#[test]
fn thousands_of_processors_move_the_tables_to_the_end_of_low_memory() {
    let end = 64 << 20;
    let (_, tables) = Walk::new(&info(4096, &[]), end);
    assert_eq!(tables.reserved.end, end);
    assert!(tables.reserved.start > 0x10_0000);
}

#[test]
fn tables_without_room_are_an_error_with_both_numbers() {
    let error = assemble(&info(4096, &[]), memory::MINIMUM).unwrap_err();
    assert!(
        matches!(
            error,
            Error::NoRoom {
                end: memory::MINIMUM,
                ..
            }
        ),
        "{error}"
    );
    assert!(matches!(
        assemble(&info(1, &[]), 0),
        Err(Error::NoRoom { .. })
    ));
    assert!(matches!(
        assemble(&info(1, &[]), 0xe_0010),
        Err(Error::NoRoom { .. })
    ));
}

#[test]
fn too_many_processors_or_devices_are_errors() {
    let windows = vec![layout::window(0).unwrap(); 257];
    let error = assemble(&info(1, &windows), 1 << 30).unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooManyDevices {
                count: 257,
                limit: 256
            }
        ),
        "{error}"
    );
    let error = assemble(&info(4097, &[]), 1 << 30).unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooManyCpus {
                count: 4097,
                limit: 4096
            }
        ),
        "{error}"
    );
}

#[test]
fn a_window_that_leaves_4_gib_is_an_error() {
    for (base, size) in [
        (1 << 32, 0x1000),
        (0xffff_f000, 0x2000),
        (0, 1 << 32),
        (u64::MAX, 1),
    ] {
        let window = Window { base, size, gsi: 5 };
        let result = assemble(&info(1, &[window]), 1 << 30);
        assert!(matches!(result, Err(Error::Window { .. })), "{base:#x}");
    }
}

#[test]
fn the_fadt_says_what_is_there_and_what_is_not() {
    let shape = |serial, rtc| AcpiInfo {
        cpus: 1,
        virtio_mmio: &[],
        pci: false,
        serial,
        rtc,
    };
    for (serial, rtc, boot, century) in [
        (false, false, 0x24, 0),
        (true, false, 0x25, 0),
        (false, true, 0x04, 0x32),
        (true, true, 0x05, 0x32),
    ] {
        let (walk, _) = Walk::new(&shape(serial, rtc), 1 << 30);
        let [fadt, ..] = walk.tables();
        assert_eq!(
            u16::from_le_bytes([fadt[109], fadt[110]]),
            boot,
            "IAPC_BOOT_ARCH"
        );
        assert_eq!(fadt[108], century);
    }
}

#[test]
fn the_fadt_has_registers_for_reset_and_sleep_in_port_space() {
    let (walk, _) = Walk::new(&info(1, &[]), 1 << 30);
    let [fadt, ..] = walk.tables();
    let flags = u32_at(fadt, 112);
    assert_ne!(flags & 1 << 20, 0, "hardware-reduced");
    assert_ne!(flags & 1 << 10, 0, "has a reset register");
    for (at, port) in [(116, 0x64), (244, 0x600), (256, 0x601)] {
        assert_eq!(fadt[at..at + 4], [1, 8, 0, 1], "{at}");
        assert_eq!(u64_at(fadt, at + 4), port);
    }
    assert_eq!(fadt[128], 0xfe, "reset value");
}

#[test]
fn the_madt_has_each_processor_once_with_an_entry_that_fits_its_id() {
    for cpus in [1, 2, 255, 256, 300] {
        let (walk, _) = Walk::new(&info(cpus, &[]), 1 << 30);
        let [_, madt, _] = walk.tables();
        let mut ids = Vec::new();
        let mut other = Vec::new();
        for (kind, entry) in entries(madt) {
            match kind {
                0 => {
                    assert_eq!((entry[2], u32_at(&entry, 4)), (entry[3], 1));
                    assert!(entry[3] < 255);
                    ids.push(u32::from(entry[3]));
                }
                9 => {
                    assert_eq!(
                        (u32_at(&entry, 8), u32_at(&entry, 12)),
                        (1, u32_at(&entry, 4))
                    );
                    ids.push(u32_at(&entry, 4));
                }
                kind => other.push(kind),
            }
        }
        assert_eq!(ids, (0..cpus).collect::<Vec<_>>());
        assert_eq!(
            other,
            if cpus > 255 {
                vec![1, 4, 10]
            } else {
                vec![1, 4]
            }
        );
    }
}

#[test]
fn the_madt_names_the_interrupt_controllers_of_kvm() {
    let (walk, _) = Walk::new(&info(1, &[]), 1 << 30);
    let [_, madt, _] = walk.tables();
    assert_eq!((u32_at(madt, 36), u32_at(madt, 40)), (0xfee0_0000, 1));
    let (_, io_apic) = entries(madt)
        .into_iter()
        .find(|(kind, _)| *kind == 1)
        .unwrap();
    assert_eq!((u32_at(&io_apic, 4), u32_at(&io_apic, 8)), (0xfec0_0000, 0));
}

#[test]
fn absent_devices_are_not_in_the_dsdt() {
    let contains = |dsdt: &[u8], name: &[u8]| dsdt.windows(name.len()).any(|at| at == name);
    let windows = windows(2);
    let (walk, _) = Walk::new(&info(2, &windows), 1 << 30);
    let [.., all] = walk.tables();
    let none = AcpiInfo {
        cpus: 1,
        virtio_mmio: &[],
        pci: false,
        serial: false,
        rtc: false,
    };
    let (walk, _) = Walk::new(&none, 1 << 30);
    let [.., bare] = walk.tables();
    for name in [b"COM1", b"RTC0", b"VR00", b"VR01", b"C001"] {
        assert!(contains(all, name) && !contains(bare, name), "{name:?}");
    }
    for name in [b"PWRB", b"GED0", b"PNIC", b"_S5_", b"C000"] {
        assert!(contains(all, name) && contains(bare, name), "{name:?}");
    }
    assert!(!contains(all, b"VR02"));
}

#[test]
fn a_pci_bus_is_described_by_a_table_and_a_host_bridge_and_only_if_there_is_one() {
    let contains = |dsdt: &[u8], name: &[u8]| dsdt.windows(name.len()).any(|at| at == name);
    let with = AcpiInfo {
        pci: true,
        ..info(1, &[])
    };
    let (walk, _) = Walk::new(&with, 1 << 30);
    let xsdt = walk.table(u64_at(&walk.bytes, 24), b"XSDT");
    assert_eq!(xsdt.len(), 36 + 3 * 8);
    let mcfg = walk.table(u64_at(xsdt, 52), b"MCFG");
    // One entry: address, segment 0, bus 0 to 0.
    assert_eq!((mcfg.len(), u64_at(mcfg, 44)), (60, layout::PCI_ECAM.start));
    assert_eq!(mcfg[52..], [0; 8]);
    let [.., dsdt] = walk.tables();
    assert!(contains(dsdt, b"PCI0") && contains(dsdt, b"_OSC"));
    // The end of the window, as a descriptor of 32 bits has it.
    let end = (layout::PCI_WINDOW.end - 1) as u32;
    assert!(contains(dsdt, &end.to_le_bytes()));

    let (walk, _) = Walk::new(&info(1, &[]), 1 << 30);
    let xsdt = walk.table(u64_at(&walk.bytes, 24), b"XSDT");
    assert_eq!(xsdt.len(), 36 + 2 * 8);
    let [.., dsdt] = walk.tables();
    assert!(!contains(dsdt, b"PCI0") && !contains(dsdt, b"MCFG"));
}

#[test]
fn only_lines_with_several_devices_are_marked_shared() {
    let windows = windows(17);
    let (walk, _) = Walk::new(&info(1, &windows), 1 << 30);
    let [.., dsdt] = walk.tables();
    // Extended interrupt descriptor, 6 bytes, flags, one interrupt, its number.
    let flags = |gsi: u8| {
        dsdt.windows(9)
            .filter(|at| at[..3] == [0x89, 6, 0] && at[4..] == [1, gsi, 0, 0, 0])
            .map(|at| at[3])
            .collect::<Vec<_>>()
    };
    assert_eq!(flags(5), [0b0011]);
    assert_eq!(flags(16), [0b1011, 0b1011]);
    assert_eq!(flags(17), [0b0011]);
}

#[test]
fn what_is_built_can_be_read_back_from_guest_memory() {
    let memory = memory::build(16 << 20).unwrap();
    let windows = windows(3);
    let info = info(4, &windows);
    let tables = build(&memory, &info).unwrap();
    let (bytes, expected) = assemble(&info, 16 << 20).unwrap();
    let mut read = vec![0; bytes.len()];
    memory.read_slice(&mut read, tables.rsdp).unwrap();
    assert_eq!((read, tables), (bytes, expected));
}

/// Writes the tables to files for `iasl -d`; run by hand:
/// `ACPI_DUMP=folder cargo test -p hype-vmm dump_tables -- --ignored`.
#[test]
#[ignore = "writes files; for use with a disassembler"]
fn dump_tables_for_a_disassembler() {
    let folder = std::path::PathBuf::from(std::env::var_os("ACPI_DUMP").expect("ACPI_DUMP"));
    let windows = windows(20);
    let (walk, _) = Walk::new(&info(300, &windows), 1 << 30);
    let [fadt, madt, dsdt] = walk.tables();
    for (name, table) in [("facp.dat", fadt), ("apic.dat", madt), ("dsdt.dat", dsdt)] {
        std::fs::write(folder.join(name), table).unwrap();
    }
}
