//! A qcow2 image that somebody has tampered with.
//!
//! The input spoils a small sound image, at places that mean something or at any, and then uses it
//! as a disk: reads, writes, zeroes, discards and flushes. Any of it may fail, and none may crash,
//! hang or take memory without bounds, nor room in the file for more than what was done. Of an image that is still sound, nothing fails, and what is
//! read is what a model says.

#![no_main]

use hype_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::LazyLock;
use virtio::block::{BlockStorage, Qcow2File};
use virtio::testing::qcow2::{CLUSTER, DISK, L1, L2, image, put};
use vm_memory::VolatileSlice;

/// A file without a name, which leaves nothing behind.
static FILE: LazyLock<OwnedFd> =
    LazyLock::new(|| memfd_create(c"qcow2", MemfdFlags::CLOEXEC).expect("scratch file"));
static PATH: LazyLock<PathBuf> =
    LazyLock::new(|| format!("/proc/self/fd/{}", FILE.as_raw_fd()).into());

/// The sound image, made once.
static IMAGE: LazyLock<Vec<u8>> = LazyLock::new(image);

/// How much room a request may take in the file: for its 4 KiB, for tables, and for those of the
/// refcounts.
const PER_REQUEST: u64 = 16 << 10;

/// A place in the image: a field of the header, an entry of a table, or anywhere.
fn place(input: &mut Input<'_>) -> usize {
    let [choice, at] = [input.byte(), input.byte()].map(usize::from);
    match choice % 6 {
        0 => at % 29 * 4,
        1 => CLUSTER + at % 4 * 8,
        2 => 2 * CLUSTER + at % 16 * 2,
        3 => L1 + at % 4 * 8,
        4 => L2 + at % 64 * 8,
        _ => (choice / 6) << 8 | at,
    }
}

/// A number that may mean something: near to a cluster of the file, with flags or without.
fn value(input: &mut Input<'_>) -> u64 {
    let flags = [0, 1 << 63, 1 << 62, 1, 3 << 62, 1 << 63 | 1];
    let choice = usize::from(input.byte());
    match choice {
        0..192 => flags[choice % 6] | (input.number(1) % 20) << 9,
        192..224 => input.number(2),
        _ => input.number(8),
    }
}

/// What the bytes of the disk are; `None` is anything.
struct Model(Vec<Option<u8>>);

/// What was done to some of them.
enum Now {
    Read,
    Is(u8),
    Any,
}

impl Model {
    fn new() -> Self {
        let mut bytes = vec![Some(0); DISK as usize];
        for (cluster, byte) in bytes.chunks_exact_mut(CLUSTER).zip(*b"abc") {
            cluster.fill(Some(byte));
        }
        Model(bytes)
    }

    fn follow(&mut self, at: usize, read: &[u8], now: Now) {
        let known = &mut self.0[at..][..read.len()];
        match now {
            Now::Read => {
                for (known, byte) in known.iter().zip(read) {
                    assert!(known.is_none_or(|known| known == *byte), "near {at}");
                }
            }
            Now::Is(byte) => known.fill(Some(byte)),
            Now::Any => known.fill(None),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut bytes = IMAGE.clone();
    let choices = input.byte();
    for _ in 0..choices % 8 {
        let at = place(&mut input);
        match input.number(1) % 3 {
            0 => put(&mut bytes, at, value(&mut input)),
            1 => {
                let half = (value(&mut input) as u32).to_be_bytes();
                let end = (at + 4).min(bytes.len());
                if let Some(to) = bytes.get_mut(at..end) {
                    to.copy_from_slice(&half[..to.len()]);
                }
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= input.byte();
                }
            }
        }
    }
    if choices & 64 != 0 {
        bytes.truncate(input.number(2) as usize);
    }
    fs::write(&*PATH, &bytes).expect("scratch file");
    let read_only = choices & 128 != 0;
    let Ok(disk) = Qcow2File::options().read_only(read_only).open(&*PATH) else {
        return;
    };
    let size = disk.properties().size;
    let mut model = (choices & 71 == 0).then(Model::new);
    let mut buffer = vec![0; 8 * CLUSTER];
    let mut done = 0;
    while !input.is_empty() {
        let kind = input.number(1);
        let at = match kind & 128 {
            0 => input.number(1) * 512 % (DISK + 512),
            _ => input.number(8) / 512 * 512,
        };
        let len = (input.number(1) % 8 + 1) * 512;
        if at.checked_add(len).is_none_or(|end| end > size) {
            continue;
        }
        done += 1;
        let fill = input.byte();
        let bytes = &mut buffer[..len as usize];
        bytes.fill(fill);
        let (first, second) = bytes.split_at_mut(len as usize / 3);
        let buffers = [VolatileSlice::from(first), VolatileSlice::from(second)];
        let (result, now) = match kind % 8 {
            0..3 => (disk.read_vectored_at(&buffers, at), Now::Read),
            _ if read_only => continue,
            3 | 4 => (disk.write_vectored_at(&buffers, at), Now::Is(fill)),
            5 => (disk.discard(at, len).map(|()| len as usize), Now::Any),
            6 => {
                let result = disk.write_zeroes(at, len, kind & 64 != 0);
                (result.map(|()| len as usize), Now::Is(0))
            }
            _ => (disk.flush().map(|()| 0), Now::Any),
        };
        if let Some(model) = &mut model {
            let count = result.expect("a sound image");
            model.follow(at as usize, &bytes[..count], now);
        }
    }
    drop(disk);
    let taken = fs::metadata(&*PATH).expect("scratch file").blocks() * 512;
    let most = (1 << 20) + done * PER_REQUEST;
    assert!(
        taken < most,
        "{taken} bytes for {done} requests to a disk of {size}"
    );
});
