//! Images that are sound, that are spoiled, that are backed by others, and a process that dies.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and says what it skips"
)]

mod crash;
mod spoiled;
mod tools;

use std::io;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tools::{open, qemu_img, qemu_img_or_skip};
use virtio::block::qcow2::{Backing, Qcow2Error};
use virtio::block::{BlockStorage, Error, Qcow2File, RawFile};
use vm_memory::VolatileSlice;

const MIB: u64 = 1 << 20;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn read(disk: &Qcow2File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0xee; len];
    let mut done = 0;
    while done < len {
        let rest = &mut bytes[done..];
        let middle = rest.len() / 3;
        let (first, second) = rest.split_at_mut(middle);
        let slices = [VolatileSlice::from(first), VolatileSlice::from(second)];
        match disk.read_vectored_at(&slices, offset + done as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => done += count,
        }
    }
    Ok(bytes)
}

fn write(disk: &Qcow2File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut bytes = bytes.to_vec();
    let mut done = 0;
    while done < bytes.len() {
        let rest = &mut bytes[done..];
        let middle = rest.len() / 3;
        let (first, second) = rest.split_at_mut(middle);
        match disk.write_vectored_at(&[first.into(), second.into()], offset + done as u64)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => done += count,
        }
    }
    Ok(())
}

/// Bytes that differ from place to place.
fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at / 512 * 7 + at + seed) as u8)
        .collect()
}

fn new_image(folder: &TempDir, size: u64) -> (PathBuf, Qcow2File) {
    let path = folder.path().join("disk.qcow2");
    let disk = open(&Qcow2File::options().create(size), &path).unwrap();
    (path, disk)
}

/// What the image at a path has, as QEMU sees it.
fn contents(path: &Path) -> Vec<u8> {
    let raw = path.with_extension("raw");
    qemu_img(&["convert", "-f", "qcow2", "-O", "raw"], &[path, &raw]);
    let bytes = std::fs::read(&raw).unwrap();
    std::fs::remove_file(raw).unwrap();
    bytes
}

#[test]
fn a_new_image_reads_as_zeroes_and_keeps_what_is_written() {
    let folder = folder();
    let (path, disk) = new_image(&folder, 64 * MIB);
    assert!(disk.was_created());
    assert_eq!(disk.properties().size, 64 * MIB);
    assert_eq!(read(&disk, 3 * MIB, 200_192).unwrap(), vec![0; 200_192]);
    let bytes = pattern(300_032, 1);

    // Neither end is where a cluster ends.
    write(&disk, MIB + 512, &bytes).unwrap();
    disk.flush().unwrap();
    assert_eq!(read(&disk, MIB + 512, bytes.len()).unwrap(), bytes);
    drop(disk);

    let disk = open(&Qcow2File::options().read_only(true), &path).unwrap();
    assert!(!disk.was_created());
    assert_eq!(read(&disk, MIB + 512, bytes.len()).unwrap(), bytes);
    assert_eq!(read(&disk, MIB, 512).unwrap(), [0; 512]);
    let end = MIB + 512 + bytes.len() as u64;
    assert_eq!(read(&disk, end, 4096).unwrap(), [0; 4096]);
}

#[test]
fn more_buffers_than_one_call_takes_are_left_to_the_next() {
    let folder = folder();
    let (_path, disk) = new_image(&folder, MIB);
    let mut bytes = vec![7; 100 * 512];
    let slices: Vec<_> = bytes.chunks_mut(512).map(VolatileSlice::from).collect();
    assert_eq!(disk.write_vectored_at(&slices, 0).unwrap(), 64 * 512);
    assert_eq!(disk.read_vectored_at(&slices, 0).unwrap(), 64 * 512);
}

#[test]
fn what_a_disk_writes_is_what_qemu_finds_and_the_image_is_sound() {
    qemu_img_or_skip!();
    let folder = folder();
    let (path, disk) = new_image(&folder, 8 * MIB);
    let mut model = vec![0; 8 << 20];
    // Writes, zeroes and discards that overlap, at places that a small generator chooses.
    let mut state = 12345_u64;
    let mut random = |most: u64| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) % most
    };
    for round in 0..300 {
        let sectors = random(300) + 1;
        let offset = random(8 * 2048 - sectors) * 512;
        let len = (sectors * 512) as usize;
        let place = &mut model[offset as usize..][..len];
        match random(6) {
            0 => {
                disk.write_zeroes(offset, len as u64, round % 2 == 0)
                    .unwrap();
                place.fill(0);
            }
            1 => {
                disk.discard(offset, len as u64).unwrap();
                let now = read(&disk, offset, len).unwrap();
                place.copy_from_slice(&now);
            }
            2 => disk.flush().unwrap(),
            _ => {
                place.copy_from_slice(&pattern(len, round));
                write(&disk, offset, place).unwrap();
            }
        }
    }
    assert!(read(&disk, 0, 8 << 20).unwrap() == model);
    disk.flush().unwrap();
    // It is locked by us, so that QEMU, which locks too, comes after.
    drop(disk);
    qemu_img(&["check", "-f", "qcow2"], &[&path]);
    assert!(contents(&path) == model, "QEMU finds something else");
}

