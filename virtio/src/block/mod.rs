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
//! Several queues: the requests of one disk are served by one thread. Secure erase, lifetime
//! metrics and zones. And it does not limit the rate of requests.

mod config;
mod error;
pub mod file;
#[cfg(feature = "http")]
pub mod http;
pub mod memory;
pub mod qcow2;
mod request;
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

use crate::slices::Slices;
use crate::{Chain, ConfigSpace, Device, Event, Io, Kind, Spec, Step};
use config::{Geometry, WRITEBACK};
use request::{Operation, Request, Rules, Span, Status};
use std::io;
use std::path::Path;
use std::sync::Arc;

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
/// `VIRTIO_BLK_F_DISCARD`: the driver may discard sectors.
const F_DISCARD: u64 = 1 << 13;
/// `VIRTIO_BLK_F_WRITE_ZEROES`: the driver may zero sectors without sending zeroes.
const F_WRITE_ZEROES: u64 = 1 << 14;

/// The only request queue.
const REQUESTQ: u16 = 0;
/// A request of Linux's is up to 1.25 MiB, or 320 pages; with 254 segments nearly all of them fit.
const QUEUE_SIZE: u16 = 256;
/// A chain also has the header and the status, and is no longer than the queue.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;

/// How many failures of one disk are logged. A driver can bring about any number of them.
const LOGGED_FAILURES: u32 = 10;

/// A disk.
pub struct Block {
    spec: Spec,
    storage: Box<dyn BlockStorage>,
    geometry: Geometry,
    identity: [u8; request::ID_LEN],
    /// Completed writes need not be flushed.
    writeback: bool,
    /// How often the driver had written to the configuration space when that was decided.
    config_writes: u32,
    slices: Slices,
    /// What a discard names; kept for its capacity.
    spans: Vec<Span>,
    failures: u32,
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
        Block {
            spec,
            storage: Box::new(storage),
            geometry,
            identity: identity(&properties.identity),
            writeback: false,
            config_writes: 0,
            slices: Slices::with_capacity(usize::from(QUEUE_SIZE)),
            spans: Vec::with_capacity(config::MAX_DISCARD_SEG as usize),
            failures: 0,
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
        self.spec.name = name.to_owned();
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
        self.identity = identity(serial);
        Ok(self)
    }

    /// Sets the size of a logical block, 512 or 4096, as the guest sees it: what it writes at once.
    pub fn block_size(mut self, size: u32) -> Result<Self, Error> {
        let at_least = self.storage.properties().logical_block;
        if !matches!(size, 512 | 4096) || size < at_least {
            return Err(Error::BlockSize { size, at_least });
        }
        self.geometry = self.geometry.with_logical_block(size);
        self.spec.config = Arc::new(self.geometry.config());
        Ok(self)
    }

    /// The number of bytes that the guest finds.
    pub fn capacity(&self) -> u64 {
        self.geometry.capacity()
    }

    /// Reads from the configuration space and the features how writes are to be completed.
    fn choose_cache(&mut self, features: u64) {
        let before = self.writeback;
        self.config_writes = self.spec.config.writes();
        let mut byte = [0];
        self.spec.config.read(WRITEBACK as u64, &mut byte);
        // 5.2.6.2: who can't flush gets what it writes written.
        self.writeback = features & F_FLUSH != 0 && (features & F_CONFIG_WCE == 0 || byte != [0]);
        if before && !self.writeback {
            // What was completed under the old rule is made to follow the new one.
            let result = self.storage.flush();
            self.note(result.err(), "flushing the cache");
        }
    }

    /// Logs a failure of the host's.
    fn note(&mut self, failure: Option<io::Error>, what: &str) {
        if let Some(error) = failure {
            if self.failures < LOGGED_FAILURES {
                log::warn!("{}: {what}: {error}", self.spec.name);
            }
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// Serves one request.
    fn serve(&mut self, chain: &mut Chain<'_>, features: u64) -> Result<Step, crate::Error> {
        let rules = Rules {
            capacity: self.geometry.capacity(),
            read_only: self.geometry.is_read_only(),
            features,
        };
        if self.config_writes != self.spec.config.writes() {
            self.choose_cache(features);
        }
        let request = Request::parse(chain, &rules, &mut self.spans)?;
        let status = match request.operation {
            Err(status) => status,
            Ok(operation) => match self.carry_out(&operation, request.room, chain) {
                Ok(()) => Status::Ok,
                Err(error) => {
                    self.note(Some(error), operation.name());
                    Status::IoErr
                }
            },
        };
        request.complete(chain, status)
    }

    fn carry_out(
        &mut self,
        operation: &Operation,
        room: u32,
        chain: &mut Chain<'_>,
    ) -> io::Result<()> {
        let storage = &*self.storage;
        match *operation {
            Operation::In { offset } => self.slices.read(storage, chain, offset, room)?,
            Operation::Out { offset } => self.slices.write(storage, chain, offset)?,
            Operation::Flush => return storage.flush(),
            Operation::GetId => {
                let id = self.identity.get(..room as usize).unwrap_or(&self.identity);
                return chain.writer().write_all(id);
            }
            Operation::Discard => {
                for span in &self.spans {
                    storage.discard(span.offset, span.len)?;
                }
            }
            Operation::WriteZeroes => {
                for span in &self.spans {
                    storage.write_zeroes(span.offset, span.len, span.unmap)?;
                }
            }
        }
        let changes = !matches!(operation, Operation::In { .. });
        if changes && !self.writeback {
            storage.flush()?;
        }
        Ok(())
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
        &self.spec
    }

    fn activate(&mut self, io: &mut Io) -> Result<(), crate::Error> {
        sys::block_sigxfsz();
        if io.features() & (F_FLUSH | F_CONFIG_WCE) == F_CONFIG_WCE {
            // 5.2.5.2: it can't be anything else then.
            set_writeback(&self.spec.config, 0);
        }
        self.choose_cache(io.features());
        Ok(())
    }

    fn handle(&mut self, event: Event, io: &mut Io) -> Result<(), crate::Error> {
        match event {
            Event::Queue(REQUESTQ) => {
                let features = io.features();
                io.drain(REQUESTQ, |chain| self.serve(chain, features))?;
            }
            Event::ConfigWritten => self.choose_cache(io.features()),
            Event::Queue(_) | Event::Fd(_) => {}
        }
        Ok(())
    }

    fn quiesce(&mut self, _io: &mut Io) -> Result<(), crate::Error> {
        // Each request is served from start to end in one call: nothing is in flight.
        Ok(())
    }

    fn reset(&mut self) {
        set_writeback(&self.spec.config, self.geometry.initial_writeback());
        self.writeback = false;
    }
}

fn set_writeback(config: &ConfigSpace, value: u8) {
    config.update(|bytes| {
        if let Some(byte) = bytes.get_mut(WRITEBACK) {
            *byte = value;
        }
    });
}
