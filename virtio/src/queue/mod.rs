//! Virtqueues (virtio 1.2, 2.6 to 2.8): a driver's offers of memory, one chain at a time.
//!
//! # The problem
//!
//! A ring is memory that two sides write without a lock. What the driver writes may be wrong or
//! may change while it is looked at. And notifications race with what they notify of: who turns
//! them off and forgets to look again sleeps for ever.
//!
//! # The design
//!
//! ```text
//!   QueueConfig --Queue::new--> Queue { Layout::{Split, Packed} }
//!   plain data,                   |  drain(|chain| ..)      the notification dance, once
//!   while the driver              |  complete(token, ..)    for what was kept for later
//!   sets it up                    v
//!                             Chain: descriptors checked, gathered and resolved
//!                               reader() / writer()         bytes, objects, slices for host I/O
//! ```
//!
//! - A [`QueueConfig`] may say anything. [`Queue::new`] checks it; there is no half-set-up queue.
//! - Layouts are a closed set, so [`Queue`] has an enum inside, and devices no type parameter. A
//!   layout knows how chains are found, used and notified of; the order of these steps, what is
//!   in flight and what a chain may look like is written here and in [`chain`], once for all.
//! - The memory of a request's descriptors is gathered in vectors that the queue keeps: a request
//!   allocates nothing.
//! - A queue that its worker hands back goes on where it was: it is simply moved.
//!
//! # What it does not do
//!
//! It raises no interrupt and waits for no doorbell; it says when to. It does not look into
//! buffers. After an error it must not be used again: [`QueueError`] costs the device a reset.

mod area;
pub mod chain;
mod descriptor;
mod error;
mod packed;
mod split;
#[cfg(test)]
mod tests;

pub use chain::{Chain, Reader, Writer};
pub use error::{Part, QueueError};

use crate::features;
use crate::memory::GuestMemory;
use chain::Buffers;
use std::sync::Arc;

/// The largest size of a queue that the specification allows (2.6).
pub const MAX_SIZE: u16 = 32768;

/// What the driver has said about a queue so far. Plain data: nothing about it was checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueConfig {
    /// The largest size that the device allows.
    pub max_size: u16,
    /// The number of descriptors.
    pub size: u16,
    /// Whether the driver has enabled the queue.
    pub ready: bool,
    /// Where the descriptor area is.
    pub desc: u64,
    /// Where the driver area is: the available ring of a split queue.
    pub avail: u64,
    /// Where the device area is: the used ring of a split queue.
    pub used: u64,
}

/// What became of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The request is complete, and this many bytes of its writable part were written.
    Done(u32),
    /// The device has kept [`Chain::token`] and calls [`Queue::complete`] later.
    Later,
    /// The device can't go on now. The chain is put back, and comes first the next time.
    Stop,
}

/// What [`Queue::drain`] leaves to its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Drained {
    /// The driver wants to be interrupted.
    pub interrupt: bool,
    /// Chains wait that were left for the sake of others: call again, without waiting for a
    /// doorbell.
    pub more: bool,
}

/// A chain that is in flight. It can't be copied: a chain is completed once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a chain that is never completed is lost to its driver"]
pub struct Token {
    /// The identifier under which the driver will find its chain.
    id: u16,
    /// How many descriptors of a packed ring it takes; a split ring does not care.
    slots: u16,
}

impl Token {
    /// The same chain once more; [`InFlight`] sees to it that only one is of use.
    fn again(&self) -> Token {
        Token { ..*self }
    }
}

/// A queue that runs: rings in guest memory, and where in them the device is.
#[derive(Debug)]
pub struct Queue {
    memory: Arc<GuestMemory>,
    layout: Layout,
    size: u16,
    in_flight: InFlight,
    /// The descriptors of the chain at hand; kept for its capacity.
    buffers: Buffers,
}

/// How a ring lies in memory.
///
/// Each layout offers the same few steps; [`Queue`] puts them in order.
#[derive(Debug)]
enum Layout {
    Split(split::Ring),
    Packed(packed::Ring),
}

impl Layout {
    /// Gathers the next chain that the driver made available, which stays available.
    fn peek(
        &mut self,
        memory: &GuestMemory,
        buffers: &mut Buffers,
    ) -> Result<Option<Token>, QueueError> {
        match self {
            Layout::Split(ring) => ring.peek(memory, buffers),
            Layout::Packed(ring) => ring.peek(memory, buffers),
        }
    }

    /// Takes the chain that was peeked at last.
    fn consume(&mut self, token: &Token) {
        match self {
            Layout::Split(ring) => ring.consume(),
            Layout::Packed(ring) => ring.consume(token),
        }
    }

