//! Every number of the ELF headers and of the PVH note, valid and broken.

use vm_memory::{Bytes, GuestAddress};

use crate::testing::images::{DATA, NOTE, PHDR, TEXT, elf, put, put_phdr};
use crate::testing::{MIB, bytes, file, load, load_image, ram, refusal};
use crate::{Payload, Platform};

fn with(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = elf();
    put(&mut image, offset, bytes);
    image
}

fn assert_refused(rows: &[(usize, &[u8], &str)]) {
    for (offset, bytes, expected) in rows {
        let message = refusal(&with(*offset, bytes));
        assert!(
            message.contains(expected),
            "{offset:#x} = {bytes:x?}: {message}"
        );
    }
}

#[test]
fn segments_go_to_their_physical_addresses() {
    let memory = ram(&[0..64 * MIB]);

    let boot = load(&Payload::linux(file(&elf())), &memory).unwrap();

    assert_eq!(boot.kernel, 16 * MIB..32 * MIB + 0x4000);
    assert_eq!(boot.registers.rip, 16 * MIB + 0x10);
    assert_eq!(bytes(&memory, 16 * MIB, 0x1000), [0x90; 0x1000]);
    assert_eq!(bytes(&memory, 32 * MIB, 0x800), [0xda; 0x800]);
    assert_eq!(bytes(&memory, 32 * MIB + 0x800, 0x3800), [0; 0x3800]);
    assert_eq!(boot.version, None);
}

#[test]
fn start_info_tells_memory_initrd_command_line_and_rsdp() {
    let memory = ram(&[0..64 * MIB]);
    let payload = Payload::linux(file(&elf()))
        .initrd(file(b"initrd"))
        .cmdline("quiet");
    let platform = Platform {
        rsdp: Some(GuestAddress(0xe0000)),
        ..Platform::default()
    };

    let boot = crate::load(&payload, &memory, &platform).unwrap();

    let info: linux_loader::start_info::hvm_start_info =
        memory.read_obj(GuestAddress(boot.registers.rbx)).unwrap();
    assert_eq!((info.magic, info.version, info.flags), (0x336e_c578, 1, 0));
    assert_eq!(info.rsdp_paddr, 0xe0000);
    assert_eq!(bytes(&memory, info.cmdline_paddr, 6), b"quiet\0");
    assert_eq!(info.nr_modules, 1);
    let module: linux_loader::start_info::hvm_modlist_entry =
        memory.read_obj(GuestAddress(info.modlist_paddr)).unwrap();
    assert_eq!((module.paddr, module.size), (64 * MIB - 0x1000, 6));
    assert_eq!(bytes(&memory, module.paddr, 6), b"initrd");
    assert_eq!(info.memmap_entries, 3);
    let entry = |index: u64| {
        let entry: linux_loader::start_info::hvm_memmap_table_entry = memory
            .read_obj(GuestAddress(info.memmap_paddr + 24 * index))
            .unwrap();
        (entry.addr, entry.size, entry.type_)
    };
    assert_eq!(entry(0), (0, 0x9fc00, 1));
    assert_eq!(entry(1), (0x9fc00, 0x60400, 2));
    assert_eq!(entry(2), (MIB, 63 * MIB, 1));
}

#[test]
fn no_initrd_means_no_module() {
    let memory = ram(&[0..64 * MIB]);

    let boot = load(&Payload::linux(file(&elf())), &memory).unwrap();

    let info: linux_loader::start_info::hvm_start_info =
        memory.read_obj(GuestAddress(boot.registers.rbx)).unwrap();
    assert_eq!(
        (info.nr_modules, info.modlist_paddr, info.rsdp_paddr),
        (0, 0, 0)
    );
}

#[test]
fn other_classes_byte_orders_machines_and_types_are_refused() {
    assert_refused(&[
        (4, &[1], "EI_CLASS is 0x1: not a 64-bit ELF file"),
        (5, &[2], "EI_DATA is 0x2: not a little-endian ELF file"),
        (18, &[183, 0], "e_machine is 0xb7: not for x86-64"),
        (16, &[1, 0], "e_type is 0x1: not an executable"),
    ]);
}

#[test]
fn program_headers_outside_the_file_or_of_wrong_size_are_refused() {
    assert_refused(&[
        (32, &[0; 8], "e_phoff is 0x0"),
        (32, &[0, 0, 1], "the file ends early, the program headers"),
        (32, &[0xff; 8], "the file ends early, the program headers"),
        (54, &[55], "e_phentsize is 0x37"),
        (54, &[0], "e_phentsize is 0x0"),
        (56, &[0, 0], "e_phnum is 0x0"),
        (56, &[0xff, 0xff], "e_phnum is 0xffff"),
        (56, &[0x81, 0], "e_phnum is 0x81"),
    ]);
}

#[test]
fn segments_outside_the_file_are_refused() {
    assert_refused(&[
        (
            PHDR[0] + 32,
            &[1, 0x10],
            "p_filesz is 0x1001, limit: 0x1000 (p_memsz)",
        ),
        (
            PHDR[0] + 8,
            &[0xff; 8],
            "the file ends early, an ELF segment",
        ),
        (
            PHDR[0] + 8,
            &[1, 0x28],
            "the file ends early, an ELF segment",
        ),
    ]);
}

