//! MSI-X: the vector table, and which vector means what (PCI 3.0, 6.8.2; virtio 1.2, 4.1.5.1).
//!
//! Two sides use a vector. The vCPU programs, masks and unmasks it through [`Table`], which the
//! function owns. The device's worker raises it through [`Vectors`], at any time and without a
//! lock: each vector's state is one atomic word.
//!
//! ```text
//!               worker raises it                     vCPU
//!   off         nothing                              enables MSI-X:  -> masked or open
//!   masked      is pending                           unmasks:        -> open, sends what is pending
//!   open        sends the message                    masks:          -> masked
//! ```
//!
//! A worker may be about to send while the vCPU changes the message, and what it sends then may
//! go nowhere. So the word counts changes, and a worker that finds another count after sending
//! raises once more: an interrupt may come twice, but is never lost.

use crate::Irq;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering::SeqCst};

/// Message-signalled interrupts as the machine has them.
pub trait Msi: Send + Sync {
    /// How many vectors the function may have, from 1 to 2048. The same at each call.
    fn vectors(&self) -> u16;

    /// From now on, `vector` sends `message`. `None`: it is masked or off and will not be
    /// signalled, so whatever it sends may stay as it is. The message is what a guest wrote: one
    /// that means nothing is sent nowhere.
    fn program(&self, vector: u16, message: Option<Message>);

    /// Sends the message of `vector`.
    fn signal(&self, vector: u16);
}

/// What a vector sends: a write of `data` to `address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub address: u64,
    /// What.
    pub data: u32,
}

/// The most vectors that a table can have.
pub(super) const MAX_VECTORS: u16 = 2048;
/// "No interrupt", where a vector's number is expected.
pub(super) const NO_VECTOR: u16 = 0xffff;
/// The size of an entry.
const ENTRY: u64 = 16;
/// Where its mask is in an entry.
const VECTOR_CONTROL: u64 = 12;

/// Bits of a vector's state: what becomes of it when it is raised. Neither: MSI-X is off.
const OPEN: u32 = 1;
const MASKED: u32 = 2;
const MODE: u32 = OPEN | MASKED;
/// It was raised while it was masked.
const PENDING: u32 = 4;
/// The rest counts how often the vCPU has changed something.
const CHANGE: u32 = 8;

/// The vectors as the device raises them.
pub(super) struct Vectors {
    msi: Arc<dyn Msi>,
    states: Vec<AtomicU32>,
    config: AtomicU16,
    queues: Vec<AtomicU16>,
}

impl Vectors {
    pub fn new(msi: Arc<dyn Msi>, queues: usize) -> Self {
        let unassigned = || AtomicU16::new(NO_VECTOR);
        let count = msi.vectors();
        Vectors {
            msi,
            states: (0..count).map(|_| AtomicU32::new(0)).collect(),
            config: unassigned(),
            queues: (0..queues).map(|_| unassigned()).collect(),
        }
    }

    /// The vector for changes of the configuration.
    pub fn config(&self) -> u16 {
        self.config.load(SeqCst)
    }

    /// Takes a vector that there is, and else none, which the driver reads back.
    pub fn set_config(&self, vector: u16) {
        self.config.store(self.existing(vector), SeqCst);
    }

    /// The vector of a queue.
    pub fn queue(&self, queue: u32) -> u16 {
        let vector = |vector: &AtomicU16| vector.load(SeqCst);
        self.slot(queue).map_or(NO_VECTOR, vector)
    }

    /// Takes a vector that there is, and else none, which the driver reads back.
    pub fn set_queue(&self, queue: u32, vector: u16) {
        if let Some(slot) = self.slot(queue) {
            slot.store(self.existing(vector), SeqCst);
        }
    }

    /// The device was reset: nothing is assigned, and nothing from before is sent any more.
    pub fn reset(&self) {
        self.config.store(NO_VECTOR, SeqCst);
        for queue in &self.queues {
            queue.store(NO_VECTOR, SeqCst);
        }
        for state in &self.states {
            state.fetch_and(!PENDING, SeqCst);
        }
    }

    fn slot(&self, queue: u32) -> Option<&AtomicU16> {
        self.queues.get(usize::try_from(queue).ok()?)
    }

    fn existing(&self, vector: u16) -> u16 {
        match usize::from(vector) < self.states.len() {
            true => vector,
            false => NO_VECTOR,
        }
    }

    /// Whether a vector was raised while it was masked.
    pub fn is_pending(&self, vector: usize) -> bool {
        let pending = |state: &AtomicU32| state.load(SeqCst) & PENDING != 0;
        self.states.get(vector).is_some_and(pending)
    }

