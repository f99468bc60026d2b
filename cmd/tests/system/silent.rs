//! A file system that stops to answer: FUSE, whose server is the test (Linux's `linux/fuse.h`).
//!
//! It has one file, `disk`, of zeroes. A read of its second half is taken and never answered, which
//! is what a network file system does whose server is gone. Once the server hangs up, the kernel
//! fails what still waits.

use super::terminal::Terminal;
use super::{FAILURE, Guest, QUIET, guest};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::pipe::{PipeFlags, pipe_with};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The length of the file.
pub const LEN: u64 = 8 << 20;
/// From where on reads are not answered.
const SILENCE: u64 = LEN / 2;

// Nodes, opcodes and flags of the protocol.
const ROOT: u64 = 1;
const DISK: u64 = 2;
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
const ASYNC_READ: u64 = 1;
const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;
/// What a read or a write of the device has at most: a header and the largest read.
const BUFFER: usize = 1 << 20;

/// The mounted file system, which goes with the test.
pub struct Silent {
    folder: TempDir,
    kept: Receiver<u64>,
    server: Option<(OwnedFd, JoinHandle<()>)>,
}

impl Silent {
    /// Mounts it, for root alone.
    pub fn mount() -> Silent {
        let folder = TempDir::new().unwrap();
        let device = File::options()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open("/dev/fuse")
            .unwrap();
        let fd = device.as_raw_fd();
        let options = format!("fd={fd},rootmode=40000,user_id=0,group_id=0");
        let options = CString::new(options).unwrap();
        let path = folder.path();
        mount("silent", path, "fuse", MountFlags::RDONLY, &*options).unwrap();
        let (kept_here, kept) = channel();
        let (hung_up, hang_up) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let server = thread::spawn(move || serve(device, &hung_up, &kept_here));
        Silent {
            folder,
            kept,
            server: Some((hang_up, server)),
        }
    }

