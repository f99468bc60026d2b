//! A device's configuration space as data (virtio 1.2, 2.5).
//!
//! The transport reads it without asking the device, which may be busy in its worker. The
//! device changes it with [`ConfigSpace::update`]; the driver sees a new generation and so
//! knows that what it read in several pieces was torn.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The bytes of a configuration space, which of them the driver may write, and their generation.
#[derive(Debug)]
pub struct ConfigSpace {
    state: Mutex<State>,
    writable: Range<usize>,
}

#[derive(Debug)]
struct State {
    bytes: Vec<u8>,
    generation: u32,
}

impl ConfigSpace {
    /// A space that the driver can only read.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self::with_writable(bytes, 0..0)
    }

    /// A space of which the driver may write the bytes in `writable`.
    pub fn with_writable(bytes: Vec<u8>, writable: Range<usize>) -> Self {
        ConfigSpace {
            state: Mutex::new(State {
                bytes,
                generation: 0,
            }),
            writable,
        }
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.lock().bytes.len()
    }

    /// Whether the device has no configuration space at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counts up with each [`update`](Self::update), and wraps.
    pub fn generation(&self) -> u32 {
        self.lock().generation
    }

    /// Reads from `offset`; what lies outside of the space reads as 0.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let state = self.lock();
        let source = usize::try_from(offset)
            .ok()
            .and_then(|start| state.bytes.get(start..));
        if let Some(source) = source {
            for (to, from) in data.iter_mut().zip(source) {
                *to = *from;
            }
        }
    }

    /// Takes a write of the driver's, if it lies in the writable range as a whole. Tells whether
    /// it was taken; the rest is ignored, as 2.5.1 allows.
    pub fn write(&self, offset: u64, data: &[u8]) -> bool {
        let Some(start) = usize::try_from(offset)
            .ok()
            .filter(|start| *start >= self.writable.start)
        else {
            return false;
        };
        let Some(end) = start
            .checked_add(data.len())
            .filter(|end| *end <= self.writable.end)
        else {
            return false;
        };
        match self.lock().bytes.get_mut(start..end) {
            Some(target) => target.copy_from_slice(data),
            None => return false,
        }
        true
    }

    /// Changes the bytes on the device's side. Their number stays what it is.
    pub fn update(&self, change: impl FnOnce(&mut [u8])) {
        let mut state = self.lock();
        change(&mut state.bytes);
        state.generation = state.generation.wrapping_add(1);
    }

    // A panic inside `update` cannot leave the bytes in a state that is dangerous to read.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_outside_give_zero() {
        let space = ConfigSpace::new(vec![1, 2, 3]);
        let mut data = [9; 4];
        space.read(2, &mut data);
        assert_eq!(data, [3, 0, 0, 0]);
        space.read(u64::MAX, &mut data);
        assert_eq!(data, [0; 4]);
    }

    #[test]
    fn writes_outside_the_writable_range_are_ignored() {
        let space = ConfigSpace::with_writable(vec![0; 8], 4..8);
        assert!(!space.write(3, &[1, 1]));
        assert!(!space.write(7, &[1, 1]));
        assert!(!space.write(u64::MAX, &[1]));
        assert!(space.write(4, &[1, 2, 3, 4]));
        let mut data = [0; 8];
        space.read(0, &mut data);
        assert_eq!(data, [0, 0, 0, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn an_update_is_a_new_generation() {
        let space = ConfigSpace::new(vec![0; 2]);
        space.update(|bytes| bytes[0] = 7);
        assert_eq!(space.generation(), 1);
    }
}
