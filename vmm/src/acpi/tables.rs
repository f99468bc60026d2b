//! The fixed tables: RSDP, XSDT, FADT, MADT, MCFG, and the DSDT's header.

use super::AcpiInfo;
use crate::arch::layout;
use crate::legacy::{i8042, pm, rtc};
use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;

const OEM_ID: [u8; 6] = *b"HYPE  ";
const OEM_TABLE_ID: [u8; 8] = *b"HYPEVMM ";
const OEM_REVISION: u32 = 1;
const HEADER_SIZE: u32 = 36;

pub(super) const RSDP_SIZE: usize = 36;
pub(super) const FADT_SIZE: usize = 276;

/// The size of a list of so many tables.
pub(super) fn xsdt_size(tables: usize) -> usize {
    HEADER_SIZE as usize + tables * 8
}

/// The root pointer (5.2.5).
pub(super) fn rsdp(xsdt: u64) -> Vec<u8> {
    bytes(&Rsdp::new(OEM_ID, xsdt))
}

/// The list of tables (5.2.8).
pub(super) fn xsdt(tables: &[u64]) -> Vec<u8> {
    let mut table = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for address in tables {
        table.add_entry(*address);
    }
    bytes(&table)
}

// IAPC_BOOT_ARCH (5.2.9.3). Bit 1, a keyboard controller, stays clear: nobody looks for one.
const LEGACY_DEVICES: u16 = 1 << 0;
const VGA_NOT_PRESENT: u16 = 1 << 2;
const CMOS_RTC_NOT_PRESENT: u16 = 1 << 5;

/// The fixed hardware (5.2.9), of which there is next to none.
pub(super) fn fadt(dsdt: u64, info: &AcpiInfo<'_>) -> Vec<u8> {
    let mut table = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        // Caches are coherent and WBINVD works.
        .flag(Flags::Wbinvd)
        // These two mean "not as fixed hardware": the power button is a device.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless);
    // Not the chipset's port, which lies among those of PCI: what is written there may be gathered.
    table.reset_reg = port(i8042::COMMAND_PORT);
    table.reset_value = i8042::RESET;
    table.sleep_control_reg = port(layout::PM_PORTS.start + pm::SLEEP_CONTROL);
    table.sleep_status_reg = port(layout::PM_PORTS.start + pm::SLEEP_STATUS);
    let mut boot = VGA_NOT_PRESENT;
    if info.serial {
        boot |= LEGACY_DEVICES;
    }
    if info.rtc {
        table.century = rtc::CENTURY;
    } else {
        boot |= CMOS_RTC_NOT_PRESENT;
    }
    table.iapc_boot_arch = boot.into();
    table.hypervisor_vendor_identity = u64::from_le_bytes(*b"hype    ").into();
    bytes(&table.finalize())
}

/// A register of one byte in port space.
fn port(address: u64) -> GAS {
    GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        address,
    )
}

/// There are 8259s, too.
const PCAT_COMPAT: u32 = 1 << 0;
const ENABLED: u32 = 1 << 0;
const ALL_PROCESSORS: u32 = 0xffff_ffff;
const NMI_PIN: u8 = 1;
/// From this id on, a processor needs an x2APIC entry: 255 is the broadcast id.
const FIRST_X2APIC: u32 = 255;

/// Processors and interrupt controllers (5.2.12).
///
/// There are no overrides: KVM connects line n of the 8259 with pin n of the I/O APIC, the timer
/// included. The crate's builder has no x2APIC entries, so all of them are written out here.
pub(super) fn madt(info: &AcpiInfo<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&layout::LOCAL_APIC_BASE.to_le_bytes());
    body.extend_from_slice(&PCAT_COMPAT.to_le_bytes());
    for id in 0..info.cpus {
        match u8::try_from(id) {
            // Processor local APIC: uid, APIC id, flags.
            Ok(short) if id < FIRST_X2APIC => {
                body.extend_from_slice(&[0, 8, short, short]);
                body.extend_from_slice(&ENABLED.to_le_bytes());
            }
            // Processor local x2APIC: reserved, x2APIC id, flags, uid.
            _ => {
                body.extend_from_slice(&[9, 16, 0, 0]);
                for field in [id, ENABLED, id] {
                    body.extend_from_slice(&field.to_le_bytes());
                }
            }
        }
    }
    // I/O APIC: id, reserved, address, first interrupt.
    body.extend_from_slice(&[1, 12, 0, 0]);
    body.extend_from_slice(&layout::IO_APIC_BASE.to_le_bytes());
    body.extend_from_slice(&0u32.to_le_bytes());
    // Local APIC NMI: all processors, flags (as the bus has it), pin.
    body.extend_from_slice(&[4, 6, 0xff, 0, 0, NMI_PIN]);
    if info.cpus > FIRST_X2APIC {
        // Local x2APIC NMI: flags, all processors, pin, reserved.
        body.extend_from_slice(&[10, 12, 0, 0]);
        body.extend_from_slice(&ALL_PROCESSORS.to_le_bytes());
        body.extend_from_slice(&[NMI_PIN, 0, 0, 0]);
    }
    table(*b"APIC", 5, &body)
}

/// Where PCI configuration space is (PCI Firmware 3.2, 4.1.2): that of one bus.
pub(super) fn mcfg() -> Vec<u8> {
    let mut table = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.add_ecam(layout::PCI_ECAM.start, 0, 0, 0);
    bytes(&table)
}

/// The header of the differentiated system description (5.2.11.1) and `body`.
pub(super) fn dsdt(body: &[u8]) -> Vec<u8> {
    // Revision 2: integers have 64 bits.
    table(*b"DSDT", 2, body)
}

fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut table = Sdt::new(
        signature,
        HEADER_SIZE,
        revision,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    table.append_slice(body);
    table.as_slice().to_vec()
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}
