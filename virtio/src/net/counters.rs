//! What has passed a card, counted by each of its pairs for itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What has passed a card, and what has not. Counts from its first frame on.
#[derive(Debug)]
pub struct Counters {
    pairs: Vec<Arc<PairCounters>>,
}

/// What has passed one pair. Threads that serve pairs don't write to each other's cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct PairCounters {
    sent: AtomicU64,
    sent_dropped: AtomicU64,
    received: AtomicU64,
    received_dropped: AtomicU64,
}

/// What [`Counters`] say at some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Frames of the guest's that the host side took.
    pub sent: u64,
    /// Frames of the guest's that were dropped: malformed, or there was no way on.
    pub sent_dropped: u64,
    /// Frames that the guest got.
    pub received: u64,
    /// Frames for the guest that did not fit its buffers or that it can't take.
    pub received_dropped: u64,
}

impl Counters {
    /// For this many pairs.
    pub(super) fn new(pairs: usize) -> Self {
        Counters {
            pairs: (0..pairs).map(|_| Arc::default()).collect(),
        }
    }

    /// What they say now, of all pairs together.
    pub fn read(&self) -> Counts {
        self.by_pair().fold(Counts::default(), |sum, pair| Counts {
            sent: sum.sent + pair.sent,
            sent_dropped: sum.sent_dropped + pair.sent_dropped,
            received: sum.received + pair.received,
            received_dropped: sum.received_dropped + pair.received_dropped,
        })
    }

    /// What they say now, of one pair of queues after the other.
    pub fn by_pair(&self) -> impl Iterator<Item = Counts> {
        self.pairs.iter().map(|pair| pair.read())
    }

    pub(super) fn pairs(&self) -> impl Iterator<Item = Arc<PairCounters>> {
        self.pairs.iter().map(Arc::clone)
    }
}

impl PairCounters {
    fn read(&self) -> Counts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            sent: load(&self.sent),
            sent_dropped: load(&self.sent_dropped),
            received: load(&self.received),
            received_dropped: load(&self.received_dropped),
        }
    }

    pub(super) fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn drop_sent(&self) {
        self.sent_dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn drop_received(&self) {
        self.received_dropped.fetch_add(1, Ordering::Relaxed);
    }
}
