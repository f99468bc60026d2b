//! What Linux finds in its zero page.

use linux_loader::bootparam::boot_params;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::testing::images::{CODE, bzimage, put};
use crate::testing::{GIB, MIB, bytes, chain, file, load, ram};
use crate::{Boot, Payload, Platform};

fn params(memory: &GuestMemoryMmap, boot: &Boot) -> boot_params {
    memory.read_obj(GuestAddress(boot.registers.rsi)).unwrap()
}

fn table(params: &boot_params) -> Vec<(u64, u64, u32)> {
    let entries = params.e820_table;
    let entries = entries.iter().take(params.e820_entries.into());
    entries
        .map(|entry| (entry.addr, entry.size, entry.r#type))
        .collect()
}

#[test]
fn fields_that_the_loader_owns_are_written() {
    let memory = ram(&[0..64 * MIB]);
    let payload = Payload::linux(file(&bzimage()))
        .initrd(file(&[7; 0x1234]))
        .cmdline("console=hvc0");
    let platform = Platform {
        rsdp: Some(GuestAddress(0xe0010)),
        reserved: &[(0xe0000..0x10_0000)],
        cmdline_extra: "virtio_mmio.device=4K@0xd0000000:5",
    };

    let boot = crate::load(&payload, &memory, &platform).unwrap();

    let params = params(&memory, &boot);
    assert_eq!(params.hdr.type_of_loader, 0xff);
    assert_eq!({ params.acpi_rsdp_addr }, 0xe0010);
    assert_eq!({ params.hdr.ramdisk_image }, 64 * MIB as u32 - 0x2000);
    assert_eq!({ params.hdr.ramdisk_size }, 0x1234);
    assert_eq!({ params.ext_ramdisk_image }, 0);
    assert_eq!({ params.ext_ramdisk_size }, 0);
    assert_eq!({ params.ext_cmd_line_ptr }, 0);
    let line = "console=hvc0 virtio_mmio.device=4K@0xd0000000:5\0";
    assert_eq!(
        bytes(&memory, params.hdr.cmd_line_ptr.into(), line.len()),
        line.as_bytes()
    );
    assert_eq!(format!("{}\0", boot.cmdline), line);
    let expected = [(0, 0x9fc00, 1), (0x9fc00, 0x60400, 2), (MIB, 63 * MIB, 1)];
    assert_eq!(table(&params), expected);
    assert_eq!(bytes(&memory, boot.kernel.start, CODE), [0xcc; CODE]);
}

#[test]
fn only_the_setup_header_comes_from_the_image() {
    let mut image = bzimage();
    put(&mut image, 0, &[0xee; 0x1f1]);
    put(&mut image, 0x26c, &[0xee; 0x14]);
    let memory = ram(&[0..64 * MIB]);

    let boot = load(&Payload::linux(file(&image)), &memory).unwrap();

    assert_eq!(bytes(&memory, boot.registers.rsi, 0x1e8), [0; 0x1e8]);
    assert_eq!(bytes(&memory, boot.registers.rsi + 0x1e9, 8), [0; 8]);
    assert_eq!(bytes(&memory, boot.registers.rsi + 0x26c, 0x64), [0; 0x64]);
    let header = bytes(&memory, boot.registers.rsi + 0x230, 8);
    assert_eq!(header, &image[0x230..0x238]);
}

#[test]
fn what_a_hostile_header_claims_for_the_loader_is_overwritten() {
    let mut image = bzimage();
    put(&mut image, 0x210, &[0x12, 0x03]); // type_of_loader; loadflags with KASLR_FLAG
    put(&mut image, 0x218, &[0xff; 8]); // ramdisk_image, ramdisk_size
    put(&mut image, 0x226, &[0xff; 6]); // ext_loader_ver, ext_loader_type, cmd_line_ptr
    put(&mut image, 0x250, &[0xff; 8]); // setup_data
    let memory = ram(&[0..64 * MIB]);

    let boot = load(&Payload::linux(file(&image)), &memory).unwrap();

    let params = params(&memory, &boot);
    assert_eq!((params.hdr.type_of_loader, params.hdr.loadflags), (0xff, 1));
    assert_eq!(
        ({ params.hdr.ramdisk_image }, { params.hdr.ramdisk_size }),
        (0, 0)
    );
    assert_eq!(
        (params.hdr.ext_loader_ver, params.hdr.ext_loader_type),
        (0, 0)
    );
    assert_eq!({ params.hdr.cmd_line_ptr }, 0x20000);
    assert_eq!({ params.hdr.setup_data }, 0);
}

#[test]
fn bytes_behind_an_older_header_are_not_taken_for_a_field() {
    let mut image = bzimage();
    put(&mut image, 0x206, &[0x0c, 0x02]);
    put(&mut image, 0x268, &[0x8c, 0xc8, 0x8e, 0xd8]);
    let memory = ram(&[0..64 * MIB]);

    let boot = load(&Payload::linux(file(&image)), &memory).unwrap();

    assert_eq!({ params(&memory, &boot).hdr.kernel_info_offset }, 0);
}

#[test]
fn e820_has_the_hole_below_4_gib() {
    let memory = ram(&[0..3 * GIB, 4 * GIB..6 * GIB]);

    let boot = load(&Payload::linux(file(&bzimage())), &memory).unwrap();

    let table = table(&params(&memory, &boot));
    assert_eq!(table[2..], [(MIB, 3 * GIB - MIB, 1), (4 * GIB, 2 * GIB, 1)]);
}

#[test]
fn a_command_line_may_be_as_long_as_the_header_says() {
    let mut image = bzimage();
    put(&mut image, 0x238, &255u32.to_le_bytes());
    let line = |length| {
        let payload = Payload::linux(file(&image)).cmdline("x".repeat(length));
        load(&payload, &ram(&[0..64 * MIB])).map(|boot| boot.cmdline.len())
    };

    assert_eq!(line(254).unwrap(), 254);
    assert_eq!(line(255).unwrap(), 255);
    assert_eq!(
        chain(&line(256).unwrap_err()),
        "command line too long, length: 256 bytes, limit of this kernel: 255"
    );
}

#[test]
fn a_command_line_never_leaves_its_area_whatever_the_header_says() {
    let mut image = bzimage();
    put(&mut image, 0x238, &[0xff; 4]);
    let line = |length| {
        let payload = Payload::linux(file(&image)).cmdline("x".repeat(length));
        load(&payload, &ram(&[0..64 * MIB]))
    };

    assert!(line(0xffff).is_ok());
    assert!(chain(&line(0x10000).unwrap_err()).ends_with("limit of this kernel: 65535"));
}

#[test]
fn the_machines_arguments_count() {
    let payload = Payload::linux(file(&bzimage())).cmdline("x".repeat(2040));
    let platform = Platform {
        cmdline_extra: "1234567",
        ..Platform::default()
    };

    let error = crate::load(&payload, &ram(&[0..64 * MIB]), &platform).unwrap_err();

    assert!(
        chain(&error[0]).contains("length: 2048 bytes"),
        "{}",
        chain(&error[0])
    );
}

#[test]
fn a_command_line_with_nul_or_newline_is_refused() {
    for line in ["a\0b", "a\nb", "é"] {
        let payload = Payload::linux(file(&bzimage())).cmdline(line);
        let error = load(&payload, &ram(&[0..64 * MIB])).unwrap_err();
        assert!(chain(&error).contains("neither printable ASCII nor a tab"));
    }
}
