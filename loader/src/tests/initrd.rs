//! Where an initrd goes, and when there is no place for it.

use crate::testing::images::{bzimage, elf, put};
use crate::testing::{GIB, MIB, bytes, chain, file, load, ram, sparse, word};
use crate::{Payload, Platform, Source};

/// Loads the minimal bzImage with an initrd and says where that one is, or what is wrong.
fn place(initrd: Source, ranges: &[std::ops::Range<u64>]) -> Result<std::ops::Range<u64>, String> {
    place_with(&bzimage(), initrd, ranges)
}

fn place_with(
    image: &[u8],
    initrd: Source,
    ranges: &[std::ops::Range<u64>],
) -> Result<std::ops::Range<u64>, String> {
    let boot = load(&Payload::linux(file(image)).initrd(initrd), &ram(ranges));
    boot.map(|boot| boot.initrd.unwrap())
        .map_err(|error| chain(&error))
}

#[test]
fn it_is_as_high_as_ram_goes_and_page_aligned() {
    assert_eq!(
        place(file(&[1; 0x1001]), &[0..64 * MIB]).unwrap(),
        0x3ff_e000..0x3ff_f001
    );
}

#[test]
fn its_content_is_all_there() {
    let content: Vec<u8> = (0..0x12345u32).map(|i| (i * 7) as u8).collect();
    let memory = ram(&[0..64 * MIB]);

    let boot = load(
        &Payload::linux(file(&bzimage())).initrd(file(&content)),
        &memory,
    )
    .unwrap();

    assert_eq!(
        bytes(&memory, boot.initrd.unwrap().start, content.len()),
        content
    );
}

#[test]
fn it_stays_below_initrd_addr_max() {
    let mut image = bzimage();
    put(&mut image, 0x22c, &0x37ff_ffffu32.to_le_bytes());

    assert_eq!(
        place_with(&image, file(&[1]), &[0..GIB]).unwrap().start,
        0x37ff_f000
    );
}

#[test]
fn it_stays_below_the_hole() {
    let mut image = bzimage();
    put(&mut image, 0x22c, &[0xff; 4]);
    let ranges = [0..3 * GIB, 4 * GIB..5 * GIB];

    assert_eq!(
        place_with(&image, file(&[1]), &ranges).unwrap().start,
        3 * GIB - 0x1000
    );
}

#[test]
fn it_goes_above_4_gib_only_if_it_must_and_may() {
    let ranges = [0..64 * MIB, 4 * GIB..5 * GIB];
    let memory = ram(&ranges);
    let payload = Payload::linux(file(&bzimage())).initrd(sparse(80 * MIB));

    let boot = load(&payload, &memory).unwrap();

    let start = 5 * GIB - 80 * MIB;
    assert_eq!(boot.initrd.unwrap().start, start);
    let image = word(&memory, 0x7218); // ramdisk_image, ramdisk_size
    let ext_image = word(&memory, 0x70c0); // ext_ramdisk_image, ext_ramdisk_size
    assert_eq!(image, (start & 0xffff_ffff) | (80 * MIB) << 32);
    assert_eq!(ext_image, start >> 32);
    let mut image = bzimage();
    put(&mut image, 0x236, &[1, 0]);
    assert!(
        place_with(&image, sparse(80 * MIB), &ranges)
            .unwrap_err()
            .contains("more MiB")
    );
}

#[test]
fn it_is_below_4_gib_for_an_elf_kernel() {
    let ranges = [0..64 * MIB, 4 * GIB..5 * GIB];

    assert_eq!(
        place_with(&elf(), file(&[1]), &ranges).unwrap().start,
        64 * MIB - 0x1000
    );
    assert!(
        place_with(&elf(), sparse(80 * MIB), &ranges)
            .unwrap_err()
            .contains("more MiB")
    );
}

#[test]
fn an_empty_one_is_refused() {
    assert!(
        place(file(&[]), &[0..64 * MIB])
            .unwrap_err()
            .ends_with("the file is empty")
    );
}

#[test]
fn one_as_large_as_ram_or_larger_is_refused() {
    for length in [64 * MIB, 64 * MIB - 0x1000, 65 * MIB, 3 * GIB] {
        let message = place(sparse(length), &[0..64 * MIB]).unwrap_err();
        assert!(message.contains("cannot load the initrd"), "{message}");
        assert!(message.contains("more MiB"), "{message}");
    }
}

#[test]
fn one_of_4_gib_is_refused_before_anything_is_read() {
    let message = place(sparse(4 * GIB), &[0..3 * GIB, 4 * GIB..16 * GIB]).unwrap_err();

    assert!(
        message.contains("file size is 0x100000000, limit: 0xffffffff"),
        "{message}"
    );
}

#[test]
fn one_that_would_overlap_the_kernel_is_refused() {
    // 64 MiB: 47 are free above the kernel's 16..17, 15 below.
    assert_eq!(
        place(sparse(47 * MIB), &[0..64 * MIB]).unwrap(),
        17 * MIB..64 * MIB
    );
    let message = place(sparse(47 * MIB + 1), &[0..64 * MIB]).unwrap_err();
    assert!(
        message.contains("the largest free piece has 49283072: needs 1 more MiB"),
        "{message}"
    );
}

#[test]
fn one_that_would_overlap_reserved_memory_goes_below_it() {
    let reserved = [63 * MIB..64 * MIB];
    let platform = Platform {
        reserved: &reserved,
        ..Platform::default()
    };
    let payload = Payload::linux(file(&bzimage())).initrd(file(&[1]));

    let boot = crate::load(&payload, &ram(&[0..64 * MIB]), &platform).unwrap();

    assert_eq!(boot.initrd.unwrap().start, 63 * MIB - 0x1000);
}

#[test]
fn one_that_fits_only_in_the_first_mib_is_refused() {
    let mut image = bzimage();
    put(&mut image, 0x22c, &0xf_ffffu32.to_le_bytes());
    put(&mut image, 0x236, &[1, 0]);

    assert!(
        place_with(&image, file(&[1]), &[0..64 * MIB])
            .unwrap_err()
            .contains("has 0:")
    );
}
