//! A host that lets its guest's disks down while they are used: it is full, a file is cut short or
//! removed, a limit is met, a storage fails, dawdles, or never answers. The guest has an I/O error for
//! what can't be done, and all else goes on.

use super::*;
use crate::support::disk::{MIB, called, disk};
use crate::support::tools;
use rustix::fs::fdatasync;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vmm::State;
use vmm::virtio::block::{Block, MemoryDisk, Qcow2File, RawFile};
use vmm::virtio::rng::Rng;
use vmm::virtio::testing::{Fault, Faults, Faulty};

const EIO: i32 = 5;
const PAGE: usize = 4096;

/// A page that is aligned for direct I/O.
#[repr(align(4096))]
struct Page([u8; PAGE]);

fn page(byte: u8) -> Box<Page> {
    Box::new(Page([byte; PAGE]))
}

/// Fails unless there was an I/O error.
fn assert_eio<T: std::fmt::Debug>(result: io::Result<T>) {
    assert_eq!(result.unwrap_err().raw_os_error(), Some(EIO));
}

/// A direct read, to which no cache answers.
fn read(disk: &File, offset: u64) -> io::Result<u8> {
    let mut page = page(0xee);
    disk.read_exact_at(&mut page.0, offset)?;
    let first = page.0[0];
    assert!(page.0.iter().all(|byte| *byte == first));
    Ok(first)
}

fn write(disk: &File, offset: u64, byte: u8) -> io::Result<()> {
    disk.write_all_at(&page(byte).0, offset)
}

/// Tells the host something, and waits until it has done its part.
fn tell_and_wait(what: &str) {
    println!("\n{what}");
    let mut line = String::new();
    io::stdin().read_line(&mut line).unwrap();
}

/// The other side of it.
fn await_and_do(host: &mut Host, what: &str, act: impl FnOnce()) {
    host.expect(what);
    act();
    host.type_bytes(b"\n");
}

/// A small file system that goes with the test. None, said loudly, where none can be mounted.
struct Small(TempDir);

