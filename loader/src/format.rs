//! Which format a kernel file has, by its magic numbers; and what to call those that are none of
//! ours.

use crate::error::ImageError;

/// A kernel format that can be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    BzImage,
    Elf,
}

/// As much of a file as is looked at: the boot sector and the setup header. Every valid image has
/// more.
pub(crate) const HEAD: usize = 0x400;

/// `head` is the first [`HEAD`] bytes of the file, or all of it.
pub(crate) fn detect(head: &[u8]) -> Result<Format, ImageError> {
    if starts(head, 0, b"\x7fELF") {
        return Ok(Format::Elf);
    }
    if starts(head, 0x202, b"HdrS") {
        return Ok(Format::BzImage);
    }
    let first: Vec<String> = head
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Err(ImageError::UnknownFormat {
        first: first.join(" "),
        looks_like: guess(head),
    })
}

fn starts(head: &[u8], offset: usize, magic: &[u8]) -> bool {
    head.get(offset..)
        .is_some_and(|rest| rest.starts_with(magic))
}

/// Offset, magic number, what has it. The first that fits is the answer, so the general ones come
/// last.
const LOOKS: &[(usize, &[u8], &str)] = &[
    (
        56,
        b"ARM\x64",
        "looks like a Linux Image for arm64, x86-64 is needed",
    ),
    (
        56,
        b"RSC\x05",
        "looks like a Linux Image for RISC-V, x86-64 is needed",
    ),
    (0, b"\x1f\x8b", "looks like gzip data, unpack it first"),
    (
        0,
        b"\x28\xb5\x2f\xfd",
        "looks like zstd data, unpack it first",
    ),
    (0, b"\xfd7zXZ\0", "looks like xz data, unpack it first"),
    (0, b"BZh", "looks like bzip2 data, unpack it first"),
    (
        0,
        b"\x04\x22\x4d\x18",
        "looks like lz4 data, unpack it first",
    ),
    (
        0,
        b"\x02\x21\x4c\x18",
        "looks like lz4 data, unpack it first",
    ),
    (0, b"\x89LZO", "looks like lzop data, unpack it first"),
    (0, b"\x5d\0\0", "looks like lzma data, unpack it first"),
    (0, b"#!", "looks like a script"),
    (0, b"%PDF", "looks like a PDF document"),
    (0, b"<", "looks like a web page"),
    (0, b"070701", "looks like a cpio archive, perhaps an initrd"),
    (0, b"PK\x03\x04", "looks like a zip archive"),
    (0, b"QFI\xfb", "looks like a qcow2 disk image"),
    (0, b"hsqs", "looks like a squashfs image"),
    (0, b"ANDROID!", "looks like an Android boot image"),
    (0, b"\x27\x05\x19\x56", "looks like a U-Boot image"),
    (
        0,
        b"MZ",
        "looks like an EFI program without a Linux setup header",
    ),
    (257, b"ustar", "looks like a tar archive"),
    (
        0x1fe,
        b"\x55\xaa",
        "looks like a boot sector without a Linux setup header, or a Linux older than 2.0",
    ),
];

fn guess(head: &[u8]) -> &'static str {
    let look = LOOKS
        .iter()
        .find(|(offset, magic, _)| starts(head, *offset, magic));
    match look {
        Some((_, _, name)) => name,
        None if head.len() < HEAD => "too short for a kernel",
        None => "neither a bzImage nor an ELF file",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(head: &[u8]) -> String {
        detect(head).unwrap_err().to_string()
    }

    #[test]
    fn elf_and_bzimage_are_known_by_their_magic() {
        let mut head = vec![0; HEAD];
        head[0x202..0x206].copy_from_slice(b"HdrS");
        assert_eq!(detect(&head).unwrap(), Format::BzImage);
        assert_eq!(detect(b"\x7fELF\x02").unwrap(), Format::Elf);
    }

    #[test]
    fn foreign_formats_are_named_with_their_first_bytes() {
        assert_eq!(
            refusal(b"\x1f\x8b\x08\0\0\0\0\0\0\x03"),
            "format not known: first bytes 1f 8b 08 00 00 00 00 00: looks like gzip data, unpack it first"
        );
        assert!(refusal(b"\x28\xb5\x2f\xfd\x24").contains("zstd"));
        assert!(refusal(b"#!/bin/sh\n").contains("script"));
        assert!(refusal(b"%PDF-1.4\n").contains("PDF"));
    }

    #[test]
    fn an_arm64_image_is_told_from_other_efi_programs() {
        let mut head = vec![0; HEAD];
        head[..2].copy_from_slice(b"MZ");
        assert!(refusal(&head).contains("EFI program"));
        head[56..60].copy_from_slice(b"ARM\x64");
        assert!(refusal(&head).contains("arm64"));
    }

    #[test]
    fn short_and_featureless_files_say_so() {
        assert_eq!(
            refusal(b"\x7f"),
            "format not known: first bytes 7f: too short for a kernel"
        );
        assert!(refusal(&[0; HEAD]).ends_with("neither a bzImage nor an ELF file"));
    }
}