    /// On the worker's side.
    fn raise(&self, vector: u16) {
        let Some(state) = self.states.get(usize::from(vector)) else {
            return;
        };
        loop {
            let seen = state.load(SeqCst);
            match seen & MODE {
                OPEN => {
                    self.msi.signal(vector);
                    if state.load(SeqCst) | PENDING == seen | PENDING {
                        return;
                    }
                }
                MASKED => {
                    let pending = state.compare_exchange(seen, seen | PENDING, SeqCst, SeqCst);
                    if pending.is_ok() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// On the vCPU's side.
    fn set_mode(&self, vector: u16, mode: u32) {
        let Some(state) = self.states.get(usize::from(vector)) else {
            return;
        };
        let keep = if mode == MASKED { PENDING } else { 0 };
        let next = |state: u32| {
            let kept = state & !(MODE | PENDING) | state & keep | mode;
            Some(kept.wrapping_add(CHANGE))
        };
        let before = state.fetch_update(SeqCst, SeqCst, next).unwrap_or(0);
        if mode == OPEN && before & PENDING != 0 {
            self.msi.signal(vector);
        }
    }
}

impl Irq for Vectors {
    fn queue(&self, queue: u16) {
        self.raise(Vectors::queue(self, queue.into()));
    }

    fn config(&self) {
        self.raise(Vectors::config(self));
    }
}

/// The vectors as the driver programs them.
pub(super) struct Table {
    vectors: Arc<Vectors>,
    enabled: bool,
    function_masked: bool,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    message: Message,
    masked: bool,
    /// What the machine was told.
    programmed: Option<Message>,
}

impl Table {
    pub fn new(vectors: Arc<Vectors>) -> Self {
        // All are masked after a reset (6.8.2.9).
        let entry = Entry {
            message: Message {
                address: 0,
                data: 0,
            },
            masked: true,
            programmed: None,
        };
        Table {
            enabled: false,
            function_masked: false,
            entries: vec![entry; vectors.states.len()],
            vectors,
        }
    }

    /// Takes what the capability's message control says.
    pub fn control(&mut self, enabled: bool, function_masked: bool) {
        if (self.enabled, self.function_masked) == (enabled, function_masked) {
            return;
        }
        (self.enabled, self.function_masked) = (enabled, function_masked);
        for vector in 0..self.entries.len() {
            self.apply(vector);
        }
    }

    /// Where the vectors' messages are: all of an entry but its mask.
    pub fn messages(&self) -> impl Iterator<Item = Range<u64>> {
        let starts = (0..).step_by(ENTRY as usize);
        starts
            .take(self.entries.len())
            .map(|start| start..start + VECTOR_CONTROL)
    }

    /// An access to the table: 4 or 8 bytes, aligned. Others read as 0.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        read_words(offset, data, |offset| self.word(offset));
    }

    /// An access to the table: 4 or 8 bytes, aligned. Others are ignored.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if !is_access(offset, data.len()) {
            return;
        }
        let Some((index, start)) = place(offset) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(index) else {
            return;
        };
        for (at, word) in (start..).step_by(4).zip(data.chunks_exact(4)) {
            let Ok(word) = <[u8; 4]>::try_from(word).map(u32::from_le_bytes) else {
                return;
            };
            let address = &mut entry.message.address;
            match at {
                0 => *address = *address & !0xffff_ffff | u64::from(word),
                4 => *address = *address & 0xffff_ffff | u64::from(word) << 32,
                8 => entry.message.data = word,
                // Vector control: all but the mask is reserved.
                _ => entry.masked = word & 1 != 0,
            }
        }
        self.apply(index);
    }

    /// An access to the pending bits, which the driver can only read.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        let word = |offset: u64| {
            let first = usize::try_from(offset).ok()?.checked_mul(8)?;
            let bits = (0..32).map(|bit| (bit, first.saturating_add(bit)));
            Some(bits.fold(0, |word, (bit, vector)| {
                word | u32::from(self.vectors.is_pending(vector)) << bit
            }))
        };
        read_words(offset, data, word);
    }

    fn word(&self, offset: u64) -> Option<u32> {
        let (index, at) = place(offset)?;
        let entry = self.entries.get(index)?;
        Some(match at {
            0 => entry.message.address as u32,
            4 => (entry.message.address >> 32) as u32,
            8 => entry.message.data,
            _ => entry.masked.into(),
        })
    }

    /// Makes of a vector what the driver has said that it should be.
    fn apply(&mut self, index: usize) {
        let Some(entry) = self.entries.get_mut(index) else {
            return;
        };
        let Ok(vector) = u16::try_from(index) else {
            return;
        };
        let (mode, message) = match (self.enabled, self.function_masked || entry.masked) {
            (false, _) => (0, None),
            (true, true) => (MASKED, None),
            (true, false) => (OPEN, Some(entry.message)),
        };
        if message != entry.programmed {
            // Held back until the message is there, and nobody sends what isn't there any more.
            let held = if self.enabled { MASKED } else { 0 };
            self.vectors.set_mode(vector, held);
            self.vectors.msi.program(vector, message);
            entry.programmed = message;
        }
        self.vectors.set_mode(vector, mode);
    }
}

/// The entry of a table offset, and the offset in it.
fn place(offset: u64) -> Option<(usize, u64)> {
    Some((usize::try_from(offset / ENTRY).ok()?, offset % ENTRY))
}

/// What 6.8.2 wants of software: aligned accesses of 4 or 8 bytes.
fn is_access(offset: u64, len: usize) -> bool {
    match len {
        4 => offset.is_multiple_of(4),
        8 => offset.is_multiple_of(8),
        _ => false,
    }
}

fn read_words(offset: u64, data: &mut [u8], word: impl Fn(u64) -> Option<u32>) {
    data.fill(0);
    if is_access(offset, data.len()) {
        for (offset, bytes) in (offset..).step_by(4).zip(data.chunks_exact_mut(4)) {
            bytes.copy_from_slice(&word(offset).unwrap_or(0).to_le_bytes());
        }
    }
}
