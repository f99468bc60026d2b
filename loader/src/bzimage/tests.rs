//! Every number of the setup header, valid and broken.

use crate::testing::images::{CODE, SETUP, bzimage, put};
use crate::testing::{MIB, chain, file, load, load_image, ram, refusal};
use crate::{Boot, Payload};

/// The minimal image with these bytes there.
fn with(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = bzimage();
    put(&mut image, offset, bytes);
    image
}

fn load_with(offset: usize, bytes: &[u8]) -> Boot {
    load_image(&with(offset, bytes)).unwrap()
}

/// One row per broken field: offset, bytes, what the message must say.
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
fn a_minimal_image_goes_to_its_preferred_address() {
    let boot = load_image(&bzimage()).unwrap();

    assert_eq!(boot.kernel, 16 * MIB..17 * MIB);
    assert_eq!(boot.registers.rip, 16 * MIB + 0x200);
    assert_eq!(boot.version.as_deref(), Some("6.1.2-test (me@here) #1"));
    assert_eq!(boot.initrd, None);
}

#[test]
fn images_that_are_no_bzimage_or_too_old_are_refused() {
    assert_refused(&[
        (0x1fe, &[0, 0], "boot_flag is 0x0"),
        (0x202, b"HdrX", "format not known"),
        (0x206, &[0x05, 0x02], "version is 0x205: too old"),
        (0x206, &[0x0b, 0x02], "version is 0x20b: too old"),
        (0x211, &[0], "loadflags is 0x0: not a bzImage"),
        (0x236, &[0x22, 0], "no 64-bit entry"),
    ]);
}

#[test]
fn setup_sects_0_means_4() {
    let mut image = bzimage();
    image.splice(SETUP..SETUP, [0; 3 * 512]);
    put(&mut image, 0x1f1, &[0]);

    assert_eq!(load_image(&image).unwrap().kernel.start, 16 * MIB);
}

#[test]
fn setup_code_beyond_its_segment_or_the_file_is_refused() {
    assert_refused(&[
        (
            0x1f1,
            &[64],
            "setup_sects is 0x40: boot sector and setup code must fit 64 sectors",
        ),
        (0x1f1, &[255], "setup_sects is 0xff"),
        (
            0x1f1,
            &[63],
            "the file ends early, the setup code needs 32768 bytes",
        ),
        (
            0x1f1,
            &[2],
            "the file ends early, the protected-mode kernel",
        ),
    ]);
}

#[test]
fn syssize_that_the_file_cannot_fill_is_refused() {
    let (more, most) = ((CODE as u32 / 16 + 1).to_le_bytes(), u32::MAX.to_le_bytes());
    assert_refused(&[
        (
            0x1f4,
            &[0; 4],
            "syssize is 0x0: there is no protected-mode kernel",
        ),
        (
            0x1f4,
            &more,
            "the file ends early, the protected-mode kernel needs 13313 bytes",
        ),
        (
            0x1f4,
            &most,
            "the file ends early, the protected-mode kernel needs 68719477",
        ),
        (
            0x1f4,
            &[0x1f, 0, 0, 0],
            "syssize is 0x1f: the kernel ends before its 64-bit entry",
        ),
    ]);
}

#[test]
fn an_incomplete_last_paragraph_is_fine() {
    let mut image = bzimage();
    image.truncate(SETUP + CODE - 15);

    assert!(load_image(&image).is_ok());
}

#[test]
fn init_size_must_hold_the_kernel() {
    let less = (CODE as u32 - 1).to_le_bytes();
    assert_refused(&[
        (0x260, &[0; 4], "init_size is 0x0"),
        (0x260, &less, "init_size is 0x2fff: the kernel is larger"),
    ]);
}

#[test]
fn init_size_beyond_ram_is_refused_with_what_is_missing() {
    assert_refused(&[
        (0x260, &(49u32 << 20).to_le_bytes(), "needs 1 more MiB"),
        (
            0x260,
            &u32::MAX.to_le_bytes(),
            "needs 4294967295 bytes of RAM in one piece",
        ),
    ]);
}

#[test]
fn alignment_and_preferred_address_must_make_sense() {
    assert_refused(&[
        (
            0x230,
            &[0; 4],
            "kernel_alignment is 0x0: it must be a power of two",
        ),
        (0x230, &[0, 0, 0x30, 0], "kernel_alignment is 0x300000"),
        (0x258, &[0; 8], "pref_address is 0x0"),
        (
            0x258,
            &[1, 0, 0, 1],
            "pref_address is 0x1000001: it must be a multiple",
        ),
        (0x258, &[0xff; 8], "pref_address is 0xffffffffffffffff"),
        (
            0x258,
            &0xffff_ffff_ffe0_0000u64.to_le_bytes(),
            "it must be between 1 MiB and 4 GiB",
        ),
    ]);
}

#[test]
fn a_relocatable_kernel_goes_above_what_is_reserved() {
    let reserved = [16 * MIB..16 * MIB + 0x1000];
    let platform = crate::Platform {
        reserved: &reserved,
        ..Default::default()
    };
    let boot = crate::load(
        &Payload::linux(file(&bzimage())),
        &ram(&[0..64 * MIB]),
        &platform,
    );

    assert_eq!(boot.unwrap().kernel, 18 * MIB..19 * MIB);
}

#[test]
fn a_kernel_never_goes_below_its_preferred_address() {
    let error = load(&Payload::linux(file(&bzimage())), &ram(&[0..16 * MIB])).unwrap_err();

    assert!(
        chain(&error).contains("between 0x1000000 and 0x100000000"),
        "{}",
        chain(&error)
    );
}

#[test]
fn a_fixed_kernel_outside_ram_is_refused() {
    let mut image = with(0x234, &[0]);
    assert_eq!(load_image(&image).unwrap().kernel, 16 * MIB..17 * MIB);

    put(&mut image, 0x258, &(64 * MIB).to_le_bytes());
    assert!(refusal(&image).contains("not relocatable wants 0x4000000..0x4100000"));
}

#[test]
fn payload_must_be_within_the_kernel() {
    assert_refused(&[
        (
            0x248,
            &[0xff; 4],
            "payload_offset + payload_length is 0x1000000ff, limit: 0x3000",
        ),
        (0x24c, &[0xff; 8], "payload_offset + payload_length"),
    ]);
}

#[test]
fn garbage_in_jump_and_setup_data_is_not_followed() {
    assert_eq!(load_with(0x200, &[0xff; 2]).kernel.start, 16 * MIB);
    assert_eq!(load_with(0x250, &[0xff; 8]).kernel.start, 16 * MIB);
}

#[test]
fn a_version_that_is_no_string_is_left_out() {
    assert_eq!(load_with(0x20e, &[0, 0]).version, None);
    assert_eq!(load_with(0x20e, &[0xff, 0xff]).version, None);
    assert_eq!(load_with(0x280, &[7]).version, None);
    assert_eq!(load_with(0x280, &[b'a'; SETUP - 0x280]).version, None);
}

#[test]
fn every_truncation_is_refused() {
    let image = bzimage();
    for length in (0..0x280).chain((0..image.len()).step_by(0x100)) {
        let message = refusal(&image[..length]);
        let why = [
            "the file is empty",
            "format not known",
            "the file ends early",
        ];
        assert!(
            why.iter().any(|why| message.contains(why)),
            "{length}: {message}"
        );
    }
}