#[test]
fn segments_outside_free_ram_are_refused() {
    let paddr = PHDR[1] + 24;
    let end_of_ram = (64 * MIB - 0x3fff).to_le_bytes();
    assert_refused(&[
        (
            paddr,
            &[0xff; 8],
            "p_memsz is 0x4000: the segment passes the end",
        ),
        (
            paddr,
            &end_of_ram,
            "an ELF segment wants 0x3ffc001..0x4000001",
        ),
        (
            paddr,
            &0xd000_0000u64.to_le_bytes(),
            "an ELF segment wants 0xd0000000",
        ),
        (
            paddr,
            &0x7000u64.to_le_bytes(),
            "an ELF segment wants 0x7000..0xb000",
        ),
        (
            paddr,
            &0xe0000u64.to_le_bytes(),
            "an ELF segment wants 0xe0000",
        ),
    ]);
}

#[test]
fn overlapping_segments_are_refused() {
    let image = with(PHDR[1] + 24, &(16 * MIB + 0xfff).to_le_bytes());

    assert!(refusal(&image).contains("an ELF segment wants 0x1000fff"));
}

#[test]
fn an_empty_segment_is_no_segment() {
    let mut image = elf();
    put_phdr(&mut image, PHDR[1], 1, [DATA as u64, 0xd000_0000, 0, 0]);

    assert_eq!(
        load_image(&image).unwrap().kernel,
        16 * MIB..16 * MIB + 0x1000
    );
}

#[test]
fn more_segments_than_a_kernel_has_are_refused_at_once() {
    let mut image = elf();
    put(&mut image, 32, &0x3000u64.to_le_bytes());
    put(&mut image, 56, &[0xfe, 0xff]);
    image.resize(0x3000 + 0xfffe * 56, 0);

    assert!(refusal(&image).contains("e_phnum is 0xfffe"));
}

#[test]
fn a_kernel_without_its_note_is_refused() {
    assert_refused(&[
        (PHDR[2], &[0], "CONFIG_PVH=y"),
        (NOTE + 8, &[17], "CONFIG_PVH=y"),
        (NOTE + 12, b"Zen", "CONFIG_PVH=y"),
        (PHDR[2] + 32, &[0x17], "CONFIG_PVH=y"),
        (PHDR[2] + 32, &[0; 8], "CONFIG_PVH=y"),
    ]);
}

#[test]
fn notes_that_do_not_fit_their_segment_are_ignored() {
    assert_refused(&[
        (NOTE, &[0xff; 4], "CONFIG_PVH=y"),
        (NOTE + 4, &[0xff; 4], "CONFIG_PVH=y"),
        (NOTE, &[0xff; 8], "CONFIG_PVH=y"),
    ]);
}

#[test]
fn note_segments_outside_the_file_or_huge_are_refused() {
    assert_refused(&[
        (
            PHDR[2] + 8,
            &[0xff; 8],
            "the file ends early, an ELF note segment",
        ),
        (
            PHDR[2] + 32,
            &[0, 0x40],
            "the file ends early, an ELF note segment",
        ),
        (
            PHDR[2] + 32,
            &[1, 0, 1],
            "p_filesz of PT_NOTE is 0x10001, limit: 0x10000",
        ),
        (PHDR[2] + 32, &[0xff; 8], "p_filesz of PT_NOTE"),
    ]);
}

#[test]
fn an_entry_that_is_no_address_of_the_kernel_is_refused() {
    assert_refused(&[
        (NOTE + 16, &[0; 8], "XEN_ELFNOTE_PHYS32_ENTRY is 0x0"),
        (NOTE + 20, &[1], "XEN_ELFNOTE_PHYS32_ENTRY is 0x101000010"),
        (NOTE + 16, &[0, 0x10, 0, 1], "is 0x1001000: it is outside"),
        (NOTE + 16, &[0, 0x10, 0, 2], "is 0x2001000: it is outside"),
        (NOTE + 4, &[7], "n_descsz is 0x7"),
    ]);
}

#[test]
fn the_note_is_found_behind_others_and_with_either_size() {
    let mut image = elf();
    let other = [
        5, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, b'L', b'i', b'n', b'u', b'x',
    ];
    put(&mut image, NOTE, &[0; 0x80]);
    put(&mut image, NOTE, &other); // padded: 12 + 8 + 4
    put(
        &mut image,
        NOTE + 24,
        &[
            4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0, b'X', b'e', b'n', 0, 0x20, 0, 0, 1,
        ],
    );
    put(&mut image, PHDR[2] + 32, &[44]);

    assert_eq!(load_image(&image).unwrap().registers.rip, 16 * MIB + 0x20);
}

#[test]
fn every_truncation_is_refused() {
    let image = elf();
    for length in (0..TEXT).step_by(7).chain((0..image.len()).step_by(0x100)) {
        let message = refusal(&image[..length]);
        let why = [
            "the file is empty",
            "format not known",
            "the file ends early",
            "EI_CLASS",
            "e_",
        ];
        assert!(
            why.iter().any(|why| message.contains(why)),
            "{length}: {message}"
        );
    }
}