#[test]
fn images_of_qemu_are_read_and_written_whatever_their_shape() {
    qemu_img_or_skip!();
    let folder = folder();
    let raw = folder.path().join("source.raw");
    let mut bytes = pattern(4 << 20, 3);
    bytes[1 << 20..2 << 20].fill(0);
    bytes[3 << 20..].fill(0x55);
    std::fs::write(&raw, &bytes).unwrap();
    for (number, options) in [
        "compat=1.1",
        "compat=0.10",
        "cluster_size=512",
        "cluster_size=2M",
        "refcount_bits=1",
        "refcount_bits=64",
        "lazy_refcounts=on",
        "preallocation=metadata",
        "preallocation=full",
    ]
    .into_iter()
    .enumerate()
    {
        for compressed in [false, true] {
            if compressed && options.starts_with("preallocation") {
                continue;
            }
            let path = folder.path().join(format!("{number}-{compressed}.qcow2"));
            let mut words = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
            words.extend(compressed.then_some("-c"));
            qemu_img(&words, &[&raw, &path]);

            let disk = open(&Qcow2File::options(), &path).unwrap();
            assert!(read(&disk, 0, 4 << 20).unwrap() == bytes, "{options}");
            let mut now = bytes.clone();
            for offset in [512, MIB + 70_144, 3 * MIB - 1024] {
                let new = pattern(150_016, offset as usize);
                write(&disk, offset, &new).unwrap();
                now[offset as usize..][..new.len()].copy_from_slice(&new);
            }
            disk.write_zeroes(2 * MIB, 300_032, true).unwrap();
            now[2 << 20..][..300_032].fill(0);
            assert!(read(&disk, 0, 4 << 20).unwrap() == now, "{options}");
            disk.flush().unwrap();
            drop(disk);
            qemu_img(&["check", "-f", "qcow2"], &[&path]);
            assert!(
                contents(&path) == now,
                "{options}: QEMU finds something else"
            );
        }
    }
}

#[test]
fn a_disk_that_cannot_hold_an_image_is_not_created() {
    let folder = folder();
    let path = folder.path().join("disk.qcow2");
    for size in [0, 1, 513, u64::MAX, 1 << 63] {
        let error = Qcow2File::options().create(size).open(&path).unwrap_err();
        assert!(matches!(error, Error::Size { .. }), "{size}: {error}");
        assert!(!path.exists());
    }
    // More than an L1 table of the largest size has entries for.
    let error = Qcow2File::options()
        .create(1 << 62)
        .open(&path)
        .unwrap_err();
    assert!(
        matches!(error, Error::Create { .. } | Error::Qcow2 { .. }),
        "{error}"
    );
    assert!(!path.exists());
    let error = Qcow2File::options().open(&path).unwrap_err();
    assert!(error.hint().unwrap().contains("size="));
}

#[test]
fn an_image_is_locked_while_it_is_a_disk_and_so_is_what_is_behind_it() {
    let folder = folder();
    let (path, disk) = new_image(&folder, MIB);
    for read_only in [false, true] {
        let options = Qcow2File::options().read_only(read_only);
        let error = options.open(&path).unwrap_err();
        assert!(matches!(error, Error::InUse { .. }), "{error}");
    }
    drop(disk);
    let readers = [1, 2].map(|_| open(&Qcow2File::options().read_only(true), &path).unwrap());
    assert!(Qcow2File::options().open(&path).is_err());
    drop(readers);
    assert!(open(&Qcow2File::options(), &path).is_ok());
}

#[test]
fn a_read_only_disk_leaves_its_file_as_it_is() {
    let folder = folder();
    let (path, disk) = new_image(&folder, MIB);
    write(&disk, 0, &[1; 4096]).unwrap();
    disk.flush().unwrap();
    drop(disk);
    let before = std::fs::read(&path).unwrap();

    let disk = open(&Qcow2File::options().read_only(true), &path).unwrap();
    assert!(disk.properties().read_only && disk.properties().discard.is_none());
    assert!(write(&disk, 0, &[2; 4096]).is_err());
    disk.flush().unwrap();
    drop(disk);
    assert!(std::fs::read(&path).unwrap() == before);
}
