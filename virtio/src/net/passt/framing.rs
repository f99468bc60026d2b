//! Frames on a stream: four bytes of length, big-endian, and the frame.
//!
//! A stream may be cut anywhere, and its other end may say anything. What can't be a frame ends the
//! link: where the next one begins is not known any more.
//!
//! Incoming bytes are buffered: one read brings many small frames, where a frame read straight into
//! guest memory would take a read for its length besides. Frames are copied once for it.

use super::super::pair::MAX_FRAME;
use std::io::{self, ErrorKind};
use std::ops::Range;

/// How much is read at once: more than any frame.
const BUFFER: usize = 128 << 10;
/// How long a length is.
const PREFIX: usize = 4;

/// What came from the stream and was not taken.
#[derive(Debug)]
pub struct Inbox {
    bytes: Box<[u8]>,
    used: Range<usize>,
}

impl Default for Inbox {
    fn default() -> Self {
        Inbox {
            bytes: vec![0; BUFFER].into_boxed_slice(),
            used: 0..0,
        }
    }
}

impl Inbox {
    /// Where the next bytes of the stream go. Never empty while no frame is complete.
    pub fn room(&mut self) -> &mut [u8] {
        if self.used.is_empty() {
            self.used = 0..0;
        } else if self.used.start > BUFFER / 2 {
            // What is left of a frame fits in the other half, and moves seldom.
            self.bytes.copy_within(self.used.clone(), 0);
            self.used = 0..self.used.len();
        }
        self.bytes.get_mut(self.used.end..).unwrap_or_default()
    }

    /// So many of them have come.
    pub fn advance(&mut self, count: usize) {
        self.used.end = self.used.end.saturating_add(count).min(BUFFER);
    }

    /// How long the next frame is, if its length has come.
    fn len(&self) -> io::Result<Option<usize>> {
        let waiting = self.bytes.get(self.used.clone()).unwrap_or_default();
        let Some(prefix) = waiting.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*prefix) as usize;
        if len == 0 || len > MAX_FRAME {
            let what = format!("a frame of {len} bytes: 1 to {MAX_FRAME} are possible");
            return Err(io::Error::new(ErrorKind::InvalidData, what));
        }
        Ok(Some(len))
    }

    /// Whether [`take`](Self::take) has something to say.
    pub fn is_ready(&self) -> bool {
        match self.len() {
            Ok(Some(len)) => self.used.len() >= PREFIX + len,
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// The next frame, if all of it has come.
    pub fn take(&mut self) -> io::Result<Option<&[u8]>> {
        let Some(len) = self.len()? else {
            return Ok(None);
        };
        let start = self.used.start.saturating_add(PREFIX);
        let end = start.saturating_add(len);
        if end > self.used.end {
            return Ok(None);
        }
        self.used.start = end;
        Ok(self.bytes.get(start..end))
    }
}

/// The prefix of a frame.
pub fn prefix(len: usize) -> [u8; PREFIX] {
    // Frames are shorter than 64 KiB and a bit.
    u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes()
}