    /// Prepares to give a chain back to the driver, which sees nothing of it yet.
    fn stage_used(&mut self, token: &Token, written: u32) -> Result<(), QueueError> {
        match self {
            Layout::Split(ring) => ring.stage_used(token.id, written),
            Layout::Packed(ring) => ring.stage_used(token, written),
        }
    }

    /// Gives all chains that were staged back to the driver, at once.
    fn publish_used(&mut self) -> Result<(), QueueError> {
        match self {
            Layout::Split(ring) => ring.publish_used(),
            Layout::Packed(ring) => ring.publish_used(),
        }
    }

    /// Whether a chain is available, by a fresh look at the ring.
    fn has_available(&self) -> Result<bool, QueueError> {
        match self {
            Layout::Split(ring) => ring.has_available(),
            Layout::Packed(ring) => ring.has_available(),
        }
    }

    /// Tells the driver that it need not ring the doorbell. It may all the same.
    fn suppress_doorbell(&mut self) -> Result<(), QueueError> {
        match self {
            Layout::Split(ring) => ring.suppress_doorbell(),
            Layout::Packed(ring) => ring.suppress_doorbell(),
        }
    }

    /// Asks the driver to ring the doorbell for the next chain. What it made available before it
    /// could see this is seen by a look at the ring *after* this.
    fn enable_doorbell(&mut self) -> Result<(), QueueError> {
        match self {
            Layout::Split(ring) => ring.enable_doorbell(),
            Layout::Packed(ring) => ring.enable_doorbell(),
        }
    }

    /// Whether the driver wants an interrupt for what was used since the last call.
    fn take_interrupt(&mut self) -> Result<bool, QueueError> {
        match self {
            Layout::Split(ring) => ring.take_interrupt(),
            Layout::Packed(ring) => ring.take_interrupt(),
        }
    }
}

impl Queue {
    /// Checks what the driver has said, and starts at the beginning of the ring.
    ///
    /// `features` are those that were negotiated: they decide about the layout, indirect
    /// descriptors and event indices.
    pub fn new(
        config: &QueueConfig,
        memory: Arc<GuestMemory>,
        features: u64,
    ) -> Result<Queue, QueueError> {
        if !config.ready {
            return Err(QueueError::NotReady);
        }
        let (layout, ids) = if is_packed(features) {
            let ring = packed::Ring::new(config, &memory, features)?;
            (Layout::Packed(ring), packed::IDS)
        } else {
            let ring = split::Ring::new(config, &memory, features)?;
            (Layout::Split(ring), config.size.into())
        };
        Ok(Queue {
            memory,
            layout,
            size: config.size,
            in_flight: InFlight::new(ids),
            buffers: Buffers::default(),
        })
    }

    /// Whether the layout that was negotiated allows a queue of this size.
    pub fn is_size(size: u16, features: u64) -> bool {
        let fits = if is_packed(features) {
            packed::is_size(size)
        } else {
            split::is_size(size)
        };
        fits && size <= MAX_SIZE
    }

    /// The number of descriptors, which also limits the length of a chain.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// The number of chains that the device has kept for later.
    pub fn in_flight(&self) -> u16 {
        self.in_flight.count
    }

    /// Whether the driver has made a chain available.
    pub fn has_available(&self) -> Result<bool, QueueError> {
        self.layout.has_available()
    }

