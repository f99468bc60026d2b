//! The ring half of the fake driver: lays out a queue in plain memory and plays its guest.
//!
//! ```
//! use virtio::queue::{Queue, QueueError, Step};
//! use virtio::testing::ring::{Ring, ram};
//!
//! let memory = ram(&[(0, 0x10000)]);
//! let mut ring = Ring::split(&memory, 0x1000..0x10000, 8, 0);
//! let mut queue = Queue::new(&ring.config(), memory, 0)?;
//!
//! let head = ring.add(&[b"ping"], &[16]);
//! let _ = queue.drain::<QueueError>(|chain| {
//!     chain.writer().write_all(b"pong").map_err(|_| QueueError::NotReady)?;
//!     Ok(Step::Done(chain.written()))
//! })?;
//!
//! assert_eq!(ring.used(), Some((head, 4)));
//! assert_eq!(ring.written(head, 4), b"pong");
//! # Ok::<(), QueueError>(())
//! ```
//!
//! A well-behaved driver has [`Ring::add`] and [`Ring::used`], and the two questions of
//! notification, [`Ring::must_kick`] and [`Ring::enable_interrupts`]. A hostile one has
//! [`Ring::as_split`] and [`Ring::as_packed`], with which any field can be written.
//!
//! [`Ring`] holds what is the same for any layout: buffers, and which chain has which. The
//! layout writes them to its ring.
//!
//! What it does not do: share one queue among threads, or manage its memory well. The memory of a
//! used chain is not taken again before all other memory was, so that what the device wrote can be
//! read for a while. A fake driver that can't go on has a mistake in its test, and panics.

pub mod packed;
mod split;

pub use packed::Packed;
pub use split::Split;

use crate::features;
use crate::memory::{GuestMemory, Region};
use crate::queue::QueueConfig;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};

/// Descriptor flag: there is a next one.
pub const NEXT: u16 = 1;
/// Descriptor flag: the device writes this buffer.
pub const WRITE: u16 = 2;
/// Descriptor flag: the buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

/// RAM made of regions, each with its start and length.
pub fn ram(regions: &[(u64, usize)]) -> Arc<GuestMemory> {
    let regions = regions
        .iter()
        .map(|(start, len)| Region::anonymous(GuestAddress(*start), *len).expect("test RAM"))
        .collect();
    Arc::new(GuestMemory::from_regions(regions).expect("test RAM in order"))
}

