//! A process that is killed while it writes.
//!
//! The test runs itself again as that process. Its parent knows what was acknowledged: it is
//! told after each flush.

use super::*;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const IMAGE: &str = "HYPE_TEST_QCOW2_IMAGE";
const ROUNDS: usize = 20;
const SIZE: u64 = 64 * MIB;
/// A place on the disk, which always has one number all over.
const BLOCK: usize = 12 << 10;

/// Where the write of this number goes: over all of the disk, and over itself after a while.
fn place(number: u64) -> u64 {
    let blocks = SIZE / BLOCK as u64;
    number.wrapping_mul(2_654_435_761) % 700 * (blocks / 700) * BLOCK as u64
}

fn block(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(BLOCK / 8)
}

/// The process that is killed. When it is not run by the test below, it does nothing.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(IMAGE) else {
        return;
    };
    let disk = Qcow2File::options().open(path).unwrap();
    for number in 1.. {
        write(&disk, place(number), &block(number)).unwrap();
        if number % 5 == 0 {
            // Clusters are freed as well.
            disk.write_zeroes(SIZE - MIB + number % 16 * 65536, 65536, true)
                .unwrap();
            write(&disk, SIZE - MIB + number % 16 * 65536, &block(number)).unwrap();
        }
        disk.flush().unwrap();
        println!("\nflushed {number}");
    }
}

/// Starts the child on an image, and kills it after so many flushes and a bit. Returns the number
/// of the last write that it said was flushed.
fn run_and_kill(path: &Path, flushes: usize, bit: Duration) -> u64 {
    let mut child: Child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "--test-threads=1"])
        .arg("crash::child_that_writes_until_it_is_killed")
        .env(IMAGE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut numbers = lines.filter_map(|line| line.unwrap().strip_prefix("flushed ")?.parse().ok());
    let mut last = numbers.by_ref().take(flushes).last().unwrap();
    // Not a wait for anything: it is the random moment.
    std::thread::sleep(bit);
    child.kill().unwrap();
    child.wait().unwrap();
    if let Some(later) = numbers.last() {
        last = later;
    }
    last
}

#[test]
fn a_process_that_is_killed_loses_nothing_that_was_flushed() {
    let folder = folder();
    let mut seed = u64::from(std::process::id());
    for round in 0..ROUNDS {
        let path = folder.path().join(format!("{round}.qcow2"));
        drop(open(&Qcow2File::options().create(SIZE), &path).unwrap());
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let bit = Duration::from_micros(seed >> 33 & 0x1fff);
        let last = run_and_kill(&path, 1 + (seed >> 50) as usize % 60, bit);

        if tools::have_qemu_img() {
            // 3: clusters have leaked, and all else is well.
            let status = tools::qemu_img_status(&["check", "-f", "qcow2"], &[&path]);
            assert!(matches!(status, Some(0 | 3)), "round {round}: {status:?}");
        } else {
            eprintln!("skipped: NO qemu-img HERE: the image is not checked");
        }
        // The lock is free, and the image is an image.
        let disk = open(&Qcow2File::options(), &path).unwrap();
        for number in 1..=last {
            let newer = (number + 1..=last + 1).any(|other| place(other) == place(number));
            if !newer {
                let now = read(&disk, place(number), BLOCK).unwrap();
                assert!(
                    now == block(number),
                    "round {round}: write {number} of {last}"
                );
            }
        }
    }
}