    /// Calls `each` with one chain after the other, until none is left or it says [`Step::Stop`].
    ///
    /// At most as many chains as the queue has descriptors are taken by one call, so that a
    /// driver which adds them as fast as they are used can't keep the caller here;
    /// [`Drained::more`] then is true.
    ///
    /// Doorbells are off meanwhile, and on again at the end, with another look for what was
    /// added in between. After a [`Step::Stop`] they *stay off*: the device knows what it waits
    /// for, and calls this again when that has happened.
    ///
    /// # Errors
    ///
    /// Those of `each`, which end the drain with its chain not consumed, and a [`QueueError`]
    /// if the ring is corrupt.
    pub fn drain<E: From<QueueError>>(
        &mut self,
        each: impl FnMut(&mut Chain<'_>) -> Result<Step, E>,
    ) -> Result<Drained, E> {
        let more = self.take(each)?;
        Ok(Drained {
            interrupt: self.take_interrupt()?,
            more,
        })
    }

    /// Does the same as [`drain`](Self::drain), and leaves the question of the interrupt for later.
    /// Tells what [`Drained::more`] does.
    pub fn take<E: From<QueueError>>(
        &mut self,
        mut each: impl FnMut(&mut Chain<'_>) -> Result<Step, E>,
    ) -> Result<bool, E> {
        let mut budget = self.size;
        loop {
            self.layout.suppress_doorbell()?;
            if self.take_chains(&mut budget, &mut each)? {
                return Ok(false);
            }
            // Right here the driver may add a chain and see that it need not ring.
            #[cfg(test)]
            tests::meanwhile();
            self.layout.enable_doorbell()?;
            if !self.layout.has_available()? {
                return Ok(false);
            }
            if budget == 0 {
                return Ok(true);
            }
        }
    }

    /// Gives back a chain that was kept with [`Step::Later`], of whose writable part `written`
    /// bytes were written. Tells whether the driver wants an interrupt.
    pub fn complete(&mut self, token: Token, written: u32) -> Result<bool, QueueError> {
        self.complete_together([(token, written)])?;
        self.take_interrupt()
    }

    /// Gives back chains that were kept, each with the number of bytes written to it, so that the
    /// driver finds all of them or none: what is in them is one thing. Whether it wants an
    /// interrupt is left to [`take_interrupt`](Self::take_interrupt).
    pub fn complete_together(
        &mut self,
        chains: impl IntoIterator<Item = (Token, u32)>,
    ) -> Result<(), QueueError> {
        for (token, written) in chains {
            self.in_flight.remove(token.id)?;
            self.layout.stage_used(&token, written)?;
        }
        self.layout.publish_used()
    }

    /// Whether the driver wants an interrupt for what was given back since this was last asked.
    pub fn take_interrupt(&mut self) -> Result<bool, QueueError> {
        self.layout.take_interrupt()
    }

    /// Takes chains while there are any and `budget` lasts. Tells whether `each` said to stop.
    fn take_chains<E: From<QueueError>>(
        &mut self,
        budget: &mut u16,
        each: &mut impl FnMut(&mut Chain<'_>) -> Result<Step, E>,
    ) -> Result<bool, E> {
        while *budget > 0 {
            let Some(token) = self.layout.peek(&self.memory, &mut self.buffers)? else {
                break;
            };
            // The driver may not touch a chain before it was used, let alone offer it again: two
            // requests would share their buffers, and one would be completed twice.
            self.in_flight.check_free(token.id)?;
            match each(&mut Chain::new(&self.memory, &self.buffers, token.again()))? {
                Step::Done(written) => {
                    self.layout.consume(&token);
                    // Published at once and not at the end: a driver that polls need not wait
                    // for a slow request behind this one.
                    self.layout.stage_used(&token, written)?;
                    self.layout.publish_used()?;
                }
                Step::Later => {
                    self.layout.consume(&token);
                    self.in_flight.insert(token.id);
                }
                Step::Stop => return Ok(true),
            }
            *budget = budget.saturating_sub(1);
        }
        Ok(false)
    }
}

/// Which layout a queue has.
fn is_packed(features: u64) -> bool {
    features & features::RING_PACKED != 0
}

/// Which chains the device has kept, by identifier.
#[derive(Debug)]
struct InFlight {
    /// A bit for each identifier that a chain may have.
    kept: Vec<u64>,
    count: u16,
}

impl InFlight {
    /// None so far; identifiers are below `ids`.
    fn new(ids: usize) -> Self {
        InFlight {
            kept: vec![0; ids.div_ceil(64)],
            count: 0,
        }
    }

    fn check_free(&self, id: u16) -> Result<(), QueueError> {
        let (word, bit) = place(id);
        match self.kept.get(word) {
            Some(kept) if kept & bit != 0 => Err(QueueError::HeadInFlight { head: id }),
            _ => Ok(()),
        }
    }

    fn insert(&mut self, id: u16) {
        let (word, bit) = place(id);
        // The layout gives no identifier for which there is no bit.
        if let Some(kept) = self.kept.get_mut(word) {
            *kept |= bit;
            // Each identifier is counted once, and chains are at most as many as descriptors.
            self.count = self.count.saturating_add(1);
        }
    }

    fn remove(&mut self, id: u16) -> Result<(), QueueError> {
        let (word, bit) = place(id);
        match self.kept.get_mut(word) {
            Some(kept) if *kept & bit != 0 => *kept &= !bit,
            _ => return Err(QueueError::NotInFlight { id }),
        }
        self.count = self.count.saturating_sub(1);
        Ok(())
    }
}

/// Where the bit of an identifier is.
fn place(id: u16) -> (usize, u64) {
    (usize::from(id / 64), 1 << (id % 64))
}
