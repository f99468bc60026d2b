//! Images that somebody has tampered with, and those that want other files opened.

use super::*;
use virtio::testing::qcow2::{CLUSTER, COMPRESSED, COPIED, DISK, L1, L2, image, put};

fn put4(image: &mut [u8], at: usize, value: u32) {
    image[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

fn write_image(folder: &TempDir, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join("disk.qcow2");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// What is wrong with the image at a path.
fn refusal(path: &Path, backing: Backing) -> (Qcow2Error, Option<&'static str>) {
    let before = std::fs::read(path).unwrap();
    let error = open(&Qcow2File::options().backing(backing), path).unwrap_err();
    assert!(std::fs::read(path).unwrap() == before, "{error}");
    let hint = error.hint();
    match error {
        Error::Qcow2 { source, .. } => (source, hint),
        other => panic!("{other}"),
    }
}

#[test]
fn the_sound_image_is_sound() {
    let folder = folder();
    let path = write_image(&folder, &image());
    let disk = open(&Qcow2File::options(), &path).unwrap();
    assert_eq!(disk.properties().size, DISK);
    let bytes = read(&disk, 0, 5 * CLUSTER).unwrap();
    for (cluster, byte) in [b'a', b'b', b'c', 0, 0].into_iter().enumerate() {
        assert_eq!(bytes[cluster * CLUSTER..][..CLUSTER], [byte; CLUSTER]);
    }
    drop(disk);
    if tools::have_qemu_img() {
        qemu_img(&["check", "-f", "qcow2"], &[&path]);
    }
}

#[test]
fn a_header_that_makes_no_sense_is_refused_with_the_value_and_the_limit() {
    let folder = folder();
    for (at, value, reason) in [
        (0, 0x7f45_4c46, "begins with 0x7f454c46"),
        (4, 0, "version 0"),
        (4, 1, "version 1 of the format; known are 2 and 3"),
        (4, 4, "version 4"),
        (20, 0, "cluster_bits is 0; possible are 9 to 21"),
        (20, 8, "cluster_bits is 8"),
        (20, 22, "cluster_bits is 22"),
        (20, 63, "cluster_bits is 63"),
        (20, u32::MAX, "cluster_bits is 4294967295"),
        (24, u32::MAX, "size is 18446744069414604800"),
        (32, 1, "encrypted (method 1)"),
        (32, 2, "encrypted (method 2)"),
        (36, 0, "l1_size is 0; possible are 1 to 4194304"),
        (36, u32::MAX, "l1_size is 4294967295"),
        (
            36,
            4_194_304,
            "L1 table of 33554432 bytes at 0x600 is not within",
        ),
        (
            40,
            1,
            "L1 table of 8 bytes at 0x100000600 is not within the file",
        ),
        (44, 0, "L1 table of 8 bytes at 0x0 is where the header is"),
        (44, 0x601, "does not begin with a cluster"),
        (44, 0x400_0000, "not within the file"),
        (
            44,
            0x200,
            "L1 table of 8 bytes at 0x200 is where the refcount table is",
        ),
        (
            48,
            1,
            "refcount table of 512 bytes at 0x100000200 is not within",
        ),
        (
            52,
            0,
            "refcount table of 512 bytes at 0x0 is where the header is",
        ),
        (52, 0x208, "does not begin with a cluster"),
        (56, 0, "refcount_table_clusters is 0"),
        (56, u32::MAX, "refcount_table_clusters is 4294967295"),
        (
            CLUSTER + 4,
            0,
            "refcount table of 512 bytes at 0x200 has no block for the header",
        ),
        (CLUSTER + 4, 511, "has no block for the header"),
        (76, 1, "feature 0: it was not closed properly"),
        (76, 2, "feature 1: it was found to be corrupt"),
        (76, 4, "feature 2: its data is in another file"),
        (76, 8, "feature 3"),
        (76, 16, "feature 4"),
        (76, 32, "feature 5: nobody knows"),
        (72, 1 << 31, "feature 63"),
        (96, 7, "refcount_order is 7; possible are 0 to 6"),
        (100, 0, "header_length is 0; possible are 104 to 512"),
        (100, 71, "header_length is 71"),
        (100, 513, "header_length is 513"),
        (12, 500, "backing_file_"),
        (8, 1, "backing_file_offset is 4294967296"),
    ] {
        let mut bytes = image();
        put4(&mut bytes, at, value);
        let (error, hint) = refusal(&write_image(&folder, &bytes), Backing::Denied);
        let said = error.to_string();
        assert!(said.contains(reason), "{at} = {value}: {said}");
        let repairable = matches!(error, Qcow2Error::Feature { bit: 0 | 1, .. });
        assert_eq!(hint.is_some(), repairable, "{at} = {value}");
    }
}

#[test]
fn what_is_too_short_or_something_else_is_no_image() {
    let folder = folder();
    for len in [512, 1024, 3 * 512] {
        let path = write_image(&folder, &image()[..len]);
        assert!(matches!(
            refusal(&path, Backing::Denied).0,
            Qcow2Error::Table { .. }
        ));
        let path = write_image(&folder, &vec![0; len]);
        assert!(matches!(
            refusal(&path, Backing::Denied).0,
            Qcow2Error::Magic { found: 0 }
        ));
    }
}

#[test]
fn a_corrupt_cluster_costs_its_requests_and_no_others() {
    let folder = folder();
    for (entry, name) in [
        (COPIED | 0x1000_0000, "behind the end"),
        (COPIED | 0x80_0000_0000_0000, "far behind the end"),
        (COPIED, "the header"),
        (COPIED | L1 as u64, "the L1 table"),
        (COMPRESSED | 0x1000_0000, "compressed, behind the end"),
        (
            COMPRESSED | (5 * CLUSTER as u64),
            "compressed, and no deflate data",
        ),
        (COMPRESSED, "compressed, the header"),
    ] {
        let mut bytes = image();
        put(&mut bytes, L2, entry);
        let path = write_image(&folder, &bytes);
        let disk = open(&Qcow2File::options(), &path).unwrap();
        let result = read(&disk, 0, CLUSTER);
        if entry != COPIED {
            assert!(
                result.is_err(),
                "{name}: {:?}",
                result.map(|bytes| bytes[0])
            );
        }
        assert_eq!(
            read(&disk, 512, CLUSTER).unwrap(),
            [b'b'; CLUSTER],
            "{name}"
        );
        assert_eq!(
            read(&disk, 1024, CLUSTER).unwrap(),
            [b'c'; CLUSTER],
            "{name}"
        );
        let _ = write(&disk, 0, &[9; 12 * CLUSTER]);
        assert!(std::fs::metadata(&path).unwrap().len() < MIB, "{name}");
        write(&disk, 512, &[8; CLUSTER]).unwrap();
        disk.flush().unwrap();
        assert_eq!(read(&disk, 512, CLUSTER).unwrap(), [8; CLUSTER], "{name}");
        drop(disk);
        let after = std::fs::read(&path).unwrap();
        assert!(
            after[..CLUSTER] == bytes[..CLUSTER],
            "{name}: the header has changed"
        );
        assert!(
            after[L1..L2] == bytes[L1..L2],
            "{name}: the L1 table has changed"
        );
    }
}

#[test]
fn a_cluster_in_reserve_far_behind_the_end_is_not_written() {
    let folder = folder();
    for far in [0x10_0000_0000, 0x80_0000_0000_0000] {
        for len in [CLUSTER, CLUSTER / 2, 4 * CLUSTER] {
            let mut bytes = image();
            put(&mut bytes, L2, COPIED | far | 1);
            let path = write_image(&folder, &bytes);
            let disk = open(&Qcow2File::options(), &path).unwrap();
            let _ = write(&disk, 0, &vec![9; len]);
            let _ = write(&disk, 0, &vec![9; len]);
            // Given up, and had anew.
            disk.write_zeroes(0, CLUSTER as u64, true).unwrap();
            write(&disk, 0, &vec![7; len]).unwrap();
            disk.flush().unwrap();
            assert_eq!(read(&disk, 0, len).unwrap(), vec![7; len]);
            let grown = std::fs::metadata(&path).unwrap().len();
            assert!(grown < 64 << 10, "{far:#x} {len}: {grown}");
        }
    }
}

#[test]
fn a_corrupt_table_costs_the_requests_below_it() {
    let folder = folder();
    for (at, value) in [
        (L1, COPIED | 0x1000_0000),
        (L1, COPIED | 0x80_0000_0000_0000),
        (L1, COPIED | 0x0a10),
        // An entry that is none has the whole table refused.
        (L2, COPIED | 0x0a10),
    ] {
        let mut bytes = image();
        put(&mut bytes, at, value);
        let path = write_image(&folder, &bytes);
        // It may be found at once, or when it is used.
        if let Ok(disk) = open(&Qcow2File::options(), &path) {
            assert!(read(&disk, 0, CLUSTER).is_err(), "{value:#x}");
            assert!(write(&disk, 0, &[9; CLUSTER]).is_err(), "{value:#x}");
            let _ = disk.flush();
        }
        let after = std::fs::read(&path).unwrap();
        assert!(after[..CLUSTER] == bytes[..CLUSTER], "{value:#x}");
    }
}

/// An image whose backing file has this name, and this format unless it is empty.
fn backed(name: &str, format: &str) -> Vec<u8> {
    let mut bytes = image();
    let mut at = 104;
    if !format.is_empty() {
        put4(&mut bytes, at, 0xe279_2aca);
        put4(&mut bytes, at + 4, format.len() as u32);
        bytes[at + 8..][..format.len()].copy_from_slice(format.as_bytes());
        at += 8 + format.len().next_multiple_of(8);
    }
    at += 8;
    put(&mut bytes, 8, at as u64);
    put4(&mut bytes, 16, name.len() as u32);
    bytes[at..][..name.len()].copy_from_slice(name.as_bytes());
    // Nothing of its own.
    bytes[L2..][..CLUSTER].fill(0);
    bytes
}

#[test]
fn a_backing_file_is_refused_unless_it_is_allowed() {
    let folder = folder();
    for name in [
        "base.raw",
        "/etc/shadow",
        "json:{}",
        "nbd://host/x",
        "../../x",
    ] {
        let path = write_image(&folder, &backed(name, "raw"));
        let (error, hint) = refusal(&path, Backing::Denied);
        assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
        assert!(hint.unwrap().contains("backing=on"));
    }
}

#[test]
fn what_is_no_file_or_elsewhere_is_refused_even_then() {
    let folder = folder();
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).unwrap();
    for (name, reason) in [
        ("/etc/passwd", "outside of the folder"),
        ("../x", "outside of the folder"),
        ("a/../../x", "outside of the folder"),
        ("link", "outside of the folder"),
        ("json:{\"file\":\"x\"}", "a protocol"),
        ("nbd://host/x", "a protocol"),
        ("file:base", "a protocol"),
        ("a\0b", "no name of a file"),
    ] {
        let path = write_image(&folder, &backed(name, "raw"));
        let (error, _) = refusal(&path, Backing::Beside);
        assert!(error.to_string().contains(reason), "{name}: {error}");
    }
    for name in ["json:{}", "nbd:host:1", "a\0b"] {
        let path = write_image(&folder, &backed(name, "raw"));
        let (error, _) = refusal(&path, Backing::Anywhere);
        assert!(matches!(error, Qcow2Error::BackingName { .. }), "{error}");
    }
    for format in ["", "vmdk", "file", "RAW"] {
        let path = write_image(&folder, &backed("base.raw", format));
        let (error, _) = refusal(&path, Backing::Beside);
        assert!(matches!(error, Qcow2Error::BackingFormat { .. }), "{error}");
    }
    let path = write_image(&folder, &backed("missing.raw", "raw"));
    let options = Qcow2File::options().backing(Backing::Beside);
    assert!(matches!(open(&options, &path), Err(Error::Open { .. })));
}

#[test]
fn an_overlay_shows_what_is_behind_it_and_never_writes_there() {
    let folder = folder();
    // Smaller than the disk: what is not there is zeroes.
    let base = folder.path().join("base.raw");
    let old = pattern(3 * CLUSTER + 100, 5);
    std::fs::write(&base, &old).unwrap();
    let path = write_image(&folder, &backed("base.raw", "raw"));
    for backing in [Backing::Beside, Backing::Anywhere] {
        let disk = open(&Qcow2File::options().backing(backing), &path).unwrap();
        let now = read(&disk, 0, 5 * CLUSTER).unwrap();
        assert_eq!(now[2 * CLUSTER..old.len()], old[2 * CLUSTER..]);
        assert!(now[old.len()..].iter().all(|byte| *byte == 0));
        write(&disk, 0, &[1; 512]).unwrap();
        write(&disk, 20 * 512, &[2; 512]).unwrap();
        disk.flush().unwrap();
        assert_eq!(
            read(&disk, 0, 1024).unwrap(),
            [&[1; 512], &old[512..1024]].concat()
        );
        // Others may read it too, and nobody may write.
        assert!(RawFile::options().open(&base).is_err());
        drop(disk);
    }
    assert!(std::fs::read(&base).unwrap() == old);
}

#[test]
fn sixteen_files_may_be_behind_a_disk_and_no_more() {
    let folder = folder();
    let name = |number: usize| format!("{number}.qcow2");
    std::fs::write(folder.path().join(name(0)), image()).unwrap();
    for number in 1..=20 {
        let bytes = backed(&name(number - 1), "qcow2");
        std::fs::write(folder.path().join(name(number)), bytes).unwrap();
    }
    let options = Qcow2File::options().backing(Backing::Beside);
    let disk = open(&options, &folder.path().join(name(16))).unwrap();
    assert_eq!(read(&disk, 0, CLUSTER).unwrap(), [b'a'; CLUSTER]);
    drop(disk);
    for number in [17, 20] {
        let path = folder.path().join(name(number));
        let error = open(&options, &path).unwrap_err();
        assert!(
            matches!(
                &error,
                Error::Qcow2 {
                    source: Qcow2Error::BackingDepth { most: 16 },
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn a_circle_of_backing_files_is_found() {
    let folder = folder();
    let path = write_image(&folder, &backed("disk.qcow2", "qcow2"));
    let (error, _) = refusal(&path, Backing::Beside);
    assert!(matches!(error, Qcow2Error::BackingLoop { .. }), "{error}");

    std::fs::write(folder.path().join("b.qcow2"), backed("disk.qcow2", "qcow2")).unwrap();
    let path = write_image(&folder, &backed("b.qcow2", "qcow2"));
    let (error, _) = refusal(&path, Backing::Beside);
    assert!(matches!(error, Qcow2Error::BackingLoop { .. }), "{error}");
}
