//! A qcow2 image that can't grow for a while, from each of many lengths on: be it data or tables
//! that there is no room for, nothing acknowledged is lost, the image stays sound, and once there is
//! room, all works again. Alone in its file: the limit is the whole process's.

#![allow(
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and says what it skips"
)]

#[path = "qcow2/tools.rs"]
#[allow(dead_code, reason = "another test program uses all of it")]
mod tools;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use tools::{open, qemu_img_or_skip, qemu_img_status};
use virtio::block::{BlockStorage, Qcow2File};
use vm_memory::VolatileSlice;

const DISK: u64 = 16 << 20;
const CLUSTER: u64 = 64 << 10;
const PAGE: usize = 4096;

/// Does something with a limit of the length of files.
fn limited<R>(len: u64, act: impl FnOnce() -> R) -> R {
    let before = getrlimit(Resource::Fsize);
    let current = Some(len);
    setrlimit(Resource::Fsize, Rlimit { current, ..before }).unwrap();
    let result = act();
    setrlimit(Resource::Fsize, before).unwrap();
    result
}

/// Each write is in a cluster of its own.
fn place(number: u64) -> u64 {
    number * CLUSTER
}

fn write(disk: &Qcow2File, number: u64) -> io::Result<()> {
    let mut page = [number as u8 + 1; PAGE];
    let page = VolatileSlice::from(page.as_mut_slice());
    match disk.write_vectored_at(&[page], place(number))? {
        PAGE => Ok(()),
        // The rest is for the next call, which a limit has something to say to.
        count => {
            let rest = page.subslice(count, PAGE - count).unwrap();
            let more = disk.write_vectored_at(&[rest], place(number) + count as u64)?;
            assert_eq!(count + more, PAGE);
            Ok(())
        }
    }
}

fn check(disk: &Qcow2File, number: u64) {
    let mut page = [0; PAGE];
    let slice = VolatileSlice::from(page.as_mut_slice());
    let count = disk.read_vectored_at(&[slice], place(number)).unwrap();
    assert_eq!(count, PAGE);
    assert!(
        page == [number as u8 + 1; PAGE],
        "write {number}: {}",
        page[0]
    );
}

#[test]
fn an_image_that_cannot_grow_for_a_while_loses_nothing() {
    qemu_img_or_skip!();
    // As a disk's worker does: it would end the process.
    vmm_sys_util::signal::block_signal(libc::SIGXFSZ).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    let mut failures = 0;
    for pages in (0..480).step_by(11) {
        let disk = open(&Qcow2File::options().create(DISK), &path).unwrap();
        let limit = std::fs::metadata(&path).unwrap().len() + pages * PAGE as u64;

        let (acknowledged, flushed) = limited(limit, || {
            let full = (0..20).find(|number| write(&disk, *number).is_err());
            (full.unwrap_or(20), disk.flush())
        });
        failures += u32::from(acknowledged < 20);

        for number in acknowledged..acknowledged + 3 {
            write(&disk, number).unwrap();
        }
        disk.flush()
            .unwrap_or_else(|error| panic!("{limit}: after {flushed:?}: {error}"));
        drop(disk);
        // 3: clusters have leaked, and all else is well.
        let status = qemu_img_status(&["check", "-f", "qcow2"], &[&path]);
        assert!(matches!(status, Some(0 | 3)), "{limit}: {status:?}");
        let disk = open(&Qcow2File::options(), &path).unwrap();
        (0..acknowledged + 3).for_each(|number| check(&disk, number));
        drop(disk);
        std::fs::remove_file(&path).unwrap();
    }
    assert!(failures > 0, "there was always room");
}
