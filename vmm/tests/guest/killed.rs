//! A machine whose process is killed while its guest writes: what the guest was told to be durable
//! is there, the images are sound, their locks are free, and the next guest goes on from there.
//!
//! The guest writes to a raw and a qcow2 disk by turns, and says which write is on both of them.

use super::*;
use crate::support::disk::{called, disk};
use crate::support::process::Process;
use crate::support::{amount, tools};
use rustix::fs::fdatasync;
use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use vmm::virtio::block::{Block, Qcow2File, RawFile};

/// The folder with the disks, for the process that is killed.
const FOLDER: &str = "HYPE_TEST_FOLDER";
/// From which write on the guest is to go on.
const NEXT: &str = "NEXT";
const DISK: u64 = 48 << 20;
const BLOCK: usize = 4096;
/// A write in this many clusters of an image, so that most of the first ones allocate.
const PLACES: u64 = 600;
const RAW: &str = "raw";
const QCOW2: &str = "qcow2";

/// Where the write of this number goes: over all of the disk, and over itself after a while.
fn place(number: u64) -> u64 {
    let block = number * 257 % PLACES * (DISK / BLOCK as u64 / PLACES);
    block * BLOCK as u64
}

fn block(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(BLOCK / 8)
}

/// Fails unless a disk has the writes before `next`: at each place the last of them, or one that came
/// later and was not acknowledged any more.
fn check(disk: &std::fs::File, next: u64, what: &str) {
    let last_writes: HashMap<u64, u64> = (1..next).map(|number| (place(number), number)).collect();
    let mut bytes = vec![0; BLOCK];
    for (place, number) in last_writes {
        disk.read_exact_at(&mut bytes, place).unwrap();
        let found = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        let is_later = found >= next && self::place(found) == place;
        assert!(
            (found == number || is_later) && bytes == block(found),
            "{what}: write {number} of those before {next} is lost: {found} is there"
        );
    }
}

/// The guest: checks what the earlier guests wrote, and writes until it is killed.
fn write_for_ever() {
    let next: u64 = std::env::var(NEXT).unwrap().parse().unwrap();
    let disks = [RAW, QCOW2].map(|name| disk(&called(name), false));
    check(&disks[0], next, RAW);
    check(&disks[1], next, QCOW2);
    println!("\nall there");
    for number in next.. {
        for disk in &disks {
            disk.write_all_at(&block(number), place(number)).unwrap();
            fdatasync(disk).unwrap();
        }
        println!("\ndurable {number}");
    }
}

/// The process that is killed: a machine whose console is our standard output.
fn run_until_killed(name: &str, folder: &Path) {
    let plan = |plan: &mut support::Plan| {
        let raw = Block::open(folder.join(RAW)).unwrap().serial(RAW).unwrap();
        let image = Qcow2File::options().open(folder.join(QCOW2)).unwrap();
        let image = Block::new(image).serial(QCOW2).unwrap();
        plan.config.devices.extend([raw.into(), image.into()]);
        plan.cmdline += &format!(" {NEXT}={}", std::env::var(NEXT).unwrap());
        plan.echo = true;
    };
    let ended = support::run(name, plan, |_| {}).unwrap();
    panic!("not killed but {:?}:\n{}", ended.outcome, ended.text);
}

fn start(name: &str, folder: &Path, next: u64) -> Process {
    let next = next.to_string();
    Process::start(name, &[(FOLDER, folder.as_ref()), (NEXT, next.as_ref())])
}

fn durable(victim: &mut Process) -> Option<u64> {
    victim
        .line("durable ")
        .map(|number| number.parse().unwrap())
}

/// Has a guest check the disks and write some, and kills its machine after so many writes and a bit.
/// Gives the number of the first write that was not acknowledged.
fn write_and_kill(mut victim: Process, next: u64, writes: u64, bit: Duration) -> u64 {
    let all_there = victim.line("all there");
    assert!(
        all_there.is_some(),
        "what was written before {next} is not there"
    );
    let mut last = next - 1;
    for _ in 0..writes {
        last = durable(&mut victim).unwrap();
    }
    // Not a wait for anything: it is the random moment.
    std::thread::sleep(bit);
    victim.kill();
    while let Some(later) = durable(&mut victim) {
        last = later;
    }
    last + 1
}

#[test]
fn a_machine_that_is_killed_loses_nothing_that_its_guest_was_told_to_be_durable() {
    init::if_guest(write_for_ever);
    let name =
        test_name!(a_machine_that_is_killed_loses_nothing_that_its_guest_was_told_to_be_durable);
    if let Some(folder) = std::env::var_os(FOLDER) {
        run_until_killed(name, Path::new(&folder));
    }
    if support::kernel(name).is_none() || tools::lacking(name, &["qemu-img"]) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let [raw, image] = [RAW, QCOW2].map(|name| folder.path().join(name));
    drop(RawFile::options().create(DISK).open(&raw).unwrap());
    drop(Qcow2File::options().create(DISK).open(&image).unwrap());
    let mut seed = u64::from(std::process::id());
    let mut next = 1;
    let mut leaks = 0;
    let rounds = amount("HYPE_TEST_KILLS", 5);
    for round in 0..rounds {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let bit = Duration::from_micros(seed >> 33 & 0x7fff);
        let victim = start(name, folder.path(), next);
        next = write_and_kill(victim, next, (seed >> 50) % 100, bit);

        // Who has been killed has no locks.
        drop(RawFile::options().open(&raw).unwrap());
        drop(Qcow2File::options().open(&image).unwrap());
        // 3: clusters have leaked, and all else is well.
        let checked = tools::run("qemu-img", &["check", "-f", "qcow2"], &[&image]);
        let status = checked.status.code();
        let said = String::from_utf8_lossy(&checked.stdout);
        assert!(
            matches!(status, Some(0 | 3)),
            "round {round}: {status:?}: {said}"
        );
        leaks += u64::from(status == Some(3));
        check(&std::fs::File::open(&raw).unwrap(), next, RAW);
        let copy = folder.path().join("copy");
        tools::expect(
            "qemu-img",
            &["convert", "-f", "qcow2", "-O", "raw"],
            &[&image, &copy],
        );
        check(&std::fs::File::open(&copy).unwrap(), next, QCOW2);
    }
    // The last one dies too: it only has to come up.
    write_and_kill(start(name, folder.path(), next), next, 1, Duration::ZERO);
    println!(
        "{rounds} kills, {} durable writes, {leaks} times clusters had leaked",
        next - 1
    );
}
