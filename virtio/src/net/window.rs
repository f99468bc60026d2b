//! The driver's buffers that the next frames go to.
//!
//! Chains are kept here, not used, so that a frame can be read straight into several of them
//! (`VIRTIO_NET_F_MRG_RXBUF`) by one call, before anybody knows how long it is. What it did not fill
//! stays for the next one.
//!
//! To offer room for 64 KiB takes some 50 buffers of 1.5 KiB, and to name them to the kernel costs more than
//! a small frame does otherwise. So after small frames a few buffers are offered, and behind them
//! memory of ours: a large frame after small ones is copied, those that follow it are not.

use super::pair::MAX_FRAME;
use super::{HEADER_LEN, Header, Mac};
use crate::queue::{Chain, Token};
use crate::slices::Slices;
use crate::sys::MAX_BUFFERS;
use crate::{Error, GuestMemory};
use std::collections::VecDeque;
use std::io;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileSlice};

/// How many ranges of memory one frame may be spread over: some are needed besides.
const MAX_RANGES: usize = MAX_BUFFERS - 8;

/// How many ranges are offered to a frame that is expected to be small.
const FEW_RANGES: usize = 4;
/// For how many frames after a large one another is expected.
const LARGE_FOR: u32 = 8;

/// A chain that is kept.
struct Held {
    token: Token,
    /// Its bytes that may be written.
    len: usize,
    /// In how many ranges they are.
    ranges: usize,
}

/// The chains that are kept, in the order in which the driver made them available.
pub(super) struct Window {
    chains: VecDeque<Held>,
    ranges: VecDeque<(GuestAddress, u32)>,
    room: usize,
    /// How many more frames are expected to be large.
    large_for: u32,
    /// Takes what is left of a frame that was expected to be small.
    spill: Vec<u8>,
}

impl Window {
    pub(super) fn new() -> Self {
        Window {
            chains: VecDeque::with_capacity(MAX_RANGES),
            // A chain may have as many ranges again.
            ranges: VecDeque::with_capacity(2 * MAX_RANGES),
            room: 0,
            large_for: 0,
            spill: vec![0; MAX_FRAME],
        }
    }