/// A descriptor as the driver writes it (virtio 1.2, 2.7.5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Where the buffer is.
    pub address: u64,
    /// How long it is.
    pub len: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`], or nonsense.
    pub flags: u16,
    /// The index of the next descriptor; in a packed ring, the chain's identifier.
    pub next: u16,
}

impl Descriptor {
    /// The 16 bytes in the memory of a split ring.
    pub fn to_bytes(self) -> [u8; 16] {
        self.in_order(self.flags, self.next)
    }

    /// The 16 bytes in the memory of a packed ring.
    pub fn to_packed_bytes(self) -> [u8; 16] {
        self.in_order(self.next, self.flags)
    }

    fn in_order(self, third: u16, fourth: u16) -> [u8; 16] {
        let bits = u128::from(self.address)
            | u128::from(self.len) << 64
            | u128::from(third) << 96
            | u128::from(fourth) << 112;
        bits.to_le_bytes()
    }
}

/// A buffer of a chain.
#[derive(Debug, Clone, Copy)]
struct Buffer {
    address: u64,
    len: u32,
    writable: bool,
}

/// The driver's side of a queue.
#[derive(Debug)]
pub struct Ring {
    memory: Arc<GuestMemory>,
    layout: Layout,
    heap: Heap,
    /// The latest chain with each identifier.
    chains: HashMap<u16, Chain>,
}

/// The ring layouts.
#[derive(Debug)]
enum Layout {
    Split(Split),
    Packed(Packed),
}

/// Where the bytes of a chain are.
#[derive(Debug)]
struct Chain {
    buffers: Vec<Buffer>,
    /// The memory of all its buffers and of its indirect table. `None` once it was given back.
    block: Option<Block>,
}

impl Ring {
    /// A ring of `size` descriptors at the start of `area`, which is cleared for it; the rest of
    /// the area is for buffers.
    ///
    /// Of `features`, those of rings count: `RING_PACKED` and `EVENT_IDX`.
    pub fn new(memory: &Arc<GuestMemory>, area: Range<u64>, size: u16, features: u64) -> Ring {
        let mut heap = Heap::new(area);
        let mut place = |len, alignment| {
            let start = heap.alloc(len, alignment).start;
            // What an earlier ring has left there is not for this one.
            memory
                .write_slice(&vec![0; len], GuestAddress(start))
                .expect("ring in test RAM");
            start
        };
        let layout = match features & features::RING_PACKED {
            0 => Layout::Split(Split::new(memory, &mut place, size, features)),
            _ => Layout::Packed(Packed::new(memory, &mut place, size, features)),
        };
        Ring {
            memory: Arc::clone(memory),
            layout,
            heap,
            chains: HashMap::new(),
        }
    }

    /// A split ring, whatever was negotiated.
    pub fn split(memory: &Arc<GuestMemory>, area: Range<u64>, size: u16, features: u64) -> Ring {
        Self::new(memory, area, size, features & !features::RING_PACKED)
    }

    /// What a driver would tell the transport. The largest size is the size.
    pub fn config(&self) -> QueueConfig {
        match &self.layout {
            Layout::Split(split) => split.config(),
            Layout::Packed(packed) => packed.config(),
        }
    }

    /// Makes a chain available: a copy of each readable buffer, then writable buffers of these
    /// lengths. Returns the chain's identifier, under which it comes back.
    pub fn add(&mut self, readable: &[&[u8]], writable: &[usize]) -> u16 {
        let (chain, _) = self.chain(readable, writable);
        let descriptors = descriptors(&chain.buffers);
        self.offer(chain, &descriptors)
    }

    /// Does the same with an indirect table, which takes a single descriptor of the ring.
    pub fn add_indirect(&mut self, readable: &[&[u8]], writable: &[usize]) -> u16 {
        let (chain, table) = self.chain(readable, writable);
        let descriptor = self.write_table(table, &descriptors(&chain.buffers));
        self.offer(chain, &[descriptor])
    }

    /// Takes the next chain that the device has used, and how many bytes it says to have written.
    pub fn used(&mut self) -> Option<(u16, u32)> {
        let (id, len) = match &mut self.layout {
            Layout::Split(split) => split.used(),
            Layout::Packed(packed) => packed.used(),
        }?;
        let block = self
            .chains
            .get_mut(&id)
            .and_then(|chain| chain.block.take());
        if let Some(block) = block {
            self.heap.free(block);
        }
        Some((id, len))
    }

    /// The first `len` bytes of the writable buffers of a chain.
    pub fn written(&self, id: u16, len: usize) -> Vec<u8> {
        let buffers = self
            .chains
            .get(&id)
            .into_iter()
            .flat_map(|chain| &chain.buffers);
        let mut bytes = Vec::new();
        for buffer in buffers.filter(|buffer| buffer.writable) {
            bytes.extend(self.read(buffer.address, buffer.len as usize));
        }
        bytes.truncate(len);
        bytes
    }

    /// Whether the device wants the doorbell for what was made available since the last call.
    pub fn must_kick(&mut self) -> bool {
        match &mut self.layout {
            Layout::Split(split) => split.must_kick(),
            Layout::Packed(packed) => packed.must_kick(),
        }
    }

    /// Asks for an interrupt for the next chain that is used. Tells whether one was used already,
    /// for which no interrupt may come.
    pub fn enable_interrupts(&mut self) -> bool {
        match &mut self.layout {
            Layout::Split(split) => split.enable_interrupts(),
            Layout::Packed(packed) => packed.enable_interrupts(),
        }
    }

    /// Asks for no interrupts, as a driver does while it polls.
    pub fn disable_interrupts(&mut self) {
        match &mut self.layout {
            Layout::Split(split) => split.disable_interrupts(),
            Layout::Packed(packed) => packed.disable_interrupts(),
        }
    }

    /// The fields of a split ring, to write anything to.
    pub fn as_split(&mut self) -> &mut Split {
        match &mut self.layout {
            Layout::Split(split) => split,
            Layout::Packed(_) => panic!("the ring is packed"),
        }
    }

    /// The fields of a packed ring, to write anything to.
    pub fn as_packed(&mut self) -> &mut Packed {
        match &mut self.layout {
            Layout::Split(_) => panic!("the ring is split"),
            Layout::Packed(packed) => packed,
        }
    }

    /// How many chains the device has used that were not taken by [`used`](Self::used).
    pub fn used_waiting(&self) -> u16 {
        match &self.layout {
            Layout::Split(split) => split.used_waiting(),
            Layout::Packed(packed) => packed.used_waiting(),
        }
    }

    /// Makes something available that no driver may.
    pub fn corrupt(&mut self) {
        match &mut self.layout {
            Layout::Split(split) => split.set_avail_idx(split.avail_idx().wrapping_add(0x8000)),
            Layout::Packed(packed) => packed.push_avail(&[Descriptor {
                flags: INDIRECT | NEXT,
                ..Descriptor::default()
            }]),
        }
    }

    /// Memory of the test's own, which is never used for anything else.
    pub fn alloc(&mut self, len: usize) -> u64 {
        self.heap.alloc(len, 16).start
    }

    /// Memory of the test's own with these bytes.
    pub fn alloc_bytes(&mut self, bytes: &[u8]) -> u64 {
        let address = self.alloc(bytes.len());
        self.write(address, bytes);
        address
    }

    /// Writes an indirect table. Returns the descriptor that names it.
    pub fn table(&mut self, descriptors: &[Descriptor]) -> Descriptor {
        let address = self.alloc(16 * descriptors.len());
        self.write_table(address, descriptors)
    }

    /// Writes guest memory.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(address))
            .expect("write to test RAM");
    }

    /// Reads guest memory.
    pub fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory
            .read_slice(&mut bytes, GuestAddress(address))
            .expect("read of test RAM");
        bytes
    }

    /// Memory for a chain, with the readable buffers filled. Tells where there is room for a table
    /// of its descriptors.
    fn chain(&mut self, readable: &[&[u8]], writable: &[usize]) -> (Chain, u64) {
        let readable_lengths = readable.iter().map(|bytes| (bytes.len(), false));
        let lengths = readable_lengths.chain(writable.iter().map(|len| (*len, true)));
        let room: usize = lengths
            .clone()
            .map(|(len, _)| len.next_multiple_of(16) + 16)
            .sum();
        let block = self.heap.alloc(room, 16);

        let mut address = block.start;
        let place = |(len, writable): (usize, bool)| {
            let buffer = Buffer {
                address,
                len: length(len),
                writable,
            };
            address += len.next_multiple_of(16) as u64;
            buffer
        };
        let buffers: Vec<Buffer> = lengths.map(place).collect();
        for (buffer, bytes) in buffers.iter().zip(readable) {
            self.write(buffer.address, bytes);
        }
        (
            Chain {
                buffers,
                block: Some(block),
            },
            address,
        )
    }

    fn offer(&mut self, chain: Chain, descriptors: &[Descriptor]) -> u16 {
        let id = match &mut self.layout {
            Layout::Split(split) => split.offer(descriptors),
            Layout::Packed(packed) => packed.offer(descriptors),
        };
        self.chains.insert(id, chain);
        id
    }

    fn write_table(&self, address: u64, descriptors: &[Descriptor]) -> Descriptor {
        let bytes: Vec<u8> = descriptors
            .iter()
            .flat_map(|each| match self.layout {
                Layout::Split(_) => each.to_bytes(),
                Layout::Packed(_) => Descriptor {
                    // There is no chain in the table, only one entry after the other.
                    flags: each.flags & !NEXT,
                    ..*each
                }
                .to_packed_bytes(),
            })
            .collect();
        self.write(address, &bytes);
        Descriptor {
            address,
            len: length(bytes.len()),
            flags: INDIRECT,
            next: 0,
        }
    }
}

/// The descriptors of a chain, one after the other.
fn descriptors(buffers: &[Buffer]) -> Vec<Descriptor> {
    let descriptor = |(index, buffer): (usize, &Buffer)| {
        let write = if buffer.writable { WRITE } else { 0 };
        let is_last = index + 1 == buffers.len();
        let (next_flag, next) = if is_last { (0, 0) } else { (NEXT, index + 1) };
        Descriptor {
            address: buffer.address,
            len: buffer.len,
            flags: write | next_flag,
            next: u16::try_from(next).expect("chain of at most 65536 descriptors"),
        }
    };
    buffers.iter().enumerate().map(descriptor).collect()
}

fn length(len: usize) -> u32 {
    u32::try_from(len).expect("test buffer of less than 4 GiB")
}

/// Guest memory that is given out from its start to its end, then from what was given back.
#[derive(Debug)]
struct Heap {
    fresh: Range<u64>,
    /// Blocks that were given back, by their length, the oldest first. They are neither cut nor
    /// joined.
    freed: BTreeMap<u64, VecDeque<Block>>,
}

/// A piece of the heap.
type Block = Range<u64>;

impl Heap {
    fn new(area: Range<u64>) -> Heap {
        Heap {
            fresh: area,
            freed: BTreeMap::new(),
        }
    }

    fn alloc(&mut self, len: usize, alignment: u64) -> Block {
        let start = self.fresh.start.next_multiple_of(alignment);
        let end = start + len as u64;
        if end <= self.fresh.end {
            self.fresh.start = end;
            return start..end;
        }
        let fits = |blocks: &VecDeque<Block>| {
            let first = blocks.front();
            first.is_some_and(|block| block.start.is_multiple_of(alignment))
        };
        self.freed
            .range_mut(len as u64..)
            .find(|(_, blocks)| fits(blocks))
            .and_then(|(_, blocks)| blocks.pop_front())
            .expect("the test's guest memory is full")
    }

    fn free(&mut self, block: Block) {
        let len = block.end - block.start;
        self.freed.entry(len).or_default().push_back(block);
    }
}
