//! The block device (virtio 1.2, 5.2): a disk in the guest, a [`BlockStorage`] behind it.
//!
//! # The problem
//!
//! A disk has to be fast, and it has to be right when things go wrong: the host's disk is full, a
//! request is nonsense, the machine is stopped with a hundred requests in the ring. And whoever
//! embeds hype may keep the bytes where they like.
//!
//! # The design
//!
//! ```text
//!   Chain --request--> Operation or status     the whole chain is looked at before a byte is moved
//!              |
//!          transfer                            data: slices of guest memory, no copy of ours
//!              |
//!        BlockStorage                          file (raw file, block device), qcow2, memory, HTTP, the embedder's
//! ```
//!
//! * The device's worker does the host I/O itself, one request after the other, with positioned
//!   vectored calls: a read of 4 KiB is one `preadv`, and nobody is woken on the way. A thread that
//!   only passes requests on would have to be woken for each, and to wake in turn.
//! * A disk can have [several queues](Block::queues), each with a thread that does all of this
//!   (`requests.rs`). They share the storage and nothing that is written to for each request.
//! * So a worker may hang in the host for as long as the host likes, say on a network file system
//!   that has lost its server. The vCPUs and the other devices don't notice. What the worker's stop
//!   makes of it is told in [`worker`](crate::worker): it waits a bounded time.
//! * A stop comes before the next request ([`Io::drain`] sees to that), and so does a change of the
//!   cache's mode: who switches it off and then writes has that write flushed.
//! * Nothing here allocates or locks for a request.
//!
//! # Durability
//!
//! A completed write may be in the host's page cache until the driver's next flush (`writeback`),
//! unless the driver has switched that off or does not know flushes: then each write is flushed
//! before it completes. A flush that has failed fails for good ([`RawFile`] says why).
//!
//! # What it does not do
//!
//! Secure erase, lifetime metrics and zones. And it does not limit the rate of requests.

mod config;
mod error;
pub mod file;
#[cfg(feature = "http")]
pub mod http;
pub mod memory;
pub mod qcow2;
mod request;
mod requests;
pub mod storage;
mod sys;
#[cfg(test)]
mod tests;
mod transfer;

pub use error::Error;
pub use file::RawFile;
#[cfg(feature = "http")]
pub use http::HttpDisk;
pub use memory::MemoryDisk;
pub use qcow2::Qcow2File;
pub use storage::{BlockStorage, Properties};

use crate::{ConfigSpace, Device, Event, Io, Kind, Lane, Spec};
use config::{Geometry, WRITEBACK};
use requests::{Disk, Requests};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// Requests are for whole sectors of this size, whatever the size of a block is (5.2.4).
pub const SECTOR: u64 = 512;

/// `VIRTIO_BLK_F_SEG_MAX`: the configuration space limits the number of data buffers.
const F_SEG_MAX: u64 = 1 << 2;
/// `VIRTIO_BLK_F_RO`: nothing can be written.
const F_RO: u64 = 1 << 5;
/// `VIRTIO_BLK_F_BLK_SIZE`: the configuration space has the size of a block.
const F_BLK_SIZE: u64 = 1 << 6;
/// `VIRTIO_BLK_F_FLUSH`: the driver may flush.
const F_FLUSH: u64 = 1 << 9;
/// `VIRTIO_BLK_F_TOPOLOGY`: the configuration space tells what alignment is good.
const F_TOPOLOGY: u64 = 1 << 10;
/// `VIRTIO_BLK_F_CONFIG_WCE`: the driver may choose between writeback and writethrough.
const F_CONFIG_WCE: u64 = 1 << 11;
/// `VIRTIO_BLK_F_MQ`: there are several request queues.
const F_MQ: u64 = 1 << 12;
/// `VIRTIO_BLK_F_DISCARD`: the driver may discard sectors.
const F_DISCARD: u64 = 1 << 13;
/// `VIRTIO_BLK_F_WRITE_ZEROES`: the driver may zero sectors without sending zeroes.
const F_WRITE_ZEROES: u64 = 1 << 14;

/// The most request queues that a disk can have: each may cost a thread.
pub const MAX_QUEUES: u16 = 16;
/// A request of Linux's is up to 1.25 MiB, or 320 pages; with 254 segments nearly all of them fit.
const QUEUE_SIZE: u16 = 256;
/// A chain also has the header and the status, and is no longer than the queue.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;

/// A disk.
pub struct Block {
    /// The first queue's, and what all queues have in common.
    first: Requests,
}