    /// Forgets all chains: the driver has taken them back by a reset.
    pub(super) fn clear(&mut self) {
        self.chains.clear();
        self.ranges.clear();
        self.room = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// Whether there is room for a frame of `len` bytes and its header: in all chains together if
    /// they are `mergeable`, else in any, which is for the driver to see to.
    pub(super) fn has_room(&self, len: usize, mergeable: bool) -> bool {
        if mergeable {
            self.room >= len + HEADER_LEN || self.ranges.len() >= MAX_RANGES
        } else {
            !self.chains.is_empty()
        }
    }

    /// Keeps a chain that has room for a header.
    pub(super) fn add(&mut self, chain: &mut Chain<'_>) {
        let before = self.ranges.len();
        self.ranges.extend(chain.writer().ranges());
        let len = chain.writable_len() as usize;
        self.room += len;
        self.chains.push_back(Held {
            token: chain.token(),
            len,
            ranges: self.ranges.len() - before,
        });
    }

    /// Has a frame read into the room behind its header, and passes on how long it is. At least
    /// [`MAX_FRAME`] bytes are offered if the window [has room](Self::has_room) for them.
    pub(super) fn read<E>(
        &mut self,
        memory: &GuestMemory,
        mergeable: bool,
        slices: &mut Slices,
        call: impl FnOnce(&[VolatileSlice<'_>]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let few = mergeable && self.large_for == 0;
        let count = match self.chains.front() {
            _ if few => FEW_RANGES,
            Some(first) if !mergeable => first.ranges.min(MAX_RANGES),
            _ => MAX_RANGES,
        };
        let mut spill = std::mem::take(&mut self.spill);
        let behind = few.then(|| VolatileSlice::from(spill.as_mut_slice()));
        let room = self.slices(memory, count).chain(behind);
        let result = slices.lend(room, u32::MAX, call);
        if let Ok(len) = result {
            let small = self.slices(memory, FEW_RANGES).map(|slice| slice.len());
            let beyond = len.saturating_sub(small.sum());
            if beyond > 0 {
                self.large_for = LARGE_FOR;
            } else {
                self.large_for = self.large_for.saturating_sub(1);
            }
            if few {
                self.unspill(memory, spill.get(..beyond).unwrap_or_default());
            }
        }
        self.spill = spill;
        result
    }

    /// Puts the rest of a frame where the whole of it would have been read to.
    fn unspill(&self, memory: &GuestMemory, mut rest: &[u8]) {
        let few = self.slices(memory, FEW_RANGES).count();
        for slice in self.slices(memory, MAX_RANGES).skip(few) {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at(rest.len().min(slice.len()));
            slice.copy_from(now);
            rest = later;
        }
    }

    /// The room behind a frame's header, of so many ranges.
    fn slices<'m>(
        &'m self,
        memory: &'m GuestMemory,
        count: usize,
    ) -> impl Iterator<Item = VolatileSlice<'m>> {
        let mut skip = HEADER_LEN as u32;
        let ranges = self.ranges.iter().take(count);
        ranges
            .filter_map(move |(address, len)| {
                let skipped = skip.min(*len);
                skip -= skipped;
                let rest = len - skipped;
                (rest > 0).then_some((address.0.checked_add(skipped.into())?, rest))
            })
            // They were found in this very memory.
            .map_while(|(address, len)| memory.get_slice(GuestAddress(address), len as usize).ok())
    }

    /// How many chains a frame of `len` bytes takes with its header. `None` if it does not fit.
    pub(super) fn chains_for(&self, len: usize, mergeable: bool) -> Option<u16> {
        let mut left = len + HEADER_LEN;
        if left > self.lent() {
            return None;
        }
        let limit = if mergeable { self.chains.len() } else { 1 };
        for (count, held) in (1..).zip(self.chains.iter().take(limit)) {
            left = left.saturating_sub(held.len);
            if left == 0 {
                return Some(count);
            }
        }
        None
    }

    /// How much room there is in as many ranges as one call takes.
    fn lent(&self) -> usize {
        if self.ranges.len() <= MAX_RANGES {
            return self.room;
        }
        let ranges = self.ranges.iter().take(MAX_RANGES);
        ranges.map(|(_, len)| *len as usize).sum()
    }

    /// Where the frame that was read goes to.
    pub(super) fn destination(&self, memory: &GuestMemory) -> Option<Mac> {
        let mut bytes = [0; 6];
        let mut left = bytes.as_mut_slice();
        for slice in self.slices(memory, MAX_RANGES) {
            let count = slice.copy_to(left);
            left = left.get_mut(count..)?;
            if left.is_empty() {
                return Some(Mac::new(bytes));
            }
        }
        None
    }

    /// Writes the header in front of the frame that was read.
    pub(super) fn write_header(&self, memory: &GuestMemory, header: Header) -> Result<(), Error> {
        let bytes = header.to_bytes();
        let mut left = bytes.as_slice();
        for (address, len) in &self.ranges {
            let (now, later) = left.split_at(left.len().min(*len as usize));
            memory
                .write_slice(now, *address)
                .map_err(|error| Error::Host {
                    what: "writing the header of a frame".to_owned(),
                    source: io::Error::other(error),
                })?;
            left = later;
            if left.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Takes the chains that hold `len` bytes and their header, each with how many of them it has.
    pub(super) fn take(&mut self, len: usize) -> impl Iterator<Item = (Token, u32)> {
        let mut left = len + HEADER_LEN;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let held = self.chains.pop_front()?;
            self.ranges.drain(..held.ranges.min(self.ranges.len()));
            self.room = self.room.saturating_sub(held.len);
            let written = left.min(held.len);
            left -= written;
            // A chain's length fits 32 bits.
            Some((held.token, written as u32))
        })
    }
}
