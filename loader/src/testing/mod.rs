//! What the tests of this crate share: synthetic images, memory, and errors as one line.

pub(crate) mod images;

use std::error::Error as _;
use std::fs::File;
use std::io::Write;
use std::ops::Range;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::{Boot, Error, Payload, Platform, Source};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// RAM in these ranges. Not touched, it costs nothing.
pub(crate) fn ram(ranges: &[Range<u64>]) -> GuestMemoryMmap {
    let ranges = ranges
        .iter()
        .map(|r| (GuestAddress(r.start), (r.end - r.start) as usize));
    GuestMemoryMmap::from_ranges(&ranges.collect::<Vec<_>>()).unwrap()
}

/// An unnamed file with this content.
pub(crate) fn file(content: &[u8]) -> Source {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file.into()
}

/// An unnamed file of this length, without content.
pub(crate) fn sparse(length: u64) -> Source {
    let file: File = tempfile::tempfile().unwrap();
    file.set_len(length).unwrap();
    file.into()
}

pub(crate) fn load(payload: &Payload, memory: &GuestMemoryMmap) -> Result<Boot, Error> {
    let loaded = crate::load(payload, memory, &Platform::default());
    loaded.map_err(|mut errors| errors.remove(0))
}

/// Loads a kernel alone into 64 MiB.
pub(crate) fn load_image(image: &[u8]) -> Result<Boot, Error> {
    load(&Payload::linux(file(image)), &ram(&[0..64 * MIB]))
}

/// The whole chain of an error in one line.
pub(crate) fn chain(error: &Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        line = format!("{line}: {error}");
        source = error.source();
    }
    line
}

/// Why an image cannot be loaded into 64 MiB.
pub(crate) fn refusal(image: &[u8]) -> String {
    chain(&load_image(image).expect_err("the image was loaded"))
}

pub(crate) fn bytes(memory: &GuestMemoryMmap, address: u64, length: usize) -> Vec<u8> {
    let mut buffer = vec![0; length];
    memory
        .read_slice(&mut buffer, GuestAddress(address))
        .unwrap();
    buffer
}

pub(crate) fn word(memory: &GuestMemoryMmap, address: u64) -> u64 {
    memory.read_obj(GuestAddress(address)).unwrap()
}

/// Says that a test did not run, on the real stderr: what `eprintln` says of a passing test is not shown.
pub(crate) fn skipped(why: &str) {
    writeln!(std::io::stderr(), "skipped: {why}").unwrap();
}