    /// The file.
    pub fn disk(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Waits until there is a read that is not answered.
    pub fn until_kept(&self) {
        self.kept.recv().unwrap();
    }

    /// Fails all that waits.
    pub fn hang_up(&mut self) {
        if let Some((hang_up, server)) = self.server.take() {
            drop(hang_up);
            server.join().unwrap();
        }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.hang_up();
        let _ = unmount(self.folder.path(), UnmountFlags::DETACH);
    }
}

/// Answers until the other end of `hung_up` is closed.
fn serve(mut device: File, hung_up: &OwnedFd, kept: &Sender<u64>) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let mut waiting = [
            PollFd::new(&device, PollFlags::IN),
            PollFd::new(hung_up, PollFlags::IN),
        ];
        poll(&mut waiting, None).unwrap();
        if !waiting[1].revents().is_empty() {
            return;
        }
        match device.read(&mut buffer) {
            Ok(len) => {
                if let Some(answer) = answer(&buffer[..len], kept) {
                    // Who asked may have given up meanwhile.
                    let _ = device.write(&answer);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Unmounted.
            Err(_) => return,
        }
    }
}

fn answer(request: &[u8], kept: &Sender<u64>) -> Option<Vec<u8>> {
    let word = |at: usize| u32::from_le_bytes(request[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_le_bytes(request[at..at + 8].try_into().unwrap());
    let (opcode, unique, node) = (word(4), long(8), long(16));
    let body = match opcode {
        FORGET | BATCH_FORGET | INTERRUPT => return None,
        // Version 7.31, and what is not said is 0.
        INIT => Ok(numbers(&[
            (7, 4),
            (31, 4),
            (128 << 10, 4),
            (ASYNC_READ, 4),
            (0, 48),
        ])),
        LOOKUP if &request[40..] == b"disk\0" => {
            Ok([numbers(&[(DISK, 8), (0, 32)]), attributes(DISK)].concat())
        }
        LOOKUP => Err(ENOENT),
        GETATTR => Ok([numbers(&[(0, 16)]), attributes(node)].concat()),
        OPEN => Ok(numbers(&[(0, 16)])),
        READ if long(48) >= SILENCE => {
            kept.send(unique).unwrap();
            return None;
        }
        READ => Ok(vec![0; word(56) as usize]),
        _ => Err(ENOSYS),
    };
    let (error, body) = match body {
        Ok(body) => (0, body),
        Err(error) => (error, Vec::new()),
    };
    let mut answer = numbers(&[(16 + body.len() as u64, 4)]);
    answer.extend((-error).to_le_bytes());
    answer.extend(unique.to_le_bytes());
    answer.extend(body);
    Some(answer)
}

/// A `struct fuse_attr`: inode, size, blocks and times, mode, links and owner.
fn attributes(node: u64) -> Vec<u8> {
    let (mode, len) = match node {
        ROOT => (0o040_755, 0),
        _ => (0o100_444, LEN),
    };
    let times = (0, 3 * 8 + 3 * 4);
    numbers(&[
        (node, 8),
        (len, 8),
        (len / 512, 8),
        times,
        (mode, 4),
        (1, 4),
        (0, 20),
    ])
}

/// Numbers with their lengths in bytes, one behind the other.
fn numbers(fields: &[(u64, usize)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (value, len) in fields {
        let end = bytes.len() + len;
        bytes.extend(&value.to_le_bytes()[..(*len).min(8)]);
        bytes.resize(end, 0);
    }
    bytes
}

/// Boots with a disk on a file system that stops to answer, has the guest read there, sees that all
/// else goes on, and asks hype to end.
fn terminated_with_a_silent_disk(guest: &Guest, silent: &Silent, keys: &str) -> Terminal {
    let disk = format!("{},ro=on{keys}", silent.disk().display());
    let mut terminal = guest.boot(&[
        "-block", &disk, "-block", "mem:1M", "-grace", "1", "-cmdline", QUIET,
    ]);
    terminal.type_line("dd if=/dev/vda of=/dev/null bs=4k skip=1500 count=1 &");
    silent.until_kept();
    terminal.type_line("dd if=/dev/vdb of=/dev/null bs=4k count=1 && echo it goes o$((0))n");
    terminal.expect("it goes o0n");
    terminal.signal("TERM");
    terminal
}

/// The grace of above, the patience with the disk, and some for an emulated host.
const END: Duration = Duration::from_secs(10);

#[test]
fn a_disk_that_never_answers_holds_up_neither_other_devices_nor_the_end() {
    let Some(guest) = guest("a_disk_that_never_answers") else {
        return;
    };
    let silent = Silent::mount();
    let start = Instant::now();

    let mut terminal = terminated_with_a_silent_disk(&guest, &silent, "");

    let asked = Instant::now();
    assert_eq!(terminal.wait_for(END), Some(FAILURE), "{}", terminal.text());
    println!(
        "up after {:?}, ended in {:?}",
        asked - start,
        asked.elapsed()
    );
    let line = "disk0: left waiting for the host";
    assert!(terminal.text().contains(line), "{}", terminal.text());
    assert!(terminal.is_as_it_was(), "the terminal is not restored");
}

/// Past the page cache, Linux has a thread wait for a server of FUSE's without regard to any signal
/// once that has the request. Until it hangs up there is a process, of which that is all that is
/// left.
#[test]
fn a_disk_that_the_kernel_waits_for_costs_the_end_of_the_process_and_not_the_machines() {
    let Some(guest) = guest("a_disk_that_the_kernel_waits_for") else {
        return;
    };
    let mut silent = Silent::mount();

    let mut terminal = terminated_with_a_silent_disk(&guest, &silent, ",direct=on");

    terminal.expect("the guest did not power off when asked, and was stopped");
    assert!(terminal.is_as_it_was(), "the terminal is not restored");
    let asked = Instant::now();
    silent.hang_up();
    println!("hung up in {:?}", asked.elapsed());
    assert_eq!(terminal.wait_for(END), Some(FAILURE), "{}", terminal.text());
    println!("ended in {:?}", asked.elapsed());
}
