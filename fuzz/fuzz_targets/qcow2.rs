//! A qcow2 image that somebody has tampered with.
//!
//! The input spoils a small sound image, at places that mean something or at any, and then uses it
//! as a disk: reads, writes, zeroes, discards and flushes. Any of it may fail, and none may crash,
//! hang or take memory without bounds.

#![no_main]

use hype_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::LazyLock;
use virtio::block::{BlockStorage, Qcow2File};
use virtio::testing::qcow2::{CLUSTER, DISK, L1, L2, image, put};
use vm_memory::VolatileSlice;

static PATH: LazyLock<PathBuf> =
    LazyLock::new(|| format!("/dev/shm/hype-fuzz-qcow2-{}", std::process::id()).into());

/// The sound image, made once.
static IMAGE: LazyLock<Vec<u8>> = LazyLock::new(image);

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
    let mut buffer = vec![0; 8 * CLUSTER];
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
        let (first, second) = buffer[..len as usize].split_at_mut(len as usize / 3);
        let buffers = [VolatileSlice::from(first), VolatileSlice::from(second)];
        let _ = match kind % 8 {
            0..3 => disk.read_vectored_at(&buffers, at).map(|_| ()),
            _ if read_only => Ok(()),
            3 | 4 => disk.write_vectored_at(&buffers, at).map(|_| ()),
            5 => disk.discard(at, len),
            6 => disk.write_zeroes(at, len, kind & 64 != 0),
            _ => disk.flush(),
        };
    }
    drop(disk);
    let taken = fs::metadata(&*PATH).expect("scratch file").blocks() * 512;
    assert!(taken < 1 << 20, "{taken} bytes for a disk of {size}");
});
