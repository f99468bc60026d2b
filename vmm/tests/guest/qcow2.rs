//! qcow2 images that a guest writes, beside raw disks that it writes the same to; and what QEMU's
//! tool makes of them.

use super::*;
use crate::support::disk::{MIB, WAYS, Way, called, check, disk, drop_caches, pattern};
use crate::support::tools;
use rustix::fs::fdatasync;
use rustix::ioctl::{Setter, ioctl, opcode};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use tempfile::TempDir;
use vmm::virtio::block::qcow2::Backing;
use vmm::virtio::block::{Block, Qcow2File};

const DISK: usize = 12 * MIB;
const SEED: u64 = 11;
const BLKZEROOUT: rustix::ioctl::Opcode = opcode::none(0x12, 127);

/// Writes, over each other, of lengths and at places that have nothing to do with clusters; zeroes
/// among them.
fn scribble(file: &File) {
    let bytes = pattern(SEED, 0);
    let mut state = SEED;
    let mut random = |most: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % most
    };
    for turn in 0..60 {
        let len = 512 * (1 + random(600));
        let place = 512 * random((DISK - len) / 512);
        if turn % 7 == 6 {
            // SAFETY: it takes a pointer to two 64-bit numbers, and keeps nothing.
            unsafe {
                ioctl(
                    file,
                    Setter::<BLKZEROOUT, [u64; 2]>::new([place as u64, len as u64]),
                )
            }
            .unwrap();
        } else {
            file.write_all_at(&bytes[random(4096)..][..len], place as u64)
                .unwrap();
        }
        if turn % 9 == 8 {
            fdatasync(file).unwrap();
        }
    }
    fdatasync(file).unwrap();
}

fn read(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; DISK];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Has QEMU look for mistakes in an image, and for differences to its raw twin.
fn is_sound(image: &Path, twin: &Path) {
    tools::expect("qemu-img", &["check", "-f", "qcow2"], &[image]);
    tools::expect(
        "qemu-img",
        &["compare", "-f", "qcow2", "-F", "raw"],
        &[image, twin],
    );
}

fn twin(folder: &TempDir, name: &str) -> std::path::PathBuf {
    let twin = folder.path().join(name);
    File::create_new(&twin)
        .unwrap()
        .set_len(DISK as u64)
        .unwrap();
    twin
}

fn scribble_on_twins() {
    let twin = disk(&called("twin"), false);
    scribble(&twin);
    for way in WAYS {
        let image = disk(&called(way.name), false);
        scribble(&image);
        drop_caches();
        assert!(read(&image) == read(&twin), "{}", way.name);
    }
}

#[test]
fn images_that_a_guest_writes_are_sound_and_equal_to_a_raw_twin() {
    init::if_guest(scribble_on_twins);
    let name = test_name!(images_that_a_guest_writes_are_sound_and_equal_to_a_raw_twin);
    if tools::lacking(name, &["qemu-img"]) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let twin = twin(&folder, "twin");
    let image = |way: Way| folder.path().join(way.name);
    let disks = |plan: &mut support::Plan| {
        let options = Qcow2File::options().create(DISK as u64);
        let disk = |way| Block::new(options.open(image(way)).unwrap());
        plan.config
            .devices
            .extend(WAYS.map(|way| way.disk(disk(way))));
        let raw = Block::open(&twin).unwrap().serial("twin").unwrap();
        plan.config.devices.push(raw.into());
    };

    let Some(ended) = support::run(name, disks, |_| {}) else {
        return;
    };

    assert_ends!(ended, Outcome::Shutdown);
    WAYS.iter().for_each(|way| is_sound(&image(*way), &twin));
}

fn scribble_on_the_overlay() {
    let overlay = disk(&called("overlay"), false);
    check(&overlay, SEED, DISK);
    let twin = disk(&called("twin"), false);
    scribble(&overlay);
    scribble(&twin);
    drop_caches();
    assert!(read(&overlay) == read(&twin));
}

#[test]
fn an_overlay_is_written_and_the_file_behind_it_stays_as_it_is() {
    init::if_guest(scribble_on_the_overlay);
    let name = test_name!(an_overlay_is_written_and_the_file_behind_it_stays_as_it_is);
    if tools::lacking(name, &["qemu-img"]) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let (base, overlay) = (folder.path().join("base"), folder.path().join("overlay"));
    let twin = twin(&folder, "twin");
    support::disk::fill(
        &File::options().write(true).open(&twin).unwrap(),
        SEED,
        DISK,
    );
    tools::expect(
        "qemu-img",
        &["convert", "-f", "raw", "-O", "qcow2"],
        &[&twin, &base],
    );
    let make = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base"];
    tools::expect("qemu-img", &make, &[&overlay]);
    let mut permissions = std::fs::metadata(&base).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&base, permissions).unwrap();
    let before = std::fs::read(&base).unwrap();
    let disks = |plan: &mut support::Plan| {
        let disk = Qcow2File::options()
            .backing(Backing::Beside)
            .open(&overlay)
            .unwrap();
        let raw = Block::open(&twin).unwrap();
        let disks = [(Block::new(disk), "overlay"), (raw, "twin")];
        let disks = disks.map(|(disk, serial)| disk.serial(serial).unwrap().into());
        plan.config.devices.extend(disks);
    };

    let Some(ended) = support::run(name, disks, |_| {}) else {
        return;
    };

    assert_ends!(ended, Outcome::Shutdown);
    assert!(
        std::fs::read(&base).unwrap() == before,
        "the base has changed"
    );
    is_sound(&overlay, &twin);
}