impl Block {
    /// A disk with the bytes of `storage`, from the first to the last whole block.
    pub fn new(storage: impl BlockStorage) -> Block {
        let properties = storage.properties();
        let geometry = Geometry::new(&properties);
        let spec = Spec {
            kind: Kind::Block,
            name: "disk".to_owned(),
            features: geometry.features(),
            queues: vec![QUEUE_SIZE],
            config: Arc::new(geometry.config()),
        };
        let disk = Disk {
            spec,
            storage: Arc::new(storage),
            geometry,
            identity: identity(&properties.identity),
            failures: Arc::new(AtomicU32::new(0)),
        };
        Block {
            first: Requests::new(0, disk),
        }
    }

    /// A disk with the bytes of a file, or of a block device, that the guest may change. For all
    /// else there is [`RawFile::options`].
    pub fn open(path: impl AsRef<Path>) -> Result<Block, Error> {
        RawFile::options().open(path).map(Block::new)
    }

    /// Changes how messages call the device.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.first.disk.spec.name = name.to_owned();
        self
    }

    /// Sets the serial number that the guest reads, by which udev names disks: up to 20 printable
    /// ASCII characters without blanks. The storage's own is the default.
    pub fn serial(mut self, serial: &str) -> Result<Self, Error> {
        let printable = serial.bytes().all(|byte| byte.is_ascii_graphic());
        if serial.is_empty() || serial.len() > request::ID_LEN || !printable {
            let serial = serial.to_owned();
            return Err(Error::Serial { serial });
        }
        self.first.disk.identity = identity(serial);
        Ok(self)
    }

    /// Sets the size of a logical block, 512 or 4096, as the guest sees it: what it writes at once.
    pub fn block_size(mut self, size: u32) -> Result<Self, Error> {
        let disk = &mut self.first.disk;
        let at_least = disk.storage.properties().logical_block;
        if !matches!(size, 512 | 4096) || size < at_least {
            return Err(Error::BlockSize { size, at_least });
        }
        disk.reshape(disk.geometry.with_logical_block(size));
        Ok(self)
    }

    /// Sets how many request queues the driver finds, from 1 to [`MAX_QUEUES`]. Those that it
    /// uses, one per vCPU at most, cost a thread each.
    pub fn queues(mut self, queues: u16) -> Result<Self, Error> {
        if !(1..=MAX_QUEUES).contains(&queues) {
            let max = MAX_QUEUES;
            return Err(Error::Queues { queues, max });
        }
        let disk = &mut self.first.disk;
        disk.reshape(disk.geometry.with_queues(queues));
        Ok(self)
    }

    /// The number of bytes that the guest finds.
    pub fn capacity(&self) -> u64 {
        self.first.disk.geometry.capacity()
    }
}

/// The bytes that `VIRTIO_BLK_T_GET_ID` gives: padded with NUL, which a full one does not have.
fn identity(text: &str) -> [u8; request::ID_LEN] {
    let mut id = [0; request::ID_LEN];
    for (to, from) in id.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    id
}

impl Device for Block {
    fn spec(&self) -> &Spec {
        &self.first.disk.spec
    }

    fn activate(&mut self, io: &mut Io) -> Result<(), crate::Error> {
        if io.features() & (F_FLUSH | F_CONFIG_WCE) == F_CONFIG_WCE {
            // 5.2.5.2: it can't be anything else then.
            set_writeback(&self.spec().config, 0);
        }
        self.first.activate(io)
    }

    fn handle(&mut self, event: Event, io: &mut Io) -> Result<(), crate::Error> {
        self.first.handle(event, io)
    }

    fn quiesce(&mut self, io: &mut Io) -> Result<(), crate::Error> {
        self.first.quiesce(io)
    }

    fn reset(&mut self) {
        let disk = &self.first.disk;
        set_writeback(&disk.spec.config, disk.geometry.initial_writeback());
        self.first.reset();
    }

    fn lanes(&self, _features: u64) -> Vec<Box<dyn Lane>> {
        let disk = &self.first.disk;
        let lane = |queue| Box::new(Requests::new(queue, disk.clone())) as _;
        (1..disk.geometry.queues()).map(lane).collect()
    }
}

fn set_writeback(config: &ConfigSpace, value: u8) {
    config.update(|bytes| {
        if let Some(byte) = bytes.get_mut(WRITEBACK) {
            *byte = value;
        }
    });
}