impl Small {
    fn mount(test: &str, options: &std::ffi::CStr) -> Option<Small> {
        let folder = TempDir::new().unwrap();
        match mount(
            "tmpfs",
            folder.path(),
            "tmpfs",
            MountFlags::empty(),
            Some(options),
        ) {
            Ok(()) => Some(Small(folder)),
            Err(error) => {
                assert!(
                    std::env::var_os("HYPE_REQUIRE_KVM").is_none(),
                    "{test}: {error}"
                );
                eprintln!("skipped: {test}: mounting a tmpfs: {error}");
                None
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// Writes MiB after MiB until the host is full. Returns how many there are.
fn fill_up(disk: &File, byte: u8) -> u8 {
    let place = |number: u8| u64::from(number) * MIB as u64;
    let full = (0..).find(|number| write(disk, place(*number), byte).is_err());
    let full = full.unwrap();
    assert_eio(write(disk, place(full), byte));
    full
}

fn meet_a_full_host() {
    for (name, byte) in [("raw", 1), ("qcow2", 2)] {
        let disk = disk(&called(name), true);
        let full = fill_up(&disk, byte);
        assert!(full > 0);
        // An image may lack the room for its tables as well.
        let flushed = disk.sync_data();
        println!("\n{name}: {full} pages, then {flushed:?}");
        tell_and_wait(&format!("{name} is full"));
        for number in 0..full + 2 {
            let place = u64::from(number) * MIB as u64;
            if number >= full {
                write(&disk, place, byte).unwrap();
            }
            assert_eq!(read(&disk, place).unwrap(), byte, "{name}: {number}");
        }
        fdatasync(&disk).unwrap();
    }
}

#[test]
fn a_full_host_is_an_io_error_until_there_is_room_again() {
    init::if_guest(meet_a_full_host);
    let name = test_name!(a_full_host_is_an_io_error_until_there_is_room_again);
    if tools::lacking(name, &["qemu-img"]) {
        return;
    }
    // Each write of a page in a MiB of its own takes a page of the raw file's, and a cluster of the
    // image's.
    let small = [c"size=96k", c"size=1200k"].map(|options| Small::mount(name, options));
    let [Some(raw), Some(image)] = small else {
        return;
    };
    const DISK: u64 = 64 * MIB as u64;
    let ballast = |small: &Small, len: usize| {
        std::fs::write(small.path("ballast"), vec![1; len]).unwrap();
    };
    ballast(&raw, 64 << 10);
    ballast(&image, 512 << 10);
    let disks = |plan: &mut support::Plan| {
        let disk = RawFile::options()
            .create(DISK)
            .open(raw.path("disk"))
            .unwrap();
        let raw = Block::new(disk).serial("raw").unwrap();
        let disk = Qcow2File::options()
            .create(DISK)
            .open(image.path("disk"))
            .unwrap();
        let image = Block::new(disk).serial("qcow2").unwrap();
        plan.config.devices.extend([raw.into(), image.into()]);
    };
    let make_room = |host: &mut Host| {
        for (name, small) in [("raw", &raw), ("qcow2", &image)] {
            let remove = || std::fs::remove_file(small.path("ballast")).unwrap();
            await_and_do(host, &format!("{name} is full"), remove);
        }
    };

    let Some(ended) = support::run(name, disks, make_room) else {
        return;
    };

    assert_ends!(ended, Outcome::Shutdown);
    println!("{}", ended.text);
    // 3: clusters have leaked, and all else is well.
    let checked = tools::run(
        "qemu-img",
        &["check", "-f", "qcow2"],
        &[&image.path("disk")],
    );
    assert!(matches!(checked.status.code(), Some(0 | 3)), "{checked:?}");
}

fn meet_files_that_change() {
    const LAST: u64 = 7 * MIB as u64;
    let cut = disk(&called("cut"), true);
    assert_eq!(read(&cut, LAST).unwrap(), 0);
    write(&cut, LAST, 1).unwrap();
    tell_and_wait("cut it");
    assert_eio(read(&cut, LAST));
    write(&cut, 0, 2).unwrap();
    assert_eq!(read(&cut, 0).unwrap(), 2);
    tell_and_wait("make it longer");
    assert_eq!(read(&cut, LAST).unwrap(), 0);
    let size = support::read_to_string(&format!("/sys/block/{}/size", called("cut")));
    assert_eq!(size.trim(), (8 * MIB / 512).to_string());

    let removed = disk(&called("removed"), true);
    write(&removed, LAST, 3).unwrap();
    tell_and_wait("remove it");
    assert_eq!(read(&removed, LAST).unwrap(), 3);
    write(&removed, LAST, 4).unwrap();
    fdatasync(&removed).unwrap();
    assert_eq!(read(&removed, LAST).unwrap(), 4);
}

#[test]
fn a_file_may_be_cut_short_made_longer_and_removed() {
    init::if_guest(meet_files_that_change);
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let resize = |len: usize| {
        let file = File::options().write(true).open(path("cut")).unwrap();
        file.set_len(len as u64).unwrap();
    };
    let disks = |plan: &mut support::Plan| {
        let disks = ["cut", "removed"].map(|name| {
            let disk = RawFile::options()
                .create(8 * MIB as u64)
                .open(path(name))
                .unwrap();
            Block::new(disk).serial(name).unwrap().into()
        });
        plan.config.devices.extend(disks);
    };
    let change = |host: &mut Host| {
        await_and_do(host, "cut it", || resize(4 * MIB));
        await_and_do(host, "make it longer", || resize(16 * MIB));
        await_and_do(host, "remove it", || {
            std::fs::remove_file(path("removed")).unwrap()
        });
    };

    let name = test_name!(a_file_may_be_cut_short_made_longer_and_removed);
    let Some(ended) = support::run(name, disks, change) else {
        return;
    };

    assert_ends!(ended, Outcome::Shutdown);
    assert_eq!(
        std::fs::metadata(path("cut")).unwrap().len(),
        16 * MIB as u64
    );
}

/// More than any other test's file has, for the limit is for all of the process.
const LIMIT: u64 = 1 << 40;

/// Has the limit of a file's length while it lives.
struct Limited(Rlimit);

impl Limited {
    fn new() -> Limited {
        let before = getrlimit(Resource::Fsize);
        let current = Some(LIMIT);
        setrlimit(Resource::Fsize, Rlimit { current, ..before }).unwrap();
        Limited(before)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        setrlimit(Resource::Fsize, self.0).unwrap();
    }
}

fn meet_the_limit_of_a_file() {
    let disk = disk("vda", true);
    write(&disk, LIMIT - PAGE as u64, 1).unwrap();
    // The signal that comes with it would end the process.
    assert_eio(write(&disk, LIMIT, 2));
    assert_eq!(read(&disk, LIMIT - PAGE as u64).unwrap(), 1);
    assert_eq!(read(&disk, LIMIT).unwrap(), 0);
    write(&disk, 0, 3).unwrap();
    fdatasync(&disk).unwrap();
}

#[test]
fn a_limit_of_the_length_of_files_is_an_io_error() {
    init::if_guest(meet_the_limit_of_a_file);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("disk");
    drop(
        RawFile::options()
            .create(LIMIT + MIB as u64)
            .open(&path)
            .unwrap(),
    );
    let limited = Limited::new();
    let disks = |plan: &mut support::Plan| {
        plan.config.devices.push(Block::open(&path).unwrap().into());
    };

    let name = test_name!(a_limit_of_the_length_of_files_is_an_io_error);
    let Some(ended) = support::run(name, disks, |_| {}) else {
        return;
    };

    drop(limited);
    assert_ends!(ended, Outcome::Shutdown);
}

/// A storage that fails when it is told to.
fn faulty() -> (Faulty<MemoryDisk>, Faults) {
    Faulty::new(MemoryDisk::new(4 * MIB as u64).unwrap())
}

fn meet_a_storage_that_fails() {
    let disk = disk("vda", true);
    write(&disk, 0, 1).unwrap();
    tell_and_wait("fail a read");
    assert_eio(read(&disk, 0));
    assert_eq!(read(&disk, 0).unwrap(), 1);
    tell_and_wait("fail a write");
    let error = write(&disk, 0, 2).unwrap_err().raw_os_error();
    assert_eq!(error, Some(EIO));
    assert_eq!(read(&disk, 0).unwrap(), 1);
    tell_and_wait("be short");
    assert_eq!(read(&disk, 0).unwrap(), 1);
    tell_and_wait("be short once more");
    write(&disk, 0, 3).unwrap();
    assert_eq!(read(&disk, 0).unwrap(), 3);
    tell_and_wait("fail a flush");
    assert_eio(disk.sync_data());
    fdatasync(&disk).unwrap();
    tell_and_wait("be slow");
    assert_eq!(read(&disk, 0).unwrap(), 3);
    println!("\nanswered");
}

#[test]
fn a_storage_that_fails_costs_a_request_and_one_that_is_short_or_slow_none() {
    init::if_guest(meet_a_storage_that_fails);
    let (storage, faults) = faulty();
    let disk = |plan: &mut support::Plan| plan.config.devices.push(Block::new(storage).into());
    let fail = |host: &mut Host| {
        let plan = [
            ("fail a read", vec![Fault::Error(EIO)]),
            ("fail a write", vec![Fault::Error(28)]),
            (
                "be short",
                vec![
                    Fault::Short(512),
                    Fault::Short(1),
                    Fault::Error(4),
                    Fault::Error(11),
                ],
            ),
            (
                "be short once more",
                vec![Fault::Short(1), Fault::Error(11), Fault::Short(512)],
            ),
            ("fail a flush", vec![Fault::Error(EIO)]),
            ("be slow", vec![Fault::Wait]),
        ];
        for (what, plan) in plan {
            await_and_do(host, what, || faults.plan(plan));
        }
        faults.until_waiting();
        assert!(!host.shown().contains("answered"));
        faults.release();
        host.expect("answered");
    };

    let name = test_name!(a_storage_that_fails_costs_a_request_and_one_that_is_short_or_slow_none);
    let Some(ended) = support::run(name, disk, fail) else {
        return;
    };

    assert_ends!(ended, Outcome::Shutdown);
}

fn go_on_without_a_disk() {
    let sound = disk(&called("sound"), true);
    let stuck = disk(&called("stuck"), true);
    tell_and_wait("never answer");
    std::thread::spawn(move || read(&stuck, 0));
    tell_and_wait("does it wait?");
    write(&sound, 0, 1).unwrap();
    assert_eq!(read(&sound, 0).unwrap(), 1);
    let mut bytes = [0; 32];
    io::Read::read_exact(&mut File::open("/dev/hwrng").unwrap(), &mut bytes).unwrap();
    tell_and_wait("all else goes on");
    unreachable!("nobody types that line");
}

#[test]
fn a_storage_that_never_answers_holds_up_neither_other_devices_nor_the_end() {
    init::if_guest(go_on_without_a_disk);
    let (storage, faults) = faulty();
    let disks = |plan: &mut support::Plan| {
        let stuck = Block::new(storage).serial("stuck").unwrap();
        let sound = Block::new(MemoryDisk::new(MIB as u64).unwrap());
        let sound = sound.serial("sound").unwrap();
        plan.config
            .devices
            .extend([stuck.into(), sound.into(), Rng::new().into()]);
    };
    let stop = |host: &mut Host| {
        await_and_do(host, "never answer", || faults.plan([Fault::Wait]));
        await_and_do(host, "does it wait?", || faults.until_waiting());
        host.expect("all else goes on");
        let asked = Instant::now();
        host.handle.stop();
        assert_eq!(host.handle.wait_for(State::Stopped), State::Stopped);
        let time = asked.elapsed();
        assert!(time < Duration::from_secs(5), "stopped after {time:?}");
    };

    let name = test_name!(a_storage_that_never_answers_holds_up_neither_other_devices_nor_the_end);
    let Some(ended) = support::run(name, disks, stop) else {
        return;
    };

    assert_ends!(ended, Outcome::Stopped);
    faults.release();
}
