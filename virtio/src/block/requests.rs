//! One request queue of a disk, from the chain to the status. A disk has one or several of them, each
//! served on a thread of its own; what they have in common is a [`Disk`].

use super::config::{Geometry, MAX_DISCARD_SEG, WRITEBACK};
use super::request::{ID_LEN, Operation, Request, Rules, Span, Status};
use super::{BlockStorage, F_CONFIG_WCE, F_FLUSH, QUEUE_SIZE, sys};
use crate::slices::Slices;
use crate::{Chain, Event, Io, Lane, Spec, Step};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many failures of one disk are logged. A driver can bring about any number of them.
const LOGGED_FAILURES: u32 = 10;

/// A disk, as all of its queues know it. A clone is the same disk.
#[derive(Clone)]
pub(super) struct Disk {
    pub(super) spec: Spec,
    pub(super) storage: Arc<dyn BlockStorage>,
    pub(super) geometry: Geometry,
    pub(super) identity: [u8; ID_LEN],
    pub(super) failures: Arc<AtomicU32>,
}

impl Disk {
    /// Shows the driver another shape.
    pub(super) fn reshape(&mut self, geometry: Geometry) {
        self.geometry = geometry;
        self.spec.features = geometry.features();
        self.spec.queues = vec![QUEUE_SIZE; geometry.queues().into()];
        self.spec.config = Arc::new(geometry.config());
    }

    /// Logs a failure of the host's.
    fn note(&self, failure: Option<io::Error>, what: &str) {
        if let Some(error) = failure
            && self.failures.fetch_add(1, Ordering::Relaxed) < LOGGED_FAILURES
        {
            log::warn!("{}: {what}: {error}", self.spec.name);
        }
    }
}

/// One request queue.
pub(super) struct Requests {
    queue: u16,
    pub(super) disk: Disk,
    /// Completed writes need not be flushed.
    writeback: bool,
    /// How often the driver had written to the configuration space when that was decided.
    config_writes: u32,
    slices: Slices,
    /// What a discard names; kept for its capacity.
    spans: Vec<Span>,
}

impl Requests {
    pub(super) fn new(queue: u16, disk: Disk) -> Self {
        Requests {
            queue,
            disk,
            writeback: false,
            config_writes: 0,
            slices: Slices::with_capacity(usize::from(QUEUE_SIZE)),
            spans: Vec::with_capacity(MAX_DISCARD_SEG as usize),
        }
    }

    /// The driver has gone.
    pub(super) fn reset(&mut self) {
        self.writeback = false;
    }

    /// Reads from the configuration space and the features how writes are to be completed.
    fn choose_cache(&mut self, features: u64) {
        let config = &self.disk.spec.config;
        let before = self.writeback;
        self.config_writes = config.writes();
        let mut byte = [0];
        config.read(WRITEBACK as u64, &mut byte);
        // 5.2.6.2: who can't flush gets what it writes written.
        self.writeback = features & F_FLUSH != 0 && (features & F_CONFIG_WCE == 0 || byte != [0]);
        if before && !self.writeback {
            // What this queue completed under the old rule is made to follow the new one. So does
            // each other queue before its next request.
            let result = self.disk.storage.flush();
            self.disk.note(result.err(), "flushing the cache");
        }
    }

    /// Serves one request.
    fn serve(&mut self, chain: &mut Chain<'_>, features: u64) -> Result<Step, crate::Error> {
        let rules = Rules {
            queue: self.queue,
            capacity: self.disk.geometry.capacity(),
            read_only: self.disk.geometry.is_read_only(),
            features,
        };
        if self.config_writes != self.disk.spec.config.writes() {
            self.choose_cache(features);
        }
        let request = Request::parse(chain, &rules, &mut self.spans)?;
        let status = match request.operation {
            Err(status) => status,
            Ok(operation) => match self.carry_out(&operation, request.room, chain) {
                Ok(()) => Status::Ok,
                Err(error) => {
                    self.disk.note(Some(error), operation.name());
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
        let storage = &*self.disk.storage;
        match *operation {
            Operation::In { offset } => self.slices.read(storage, chain, offset, room)?,
            Operation::Out { offset } => self.slices.write(storage, chain, offset)?,
            Operation::Flush => return storage.flush(),
            Operation::GetId => {
                let id = &self.disk.identity;
                let id = id.get(..room as usize).unwrap_or(id);
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

impl Lane for Requests {
    fn queues(&self) -> Range<u16> {
        self.queue..self.queue + 1
    }

    fn activate(&mut self, io: &mut Io) -> Result<(), crate::Error> {
        sys::block_sigxfsz();
        self.choose_cache(io.features());
        Ok(())
    }

    fn handle(&mut self, event: Event, io: &mut Io) -> Result<(), crate::Error> {
        let features = io.features();
        match event {
            Event::Queue(queue) => io.drain(queue, |chain| self.serve(chain, features))?,
            Event::ConfigWritten => self.choose_cache(features),
            Event::Fd(_) | Event::Shared => {}
        }
        Ok(())
    }

    fn quiesce(&mut self, _io: &mut Io) -> Result<(), crate::Error> {
        // Each request is served from start to end in one call: nothing is in flight.
        Ok(())
    }
}
