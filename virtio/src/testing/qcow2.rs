//! A qcow2 image, as small as they can be, to be spoiled in every way.
//!
//! It has clusters of 512 bytes and all kinds of them, one each:
//!
//! ```text
//!   cluster of the file: 0 header, 1 refcount table, 2 refcount block, 3 L1 table, 4 L2 table,
//!                        5 and 6 data, 7 compressed data
//!   cluster of the disk: 0 and 1 data ('a', 'b'), 2 compressed ('c'), 3 zero, others not there
//! ```

/// The size of a cluster.
pub const CLUSTER: usize = 512;
/// The size of the disk.
pub const DISK: u64 = 40 * CLUSTER as u64;
/// Where the L1 table is.
pub const L1: usize = 3 * CLUSTER;
/// Where the L2 table is.
pub const L2: usize = 4 * CLUSTER;
/// The bit of an entry that says that its cluster is used once.
pub const COPIED: u64 = 1 << 63;
/// The bit of an entry of an L2 table that says that its cluster is compressed.
pub const COMPRESSED: u64 = 1 << 62;

/// 512 times the letter c, deflated.
const LETTERS: [u8; 8] = [75, 78, 30, 5, 35, 25, 0, 0];

/// The image.
pub fn image() -> Vec<u8> {
    let mut image = vec![0; 8 * CLUSTER];
    put(&mut image, 0, 0x5146_49fb_0000_0003);
    put(&mut image, 20, 9 << 32);
    put(&mut image, 24, DISK);
    // No encryption, and one entry in the L1 table.
    put(&mut image, 32, 1);
    put(&mut image, 40, L1 as u64);
    put(&mut image, 48, CLUSTER as u64);
    put(&mut image, 56, 1 << 32);
    // 16 bits for a refcount.
    put(&mut image, 96, 4 << 32 | 104);
    put(&mut image, CLUSTER, 2 * CLUSTER as u64);
    for cluster in 0..8 {
        put(&mut image, 2 * CLUSTER + 2 * cluster, 1 << 48);
    }
    put(&mut image, L1, COPIED | L2 as u64);
    for (at, entry) in [
        COPIED | (5 * CLUSTER as u64),
        COPIED | (6 * CLUSTER as u64),
        COMPRESSED | (7 * CLUSTER as u64),
        1,
    ]
    .into_iter()
    .enumerate()
    {
        put(&mut image, L2 + 8 * at, entry);
    }
    for (at, byte) in image.iter_mut().enumerate().skip(5 * CLUSTER) {
        *byte = match at / CLUSTER {
            5 => b'a',
            6 => b'b',
            _ => LETTERS.get(at - 7 * CLUSTER).copied().unwrap_or(0),
        };
    }
    image
}

/// Puts a big-endian number of 8 bytes into an image. What does not fit is left out.
pub fn put(image: &mut [u8], at: usize, value: u64) {
    let place = image.iter_mut().skip(at);
    for (place, byte) in place.zip(value.to_be_bytes()) {
        *place = byte;
    }
}
